"""Evidence from a wearer's own model: what live decoding asks instead of the release's scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embridge_edge.enrol.view import WearerView
from embridge_shared.decision import Evidence, activity_of
from embridge_shared.errors import ModelError, Reason


class WearerDecoder:
    """Says what speaks for which gesture, by what the wearer performed.

    Args:
        view: The wearer.

    Attributes:
        release: Whose prior it rests on.

    Raises:
        ModelError: INCOMPATIBLE: the release has no prior of wearers.
    """

    def __init__(self, view: WearerView) -> None:
        model = view.model()
        if model is None:
            raise ModelError(
                f"{view.release.name} says nothing of wearers, so nothing can be made one's own.",
                reason=Reason.INCOMPATIBLE,
                hint="Train a release with this version; what was enrolled is kept.",
            )
        self.release = view.release.name
        self._model = model
        self._rate_hz = view.release.preprocess.front_end.rate_hz

    @property
    def labels(self) -> tuple[str, ...]:
        """Gestures in the order of the evidence (G,)."""
        return self._model.labels

    def evidence(self, window: NDArray[np.float32], end: int) -> Evidence:
        """What a window of scaled features says.

        Args:
            window: float32 (T, C).
            end: Absolute feature index after it.
        """
        points = self._model.prior.describe(window[None])
        far = self._model.distances(points)[0]
        return Evidence(
            end=end,
            log_likelihood=self._model.log_likelihood(points)[0],
            activity=activity_of(window, self._rate_hz),
            distance=float(far.min()) / self._model.prior.size,
        )
