"""From windows to verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embridge_shared.quality import levels, spectra
from embridge_shared.quality.activity import Activity
from embridge_shared.quality.grades import ADVICE, LIMITS, Grade, Limit, Metric, worst
from embridge_shared.quality.profile import Profile, SignalKind
from embridge_shared.quality.windows import HOP_S, Window
from embridge_shared.signal import StreamSpec

Array = NDArray[np.float64]

_RUN_WARN, _RUN_BAD = 15, 20
_HELD_S, _HELD = 0.005, 12
_ENVELOPE_STILL_S = (30.0, 60.0)
_SETTLED_S = 10.0
_ODD_Z = 5.0
_ODD_MEMORY, _ODD_LEAST = 30, 4
_MAINS_MEMORY = 0.1
_MAD = 1.4826
_DRIFT_FLOOR = 3.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one window of a stream is worth.

    Attributes:
        first: Index of its first sample.
        n: Samples it spans.
        values: Each metric that could be computed, (C,); NaN where it could not for a channel.
        grades: Grade of each metric and channel, after its hold.
    """

    first: int
    n: int
    values: Mapping[Metric, Array]
    grades: Mapping[Metric, tuple[Grade, ...]]

    def grade(self, channel: int) -> Grade:
        """The worst grade of a channel."""
        return worst(g[channel] for g in self.grades.values())

    def faults(self, channel: int, least: Grade = Grade.WARN) -> list[Metric]:
        """Metrics of a channel that are not good, the worst first."""
        wanted = (Grade.BAD,) if least is Grade.BAD else (Grade.BAD, Grade.WARN)
        return [m for grade in wanted for m, g in self.grades.items() if g[channel] is grade]

    def reason(self, metric: Metric, channel: int) -> str:
        """Why a metric of a channel is not good, in words."""
        return _WORDS[metric](float(self.values[metric][channel]))

    def advice(self, channel: int) -> str:
        """What to do first about a channel, or nothing."""
        return next((ADVICE[m] for m in self.faults(channel)), "")


_WORDS: dict[Metric, Callable[[float], str]] = {
    Metric.LOSS: lambda x: f"{100 * x:.2g} % of the samples did not arrive",
    Metric.CLIPPING: lambda x: f"{100 * x:.2g} % of the samples are clipped",
    Metric.RAILED: lambda x: f"its middle lies at {100 * x:.0f} % of the range",
    Metric.FLAT: lambda x: f"it stood still for {x:.3g} s",
    Metric.DROPOUT: lambda x: f"it stands still in {100 * x:.2g} % of the samples",
    Metric.MAINS: lambda x: f"mains hum is {abs(x):.0f} dB {'above' if x >= 0 else 'below'} the EMG",
    Metric.SNR: lambda x: f"a contraction is only {x:.0f} dB above rest",
    Metric.RESPONSE: lambda x: f"no contraction lifts it more than {x:.0f} dB over rest, where it lifts the others",
    Metric.MOTION: lambda x: f"movement below 20 Hz leaves the EMG {x:.0f} dB",
    Metric.SHAPE: lambda x: f"its spectrum is deformed by a factor of {x:.2f}",
    Metric.DRIFT: lambda x: f"its baseline moves {x:.0f} times the EMG in 1 s",
    Metric.BRIDGE: lambda x: f"it follows another channel with a correlation of {x:.3f}",
    Metric.FLOOR: lambda x: f"its noise at rest is {x:.1f} µV",
    Metric.ODD: lambda x: f"it is {abs(x):.0f} dB {'stronger' if x >= 0 else 'weaker'} than the other channels",
}


class Judge:
    """Judges the windows of one stream, in order.

    It remembers what a single window cannot tell: rest, the first contraction, how long a fault has lasted. Used from
    one thread at a time.

    Args:
        spec: The stream; EMG.
        limits: Where metrics begin to matter; those left out are not computed.
    """

    def __init__(self, spec: StreamSpec, limits: Mapping[Metric, Limit] = LIMITS) -> None:
        self.profile = Profile.of(spec)
        skipped = self.profile.skipped
        self._limits = {m: limit for m, limit in limits.items() if m not in skipped}
        self._quiet_db = limits[Metric.MAINS].warn if Metric.MAINS in limits else 0.0
        self._lasting: dict[tuple[Metric, Grade], NDArray[np.int64]] = {}
        self._activity = Activity(spec.n_channels)
        self._still_s = np.zeros(spec.n_channels)
        self._last: Array | None = None
        self._level: Array | None = None
        self._levels = 0
        self._hum = dict.fromkeys(spectra.MAINS_HZ, 0.0)

    def judge(self, window: Window) -> Verdict:
        """Judge the next window."""
        channels = len(self.profile.channels)
        values: dict[Metric, Array] = {Metric.LOSS: np.full(channels, window.loss)}
        samples = np.asarray(window.samples, np.float64)
        if len(samples) >= 2:
            flat = self._still(samples)
            values |= self._levels_of(samples, flat)
            moving = flat < samples.shape[0] / self.profile.rate_hz / 2
            if self.profile.kind is SignalKind.RAW:
                values |= self._spectral(samples, moving)
        values = {m: v for m, v in values.items() if m in self._limits}
        return Verdict(window.first, window.n, values, {m: self._grade(m, v) for m, v in values.items()})

    def _still(self, samples: Array) -> Array:
        """Longest time each channel stood still, s; of an envelope, how long it has by now."""
        rate = self.profile.rate_hz
        if self.profile.kind is SignalKind.RAW:
            return np.asarray(levels.longest_run(samples) / rate, np.float64)
        same = (samples == samples[0]).all(axis=0)
        if self._last is not None:
            same &= samples[-1] == self._last
        self._still_s = np.where(same, self._still_s + HOP_S, 0.0)
        self._last = samples[-1]
        return self._still_s

    def _levels_of(self, samples: Array, flat: Array) -> dict[Metric, Array]:
        profile = self.profile
        out = {Metric.FLAT: flat, Metric.CLIPPING: levels.clipping(samples, profile.rails)}
        if profile.rails is not None:
            out[Metric.RAILED] = levels.railed(samples, profile.rails)
        out[Metric.DROPOUT] = levels.held(samples, max(_HELD, round(_HELD_S * profile.rate_hz)))
        return out

    def _spectral(self, samples: Array, moving: NDArray[np.bool_]) -> dict[Metric, Array]:
        """Everything that needs a spectrum; NaN for channels that stand still."""
        spectrum = spectra.Spectrum.of(samples, self.profile.rate_hz, self.profile.band_hz)
        if spectrum is None or Metric.MAINS not in self._limits:
            return {}
        mains_hz, hum, emg = self._mains(spectrum)
        power = spectrum.clean(mains_hz)
        level = spectrum.power[spectrum.band].sum(axis=0)
        alive = moving & (emg > 0)
        over_time = self._over_time(level, emg, alive)
        active = alive & self._activity.contracting(emg)
        # A channel that hums or hisses never seems to contract; its spectrum counts when the others do.
        judged = alive & (active | (active.sum() > active.size / 2))
        scale = np.maximum(np.sqrt(emg), _DRIFT_FLOOR * levels.step(samples)) + 1e-12
        mains = spectra.decibel(hum, emg)
        # A contraction hides hum; it does not end it.
        mains = np.where(active & (mains < self._quiet_db), np.nan, mains)
        out = {
            Metric.MAINS: mains,
            Metric.MOTION: spectra.motion_db(spectrum.hz, power, self._activity.strongest),
            Metric.DRIFT: np.abs(levels.slope(samples, self.profile.rate_hz)) / scale,
            Metric.SHAPE: np.where(judged, spectra.shape(spectrum.hz[spectrum.band], power[spectrum.band]), np.nan),
            Metric.BRIDGE: self._bridge(spectrum, mains_hz, active),
            **over_time,
        }
        return {m: np.where(alive, v, np.nan) for m, v in out.items()}

    def _mains(self, spectrum: spectra.Spectrum) -> tuple[float, Array, Array]:
        """Frequency of the mains here, power of its hum and of the EMG, (C,)."""
        found = {hz: spectrum.mains(hz) for hz in spectra.MAINS_HZ}
        # A country has one frequency: what has hummed most lately.
        for hz, (hum, emg) in found.items():
            share = float(np.mean(hum / np.maximum(hum + emg, 1e-30)))
            self._hum[hz] += _MAINS_MEMORY * (share - self._hum[hz])
        mains_hz = max(self._hum, key=self._hum.__getitem__)
        return (mains_hz, *found[mains_hz])

    def _bridge(self, spectrum: spectra.Spectrum, mains_hz: float, active: NDArray[np.bool_]) -> Array:
        """How much a channel that contracts is like another one that does."""
        likeness = np.where(np.outer(active, active), spectra.likeness(spectrum, mains_hz), 0.0)
        return np.where(active & (active.sum() > 1), np.abs(likeness).max(axis=0), np.nan)

    def _over_time(self, level: Array, emg: Array, alive: NDArray[np.bool_]) -> dict[Metric, Array]:
        """Metrics that need more than a window: signal to noise, noise at rest, odd channels."""
        self._activity.see(emg, alive)
        out = {Metric.SNR: self._activity.snr_db(), Metric.RESPONSE: self._activity.response_db()}
        out[Metric.ODD] = self._odd(level, alive)
        if self.profile.uv is not None and self._activity.seen * HOP_S >= _SETTLED_S:
            out[Metric.FLOOR] = self.profile.uv * np.sqrt(self._activity.rest)
        return out

    def _odd(self, power: Array, alive: NDArray[np.bool_]) -> Array:
        """By how much a channel's level, over half a minute, leaves the others', dB; 0 where that is no outlier."""
        level = 10.0 * np.log10(np.maximum(power, 1e-30))
        self._levels += 1
        weight = 1.0 / min(self._levels, _ODD_MEMORY)
        before = level if self._level is None else self._level
        self._level = np.where(alive, before + weight * (level - before), before)
        if self._levels < _ODD_LEAST or alive.sum() < 4:
            return np.full(len(power), np.nan)
        away = self._level - np.median(self._level[alive])
        spread = _MAD * np.median(np.abs(away[alive])) + 1e-6
        return np.where(np.abs(away) / spread > _ODD_Z, away, 0.0)

    def _grade(self, metric: Metric, values: Array) -> tuple[Grade, ...]:
        """Grades after the hold."""
        limit = self._limits[metric]
        warn, bad = self._bounds(metric, limit)
        sign = -1.0 if limit.low else 1.0
        size = np.abs(values) if metric is Metric.ODD else values
        known = ~np.isnan(values)
        out = [Grade.GOOD if k else Grade.UNKNOWN for k in known]
        for grade, bound in ((Grade.WARN, warn), (Grade.BAD, bad)):
            beyond = known & (sign * np.where(known, size, 0.0) >= sign * bound)
            before = self._lasting.get((metric, grade), np.zeros(len(values), np.int64))
            # What cannot be judged now neither ends nor prolongs what was.
            self._lasting[metric, grade] = run = np.where(known, np.where(beyond, before + 1, 0), before)
            for c in np.flatnonzero(beyond & (run >= limit.hold)):
                out[c] = grade
        return tuple(out)

    def _bounds(self, metric: Metric, limit: Limit) -> tuple[float, float]:
        if metric is not Metric.FLAT:
            return limit.warn, limit.bad
        if self.profile.kind is SignalKind.ENVELOPE:
            return _ENVELOPE_STILL_S
        rate = self.profile.rate_hz
        return max(limit.warn, _RUN_WARN / rate), max(limit.bad, _RUN_BAD / rate)
