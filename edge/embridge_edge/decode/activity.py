"""Muscle activity of a recording, unlabelled: what tells how a band sits, and that a wearer drifts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from embridge_shared.decision import DecisionConfig
from embridge_shared.preprocess import Features, PreprocessConfig
from embridge_shared.wearer.donning import LEAST_WINDOWS, Activity, activity
from embridge_shared.wearer.levels import TOKENS, Wide, levels

ACTIVE: Final = DecisionConfig().rest_above
"""Mean scaled level over a window above which the hand does not rest."""

_SHARE: Final = 0.25
_STRONG: Final = 0.9


class Scale(Protocol):
    """Brings features to a wearer's scale."""

    def apply(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scale features (..., C)."""
        ...


def active_windows(runs: Iterable[Features], preprocess: PreprocessConfig, scale: Scale) -> NDArray[np.float32]:
    """Unscaled windows that are half new each, in which the hand does not rest.

    Args:
        runs: Features of a recording, a run for each stretch without gaps.
        preprocess: The release's.
        scale: The wearer's; tells rest from activity.

    Returns:
        float32 (N, T, C).
    """
    length = preprocess.window.length
    kept: list[NDArray[np.float32]] = []
    for run in runs:
        if len(run) >= length:
            step = max(1, length // 2)
            views = sliding_window_view(run.values, length, axis=0)[::step].swapaxes(1, 2)
            sound = ~sliding_window_view(run.flawed, length)[::step].any(axis=1)
            kept.append(views[sound])
    if not kept:
        return np.zeros((0, length, 0), np.float32)
    windows = np.concatenate(kept)
    found = strength(windows, scale)
    return windows[found > moves(found, preprocess)]


def strength(windows: NDArray[np.float32], scale: Scale) -> Wide:
    """Mean scaled level of unscaled windows (N, T, C), (N,)."""
    return np.asarray(np.abs(scale.apply(windows)).mean(axis=(1, 2), dtype=np.float64))


def moves(strengths: Wide, preprocess: PreprocessConfig) -> float:
    """Strength above which the hand does not rest, told from windows seen so far.

    A quarter of what strong windows have: an arm that is weaker today is taken for as active as it was.
    """
    if not len(strengths):
        return ACTIVE
    strong = float(np.quantile(strengths, _STRONG)) * _SHARE
    # without a wearer's scale nobody knows what rest is
    return strong if preprocess.scale.kind == "none" else min(max(strong, ACTIVE * _SHARE), ACTIVE)


def ring_activity(windows: NDArray[np.float32], ring: Sequence[int]) -> Activity:
    """Of unscaled windows (N, T, C) over a ring's channels.

    Raises:
        DataError: TOO_LITTLE_DATA: fewer than eight windows, or nothing moves.
    """
    return activity(levels(windows[:, :, list(ring)]) if len(windows) else np.zeros((0, TOKENS, len(ring))))


def reference_activity(
    runs: Iterable[Features], preprocess: PreprocessConfig, scale: Scale, ring: Sequence[int]
) -> Activity | None:
    """How the band sat in a calibration; None where it is no ring, or too little happened."""
    if not ring:
        return None
    windows = active_windows(runs, preprocess, scale)
    return ring_activity(windows, ring) if len(windows) >= LEAST_WINDOWS else None
