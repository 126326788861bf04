"""Features of the closed forms: muscle levels over a window, seen through what is known of the wearer without labels.

The square root of a level makes its noise even; whitening by the wearer's own covariance takes out how this arm
couples its electrodes. Both are drawn halfway to the training people, so that three repetitions of a few gestures are
enough to know a wearer by, and a wearer nobody knows is taken for their mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embridge_shared.errors import DataError, Reason

Array = NDArray[np.float32]
Wide = NDArray[np.float64]

TOKENS = 8
SEGMENTS = 4
PARTS = SEGMENTS + 2
"""Features a channel: a level in each segment, its spread over the window, and its level as it was."""

_DRAWN = 0.5
_ROUND = 0.5
_MIN_WINDOWS = 8


@dataclass(frozen=True, slots=True)
class Moments:
    """Of the roots of levels, over windows of one wearer or of the training people.

    Attributes:
        mean: (C,).
        covariance: (C, C).
    """

    mean: Wide
    covariance: Wide


@dataclass(frozen=True, slots=True)
class View:
    """How a wearer's levels are seen: `(root - mean) @ matrix`.

    Attributes:
        mean: (C,).
        matrix: (C, C).
    """

    mean: Wide
    matrix: Wide


def levels(emg: Array | None) -> Wide:
    """Mean absolute value of each channel in eight parts of a window.

    Args:
        emg: float32 (N, T, C), T at least 8.

    Returns:
        float64 (N, 8, C).

    Raises:
        DataError: These are no EMG windows.
    """
    if emg is None or emg.ndim != 3 or emg.shape[1] < TOKENS:
        raise DataError(f"levels need EMG windows (N, T, C) of {TOKENS} samples or more", reason=Reason.WRONG_SHAPE)
    n, t, c = emg.shape
    whole = np.abs(emg[:, : t - t % TOKENS])
    return np.asarray(whole.reshape(n, TOKENS, -1, c).mean(axis=2, dtype=np.float64), np.float64)


def moments(level: Wide) -> Moments:
    """Moments of one wearer's levels (N, 8, C), unlabelled.

    Raises:
        DataError: There are fewer than 8 windows.
    """
    if len(level) < _MIN_WINDOWS:
        raise DataError(
            f"{len(level)} windows tell nothing of a wearer; {_MIN_WINDOWS} are needed",
            reason=Reason.TOO_LITTLE_DATA,
            hint="Calibrate with a few repetitions of the known gestures.",
        )
    roots = np.sqrt(level).reshape(-1, level.shape[2])
    return Moments(roots.mean(axis=0), np.atleast_2d(np.cov(roots, rowvar=False, bias=True)))


def view_of(wearer: Moments, people: Moments) -> View:
    """A wearer's view, drawn halfway to the training people's; pass them as the wearer for one nobody knows."""
    mean = (1 - _DRAWN) * wearer.mean + _DRAWN * people.mean
    return View(mean, power(shrunk((1 - _DRAWN) * wearer.covariance + _DRAWN * people.covariance, _ROUND), -0.5))


def describe(level: Wide, view: View) -> Wide:
    """Features of windows.

    Args:
        level: float64 (N, 8, C).
        view: The wearer's.

    Returns:
        float64 (N, 6 C): four segments and the spread of the viewed roots, and the mean level.
    """
    seen = (np.sqrt(level) - view.mean) @ view.matrix
    n, _, c = seen.shape
    segments = seen.reshape(n, SEGMENTS, TOKENS // SEGMENTS, c).mean(axis=2).reshape(n, -1)
    return np.concatenate([segments, seen.std(axis=1), level.mean(axis=1)], axis=1)


def shrunk(covariance: Wide, share: float) -> Wide:
    """A covariance drawn to a multiple of the identity."""
    d = len(covariance)
    return np.asarray((1 - share) * covariance + (share * np.trace(covariance) / d + 1e-9) * np.eye(d))


def power(matrix: Wide, exponent: float) -> Wide:
    """Power of a symmetric positive matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.maximum(values, 1e-12) ** exponent) @ vectors.T)


def unit(x: Wide) -> Wide:
    """Rows scaled to unit length."""
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12))
