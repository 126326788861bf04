"""Sessions to a running cloud: through its broker, as an edge would send them, until it has sealed them."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from uuid import UUID

from embridge_cloud.exchange.door import Arrival, Outcome, checked
from embridge_cloud.exchange.recording import Recording
from embridge_cloud.store.ranges import RangeSet
from embridge_cloud.store.rows import EVENTS
from embridge_cloud.store.sealed import Catalogue
from embridge_cloud.transport import Connection, MqttTransport
from embridge_shared.errors import DataError, NetworkError, Reason
from embridge_shared.settings import MqttSettings
from embridge_shared.wire import codec, topics
from embridge_shared.wire.messages import CommitReport, EventMessage, unpack
from embridge_shared.wire.topics import commit_topic

logger = logging.getLogger(__name__)

_AT_ONCE = 32
_RESEND_S = 5.0
_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class _Message:
    """A message, and the range of samples or events it stands for."""

    topic: str
    payload: bytes
    stream: int
    first: int
    end: int


@dataclass(slots=True)
class _Told:
    """What the cloud said of a session."""

    streams: dict[int, RangeSet] = field(default_factory=dict)
    sealed: bool = False
    fault: DataError | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, report: CommitReport) -> None:
        for commit in report.streams:
            held = RangeSet()
            for a, b in RangeSet(commit.holes).missing(0, commit.until):
                held.add(a, b)
            self.streams[commit.stream] = held
        for refusal in report.refused:
            self.fault = DataError(
                f"the cloud refused part of session {report.session}: {refusal.detail or refusal.reason}",
                reason=Reason(refusal.reason),
                hint="" if refusal.reason == Reason.ERASED else "What was refused lies in its quarantine.",
            )
        self.sealed = self.sealed or report.sealed
        self.changed.set()

    def covers(self, message: _Message) -> bool:
        held = self.streams.get(message.stream)
        return held is not None and held.covers(message.first, message.end)


class BrokerDoor:
    """A running cloud's broker.

    Args:
        mqtt: The broker; its access list must let this identity send as the session's edge.
        catalogue: What is sealed, where this machine can see it.
        patience_s: How long nothing may be heard.
    """

    def __init__(self, mqtt: MqttSettings, catalogue: Catalogue, *, patience_s: float = _PATIENCE_S) -> None:
        self._mqtt = mqtt
        self._catalogue = catalogue
        self._patience_s = patience_s

    def bring(self, recording: Recording) -> Outcome:
        """Send a session until it is sealed; one that is there already changes nothing."""
        held = checked(recording, self._catalogue)
        if held is not None:
            return held
        asyncio.run(self.deliver(recording))
        content = recording.content_hash
        session = recording.session.id
        if session in self._catalogue.ids() and self._catalogue.get(session).content_hash != content:
            raise DataError(f"session {session} was sealed with other samples than it had", reason=Reason.HASH_MISMATCH)
        return Outcome(session, Arrival.STORED, content)

    async def deliver(self, recording: Recording) -> None:
        """Send the messages of a session until the cloud says it has sealed it.

        Raises:
            DataError: The cloud refused some of it.
            NetworkError: Nothing was heard for too long.
        """
        edge, session = recording.session.edge, recording.session.id
        messages, told = [_described(t, p) for t, p in recording.messages()], _Told()
        transport = MqttTransport(self._mqtt, f"import-{edge}")
        async with transport.connect([commit_topic(edge)]) as connection:
            listening = asyncio.create_task(_listen(connection, session, told))
            try:
                await self._until_sealed(connection, messages, told, listening)
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)

    async def _until_sealed(
        self, connection: Connection, messages: list[_Message], told: _Told, listening: asyncio.Task[None]
    ) -> None:
        loop = asyncio.get_running_loop()
        heard = loop.time()
        due = messages
        while not told.sealed:
            await _send(connection, due)
            told.changed.clear()
            waited = asyncio.create_task(told.changed.wait())
            done, _ = await asyncio.wait({waited, listening}, timeout=_RESEND_S, return_when=asyncio.FIRST_COMPLETED)
            waited.cancel()
            if listening in done:
                await listening
            if told.fault is not None:
                raise told.fault
            heard = loop.time() if waited in done else heard
            if loop.time() - heard > self._patience_s:
                raise NetworkError(
                    f"the cloud said nothing of the session for {self._patience_s:.0f} s",
                    reason=Reason.TIMEOUT,
                    hint="Is it running, and may this identity send as this edge? Or stop it and import again.",
                )
            # A report tells of what is committed; what it does not is on its way until the wait was in vain.
            due = [] if waited in done else [m for m in messages if not told.covers(m)] or messages[:1]


async def _send(connection: Connection, messages: list[_Message]) -> None:
    for at in range(0, len(messages), _AT_ONCE):
        await asyncio.gather(*(connection.publish(m.topic, m.payload) for m in messages[at : at + _AT_ONCE]))


async def _listen(connection: Connection, session: UUID, told: _Told) -> None:
    async for deliveries in connection.deliveries():
        for delivery in deliveries:
            delivery.acknowledge()
            try:
                report = unpack(delivery.payload, CommitReport)
            except DataError as error:
                logger.warning("a report that cannot be read: %s", error)
                continue
            if report.session == session:
                told.take(report)


def _described(topic: str, payload: bytes) -> _Message:
    if topic.startswith(f"{topics.ROOT}/event/"):
        seq = unpack(payload, EventMessage).seq
        return _Message(topic, payload, EVENTS, seq, seq + 1)
    chunk = codec.decode(payload)
    return _Message(topic, payload, chunk.stream, chunk.first, chunk.end)
