"""The device's clock, rebuilt on the host from when packets arrive.

Bluetooth delays are one-sided: a packet can be late, never early. So the earliest arrivals of each half second carry
the clock, and a two-state Kalman filter (offset, skew) follows them; a late minimum is distrusted, an early one
believed. After Moon, Skelly and Towsley (1999) for the minimum-delay idea. The arrival pairs themselves travel with the
samples, so that the fit can be redone.

Where the count of samples was broken, the offset is found anew; the skew belongs to the crystal and stays.
"""

from __future__ import annotations

import numpy as np

CRYSTAL_SKEW = 200e-6
"""No band's crystal is further off than this."""
NOMINAL_SKEW = 5e-3
"""So far may a source be off that states a round rate, as cameras and gloves do."""

_WINDOW_S = 0.5
_MEASUREMENT_SD_S = 3e-3
"""Earliest arrivals of a busy host wander by milliseconds together: to trust them more is to learn a wrong skew."""
_SKEW_PRIOR = 0.2
"""Of the largest skew: most crystals are far better than the worst."""
_OFFSET_WALK_S = 2e-6
_SKEW_WALK = 1e-8
_MAX_SLEW = 1e-3  # seconds of correction a second of signal
_SETTLE_S = 3.0
_EARLY_S = 3e-3
"""An arrival this much before the estimate cannot be chance: the estimate sat on late packets."""
_LATE_S, _LATE_FOR_S = 1.0, 30.0
"""A lag of this size for this long is no queue; samples are missing that nobody counted."""


class DeviceClock:
    """Turns sample indices of one stream into host time.

    Args:
        rate_hz: Nominal sample rate of the device.
        host_ns: Host time that the offset is counted from, ns.
        max_skew: How far the true rate may be from the nominal one, as a fraction.

    Attributes:
        breaks: How often the offset had to be found anew.
    """

    def __init__(self, rate_hz: float, host_ns: int, *, max_skew: float = CRYSTAL_SKEW) -> None:
        self._rate_hz = rate_hz
        self._origin_ns = host_ns
        self._max_skew = max_skew
        self._state = np.zeros(2)  # offset s, skew
        self._covariance = np.diag([1.0, (_SKEW_PRIOR * max_skew) ** 2])
        self._at_s = 0.0  # device time of the state
        self._started = False
        self._window_end_s = 0.0
        self._best: tuple[float, float] | None = None  # (device s, delay s)
        self._slew = Slew(self)
        self._first_s = 0.0
        self._last_s = 0.0
        self._late_from_s: float | None = None
        self.breaks = 0

    @property
    def skew_ppm(self) -> float:
        """How much slower the device counts than the host, parts per million."""
        return float(self._state[1] * 1e6)

    def observe(self, index: int, host_ns: int, *, broken: bool = False) -> None:
        """Take in that sample `index`, the last of its packet, arrived at `host_ns`.

        Args:
            index: Of the sample.
            host_ns: Arrival on the host's monotonic clock, ns.
            broken: The count was lost before this packet and begun anew.
        """
        device_s = index / self._rate_hz
        delay_s = (host_ns - self._origin_ns) * 1e-9 - device_s
        if not self._started:
            self._begin(device_s, delay_s)
        elif broken or device_s < self._last_s:
            self._break(device_s, delay_s)
        elif device_s - self._first_s < _WINDOW_S and delay_s < self._state[0]:
            self._state[0] = delay_s
        self._last_s = device_s
        if self._best is None or delay_s < self._best[1]:
            self._best = (device_s, delay_s)
        if device_s >= self._window_end_s:
            self._update(*self._best)
            self._best = None
            self._window_end_s = device_s + _WINDOW_S

    def _begin(self, device_s: float, delay_s: float) -> None:
        self._started, self._first_s, self._at_s = True, device_s, device_s
        self._state[0] = delay_s
        self._window_end_s = device_s + _WINDOW_S

    def _break(self, device_s: float, delay_s: float) -> None:
        """Find the offset anew; keep the skew."""
        self.breaks += 1
        self._best = self._late_from_s = None
        self._covariance = np.diag([1.0, self._covariance[1, 1]])
        self._begin(device_s, delay_s)

    def _update(self, device_s: float, delay_s: float) -> None:
        dt = device_s - self._at_s
        step = np.array([[1.0, dt], [0.0, 1.0]])
        noise = np.diag([_OFFSET_WALK_S**2, _SKEW_WALK**2]) * max(dt, 0.0)
        state = step @ self._state
        covariance = step @ self._covariance @ step.T + noise
        innovation = float(delay_s - state[0])
        if self._astray(device_s, innovation):
            self._break(device_s, delay_s)
            return
        if innovation < -_EARLY_S:
            covariance[0, 0] += innovation**2
        measured = _MEASUREMENT_SD_S**2 + (0.0 if innovation <= 0 else (3 * innovation) ** 2)
        gain = covariance[:, 0] / (covariance[0, 0] + measured)
        state = state + gain * innovation
        state[1] = np.clip(state[1], -self._max_skew, self._max_skew)
        self._state = state
        self._covariance = covariance - np.outer(gain, covariance[0])
        self._at_s = device_s

    def _astray(self, device_s: float, innovation: float) -> bool:
        """Whether even the earliest arrivals have been late for too long."""
        if innovation < _LATE_S:
            self._late_from_s = None
            return False
        if self._late_from_s is None:
            self._late_from_s = device_s
        return device_s - self._late_from_s >= _LATE_FOR_S

    def estimate_ns(self, index: int) -> int:
        """Best present estimate of the host time of sample `index`, ns."""
        device_s = index / self._rate_hz
        offset_s = float(self._state[0] + self._state[1] * (device_s - self._at_s))
        return self._origin_ns + round((device_s + offset_s) * 1e9)

    def freedom_s(self, index: int, elapsed_s: float) -> float:
        """How far a stamp of `index` may be from where the one `elapsed_s` before it puts it, s."""
        settling = index / self._rate_hz - self._first_s < _SETTLE_S
        return elapsed_s * (0.5 if settling else _MAX_SLEW + self._max_skew)

    def elapsed_s(self, samples: int) -> float:
        """Nominal length of so many samples, s."""
        return samples / self._rate_hz

    def stamp_ns(self, index: int) -> int:
        """Host time of sample `index`, ns.

        Stamps of rising indices rise too: corrections are slewed, never stepped, once the fit has settled.
        """
        return self._slew.stamp_ns(index)


class Slew:
    """Stamps of rising indices that rise too: one reader's view of a clock.

    Args:
        clock: The clock that is read.
    """

    def __init__(self, clock: DeviceClock) -> None:
        self._clock = clock
        self._last: tuple[int, int] | None = None  # (index, ns)

    def stamp_ns(self, index: int) -> int:
        """Host time of sample `index`, ns; corrections are slewed, never stepped, once the fit has settled."""
        stamp = self._clock.estimate_ns(index)
        if self._last is not None and index > self._last[0]:
            elapsed_s = self._clock.elapsed_s(index - self._last[0])
            expected = self._last[1] + round(elapsed_s * 1e9)
            free = round(self._clock.freedom_s(index, elapsed_s) * 1e9)
            stamp = int(np.clip(stamp, expected - free, expected + free))
        if self._last is None or index > self._last[0]:
            self._last = (index, stamp)
        return stamp
