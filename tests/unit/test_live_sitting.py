"""What is said of live decoding by who watches: movements, labels, thresholds, latencies."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import numpy as np
import pytest

from embridge_edge.decode.decision import Decided
from embridge_edge.live_rival import previous_release
from embridge_edge.live_score import Latency, Movement, Movements, Outcome, Score, Times, judge, next_target
from embridge_edge.live_seat import Which
from embridge_edge.live_sitting import LiveSitting, sitting_of
from embridge_edge.plan import SyntheticSource
from embridge_shared.clock import SystemClock
from embridge_shared.decision import Decision, DecisionConfig, GestureEvent, OperatingPoint
from embridge_shared.errors import OperatorError
from embridge_shared.gestures import REST_LABEL
from embridge_shared.session import GestureChange, Marker, Repetition, RepetitionStatus
from embridge_shared.settings import EdgeSettings

S = 1_000_000_000
BEGAN = 1_790_000_000 * S


def decided(at_s: float, label: str, *events: tuple[GestureChange, str]) -> Decided:
    found = tuple(GestureEvent(kind, gesture, 0, 0.9, 0.5) for kind, gesture in events)
    decision = Decision(label, 0.9, label, np.array([1.0]), found)
    return Decided(UUID(int=1), "m-1", ("fist",), 0, BEGAN + round(at_s * S), 0, 0.004, decision)


def fisted(movements: Movements) -> Movements:
    """Rest, a fist from 1 s to 2 s, rest."""
    movements.push(decided(0.5, REST_LABEL))
    movements.push(decided(1.0, "unknown"))
    movements.push(decided(1.2, "fist", (GestureChange.ONSET, "fist")))
    movements.push(decided(2.0, REST_LABEL, (GestureChange.RELEASE, "fist")))
    movements.push(decided(2.1, REST_LABEL))
    return movements


def test_a_movement_is_what_lies_between_rests():
    movements = fisted(Movements())
    found = movements.at(BEGAN + 3 * S)
    assert found == Movement(BEGAN + S, BEGAN + 2 * S, (("fist", 0.9),))
    assert movements.at(BEGAN + S // 2) is None
    assert movements.at(BEGAN + 20 * S) is None, "a label comes soon, or is about nothing"


def test_a_movement_that_goes_on_has_no_end_yet():
    movements = fisted(Movements())
    movements.push(decided(4.0, "unknown"))
    assert movements.at(BEGAN + 5 * S) == Movement(BEGAN + 4 * S)
    assert movements.at(BEGAN + 3 * S).end_ns == BEGAN + 2 * S


@pytest.mark.parametrize(
    ("label", "said", "outcome"),
    [
        ("fist", ("fist",), Outcome.RIGHT),
        ("fist", ("open", "fist"), Outcome.RIGHT),
        ("open", ("fist",), Outcome.WRONG),
        ("fist", (), Outcome.MISSED),
        (REST_LABEL, ("fist",), Outcome.FALSE),
        (REST_LABEL, (), Outcome.NOTHING),
    ],
)
def test_a_label_judges_what_was_decoded(label, said, outcome):
    assert judge(label, Movement(0, 1, tuple((g, 0.9) for g in said))) is outcome
    if not said:
        assert judge(label, None) is outcome


def test_a_score_counts_gestures_apart_from_rest():
    score = Score().counted(Outcome.RIGHT).counted(Outcome.MISSED).counted(Outcome.FALSE).counted(Outcome.NOTHING)
    assert score == Score(right=1, missed=1, false=1)
    assert score.labelled == 2
    assert score.counted(Outcome.RIGHT, -1).right == 0


def test_latency_is_told_by_stage():
    times = Times(hop_s=0.05)
    assert times.now() is None
    for i in range(100):
        times.add(0.009, 0.004 if i < 98 else 0.054)
    assert times.now() == Latency(
        pytest.approx(9), pytest.approx(50), pytest.approx(4), pytest.approx(63), pytest.approx(113)
    )


def test_targets_end_where_they_end():
    assert next_target((60, 2, 6), 6, 1) == 60
    assert next_target((60, 2, 6), 60, 1) == 60
    assert next_target((60, 2, 6), 6, -1) == 2


# labels in a session


class Recording:
    """What a sitting needs of a recorder."""

    def __init__(self, decision: DecisionConfig) -> None:
        self.events: list[object] = []
        self.lead = 0
        self.session = SimpleNamespace(started_ns=BEGAN, host_ns=0)
        self.decoding = SimpleNamespace(decision=decision, release="m-1", labels=("fist",), hop_s=0.05)
        self.decoding.retune = lambda config: setattr(self.decoding, "decision", config)

    async def tell(self, events, note=None) -> None:
        self.events += events

    def wearing(self) -> None:
        return None


@pytest.fixture
def sitting(tmp_path) -> LiveSitting:
    source = SyntheticSource(wearer=1, performance=1, gestures=("fist",), repetitions=1, pose=False)
    return sitting_of(None, EdgeSettings(state_dir=tmp_path), "p7", source, SystemClock())


def joined(sitting: LiveSitting, decision: DecisionConfig | None = None) -> Recording:
    recording = Recording(decision or DecisionConfig())
    sitting.joins(recording)
    seat = sitting._seats[Which.A]
    for one in (
        decided(0.5, REST_LABEL),
        decided(1.2, "fist", (GestureChange.ONSET, "fist")),
        decided(2.0, REST_LABEL, (GestureChange.RELEASE, "fist")),
    ):
        seat.decided(one)
    return recording


async def test_a_label_is_kept_as_a_marker_and_a_repetition(sitting):
    recording = joined(sitting)
    found = await sitting.label("fist")
    assert (found.outcome, found.said, found.kept) == (Outcome.RIGHT, "fist", True)
    marker, repetition = recording.events
    assert marker == Marker(text="label fist: decoded fist 0.90", t_ns=BEGAN + 2 * S)
    assert repetition == Repetition(gesture="fist", repetition=1, start_ns=BEGAN + round(1.2 * S), end_ns=BEGAN + 2 * S)
    assert sitting.view().score == Score(right=1)


async def test_a_second_label_takes_the_place_of_the_first_and_nothing_is_deleted(sitting):
    recording = joined(sitting)
    await sitting.label("fist")
    await sitting.label("open")
    await sitting.label(REST_LABEL)
    kept = [e for e in recording.events if isinstance(e, Repetition)]
    assert [(r.gesture, r.status, r.reason) for r in kept] == [
        ("fist", RepetitionStatus.ACCEPTED, ""),
        ("fist", RepetitionStatus.REJECTED, "labelled anew"),
        ("open", RepetitionStatus.ACCEPTED, ""),
        ("open", RepetitionStatus.REJECTED, "labelled anew"),
    ]
    assert sum(isinstance(e, Marker) for e in recording.events) == 3
    assert sitting.view().score == Score(false=1)


async def test_what_was_missed_is_a_marker_alone(sitting):
    recording = joined(sitting)
    found = await sitting.label("fist", BEGAN + 60 * S)
    assert (found.outcome, found.kept) == (Outcome.MISSED, False)
    assert [type(e) for e in recording.events] == [Marker]


async def test_a_label_after_the_end_is_refused(sitting):
    recording = joined(sitting)
    await sitting.leaves("complete")
    with pytest.raises(OperatorError, match="has ended"):
        await sitting.label("fist")
    assert not recording.events


async def test_nothing_can_be_said_before_it_begins(sitting):
    assert sitting.view() is None
    for ask in (sitting.label("fist"), sitting.retune(1), sitting.compare()):
        with pytest.raises(OperatorError, match="nothing is decoded"):
            await ask


async def test_thresholds_are_those_of_the_release_and_are_written_down(sitting):
    points = tuple(OperatingPoint(target_per_hour=t, otherwise=p) for t, p in ((2.0, 0.93), (6.0, 0.81), (30.0, 0.7)))
    recording = joined(sitting, DecisionConfig(otherwise=0.81, points=points))
    assert await sitting.retune(1) == 30.0
    assert recording.decoding.decision.otherwise == 0.7
    assert await sitting.retune(-1) == 6.0
    assert [e.text for e in recording.events] == [
        "thresholds for 30 false an hour",
        "thresholds for 6 false an hour",
    ]


async def test_one_set_of_thresholds_cannot_be_changed(sitting):
    joined(sitting)
    with pytest.raises(OperatorError, match="one rate"):
        await sitting.retune(1)


def test_comparing_takes_two_releases(tmp_path: Path):
    with pytest.raises(OperatorError, match="one release"):
        previous_release(EdgeSettings(state_dir=tmp_path))
