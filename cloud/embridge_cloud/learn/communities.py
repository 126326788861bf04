"""Pose communities: spherical k-means over the frozen embeddings of the training poses."""

from __future__ import annotations

import logging
import math

import faiss
import numpy as np
from numpy.typing import NDArray

from embridge_shared.errors import DataError, Reason

logger = logging.getLogger(__name__)

ENTROPY_ALARM = 0.9


def centroids(vectors: NDArray[np.float32], count: int, *, seed: int) -> NDArray[np.float32]:
    """Cluster unit vectors on the sphere.

    Args:
        vectors: float32 (N, d), of the train split only.
        count: Centroids wanted; at most a fourth of N are made.
        seed: The same seed gives the same centroids.

    Returns:
        float32 (n, d), unit length.

    Raises:
        DataError: There are fewer than 8 vectors.
    """
    n, d = vectors.shape
    if n < 8:
        raise DataError(
            f"{n} training poses make no communities",
            reason=Reason.TOO_LITTLE_DATA,
            hint="Record more repetitions.",
        )
    made = min(count, n // 4)
    if made < count:
        logger.warning("%d training poses carry %d communities, not %d", n, made, count)
    means = faiss.Kmeans(d, made, niter=25, spherical=True, seed=seed, min_points_per_centroid=1)
    means.train(np.ascontiguousarray(vectors))
    found = np.asarray(means.centroids, np.float32).reshape(made, d)
    norm = np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray(found / np.maximum(norm, 1e-12), np.float32)


def check_targets(entropy: float, batch: int) -> bool:
    """Whether the soft targets still tell poses apart; warns where they do not.

    Args:
        entropy: Mean entropy of the targets, nats.
        batch: Pairs in a batch.
    """
    limit = ENTROPY_ALARM * math.log(max(batch - 1, 2))
    if entropy <= limit:
        return True
    logger.warning(
        "soft targets are nearly uniform: entropy %.2f of at most %.2f nats; lower loss.cascle.tau",
        entropy,
        math.log(max(batch - 1, 2)),
    )
    return False
