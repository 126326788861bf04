"""The device's clock, rebuilt on the host from when packets arrive.

Bluetooth delays are one-sided: a packet can be late, never early. So the earliest arrivals of each half second carry
the clock, and a two-state Kalman filter (offset, skew) follows them; a late minimum is distrusted, an early one
believed. After Moon, Skelly and Towsley (1999) for the minimum-delay idea. The arrival pairs themselves travel with the
samples, so that the fit can be redone.
"""

from __future__ import annotations

import numpy as np

_WINDOW_S = 0.5
_MEASUREMENT_SD_S = 1e-3
_OFFSET_WALK_S = 2e-6
_SKEW_WALK = 1e-8
_MAX_SKEW = 200e-6
_MAX_SLEW = 1e-3  # seconds of correction a second of signal
_SETTLE_S = 3.0


class DeviceClock:
    """Turns sample indices of one stream into host time.

    Args:
        rate_hz: Nominal sample rate of the device.
        host_ns: Host time that the offset is counted from, ns.
    """

    def __init__(self, rate_hz: float, host_ns: int) -> None:
        self._rate_hz = rate_hz
        self._origin_ns = host_ns
        self._state = np.zeros(2)  # offset s, skew
        self._covariance = np.diag([1.0, 100e-6**2])
        self._at_s = 0.0  # device time of the state
        self._started = False
        self._window_end_s = 0.0
        self._best: tuple[float, float] | None = None  # (device s, delay s)
        self._last_stamp: tuple[int, int] | None = None  # (index, ns)
        self._first_s = 0.0

    @property
    def skew_ppm(self) -> float:
        """How much slower the device counts than the host, parts per million."""
        return float(self._state[1] * 1e6)

    def observe(self, index: int, host_ns: int) -> None:
        """Take in that sample `index`, the last of its packet, arrived at `host_ns`."""
        device_s = index / self._rate_hz
        delay_s = (host_ns - self._origin_ns) * 1e-9 - device_s
        if not self._started:
            self._started, self._first_s, self._at_s = True, device_s, device_s
            self._state[0] = delay_s
            self._window_end_s = device_s + _WINDOW_S
        elif device_s - self._first_s < _WINDOW_S and delay_s < self._state[0]:
            self._state[0] = delay_s
        if self._best is None or delay_s < self._best[1]:
            self._best = (device_s, delay_s)
        if device_s >= self._window_end_s:
            self._update(*self._best)
            self._best = None
            self._window_end_s = device_s + _WINDOW_S

    def _update(self, device_s: float, delay_s: float) -> None:
        dt = device_s - self._at_s
        step = np.array([[1.0, dt], [0.0, 1.0]])
        noise = np.diag([_OFFSET_WALK_S**2, _SKEW_WALK**2]) * max(dt, 0.0)
        state = step @ self._state
        covariance = step @ self._covariance @ step.T + noise
        innovation = delay_s - state[0]
        measured = _MEASUREMENT_SD_S**2 + (0.0 if innovation <= 0 else (3 * innovation) ** 2)
        gain = covariance[:, 0] / (covariance[0, 0] + measured)
        state = state + gain * innovation
        state[1] = np.clip(state[1], -_MAX_SKEW, _MAX_SKEW)
        self._state = state
        self._covariance = covariance - np.outer(gain, covariance[0])
        self._at_s = device_s

    def estimate_ns(self, index: int) -> int:
        """Best present estimate of the host time of sample `index`, ns."""
        device_s = index / self._rate_hz
        offset_s = float(self._state[0] + self._state[1] * (device_s - self._at_s))
        return self._origin_ns + round((device_s + offset_s) * 1e9)

    def stamp_ns(self, index: int) -> int:
        """Host time of sample `index`, ns.

        Stamps of rising indices rise too: corrections are slewed, never stepped, once the fit has settled.
        """
        device_s = index / self._rate_hz
        stamp = self.estimate_ns(index)
        if self._last_stamp is not None and index > self._last_stamp[0]:
            elapsed_s = (index - self._last_stamp[0]) / self._rate_hz
            expected = self._last_stamp[1] + round(elapsed_s * 1e9)
            free = elapsed_s * (0.5 if device_s - self._first_s < _SETTLE_S else _MAX_SLEW + _MAX_SKEW)
            stamp = int(np.clip(stamp, expected - round(free * 1e9), expected + round(free * 1e9)))
        if self._last_stamp is None or index > self._last_stamp[0]:
            self._last_stamp = (index, stamp)
        return stamp
