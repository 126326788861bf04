"""The way from a simulated device to the host: its own clock, one-sided delay, loss, pace."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge_edge.pacing import Pacer
from embridge_edge.source import Packet
from embridge_shared.errors import OperatorError


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Clock and radio of a device.

    Attributes:
        drift_ppm: How much faster than the host's the device's clock runs.
        start_s: When the device takes its first sample, after the session's start, s.
        delay_s: Least time from a packet's last sample to its arrival, s.
        jitter_s: Mean of what comes on top, exponentially distributed, s.
        loss: Probability that a packet never arrives.
        seed: Of delay and loss.
    """

    drift_ppm: float = 0.0
    start_s: float = 0.0
    delay_s: float = 0.010
    jitter_s: float = 0.004
    loss: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.start_s, self.delay_s, self.jitter_s) < 0 or not 0 <= self.loss < 1 or abs(self.drift_ppm) > 1e4:
            raise OperatorError(
                f"no link is like this: {self}", hint="Times from 0, loss from 0 to below 1, drift within 10000 ppm."
            )

    def time_s(self, index: Any, rate_hz: float) -> Any:
        """Host time since the session's start at which a sample is taken, s.

        Args:
            index: Sample index, a number or an array.
            rate_hz: Nominal rate.
        """
        return self.start_s + index / (rate_hz * (1.0 + 1e-6 * self.drift_ppm))

    def count(self, duration_s: float, rate_hz: float) -> int:
        """Samples taken until `duration_s` after the session's start."""
        return max(0, math.ceil((duration_s - self.start_s) * rate_hz * (1.0 + 1e-6 * self.drift_ppm)))


class Blocks:
    """Samples made in blocks and handed out in any number.

    Args:
        make: Makes the next block, (size, channels).
    """

    def __init__(self, make: Callable[[], NDArray[Any]]) -> None:
        self._make = make
        self._ready: NDArray[Any] | None = None

    def take(self, n: int) -> NDArray[Any]:
        """The next n samples, (n, channels)."""
        parts = [] if self._ready is None else [self._ready]
        while sum(map(len, parts)) < n:
            parts.append(self._make())
        ready = parts[0] if len(parts) == 1 else np.concatenate(parts)
        self._ready = ready[n:]
        return ready[:n]


async def deliver(
    blocks: Blocks,
    *,
    link: Link,
    pacer: Pacer,
    host_ns: int,
    rate_hz: float,
    total: int,
    packet: int,
    first: int = 0,
) -> AsyncIterator[Packet]:
    """Send samples in packets over a link.

    Args:
        blocks: What the device measures.
        link: Clock, delay and loss.
        pacer: Pace.
        host_ns: The host's monotonic clock at the session's start, ns.
        rate_hz: Nominal rate of the device.
        total: Samples the device takes in all.
        packet: Samples a packet.
        first: Packets that end at or before this index are made but neither awaited nor sent.
    """
    rng = np.random.default_rng([link.seed, 0x11])
    arrived_s = 0.0
    for start in range(0, total, packet):
        samples = blocks.take(min(packet, total - start))
        end = start + len(samples)
        late_s, lost = rng.exponential(link.jitter_s), rng.random() < link.loss
        arrived_s = max(arrived_s, link.time_s(end - 1, rate_hz) + link.delay_s + late_s)
        if end <= first:
            continue
        await pacer.until(arrived_s)
        if not lost:
            yield Packet(first=start, samples=samples, host_ns=host_ns + round(arrived_s * 1e9))
