"""Guided capture: what is done well is taken, and everything else is refused for its own reason."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import numpy as np
import pytest

from embridge_edge.enrol.capture import Capture, Origin
from embridge_edge.enrol.embed import fit_own_scale
from embridge_edge.enrol.events import Judged, Level, Phase, Prompted, Stopped
from embridge_edge.enrol.guide import Guide, Missed, Movement, Pace
from embridge_edge.enrol.view import Release, WearerView
from embridge_edge.forearm import Donning, ElectrodeFault, FaultKind, Manner
from embridge_shared.enrolment import Refusal
from embridge_shared.errors import ConfigError, OperatorError
from embridge_shared.gestures import find
from support.enrol_world import PREPROCESS, SEEN, UNSEEN, band, play, prior, spec

WEARER = 21
QUICK = Pace(relax_s=1.5, patience_s=2.0)
FOREIGN = Manner(instead=find(["peace"])[0])


def blank(*, known: bool = False) -> WearerView:
    return WearerView(Release("r-1", "d", PREPROCESS, prior() if known else None), spec(), None)


def refused(*manners: Manner, script=("fist",), pace: Pace = QUICK, **more) -> list[Judged]:
    """What is said of prompts followed like that, before one is followed well."""
    played = play(band(WEARER, manners=manners, **more), lambda o: Capture(blank(), script, o, pace=pace))
    return played.of(Judged)


@pytest.fixture(scope="module")
def calibrated() -> WearerView:
    """A wearer who made four gestures twice."""
    script = [*SEEN[:4]] * 2
    played = play(band(WEARER, 0), lambda o: Capture(blank(known=True), script, o, pace=QUICK), session=UUID(int=1))
    taken = [t.repetition for t in played.capture.taken]
    assert [t.about.label for t in taken] == script
    return replace(blank(known=True), scale=fit_own_scale(taken, PREPROCESS)).over(taken)


def test_prompts_follow_the_wearer_and_the_movement_is_found() -> None:
    played = play(band(WEARER), lambda o: Capture(blank(), ["fist", "open"], o, pace=QUICK))
    phases = [(e.gesture, e.phase) for e in played.of(Prompted)]
    order = [Phase.RELAX, Phase.PERFORM, Phase.HOLD, Phase.RELEASE]
    assert phases == [(g, p) for g in ("fist", "open") for p in order]
    prompts = {(e.gesture, e.phase): e.at for e in played.of(Prompted)}
    for told, taken in zip(played.of(Judged), played.capture.taken, strict=True):
        about = taken.repetition.about
        assert told.refusal is None
        # nobody moves before they are asked, and the hand is at rest well after they are told to let go
        assert prompts[told.gesture, Phase.PERFORM] + 400 < about.onset < prompts[told.gesture, Phase.HOLD]
        assert prompts[told.gesture, Phase.RELEASE] < about.end < told.at
        assert about.first < about.onset - 2000
        power = np.abs(taken.repetition.samples.astype(float)).mean(axis=1)
        inside = power[about.onset - about.first : about.end - about.first]
        assert inside.mean() > 5 * power[: about.onset - about.first - 600].mean()
    assert played.events[-1] == Stopped(at=played.events[-1].at, complete=True)
    levels = played.of(Level)
    assert all(e.remaining_s >= 0 for e in levels)
    assert max(e.level for e in levels if e.phase is Phase.HOLD) > 5 * np.median(
        [e.level for e in levels if e.phase is Phase.RELAX]
    )


@pytest.mark.parametrize(
    ("manner", "reason"),
    [
        (Manner(reach=0.0), Refusal.NO_ACTIVITY),
        (Manner(hold_s=0.1), Refusal.TOO_SHORT),
        (Manner(late_s=4.0), Refusal.TOO_LONG),
    ],
    ids=["idle", "short", "long"],
)
def test_a_movement_that_is_none_is_refused(manner: Manner, reason: Refusal) -> None:
    first, *rest = refused(manner)
    assert first.refusal is reason
    assert first.detail
    assert first.advice
    assert rest[-1].refusal is None


def test_a_weak_movement_is_refused() -> None:
    told = refused(Manner(reach=0.35), Manner(reach=0.3), script=("hook",))
    assert Refusal.TOO_WEAK in {e.refusal for e in told}
    assert told[-1].refusal is None


def test_a_gap_in_it_is_refused() -> None:
    holds: list[int] = []

    def make(origin: Origin) -> Capture:
        capture = Capture(blank(), ["fist"], origin, pace=QUICK)
        push = capture.push

        def lossy(first, samples):
            if len(holds) == 1 and first - holds[0] < 1000:
                return []
            events = push(first, samples)
            holds.extend(e.at for e in events if isinstance(e, Prompted) and e.phase is Phase.HOLD)
            return events

        capture.push = lossy  # type: ignore[method-assign]
        return capture

    told = play(band(WEARER), make).of(Judged)
    assert [e.refusal for e in told] == [Refusal.GAP, None]
    assert "0.5" in told[0].detail


@pytest.mark.parametrize(
    ("kind", "channels", "reason"),
    [
        (FaultKind.CLIPPING, 3, Refusal.TOO_STRONG),
        (FaultKind.CLIPPING, 2, None),
        (FaultKind.LOOSE, 3, Refusal.NOISY),
        (FaultKind.LOOSE, 2, None),
    ],
)
def test_a_poor_signal_is_refused(kind: FaultKind, channels: int, reason: Refusal | None) -> None:
    donning = Donning(faults=tuple(ElectrodeFault(c, kind) for c in range(channels)))
    played = play(band(WEARER, donning=donning), lambda o: Capture(blank(), ["open"], o, pace=QUICK, patience=1))
    assert played.of(Judged)[0].refusal is reason
    stopped = played.events[-1]
    assert isinstance(stopped, Stopped)
    assert stopped.complete == (reason is None)
    assert bool(stopped.advice) == (reason is not None)


def test_who_does_not_rest_is_told_so(calibrated: WearerView) -> None:
    """The hand is in the gesture already when it should rest: the repetition before was never let go."""
    guide = Guide(QUICK, 100.0, 0)
    busy = np.full((20, 4), 1.0, np.float32)
    out = None
    for at in range(5, 1000, 5):
        out = guide.step(at, busy)
        if out is not None:
            break
    assert out == Missed(Refusal.NOT_AT_REST, 1.0)
    assert 3.4 < at / 100 < 3.7


def test_another_gesture_of_the_wearer_is_named(calibrated: WearerView) -> None:
    manners = [Manner(instead=find(["point"])[0])]
    played = play(band(WEARER, 3, manners=manners), lambda o: Capture(calibrated, [UNSEEN[1]], o, pace=QUICK))
    first, second = played.of(Judged)
    assert first.refusal is Refusal.TOO_SIMILAR
    assert first.looks_like == "point"
    assert first.probability > 0.8
    assert "point (" in first.detail
    assert second.refusal is None
    assert played.capture.refused == 1


def test_a_repetition_unlike_the_others_is_refused(calibrated: WearerView) -> None:
    manners = [Manner(), Manner(), FOREIGN]
    played = play(band(WEARER, 4, manners=manners), lambda o: Capture(calibrated, [UNSEEN[1]] * 3, o, pace=QUICK))
    assert [e.refusal for e in played.of(Judged)] == [None, None, Refusal.INCONSISTENT, None]
    assert [e.number for e in played.of(Judged)] == [1, 2, 3, 3]


def test_too_many_refusals_in_a_row_end_it_with_help() -> None:
    manners = [Manner(reach=0.0)] * 3
    played = play(band(WEARER, manners=manners), lambda o: Capture(blank(), ["fist"], o, pace=QUICK, patience=3))
    stopped = played.events[-1]
    assert isinstance(stopped, Stopped)
    assert not stopped.complete
    assert "band" in stopped.advice
    assert not played.capture.taken


def test_chunks_of_any_size_find_the_same() -> None:
    found = []
    for packet in (40, 500):
        played = play(band(WEARER, packet_samples=packet), lambda o: Capture(blank(), ["fist"], o, pace=QUICK))
        found.append([t.repetition.about for t in played.capture.taken])
    # the wearer hears of the prompts a packet later, so only the way it is found is the same
    assert [len(f) for f in found] == [1, 1]
    assert abs((found[0][0].end - found[0][0].onset) - (found[1][0].end - found[1][0].onset)) < 600


def test_a_stop_keeps_what_was_taken() -> None:
    capture = Capture(blank(), ["fist"], Origin(session=None, edge="e", source="", time_ns=lambda i: i))
    assert capture.stop("enough").detail == "enough"
    assert capture.push(0, np.zeros((10, 16), np.int16)) == []


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(OperatorError):
        Capture(blank(), [], Origin(session=None, edge="e", source="", time_ns=lambda i: i))
    with pytest.raises(ConfigError):
        Pace(rises=0.05, falls=0.1)
    with pytest.raises(ConfigError):
        Pace(hold_s=0.0)


def test_the_guide_finds_a_step() -> None:
    guide = Guide(Pace(relax_s=1.0), 100.0, 0)
    level = np.zeros(1000, np.float32)
    level[200:520] = 1.0
    for at in range(20, 1000, 5):
        out = guide.step(at, level[at - 20 : at, None])
        if out is not None:
            break
    assert isinstance(out, Movement)
    assert abs(out.onset - 200) <= 10
    assert abs(out.end - 520) <= 10
