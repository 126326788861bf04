"""A linear path from the envelope to the pose space, fitted in closed form, on which the queries build.

A linear map extrapolates to combinations of movements nobody recorded, where a network trained for seconds does not;
the network learns what the map misses.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embridge_cloud.learn.config import SignalConfig
from embridge_shared.errors import ModelError, Reason

SEGMENTS = 4
FAINT = 0.1  # of the deviation of all EMG: a spread below it is rest
_FOLDS = 4
_Array = NDArray[np.float64]


class LinearPath(nn.Module):
    """Mean rectified EMG in segments of the window to one vector in the pose space; not trained by gradients.

    Args:
        signal: Shape of the EMG windows.
        width: d.
        rich: Take roots of the levels and each channel's spread in the window as well.
    """

    pool: Tensor
    mean: Tensor
    sd: Tensor
    weight: Tensor

    def __init__(self, signal: SignalConfig, width: int, *, rich: bool = False) -> None:
        super().__init__()
        self.patch = signal.patch
        self.rich = rich
        groups = np.array_split(np.arange(signal.tokens), min(SEGMENTS, signal.tokens))
        pool = torch.zeros(len(groups), signal.tokens)
        for row, group in enumerate(groups):
            pool[row, group] = 1.0 / len(group)
        features = (len(groups) + rich) * signal.channels
        self.register_buffer("pool", pool, persistent=False)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("sd", torch.ones(features))
        self.register_buffer("weight", torch.zeros(features, width))

    def features(self, patches: Tensor) -> Tensor:
        """Standardised patches (B, L, patch * C) to (B, segments * C), or (B, (segments + 1) * C) where rich."""
        b, tokens, values = patches.shape
        level = patches.reshape(b, tokens, self.patch, values // self.patch).abs().mean(dim=2)
        pooled = torch.matmul(self.pool, level)
        if not self.rich:
            return pooled.flatten(1)
        samples = patches.reshape(b, tokens * self.patch, values // self.patch)
        spread = torch.log(samples.std(dim=1, keepdim=True) + FAINT)
        return torch.cat([pooled.sqrt(), spread], dim=1).flatten(1)

    def forward(self, patches: Tensor) -> Tensor:
        """(B, L, patch * C) to (B, 1, d)."""
        x = (self.features(patches) - self.mean) / self.sd
        return torch.matmul(x, self.weight)[:, None, :]

    def fit(
        self, features: NDArray[np.float32], vectors: NDArray[np.float32], people: NDArray[np.int64], l2: float
    ) -> None:
        """Ridge regression on the train split, shrunk to what of its fit holds for people it was not fitted on.

        Args:
            features: Of each window, (N, segments * C).
            vectors: Its pose embedding, (N, d).
            people: Whose it is, (N,).
            l2: Weight penalty, a share of the features' variance.

        Raises:
            ModelError: The features carry nothing.
        """
        x, mean, sd = _standardised(features)
        y = vectors - vectors.mean(axis=0, dtype=np.float64)
        self._set(mean, sd, _trust(x, y, people, l2) * _ridge(x, y, l2))

    def fit_classes(self, features: NDArray[np.float32], label: NDArray[np.int64], l2: float) -> NDArray[np.float32]:
        """Linear discriminants of classes 0..width - 1, each of which occurs.

        Args:
            features: Of each window, (N, segments * C).
            label: Its class, (N,).
            l2: How far the covariance within classes is drawn to its diagonal, 0..1.

        Returns:
            What is to be added to each class's value, (width,).

        Raises:
            ModelError: The features carry nothing.
        """
        x, mean, sd = _standardised(features)
        means = np.stack([x[label == k].mean(axis=0) for k in range(self.weight.shape[1])])
        rest = x - means[label]
        within = rest.T @ rest / len(x)
        within = (1 - l2) * within + (l2 + 1e-6) * np.diag(np.diag(within) + 1e-6)
        weight = np.linalg.solve(within, means.T)
        self._set(mean, sd, weight)
        return np.asarray(-0.5 * (means.T * weight).sum(axis=0), np.float32)

    def _set(self, mean: _Array, sd: _Array, weight: _Array) -> None:
        for buffer, value in ((self.mean, mean), (self.sd, sd), (self.weight, weight)):
            buffer.copy_(torch.from_numpy(value.astype(np.float32)))


def _standardised(features: NDArray[np.float32]) -> tuple[_Array, _Array, _Array]:
    """Features (N, f) of zero mean and unit deviation, with the mean and deviation taken out."""
    x = features.astype(np.float64)
    mean, sd = x.mean(axis=0), x.std(axis=0)
    if not np.any(sd > 1e-9):
        raise ModelError("the EMG of the train split is constant", reason=Reason.TOO_LITTLE_DATA)
    sd = np.maximum(sd, 1e-6 + 1e-3 * float(sd.max()))
    return (x - mean) / sd, mean, sd


def _ridge(x: _Array, y: _Array, l2: float) -> _Array:
    """Weights (features, d) from standardised features to centred targets."""
    return np.asarray(np.linalg.solve(x.T @ x / len(x) + l2 * np.eye(x.shape[1]), x.T @ y / len(x)))


def _trust(x: _Array, y: _Array, people: NDArray[np.int64], l2: float) -> float:
    """Variance explained in people left out over that explained in those fitted, 0..1.

    Windows of a person overlap, so what they explain of themselves proves nothing; broken pairs explain nothing of
    others and leave no path to build on.
    """
    plain = _explained(y, x @ _ridge(x, y, l2))
    folds = np.unique(people, return_inverse=True)[1] % _FOLDS
    if plain <= 0 or len(np.unique(folds)) < 2:
        return 0.0
    found = np.empty_like(y)
    for fold in np.unique(folds):
        out = folds == fold
        found[out] = x[out] @ _ridge(x[~out], y[~out], l2)
    return float(np.clip(_explained(y, found) / plain, 0.0, 1.0))


def _explained(wanted: _Array, found: _Array) -> float:
    """Share of the variance of centred targets."""
    return 1.0 - float(np.square(wanted - found).sum()) / max(float(np.square(wanted).sum()), 1e-12)
