"""The scoring rule, one implementation for evaluation in the cloud and decoding on the edge."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from embridge_shared.errors import DataError, Reason


class PrototypeScorer:
    """Scores gestures from query embeddings.

    A prototype's similarity is its largest inner product with any of the M queries; a gesture's score is the mean
    over its k most similar prototypes (all of them where it has fewer).

    Args:
        prototypes: L2-normalised, float32 (P, d).
        rows: Gesture index of each prototype (P,); every gesture 0..G-1 has at least one.
        k: Prototypes that count.

    Raises:
        DataError: WRONG_SHAPE: rows that do not fit, or a gesture without a prototype.
    """

    def __init__(self, prototypes: NDArray[np.float32], rows: NDArray[np.int64], *, k: int) -> None:
        n = int(rows.max()) + 1 if len(rows) else 0
        counts = np.bincount(rows, minlength=n) if n and rows.min() >= 0 else np.zeros(1, np.int64)
        if prototypes.ndim != 2 or rows.shape != prototypes.shape[:1] or not counts.all() or k < 1:
            raise DataError(
                f"prototypes {prototypes.shape}, rows {rows.shape} and k={k} do not fit, or a gesture has none",
                reason=Reason.WRONG_SHAPE,
            )
        order = np.argsort(rows, kind="stable")
        self.n_gestures = n
        self._transposed = np.ascontiguousarray(prototypes[order].T)
        bounds = np.concatenate([[0], np.cumsum(counts)])
        self._groups = [(int(a), int(b), max(0, int(b - a) - k)) for a, b in itertools.pairwise(bounds)]

    def __call__(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score gestures.

        Args:
            queries: L2-normalised, float32 (..., M, d).

        Returns:
            One score a gesture, -1..1, float32 (..., G).
        """
        similar = (queries @ self._transposed).max(axis=-2)
        out = np.empty((*similar.shape[:-1], self.n_gestures), np.float32)
        for gesture, (a, b, drop) in enumerate(self._groups):
            own = np.sort(similar[..., a:b], axis=-1)
            out[..., gesture] = own[..., drop:].mean(axis=-1)
        return out
