"""How a band sits this time: its rotation around the arm, found without labels and undone.

Muscles stay where they are when a band turns. Mean and covariance of the channels' activity over some seconds of any
gestures say where they are, so the rotation is the one under which today's activity looks most like that of the day the
wearer was met: the least symmetric Kullback-Leibler divergence of the two Gaussians. Activity between electrodes is
interpolated around the ring by its Fourier series.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_shared.errors import DataError, Reason
from embridge_shared.wearer.levels import Wide, shrunk

LEAST_WINDOWS = 8
"""Windows below which nothing is said of how a band sits."""
FITS_NATS = 0.6
"""Distance an electrode above which no turn makes an arm look like the one the wearer was met with."""
WORTH_NATS = 0.5
"""Gain above which a turn is worth undoing: below it, what is found may be how the gestures were mixed."""
_STEP = 0.125
_ROUND = 0.1
_MOST = 4.0
_NOISE = 0.02
"""Share of the mean variance that interpolation and electrodes add, so that no direction is without any."""


class Activity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Mean and covariance of root levels over a ring of electrodes, of unit mean square.

    Attributes:
        mean: (C,).
        covariance: Rows of (C, C).
        windows: How many windows it rests on.
        size: Root mean square of the roots before they were scaled.
    """

    mean: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    windows: int
    size: float = 1.0

    def __post_init__(self) -> None:
        c = len(self.mean)
        shaped = len(self.covariance) == c and all(len(row) == c for row in self.covariance)
        if c < 3 or not shaped or not np.isfinite([self.size, *self.mean, *np.ravel(self.covariance)]).all():
            raise DataError(f"no activity of a ring: {c} means", reason=Reason.WRONG_SHAPE)


class Turn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rotation of a band.

    Attributes:
        electrodes: How far its features must be turned to sit as they did, in electrodes; positive towards higher
            channel numbers.
        degrees: The same around the arm.
        gain: How much nearer the two activities are for it, nats; 0 where the band sits as it did.
        distance: What is left between them, nats.
    """

    electrodes: float
    degrees: float
    gain: float
    distance: float


def activity(level: Wide) -> Activity:
    """What a wearer's activity looks like around the ring.

    Args:
        level: Mean absolute features of the ring's channels, in order around the arm, float64 (N, parts, C); windows
            of any gestures, rest left out.

    Raises:
        DataError: TOO_LITTLE_DATA: fewer than 8 windows, or nothing moves.
    """
    if level.ndim != 3 or len(level) < LEAST_WINDOWS:
        raise DataError(
            f"{len(level)} windows do not tell how a band sits; {LEAST_WINDOWS} are needed",
            reason=Reason.TOO_LITTLE_DATA,
            hint="Make a few different gestures for some seconds.",
        )
    roots = np.sqrt(level).reshape(-1, level.shape[2])
    size = float(np.sqrt(np.square(roots).mean()))
    if not size > 0:
        raise DataError("no channel moves", reason=Reason.TOO_LITTLE_DATA, hint="Is the band worn and streaming?")
    roots = roots / size
    covariance = shrunk(np.cov(roots, rowvar=False, bias=True), _ROUND)
    return Activity(
        mean=tuple(roots.mean(axis=0).tolist()),
        covariance=tuple(tuple(row) for row in covariance.tolist()),
        windows=len(level),
        size=size,
    )


def rotation(channels: int, electrodes: float) -> Wide:
    """Turn features around a ring of evenly spaced electrodes: `features @ rotation(C, r).T`.

    Args:
        channels: Electrodes (C).
        electrodes: How far, in electrodes; fractions interpolate by the Fourier series around the ring.

    Returns:
        float64 (C, C); a permutation where `electrodes` is whole.
    """
    if electrodes == round(electrodes):
        return np.roll(np.eye(channels), round(electrodes), axis=0)
    order = np.fft.fftfreq(channels) * channels
    phase = np.exp(-2j * math.pi * order * electrodes / channels)
    if channels % 2 == 0:
        phase[channels // 2] = math.cos(math.pi * electrodes)
    return np.asarray(np.fft.ifft(phase[:, None] * np.fft.fft(np.eye(channels), axis=0), axis=0).real)


def find_turn(today: Activity, then: Activity, *, within: float = 3.0) -> Turn:
    """How far today's features must be turned to look as they did.

    Args:
        today: Of this donning.
        then: Of the one the wearer was met with.
        within: Largest rotation looked for, electrodes.

    Raises:
        DataError: WRONG_SHAPE: the rings have different numbers of electrodes.
    """
    c = len(then.mean)
    if len(today.mean) != c:
        raise DataError(f"a ring of {len(today.mean)} is not one of {c}", reason=Reason.WRONG_SHAPE)
    steps = np.arange(-round(within / _STEP), round(within / _STEP) + 1) * _STEP
    far = np.array([_divergence(today, then, step) for step in steps])
    best = int(far.argmin())
    still = float(far[len(steps) // 2])
    return Turn(
        electrodes=float(steps[best]),
        degrees=float(steps[best]) * 360 / c,
        gain=still - float(far[best]),
        distance=float(far[best]),
    )


def refit(today: Activity, then: Activity, electrodes: float) -> tuple[float, ...]:
    """What turned features are multiplied by so that they are as strong as they were, one factor an electrode.

    Skin and pressure change how strong an electrode is; which gestures were made changes it too. So an electrode's own
    factor counts half, and that of the whole ring the other half.

    Args:
        today: Of this donning, as it was measured.
        then: Of the one the wearer was met with.
        electrodes: The turn found.

    Returns:
        (C,), each between a quarter and four.
    """
    now = np.maximum(rotation(len(today.mean), electrodes) @ np.array(today.mean), _NOISE) * today.size
    each = np.square(np.maximum(np.array(then.mean), _NOISE) * then.size / now)
    whole = (then.size / today.size) ** 2
    return tuple(np.clip(np.sqrt(each * whole), 1 / _MOST, _MOST).tolist())


def turn(
    features: NDArray[np.float32], electrodes: float, ring: tuple[int, ...], *, rectified: bool | None = None
) -> NDArray[np.float32]:
    """Turn the ring's channels of features, float32 (..., C), and leave others alone.

    Args:
        features: float32 (..., C).
        electrodes: How far, in electrodes; 0 gives the same features back.
        ring: The ring's channels in order around the arm.
        rectified: Envelopes, which interpolation must not leave below zero; by default where none is.
    """
    if electrodes == 0:
        return features
    out = features.copy()
    places = list(ring)
    here, moved = features[..., places], np.zeros((*features.shape[:-1], len(places)))
    for column, weights in enumerate(rotation(len(ring), electrodes).T):  # one fixed order of sums, whatever the chunk
        moved += here[..., column, None] * weights
    positive = features[..., places].min(initial=0) >= 0 if rectified is None else rectified
    out[..., places] = np.maximum(moved, 0) if positive else moved
    return out


def _divergence(today: Activity, then: Activity, electrodes: float) -> float:
    """Symmetric Kullback-Leibler divergence of the turned activity, nats."""
    c = len(then.mean)
    turned = rotation(c, electrodes)
    mean = turned @ np.array(today.mean)
    there = _noisy(np.array(then.covariance))
    here = _noisy(turned @ np.array(today.covariance) @ turned.T)
    off = mean - np.array(then.mean)
    inverse_here, inverse_there = np.linalg.inv(here), np.linalg.inv(there)
    trace = float((inverse_there * here).sum() + (inverse_here * there).sum())
    return 0.5 * (trace - 2 * c + float(off @ (inverse_here + inverse_there) @ off))


def _noisy(covariance: Wide) -> Wide:
    return np.asarray(covariance + _NOISE * np.trace(covariance) / len(covariance) * np.eye(len(covariance)))
