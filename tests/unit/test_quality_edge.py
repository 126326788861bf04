"""Quality on the edge: beside a recording, and before one."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embridge_edge import plan as plans
from embridge_edge import quality, solo
from embridge_edge.forearm import FaultKind
from embridge_edge.plan import Fault, QualityGate, SessionPlan, SyntheticSource
from embridge_edge.quality import QualityWatch, gate
from embridge_edge.source import Packet
from embridge_edge.spool import Spool
from embridge_edge.takes import open_take
from embridge_shared import settings
from embridge_shared.clock import SystemClock
from embridge_shared.errors import ConfigError, DeviceError, Reason
from embridge_shared.quality import Grade, Judge, Metric
from embridge_shared.session import CueShown, Marker, QualitySeen, Repetition
from embridge_shared.wire.messages import EdgeState, EventMessage, pack, unpack
from support.signal_faults import CHANNEL, SPEC, forearm, spoil

BROKEN = (Fault(channel=4, kind=FaultKind.LOOSE), Fault(channel=9, kind=FaultKind.CLIPPING))


def planned(
    gate: QualityGate = QualityGate.OFF,
    *,
    faults: tuple[Fault, ...] = (),
    speed: float = 0.0,
    gestures: tuple[str, ...] = ("fist", "open"),
) -> SessionPlan:
    """A plan; `gestures=("rest",)` is a wearer who sits still."""
    source = SyntheticSource(
        wearer=3, performance=1, gestures=gestures, repetitions=4 // len(gestures), speed=speed, faults=faults
    )
    return SessionPlan(name="one", participant="p1", source=source, quality_gate=gate)


def edge(folder: Path) -> Any:
    return settings.load(edge={"state_dir": folder}).edge


def events(folder: Path) -> list[Any]:
    spool = Spool(folder / "spool.db", 1 << 30)
    found = [unpack(i.payload, EventMessage) for i in spool.pending(0, 100_000) if i.stream == -1]
    spool.close()
    assert [e.seq for e in found] == list(range(len(found)))
    return [e.event for e in found]


class Steps:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_ns = 0

    def wall_ns(self) -> int:
        return self.now_ns

    def monotonic_ns(self) -> int:
        return self.now_ns

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


async def played(watch: QualityWatch, x: np.ndarray, clock: Steps) -> list[QualitySeen]:
    out = []
    for first in range(0, len(x), 400):
        clock.now_ns += 200_000_000
        watch.push(Packet(first, x[first : first + 400], clock.now_ns), lambda index: index * 500_000)
        if watch._running is not None:
            await asyncio.wait([asyncio.wrap_future(watch._running)])
        out += watch.ready()
    return out + await watch.finish()


async def test_a_watch_judges_every_second():
    x = spoil(forearm(3), "hum", 2000.0, 32767.0).astype(np.int16)
    clock = Steps()
    watch = QualityWatch(SPEC, 2, first=0, clock=clock)
    seen = await played(watch, x, clock)
    assert [e.first for e in seen] == list(range(0, len(x) - 3999, 2000))
    assert {(e.stream, e.n) for e in seen} == {(2, 4000)}
    assert seen[3].t_ns == 6000 * 500_000
    told = [f for e in seen for f in e.findings if f.metric is Metric.MAINS and f.grade is Grade.BAD]
    assert {f.channel for f in told} == {CHANNEL}
    assert "mains hum" in told[0].reason
    message = EventMessage(session=plans_session(), seq=3, event=seen[-1])
    assert unpack(pack(message), EventMessage) == message
    assert watch.summary.channels()[CHANNEL].grade is Grade.BAD
    state = watch.state
    assert [c for c, grade in enumerate(state.grades) if grade is Grade.BAD] == [CHANNEL]
    assert state.told[0].startswith(f"e{CHANNEL}: ")
    body = EdgeState(edge="e", online=True, quality=(state,))
    assert unpack(pack(body), EdgeState) == body


def plans_session() -> Any:
    import uuid

    return uuid.UUID(int=7)


async def test_a_watch_takes_a_tenth_of_the_time_at_most(monkeypatch):
    clock, real = Steps(), Judge.judge

    def slow(judge: Judge, window: Any) -> Any:
        clock.now_ns += 1_000_000_000
        return real(judge, window)

    monkeypatch.setattr(Judge, "judge", slow)
    watch = QualityWatch(SPEC, 0, first=0, clock=clock)
    seen = await played(watch, np.zeros((60000, 16), np.int16), clock)
    assert 2 <= len(seen) <= 4
    assert np.diff([e.first for e in seen]).min() >= 9 * 2000


async def test_a_watch_never_waits_for_its_judge(monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(Judge, "judge", lambda judge, window: release.wait(10) and 1 / 0)
    watch = QualityWatch(SPEC, 0, first=0, clock=SystemClock())
    x = np.zeros((4000, 16), np.int16)
    for first in range(0, 40000, 4000):
        watch.push(Packet(first, x, 0), lambda index: index)
        assert watch.ready() == []
    release.set()
    assert await watch.finish() == [], "a judge that fails ends the judging, not the recording"
    watch.push(Packet(40000, x, 0), lambda index: index)


async def test_a_session_carries_its_quality(tmp_path):
    digest = await solo.record(planned(faults=BROKEN, speed=30.0), edge(tmp_path), clock=SystemClock())
    seen = [e for e in events(tmp_path) if isinstance(e, QualitySeen)]
    assert digest.quality[0].windows == len(seen) > 0
    told = [{f.channel for f in e.findings if f.grade is Grade.BAD} for e in seen]
    assert [c.bad for c in digest.quality[0].channels] == [sum(c in t for t in told) for c in range(16)]
    assert set().union(*told) <= {4, 9}


async def test_a_session_cut_off_goes_on_with_the_right_annotation(tmp_path):
    plan = planned(speed=12.0)
    take = open_take(plan, tmp_path, SystemClock())
    for pause_s in (0.9, 0.3):
        task = asyncio.create_task(solo.record(plan, edge(tmp_path), clock=SystemClock()))
        await asyncio.sleep(pause_s)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await solo.record(plan, edge(tmp_path), clock=SystemClock())
    found = events(tmp_path)
    assert any(isinstance(e, QualitySeen) for e in found)
    annotations = [(e.gesture, e.repetition, type(e)) for e in found if isinstance(e, CueShown | Repetition)]
    assert annotations == [(a.gesture, a.repetition, type(a)) for a in take.annotations]
    firsts = [e.first for e in found if isinstance(e, QualitySeen)]
    assert firsts == sorted(set(firsts))


async def test_the_gate_refuses_a_bad_signal_and_says_what_to_do(tmp_path):
    with pytest.raises(DeviceError, match=r"e4: .*e9: ") as caught:
        await solo.record(
            planned(QualityGate.REQUIRE, faults=BROKEN, gestures=("rest",)), edge(tmp_path), clock=SystemClock()
        )
    assert caught.value.reason is Reason.POOR_SIGNAL
    assert "mains hum" in caught.value.message
    assert "move away from chargers" in caught.value.message
    assert 'quality_gate = "warn"' in caught.value.hint
    assert events(tmp_path) == []


async def test_the_gate_warns_and_records(tmp_path):
    await solo.record(planned(QualityGate.WARN, faults=BROKEN, gestures=("rest",)), edge(tmp_path), clock=SystemClock())
    notes = [e.text for e in events(tmp_path) if isinstance(e, Marker)]
    assert [n[:7] for n in notes] == ["emg e4:", "emg e9:"]


async def test_the_gate_lets_a_good_signal_pass(tmp_path):
    digest = await solo.record(planned(QualityGate.REQUIRE), edge(tmp_path), clock=SystemClock())
    assert digest.reason == "complete"
    assert not [e for e in events(tmp_path) if isinstance(e, Marker)]


async def test_no_gate_opens_nothing(tmp_path):
    assert await gate(planned(faults=BROKEN), open_take(planned(), tmp_path, SystemClock()), SystemClock()) == ()


async def test_the_gate_gives_a_band_time_to_settle(tmp_path):
    faults = (Fault(channel=9, kind=FaultKind.CLIPPING, end_s=2.0),)
    take = open_take(planned(faults=faults), tmp_path, SystemClock())
    assert await gate(planned(QualityGate.REQUIRE), take, SystemClock()) == ()


async def test_a_silent_band_does_not_pass(tmp_path, monkeypatch):
    take = open_take(planned(), tmp_path, SystemClock())

    async def silence(self: Any) -> Any:
        await asyncio.sleep(60)
        yield

    monkeypatch.setattr(type(take.band), "packets", silence)
    with pytest.raises(DeviceError, match="nothing came"):
        await gate(planned(QualityGate.REQUIRE), take, Steps())


@pytest.mark.parametrize("line", ['quality_gate = "maybe"', "settle_s = 0", "settle_s = -1"])
def test_a_gate_that_cannot_be_is_refused(tmp_path, line):
    path = tmp_path / "plan.toml"
    path.write_text(
        f'[[session]]\nname = "a"\nparticipant = "p"\n{line}\n[session.source]\nkind = "synthetic"\n'
        'wearer = 1\nperformance = 1\ngestures = ["fist"]\n'
    )
    with pytest.raises(ConfigError):
        plans.load(path)
    assert quality.QualityGate is QualityGate
