"""Conducted sessions in this process: a station without a broker, a virtual band that can be lost, an operator."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from embridge_edge.collect.conductor import Conductor
from embridge_edge.collect.consent import ConsentSeen, Standing
from embridge_edge.collect.protocol import Protocol, Timing
from embridge_edge.collect.setup import Journal, Setup
from embridge_edge.collect.station import Station
from embridge_edge.collect.steps import Entered, State, Step
from embridge_edge.collect.virtual import VirtualBand, VirtualSource
from embridge_edge.forearm import Manner
from embridge_edge.source import Packet
from embridge_edge.spool import EVENTS, Spool
from embridge_edge.takes import Take
from embridge_shared.clock import Clock, SystemClock
from embridge_shared.session import Event
from embridge_shared.settings import EdgeSettings, MqttSettings, Settings
from embridge_shared.wire import codec
from embridge_shared.wire.messages import EventMessage, unpack

QUICK = Protocol(
    name="quick",
    version=1,
    gestures=("fist", "open"),
    repetitions=2,
    timing=Timing(prepare_s=1.0, hold_s=1.5, rest_s=1.2),
)


def settings(folder: Path, *, port: int = 1, **edge: Any) -> Settings:
    """Of an edge whose broker, by default, nobody plays."""
    return Settings(
        mqtt=MqttSettings(host="127.0.0.1", port=port),
        edge=EdgeSettings(name="edge-1", state_dir=folder, **{"reserve_bytes": 0, **edge}),
    )


def setup(name: str = "p07_001_R_d1", *, protocol: Protocol = QUICK, **more: Any) -> Setup:
    """A session with a virtual band, as fast as it goes."""
    made = Setup(name=name, participant="p07", protocol=protocol, source=VirtualSource(wearer=3, speed=0.0))
    return msgspec.structs.replace(made, **more)


async def signed(_: str) -> ConsentSeen:
    """Everybody has agreed."""
    return ConsentSeen(Standing.GIVEN, "3", ("collect", "train"), 1_700_000_000_000_000_000)


class FrailBand(VirtualBand):
    """A virtual band that keeps what it sent, follows prompts as told, and can be lost."""

    def __init__(
        self,
        source: VirtualSource,
        clock: Clock,
        *,
        manners: Sequence[Manner] = (),
        away: Sequence[tuple[float, float]] = (),
        dies_s: float = float("inf"),
        flat: Sequence[int] = (),
    ) -> None:
        super().__init__(source, clock, manners=manners)
        self._away = list(away)
        self._dies_s = dies_s
        self._flat = list(flat)
        self.sent: list[Packet] = []
        self.back = asyncio.Event()

    async def packets(self) -> AsyncIterator[Packet]:
        async for packet in super().packets():
            t_s = packet.first / self.spec.rate_hz
            if t_s >= self._dies_s:
                from embridge_shared.errors import DeviceError

                raise DeviceError("the band is lost for good")
            if self._away and t_s >= self._away[0][0]:
                if t_s < sum(self._away[0]):
                    if not self.back.is_set():
                        self._enter("reconnecting")
                        await self.back.wait()
                        self._enter("streaming")
                    continue
                self._away.pop(0)
                self.back.clear()
            packet.samples[:, self._flat] = 0
            self.sent.append(packet)
            yield packet

    def truth(self) -> tuple[np.ndarray, np.ndarray]:
        """Index and samples of everything it sent."""
        index = np.concatenate([np.arange(p.first, p.first + len(p.samples)) for p in self.sent])
        return index, np.concatenate([p.samples for p in self.sent])


async def when(condition: Callable[[], Any], timeout_s: float = 30.0) -> None:
    """Wait for something to be so."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


def take_of(band: FrailBand) -> Take:
    """A take of it."""
    return Take("synthetic:3/1", (band,), ())


@contextlib.asynccontextmanager
async def station(folder: Path, **more: Any) -> AsyncIterator[Station]:
    """A station that runs."""
    given = more.pop("settings", None) or settings(folder)
    made = Station(given, SystemClock(), ask_consent=more.pop("consent", signed))
    running = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class Operator:
    """Somebody at the keyboard: presses keys when a session comes to a place.

    Args:
        station: Whose session.
        keys: By state, what to press at each time it is entered; afterwards what keeps the session going.
    """

    def __init__(
        self, station: Station, keys: dict[State, list[Callable[..., list[Step]] | None]] | None = None
    ) -> None:
        self._station = station
        self._keys = keys or {}
        self.steps: list[Step] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self.on: Callable[[Step], None] = lambda step: None
        station.tell.append(self._told)

    @property
    def states(self) -> list[State]:
        return [s.state for s in self.steps if isinstance(s, Entered)]

    def _told(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self.steps.append(step)
            self.on(step)
            if isinstance(step, Entered):
                planned = self._keys.get(step.state)
                key = planned.pop(0) if planned else _USUAL.get(step.state)
                if key is not None:
                    self.press(key)

    def press(self, key: Callable[..., list[Step]]) -> None:
        leader = self._station.leader
        if leader is not None:
            task = asyncio.get_running_loop().create_task(leader.act(key))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


_USUAL = {State.READY: Conductor.start, State.PAUSED: Conductor.start, State.REVIEW: Conductor.end}


async def conducted(made: Station, given: Setup | Journal, **keys: Any) -> tuple[Any, Operator]:
    """Record a session to its end with somebody at the keyboard."""
    operator = Operator(made, keys.pop("keys", None))
    journal = given if isinstance(given, Journal) else Journal(setup=given)
    return await asyncio.wait_for(made.record(journal, **keys), 60), operator


def events_of(folder: Path, name: str) -> list[Event]:
    """What the spool holds of a session's events."""
    spool = Spool(folder / "spool.db", 1 << 30)
    try:
        known = spool.session(name)
        assert known is not None
        return [unpack(i.payload, EventMessage).event for i in spool.of_stream(known.session, EVENTS)]
    finally:
        spool.close()


def samples_of(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Index and samples the spool holds of a session's band."""
    spool = Spool(folder / "spool.db", 1 << 30)
    try:
        known = spool.session(name)
        assert known is not None
        chunks = [codec.decode(i.payload) for i in spool.of_stream(known.session, 0)]
    finally:
        spool.close()
    index = np.concatenate([np.arange(c.first, c.end) for c in chunks])
    return index, np.concatenate([c.samples for c in chunks])
