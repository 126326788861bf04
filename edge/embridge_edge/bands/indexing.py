"""Where a packet lies in its stream: device counters, or arrival times, turned into sample indices.

A counter says how many samples are missing, modulo its size. Three facts settle the rest: no sample arrives before it
is taken, so a packet that would have to is a counter that jumped; radio delay is one-sided, so the earliest arrivals
carry the device's time; and a lag that does not go away is loss of a whole turn of the counter.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from numpy.typing import NDArray

from embridge_edge.source import Packet

_SLACK_S = 0.06
"""How far ahead of the earliest arrivals so far a packet may come before its counter is disbelieved."""
_STALE_S = 1.5
"""How far behind a counter may be after a reconnect and still be the one from before."""
_SILENCE_S = 0.5
"""After so long a silence a whole turn of the counter may be gone at once."""
_LAG_S = 1.0
"""So long must a lag last to be taken for loss."""
_WINDOW_S = 2.0
_LONG_TURN_S = 5.0
_CONFIRM = 4
"""Packets that must agree on a new count before it is believed."""
_MIN_TURN_S = 0.03
_DRIFT = 500e-6


class CounterKind(StrEnum):
    """What a band counts."""

    SAMPLES = "samples"
    PACKETS = "packets"
    DEVICE_CLOCK = "device clock"
    ROTATION = "rotation"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Counted:
    """Samples with what the device says about their place.

    Attributes:
        samples: (n, channels).
        value: The counter at the first sample, in samples; None without a counter.
        seq: A second counter, of packets, u16, that tells whether one is missing when the first has jumped.
        restarted: The device says that it began to count anew.
    """

    samples: NDArray[Any]
    value: int | None = None
    seq: int | None = None
    restarted: bool = False


@dataclass(frozen=True, slots=True)
class _Held:
    """A packet in doubt, and the samples missing between it and the one held before it."""

    counted: Counted
    host_ns: int
    gap: int


class _Delay:
    """Earliest arrivals: the offset between the device's time and the host's."""

    def __init__(self, rate_hz: float) -> None:
        self._rate_hz = rate_hz
        self._old_s = math.inf
        self._new_s = math.inf
        self._turn_ns = 0

    def observe(self, end: int, host_ns: int) -> None:
        offset_s = host_ns * 1e-9 - end / self._rate_hz
        if host_ns >= self._turn_ns:
            self._old_s, self._new_s = self._new_s, math.inf
            self._turn_ns = host_ns + round(_WINDOW_S * 1e9)
        self._new_s = min(self._new_s, offset_s)

    @property
    def offset_s(self) -> float:
        """Host time of index 0, as the earliest recent arrivals have it; infinite before the first."""
        return min(self._old_s, self._new_s)

    def index(self, host_ns: int) -> float:
        """Index after the last sample that can have arrived by `host_ns`."""
        return (host_ns * 1e-9 - self.offset_s) * self._rate_hz


class Indexer:
    """Gives packets of one stream their indices.

    Args:
        rate_hz: Nominal rate.
        modulus: Size of the counter in samples; 0 without a counter.
        exact: The counter tells loss reliably: gaps found by it are no estimates.
        start: Index of the first sample; a session that goes on starts later.

    Attributes:
        lost: Samples that never came.
        inferred: Samples of gaps that were estimated.
        jumps: How often the counter was found to have restarted or jumped.
        strays: Packets dropped because their count fits nothing before or after.
    """

    def __init__(self, rate_hz: float, modulus: int, *, exact: bool = True, start: int = 0) -> None:
        self._rate_hz = rate_hz
        self._modulus = modulus
        self._exact = exact
        self._next = start
        self._started = False
        self._end_value = 0
        self._seq: int | None = None
        self._epoch = 0
        self._last_ns = 0
        self._delay = _Delay(rate_hz)
        self._held: list[_Held] = []
        self._anchoring = False
        self._lags: deque[tuple[int, float]] = deque()
        self.lost = 0
        self.inferred = 0
        self.jumps = 0
        self.strays = 0

    @property
    def next(self) -> int:
        """Index after the last sample placed."""
        return self._next

    def push(self, counted: Counted, host_ns: int, epoch: int = 0) -> list[Packet]:
        """Place what arrived at `host_ns` over connection number `epoch`; usually one packet, none while in doubt."""
        if not self._started:
            self._started, self._epoch = True, epoch
            return [self._place(counted, host_ns, 0, inferred=self._next > 0)]
        reconnected, self._epoch = epoch != self._epoch, epoch
        if reconnected:
            self._drop_held()
            self._lags.clear()
            self._anchoring = not self._survives() or not self._fits(counted, host_ns, reconnected=True)
        if self._anchoring:
            return self._hold(counted, host_ns)
        restarted = counted.restarted and self._missing(counted) > 0
        if restarted or not self._fits(counted, host_ns, reconnected=False):
            if not self._held and not restarted and counted.seq is not None and counted.seq == self._seq:
                self.jumps += 1
                return [self._place(counted, host_ns, 0)]
            return self._hold(counted, host_ns)
        self._drop_held()
        missing = self._missing(counted)
        turns = self._turns(missing, len(counted.samples), host_ns)
        return [self._place(counted, host_ns, missing + turns, inferred=turns > 0 or (missing > 0 and not self._exact))]

    def _survives(self) -> bool:
        """Whether the counter is large enough to say after a reconnect how much is missing."""
        return self._modulus > 60 * self._rate_hz

    def _missing(self, counted: Counted) -> int:
        """Samples missing before a packet by the counter, modulo its size."""
        if counted.value is None or not self._modulus:
            return 0
        return (counted.value - self._end_value) % self._modulus

    def _fits(self, counted: Counted, host_ns: int, *, reconnected: bool) -> bool:
        """Whether the count can be true: no sample before its time, and after a reconnect none long past."""
        missing = self._missing(counted)
        if not missing and not reconnected:
            return True
        end = self._next + missing + len(counted.samples)
        now = self._delay.index(host_ns)
        slack_s = _SLACK_S + _DRIFT * (host_ns - self._last_ns) * 1e-9
        if end > now + slack_s * self._rate_hz + len(counted.samples):
            return False
        return not reconnected or end >= now - _STALE_S * self._rate_hz

    def _turns(self, missing: int, n: int, host_ns: int) -> int:
        """Samples in whole turns of the counter that went by unseen."""
        turn = self._modulus or n
        turn_s = turn / self._rate_hz
        lag_s = host_ns * 1e-9 - self._delay.offset_s - (self._next + missing + n) / self._rate_hz
        if turn_s > _LONG_TURN_S:
            # A turn as long as this goes by in silence, never in a lag.
            silent = (host_ns - self._last_ns) * 1e-9 >= 0.95 * turn_s
            return round(lag_s / turn_s) * turn if silent and lag_s > 0 else 0
        if (host_ns - self._last_ns) * 1e-9 >= _SILENCE_S:
            self._lags.clear()
            return max(0, round(lag_s / turn_s)) * turn
        horizon_ns = host_ns - round(_LAG_S * 1e9)
        self._lags.append((host_ns, lag_s))
        full = self._lags[0][0] <= horizon_ns
        while self._lags[0][0] < horizon_ns:
            self._lags.popleft()
        least_s = min(lag for _, lag in self._lags)
        if not full or least_s < max(0.75 * turn_s, _MIN_TURN_S):
            return 0
        self._lags.clear()
        return round(least_s / turn_s) * turn

    def _place(self, counted: Counted, host_ns: int, gap: int, *, inferred: bool = False) -> Packet:
        first, n = self._next + gap, len(counted.samples)
        self.lost += gap
        self.inferred += gap if inferred else 0
        self._next = first + n
        if counted.value is not None and self._modulus:
            self._end_value = (counted.value + n) % self._modulus
        self._seq = None if counted.seq is None else (counted.seq + 1) & 0xFFFF
        self._last_ns = host_ns
        self._delay.observe(self._next, host_ns)
        return Packet(first, counted.samples, host_ns, inferred)

    def _hold(self, counted: Counted, host_ns: int) -> list[Packet]:
        """Keep a packet whose count is in doubt until others agree with it; then place them by time."""
        gap = 0
        if self._held and self._modulus and counted.value is not None:
            last = self._held[-1].counted
            gap = (counted.value - (last.value or 0) - len(last.samples)) % self._modulus
            if gap > (self._rate_hz if self._anchoring else 0):
                self._drop_held()
                gap = 0
        self._held.append(_Held(counted, host_ns, gap))
        if len(self._held) < _CONFIRM:
            return []
        self.jumps += not self._anchoring
        return self._accept()

    def _accept(self) -> list[Packet]:
        """Place the packets held, by the earliest of them."""
        held, self._held, self._anchoring = self._held, [], False
        end, first = 0, math.inf
        for h in held:
            end += h.gap + len(h.counted.samples)
            first = min(first, self._delay.index(h.host_ns) - end)
        gap = max(0, round(first) - self._next)
        packets: list[Packet] = []
        for h in held:
            gap += h.gap
            packets.append(
                self._place(h.counted, h.host_ns, gap, inferred=not packets or (h.gap > 0 and not self._exact))
            )
            gap = 0
        return packets

    def _drop_held(self) -> None:
        self.strays += len(self._held)
        self._held = []
