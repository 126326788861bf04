"""The wearer's model from what is stored: which gestures, which repetitions, what is confused with what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embridge_edge.enrol.embed import Seen
from embridge_shared.decision import probabilities
from embridge_shared.enrolment import GestureNote
from embridge_shared.wearer import KnownGesture, Repetition, WearerModel, WearerPrior

_CONFUSED = 0.1


@dataclass(frozen=True, slots=True)
class Confusion:
    """Two gestures that may be taken for each other.

    Attributes:
        performed: What is performed.
        taken_for: What it may be taken for.
        probability: How likely.
    """

    performed: str
    taken_for: str
    probability: float


@dataclass(frozen=True, slots=True)
class Judged:
    """What leave-one-repetition-out says of a model of a wearer.

    Attributes:
        accuracy: Share of windows decided right, each gesture counting alike.
        repetitions: Repetitions it rests on.
        by_gesture: The same, by label.
    """

    accuracy: float
    repetitions: int
    by_gesture: Mapping[str, float]


def gestures_of(prior: WearerPrior, added: Mapping[str, GestureNote], labels: Sequence[str] = ()) -> list[KnownGesture]:
    """What a wearer's model decodes: the release's gestures, those they added, and any of `labels` nobody posed.

    A gesture of the release keeps the release's posture; one whose posture has other joints than the prior has none.
    """
    out = {g: KnownGesture(g, p) for g, p in zip(prior.gestures, prior.postures, strict=True)}
    for note in added.values():
        fits = note.posture is not None and len(note.posture) == prior.joints
        out.setdefault(note.label, KnownGesture(note.label, np.array(note.posture) if fits else None))
    for label in labels:
        out.setdefault(label, KnownGesture(label, None))
    return list(out.values())


def embedded(prior: WearerPrior, seen: Sequence[Seen], *, length: int, hop: int) -> list[Repetition]:
    """Repetitions in the prior's space; those without a window are left out.

    Args:
        prior: Of the release.
        seen: Repetitions under the same release.
        length: Features in a window.
        hop: Features between two windows.
    """
    return [Repetition.of(s.label, prior.describe(s.windows), length=length, hop=hop) for s in seen if len(s.windows)]


def confusions(model: WearerModel, own: Sequence[Repetition], temperature: float = 1.0) -> list[Confusion]:
    """What the wearer's repetitions may be taken for, each decided without itself, the worst first."""
    taken: dict[tuple[str, str], list[float]] = {}
    for p, repetition in zip(left_out(model, own, temperature), own, strict=True):
        for label, share in zip(model.labels, p.mean(axis=0), strict=True):
            if label != repetition.label:
                taken.setdefault((repetition.label, label), []).append(float(share))
    found = [Confusion(a, b, float(np.mean(shares))) for (a, b), shares in taken.items()]
    return sorted((c for c in found if c.probability >= _CONFUSED), key=lambda c: (-c.probability, c.performed))


def left_out(model: WearerModel, own: Sequence[Repetition], temperature: float = 1.0) -> list[NDArray[np.float64]]:
    """Probabilities (N, G) of each repetition's windows by a model that was not shown it."""
    out = []
    for i, repetition in enumerate(own):
        others = [r for j, r in enumerate(own) if j != i]
        without = WearerModel(model.prior, model.gestures, others)
        out.append(probabilities(without.log_likelihood(repetition.points), temperature))
    return out


def judge(model: WearerModel, own: Sequence[Repetition]) -> Judged:
    """Decide every repetition by the others."""
    hits: dict[str, list[float]] = {}
    for p, repetition in zip(left_out(model, own), own, strict=True):
        right = p.argmax(axis=1) == model.labels.index(repetition.label)
        hits.setdefault(repetition.label, []).append(float(right.mean()))
    by_gesture = {label: float(np.mean(shares)) for label, shares in sorted(hits.items())}
    accuracy = float(np.mean(list(by_gesture.values()))) if by_gesture else 0.0
    return Judged(accuracy, len(own), by_gesture)
