"""The baseline every aligned model is held against: ridge regression from the envelope to the mean posture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from embridge_cloud.learn import leakage
from embridge_cloud.learn.config import LearnConfig
from embridge_cloud.learn.data import Windows
from embridge_cloud.learn.pretrain import pose_statistics
from embridge_cloud.learn.trained import Lineage
from embridge_shared.errors import DataError, Reason

SEGMENTS = 4


@dataclass(frozen=True, slots=True)
class RidgeBaseline:
    """A linear map from mean rectified EMG, in four segments of the window, to the window's mean posture.

    It speaks for a window with one query, the predicted posture; nothing of it is random.

    Attributes:
        config: Shapes and evaluation settings.
        weights: (4 C, 20).
        features: Mean and deviation of the features, (2, 4 C).
        posture: Mean and deviation of each joint, (2, 20), rad.
        lineage: What it was fitted on.
    """

    config: LearnConfig
    weights: NDArray[np.float32]
    features: NDArray[np.float32]
    posture: NDArray[np.float32]
    lineage: Lineage

    def embed_emg(self, emg: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """EMG, float32 (N, T, C), to one unit query each, (N, 1, 20)."""
        x = (_segments(emg) - self.features[0]) / self.features[1]
        return _unit(x @ self.weights)[:, None, :]

    def embed_pose(self, pose: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Joint angles, float32 (N, Tp, 20), rad, to unit vectors (N, 20)."""
        if pose is None:
            raise DataError("there is no pose to embed", reason=Reason.WRONG_SHAPE)
        return _unit((pose.mean(axis=1) - self.posture[0]) / self.posture[1])

    def statistics(self) -> dict[str, NDArray[np.float32]]:
        """Everything computed on the train split."""
        return {"weights": self.weights, "features": self.features, "posture": self.posture}

    def module(self) -> RidgeGraph:
        """What the edge runs: float32 (B, T, C) to unit queries (B, 1, 20)."""
        return RidgeGraph(self.features, self.weights)

    def pose_module(self) -> PostureGraph:
        """What places gestures by their pose: joint angles (B, Tp, 20), rad, to unit vectors (B, 20)."""
        return PostureGraph(self.posture)


class RidgeGraph(nn.Module):
    """The baseline's EMG side as a torch module; holds no trainable parameter.

    Args:
        features: Mean and deviation of the features, (2, 4 C).
        weights: (4 C, J).
    """

    exact = ("weights",)

    mean: Tensor
    sd: Tensor
    weights: Tensor

    def __init__(self, features: NDArray[np.float32], weights: NDArray[np.float32]) -> None:
        super().__init__()
        for name, value in (("mean", features[0]), ("sd", features[1]), ("weights", weights)):
            self.register_buffer(name, torch.from_numpy(np.array(value, np.float32)))

    def forward(self, windows: Tensor) -> Tensor:
        """(B, T, C) to (B, 1, J)."""
        b, t, c = windows.shape
        level = windows[:, : t - t % SEGMENTS].abs().reshape(b, SEGMENTS, t // SEGMENTS, c).mean(dim=2).flatten(1)
        return functional.normalize(torch.matmul((level - self.mean) / self.sd, self.weights), dim=1)[:, None, :]


class PostureGraph(nn.Module):
    """The baseline's pose side: the mean posture, standardised, as a unit vector.

    Args:
        posture: Mean and deviation of each joint, (2, J).
    """

    mean: Tensor
    sd: Tensor

    def __init__(self, posture: NDArray[np.float32]) -> None:
        super().__init__()
        for name, value in (("mean", posture[0]), ("sd", posture[1])):
            self.register_buffer(name, torch.from_numpy(np.array(value, np.float32)))

    def forward(self, poses: Tensor) -> Tensor:
        """(B, Tp, J) to (B, J)."""
        return functional.normalize((poses.mean(dim=1) - self.mean) / self.sd, dim=1, eps=1e-12)


def fit_ridge(windows: Windows, config: LearnConfig, *, l2: float = 0.1) -> RidgeBaseline:
    """Fit the baseline on the train split.

    Args:
        windows: With EMG and pose.
        config: The run it is compared with.
        l2: Weight penalty, a share of the features' variance.

    Raises:
        DataError: A modality is missing.
    """
    if windows.pose is None:
        raise DataError("the baseline regresses pose, and there is none", reason=Reason.WRONG_SHAPE)
    x = _segments(windows.emg).astype(np.float64)
    features = np.stack([x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)])
    x = (x - features[0]) / features[1]
    means = windows.pose.mean(axis=1).astype(np.float64)
    posture = np.stack([means.mean(axis=0), np.maximum(means.std(axis=0), pose_statistics(windows.pose)[1] / 10)])
    y = (means - posture[0]) / posture[1]
    gram = x.T @ x / len(x) + l2 * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, x.T @ y / len(x)).astype(np.float32)
    parts = {
        "weights": weights,
        "features": features.astype(np.float32),
        "posture": posture.astype(np.float32),
    }
    gestures = tuple(sorted(windows.present("gestures")))
    lineage = Lineage(
        seed=0,
        config=config.digest(),
        data=(windows.digest(),),
        statistics=leakage.statistics_digest(parts),
        participants=tuple(sorted(windows.present("participants"))),
        sessions=tuple(sorted(windows.present("sessions"))),
        emg_gestures=gestures,
        pose_gestures=gestures,
    )
    return RidgeBaseline(config=config, lineage=lineage, **parts)


def _segments(emg: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Mean absolute value of each channel in each segment, (N, 4 C)."""
    if emg is None or emg.ndim != 3 or emg.shape[1] < SEGMENTS:
        raise DataError("the baseline needs EMG windows (N, T, C)", reason=Reason.WRONG_SHAPE)
    n, t, c = emg.shape
    whole = np.abs(emg[:, : t - t % SEGMENTS])
    return np.asarray(whole.reshape(n, SEGMENTS, -1, c).mean(axis=2).reshape(n, -1), np.float32)


def _unit(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows scaled to unit length."""
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12), np.float32)
