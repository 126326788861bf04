"""Fit how evidence becomes decisions, on wearers the scores were not fitted on, for a stated rate of false activations.

Whole recordings are decided as an edge would decide them, rest and the ways between gestures included.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import chi2

from embridge_cloud.learn.onsets import BETWEEN, REST, Course, Trace, onsets
from embridge_shared.decision import DecisionConfig, OperatingPoint, expected_calibration_error, probabilities
from embridge_shared.errors import DataError, Reason

__all__ = [
    "BETWEEN", "REST", "DecisionReport", "Trace", "cross_judge", "fit_decision", "judge_decision", "performances",
]  # fmt: skip

TARGETS: Final = (2.0, 6.0, 12.0, 30.0, 60.0)
"""False activations an hour that thresholds are shipped for."""

_STEPS = np.array([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.93, 0.96, 0.98, 0.99, 0.995, 0.999])
_STRICTER = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)
_CONFIDENCE = 0.8
_OFFENDS = 3
_NOVEL = 0.99
_LETS_GO = 0.7
_FOLDS = 3


class DecisionReport(msgspec.Struct, frozen=True, kw_only=True):
    """What decisions are worth on recordings.

    Attributes:
        false_per_hour: Gestures that began while the hand rested, an hour of rest.
        rest_hours: Hours of rest that rests on.
        performances: Number of performances the others rest on.
        people: Whose.
        recall: Share of performances whose gesture began during them.
        right: Share of gestures that began during a performance and were the one performed.
        latency_s: Median time from a performance's onset to the right gesture's beginning, s; inf where none began.
        ece: Expected calibration error over windows of gestures.
        ece_untempered: The same at temperature 1 and without a floor.
        accuracy: Share of windows of gestures whose likeliest gesture is right.
    """

    false_per_hour: float
    rest_hours: float
    performances: int
    people: int
    recall: float
    right: float
    latency_s: float
    ece: float
    ece_untempered: float
    accuracy: float


def fit_decision(
    traces: Sequence[Trace], labels: Sequence[str], *, base: DecisionConfig | None = None
) -> DecisionConfig:
    """Choose temperature, floor, novelty, rest levels and thresholds.

    Rest level and threshold are chosen together, so that of performances as many as possible are told, those told
    wrong held against it, while false activations stay below the target with a confidence of four in five. A gesture
    that still begins three times or more in rest, and more than twice as often as its share, gets a higher threshold of
    its own. So do `TARGETS`, for `DecisionConfig.at`.

    Args:
        traces: Recordings of wearers the scores were not fitted on.
        labels: Gestures, in the order of the scores.
        base: Times and target; the defaults without.

    Raises:
        DataError: TOO_LITTLE_DATA: no performance, or no rest.
    """
    config = base or DecisionConfig()
    if not any(t.whole.any() for t in traces) or not any((t.truth == REST).any() for t in traces):
        raise DataError("decisions are fitted on recordings that hold gestures and rest", reason=Reason.TOO_LITTLE_DATA)
    temperature, floor = _calibrated(traces)
    config = msgspec.structs.replace(config, temperature=temperature, floor=floor, novelty=_novelty(traces))
    targets = tuple(sorted({*TARGETS, config.target_per_hour}))
    points = _points(traces, labels, config, targets)
    fitted = msgspec.structs.replace(config, points=points).at(config.target_per_hour)
    return msgspec.structs.replace(fitted, target_per_hour=config.target_per_hour)


def judge_decision(traces: Sequence[Trace], labels: Sequence[str], config: DecisionConfig) -> DecisionReport:
    """What decisions under a configuration are worth.

    Raises:
        DataError: TOO_LITTLE_DATA: no performance.
    """
    tally = _Tally()
    tally.add(traces, labels, config)
    return tally.report()


def cross_judge(
    traces: Sequence[Trace], labels: Sequence[str], *, base: DecisionConfig | None = None, folds: int = _FOLDS
) -> DecisionReport:
    """What `fit_decision` is worth on people it was not given: fitted on some, judged on the others, in turn.

    Raises:
        DataError: TOO_LITTLE_DATA: fewer than two people, or some of them have too little.
    """
    people = sorted({t.person for t in traces})
    if len(people) < 2:
        raise DataError("thresholds are judged on two people or more", reason=Reason.TOO_LITTLE_DATA)
    tally = _Tally()
    for fold in range(min(folds, len(people))):
        judged = set(people[fold :: min(folds, len(people))])
        config = fit_decision([t for t in traces if t.person not in judged], labels, base=base)
        tally.add([t for t in traces if t.person in judged], labels, config)
    return tally.report()


def performances(truth: NDArray[np.int64]) -> list[tuple[int, int]]:
    """First hop and end of every stretch of one gesture."""
    edges = np.flatnonzero(np.diff(truth)) + 1
    bounds = [0, *edges.tolist(), len(truth)]
    return [(a, b) for a, b in itertools.pairwise(bounds) if b > a and truth[a] >= 0]


@dataclass(slots=True)
class _Tally:
    """What decisions did, added up over recordings and configurations."""

    false: int = 0
    rest_s: float = 0.0
    people: set[str] = field(default_factory=set)
    caught: list[bool] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    sure: list[NDArray[np.float64]] = field(default_factory=list)
    plain: list[NDArray[np.float64]] = field(default_factory=list)
    best: list[NDArray[np.bool_]] = field(default_factory=list)

    def add(self, traces: Sequence[Trace], labels: Sequence[str], config: DecisionConfig) -> None:
        for trace in traces:
            starts = onsets(trace, labels, config)
            self.people.add(trace.person)
            self.rest_s += trace.rest_s
            self.false += sum(trace.truth[hop] == REST for hop, _ in starts)
            for first, end in performances(trace.truth):
                during = [(hop, label) for hop, label in starts if first <= hop < end]
                hits = [hop for hop, label in during if label == trace.truth[first]]
                self.right += [label == trace.truth[first] for _, label in during]
                self.caught.append(bool(hits))
                self.waits += [(hits[0] - first) * trace.hop_s] if hits else []
            scores, truth = _of_gestures([trace])
            shares = config.probabilities(scores)
            self.sure.append(shares.max(axis=1))
            self.plain.append(probabilities(scores, 1.0).max(axis=1))
            self.best.append(shares.argmax(axis=1) == truth)

    def report(self) -> DecisionReport:
        best = np.concatenate(self.best) if self.best else np.zeros(0, bool)
        if not self.caught or not len(best):
            raise DataError("no performance to judge decisions by", reason=Reason.TOO_LITTLE_DATA)
        return DecisionReport(
            false_per_hour=float(self.false) / (self.rest_s / 3600) if self.rest_s else 0.0,
            rest_hours=self.rest_s / 3600,
            performances=len(self.caught),
            people=len(self.people),
            recall=float(np.mean(self.caught)),
            right=float(np.mean(self.right)) if self.right else 0.0,
            latency_s=float(np.median(self.waits)) if self.waits else float("inf"),
            ece=expected_calibration_error(np.concatenate(self.sure), best),
            ece_untempered=expected_calibration_error(np.concatenate(self.plain), best),
            accuracy=float(best.mean()),
        )


def _of_gestures(traces: Sequence[Trace]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Scores (N, G) and truth of all windows that lie whole in a performance."""
    scores = np.concatenate([t.log_likelihood[t.whole] for t in traces])
    return scores, np.concatenate([t.truth[t.whole] for t in traces])


def _calibrated(traces: Sequence[Trace]) -> tuple[float, float]:
    """The temperature and floor under which the truth is likeliest."""
    scores, truth = _of_gestures(traces)
    rows = np.arange(len(truth))

    def unpacked(at: NDArray[np.float64]) -> tuple[float, float]:
        return float(np.exp(np.clip(at[0], -30, 30))), float(1 / (1 + np.exp(-np.clip(at[1], -12, 5))))

    def surprise(at: NDArray[np.float64]) -> float:
        temperature, floor = unpacked(at)
        chosen = probabilities(scores, temperature, floor=floor)[rows, truth]
        return float(-np.log(np.maximum(chosen, 1e-12)).mean())

    # scores of similarity differ by hundredths, log-likelihoods by tens
    spread = float(np.log(max(1e-6, float(np.ptp(scores, axis=1).mean()))))
    starts = [np.array([spread - 2 + s, -3.0]) for s in (-1.5, 0.0, 1.5)]
    found = minimize(surprise, min(starts, key=surprise), method="Nelder-Mead", options={"xatol": 1e-2, "fatol": 1e-4})
    return unpacked(found.x)


def _novelty(traces: Sequence[Trace]) -> float | None:
    """Distance that all but one in a hundred windows of gestures stay within."""
    far = [t.distance[t.whole] for t in traces if t.distance is not None]
    return float(np.quantile(np.concatenate(far), _NOVEL)) if far else None


def _rest_level(traces: Sequence[Trace]) -> float:
    """The level that parts rest from gestures with the fewest errors of both kinds."""
    activity = np.concatenate([t.activity for t in traces])
    truth = np.concatenate([np.where((t.truth >= 0) & ~t.whole, BETWEEN, t.truth) for t in traces])
    rest, moving = np.sort(activity[truth == REST]), np.sort(activity[truth >= 0])
    levels = np.quantile(activity[truth >= REST], np.linspace(0.01, 0.99, 197))
    missed = np.searchsorted(moving, levels) / len(moving)
    woken = 1 - np.searchsorted(rest, levels) / len(rest)
    return float(levels[np.argmin(missed + woken)])


@dataclass(frozen=True, slots=True)
class _Trial:
    """What thresholds did: false beginnings by gesture, performances told right, beginnings told wrong."""

    false: NDArray[np.int64]
    told: int
    wrong: int


class _Trials:
    """Recordings under one rest level, tried with many thresholds."""

    def __init__(self, traces: Sequence[Trace], config: DecisionConfig, shares: list[NDArray[np.float64]]) -> None:
        self.config = config
        self._traces = traces
        self._courses = [Course.of(t, config, s) for t, s in zip(traces, shares, strict=True)]
        self._which = [np.cumsum(np.diff(t.truth, prepend=t.truth[:1]) != 0) for t in traces]

    def run(self, least: NDArray[np.float64]) -> _Trial:
        """Decide everything."""
        false, told, wrong = np.zeros(len(least), np.int64), 0, 0
        for trace, course, which in zip(self._traces, self._courses, self._which, strict=True):
            caught = set()
            for hop, label in course.onsets(least, self.config, trace.hop_s):
                truth = trace.truth[hop]
                false[label] += truth == REST
                wrong += truth not in (REST, BETWEEN, label)
                if truth == label:
                    caught.add(which[hop])
            told += len(caught)
        return _Trial(false, told, wrong)


def _points(
    traces: Sequence[Trace], labels: Sequence[str], config: DecisionConfig, targets: Sequence[float]
) -> tuple[OperatingPoint, ...]:
    """The best rest level and threshold for every target."""
    hours = sum(t.rest_s for t in traces) / 3600
    level, n = _rest_level(traces), len(labels)
    shares = [config.probabilities(t.log_likelihood) for t in traces]
    grid = 1 / n + (1 - config.floor) * (1 - 1 / n) * _STEPS
    best: dict[float, tuple[tuple[bool, int, int], _Trials, NDArray[np.float64]]] = {}
    for stricter in _STRICTER:
        above = level * stricter
        at = msgspec.structs.replace(config, rest_above=above, rest_below=min(above, _LETS_GO * above))
        trials = _Trials(traces, at, shares)
        for threshold in grid:
            least = np.full(n, threshold)
            found = trials.run(least)
            false = int(found.false.sum())
            for target in targets:
                within = _rate(false, hours, target) <= target
                worth = (within, found.told - found.wrong if within else -false, -false)
                if target not in best or worth > best[target][0]:
                    best[target] = worth, trials, least
    return tuple(
        _point(target, labels, trials, _tightened(trials, least, grid, target * hours / n))
        for target, (_, trials, least) in sorted(best.items())
    )


def _rate(false: int, hours: float, target: float) -> float:
    """False activations an hour that it is not worse than, at `_CONFIDENCE`.

    Where rest is too short to be that confident of the target by any count, none may be there.
    """
    if chi2.ppf(_CONFIDENCE, 2) / 2 / hours > target:
        return np.inf if false else 0.0
    return float(chi2.ppf(_CONFIDENCE, 2 * false + 2) / 2 / hours)


def _tightened(
    trials: _Trials, least: NDArray[np.float64], grid: NDArray[np.float64], share: float
) -> NDArray[np.float64]:
    """Higher thresholds for gestures that begin in rest far beyond their share of what may."""
    least = least.copy()
    while True:
        false = trials.run(least).false
        offends = (false >= _OFFENDS) & (false > 2 * share) & (least < grid[-1])
        if not offends.any():
            return least
        least[offends] = grid[np.searchsorted(grid, least[offends], side="right")]


def _point(target: float, labels: Sequence[str], trials: _Trials, least: NDArray[np.float64]) -> OperatingPoint:
    usual = float(least.min())
    return OperatingPoint(
        target_per_hour=target,
        accept={label: float(p) for label, p in zip(labels, least, strict=True) if p > usual},
        otherwise=usual,
        rest_below=trials.config.rest_below,
        rest_above=trials.config.rest_above,
    )
