"""Pose communities: spherical k-means or a Gaussian mixture over the frozen embeddings of the training poses."""

from __future__ import annotations

import logging
import math

import faiss
import numpy as np
from numpy.typing import NDArray

from embridge_shared.errors import DataError, Reason

logger = logging.getLogger(__name__)

ENTROPY_ALARM = 0.9
_EM_STEPS = 50
_EM_TOLERANCE = 1e-5
_LEAST_VARIANCE = 1e-3


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


def mixture(vectors: NDArray[np.float32], count: int, *, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fit a mixture of round Gaussians by expectation and maximisation, started from `centroids`.

    Args:
        vectors: float32 (N, d), of the train split only.
        count: Components wanted; at most a fourth of N are made.
        seed: The same seed gives the same mixture.

    Returns:
        Means float32 (n, d) and, for each component, its variance a dimension and the log of its weight, (n, 2).

    Raises:
        DataError: There are fewer than 8 vectors.
    """
    x = vectors.astype(np.float64)
    d = x.shape[1]
    means = centroids(vectors, count, seed=seed).astype(np.float64)
    distance = _squared_distances(x, means)
    variance = np.full(len(means), max(float(distance.min(axis=1).mean()) / d, _LEAST_VARIANCE))
    log_weight = np.full(len(means), -math.log(len(means)))
    before = -math.inf
    for _ in range(_EM_STEPS):
        log_joint = log_weight - distance / (2 * variance) - d / 2 * np.log(2 * math.pi * variance)
        top = log_joint.max(axis=1, keepdims=True)
        joint = np.exp(log_joint - top)
        total = joint.sum(axis=1, keepdims=True)
        likelihood = float((np.log(total) + top).mean())
        if likelihood - before < _EM_TOLERANCE * abs(likelihood):
            break
        before = likelihood
        r = joint / total
        mass = r.sum(axis=0) + 1e-9
        means = (r.T @ x) / mass[:, None]
        distance = _squared_distances(x, means)
        variance = np.maximum((r * distance).sum(axis=0) / (mass * d), _LEAST_VARIANCE)
        log_weight = np.log(mass / mass.sum())
    return means.astype(np.float32), np.stack([variance, log_weight], axis=1).astype(np.float32)


def _squared_distances(x: NDArray[np.float64], means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each row to each mean, (N, n)."""
    cross = np.square(x).sum(axis=1)[:, None] - 2 * x @ means.T + np.square(means).sum(axis=1)
    return np.asarray(np.maximum(cross, 0.0))


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
