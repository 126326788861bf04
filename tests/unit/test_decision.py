"""Decisions: rest and unknown are answers, a flicker changes nothing, events come in order and once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_shared.decision import (
    UNKNOWN,
    Decider,
    Decision,
    DecisionConfig,
    Evidence,
    Kind,
    activity_of,
    expected_calibration_error,
    probabilities,
)
from embridge_shared.errors import ConfigError, DataError
from embridge_shared.gestures import REST_LABEL

LABELS = ("fist", "point", "pinch")
HOP_S = 0.05
CONFIG = DecisionConfig(onset_s=0.15, release_s=0.2, hold_s=0.5, steady_s=0.0, otherwise=0.6)


def evidence(
    end: int, label: str | None, *, sure: float = 5.0, activity: float = 0.5, distance: float = 1.0
) -> Evidence:
    scores = np.zeros(len(LABELS))
    if label is not None:
        scores[LABELS.index(label)] = sure
    return Evidence(end, scores, activity, distance)


def said(config: DecisionConfig, course: list[tuple[str | None, int]], **more: float) -> list[Decision]:
    decider, out = Decider(config, LABELS, HOP_S), []
    for label, hops in course:
        for _ in range(hops):
            activity = 0.0 if label == REST_LABEL else 0.5
            shown = None if label == REST_LABEL else label
            out.append(decider.push(evidence(len(out), shown, **{"activity": activity, **more})))
    return out


def events(decisions: list[Decision]) -> list[tuple[Kind, str, int]]:
    return [(e.kind, e.label, i) for i, d in enumerate(decisions) for e in d.events]


def test_a_gesture_begins_is_held_and_ends() -> None:
    found = events(said(CONFIG, [(REST_LABEL, 4), ("fist", 20), (REST_LABEL, 10)]))
    assert found == [
        (Kind.ONSET, "fist", 4 + 2),  # the third hop makes 0.15 s
        (Kind.HOLD, "fist", 4 + 2 + 10),
        (Kind.RELEASE, "fist", 24 + 3),
    ]


def test_a_flicker_changes_nothing() -> None:
    course = [("fist", 8), ("point", 2), ("fist", 8), (REST_LABEL, 2), ("fist", 8)]
    assert [e[:2] for e in events(said(CONFIG, course))] == [(Kind.ONSET, "fist"), (Kind.HOLD, "fist")]


def test_one_gesture_follows_another_without_rest() -> None:
    found = events(said(CONFIG, [("fist", 6), ("pinch", 6)]))
    assert [(k, label) for k, label, _ in found] == [
        (Kind.ONSET, "fist"),
        (Kind.RELEASE, "fist"),
        (Kind.ONSET, "pinch"),
    ]
    assert found[1][2] == found[2][2]


def test_a_hand_at_rest_is_at_rest_however_sure_the_scores_are() -> None:
    decisions = said(CONFIG, [("fist", 20)], activity=0.01, sure=50.0)
    assert {d.label for d in decisions} == {REST_LABEL}
    assert not events(decisions)


def test_rest_has_two_levels() -> None:
    decider = Decider(DecisionConfig(rest_below=0.1, rest_above=0.3, onset_s=0, release_s=0, steady_s=0), LABELS, HOP_S)
    levels = [0.2, 0.35, 0.2, 0.05, 0.2]
    found = [decider.push(evidence(i, "fist", activity=a)).label for i, a in enumerate(levels)]
    assert found == [REST_LABEL, "fist", "fist", REST_LABEL, REST_LABEL]


def test_what_is_not_sure_or_not_near_is_unknown() -> None:
    unsure = said(CONFIG, [(None, 10)])
    assert unsure[-1].label == UNKNOWN
    far = DecisionConfig(novelty=2.0, steady_s=0.0)
    assert said(far, [("fist", 10)], distance=3.0)[-1].label == UNKNOWN
    assert said(far, [("fist", 10)], distance=1.0)[-1].label == "fist"


def test_a_gesture_of_its_own_threshold() -> None:
    strict = DecisionConfig(accept={"fist": 0.999}, otherwise=0.5, steady_s=0.0)
    assert said(strict, [("fist", 10)])[-1].label == UNKNOWN
    assert said(strict, [("point", 10)])[-1].label == "point"


def test_temperature_makes_less_sure_and_keeps_the_order() -> None:
    scores = np.array([3.0, 1.0, 0.0])
    hot, cold = probabilities(scores, 4.0), probabilities(scores, 1.0)
    assert hot.argmax() == cold.argmax() == 0
    assert hot[0] < cold[0]
    assert hot.sum() == pytest.approx(1)
    assert probabilities(np.array([1e6, 0.0]), 1.0).tolist() == [1.0, 0.0]


def test_forgetting_starts_over() -> None:
    decider = Decider(CONFIG, LABELS, HOP_S)
    for i in range(10):
        decider.push(evidence(i, "fist"))
    decider.reset()
    assert decider.push(evidence(11, "fist")).label == REST_LABEL


def test_activity_is_of_the_end_of_a_window() -> None:
    window = np.zeros((100, 2))
    window[-20:] = -0.5
    assert activity_of(window, 100.0) == pytest.approx(0.5)
    window[:-20] = 9.0
    assert activity_of(window, 100.0) == pytest.approx(0.5)


def test_confidence_that_means_what_it_says_has_no_error() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.3, 1, 20_000)
    right = rng.random(len(p)) < p
    assert expected_calibration_error(p, right) < 0.02
    assert expected_calibration_error(np.full(100, 0.9), np.arange(100) % 2 == 0) == pytest.approx(0.4)
    with pytest.raises(DataError):
        expected_calibration_error(np.zeros(0), np.zeros(0, bool))


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"rest_below": 0.5, "rest_above": 0.1},
        {"accept": {"fist": 1.5}},
        {"novelty": 0.0},
        {"onset_s": -1.0},
        {"target_per_hour": 0.0},
    ],
)
def test_a_config_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        DecisionConfig(**wrong)  # type: ignore[arg-type]


def test_evidence_of_other_gestures_is_refused() -> None:
    with pytest.raises(DataError):
        Decider(CONFIG, LABELS, HOP_S).push(Evidence(0, np.zeros(4), 0.5))
    with pytest.raises(DataError):
        Decider(CONFIG, (), HOP_S)


@settings(max_examples=60, deadline=None)
@given(
    course=st.lists(
        st.tuples(st.sampled_from([*LABELS, None, REST_LABEL]), st.integers(1, 12)), min_size=1, max_size=12
    ),
    steady_s=st.sampled_from([0.0, 0.1, 0.4]),
)
def test_whatever_comes_every_onset_has_one_release_and_no_gesture_overlaps(
    course: list[tuple[str | None, int]], steady_s: float
) -> None:
    config = DecisionConfig(onset_s=0.15, release_s=0.2, hold_s=0.5, steady_s=steady_s, otherwise=0.6)
    on: str | None = None
    held = False
    for decision in said(config, course):
        for event in decision.events:
            if event.kind is Kind.ONSET:
                assert on is None
                on, held = event.label, False
            elif event.kind is Kind.HOLD:
                assert on == event.label
                assert not held
                held = True
            else:
                assert on == event.label
                assert event.lasted_s >= config.release_s
                on = None
        assert (decision.label == on) if on else decision.label in (REST_LABEL, UNKNOWN)
