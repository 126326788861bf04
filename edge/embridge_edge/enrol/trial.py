"""The test round: gestures in random order, and what the wearer's model makes of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embridge_edge.enrol.capture import Capture, Origin
from embridge_edge.enrol.events import Answered, EnrolEvent
from embridge_edge.enrol.guide import Missed, Movement, Pace
from embridge_edge.enrol.view import WearerView
from embridge_shared.decision import probabilities
from embridge_shared.errors import ModelError, Reason
from embridge_shared.gestures import REST_LABEL
from embridge_shared.wearer import WearerModel


def mixed_round(new: Sequence[str], others: Sequence[str], rng: np.random.Generator, *, each: int = 3) -> list[str]:
    """Prompts of a test round in random order: each new gesture `each` times, and as many of the others.

    Args:
        new: What was enrolled.
        others: What it may be confused with.
        rng: Orders them.
        each: How often.
    """
    mixed = list(rng.permutation(np.array(list(others), object))[:each]) if others else []
    order = [*new] * each + (mixed * each)[: each * len(new) if mixed else 0]
    return [str(label) for label in rng.permutation(np.array(order, object))]


class TrialRound(Capture):
    """Asks for gestures and decides them; nothing is taken, nothing is refused.

    Args:
        view: The wearer, calibrated.
        script: Labels in the order of the prompts.
        origin: Where the samples come from.
        pace: How each is led.

    Attributes:
        results: What was asked and decided, in order.

    Raises:
        ModelError: INCOMPATIBLE: the release has no prior of wearers.
    """

    def __init__(self, view: WearerView, script: Sequence[str], origin: Origin, *, pace: Pace | None = None) -> None:
        super().__init__(view, script, origin, pace=pace)
        self._model: WearerModel = _model(view)
        self.results: list[Answered] = []

    @property
    def accuracy(self) -> float:
        """Share of prompts decided right; 0 before the first."""
        return float(np.mean([t.asked == t.decided for t in self.results])) if self.results else 0.0

    def _missed(self, missed: Missed, at: int) -> list[EnrolEvent]:
        return self._decided(REST_LABEL, 0.0, at)

    def _found(self, movement: Movement, at: int) -> list[EnrolEvent]:
        repetition, lost = self._cut(movement, at)
        seen = None if lost else self.view.see(repetition)
        if seen is None:
            return self._decided(REST_LABEL, 0.0, at)
        decision = self.view.release.decision
        p = probabilities(self._model.log_likelihood(seen.points), decision.temperature).mean(axis=0)
        return self._decided(self._model.labels[int(p.argmax())], float(p.max()), at)

    def _decided(self, label: str, probability: float, at: int) -> list[EnrolEvent]:
        told = Answered(
            at=self._sample(at),
            asked=self.label,
            decided=label,
            probability=probability,
            number=len(self.results) + 1,
            of=len(self.script),
        )
        self.results.append(told)
        return [told, *self._go_on(at, done=1)]


def _model(view: WearerView) -> WearerModel:
    model = view.model()
    if model is None or view.scale is None:
        raise ModelError(
            f"{view.release.name} says nothing of wearers, so nothing can be tested.",
            reason=Reason.INCOMPATIBLE,
            hint="Train a release with this version.",
        )
    return model
