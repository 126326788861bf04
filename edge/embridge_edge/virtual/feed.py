"""What a virtual band measures: an endless signal, at whatever rate and with however many channels the band has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import scipy
from numpy.typing import NDArray

from embridge_edge import recordings
from embridge_edge.forearm import CONTROL_HZ, EMG_RATE_HZ, UV_PER_COUNT, Donning, Forearm, Performance
from embridge_edge.forearm.electrodes import N_ELECTRODES
from embridge_edge.forearm.link import Blocks
from embridge_shared.errors import DataError, OperatorError

Array32 = NDArray[np.float32]

_BLOCK_STEPS = 20
_LOUD_UV, _LOUD_QUANTILE = 1000.0, 0.999


class SampleFeed(ABC):
    """An endless signal in µV.

    Attributes:
        rate_hz: Samples a second.
        channels: Channels a sample.
    """

    rate_hz: float
    channels: int

    @abstractmethod
    def take(self, n: int) -> Array32:
        """The next n samples, float32 (n, channels), µV."""


class LoopFeed(SampleFeed):
    """Samples over and over again.

    Args:
        samples: (T, channels), µV.
        rate_hz: Samples a second.

    Attributes:
        samples: float32 (T, channels), µV.

    Raises:
        DataError: There are none.
    """

    def __init__(self, samples: NDArray[np.floating], rate_hz: float) -> None:
        if samples.ndim != 2 or not samples.size:
            raise DataError(f"a band needs (samples, channels) to play, not {samples.shape}")
        self.rate_hz = rate_hz
        self.channels = samples.shape[1]
        self.samples = np.ascontiguousarray(samples, np.float32)
        self._next = 0

    def take(self, n: int) -> Array32:
        """The next n samples, from the start again after the last."""
        at = np.arange(self._next, self._next + n) % len(self.samples)
        self._next = (self._next + n) % len(self.samples)
        return self.samples[at]


class ForearmFeed(SampleFeed):
    """The forearm of a simulated wearer, who begins the performance anew whenever it is over.

    Args:
        performance: What the wearer does.
        donning: How the band sits.
        seed: Of the noise.
    """

    rate_hz = EMG_RATE_HZ
    channels = N_ELECTRODES

    def __init__(self, performance: Performance, donning: Donning | None = None, *, seed: int = 0) -> None:
        self._performance = performance
        self._forearm = Forearm(performance.wearer, donning, seed=seed)
        self._blocks = Blocks(self._block)

    def _block(self) -> NDArray[np.int16]:
        steps = np.arange(self._forearm.step, self._forearm.step + _BLOCK_STEPS)
        t_s = steps / CONTROL_HZ + self._performance.wearer.lead_s
        return self._forearm.emg(self._performance.angles(t_s % self._performance.duration_s))

    def take(self, n: int) -> Array32:
        """The next n samples."""
        return np.asarray(self._blocks.take(n), np.float32) * np.float32(UV_PER_COUNT)


def recording_feed(path: Path, *, rate_hz: float | None = None, gain_uv: float | None = None) -> LoopFeed:
    """A recording file, over and over again.

    Args:
        path: The file.
        rate_hz: Sample rate where the file does not tell.
        gain_uv: Microvolts a unit of the file; by default 99.9 % of its samples lie within 1 mV.

    Raises:
        DataError: The file cannot be read.
        ConfigError: The rate is needed.
    """
    recording = recordings.load(path, rate_hz)
    samples = np.nan_to_num(recording.emg_samples)
    if gain_uv is None:
        loud = float(np.quantile(np.abs(samples), _LOUD_QUANTILE))
        gain_uv = _LOUD_UV / loud if loud > 0 else 1.0
    return LoopFeed(samples * np.float32(gain_uv), recording.emg.rate_hz)


class FittedFeed(SampleFeed):
    """A feed at another rate and with another number of channels.

    Going down, what the new rate cannot carry is filtered out first; channels are taken evenly around the arm.

    Args:
        feed: The signal.
        rate_hz: Samples a second wanted.
        channels: Channels wanted.

    Raises:
        OperatorError: No rate or no channels.
    """

    def __init__(self, feed: SampleFeed, *, rate_hz: float, channels: int) -> None:
        if not rate_hz > 0 or channels < 1:
            raise OperatorError(f"no band has {channels} channels at {rate_hz} Hz")
        self.rate_hz = rate_hz
        self.channels = channels
        self._feed = feed
        self._pick = np.arange(channels) * feed.channels // channels % feed.channels
        self._ratio = feed.rate_hz / rate_hz
        self._sos = scipy.signal.butter(6, 0.4 * rate_hz, fs=feed.rate_hz, output="sos") if self._ratio > 1 else None
        self._state = np.zeros((3, 2, channels))
        self._tail = self._source(1)
        self._taken = 0  # output samples
        self._have = 1  # input samples, the last of which is the tail

    def _source(self, n: int) -> NDArray[np.float64]:
        raw = self._feed.take(n)[:, self._pick].astype(np.float64)
        if self._sos is None:
            return raw
        out, self._state = scipy.signal.sosfilt(self._sos, raw, axis=0, zi=self._state)
        return np.asarray(out)

    def take(self, n: int) -> Array32:
        """The next n samples."""
        at = (self._taken + np.arange(n)) * self._ratio
        self._taken += n
        needed = int(np.floor(at[-1])) + 2 - self._have if n else 0
        inputs = self._tail
        if needed > 0:
            inputs = np.concatenate([inputs, self._source(needed)])
        first = self._have - len(self._tail)
        left = np.floor(at).astype(np.int64) - first
        share = (at - np.floor(at))[:, None]
        out = inputs[left] * (1 - share) + inputs[left + 1] * share
        self._have = first + len(inputs)
        keep = max(0, int(np.floor(self._taken * self._ratio)) - first)
        self._tail = inputs[min(keep, len(inputs) - 1) :]
        return np.asarray(out, np.float32)


def fit(feed: SampleFeed, *, rate_hz: float, channels: int) -> SampleFeed:
    """The feed as it is where it fits, else at the rate and with the channels wanted."""
    if feed.rate_hz == rate_hz and feed.channels == channels:
        return feed
    return FittedFeed(feed, rate_hz=rate_hz, channels=channels)
