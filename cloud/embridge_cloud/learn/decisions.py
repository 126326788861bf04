"""Fit how evidence becomes decisions, on wearers the scores were not fitted on, for a stated rate of false activations.

Whole recordings are decided as an edge would decide them, rest and the ways between gestures included.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from embridge_shared.decision import (
    Decider,
    DecisionConfig,
    Evidence,
    Kind,
    expected_calibration_error,
    probabilities,
)
from embridge_shared.errors import DataError, Reason

REST = -1
"""Truth of a hop whose whole window is rest."""
BETWEEN = -2
"""Truth of a hop whose window ends in rest and still holds movement; nothing is held against what is said there."""

_GRID = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.96, 0.98, 0.99, 0.995)
_NOVEL = 0.99
_LETS_GO = 0.7
_HOT = (-3.0, 6.0)


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """One recording, decided hop by hop.

    Attributes:
        person: Whose.
        truth: Gesture performed at each window's end, index into the labels, `REST` or `BETWEEN`, int64 (N,).
        whole: Whether the gesture fills the window (N,).
        log_likelihood: Of every gesture, float64 (N, G).
        activity: Mean scaled level at each window's end (N,).
        distance: From the nearest gesture, in units of what belongs (N,); None where scores have no distance.
        hop_s: Time between two hops, s.
    """

    person: str
    truth: NDArray[np.int64]
    whole: NDArray[np.bool_]
    log_likelihood: NDArray[np.float64]
    activity: NDArray[np.float64]
    distance: NDArray[np.float64] | None
    hop_s: float

    @property
    def rest_s(self) -> float:
        """How long nothing was performed, s."""
        return float((self.truth == REST).sum()) * self.hop_s


class DecisionReport(msgspec.Struct, frozen=True, kw_only=True):
    """What decisions are worth on recordings.

    Attributes:
        false_per_hour: Gestures that began while the hand rested, an hour of rest.
        rest_hours: Hours of rest that rests on.
        recall: Share of performances whose gesture began during them.
        right: Share of gestures that began during a performance and were the one performed.
        latency_s: Median time from a performance's onset to the right gesture's beginning, s.
        ece: Expected calibration error over windows of gestures.
        ece_untempered: The same at temperature 1.
        accuracy: Share of windows of gestures whose likeliest gesture is right.
    """

    false_per_hour: float
    rest_hours: float
    recall: float
    right: float
    latency_s: float
    ece: float
    ece_untempered: float
    accuracy: float


def fit_decision(
    traces: Sequence[Trace], labels: Sequence[str], *, base: DecisionConfig | None = None
) -> DecisionConfig:
    """Choose temperature, rest levels, novelty and thresholds.

    Each gesture gets the lowest threshold at which it alone stays within its share of the target; a gesture nobody
    performed gets the upper quartile of the others'.

    Args:
        traces: Recordings of wearers the scores were not fitted on.
        labels: Gestures, in the order of the scores.
        base: Times and target; the defaults without.

    Raises:
        DataError: TOO_LITTLE_DATA: no performance, or no rest.
    """
    config = base or DecisionConfig()
    truth = np.concatenate([t.truth for t in traces]) if traces else np.zeros(0, np.int64)
    if not any(t.whole.any() for t in traces) or not (truth == REST).any():
        raise DataError("decisions are fitted on recordings that hold gestures and rest", reason=Reason.TOO_LITTLE_DATA)
    config = msgspec.structs.replace(
        config,
        temperature=_temperature(traces),
        novelty=_novelty(traces),
        accept={},
        otherwise=0.0,
        **_rest_levels(traces),
    )
    performed = sorted({labels[g] for g in np.unique(truth[truth >= 0])})
    allowed = config.target_per_hour / len(labels)
    accept: dict[str, float] = dict.fromkeys(performed, _GRID[-1])
    open_still = set(performed)
    for least in _GRID:
        told = _false_starts(traces, labels, msgspec.structs.replace(config, otherwise=least))
        for label in sorted(open_still):
            if told.get(label, 0.0) <= allowed:
                accept[label] = least
                open_still.remove(label)
    otherwise = float(np.quantile(list(accept.values()), 0.75))
    return msgspec.structs.replace(config, accept=accept, otherwise=otherwise)


def judge_decision(traces: Sequence[Trace], labels: Sequence[str], config: DecisionConfig) -> DecisionReport:
    """What decisions under a configuration are worth.

    Raises:
        DataError: TOO_LITTLE_DATA: no performance.
    """
    false = rest_s = 0.0
    caught: list[bool] = []
    right: list[bool] = []
    waits: list[float] = []
    for trace in traces:
        starts = _starts(trace, labels, config)
        rest_s += trace.rest_s
        false += sum(trace.truth[hop] == REST for hop, _ in starts)
        for first, end in performances(trace.truth):
            during = [(hop, label) for hop, label in starts if first <= hop < end]
            right += [label == trace.truth[first] for _, label in during]
            hits = [hop for hop, label in during if label == trace.truth[first]]
            caught.append(bool(hits))
            waits += [(hits[0] - first) * trace.hop_s] if hits else []
    if not caught:
        raise DataError("no performance to judge decisions by", reason=Reason.TOO_LITTLE_DATA)
    scores, truth = _of_gestures(traces)
    sure, plain = (probabilities(scores, t) for t in (config.temperature, 1.0))
    best = sure.argmax(axis=1) == truth
    return DecisionReport(
        false_per_hour=float(false) / (rest_s / 3600) if rest_s else 0.0,
        rest_hours=rest_s / 3600,
        recall=float(np.mean(caught)),
        right=float(np.mean(right)) if right else 0.0,
        latency_s=float(np.median(waits)) if waits else float("inf"),
        ece=expected_calibration_error(sure.max(axis=1), best),
        ece_untempered=expected_calibration_error(plain.max(axis=1), plain.argmax(axis=1) == truth),
        accuracy=float(best.mean()),
    )


def _of_gestures(traces: Sequence[Trace]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Scores (N, G) and truth of all windows that lie whole in a performance."""
    scores = np.concatenate([t.log_likelihood[t.whole] for t in traces])
    return scores, np.concatenate([t.truth[t.whole] for t in traces])


def _temperature(traces: Sequence[Trace]) -> float:
    """The one under which the truth is likeliest."""
    scores, truth = _of_gestures(traces)
    rows = np.arange(len(truth))

    def surprise(log_temperature: float) -> float:
        chosen = probabilities(scores, float(np.exp(log_temperature)))[rows, truth]
        return float(-np.log(np.maximum(chosen, 1e-12)).mean())

    # scores of similarity differ by hundredths, log-likelihoods by tens
    spread = float(np.log(max(1e-6, float(np.ptp(scores, axis=1).mean()))))
    found = minimize_scalar(surprise, bounds=(spread + _HOT[0] - 3, spread + _HOT[1] - 3), method="bounded")
    return float(np.exp(found.x))


def _novelty(traces: Sequence[Trace]) -> float | None:
    """Distance that all but one in a hundred windows of gestures stay within."""
    far = [t.distance[t.whole] for t in traces if t.distance is not None]
    return float(np.quantile(np.concatenate(far), _NOVEL)) if far else None


def _rest_levels(traces: Sequence[Trace]) -> Mapping[str, float]:
    """The level that parts rest from gestures with the fewest errors of both kinds, and a lower one to let go at."""
    activity = np.concatenate([t.activity for t in traces])
    truth = np.concatenate([np.where((t.truth >= 0) & ~t.whole, BETWEEN, t.truth) for t in traces])
    rest, moving = np.sort(activity[truth == REST]), np.sort(activity[truth >= 0])
    levels = np.quantile(activity[truth >= REST], np.linspace(0.01, 0.99, 197))
    missed = np.searchsorted(moving, levels) / len(moving)
    woken = 1 - np.searchsorted(rest, levels) / len(rest)
    level = float(levels[np.argmin(missed + woken)])
    return {"rest_above": level, "rest_below": min(level, _LETS_GO * level)}


def _false_starts(traces: Sequence[Trace], labels: Sequence[str], config: DecisionConfig) -> dict[str, float]:
    """Gestures that began while the hand rested, an hour of rest, by label."""
    hours = sum(t.rest_s for t in traces) / 3600
    told: dict[str, float] = {}
    for trace in traces:
        for hop, label in _starts(trace, labels, config):
            if trace.truth[hop] == REST:
                told[labels[label]] = told.get(labels[label], 0.0) + 1 / hours
    return told


def _starts(trace: Trace, labels: Sequence[str], config: DecisionConfig) -> list[tuple[int, int]]:
    """Hop and gesture of every beginning."""
    decider = Decider(config, labels, trace.hop_s)
    found = []
    for hop in range(len(trace.truth)):
        distance = None if trace.distance is None else float(trace.distance[hop])
        said = decider.push(Evidence(hop, trace.log_likelihood[hop], float(trace.activity[hop]), distance))
        found += [(hop, list(labels).index(e.label)) for e in said.events if e.kind is Kind.ONSET]
    return found


def performances(truth: NDArray[np.int64]) -> list[tuple[int, int]]:
    """First hop and end of every stretch of one gesture."""
    edges = np.flatnonzero(np.diff(truth)) + 1
    bounds = [0, *edges.tolist(), len(truth)]
    return [(a, b) for a, b in itertools.pairwise(bounds) if b > a and truth[a] >= 0]
