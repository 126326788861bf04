"""How a release decides: thresholds for its head and for a wearer's own model, fitted on people neither was fitted on.

Training participants take turns as strangers where a fit is cheap: the head and the prior are made of the others and
meet them. A deep head is not trained again; it meets the validation participants.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_cloud.learn.decisions import DecisionReport, cross_judge, fit_decision
from embridge_cloud.learn.heads import Head
from embridge_cloud.learn.onsets import Trace
from embridge_cloud.traces import Scores, Stretch, trace_of
from embridge_shared.decision import DecisionConfig, OperatingPoint
from embridge_shared.errors import DataError
from embridge_shared.scoring import PrototypeScorer
from embridge_shared.wearer import KnownGesture, Repetition, WearerModel, WearerPrior

logger = logging.getLogger(__name__)

GROUPS = 3
CALIBRATED_WITH = 3
_FIGURES = ("false_per_hour", "rest_hours", "recall", "right", "latency_s", "ece", "ece_untempered", "people")
_DOUBT = 2.0


@dataclass(frozen=True, slots=True)
class Speaker:
    """A head and what it is compared with.

    Attributes:
        head: Embeds EMG.
        scorer: Scores embeddings.
    """

    head: Head
    scorer: PrototypeScorer

    def __call__(self, windows: NDArray[np.float32]) -> Scores:
        """Windows (n, T, C) to scores (n, G)."""
        return self.scorer(self.head.embed_emg(windows)), None


@dataclass(frozen=True, slots=True)
class Tuned:
    """What came of it.

    Attributes:
        decision: For the head; None where nothing could be fitted.
        wearer_decision: For a wearer's own model; likewise.
        metrics: What they were measured to be worth on people they were not fitted on.
    """

    decision: DecisionConfig | None = None
    wearer_decision: DecisionConfig | None = None
    metrics: dict[str, float] = field(default_factory=dict)


def groups(people: Sequence[str], count: int = GROUPS) -> list[tuple[str, ...]]:
    """People dealt into groups."""
    ordered = sorted(set(people))
    return [tuple(ordered[i::count]) for i in range(min(count, len(ordered)))]


def head_traces(
    strangers: Sequence[Stretch],
    speaker: Speaker,
    trained: Sequence[Stretch] = (),
    refit: Callable[[Sequence[str]], Speaker] | None = None,
) -> list[Trace]:
    """What a head says of people it was not fitted on.

    Args:
        strangers: Recordings of people it was not fitted on.
        speaker: The head.
        trained: Recordings of those it was fitted on.
        refit: The head made without some of these, where that is cheap.
    """
    out = [trace_of(s, speaker) for s in strangers]
    if refit is None:
        return out
    for group in groups([s.person for s in trained]):
        try:
            other = refit(group)
        except DataError as error:
            logger.info("no head without %d people: %s", len(group), error)
            continue
        out += [trace_of(s, other) for s in trained if s.person in group]
    return out


def wearer_traces(trained: Sequence[Stretch], prior_without: Callable[[Sequence[str]], WearerPrior]) -> list[Trace]:
    """What a model made the wearer's own says of people its prior was not fitted on, after a short calibration.

    Args:
        trained: Recordings of training participants.
        prior_without: The prior made without some of them.
    """
    out = []
    for group in groups([s.person for s in trained]):
        try:
            prior = prior_without(group)
        except DataError as error:
            logger.info("no prior without %d people: %s", len(group), error)
            continue
        for person in group:
            out += calibrated_traces([s for s in trained if s.person == person], prior)
    return out


def calibrated_traces(recorded: Sequence[Stretch], prior: WearerPrior) -> list[Trace]:
    """A person's recordings after the first repetitions, decided by a model that was given these.

    Args:
        recorded: Of one person.
        prior: Fitted on others.
    """
    performed = [p for s in recorded for p in s.performed()]
    numbers = sorted({repetition for _, repetition, _ in performed})
    spent = numbers[: min(CALIBRATED_WITH, len(numbers) // 2)]
    if not spent:
        return []
    window = recorded[0].preprocess.window
    own = [
        Repetition.of(prior.gestures[g], prior.describe(np.ascontiguousarray(w)), length=window.length, hop=window.hop)
        for g, r, w in performed
        if r in spent
    ]
    model = WearerModel(prior, [KnownGesture(g, p) for g, p in zip(prior.gestures, prior.postures, strict=True)], own)

    def score(windows: NDArray[np.float32]) -> Scores:
        points = prior.describe(windows)
        return model.log_likelihood(points), model.distances(points).min(axis=1) / prior.size

    return [trace_of(s, score, spent=spent) for s in recorded]


def tune(traces: Sequence[Trace], labels: Sequence[str], name: str) -> tuple[DecisionConfig | None, dict[str, float]]:
    """Fit, and measure on people the thresholds were not fitted on.

    Args:
        traces: Of people the scores were not fitted on.
        labels: In the order of the scores.
        name: Of the figures, as in "decision.wearer".
    """
    try:
        fitted = fit_decision(traces, labels)
    except DataError as error:
        logger.warning("%s: thresholds cannot be fitted: %s", name, error)
        return None, {}
    try:
        return fitted, figures(cross_judge(traces, labels), name)
    except DataError as error:
        logger.warning("%s: thresholds cannot be judged: %s", name, error)
        return fitted, {f"{name}.people": float(len({t.person for t in traces}))}


def figures(report: DecisionReport, name: str) -> dict[str, float]:
    """A report as metrics; a latency of no gesture at all is left out."""
    values = {f"{name}.{what}": float(getattr(report, what)) for what in _FIGURES}
    return {key: value for key, value in values.items() if math.isfinite(value)}


def doubted(config: DecisionConfig) -> DecisionConfig:
    """Thresholds fitted on the very people a head was fitted on, made cautious: it is surer of these than it will be.

    Probabilities are drawn halfway to chance in the logarithm, thresholds stay, and only targets of at most half of
    what was fitted are promised.
    """
    points = tuple(
        OperatingPoint(
            target_per_hour=p.target_per_hour * _DOUBT,
            accept=p.accept,
            otherwise=p.otherwise,
            rest_below=p.rest_below,
            rest_above=p.rest_above,
        )
        for p in config.points
    )
    return msgspec.structs.replace(config, temperature=config.temperature * _DOUBT, points=points).at(
        config.target_per_hour
    )
