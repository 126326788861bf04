"""Causal normalisation of EMG that keeps its intensity, and the control it needs.

A running level knows what was done before: where gestures come in a fixed order it tells the time, and the time tells
the gesture. `Normalised.state` is that level alone; a method trained on it must stay at chance before a gain of this
normaliser means anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from embridge_shared.errors import ConfigError, DataError, Reason

Keep = Literal["nothing", "shared", "side"]
_FLOOR = 1e-3


@dataclass(frozen=True, slots=True)
class Normalised:
    """A recording after the normaliser.

    Attributes:
        emg: float32 (T, C), or (T, C + 1) with the side channel.
        state: float32 (T, C): log of the running level of each channel.
    """

    emg: NDArray[np.float32]
    state: NDArray[np.float32]


def causal_normalise(
    emg: NDArray[np.float32], rate_hz: float, *, half_life_s: float = 10.0, keep: Keep = "shared"
) -> Normalised:
    """Divide each channel by its running level, of now and before only.

    Args:
        emg: float32 (T, C), raw or envelope, one recording from its start.
        rate_hz: Samples a second.
        half_life_s: After which a moment weighs half.
        keep: "nothing" is a plain running normalisation; "shared" puts the level common to all channels back, so that
            only the channels' relation is normalised; "side" gives the log of the common level as one more channel.

    Raises:
        DataError: The recording is no (T, C), or empty.
        ConfigError: Rate or half-life is not positive.
    """
    if emg.ndim != 2 or 0 in emg.shape:
        raise DataError(f"a recording is (T, C), not {emg.shape}", reason=Reason.WRONG_SHAPE)
    if not rate_hz > 0 or not half_life_s > 0:
        raise ConfigError("rate_hz and half_life_s must be positive")
    level = _running_level(np.abs(emg.astype(np.float64)), 0.5 ** (1 / (half_life_s * rate_hz)))
    level = np.maximum(level, _FLOOR * max(float(level.max()), 1e-12))
    shared = level.mean(axis=1, keepdims=True)
    plain = emg / level
    out = plain * shared if keep == "shared" else plain
    if keep == "side":
        out = np.concatenate([plain, np.log(shared)], axis=1)
    return Normalised(out.astype(np.float32), np.log(level).astype(np.float32))


def _running_level(x: NDArray[np.float64], decay: float) -> NDArray[np.float64]:
    """Exponential mean of (T, C), unbiased from the first sample on."""
    summed = lfilter([1 - decay], [1.0, -decay], x, axis=0)
    weight = 1 - decay ** np.arange(1, len(x) + 1)
    return np.asarray(summed / weight[:, None])
