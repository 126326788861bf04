"""What a band's signal is worth while its wearer rests: electrodes, noise, drift, and the greatest effort."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from embridge_edge.capture import device_clock
from embridge_edge.source import Packet
from embridge_shared.preprocess.iir import butterworth, sosfilt
from embridge_shared.quality import LIMITS, Grade, Judge, Metric, Verdict, Windows
from embridge_shared.quality.grades import ADVICE
from embridge_shared.quality.profile import BAND_HZ, Profile, SignalKind
from embridge_shared.signal import StreamSpec

Array = NDArray[np.float64]

_DEAF_DB, _SEEN_DB = 3.0, 12.0
_SETTLE_S: Final = 4.0
_LEAST_WINDOWS: Final = 3
_MEMORY_WINDOWS: Final = 3
_EFFORT_S: Final = 3.0
_FRAME_S: Final = 0.1
_LIMITS: Final = {m: replace(limit, hold=min(2, limit.hold)) for m, limit in LIMITS.items()}
"""Who is asked to sit still for a moment is judged sooner."""
_NOT_AT_REST: Final = frozenset({Metric.SNR, Metric.RESPONSE, Metric.FLOOR, Metric.BRIDGE, Metric.ODD, Metric.LOSS})
"""Metrics that need contractions, or have a line of their own."""


class SignalLook:
    """What a band's signal is worth while its wearer rests.

    Args:
        spec: Its stream.
        host_ns: The monotonic clock when it was opened, ns.
    """

    def __init__(self, spec: StreamSpec, host_ns: int) -> None:
        self.spec = spec
        self._host_ns = host_ns
        self._fit = device_clock(spec, host_ns)
        self._windows: Windows | None = None
        self._judge = Judge(spec, _LIMITS)
        self._profile = Profile.of(spec)
        self._verdicts: list[Verdict] = []
        self._rest: Array | None = None
        self._highpass = butterworth(2, min(BAND_HZ[0], 0.2 * spec.rate_hz), "highpass", spec.rate_hz)
        self._effort: list[NDArray[Any]] | None = None
        self._effort_left = 0
        self._deaf: list[int] = []
        self.effort: float | None = None
        """Greatest effort captured, in units of the stream times its scale; None before."""
        self.samples = 0
        self.lost = 0
        self._next = -1

    @property
    def seconds(self) -> float:
        """Signal seen, s."""
        return self.samples / self.spec.rate_hz

    @property
    def skew_ppm(self) -> float | None:
        """How much slower the band counts than this machine, parts per million; None before that can be told."""
        return None if self.seconds < _SETTLE_S else self._fit.skew_ppm

    @property
    def measuring(self) -> bool:
        """The greatest effort is being captured."""
        return self._effort is not None

    def measure_effort(self) -> None:
        """Capture the greatest effort from now on, for three seconds."""
        self._effort, self._effort_left = [], round(_EFFORT_S * self.spec.rate_hz)

    def push(self, packet: Packet) -> None:
        """Take in a packet; may take milliseconds."""
        end = packet.first + len(packet.samples)
        if self._windows is None:
            self._windows = Windows(self.spec, packet.first)
        elif packet.first > self._next:
            self.lost += packet.first - self._next
        self._next = end
        self.samples += len(packet.samples)
        self._fit.observe(end - 1, packet.host_ns)
        if self._effort is not None:
            self._strain(packet.samples)
        for window in self._windows.push(packet.first, packet.samples):
            if len(window.samples) < 2:
                continue
            self._verdicts = [*self._verdicts[-_MEMORY_WINDOWS + 1 :], self._judge.judge(window)]
            level = self._levels(window.samples)
            self._rest = level if self._rest is None else np.minimum(self._rest, level)

    def faults(self) -> dict[int, str]:
        """Channels that were bad lately, and why."""
        out = dict.fromkeys(self._deaf, f"sees nothing of the greatest effort. {ADVICE[Metric.RESPONSE]}")
        for verdict in self._verdicts:
            for c in range(self.spec.n_channels):
                bad = [m for m in verdict.faults(c, Grade.BAD) if m not in _NOT_AT_REST]
                if bad:
                    out[c] = f"{verdict.reason(bad[0], c)}. {verdict.advice(c)}"
        return out

    def warnings(self) -> int:
        """Channels that are not good and not bad."""
        if not self._verdicts:
            return 0
        last, bad = self._verdicts[-1], self.faults()
        doubtful = [c for c in range(self.spec.n_channels) if set(last.faults(c)) - _NOT_AT_REST]
        return len([c for c in doubtful if c not in bad])

    @property
    def judged(self) -> bool:
        """Enough was seen to say something."""
        return len(self._verdicts) >= _LEAST_WINDOWS

    @property
    def rest_level(self) -> float | None:
        """Level at rest of the middle channel, in units of the stream times its scale; None before it was seen."""
        return None if self._rest is None else float(np.median(self._rest)) * self._unit

    @property
    def hum_db(self) -> float | None:
        """Mains hum over what else is there, of the middle channel, dB; None where it cannot be told."""
        values = [v.values[Metric.MAINS] for v in self._verdicts if Metric.MAINS in v.values]
        if not values or np.isnan(values).all():
            return None
        return float(np.nanmedian(np.stack(values)))

    @property
    def microvolts(self) -> bool:
        """Levels are in microvolts."""
        return self._profile.uv is not None

    @property
    def _unit(self) -> float:
        return 1.0 if self._profile.uv is None else self._profile.uv

    def _alternating(self, samples: NDArray[Any]) -> Array:
        """Samples (n, C) without what muscles do not make."""
        x = np.asarray(samples, np.float64)
        if self._profile.kind is SignalKind.ENVELOPE:
            return np.asarray(x - x.min(axis=0), np.float64)
        filtered, _ = sosfilt(self._highpass, x - x[:1], np.zeros((len(self._highpass), 2, x.shape[1])))
        return np.asarray(filtered, np.float64)

    def _levels(self, samples: NDArray[Any]) -> Array:
        return np.asarray(np.sqrt(np.square(self._alternating(samples)).mean(axis=0)), np.float64)

    def _strain(self, samples: NDArray[Any]) -> None:
        assert self._effort is not None
        self._effort.append(samples)
        self._effort_left -= len(samples)
        if self._effort_left > 0:
            return
        x, size = self._alternating(np.concatenate(self._effort)), max(1, round(_FRAME_S * self.spec.rate_hz))
        frames = np.sqrt(np.square(x[: len(x) // size * size]).reshape(-1, size, x.shape[1]).mean(axis=1))
        if self._rest is not None:
            rise_db = 20.0 * np.log10(np.percentile(frames, 90.0, axis=0) / np.maximum(self._rest, 1e-9) + 1e-9)
            seen = float(np.median(rise_db)) >= _SEEN_DB
            self._deaf = np.flatnonzero(rise_db < _DEAF_DB).tolist() if seen else []
        top = np.sort(frames, axis=1)[:, -max(1, self.spec.n_channels // 4) :].mean(axis=1)
        self.effort, self._effort = float(np.percentile(top, 90.0)) * self._unit, None
