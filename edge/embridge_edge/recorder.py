"""Records one session: sources in, chunks and events into the spool, live decoding beside it.

Everything is written as it comes; a session that was cut off by a crash goes on at the first sample the spool does not
have. Sources that play something back give the same samples again, so nothing is missing and nothing is there twice.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from embridge_edge import wall
from embridge_edge.band_log import BandLog
from embridge_edge.capture import Chunker
from embridge_edge.courier import Courier
from embridge_edge.digest import Digest, StreamDigest, decode_digest, quality_digest
from embridge_edge.live import LiveDecoding, Outcome
from embridge_edge.plan import SessionPlan
from embridge_edge.quality import QualityWatch
from embridge_edge.source import Packet, Source
from embridge_edge.spool import ANNOTATIONS, EVENTS, Item, KnownSession, Progress, Spool
from embridge_edge.takes import Take
from embridge_shared.clock import Clock
from embridge_shared.errors import DataError, DeviceError, EmbridgeError
from embridge_shared.session import Event, Marker, Participant, Session, SessionClosed, SessionOpened, WearingChanged
from embridge_shared.signal import Chunk, Modality
from embridge_shared.wire import codec, topics
from embridge_shared.wire.messages import EventMessage, StreamQuality, pack

if TYPE_CHECKING:
    from embridge_edge.lsl_out import LslOut

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Begun:
    """A session that lies in the spool: new, or cut off and to be continued.

    Attributes:
        session: The session.
        progress: How far each of its streams got, by ordinal.
    """

    session: Session
    progress: dict[int, Progress]

    def until(self, ordinal: int) -> int:
        """Index after the last sample, or the last event, that is spooled."""
        return self.progress.get(ordinal, Progress()).until


class Company(Protocol):
    """Goes along with a recording: sees every packet once it is recorded, and may write events into the session."""

    def joins(self, recorder: Recorder) -> None:
        """The recording begins."""

    async def seen(self, ordinal: int, packet: Packet) -> None:
        """A packet of a source was recorded; the source waits meanwhile."""

    async def leaves(self, reason: str) -> None:
        """Every source has ended, or a device is lost; what is written now is the last of the session."""


async def begin(
    plan: SessionPlan,
    take: Take,
    *,
    edge: str,
    courier: Courier,
    clock: Clock,
    live: LiveDecoding | None,
    note: bytes | None = None,
) -> Begun:
    """Open a planned session, or the one that was begun under its name.

    Args:
        plan: What and whose.
        take: Its streams.
        edge: Name of this edge.
        courier: The spool.
        clock: Wall and monotonic time of the start.
        live: Decodes beside the recording, or None.
        note: Kept with the opening of a new session by whoever leads it.

    Raises:
        OperatorError: The spool is full or locked.
        DataError: The plan changed since the session was begun.
    """
    streams = (*(s.spec for s in take.sources), *(live.specs if live is not None else ()))
    known = await courier.call(courier.spool.session, plan.name)
    if known is not None:
        session = msgspec.msgpack.decode(known.description, type=Session)
        moved = live is not None and bool(session.release) and live.release != session.release
        if moved and session.streams[: len(take.sources)] == streams[: len(take.sources)]:
            logger.warning(
                "session %s goes on without decoding: it was begun under %s, which runs no more",
                plan.name,
                session.release,
            )
        elif session.streams != streams:
            raise DataError(
                f"session {plan.name!r} was begun with other streams than the plan now asks for",
                hint="Give the changed session a name of its own.",
            )
        logger.info("session %s goes on after an interruption", plan.name)
        return Begun(session, await courier.call(courier.spool.progress, session.id))
    session = Session(
        id=uuid.uuid4(),
        edge=edge,
        participant=Participant(id=plan.participant, consent_version=plan.consent_version),
        placement=plan.placement,
        purpose=plan.purpose,
        protocol=plan.protocol,
        streams=streams,
        started_ns=clock.wall_ns(),
        host_ns=clock.monotonic_ns(),
        source=take.name,
        release=live.release if live is not None else "",
        split=plan.split,
    )
    opening = _event_item(session, 0, SessionOpened(session=session))
    await courier.call(courier.spool.begin, session.id, plan.name, msgspec.msgpack.encode(session), opening, note)
    return Begun(session, {EVENTS: Progress(1, 1, 1)})


def close(spool: Spool, known: KnownSession, reason: str, t_ns: int) -> None:
    """Close a session that was cut off, with what the spool has seen of it.

    Args:
        spool: Where it lies.
        known: The session; open.
        reason: Why it ends without the rest.
        t_ns: Unix time, ns.
    """
    session = msgspec.msgpack.decode(known.description, type=Session)
    progress = spool.progress(session.id)
    totals = tuple(progress.get(i, Progress()).until for i in range(len(session.streams)))
    closing = SessionClosed(t_ns=t_ns, totals=totals, reason=reason)
    spool.end(session.id, _event_item(session, progress[EVENTS].until, closing))


class Recorder:
    """Records a begun session.

    Args:
        plan: What and whose.
        begun: The session.
        take: Where samples and annotations come from.
        chunk_s: Length of a chunk.
        courier: The spool.
        clock: Wall and monotonic time.
        live: Decodes beside the recording, or None.
        lsl_out: Republish everything as LSL outlets.
        notes: Marked at its beginning.
        spooled: Called when something new lies in the spool.
        kept: Called with a source's ordinal when samples of it lie in the spool.
        company: Goes along.
    """

    def __init__(
        self,
        plan: SessionPlan,
        begun: Begun,
        take: Take,
        *,
        chunk_s: float,
        courier: Courier,
        clock: Clock,
        live: LiveDecoding | None,
        spooled: Callable[[], None],
        kept: Callable[[int], None] | None = None,
        lsl_out: bool = False,
        notes: tuple[str, ...] = (),
        company: Company | None = None,
    ) -> None:
        self._plan = plan
        self._company = company
        self._notes = notes
        self.session = begun.session
        self._begun = begun
        self._take = take
        self._courier = courier
        self._clock = clock
        self._live = live
        self._spooled = spooled
        self._kept = kept
        self.kept_bytes = 0
        """Written into the spool by this recorder: payloads of chunks."""
        self._seq = begun.until(EVENTS)
        # Sessions begun before annotations were counted hold no other events.
        self._annotated = begun.progress.get(ANNOTATIONS, Progress(self._seq - 1)).until
        sources = range(len(take.sources))
        self._chunkers = [Chunker(begun.session, i, chunk_s, until=begun.until(i)) for i in sources]
        # Decoding and annotations follow the first band.
        emg = [i for i in sources if take.sources[i].spec.modality is Modality.EMG]
        self._lead = next(iter(emg), 0)
        self._watches = {i: QualityWatch(take.sources[i].spec, i, first=begun.until(i), clock=clock) for i in emg}
        if live is not None:
            live.begin(begun.session, len(sources), begun.until(len(sources)))
        self._bands = BandLog(begun.session, take, self._write)
        self._out = self._republished() if lsl_out else None

    def _republished(self) -> LslOut:
        # LSL is loaded by edges that speak it.
        from embridge_edge.lsl_out import LslOut

        return LslOut(
            self.session,
            [c.clock for c in self._chunkers],
            self._take.annotations[self._annotated :],
            clock=self._clock,
        )

    @property
    def lead(self) -> int:
        """Ordinal of the stream that decoding and annotations follow: the first band's."""
        return self._lead

    def time_ns(self, sample: int) -> int:
        """Best present estimate of the Unix time of a sample of the lead, ns."""
        return self._chunkers[self._lead].time_ns(sample)

    @property
    def skew_ppm(self) -> float:
        """How much slower the lead's device counts than this machine, parts per million."""
        return self._chunkers[self._lead].clock.skew_ppm

    async def tell(self, events: Sequence[Event], note: bytes | None = None) -> None:
        """Write events from beside the sources, and the session's note with them, all or none.

        Raises:
            OperatorError: The spool is full.
        """
        if events:
            await self._write(events, note)
        elif note is not None:
            await self._courier.call(self._courier.spool.remember, self.session.id, note)

    @property
    def decoding(self) -> LiveDecoding | None:
        """What decodes it; None where nothing does."""
        return self._live

    def quality(self) -> tuple[StreamQuality, ...]:
        """What the channels are worth now, of streams that were judged."""
        return tuple(w.state for w in self._watches.values() if w.state is not None)

    def wearing(self) -> WearingChanged | None:
        """How the band sits and whether the wearer drifts; None where nobody watches."""
        drift = None if self._live is None else self._live.drift
        return None if drift is None else drift.told(self._clock.wall_ns())

    async def run(self) -> Digest:
        """Record to the end of every source.

        Raises:
            OperatorError: The spool is full.
        """
        began_ns = self._clock.monotonic_ns()
        self._spooled()
        if self._company is not None:
            self._company.joins(self)
        await self._write([Marker(text=note, t_ns=self._clock.wall_ns()) for note in self._notes])
        tasks: list[asyncio.Task[None]] = []
        # A replay has no wall clock, and no device.
        if not self._take.name:
            tasks.append(asyncio.create_task(wall.keep_reading(self._clock, self._write), name="wall"))
            tasks.append(asyncio.create_task(self._bands.follow(self._clock), name="bands"))
        try:
            reason = await self._record()
        except asyncio.CancelledError:
            # What came so far is kept; the session stays open and goes on when the agent is back.
            for chunker in self._chunkers:
                await self._keep(chunker.flush())
            if self._live is not None:
                await self._keep(self._live.flush())
            await self._bands.note()
            raise
        finally:
            for task in tasks:
                task.cancel()
            # When they could not write, neither could what ends the session.
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._company is not None:
            await self._company.leaves(reason)
        return await self._finish(reason, (self._clock.monotonic_ns() - began_ns) * 1e-9)

    async def _record(self) -> str:
        """Run every source to its end; the reason the session ends."""
        failure: EmbridgeError | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                for ordinal, source in enumerate(self._take.sources):
                    tasks.create_task(self._stream(ordinal, source), name=f"record-{source.spec.name}")
        except* EmbridgeError as group:
            failure = next(e for e in group.exceptions if isinstance(e, EmbridgeError))
        if failure is None:
            return "complete"
        if not isinstance(failure, DeviceError):
            raise failure
        logger.error("session %s: %s", self._plan.name, failure)
        return f"device lost: {failure}"

    async def _stream(self, ordinal: int, source: Source) -> None:
        chunker = self._chunkers[ordinal]
        leads, watch = ordinal == self._lead, self._watches.get(ordinal)
        try:
            await source.open(self.session.host_ns, chunker.until)
            async for packet in source.packets():
                chunks = chunker.push(packet)
                await self._keep(chunks)
                if chunks and self._kept is not None:
                    self._kept(ordinal)
                if self._out is not None:
                    self._out.packet(ordinal, packet)
                if leads:
                    await self._decode(chunker, packet)
                    await self._annotate(packet.host_ns - self.session.host_ns)
                if watch is not None:
                    watch.push(packet, chunker.time_ns)
                    await self._write(watch.ready())
                if self._company is not None:
                    await self._company.seen(ordinal, packet)
            await self._keep(chunker.flush())
            if leads:
                await self._annotate(None)
                for follower in self._take.sources:
                    if follower.follows:
                        follower.stop()
            if watch is not None:
                await self._write(await watch.finish())
        finally:
            await source.close()

    async def _decode(self, chunker: Chunker, packet: Packet) -> None:
        if self._live is not None:
            scored = await self._live.push(packet, chunker.time_ns)
            if self._out is not None:
                for chunk in scored.chunks:
                    self._out.chunk(chunk)
            if scored:
                await self._courier.put(self._items(scored))
                self._spooled()

    def _items(self, scored: Outcome) -> list[Item]:
        return [*map(self._chunk_item, scored.chunks), *map(self._event, scored.events)]

    async def _keep(self, chunks: list[Chunk]) -> None:
        if not chunks:
            return
        items = [self._chunk_item(c) for c in chunks]
        await self._courier.put(items)
        self.kept_bytes += sum(len(item.payload) for item in items)
        self._spooled()

    async def _annotate(self, until_ns: int | None) -> None:
        """Write the annotations that ended by `until_ns` from the session's start; all that are left when None."""
        if self._out is not None:
            self._out.advance(until_ns)
        items = []
        began_ns = self.session.started_ns
        for event in self._take.annotations[self._annotated :]:
            if until_ns is not None and event.end_ns > until_ns:
                break
            start_ns, end_ns = event.start_ns + began_ns, event.end_ns + began_ns
            items.append(self._event(msgspec.structs.replace(event, start_ns=start_ns, end_ns=end_ns)))
        if items:
            self._annotated += len(items)
            await self._courier.put(items, self._annotated)
            self._spooled()

    async def _write(self, events: Sequence[Event], note: bytes | None = None) -> None:
        if self._out is not None:
            for event in events:
                if isinstance(event, Marker):
                    self._out.note(event)
        if events:
            await self._courier.put([self._event(e) for e in events], self._annotated, note)
            self._spooled()

    def _event(self, event: Event) -> Item:
        """The next event."""
        item = _event_item(self.session, self._seq, event)
        self._seq += 1
        return item

    async def _finish(self, reason: str, wall_s: float) -> Digest:
        await self._bands.note()
        for chunker in self._chunkers:
            await self._keep(chunker.flush())
        totals = [c.until for c in self._chunkers]
        last: list[Item] = []
        if self._live is not None:
            last = self._items(self._live.finish())
            totals += [self._live.until] * len(self._live.specs)
        # What was decoded before the release changed stays as it was.
        totals += [self._begun.until(i) for i in range(len(totals), len(self.session.streams))]
        closing = SessionClosed(t_ns=self._clock.wall_ns(), totals=tuple(totals), reason=reason)
        await self._courier.call(self._courier.spool.end, self.session.id, *last, self._event(closing))
        self._spooled()
        progress = await self._courier.call(self._courier.spool.progress, self.session.id)
        return self._digest(reason, progress, wall_s)

    def _digest(self, reason: str, progress: dict[int, Progress], wall_s: float) -> Digest:
        far = [progress.get(i, Progress()) for i in range(len(self.session.streams))]
        return Digest(
            name=self._plan.name,
            session=self.session.id,
            participant=self._plan.participant,
            purpose=self._plan.purpose,
            reason=reason,
            events=progress[EVENTS].items,
            streams=tuple(
                StreamDigest(name=spec.name, samples=p.samples, lost=p.until - p.samples, chunks=p.items)
                for spec, p in zip(self.session.streams, far, strict=True)
            ),
            decode=decode_digest(self._live),
            quality=tuple(quality_digest(w) for w in self._watches.values()),
            bands=tuple(self._bands.seen),
            wearing=self.wearing(),
            wall_s=wall_s,
        )

    def _chunk_item(self, chunk: Chunk) -> Item:
        topic = topics.chunk_topic(self.session.edge, self.session.id, self.session.streams[chunk.stream].name)
        return Item(self.session.id, chunk.stream, chunk.first, chunk.n, topic, codec.encode(chunk))


def _event_item(session: Session, seq: int, event: Event) -> Item:
    message = EventMessage(session=session.id, seq=seq, event=event)
    return Item(session.id, EVENTS, seq, 1, topics.event_topic(session.edge, session.id), pack(message))
