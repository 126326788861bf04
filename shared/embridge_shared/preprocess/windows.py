"""Windows over features and poses; they end at absolute indices, so every run of them falls on the same grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from embridge_shared.errors import DataError, Reason
from embridge_shared.preprocess.config import PoseConfig, WindowConfig
from embridge_shared.preprocess.frontend import Features


@dataclass(frozen=True, slots=True)
class Window:
    """One window of features.

    Attributes:
        end: Absolute feature index after its last feature; a multiple of the hop.
        values: float32 (T, C).
        flawed: Share of its features that are flawed.
    """

    end: int
    values: NDArray[np.float32]
    flawed: float


class Windower:
    """Streaming windows: features in, windows out.

    Features that do not follow the last ones start anew: no window spans a gap.
    """

    def __init__(self, config: WindowConfig) -> None:
        self.config = config
        self._kept: Features | None = None

    def reset(self) -> None:
        """Forget the features seen."""
        self._kept = None

    def push(self, features: Features) -> list[Window]:
        """Take features; return the windows they complete."""
        if not len(features):
            return []
        run = features
        if self._kept is not None and self._kept.end == features.first:
            run = Features(
                self._kept.first,
                np.concatenate([self._kept.values, features.values]),
                np.concatenate([self._kept.flawed, features.flawed]),
            )
        view, ends = windows(run.values, self.config, first=run.first)
        done = ends > features.first
        out = [
            Window(int(end), values.copy(), float(run.flawed[end - run.first - len(values) : end - run.first].mean()))
            for values, end in zip(view[done], ends[done], strict=True)
        ]
        keep = max(0, len(run) - self.config.length + 1)
        self._kept = Features(run.first + keep, run.values[keep:].copy(), run.flawed[keep:].copy())
        return out


def windows(
    features: NDArray[np.float32], config: WindowConfig, *, first: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """All windows of a contiguous run of features.

    Args:
        features: (m, C).
        config: Length and hop.
        first: Absolute index of the first feature.

    Returns:
        A read-only view (N, T, C), and the absolute index after each window's last feature, int64 (N,).
    """
    ends = np.arange(
        -(-(first + config.length) // config.hop) * config.hop, first + len(features) + 1, config.hop, dtype=np.int64
    )
    if not len(ends):
        return np.zeros((0, config.length, features.shape[1]), np.float32), ends
    view = sliding_window_view(features, config.length, axis=0).transpose(0, 2, 1)
    return view[int(ends[0]) - first - config.length :: config.hop], ends


def pose_windows(pose: NDArray[np.float32], config: PoseConfig, ends: NDArray[np.int64]) -> NDArray[np.float32]:
    """Standardised pose windows that end at given frames.

    Args:
        pose: Joint angles, rad (n, J).
        config: Length, and the moments of the training split.
        ends: Frame index after each window's last frame (N,).

    Returns:
        float32 (N, length, J), without unit.

    Raises:
        DataError: WRONG_SHAPE: other joints than the moments, or a window that leaves the recording.
    """
    if pose.ndim != 2 or pose.shape[1] != len(config.mean):
        raise DataError(f"pose {pose.shape} meets {len(config.mean)} joints", reason=Reason.WRONG_SHAPE)
    if len(ends) and (ends.min() < config.length or ends.max() > len(pose)):
        raise DataError(f"pose windows leave a recording of {len(pose)} frames", reason=Reason.WRONG_SHAPE)
    standard = np.asarray((pose - np.array(config.mean)) / np.array(config.sd), np.float32)
    return np.asarray(standard[ends[:, None] - config.length + np.arange(config.length)])
