"""The watchdog's food: samples that reach the spool, not a loop that turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embridge_edge import plan as plans
from embridge_edge.agent import Agent
from embridge_edge.courier import Courier
from embridge_edge.source import Packet, Source
from embridge_edge.spool import Spool
from embridge_edge.takes import Take
from embridge_edge.vigil import RECOVERING, RECOVERY_S, Vigil
from embridge_shared import settings
from embridge_shared.errors import OperatorError
from embridge_shared.signal import Modality, SampleType, StreamSpec
from embridge_shared.wire.messages import BandState


class Steps:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000

    def wall_ns(self) -> int:
        return self.now_ns

    def monotonic_ns(self) -> int:
        return self.now_ns

    async def sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)
        await asyncio.sleep(0)

    def pass_s(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


class Heard:
    """A notifier that remembers."""

    watchdog_s = 20.0

    def __init__(self) -> None:
        self.said: list[str] = []

    def ready(self, status: str) -> None:
        self.said.append(f"ready {status}")

    def status(self, status: str) -> None:
        self.said.append(f"status {status}")

    def watchdog(self) -> None:
        self.said.append("fed")

    def stopping(self, status: str) -> None:
        self.said.append("stopping")

    def close(self) -> None: ...


class Band(Source):
    """A source whose state a test sets."""

    def __init__(self, phase: str | None, modality: Modality = Modality.EMG) -> None:
        self.phase = phase
        self._modality = modality

    @property
    def spec(self) -> StreamSpec:
        kind = SampleType.INT16
        return StreamSpec(name="emg", modality=self._modality, channels=("e0",), rate_hz=100.0, dtype=kind)

    def state(self) -> BandState | None:
        return None if self.phase is None else BandState(stream="emg", kind="myo", phase=self.phase)

    async def open(self, host_ns: int, first: int = 0) -> None: ...

    def packets(self) -> AsyncIterator[Packet]:
        raise NotImplementedError

    async def close(self) -> None: ...


async def until(true: Callable[[], bool]) -> None:
    """Let the loop turn until something holds."""
    for _ in range(5000):
        if true():
            return
        await asyncio.sleep(0.001)
    pytest.fail("it never came to that")


def take(*sources: Source, name: str = "") -> Take:
    return Take(name, sources, ())


@pytest.fixture
def clock() -> Steps:
    return Steps()


def vigil_over(tmp_path: Path, clock: Steps, notifier: Any, chunk_s: float = 0.5) -> tuple[Vigil, Courier]:
    courier = Courier(Spool(tmp_path / "spool.db", 1 << 20))
    return Vigil(notifier, courier, clock, chunk_s=chunk_s, status=lambda: "idle"), courier


async def test_an_idle_agent_is_fed_as_long_as_its_spool_answers(tmp_path, clock):
    heard = Heard()
    vigil, courier = vigil_over(tmp_path, clock, heard)
    running = asyncio.create_task(vigil.run())
    await until(lambda: heard.said.count("fed") >= 20)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert heard.said[0] == "ready idle"
    assert heard.said[-1] == "stopping"
    await courier.close()


async def test_a_spool_that_hangs_starves_the_watchdog(tmp_path, clock, caplog):
    heard = Heard()
    vigil, courier = vigil_over(tmp_path, clock, heard)
    hanging = asyncio.Event()
    vigil._courier = type("Hung", (), {"spool": courier.spool, "call": lambda *_: hanging.wait()})()
    running = asyncio.create_task(vigil.run())
    await until(lambda: any("not fed" in s for s in heard.said))
    fed = heard.said.count("fed")
    for _ in range(20):
        await asyncio.sleep(0)
    assert heard.said.count("fed") == fed
    assert [r.message for r in caplog.records if "not fed" in r.message] == [caplog.records[0].message]
    hanging.set()
    await until(lambda: heard.said.count("fed") > fed)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await courier.close()


async def test_a_spool_that_tells_of_a_fault_answers(tmp_path, clock):
    vigil, courier = vigil_over(tmp_path, clock, Heard())

    async def refuse(*_: object) -> None:
        raise OperatorError("the disk is full")

    vigil._courier = type("Full", (), {"spool": courier.spool, "call": staticmethod(refuse)})()
    clock.pass_s(60)
    assert "the spool has not answered" in vigil.fault()
    await vigil._ask()
    assert vigil.fault() == ""
    await courier.close()


async def watched(tmp_path: Path, clock: Steps, phase: str | None, after_s: float, *, name: str = "") -> str:
    """What a vigil says of a band in a state, so long after its last sample."""
    vigil, courier = vigil_over(tmp_path, clock, Heard())
    with vigil.over(take(Band(phase), name=name)):
        clock.pass_s(1.0)
        vigil.kept(0)
        clock.pass_s(after_s)
        vigil._answered_ns = clock.now_ns
        found = vigil.fault()
    assert vigil.fault() == ""
    await courier.close()
    return found


@pytest.mark.parametrize("phase", ["streaming", "stalled", "garbled", "resynced", None])
async def test_a_band_that_is_silent_is_a_fault(tmp_path, clock, phase):
    assert await watched(tmp_path, clock, phase, 5.9) == ""
    assert "no sample of emg has been kept for 6 s" in await watched(tmp_path, clock, phase, 6.1)


@pytest.mark.parametrize("phase", sorted(RECOVERING))
async def test_a_band_that_is_being_brought_back_is_none(tmp_path, clock, phase):
    assert await watched(tmp_path, clock, phase, RECOVERY_S - 1) == ""
    assert phase in await watched(tmp_path, clock, phase, RECOVERY_S + 1)


async def test_a_replay_may_pause(tmp_path, clock):
    assert await watched(tmp_path, clock, None, 3600.0, name="replay:x") == ""


async def test_long_chunks_take_longer(tmp_path, clock):
    vigil, courier = vigil_over(tmp_path, clock, Heard(), chunk_s=5.0)
    with vigil.over(take(Band("streaming"))):
        clock.pass_s(14.9)
        vigil._answered_ns = clock.now_ns
        assert vigil.fault() == ""
        clock.pass_s(0.2)
        vigil._answered_ns = clock.now_ns
        assert vigil.fault() != ""
    await courier.close()


async def test_one_silent_band_of_two_is_a_fault_and_a_silent_glove_is_none(tmp_path, clock):
    vigil, courier = vigil_over(tmp_path, clock, Heard())
    with vigil.over(take(Band("streaming"), Band("streaming"), Band(None, Modality.POSE))):
        for _ in range(10):
            clock.pass_s(1.0)
            vigil.kept(0)
            vigil.kept(1)
        vigil._answered_ns = clock.now_ns
        assert vigil.fault() == ""
        for _ in range(10):
            clock.pass_s(1.0)
            vigil.kept(0)
        vigil._answered_ns = clock.now_ns
        assert "kept for 10 s" in vigil.fault()
    await courier.close()


class Hurried:
    """The system's clock, thirty times as fast."""

    def __init__(self) -> None:
        self._began_ns = time.monotonic_ns()

    def wall_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return self._began_ns + 30 * (time.monotonic_ns() - self._began_ns)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 30)


class Stalling(Band):
    """A band that sends for a while and then says nothing, though it is connected."""

    def __init__(self, clock: Hurried) -> None:
        super().__init__("streaming")
        self._clock = clock
        self.silent = asyncio.Event()
        self.resumed = asyncio.Event()

    async def packets(self) -> AsyncIterator[Packet]:
        for i in range(10_000):
            if i == 200:
                self.silent.set()
                await self.resumed.wait()
            await self._clock.sleep(0.1)
            yield Packet(10 * i, np.full((10, 1), i, np.int16), self._clock.monotonic_ns())


async def test_a_stalled_band_starves_an_agent_whose_loop_turns(tmp_path, monkeypatch, free_port):
    clock, heard = Hurried(), Heard()
    band = Stalling(clock)
    monkeypatch.setattr("embridge_edge.agent.open_take", lambda *_, **__: take(band))
    config = settings.load(edge={"state_dir": tmp_path, "reserve_bytes": 0}, mqtt={"port": free_port})
    source = plans.SyntheticSource(wearer=1, performance=1, gestures=("fist",))
    plan = plans.Plan(session=(plans.SessionPlan(name="one", participant="p1", source=source),))
    agent = Agent(config, clock, plan, notifier=heard)
    running = asyncio.create_task(agent.run())
    await until(lambda: band.silent.is_set() or running.done())
    assert not running.done(), running.exception()
    assert "fed" in heard.said
    await until(lambda: any("no sample of emg" in s for s in heard.said))
    fed = heard.said.count("fed")
    await clock.sleep(20)
    assert heard.said.count("fed") == fed
    band.phase = "reconnecting"
    await until(lambda: heard.said.count("fed") > fed)
    band.phase = "streaming"
    band.resumed.set()
    await until(lambda: "recording session" in heard.said[-1])
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert heard.said[-1] == "stopping"
