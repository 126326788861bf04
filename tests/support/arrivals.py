"""When packets of a band with a known clock reach a host: a radio model without a stack, for hours at once."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_EXCHANGE_S = 1.392e-3  # a full packet, its acknowledgement and two pauses at 2 Mbit/s


@dataclass(frozen=True, slots=True, kw_only=True)
class Radio:
    """What the radio is like.

    Attributes:
        interval_s: Connection interval.
        errors: Probability that a packet is damaged at host time t: sent again in the next event.
        jitter_s: Mean of the exponential delay from controller to host.
        queue: Packets the band's firmware holds before it drops.
        removed: Share of packets that never arrive for other reasons.
        away: Host times (from, until) of an outage; the band drops what it cannot hold.
    """

    interval_s: float = 0.015
    errors: Callable[[float], float] = lambda _: 0.02
    jitter_s: float = 1e-3
    queue: int = 64
    removed: float = 0.01
    away: tuple[float, float] = (math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class Trace:
    """What arrived.

    Attributes:
        rate_hz: Nominal rate of the band.
        packet: Samples a packet.
        index: Last sample of each packet, int64 (P,).
        host_ns: Its arrival, int64 (P,).
        true_ns: When it was really taken, float64 (P,).
    """

    rate_hz: float
    packet: int
    index: NDArray[np.int64]
    host_ns: NDArray[np.int64]
    true_ns: NDArray[np.float64]

    def error_ms(self, stamps_ns: NDArray[np.generic], after_s: float = 30.0) -> NDArray[np.float64]:
        """Error of stamps, ms, once the first seconds are over."""
        settled = self.index > self.index[0] + after_s * self.rate_hz
        return (np.asarray(stamps_ns, np.float64) - self.true_ns)[settled] * 1e-6


def steady(ppm: float) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """A crystal that is slow by so much: device seconds to host seconds."""
    return lambda device_s: device_s * (1 + ppm * 1e-6)


def warming(cold_ppm: float, warm_ppm: float, after_s: float = 1200.0) -> Callable[..., NDArray[np.float64]]:
    """A crystal that warms up."""

    def host_s(device_s: NDArray[np.float64]) -> NDArray[np.float64]:
        return device_s * (1 + warm_ppm * 1e-6) - (warm_ppm - cold_ppm) * 1e-6 * after_s * (
            1 - np.exp(-device_s / after_s)
        )

    return host_s


def simulate(
    duration_s: float,
    host_s: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    radio: Radio,
    *,
    rng: np.random.Generator,
    rate_hz: float = 2000.0,
    packet: int = 7,
) -> Trace:
    """Let a band stream for so long."""
    index = np.arange(packet - 1, round(duration_s * rate_hz), packet, dtype=np.int64)
    taken_s = host_s(index / rate_hz)
    delivered_s = np.array(_deliver(taken_s.tolist(), radio, rng))
    kept = np.isfinite(delivered_s) & (rng.random(len(index)) >= radio.removed)
    arrived = delivered_s + rng.exponential(radio.jitter_s, len(index))
    host_ns = np.maximum.accumulate(np.rint(arrived[kept] * 1e9).astype(np.int64))
    return Trace(rate_hz, packet, index[kept], host_ns, taken_s[kept] * 1e9)


def _deliver(taken_s: list[float], radio: Radio, rng: np.random.Generator) -> list[float]:
    """When the host's controller has each packet; infinite for packets the firmware dropped."""
    interval, phase = radio.interval_s, rng.random() * radio.interval_s
    chances = iter(rng.random(4 * len(taken_s) + 1000).tolist())
    pending: deque[float] = deque()
    free_s, out = -math.inf, []
    for t in taken_s:
        while pending and pending[0] <= t:
            pending.popleft()
        if len(pending) >= radio.queue:
            out.append(math.inf)
            continue
        event = math.ceil((t - phase) / interval)
        start = phase + event * interval
        if t <= free_s:
            start, event = free_s, math.floor((free_s - phase) / interval)
        errors = radio.errors(t)
        while True:
            if radio.away[0] <= start < radio.away[1]:
                event = math.ceil((radio.away[1] - phase) / interval)
                start = phase + event * interval
            if start + _EXCHANGE_S > phase + (event + 1) * interval or next(chances, 1.0) < errors:
                event += 1
                start = phase + event * interval
                continue
            break
        free_s = start + _EXCHANGE_S
        pending.append(free_s)
        out.append(free_s)
    return out
