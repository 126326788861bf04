"""EMG of a forearm, sample by sample.

The signal of a source is noise with the spectrum of surface EMG, f² / ((f² + l²)(f² + h²)²) (Shwedyk et al. 1977,
IEEE TBME 24, 417-424), scaled by the muscle's activity. Two such spectra, a fast and a slow one, are mixed in power:
tissue makes deep sources slow, and fatigue moves the mix towards slow while the amplitude grows (Merletti et al.
1990, J Appl Physiol 69, 1810-1820).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embridge_edge.forearm.drive import Drive
from embridge_edge.forearm.electrodes import N_ELECTRODES, PARTS, Donning, FaultKind, lead_field
from embridge_edge.forearm.wearer import Wearer
from embridge_shared.hand.joints import check_pose
from embridge_shared.preprocess import iir

EMG_RATE_HZ = 2000.0
CONTROL_HZ = 200.0
"""Postures a second the forearm is driven with."""
UV_PER_COUNT = 0.195
"""Microvolts a count; the int16 range is ±6.39 mV."""

_SAMPLES = round(EMG_RATE_HZ / CONTROL_HZ)
_BAND_HZ = (20.0, 450.0)
_FAST_HZ, _SLOW_HZ = (70.0, 170.0), (35.0, 85.0)
_HARMONICS = {1: 1.0, 2: 0.15, 3: 0.4, 5: 0.2}
_FLOOR_BAND_HZ = (15.0, 800.0)
_LOOSE_HUM, _LOOSE_EMG, _CLIPPING_GAIN = 60.0, 0.3, 200.0
# A loose electrode shakes with the hand: µV for each rad/s beyond what tremor and drift do.
_ARTEFACT_UV, _STILL_RAD_S = 1500.0, 0.15

Array32 = NDArray[np.float32]


def _unit_gain(sos: NDArray[np.float64]) -> NDArray[np.float64]:
    """The filter scaled to pass white noise of unit variance on at unit variance."""
    impulse = np.zeros((8192, 1))
    impulse[0] = 1.0
    out = sos.copy()
    out[0, :3] /= np.sqrt((iir.sosfilt(sos, impulse, np.zeros((len(sos), 2, 1)))[0] ** 2).sum())
    return out


def _spectrum(low_hz: float, high_hz: float) -> NDArray[np.float64]:
    """Filter that gives white noise the spectrum of EMG within the band of the amplifier."""
    poles = -2.0 * np.pi * np.array([low_hz, high_hz, high_hz])
    band = iir.butterworth(3, _BAND_HZ, "bandpass", EMG_RATE_HZ)
    return _unit_gain(np.concatenate([iir.sections(poles, 1, EMG_RATE_HZ), band]))


class _Noise:
    """Filtered noise of several channels; the same for any split into blocks."""

    def __init__(self, sos: NDArray[np.float64], channels: int, rng: np.random.Generator) -> None:
        self._sos = sos.astype(np.float32)
        self._state = np.zeros((len(sos), 2, channels), np.float32)
        self._channels = channels
        self._rng = rng

    def __call__(self, n: int) -> Array32:
        white = self._rng.standard_normal((n, self._channels), dtype=np.float32)
        out, self._state = iir.sosfilt(self._sos, white, self._state)
        return np.asarray(out, np.float32)


class Forearm:
    """An arm with a band on it.

    Feed it postures, get EMG. It keeps its state, so a recording may be made in blocks of any length. EMG precedes
    movement: the posture of step i belongs to the moment `lead_s` after the samples of step i.

    Args:
        wearer: Whose arm.
        donning: How the band sits.
        seed: Of the noise.
    """

    def __init__(self, wearer: Wearer, donning: Donning | None = None, *, seed: int = 0) -> None:
        self.wearer = wearer
        self.donning = donning or Donning()
        sources = PARTS * len(wearer.gain)
        streams = [np.random.Generator(np.random.SFC64([seed, k])) for k in range(6)]
        self._drive = Drive(wearer, 1.0 / CONTROL_HZ, streams[0])
        self._fast = _Noise(_spectrum(*_FAST_HZ), sources, streams[1])
        self._slow = _Noise(_spectrum(*_SLOW_HZ), sources, streams[2])
        open_band = iir.butterworth(2, _FLOOR_BAND_HZ, "bandpass", EMG_RATE_HZ)
        self._floor = _Noise(_unit_gain(open_band), N_ELECTRODES, streams[3])
        sway = np.concatenate([iir.butterworth(1, 12.0, "lowpass", EMG_RATE_HZ), open_band])
        self._artefact = _Noise(_unit_gain(sway), N_ELECTRODES, streams[4])
        contact = np.exp(streams[5].normal(0.0, self.donning.contact_sd, (N_ELECTRODES, 1)))
        field = contact * lead_field(wearer, self.donning)
        leak = self.donning.leakage
        self._field = ((1 - leak) * field + leak * field.mean(axis=0)).astype(np.float32)
        self._hum = self.donning.hum_uv * np.exp(streams[5].normal(0.0, 0.3, N_ELECTRODES))
        self._phase = streams[5].uniform(0.0, 2.0 * np.pi, len(_HARMONICS))
        self._deep = np.clip(0.2 + 0.02 * (wearer.depth_mm - 6.0), 0.1, 0.5)
        self._step = 0
        self._amplitudes: NDArray[np.float64] | None = None
        self._pose: NDArray[np.float64] | None = None

    @property
    def step(self) -> int:
        """Postures taken so far; the next sample is the one `10 * step`."""
        return self._step

    def _amplitude(self, angles: NDArray[np.float64]) -> Array32:
        """Amplitude of the fast and the slow noise of each muscle, (samples, 2, M), joined to the block before."""
        activity, fatigue = self._drive(angles)
        level = activity * (1.0 + 0.4 * fatigue)
        slow = self._deep + (0.95 - self._deep) * fatigue
        knots = np.stack([level * np.sqrt(1.0 - slow), level * np.sqrt(slow)], axis=1)
        before = knots[:1] if self._amplitudes is None else self._amplitudes
        self._amplitudes = knots[-1:]
        start = np.concatenate([before, knots[:-1]])
        ramp = (np.arange(1, _SAMPLES + 1) / _SAMPLES)[None, :, None, None]
        course = start[:, None] + (knots - start)[:, None] * ramp
        flat: Array32 = course.reshape(-1, *knots.shape[1:]).astype(np.float32)
        return flat

    def _mains(self, first: int, n: int) -> Array32:
        """Hum of the mains of unit RMS, (n, 1)."""
        t_s = (first + np.arange(n)) / EMG_RATE_HZ
        turns = 2.0 * np.pi * self.donning.mains_hz * t_s
        parts = [
            share * np.sin(order * turns + phase)
            for (order, share), phase in zip(_HARMONICS.items(), self._phase, strict=True)
        ]
        rms = np.sqrt(sum(share**2 for share in _HARMONICS.values()) / 2.0)
        hum: Array32 = (np.sum(parts, axis=0) / rms).astype(np.float32)[:, None]
        return hum

    def _spoil(self, emg: Array32, first: int, hum: Array32, artefact: Array32) -> None:
        """Apply the faults in place."""
        t_s = (first + np.arange(len(emg))) / EMG_RATE_HZ
        for fault in self.donning.faults:
            at, c = (t_s >= fault.start_s) & (t_s < fault.end_s), fault.channel
            if fault.kind is FaultKind.LOOSE:
                emg[at, c] = _LOOSE_EMG * emg[at, c] + _LOOSE_HUM * hum[at, c] + artefact[at, c]
            elif fault.kind is FaultKind.CLIPPING:
                emg[at, c] *= _CLIPPING_GAIN
            else:
                emg[at, c] = 0.0

    def emg(self, angles: ArrayLike) -> NDArray[np.int16]:
        """EMG of the next postures.

        Args:
            angles: (n, 20), rad, at `CONTROL_HZ`, each `wearer.lead_s` ahead of the samples it drives.

        Returns:
            int16 counts (10 n, 16) at `EMG_RATE_HZ`; times `UV_PER_COUNT` it is µV.

        Raises:
            DataError: The last axis does not have 20 joints.
        """
        pose = np.atleast_2d(check_pose(angles)).astype(np.float64)
        n, first = _SAMPLES * len(pose), _SAMPLES * self._step
        amplitude = self._amplitude(pose)
        fast, slow = np.repeat(amplitude, PARTS, axis=2).transpose(1, 0, 2)
        emg = np.einsum("ns,cs->nc", fast * self._fast(n) + slow * self._slow(n), self._field)
        hum = self._mains(first, n) * self._hum.astype(np.float32)
        floor = np.float32(self.donning.floor_uv) * self._floor(n)
        before = pose[:1] if self._pose is None else self._pose
        speed = np.abs(np.diff(pose, axis=0, prepend=before)).mean(axis=1) * CONTROL_HZ
        shake = np.repeat(np.maximum(speed - _STILL_RAD_S, 0.0), _SAMPLES)[:, None] * _ARTEFACT_UV
        emg += hum
        self._spoil(emg, first, hum, (self._artefact(n) * shake).astype(np.float32))
        self._pose, self._step = pose[-1:], self._step + len(pose)
        counts = np.clip(np.rint((emg + floor) / UV_PER_COUNT), -32768, 32767)
        return np.asarray(counts, np.int16)
