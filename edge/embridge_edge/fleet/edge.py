"""One edge of a simulated fleet: the real spool, uplink and codec behind a signal that is made once for all."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_edge.courier import Courier
from embridge_edge.spool import EVENTS, Item, Spool
from embridge_edge.uplink import Uplink
from embridge_shared.clock import Clock
from embridge_shared.session import (
    CueShown,
    Event,
    Participant,
    Purpose,
    Repetition,
    Session,
    SessionClosed,
    SessionOpened,
)
from embridge_shared.settings import Settings
from embridge_shared.signal import Arrivals, Chunk, Modality, StreamSpec
from embridge_shared.wire import codec, topics
from embridge_shared.wire.messages import CommitReport, Desired, EdgeState, EventMessage, pack

_PACKET = 8
"""Samples a packet of the band that is pretended."""
_CUE_S = 4.0
_GESTURES = ("fist", "open", "point", "pinch_index")


class TimedCourier(Courier):
    """A courier that remembers how long each item waited for its commit.

    Args:
        spool: Empty, and used by this object alone.
        clock: Time.

    Attributes:
        waits_s: From the disk to the cloud's word, an item.
        refused: Items the cloud refused.
    """

    def __init__(self, spool: Spool, clock: Clock) -> None:
        super().__init__(spool)
        self._clock = clock
        self._put_ns: dict[int, int] = {}
        self._last = 0
        self.waits_s: list[float] = []
        self.refused = 0

    def noted(self, items: int) -> None:
        """So many items were put into the spool just now."""
        now = self._clock.monotonic_ns()
        for _ in range(items):
            self._last += 1
            self._put_ns[self._last] = now

    async def put(self, items: list[Item], annotated: int | None = None, note: bytes | None = None) -> None:
        """Keep items; on disk when this returns."""
        await super().put(items, annotated, note)
        self.noted(len(items))

    async def settle(self, report: CommitReport) -> list[int]:
        """Apply a commit report; the ids that left."""
        gone = await super().settle(report)
        now = self._clock.monotonic_ns()
        self.waits_s += [(now - put) * 1e-9 for i in gone if (put := self._put_ns.pop(i, None)) is not None]
        self.refused += len(report.refused)
        return gone


class SimulatedEdge:
    """Records one session and delivers it.

    Args:
        settings: Broker, name, window; of this edge.
        emg: Counts int16 (T, C) to send over and over.
        rate_hz: Samples a second.
        chunk_s: Length of a chunk.
        folder: For its spool.
        clock: Time.
        seed: Of its session, its phase and its place in the signal.

    Attributes:
        session: What it records.
        samples: Samples spooled so far.
        chunks: Chunks spooled so far.
        events: Events spooled so far.
    """

    def __init__(
        self,
        settings: Settings,
        emg: NDArray[np.int16],
        rate_hz: float,
        chunk_s: float,
        *,
        folder: Path,
        clock: Clock,
        seed: int,
    ) -> None:
        rng = random.Random(seed)  # noqa: S311
        self._settings, self._clock, self._emg, self._chunk_s = settings, clock, emg, chunk_s
        self._n = max(1, round(rate_hz * chunk_s))
        self._at = rng.randrange(len(emg))
        self._phase_s = rng.uniform(0.0, chunk_s)
        spec = StreamSpec(
            name="emg",
            modality=Modality.EMG,
            channels=tuple(f"e{i}" for i in range(emg.shape[1])),
            rate_hz=rate_hz,
            device="simulated fleet",
        )
        self.session = Session(
            id=UUID(int=rng.getrandbits(128), version=4),
            edge=settings.edge.name,
            participant=Participant(id=f"p-{settings.edge.name}", consent_version="simulated"),
            purpose=Purpose.EVALUATION,
            protocol="fleet/1",
            streams=(spec,),
            started_ns=clock.wall_ns(),
            host_ns=clock.monotonic_ns(),
            source=f"synthetic:{seed}",
        )
        self.samples = self.chunks = self.events = 0
        spool = Spool(folder / settings.edge.name / "spool.db", settings.edge.spool_max_bytes)
        self.courier = TimedCourier(spool, clock)
        self.uplink = Uplink(
            settings,
            self.courier,
            clock,
            state=self._state,
            on_desired=_no_release,
            rng=random.Random(seed),  # noqa: S311
        )
        self._linked: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Items the cloud has not committed yet."""
        return self.courier.spool.backlog().items

    def link(self) -> None:
        """Connect, and stay so."""
        if self._linked is None:
            self._linked = asyncio.create_task(self.uplink.run(), name=f"uplink-{self.session.edge}")

    async def cut(self) -> None:
        """Lose the network; what is recorded waits in the spool."""
        if self._linked is not None:
            self._linked.cancel()
            with suppress(asyncio.CancelledError):
                await self._linked
            self._linked = None

    async def record(self, seconds: float) -> None:
        """Record in real time, with a cue and a repetition every four seconds, and close the session."""
        session = self.session
        opening = self._event(SessionOpened(session=session))
        description = msgspec.msgpack.encode(session)
        await self.courier.call(self.courier.spool.begin, session.id, str(session.id), description, opening)
        self.courier.noted(1)
        began_ns, cued_s = self._clock.monotonic_ns(), 0.0
        for k in range(1, max(1, round(seconds / self._chunk_s)) + 1):
            late_s = began_ns * 1e-9 + self._phase_s + k * self._chunk_s - self._clock.monotonic_ns() * 1e-9
            await self._clock.sleep(max(late_s, 0.0))
            items = [self._chunk()]
            if k * self._chunk_s - cued_s >= _CUE_S:
                items += self._prompted(cued_s)
                cued_s = k * self._chunk_s
            await self.courier.put(items)
            self.uplink.notify()
        closing = SessionClosed(t_ns=self._clock.wall_ns(), totals=(self.samples,))
        await self.courier.put([self._event(closing)])
        self.uplink.notify()

    async def close(self) -> None:
        """Disconnect and close the spool."""
        await self.cut()
        await self.courier.close()

    def _chunk(self) -> Item:
        session, first, n = self.session, self.samples, self._n
        at = np.arange(self._at, self._at + n) % len(self._emg)
        self._at = (self._at + n) % len(self._emg)
        period_ns = 1e9 / session.streams[0].rate_hz
        last = np.arange(first + _PACKET - 1, first + n, _PACKET, dtype=np.int64)
        arrivals = Arrivals(last, session.host_ns + (last * period_ns).astype(np.int64))
        t0_ns = session.started_ns + round(first * period_ns)
        chunk = Chunk(session.id, 0, first, self._emg[at], t0_ns, 0, arrivals)
        self.samples += n
        self.chunks += 1
        topic = topics.chunk_topic(session.edge, session.id, session.streams[0].name)
        return Item(session.id, 0, first, n, topic, codec.encode(chunk))

    def _prompted(self, since_s: float) -> list[Item]:
        """The cue of the last four seconds and what was done."""
        number = round(since_s / _CUE_S)
        gesture, repetition = _GESTURES[number % len(_GESTURES)], number // len(_GESTURES) + 1
        start = self.session.started_ns + round(since_s * 1e9)
        end = start + round(_CUE_S * 1e9)
        return [
            self._event(CueShown(gesture=gesture, repetition=repetition, start_ns=start, end_ns=end)),
            self._event(Repetition(gesture=gesture, repetition=repetition, start_ns=start, end_ns=end)),
        ]

    def _event(self, event: Event) -> Item:
        session, seq = self.session, self.events
        self.events += 1
        message = EventMessage(session=session.id, seq=seq, event=event)
        return Item(session.id, EVENTS, seq, 1, topics.event_topic(session.edge, session.id), pack(message))

    def _state(self) -> EdgeState:
        waits = self.courier.spool.backlog()
        return EdgeState(
            edge=self.session.edge,
            online=True,
            agent="fleet simulate",
            recording=self.session.id,
            spooled=waits.items,
            spooled_bytes=waits.bytes,
            t_ns=self._clock.wall_ns(),
        )


async def _no_release(_: Desired) -> None:
    """A simulated edge decodes nothing."""
