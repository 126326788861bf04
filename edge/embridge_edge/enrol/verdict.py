"""Whether a repetition is taken: the signal first, then the movement, then what it looks like."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from embridge_edge.enrol.repetition import StoredRepetition
from embridge_edge.enrol.view import WearerView
from embridge_shared.decision import probabilities
from embridge_shared.enrolment import Refusal
from embridge_shared.errors import Reason
from embridge_shared.quality import LIMITS, Grade, Metric, Verdict, assess
from embridge_shared.quality.judge import Judge
from embridge_shared.signal import StreamSpec
from embridge_shared.wearer import Repetition, WearerModel

_SPOILT: Final = 8
"""One channel in so many may be bad, or clipped."""
_ELSEWHERE: Final = frozenset(
    {
        *(Metric.LOSS, Metric.CLIPPING, Metric.SNR, Metric.RESPONSE),
        # one gesture alone moves neighbours alike, and some far more than others
        *(Metric.SHAPE, Metric.BRIDGE, Metric.ODD),
    }
)
"""Metrics with a refusal of their own, or that a few seconds do not tell."""
_LIMITS: Final = {m: replace(limit, hold=min(2, limit.hold)) for m, limit in LIMITS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Strictness:
    """What is asked of a repetition.

    Attributes:
        least_s: Shortest movement, s; never less than the release's window.
        least_level: Least mean level over the movement; by default the one under which the release takes it for rest.
        most_clipped: Share of clipped samples a channel may have.
        least_rest_s: Rest that must lie before the movement, s.
        inconsistent: How far, in units of what belongs, it may lie from the wearer's other repetitions.
        similar: Probability of another gesture from which on it looks like that one.
    """

    least_s: float = 0.5
    least_level: float | None = None
    most_clipped: float = 0.01
    least_rest_s: float = 0.3
    inconsistent: float = 2.5
    similar: float = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is said of a repetition.

    Attributes:
        refusal: Why not; None where it is taken.
        detail: In words, with the value that decided.
        grades: Of each channel.
        looks_like: Another gesture it resembles.
        probability: How likely it is that one.
        agreement: Share of its windows decided as its own gesture; None where nobody could tell.
        seen: It in the prior's space, where the release has one.
    """

    refusal: Refusal | None = None
    detail: str = ""
    grades: tuple[Grade, ...] = ()
    looks_like: str = ""
    probability: float = 0.0
    agreement: float | None = None
    seen: Repetition | None = None


def examine(
    repetition: StoredRepetition, view: WearerView, *, lost: int = 0, level: float, strict: Strictness
) -> Finding:
    """Judge a repetition by itself and by what the wearer did before.

    Args:
        repetition: With the rest before it.
        view: The wearer so far.
        lost: Samples that did not arrive within it.
        level: Mean scaled level over the movement.
        strict: What is asked of it.
    """
    found = signal(repetition.about.spec, repetition.samples, lost=lost, most_clipped=strict.most_clipped)
    if found.refusal is None:
        found = _movement(found, repetition, view, level, strict)
    if found.refusal is None:
        found = _meaning(found, repetition, view, strict)
    return found


def signal(spec: StreamSpec, samples: NDArray[Any], *, lost: int = 0, most_clipped: float = 0.01) -> Finding:
    """Judge the signal alone: gaps, clipping, channels that are bad.

    Args:
        spec: The band's stream.
        samples: Raw, (n, C), a repetition and the rest around it; less than two seconds tell of gaps alone.
        lost: Samples that did not arrive within it.
        most_clipped: Share of clipped samples a channel may have.
    """
    if lost:
        return Finding(refusal=Refusal.GAP, detail=f"{lost / spec.rate_hz:.2g} s of it did not arrive")
    verdicts = list(assess(spec, [(0, samples)], Judge(spec, _LIMITS)))
    grades = _grades(verdicts, spec.n_channels)
    shares = [v.values[Metric.CLIPPING] for v in verdicts if Metric.CLIPPING in v.values]
    clipped = np.max(shares, axis=0) if shares else np.zeros(spec.n_channels)
    full = np.flatnonzero(clipped > most_clipped)
    if len(full) > spec.n_channels // _SPOILT:
        told = ", ".join(f"{spec.channels[c]} {100 * clipped[c]:.2g} %" for c in full[:3])
        words = f"samples of {len(full)} channels are clipped ({told})"
        return Finding(refusal=Refusal.TOO_STRONG, detail=words, grades=grades)
    bad = [c for c, grade in enumerate(grades) if grade is Grade.BAD]
    if len(bad) > spec.n_channels // _SPOILT:
        told = "; ".join(f"{spec.channels[c]}: {_why(verdicts, c)}" for c in bad[:3])
        return Finding(refusal=Refusal.NOISY, detail=f"{len(bad)} channels are bad ({told})", grades=grades)
    return Finding(grades=grades)


def _grades(verdicts: list[Verdict], channels: int) -> tuple[Grade, ...]:
    """The worst of each channel, metrics with a refusal of their own left out."""
    out = [Grade.UNKNOWN] * channels
    for c in range(channels):
        for verdict in verdicts:
            kept = [grades[c] for metric, grades in verdict.grades.items() if metric not in _ELSEWHERE]
            for grade in (Grade.GOOD, Grade.WARN, Grade.BAD):
                if grade in kept and (out[c], grade) not in ((Grade.BAD, Grade.GOOD), (Grade.BAD, Grade.WARN)):
                    out[c] = Grade.WARN if (out[c], grade) == (Grade.WARN, Grade.GOOD) else grade
    return tuple(out)


def _why(verdicts: list[Verdict], channel: int) -> str:
    for verdict in verdicts:
        for metric in verdict.faults(channel, Grade.BAD):
            if metric not in _ELSEWHERE:
                return verdict.reason(metric, channel)
    return Reason.POOR_SIGNAL.value


def _movement(
    found: Finding, repetition: StoredRepetition, view: WearerView, level: float, strict: Strictness
) -> Finding:
    about = repetition.about
    lasted_s = (about.end - about.onset) / about.spec.rate_hz
    least_s = max(strict.least_s, view.release.preprocess.window_s)
    least = view.release.decision.rest_above if strict.least_level is None else strict.least_level
    if level < least:
        words = f"level {level:.2f}, at least {least:.2f}"
        return replace(found, refusal=Refusal.TOO_WEAK, detail=words)
    if lasted_s < least_s:
        return replace(found, refusal=Refusal.TOO_SHORT, detail=f"{lasted_s:.2f} s, at least {least_s:.2g} s")
    if (about.onset - about.first) / about.spec.rate_hz < strict.least_rest_s:
        return replace(found, refusal=Refusal.NOT_AT_REST, detail="the movement began before there was rest")
    return found


def _meaning(found: Finding, repetition: StoredRepetition, view: WearerView, strict: Strictness) -> Finding:
    """Agreement with the wearer's other repetitions, and with other gestures of theirs."""
    seen, label = view.see(repetition), repetition.about.label
    model = view.model(also=(label,))
    if seen is None or model is None:
        return found
    p = probabilities(model.log_likelihood(seen.points), view.release.decision.temperature)
    at = model.labels.index(label)
    found = replace(found, seen=seen, agreement=float((p.argmax(axis=1) == at).mean()))
    performed = {r.label for r in view.own}
    far = _far(model, seen)
    others = [i for i, other in enumerate(model.labels) if other in performed and i != at]
    if others:
        other = max(others, key=lambda i: float(p[:, i].mean()))
        name, share = model.labels[other], float(p[:, other].mean())
        found = replace(found, looks_like=name, probability=share)
        if share >= strict.similar and far[other] <= strict.inconsistent:
            return replace(found, refusal=Refusal.TOO_SIMILAR, detail=f"it looks like {name} ({share:.2f})")
    if label in performed and far[at] > strict.inconsistent:
        words = f"it lies {far[at]:.1f} times as far from the others as repetitions do"
        return replace(found, refusal=Refusal.INCONSISTENT, detail=words)
    return found


def _far(model: WearerModel, seen: Repetition) -> NDArray[np.float64]:
    """How far a repetition lies from each gesture, in units of what belongs: about 1 for one of it, (G,)."""
    prior = model.prior
    spread = model.variance + prior.repeats + prior.within / max(1.0, seen.windows)
    return np.asarray(np.sqrt((np.square(seen.points.mean(axis=0) - model.mean) / spread).mean(axis=1)))
