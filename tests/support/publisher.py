"""A small edge over real MQTT: publishes, listens to commit reports, sends again what is not covered."""

from __future__ import annotations

import asyncio
import contextlib
from uuid import UUID

import aiomqtt

from embridge_shared.errors import DataError
from embridge_shared.wire.messages import CommitReport, EdgeState, pack, unpack
from embridge_shared.wire.topics import commit_topic, state_topic
from support.edges import EdgeSpool, Spooled


class TestEdge:
    """Delivers messages until the cloud says that it has sealed the session."""

    __test__ = False

    def __init__(self, edge: str, messages, *, window: int = 32, resend_s: float = 1.0, pace_s: float = 0.0) -> None:
        self.edge = edge
        self.spool = EdgeSpool([])
        self.waiting = list(messages)
        self.window = window
        self.resend_s = resend_s
        self.pace_s = pace_s
        self.sent = 0
        self.resent = 0
        self.reports: list[CommitReport] = []
        self._sent_at: dict[int, float] = {}
        self._changed = asyncio.Event()

    async def deliver(self, host: str, port: int, session: UUID, *, timeout_s: float = 60.0) -> None:
        async with asyncio.timeout(timeout_s):
            while session not in self.spool.sealed:
                with contextlib.suppress(aiomqtt.MqttError):
                    await self._serve(host, port, session)
                await asyncio.sleep(0.1)

    async def _serve(self, host: str, port: int, session: UUID) -> None:
        async with aiomqtt.Client(host, port, identifier=f"edge-{self.edge}", timeout=1) as client:
            client.pending_calls_threshold = 1000
            await client.subscribe(commit_topic(self.edge), qos=1)
            state = pack(EdgeState(edge=self.edge, online=True))
            await client.publish(state_topic(self.edge), state, qos=1, retain=True)
            self._sent_at.clear()
            listening = asyncio.create_task(self._listen(client))
            try:
                while session not in self.spool.sealed:
                    if listening.done():
                        await listening
                    await self._send(client)
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)

    async def _send(self, client: aiomqtt.Client) -> None:
        loop = asyncio.get_running_loop()
        while self.waiting and len(self.spool.items) < self.window:
            self.spool.items.append(Spooled.of(*self.waiting.pop(0)))
            if self.pace_s:
                break
        now = loop.time()
        due = [i for i in self.spool.items if now - self._sent_at.get(id(i), -1e9) > self.resend_s]
        for item in due:
            self.resent += id(item) in self._sent_at
            self._sent_at[id(item)] = now
        self.sent += len(due)
        await asyncio.gather(*(client.publish(i.topic, i.payload, qos=1) for i in due))
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.pace_s or 0.05):
                await self._changed.wait()
                await asyncio.sleep(self.pace_s)

    async def _listen(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            with contextlib.suppress(DataError):
                report = unpack(bytes(message.payload), CommitReport)
                self.reports.append(report)
                self.spool.settle(report)
                self._changed.set()
