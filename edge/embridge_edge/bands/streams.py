"""The streams of a Bluetooth band: what a recorder opens, iterates and closes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from embridge_edge.bands.indexing import Indexer
from embridge_edge.ble.status import Phase, Status
from embridge_edge.source import Band, Packet, Source
from embridge_shared.errors import DeviceError, Reason
from embridge_shared.session import BandState
from embridge_shared.signal import StreamSpec

_STREAM_BACKLOG = 4096


class Holder(Protocol):
    """The band that streams belong to."""

    duration_s: float
    changed: Callable[[], object] | None

    @property
    def status(self) -> Status:
        """Of the link."""

    @property
    def exhausted(self) -> bool:
        """Nothing more will come."""

    def now_ns(self) -> int:
        """The host's monotonic clock, ns."""

    def over(self) -> bool:
        """Whether every stream has to end."""

    def error(self) -> DeviceError:
        """Why it is over."""

    def state(self) -> BandState:
        """For the agent's state."""

    def changes(self) -> list[tuple[int, BandState]]:
        """States it entered since the last call."""

    def retry(self) -> None:
        """Look for it now, if it is away."""

    def stop(self) -> None:
        """Let every stream end."""

    async def acquire(self) -> None:
        """Begin, for one stream."""

    async def release(self) -> None:
        """End, for one stream."""

    async def advance(self, stream: BandStream) -> None:
        """Wait for more."""


class BandStream(Source):
    """One stream of a band.

    Attributes:
        indexer: Places its samples; None before the first.
        received: Samples delivered so far.
        dropped: Packets dropped because nobody took them.
    """

    def __init__(self, device: Holder, number: int, spec: StreamSpec) -> None:
        self.device = device
        self._spec = spec
        self._number = number
        self._packets: deque[Packet] = deque()
        self._host_ns = 0
        self._first = 0
        self._held = False
        self._open_ns: int | None = None
        self.indexer: Indexer | None = None
        self.received = 0
        self.dropped = 0

    @property
    def spec(self) -> StreamSpec:
        """What it delivers."""
        return self._spec

    @property
    def waiting(self) -> int:
        """Packets not yet taken."""
        return len(self._packets)

    @property
    def lost(self) -> int:
        """Samples that never came."""
        return self.indexer.lost if self.indexer is not None else 0

    async def reach(self) -> None:
        """Connect; the first stream of a band does, the others wait with it.

        Raises:
            DeviceError: The band cannot be reached.
        """
        if not self._held:
            self._held = True
            await self.device.acquire()

    async def open(self, host_ns: int, first: int = 0) -> None:
        """Connect, and take samples from now on.

        Raises:
            DeviceError: The band cannot be reached, or the session began before the computer was restarted.
        """
        self._host_ns, self._first = host_ns, first
        if first and self.device.now_ns() < host_ns:
            raise DeviceError(
                "the session began before this computer was restarted, and its clock is gone",
                reason=Reason.INVALID,
                hint="Record on under a new session name.",
            )
        self._open_ns = self.device.now_ns()
        await self.reach()

    def wants(self, host_ns: int) -> bool:
        """Whether what arrived at that time is for somebody."""
        return self._open_ns is not None and (host_ns >= self._open_ns or self.indexer is not None)

    def start(self, host_ns: int, n: int) -> int:
        """Index of the first sample of a packet of `n`: 0, or by the session's time where it goes on."""
        if not self._first:
            return 0
        return max(self._first, round((host_ns - self._host_ns) * 1e-9 * self._spec.rate_hz) - n)

    def put(self, packet: Packet) -> None:
        """Take in a packet."""
        if self.waiting >= _STREAM_BACKLOG:
            self.dropped += 1
            return
        self._packets.append(packet)

    async def packets(self) -> AsyncIterator[Packet]:
        """What comes, until the duration is over.

        Raises:
            DeviceError: The band is lost or has failed.
        """
        end = self.device.duration_s * self._spec.rate_hz
        while True:
            while self._packets:
                packet = self._packets.popleft()
                if packet.first >= end:
                    return
                if packet.first + len(packet.samples) > end:
                    kept = packet.samples[: math.ceil(end - packet.first)]
                    packet = Packet(packet.first, kept, packet.host_ns, packet.inferred)
                self.received += len(packet.samples)
                yield packet
                if packet.first + len(packet.samples) >= end:
                    return
            if self.device.over():
                return
            if self.device.exhausted:
                if self.device.status.phase is Phase.STOPPED:
                    return
                raise self.device.error()
            await self.device.advance(self)

    def retry(self) -> None:
        """Look for the band now, if it is away."""
        self.device.retry()

    def stop(self) -> None:
        """End, and every other stream of the band, after what has come so far."""
        self.device.stop()

    async def close(self) -> None:
        """Let the band go, with the last of its streams."""
        self._open_ns = None
        if self._held:
            self._held = False
            await self.device.release()


class EmgStream(BandStream, Band):
    """The EMG of a band."""

    def state(self) -> BandState:
        """What is known of the band."""
        return self.device.state()

    def changes(self) -> list[tuple[int, BandState]]:
        """States the band entered since the last call."""
        return self.device.changes()

    def watch(self, changed: Callable[[], object]) -> None:
        """Call `changed` when what is known of the band changes."""
        self.device.changed = changed
