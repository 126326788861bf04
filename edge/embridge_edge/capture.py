"""From packets to chunks: cuts at gaps and at whole multiples of the chunk length, and stamps them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge_edge.source import Packet
from embridge_edge.timing import CRYSTAL_SKEW, NOMINAL_SKEW, DeviceClock
from embridge_shared.errors import DeviceError, Reason
from embridge_shared.session import Session
from embridge_shared.signal import Arrivals, Chunk, Modality, StreamSpec


def device_clock(spec: StreamSpec, host_ns: int) -> DeviceClock:
    """The clock of a stream's device, counted from `host_ns`; bands have crystals, trackers state round rates."""
    tracked = spec.modality in (Modality.POSE, Modality.GLOVE)
    return DeviceClock(spec.rate_hz, host_ns, max_skew=NOMINAL_SKEW if tracked else CRYSTAL_SKEW)


class Chunker:
    """Gathers one stream of a session into chunks.

    Args:
        session: The session; its anchor turns host time into Unix time.
        ordinal: The stream's place in it.
        chunk_s: Length of a chunk.
        until: Samples before this index are stored already: they feed the clock, nothing else.

    Attributes:
        clock: The device's.
    """

    def __init__(self, session: Session, ordinal: int, chunk_s: float, until: int = 0) -> None:
        spec = session.streams[ordinal]
        self._session = session
        self._ordinal = ordinal
        self._channels = spec.n_channels
        self._dtype = spec.dtype.numpy
        self._size = max(1, round(chunk_s * spec.rate_hz))
        self.clock = device_clock(spec, session.host_ns)
        self._next = until
        self._chunk_first = until
        self._gap = 0
        self._inferred = False
        self._parts: list[NDArray[Any]] = []
        self._arrivals: list[tuple[int, int]] = []
        self.lost = 0
        """Samples that never arrived."""

    @property
    def until(self) -> int:
        """Index after the last sample taken in."""
        return self._next

    def push(self, packet: Packet) -> list[Chunk]:
        """Take in a packet; return the chunks it completes.

        Raises:
            DeviceError: The device counts backwards or changed its layout.
        """
        samples = packet.samples
        if samples.ndim != 2 or samples.shape[1] != self._channels:
            raise DeviceError(
                f"the device sent {samples.shape} samples instead of (n, {self._channels})", reason=Reason.WRONG_SHAPE
            )
        end = packet.first + len(samples)
        self.clock.observe(end - 1, packet.host_ns, broken=packet.inferred and packet.first > self._next)
        if end <= self._next:
            return []
        done: list[Chunk] = []
        if packet.first > self._next:
            done += self.flush()
            self._gap += packet.first - self._next
            self._inferred |= packet.inferred
            self.lost += packet.first - self._next
            self._next = self._chunk_first = packet.first
        samples = samples[self._next - packet.first :].astype(self._dtype, copy=False)
        self._arrivals.append((end - 1, packet.host_ns))
        while len(samples):
            room = self._size - self._next % self._size
            part, samples = samples[:room], samples[room:]
            self._parts.append(part)
            self._next += len(part)
            if self._next % self._size == 0:
                done += self.flush()
        return done

    def flush(self) -> list[Chunk]:
        """Close the chunk under way, if there is one."""
        if not self._parts:
            return []
        first, samples = self._chunk_first, np.concatenate(self._parts)
        pairs = [p for p in self._arrivals if p[0] < self._next]
        self._arrivals = [p for p in self._arrivals if p[0] >= self._next]
        chunk = Chunk(
            session=self._session.id,
            stream=self._ordinal,
            first=first,
            samples=samples,
            t0_ns=self._unix_ns(self.clock.stamp_ns(first)),
            gap_before=self._gap,
            arrivals=Arrivals(np.array([p[0] for p in pairs], np.int64), np.array([p[1] for p in pairs], np.int64)),
            gap_inferred=self._inferred,
        )
        self._parts, self._gap, self._inferred, self._chunk_first = [], 0, False, self._next
        return [chunk]

    def time_ns(self, index: int) -> int:
        """Best present estimate of the Unix time of sample `index`, ns."""
        return self._unix_ns(self.clock.estimate_ns(index))

    def _unix_ns(self, host_ns: int) -> int:
        return self._session.started_ns + host_ns - self._session.host_ns
