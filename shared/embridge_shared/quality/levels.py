"""What the samples themselves tell: rails, stretches that stand still, drift."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_NEAR_RAIL = 0.985
_PLATEAU, _WIDE_STEPS = 3, 60


def clipping(samples: Array, rails: tuple[float, float] | None) -> Array:
    """Share of samples at the rails, (C,).

    Where the rails are not known, runs of three or more at an extreme of the window give them away; a channel that
    spans few steps of the converter has such runs by nature and counts none.

    Args:
        samples: Raw, (T, C).
        rails: Least and greatest value the device can send.
    """
    if rails is not None:
        low, high = _NEAR_RAIL * np.array(rails)
        return np.asarray(((samples >= high) | (samples <= low)).mean(axis=0), np.float64)
    top, bottom = samples.max(axis=0), samples.min(axis=0)
    wide = top - bottom > _WIDE_STEPS * step(samples)
    share = plateaus(samples, top, _PLATEAU) + plateaus(samples, bottom, _PLATEAU)
    return np.asarray(np.where(wide, share, 0.0), np.float64)


def plateaus(samples: Array, value: Array, least: int) -> Array:
    """Share of samples in runs of `least` or more that equal `value`, (C,)."""
    out = np.zeros(samples.shape[1])
    for c in np.flatnonzero((samples == value).sum(axis=0) >= least):
        at = np.flatnonzero(np.diff(np.concatenate([[0], (samples[:, c] == value[c]).view(np.int8), [0]])))
        runs = at[1::2] - at[::2]
        out[c] = runs[runs >= least].sum() / len(samples)
    return out


def railed(samples: Array, rails: tuple[float, float]) -> Array:
    """Median as a share of the range on its side of zero, (C,)."""
    median = np.median(samples, axis=0)
    return np.asarray(np.where(median < 0, median / rails[0], median / rails[1]), np.float64)


def longest_run(samples: Array) -> NDArray[np.int64]:
    """Longest run of one unchanged value, samples (C,)."""
    return np.array([_runs(samples[:, c]).max(initial=0) for c in range(samples.shape[1])], np.int64)


def held(samples: Array, least: int) -> Array:
    """Share of samples in runs of `least` or more unchanged values, (C,)."""
    out = np.zeros(samples.shape[1])
    for c in range(samples.shape[1]):
        runs = _runs(samples[:, c])
        out[c] = runs[runs >= least].sum() / max(1, len(samples))
    return out


def _runs(x: NDArray[np.generic]) -> NDArray[np.int64]:
    """Lengths of the runs of equal values."""
    edges = np.flatnonzero(x[1:] != x[:-1]) + 1
    return np.diff(np.concatenate([[0], edges, [len(x)]])).astype(np.int64)


def slope(samples: Array, rate_hz: float) -> Array:
    """Slope of the straight line through the samples, a second, (C,)."""
    t = (np.arange(len(samples)) - (len(samples) - 1) / 2.0) / rate_hz
    return np.asarray(t @ (samples - samples.mean(axis=0)) / (t @ t), np.float64)


def step(samples: Array) -> Array:
    """Resolution of each channel as far as the window shows it: its least change, (C,); 0 where nothing changes."""
    change = np.abs(np.diff(samples, axis=0))
    least = np.where(change > 0, change, np.inf).min(axis=0, initial=np.inf)
    return np.asarray(np.where(np.isfinite(least), least, 0.0), np.float64)
