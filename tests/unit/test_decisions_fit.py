"""Fitting decisions: at once as hop by hop; targets hold; confidence means what it says."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_cloud.learn.decisions import TARGETS, cross_judge, fit_decision, judge_decision, performances
from embridge_cloud.learn.onsets import BETWEEN, REST, Trace, onsets
from embridge_shared.decision import Decider, DecisionConfig, Evidence, Kind, probabilities
from embridge_shared.errors import DataError

LABELS = ("fist", "point", "pinch")
HOP_S = 0.1


def trace(
    person: str = "p",
    *,
    seed: int = 0,
    repetitions: int = 12,
    sure: float = 3.0,
    scale: float = 1.0,
    restless: float = 0.0,
    like: float = 1.4,
    distance: bool = True,
) -> Trace:
    """Gestures of 4 s in turn with 5 s of rest; scores tell them apart by `sure`, in units of `scale`.

    `restless` is the share of rests in which the hand moves, `like` times as much the third gesture as the gesture is.
    """
    rng = np.random.default_rng(seed)
    truth, whole, scores, activity = [], [], [], []
    for r in range(repetitions):
        label = r % len(LABELS)
        moved = rng.random() < restless
        for hop in range(50):
            between = r > 0 and hop < 16
            truth.append(BETWEEN if between else REST)
            whole.append(False)
            at = rng.normal(size=3)
            at[2] += like * sure * (moved and not between)
            scores.append(at)
            activity.append(0.6 if moved and not between else abs(rng.normal(0.02, 0.02)))
        for hop in range(40):
            truth.append(label)
            whole.append(hop >= 16)
            at = rng.normal(size=3)
            at[label] += sure * min(1.0, hop / 16)
            scores.append(at)
            activity.append(0.4 + 0.1 * rng.random())
    n = len(truth)
    return Trace(
        person=person,
        truth=np.array(truth),
        whole=np.array(whole),
        log_likelihood=np.array(scores) * scale,
        activity=np.array(activity),
        distance=1 + 0.2 * rng.random(n) if distance else None,
        hop_s=HOP_S,
    )


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    hops=st.integers(1, 120),
    config=st.builds(
        DecisionConfig,
        temperature=st.sampled_from([0.5, 2.0]),
        floor=st.sampled_from([0.0, 0.1]),
        accept=st.sampled_from([{}, {"fist": 0.9}]),
        otherwise=st.sampled_from([0.4, 0.7]),
        novelty=st.sampled_from([None, 1.5]),
        steady_s=st.sampled_from([0.0, 0.15, 0.5]),
        onset_s=st.sampled_from([0.0, 0.1, 0.15, 0.3]),
        release_s=st.sampled_from([0.0, 0.2, 0.5]),
        rest_below=st.just(0.3),
        rest_above=st.sampled_from([0.3, 0.5]),
    ),
)
def test_what_is_decided_at_once_is_what_a_decider_says_hop_by_hop(
    seed: int, hops: int, config: DecisionConfig
) -> None:
    rng = np.random.default_rng(seed)
    slow = np.repeat(rng.normal(size=(hops // 4 + 1, 3)), 4, axis=0)[:hops] * 3
    t = Trace(
        person="p",
        truth=np.full(hops, REST),
        whole=np.zeros(hops, bool),
        log_likelihood=slow + rng.normal(size=(hops, 3)) * 0.3,
        activity=np.repeat(rng.random(hops // 6 + 1), 6)[:hops],
        distance=np.repeat(rng.random(hops // 5 + 1) * 2, 5)[:hops],
        hop_s=HOP_S,
    )
    decider = Decider(config, LABELS, HOP_S)
    assert t.distance is not None
    told = [
        (hop, LABELS.index(e.label))
        for hop in range(hops)
        for e in decider.push(Evidence(hop, t.log_likelihood[hop], t.activity[hop], t.distance[hop])).events
        if e.kind is Kind.ONSET
    ]
    assert onsets(t, LABELS, config) == told


def test_the_target_is_kept_and_looser_ones_tell_more() -> None:
    traces = [trace(f"p{i}", seed=i, repetitions=60, restless=0.3, like=0.4) for i in range(3)]
    config = fit_decision(traces, LABELS)
    assert [p.target_per_hour for p in config.points] == list(TARGETS)
    found = [judge_decision(traces, LABELS, config.at(p.target_per_hour)) for p in config.points]
    assert all(f.false_per_hour <= p.target_per_hour for f, p in zip(found, config.points, strict=True))
    recalls = [f.recall for f in found]
    assert recalls == sorted(recalls)
    assert recalls[-1] > 0.9
    careless = msgspec.structs.replace(config, accept={}, otherwise=0.0, rest_above=0.1, rest_below=0.05)
    assert judge_decision(traces, LABELS, careless).false_per_hour > 30


def test_a_target_of_ones_own_is_fitted_too() -> None:
    config = fit_decision([trace(repetitions=40)], LABELS, base=DecisionConfig(target_per_hour=20.0, hold_s=2.0))
    assert (config.target_per_hour, config.hold_s) == (20.0, 2.0)
    assert 20.0 in [p.target_per_hour for p in config.points]
    assert config.at(20.0) == config


def test_a_gesture_that_keeps_beginning_in_rest_gets_a_threshold_of_its_own() -> None:
    traces = [trace(f"p{i}", seed=i, repetitions=60, restless=0.1) for i in range(3)]
    accept = fit_decision(traces, LABELS, base=DecisionConfig(target_per_hour=90.0)).points[-1].accept
    assert set(accept) <= {"pinch"}


@pytest.mark.parametrize("scale", [0.02, 1.0, 30.0])
def test_confidence_means_what_it_says_whatever_the_scale_of_scores(scale: float) -> None:
    traces = [trace(f"p{i}", seed=i, repetitions=30, sure=1.5, scale=scale, distance=False) for i in range(2)]
    config = fit_decision(traces, LABELS)
    found = judge_decision(traces, LABELS, config)
    assert found.ece < 0.04
    assert found.ece_untempered > found.ece + (0.03 if scale != 1.0 else -1)
    assert config.novelty is None
    shares = config.probabilities(traces[0].log_likelihood)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert shares.min() >= config.floor / 3 - 1e-12


def test_a_floor_is_found_where_sure_scores_are_sometimes_wrong() -> None:
    clean = trace(sure=8.0, repetitions=60)
    wrong = np.random.default_rng(1).random(len(clean.truth)) < 0.2
    mixed = clean.log_likelihood.copy()
    mixed[wrong] = np.roll(mixed[wrong], 1, axis=1)
    config = fit_decision([replace(clean, log_likelihood=mixed)], LABELS)
    assert config.floor == pytest.approx(0.3, abs=0.05)  # of what goes to all three alike a third is right
    assert fit_decision([clean], LABELS).floor < 0.02
    best = probabilities(mixed[clean.whole], config.temperature, floor=config.floor).max(axis=1)
    assert np.median(best) == pytest.approx(0.8, abs=0.03)


def test_people_are_judged_by_thresholds_of_others() -> None:
    calm = [trace(f"p{i}", seed=i, repetitions=30) for i in range(3)]
    odd = trace("q", seed=9, repetitions=30, restless=1.0, sure=4.0)
    own = judge_decision([odd], LABELS, fit_decision([odd], LABELS))
    others = judge_decision([odd], LABELS, fit_decision(calm, LABELS))
    assert own.false_per_hour < 6 < others.false_per_hour
    crossed = cross_judge([*calm, odd], LABELS, folds=4)
    assert crossed.people == 4
    assert crossed.performances == 120
    assert crossed.false_per_hour == pytest.approx(others.false_per_hour / 4, rel=0.5)
    with pytest.raises(DataError, match="two people"):
        cross_judge(calm[:1], LABELS)


def test_figures_of_a_known_course() -> None:
    truth = np.array([REST] * 10 + [0] * 10 + [REST] * 10 + [1] * 10 + [REST] * 5)
    scores = np.zeros((45, 3))
    scores[15:20, 0] = scores[25:28, 2] = scores[30:40, 2] = 9.0
    activity = np.where((truth >= 0) | (scores.max(axis=1) > 0), 0.5, 0.0)
    t = Trace("p", truth, truth >= 0, scores, activity, None, HOP_S)
    config = DecisionConfig(onset_s=0.2, release_s=0.2, steady_s=0.0, otherwise=0.6)
    assert onsets(t, LABELS, config) == [(16, 0), (26, 2), (31, 2)]
    found = judge_decision([t], LABELS, config)
    assert found.false_per_hour == pytest.approx(1 / (25 * HOP_S / 3600))
    assert (found.recall, found.right, found.performances) == (0.5, 0.5, 2)
    assert found.latency_s == pytest.approx(0.6)
    assert performances(truth) == [(10, 20), (30, 40)]


def test_too_little_is_refused() -> None:
    t = trace(repetitions=3)
    with pytest.raises(DataError):
        fit_decision([], LABELS)
    with pytest.raises(DataError):
        fit_decision([replace(t, truth=np.where(t.truth == REST, BETWEEN, t.truth))], LABELS)
    with pytest.raises(DataError):
        fit_decision([replace(t, whole=np.zeros(len(t.truth), bool))], LABELS)
    with pytest.raises(DataError):
        judge_decision([replace(t, truth=np.full(len(t.truth), REST))], LABELS, DecisionConfig())
