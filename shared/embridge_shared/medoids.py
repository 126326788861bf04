"""The few vectors that stand for many: one choice for releases made in the cloud and gestures added on an edge."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def medoids(vectors: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Indices of the k vectors the others are nearest to by cosine; the same input gives the same choice.

    Greedy start, then swaps while they help.

    Args:
        vectors: L2-normalised, float32 (N, d).
        k: Medoids wanted; all where there are not more.
    """
    n = len(vectors)
    if n <= k:
        return np.arange(n)
    distance = 1.0 - (vectors @ vectors.T).astype(np.float64)
    chosen = [int(distance.sum(axis=0).argmin())]
    while len(chosen) < k:
        nearest = distance[:, chosen].min(axis=1)
        gain = np.maximum(nearest[:, None] - distance, 0).sum(axis=0)
        gain[chosen] = -1
        chosen.append(int(gain.argmax()))
    for _ in range(100):
        if not _swap(distance, chosen):
            break
    return np.sort(np.array(chosen, np.int64))


def _swap(distance: NDArray[np.float64], chosen: list[int]) -> bool:
    """Exchange the one medoid whose exchange helps most; False where none helps."""
    best = (distance[:, chosen].min(axis=1).sum() - 1e-9, -1, -1)
    for at in range(len(chosen)):
        others = [c for i, c in enumerate(chosen) if i != at]
        rest = distance[:, others].min(axis=1) if others else np.full(len(distance), np.inf)
        costs = np.minimum(rest[:, None], distance).sum(axis=0)
        costs[chosen] = np.inf
        new = int(costs.argmin())
        if costs[new] < best[0]:
            best = (float(costs[new]), at, new)
    if best[1] < 0:
        return False
    chosen[best[1]] = best[2]
    return True
