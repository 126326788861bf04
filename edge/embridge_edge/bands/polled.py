"""Bands behind a library that is asked for what has come: LSL, BrainFlow."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable

from embridge_edge.bands.indexing import Counted, Indexer
from embridge_edge.source import Band, Changes, Packet
from embridge_shared.clock import Clock
from embridge_shared.errors import DeviceError
from embridge_shared.session import BandState
from embridge_shared.signal import StreamSpec

_STALLED_S = 2.0


class PolledBand(Band):
    """A band that is read block by block; each block is stamped by its library.

    Args:
        kind: As in plans.
        spec: What it delivers.
        clock: The host's clock.
        address: Where it was asked for.
        duration_s: Deliver so much; endless when infinite.
        modulus: Where its counter wraps, in samples; 0 without one.
        gone_s: After so long a silence it is lost.
        advice: What to do when it is silent.
    """

    def __init__(
        self,
        kind: str,
        spec: StreamSpec,
        *,
        clock: Clock,
        address: str,
        duration_s: float,
        modulus: int,
        gone_s: float,
        advice: str,
    ) -> None:
        self._kind = kind
        self._spec = spec
        self._clock = clock
        self._address = address
        self._duration_s = duration_s
        self._modulus = modulus
        self._gone_s = gone_s
        self._advice = advice
        self._indexer: Indexer | None = None
        self._host_ns = self._first = self._heard_ns = 0
        self._phase, self._reason, self._action = "idle", "", ""
        self._changes = Changes()
        self._changed: Callable[[], object] = lambda: None
        self._received = 0
        self._stopped = False

    @property
    def spec(self) -> StreamSpec:
        """What it delivers."""
        return self._spec

    def state(self) -> BandState:
        """What is known of it."""
        return BandState(
            stream=self._spec.name,
            kind=self._kind,
            address=self._address,
            phase=self._phase,
            reason=self._reason,
            action=self._action,
            received=self._received,
            lost=self._indexer.lost if self._indexer is not None else 0,
        )

    def changes(self) -> list[tuple[int, BandState]]:
        """States it entered since the last call, each with the host's monotonic time, ns."""
        return self._changes.take()

    def watch(self, changed: Callable[[], object]) -> None:
        """Call `changed` when its phase changes."""
        self._changed = changed

    def _go(self, phase: str, reason: str = "", action: str = "") -> None:
        entered = phase != self._phase
        self._phase, self._reason, self._action = phase, reason, action
        if entered:
            self._changes.add(self._clock.monotonic_ns(), self.state())
            self._changed()

    async def open(self, host_ns: int, first: int = 0) -> None:
        """Find it and start it.

        Raises:
            DeviceError: It is not there, does not answer, or is another than was asked for.
        """
        self._host_ns, self._first = host_ns, first
        try:
            await self._start()
        except DeviceError as error:
            self._go("failed", str(error.message), error.hint)
            raise
        self._heard_ns = self._clock.monotonic_ns()
        self._go("streaming")

    async def packets(self) -> AsyncIterator[Packet]:
        """What comes, until the duration is over.

        Raises:
            DeviceError: Nothing has come for too long.
        """
        end = self._duration_s * self._spec.rate_hz
        while not self._stopped:
            blocks = await self._read()
            if blocks is None:
                return
            if not blocks:
                self._check_silence()
                continue
            self._heard_ns = self._clock.monotonic_ns()
            self._go("streaming")
            for counted, host_ns in blocks:
                for packet in self._place(counted, host_ns):
                    kept = packet.samples[: max(0, math.ceil(min(end - packet.first, len(packet.samples))))]
                    if len(kept):
                        self._received += len(kept)
                        yield Packet(packet.first, kept, packet.host_ns, packet.inferred)
                    if packet.first + len(packet.samples) >= end:
                        return

    def _place(self, counted: Counted, host_ns: int) -> list[Packet]:
        if self._indexer is None:
            start, n = 0, len(counted.samples)
            if self._first:
                start = max(self._first, round((host_ns - self._host_ns) * 1e-9 * self._spec.rate_hz) - n)
            self._indexer = Indexer(self._spec.rate_hz, self._modulus, exact=self._modulus > 0, start=start)
        return self._indexer.push(counted, host_ns)

    def _check_silence(self) -> None:
        silence_s = (self._clock.monotonic_ns() - self._heard_ns) * 1e-9
        if silence_s < _STALLED_S:
            return
        lost = silence_s >= self._gone_s
        self._go("lost" if lost else "stalled", f"no samples for {silence_s:.0f} s", self._advice)
        if lost:
            raise self._gone()

    def stop(self) -> None:
        """End after what has come so far."""
        self._stopped = True

    @abstractmethod
    async def _start(self) -> None:
        """Find it and let it send; say `scanning` and `connecting` on the way."""

    @abstractmethod
    async def _read(self) -> list[tuple[Counted, int]] | None:
        """Blocks that have come, each with the host's monotonic time of its last sample, ns; None when it is closed."""

    @abstractmethod
    def _gone(self) -> DeviceError:
        """The error for silence that has lasted too long."""
