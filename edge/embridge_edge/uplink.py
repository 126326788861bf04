"""The uplink: delivers what the spool holds until the cloud says it has it, over as many connections as it takes."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import NoReturn

import aiomqtt
import msgspec

from embridge_edge.courier import Courier
from embridge_edge.mqtt import Client
from embridge_edge.spool import Item
from embridge_shared.clock import Clock
from embridge_shared.erasure import SignedOrder
from embridge_shared.errors import ConfigError, DataError, EmbridgeError
from embridge_shared.settings import Settings
from embridge_shared.tls import tls_context
from embridge_shared.wire import topics
from embridge_shared.wire.messages import CommitReport, Desired, EdgeState, pack, unpack

logger = logging.getLogger(__name__)

_BACKOFF_MIN_S = 0.25
_STATE_EVERY_S = 10.0
_PUBLISH_TIMEOUT_S = 10.0
_ASIDE = 64


class LinkState(StrEnum):
    """Where the link stands."""

    CONNECTING = "connecting"
    ONLINE = "online"
    WAITING = "waiting"


class Uplink:
    """Keeps the edge connected, sends, and settles the spool by the cloud's commit reports.

    Args:
        settings: Broker and window.
        courier: The spool.
        clock: Paces resends and backoff.
        state: Tells what the edge is, for the retained state.
        on_desired: Called with what the cloud wants the edge to run.
        on_order: Called with orders to erase; they are not checked yet.
        on_block: Called with blocks of the update repository; raises DataError for what is none.
        rng: Jitter of the backoff.
    """

    def __init__(
        self,
        settings: Settings,
        courier: Courier,
        clock: Clock,
        *,
        state: Callable[[], EdgeState],
        on_desired: Callable[[Desired], Awaitable[None]],
        on_order: Callable[[SignedOrder], None] = lambda _: None,
        on_block: Callable[[bytes], None] = lambda _: None,
        rng: random.Random | None = None,
    ) -> None:
        self._mqtt = settings.mqtt
        self._edge = settings.edge
        self._courier = courier
        self._clock = clock
        self._state = state
        self._on_desired = on_desired
        self._on_order = on_order
        self._on_block = on_block
        self._rng = rng or random.Random()  # noqa: S311
        self._inflight: dict[int, tuple[int, int]] = {}  # spool id -> (sent, monotonic ns; tries)
        self._cursor = 0
        self._wake = asyncio.Event()
        self._state_changed = asyncio.Event()
        self._aside: deque[tuple[str, bytes, int]] = deque(maxlen=_ASIDE)
        self._aside_waits = asyncio.Event()
        self.link = LinkState.CONNECTING
        self.sent = 0
        self.resent = 0

    def notify(self) -> None:
        """Something new lies in the spool."""
        self._wake.set()

    def state_changed(self) -> None:
        """Publish the state now."""
        self._state_changed.set()

    def say(self, topic: str, payload: bytes, qos: int = 0) -> None:
        """Publish something that counts only now: once, and not at all while there is no link."""
        if self.link is LinkState.ONLINE:
            self._aside.append((topic, payload, qos))
            self._aside_waits.set()

    async def run(self) -> NoReturn:
        """Stay connected for ever."""
        backoff_s = _BACKOFF_MIN_S
        while True:
            self.link = LinkState.CONNECTING
            began_ns, error = self._clock.monotonic_ns(), "the connection ended"
            try:
                await self._serve()
            except* (aiomqtt.MqttError, OSError, ConfigError) as group:
                # A certificate that is being replaced may not fit its key for a moment.
                error = str(_first(group))
            self.link = LinkState.WAITING
            if (self._clock.monotonic_ns() - began_ns) * 1e-9 > self._edge.backoff_max_s:
                backoff_s = _BACKOFF_MIN_S
            pause_s = backoff_s * self._rng.uniform(0.5, 1.0)
            logger.warning(
                "no link to %s:%s (%s; `embridge edge check` may tell why); what is recorded waits in the spool, "
                "next attempt in %.1f s",
                self._mqtt.host,
                self._mqtt.port,
                error,
                pause_s,
            )
            await self._clock.sleep(pause_s)
            backoff_s = min(2 * backoff_s, self._edge.backoff_max_s)

    async def _serve(self) -> None:
        name = self._edge.name
        client = Client(
            self._mqtt.host,
            self._mqtt.port,
            identifier=f"edge-{name}",
            username=self._mqtt.username or None,
            password=self._mqtt.password.get_secret_value() or None,
            protocol=aiomqtt.ProtocolVersion.V311,
            keepalive=self._mqtt.keepalive_s,
            clean_session=True,
            will=aiomqtt.Will(topics.state_topic(name), pack(self._parting()), qos=1, retain=True),
            tls_context=tls_context(self._mqtt),
            timeout=_PUBLISH_TIMEOUT_S,
            max_inflight_messages=self._edge.window,
        )
        client.pending_calls_threshold = self._edge.window + 8
        async with client:
            wanted = (topics.commit_topic, topics.desired_topic, topics.orders_topic, topics.blocks_topic)
            await client.subscribe([(topic(name), 1) for topic in wanted])
            self._inflight.clear()
            self._cursor = 0
            self._aside.clear()
            self.link = LinkState.ONLINE
            logger.info("connected to %s:%s", self._mqtt.host, self._mqtt.port)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._receive(client), name="uplink-receive")
                    tasks.create_task(self._send(client), name="uplink-send")
                    tasks.create_task(self._tell(client), name="uplink-state")
                    tasks.create_task(self._say(client), name="uplink-aside")
            finally:
                if self.link is LinkState.ONLINE and _being_cancelled():
                    await self._say_goodbye(client)

    async def _say_goodbye(self, client: Client) -> None:
        # A clean disconnect suppresses the last will, so the state is set by hand.
        try:
            async with asyncio.timeout(2):
                await client.publish(topics.state_topic(self._edge.name), pack(self._parting()), qos=1, retain=True)
        except (aiomqtt.MqttError, TimeoutError) as error:
            logger.debug("no goodbye: %s", error)

    def _parting(self) -> EdgeState:
        """What the edge is while it is away: all that it was, but online."""
        return msgspec.structs.replace(self._state(), online=False)

    async def _send(self, client: Client) -> None:
        while True:
            self._wake.clear()
            items = await self._late()
            room = self._edge.window - len(self._inflight)
            if room > 0:
                fresh = await self._courier.pending(self._cursor, room)
                self._cursor = fresh[-1].id if fresh else self._cursor
                items += fresh
            if items:
                await self._publish(client, items)
                continue
            try:
                async with asyncio.timeout(self._edge.resend_s / 4):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _publish(self, client: Client, items: list[Item]) -> None:
        now = self._clock.monotonic_ns()
        for item in items:
            self._inflight[item.id] = (now, self._inflight.get(item.id, (0, 0))[1] + 1)
        await asyncio.gather(*(client.publish(i.topic, i.payload, qos=1) for i in items))
        self.sent += len(items)

    async def _say(self, client: Client) -> None:
        while True:
            self._aside_waits.clear()
            while self._aside:
                topic, payload, qos = self._aside.popleft()
                await client.publish(topic, payload, qos=qos)
            await self._aside_waits.wait()

    async def _late(self) -> list[Item]:
        """What was sent long ago and is not covered yet."""
        overdue = self._overdue()
        items = await self._courier.fetch(overdue) if overdue else []
        # A report may have let items go while they were being sent: they no longer count as in flight.
        for gone in set(overdue).difference(i.id for i in items):
            self._inflight.pop(gone, None)
        self.resent += len(items)
        return items

    def _overdue(self) -> list[int]:
        # Each try waits twice as long: an ingester that is down must not fill the broker with copies.
        now, patience = self._clock.monotonic_ns(), round(self._edge.resend_s * 1e9)
        return [i for i, (sent, tries) in self._inflight.items() if now - sent > patience << min(tries - 1, 4)]

    async def _receive(self, client: Client) -> None:
        commits, desired = topics.commit_topic(self._edge.name), topics.desired_topic(self._edge.name)
        async for message in client.messages:
            payload = bytes(message.payload) if isinstance(message.payload, bytes | bytearray) else b""
            try:
                if message.topic.value == commits:
                    await self._settle(unpack(payload, CommitReport))
                elif message.topic.value == desired and payload:
                    await self._on_desired(unpack(payload, Desired))
                elif message.topic.value == topics.blocks_topic(self._edge.name):
                    self._on_block(payload)
                elif message.topic.value == topics.orders_topic(self._edge.name):
                    self._on_order(SignedOrder.unpack(payload))
            except DataError as error:
                logger.warning("ignored a message on %s: %s", message.topic, error)

    async def _settle(self, report: CommitReport) -> None:
        for refusal in report.refused:
            logger.error(
                "the cloud refused stream %s at %s: %s", refusal.stream, refusal.first, refusal.detail or refusal.reason
            )
        try:
            settled = await self._courier.settle(report)
        except EmbridgeError as error:
            # What was not forgotten is sent again and reported again.
            logger.warning("the spool cannot forget what the cloud holds: %s", error)
            return
        for gone in settled:
            self._inflight.pop(gone, None)
        self._wake.set()

    async def _tell(self, client: Client) -> None:
        while True:
            self._state_changed.clear()
            await client.publish(topics.state_topic(self._edge.name), pack(self._state()), qos=1, retain=True)
            try:
                async with asyncio.timeout(_STATE_EVERY_S):
                    await self._state_changed.wait()
            except TimeoutError:
                continue


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
