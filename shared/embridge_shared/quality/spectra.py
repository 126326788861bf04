"""What the spectrum tells: mains, motion, shape, noise, and which channels are one.

P(f) is Welch's estimate with Hann segments of one second, so bins of 1 Hz, half overlapping.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MAINS_HZ = (50.0, 60.0)
_LINE_HZ = 1.5
_NEIGHBOURS_HZ = (2.5, 8.5)
_MOTION_HZ = 20.0
_PEAK_HZ = 35.0
_SMOOTH_BINS = 9
_TINY = 1e-30


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Spectra of one window.

    Attributes:
        hz: Frequency of each bin, (F,).
        power: Mean square a bin, (F, C); the sum over bins is the variance.
        parts: Spectra of the segments, complex (S, F, C).
        band: Which bins are EMG's, (F,).
    """

    hz: Array
    power: Array
    parts: NDArray[np.complex64]
    band: NDArray[np.bool_]

    @classmethod
    def of(cls, samples: Array, rate_hz: float, band_hz: tuple[float, float]) -> Spectrum | None:
        """Spectra of samples (T, C), or None where they are shorter than a second."""
        length = round(rate_hz)
        if len(samples) < length:
            return None
        hop = max(1, length // 2)
        view = np.lib.stride_tricks.sliding_window_view(samples, length, axis=0)[::hop]
        window = np.hanning(length + 1)[:-1].astype(np.float32)
        bins = np.fft.rfft((view - view.mean(axis=-1, keepdims=True)).astype(np.float32) * window)
        parts: NDArray[np.complex64] = np.ascontiguousarray(bins.transpose(0, 2, 1)).astype(np.complex64, copy=False)
        squares: Array = parts.real.astype(np.float64) ** 2 + parts.imag.astype(np.float64) ** 2
        scale = 2.0 / (length * float((window.astype(np.float64) ** 2).sum()))
        power: Array = np.asarray(scale * squares.mean(axis=0), np.float64)
        hz: Array = np.asarray(np.fft.rfftfreq(length, 1.0 / rate_hz), np.float64)
        return cls(hz, power, parts, (hz >= band_hz[0]) & (hz <= band_hz[1]))

    def line(self, mains_hz: float) -> NDArray[np.bool_]:
        """Bins of the mains and its harmonics, (F,)."""
        order = np.maximum(1.0, np.rint(self.hz / mains_hz))
        return np.abs(self.hz - order * mains_hz) <= _LINE_HZ

    def mains(self, mains_hz: float) -> tuple[Array, Array]:
        """Power of the mains above its neighbours, and of EMG without it, both (C,)."""
        line = self.line(mains_hz) & (self.hz < self.hz[-1] - _LINE_HZ)
        hum = np.zeros(self.power.shape[1])
        emg = self.power[self.band & ~line].sum(axis=0)
        for order in range(1, int(self.hz[-1] / mains_hz) + 1):
            away = np.abs(self.hz - order * mains_hz)
            at = (away <= _LINE_HZ) & line
            around = (away >= _NEIGHBOURS_HZ[0]) & (away <= _NEIGHBOURS_HZ[1]) & ~line
            if not at.any() or not around.any():
                continue
            floor = self.power[around].mean(axis=0)
            hum += self.power[at].sum(axis=0) - at.sum() * floor
            emg += (at & self.band).sum() * floor
        return np.maximum(hum, 0.0), emg

    def clean(self, mains_hz: float | None) -> Array:
        """Spectrum with the bins of the mains filled from their neighbours, (F, C)."""
        if mains_hz is None:
            return self.power
        line = self.line(mains_hz)
        known = np.flatnonzero(~line)
        out = self.power.copy()
        for i in np.flatnonzero(line):
            j = int(np.searchsorted(known, i))
            out[i] = 0.5 * (self.power[known[max(0, j - 1)]] + self.power[known[min(len(known) - 1, j)]])
        return out


def motion_db(hz: Array, power: Array, contraction: Array) -> Array:
    """Power of EMG over the power below 20 Hz that muscle does not explain, dB (C,).

    Muscle explains what lies under the line from the origin to the peak of the spectrum above 35 Hz (SMR: Sinderby
    et al. 1995, J Appl Physiol 79, 1803-1815).

    Args:
        hz: (F,).
        power: Without mains, (F, C).
        contraction: Power of the strongest EMG known, (C,): what moves little beside it does no harm at rest.
    """
    above = np.flatnonzero(hz >= _PEAK_HZ)
    kernel = np.ones(_SMOOTH_BINS) / _SMOOTH_BINS
    smooth = np.stack([np.convolve(power[above, c], kernel, "same") for c in range(power.shape[1])], axis=1)
    peak = np.argmax(smooth, axis=0)
    slope = np.take_along_axis(smooth, peak[None], 0)[0] / hz[above][peak]
    low = (hz > 0) & (hz < _MOTION_HZ)
    excess = np.maximum(power[low] - hz[low, None] * slope, 0.0).sum(axis=0)
    total = np.maximum(power[hz > 0].sum(axis=0), contraction + excess)
    return np.asarray(decibel(total, excess), np.float64)


def shape(hz: Array, power: Array) -> Array:
    """Deformation of the spectrum, sqrt(M2 / M0) / (M1 / M0), (C,); M_k is the k-th spectral moment.

    Args:
        hz: (F,), from 20 Hz up, so that movement is not told twice.
        power: Without mains, (F, C).
    """
    m0, m1, m2 = (np.maximum((hz[:, None] ** k * power).sum(axis=0), _TINY) for k in range(3))
    return np.asarray(np.sqrt(m2 / m0) / (m1 / m0), np.float64)


def likeness(spectrum: Spectrum, mains_hz: float | None) -> Array:
    """Correlation of channels within the band of EMG and without mains, (C, C); 0 on the diagonal."""
    keep = spectrum.band.copy()
    if mains_hz is not None:
        keep &= ~spectrum.line(mains_hz)
    x = spectrum.parts[:, keep].reshape(-1, spectrum.parts.shape[2])
    cross = np.real(x.conj().T @ x).astype(np.float64)
    norm = np.sqrt(np.maximum(np.diag(cross), _TINY))
    out: Array = cross / norm[:, None] / norm[None, :]
    np.fill_diagonal(out, 0.0)
    return out


def decibel(a: Array | float, b: Array | float) -> Array:
    """10 log10(a / b), bounded to ±99."""
    ratio = np.asarray(a, np.float64) / np.maximum(b, _TINY)
    return np.clip(10.0 * np.log10(np.maximum(ratio, _TINY)), -99.0, 99.0)
