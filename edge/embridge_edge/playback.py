"""Plays an array as a device would deliver it: the ground both replay sources stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge_edge.pacing import Pacer
from embridge_edge.source import Band, Packet, PoseSource, Source
from embridge_shared.clock import Clock
from embridge_shared.errors import ConfigError
from embridge_shared.signal import StreamSpec

_ROUNDING = 1e-6  # samples

Spans = tuple[tuple[int, int], ...]


class Playback(Source):
    """Delivers samples in packets at `speed` times their rate.

    Args:
        spec: What the samples are.
        samples: (T, channels), of the spec's dtype.
        clock: Paces the delivery; not read when `speed` is infinite.
        speed: 1 is real time, `inf` as fast as the agent takes them.
        packet_s: Length of a packet.
        spans: Sample ranges [a, b) to deliver; what lies between is a gap. Everything by default.

    Packets are stamped with the time at which a device would have delivered them at speed 1.
    """

    def __init__(
        self,
        spec: StreamSpec,
        samples: NDArray[Any],
        *,
        clock: Clock,
        speed: float = 1.0,
        packet_s: float = 0.05,
        spans: Spans | None = None,
    ) -> None:
        if not speed > 0 or not packet_s > 0:
            raise ConfigError("speed and packet_s must be positive")
        self._spec = spec
        self._samples = samples
        self._clock = clock
        self._speed = speed
        self._packet = max(1, round(packet_s * spec.rate_hz))
        self._spans = spans if spans is not None else ((0, len(samples)),)
        self._host_ns = 0
        self._first = 0

    @property
    def spec(self) -> StreamSpec:
        """What it delivers."""
        return self._spec

    async def open(self, host_ns: int, first: int = 0) -> None:
        """Start the playback's time at `host_ns`; samples before `first` are delivered at once."""
        self._host_ns = host_ns
        self._first = first

    async def packets(self) -> AsyncIterator[Packet]:
        """Deliver the spans, packet by packet."""
        pacer = Pacer(self._clock, self._speed, self._host_ns, resumed=self._first > 0)
        for a, b in self._spans:
            for start in range(a, b, self._packet):
                end = min(start + self._packet, b)
                if end > self._first:
                    await pacer.until(end / self._spec.rate_hz)
                yield Packet(start, self._samples[start:end], self._host_ns + round(end / self._spec.rate_hz * 1e9))

    async def close(self) -> None:
        """Nothing to let go."""


class ReplayBand(Playback, Band):
    """A band that plays recorded EMG."""


class ReplayPose(Playback, PoseSource):
    """A pose source that plays recorded hand pose or glove sensors."""


def spans_between(times_s: list[tuple[float, float]], rate_hz: float, length: int) -> Spans:
    """Merge time ranges into sample ranges within [0, length)."""
    merged: list[list[int]] = []
    for start_s, end_s in sorted(times_s):
        # Times that stand for a whole sample are off by rounding.
        a = max(0, int(np.floor(start_s * rate_hz + _ROUNDING)))
        b = min(length, int(np.ceil(end_s * rate_hz - _ROUNDING)))
        if merged and a <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], b)
        elif a < b:
            merged.append([a, b])
    return tuple((a, b) for a, b in merged)
