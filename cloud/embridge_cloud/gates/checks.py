"""Checks: each compares one figure of a candidate with its champion's, or with what the first release must reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.gates.contender import Contender
from embridge_cloud.gates.figures import Heard, calibration_error
from embridge_cloud.gates.intervals import Interval, People, most_false, worst_of
from embridge_cloud.gates.policy import GatePolicy
from embridge_shared.decision import DecisionConfig
from embridge_shared.fleet import GateCheck

_ECE_DRAWS = 400


@dataclass(frozen=True, slots=True)
class Pair:
    """A candidate and, where there is one, its champion, on the same panel.

    Attributes:
        candidate: What the candidate said.
        champion: What the champion said; None for the first release.
        draws: Of people.
        policy: How it is judged.
    """

    candidate: Heard
    champion: Heard | None
    draws: People
    policy: GatePolicy

    def accuracy(self, name: str, title: str, among: Sequence[str], margin: float, floor: float | None) -> GateCheck:
        """Balanced accuracy in choosing among some gestures.

        Args:
            name: Of the check, before ".accuracy".
            title: For people.
            among: The gestures.
            margin: What may be lost against the champion.
            floor: What the first release reaches above chance, as a share of what chance leaves; None asks nothing.
        """
        own = self.candidate.accuracies(among)
        if self.champion is None:
            return self._floored(name, title, own, 1 / len(among), floor)
        other = self.champion.accuracies(among)
        both = np.isfinite(own) & np.isfinite(other)
        draws = self.draws if both.all() else self._fewer(int(both.sum()))
        return _no_worse(
            f"{name}.accuracy", title, (own[both], other[both]), draws.mean(own[both] - other[both]), margin
        )

    def _fewer(self, count: int) -> People:
        p = self.policy
        return People.of(count, confidence=p.confidence, resamples=p.resamples, seed=p.seed)

    def _floored(
        self, name: str, title: str, own: NDArray[np.float64], chance: float, floor: float | None
    ) -> GateCheck:
        found = self._fewer(int(np.isfinite(own).sum())).mean(own[np.isfinite(own)])
        limit = chance + (floor or 0.0) * (1 - chance)
        passed = floor is None or found.low >= limit
        why = f"{found.value:.3f} (at least {found.low:.3f}) by chance {chance:.3f}"
        return GateCheck(
            name=f"{name}.accuracy",
            title=title,
            candidate=found.value,
            low=found.low,
            high=found.high,
            limit=None if floor is None else limit,
            passed=passed,
            required=floor is not None,
            why=f"{why}; it must be shown to reach {limit:.3f}." if floor is not None else f"{why}.",
        )

    def group(self, name: str, people: Sequence[str], among: Sequence[str]) -> GateCheck:
        """Accuracy on the people of an earlier time: whether they were forgotten."""
        assert self.champion is not None
        margin = self.policy.margins.forgetting
        title = f"all gestures, people {name}"
        own = self.candidate.of(people).accuracies(among)
        other = self.champion.of(people).accuracies(among)
        if len(people) < 2:
            # One person has no interval over people; what it would say is left to `worst`.
            value = float((own - other).mean())
            return _no_worse(f"forgetting.{name}", title, (own, other), Interval(value, value, value), margin)
        return _no_worse(f"forgetting.{name}", title, (own, other), self._fewer(len(people)).mean(own - other), margin)

    def worst(self, among: Sequence[str]) -> GateCheck:
        """The person each serves worst."""
        assert self.champion is not None
        p, people = self.policy, self.candidate.people
        own = [self.candidate.repetitions(person, among) for person in people]
        other = [self.champion.repetitions(person, among) for person in people]
        kept = [
            i for i, (a, b) in enumerate(zip(own, other, strict=True)) if len(a) and np.array_equal(a[:, 0], b[:, 0])
        ]
        own, other = [own[i] for i in kept], [other[i] for i in kept]
        found = worst_of(own, other, confidence=p.confidence, resamples=p.resamples, seed=p.seed)
        lowest = [np.array([min(_balanced(t) for t in tables)]) for tables in (own, other)]
        return _no_worse("worst.accuracy", "the person served worst", (lowest[0], lowest[1]), found, p.margins.worst)

    def calibration(self, own: DecisionConfig | None, other: DecisionConfig | None) -> GateCheck | None:
        """How far its probabilities are from the share that is right; None where nobody fitted any."""
        title = "calibration error of its probabilities"
        if own is None:
            lost = other is not None
            why = "The champion's scores become decisions and the candidate's do not." if lost else ""
            nothing = GateCheck(
                name="calibration.ece", title=title, candidate=1.0, better="less", passed=False, why=why
            )
            return nothing if lost else None
        said = self.candidate.sureness(own)
        everybody = np.arange(len(said))
        value, p = calibration_error(said, everybody), self.policy
        if self.champion is None or other is None:
            limit = p.floors.ece
            return GateCheck(
                name="calibration.ece",
                title=title,
                candidate=value,
                limit=limit,
                better="less",
                passed=value <= limit,
                why=f"{value:.3f}; at most {limit:g}.",
            )
        others = self.champion.sureness(other)
        found = self.draws.of_any(
            lambda people: calibration_error(said, people) - calibration_error(others, people), _ECE_DRAWS
        )
        return _no_more("calibration.ece", title, (value, calibration_error(others, everybody)), found, p.margins.ece)

    def false_activations(self, own: DecisionConfig | None, other: DecisionConfig | None) -> GateCheck | None:
        """Gestures that began while nothing was performed; None where nothing decides, or nothing rests."""
        hours = self.candidate.rest_hours
        if own is None or not hours:
            return None
        count = self.candidate.false_activations(own)
        before = None if self.champion is None or other is None else self.champion.false_activations(other)
        expected = own.target_per_hour * hours
        most = most_false(max(before or 0, round(expected)), hours, confidence=self.policy.false_confidence)
        rate = count / hours
        beside = "" if before is None else f", the champion {before}"
        return GateCheck(
            name="false_activations",
            title="gestures that begin at rest, an hour",
            candidate=rate,
            champion=None if before is None else before / hours,
            limit=most,
            better="less",
            passed=rate <= most,
            why=f"{count} in {60 * hours:.1f} min of rest{beside}; over {most:.0f} an hour would be more than chance.",
        )


def _balanced(table: NDArray[np.float64]) -> float:
    """Balanced accuracy of a person's repetitions."""
    gestures = np.unique(table[:, 0])
    return float(np.mean([table[table[:, 0] == g, 1].sum() / table[table[:, 0] == g, 2].sum() for g in gestures]))


def _no_worse(
    name: str, title: str, figures: tuple[NDArray[np.float64], NDArray[np.float64]], found: Interval, margin: float
) -> GateCheck:
    own, other = (float(f.mean()) for f in figures)
    return GateCheck(
        name=name,
        title=title,
        candidate=own,
        champion=other,
        low=found.low,
        high=found.high,
        limit=-margin,
        passed=found.low >= -margin,
        why=f"{own:.3f} beside {other:.3f}: {found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f}), "
        f"at least {-margin:+.3f}.",
    )


def _no_more(name: str, title: str, figures: tuple[float, float], found: Interval, margin: float) -> GateCheck:
    own, other = figures
    return GateCheck(
        name=name,
        title=title,
        candidate=own,
        champion=other,
        low=found.low,
        high=found.high,
        limit=margin,
        better="less",
        passed=found.high <= margin,
        why=f"{own:.3f} beside {other:.3f}: {found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f}), "
        f"at most {margin:+.3f}.",
    )


def at_most(
    name: str, title: str, own: float, other: float | None, limit: float, *, unit: str = "", places: int = 2
) -> GateCheck:
    """A cost that has a limit."""
    beside = "" if other is None else f", the champion {other:.{places}f}{unit}"
    return GateCheck(
        name=name,
        title=title,
        candidate=own,
        champion=other,
        limit=limit,
        better="less",
        passed=own <= limit,
        why=f"{own:.{places}f}{unit}{beside}; at most {limit:.{places}f}{unit}.",
    )


def at_least(name: str, title: str, own: float, limit: float, *, other: float | None = None) -> GateCheck:
    """A figure that has a floor."""
    return GateCheck(
        name=name,
        title=title,
        candidate=own,
        champion=other,
        limit=limit,
        passed=own >= limit,
        why=f"{own:.4f}; at least {limit:g}.",
    )


def golden(contender: Contender) -> list[GateCheck]:
    """Whether every graph of the bundle answers its golden windows."""
    found, allowed = contender.golden(), contender.bundle.manifest.tolerances
    off = max(found.score / allowed.score, found.int8_score / allowed.int8_score)
    return [
        at_least("golden.cosine", "golden windows, full precision", found.cosine, allowed.cosine),
        at_least("golden.int8_cosine", "golden windows, quantised", found.int8_cosine, allowed.int8_cosine),
        at_most("golden.scores", "scores of golden windows, share of what is tolerated", min(off, 1e9), None, 1.0),
    ]


def watched(metrics: Mapping[str, float], policy: GatePolicy) -> list[GateCheck]:
    """What those who watched the training say of a first release, where nobody is held out."""
    value, chance = (metrics.get(f"validation.seen.{name}") for name in ("balanced_accuracy", "chance"))
    if value is None or chance is None:
        return []
    limit = chance + policy.floors.seen * (1 - chance)
    return [at_least("validation.accuracy", "gestures whose EMG was learnt, by validation people", value, limit)]


def kept_gestures(candidate: Contender, champion: Contender) -> GateCheck:
    """Whether every gesture the champion decodes is still decoded."""
    lost = [g for g in champion.labels if g not in candidate.labels]
    return GateCheck(
        name="gestures.kept",
        title="gestures the champion decodes",
        candidate=float(len(champion.labels) - len(lost)),
        champion=float(len(champion.labels)),
        limit=float(len(champion.labels)),
        passed=not lost,
        why=f"{', '.join(lost)} would no longer be decoded." if lost else "All are kept.",
    )
