"""What every source on a simulated wearer shares: opening, pacing and delivering over its link."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from embridge_edge.forearm.link import Blocks, Link, deliver
from embridge_edge.forearm.performance import Performer
from embridge_edge.pacing import Pacer
from embridge_edge.source import Packet, Source
from embridge_shared.clock import Clock
from embridge_shared.errors import OperatorError
from embridge_shared.signal import StreamSpec


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a simulated source delivers.

    Attributes:
        link: The device's clock and its radio.
        packet: Samples a packet.
        speed: Seconds of the session a second; `math.inf` is as fast as they are taken.
        clock: The host's clock.
    """

    link: Link
    packet: int
    speed: float
    clock: Clock


class SimulatedSource(Source):
    """A device on a simulated wearer.

    Args:
        performance: What the wearer does.
        spec: What the device delivers.
        delivery: How.
    """

    def __init__(self, performance: Performer, spec: StreamSpec, delivery: Delivery) -> None:
        self._performance = performance
        self._spec = spec
        self._delivery = delivery
        self._packets: AsyncIterator[Packet] | None = None

    @property
    def spec(self) -> StreamSpec:
        """What it delivers."""
        return self._spec

    @abstractmethod
    def _recording(self) -> Callable[[], NDArray[Any]]:
        """Start a new recording; what makes its next block, (n, channels)."""

    async def open(self, host_ns: int, first: int = 0) -> None:
        """Start the device.

        Args:
            host_ns: The monotonic clock at the session's start, ns.
            first: Packets before this sample are made, not delivered.
        """
        by, rate_hz = self._delivery, self._spec.rate_hz
        self._packets = deliver(
            Blocks(self._recording()),
            link=by.link,
            pacer=Pacer(by.clock, by.speed, host_ns, resumed=first > 0),
            host_ns=host_ns,
            rate_hz=rate_hz,
            total=by.link.count(self._performance.duration_s, rate_hz),
            packet=by.packet,
            first=first,
        )

    async def packets(self) -> AsyncIterator[Packet]:
        """Deliver packets until the performance is over.

        Raises:
            OperatorError: The source is not open.
        """
        if self._packets is None:
            raise OperatorError(f"the source of {self._spec.name} is not open", hint="Open it before taking packets.")
        async for packet in self._packets:
            if self._packets is None:
                return
            yield packet

    async def close(self) -> None:
        """Stop the device; safe to call twice."""
        self._packets = None
