"""Virtual bands, their radio, and the doors to it: adapters of this process, and HCI over TCP for others."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from bumble.transport.common import PacketParser

from embridge_edge.ble.stack import BumbleAdapter
from embridge_edge.virtual.air import Air
from embridge_edge.virtual.band import VirtualBand
from embridge_edge.virtual.controller import VirtualController
from embridge_edge.virtual.feed import SampleFeed
from embridge_edge.virtual.gforce import GForceBand
from embridge_edge.virtual.mudra import MudraBand
from embridge_edge.virtual.myo import MyoBand
from embridge_edge.virtual.open import OpenBand
from embridge_edge.virtual.radio import Radio
from embridge_edge.virtual.traits import Traits
from embridge_shared.errors import NetworkError, OperatorError, Reason

logger = logging.getLogger(__name__)

_UNREAD_BYTES = 8 << 20

KINDS: dict[str, type[VirtualBand]] = {band.kind: band for band in (MyoBand, GForceBand, MudraBand, OpenBand)}


def kind_of(name: str) -> type[VirtualBand]:
    """The class of bands of that kind.

    Raises:
        OperatorError: There is none.
    """
    if name not in KINDS:
        raise OperatorError(f"there is no virtual band {name!r}", hint=f"Known: {', '.join(sorted(KINDS))}.")
    return KINDS[name]


class _HciPeer(asyncio.Protocol):
    """A host that attached over TCP, and the controller it drives."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._transport: asyncio.Transport | None = None
        self._controller: VirtualController | None = None
        self._parser = PacketParser()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._controller = self._rig.controller("host")
        self._controller.set_packet_sink(self)
        self._parser.set_packet_sink(self._controller)
        self._rig.hosts.add(transport)
        logger.info("a host attached from %s", transport.get_extra_info("peername"))

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except ValueError as error:
            logger.warning("a host does not speak HCI: %s", error)
            if self._transport is not None:
                self._transport.close()

    def on_packet(self, packet: bytes) -> None:
        """A packet from the controller."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() > _UNREAD_BYTES:
            logger.warning("a host that does not read is cut off")
            self._transport.abort()
            return
        self._transport.write(packet)

    def connection_lost(self, error: Exception | None) -> None:
        if self._transport is not None:
            self._rig.hosts.discard(self._transport)
        if self._controller is not None:
            self._rig.remove(self._controller)
        self._transport, self._controller = None, None
        logger.info("a host left")


class Rig:
    """A radio with bands on it. Use it as an async context manager.

    Args:
        air: What the radio is like.
    """

    def __init__(self, air: Air | None = None) -> None:
        self.radio = Radio(air)
        self.bands: list[VirtualBand] = []
        self.hosts: set[asyncio.Transport] = set()
        self._numbers = itertools.count(1)
        self._server: asyncio.Server | None = None

    def controller(self, name: str) -> VirtualController:
        """A new controller on the radio."""
        number = next(self._numbers)
        return VirtualController(f"{name}-{number}", self.radio, f"00:E1:7A:00:00:{number % 256:02X}")

    def remove(self, controller: VirtualController) -> None:
        """Take a controller off the radio."""
        controller.quiet()
        controller.set_packet_sink(None)
        self.radio.remove_controller(controller)

    async def add(self, kind: str, feed: SampleFeed, traits: Traits | None = None) -> VirtualBand:
        """Switch a band on.

        Args:
            kind: Of `KINDS`.
            feed: What it measures.
            traits: How it differs from others of its kind.

        Raises:
            OperatorError: No such kind, or its address is taken.
        """
        band = kind_of(kind)(self.controller(kind), feed, traits)
        if any(other.address == band.address for other in self.bands):
            raise OperatorError(f"two virtual bands at {band.address}", hint="Give them different names.")
        await band.start()
        self.bands.append(band)
        return band

    def adapter(self, **options: Any) -> BumbleAdapter:
        """An adapter of this process on the radio.

        Args:
            options: As of `BumbleAdapter`.
        """
        return BumbleAdapter(self.controller("host"), **options)

    def cut(self, bands: Sequence[VirtualBand] = ()) -> int:
        """Cut the links of some bands, or of all; the number of links cut."""
        names = [band.controller_name for band in bands or self.bands]
        return sum(self.radio.drop(name) for name in names)

    async def serve(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Take hosts that speak HCI over TCP; each gets a controller of its own.

        Args:
            host: Address to listen on.
            port: 0 takes any free port.

        Returns:
            The port.

        Raises:
            NetworkError: It cannot be listened on.
        """
        try:
            self._server = await asyncio.get_running_loop().create_server(lambda: _HciPeer(self), host, port)
        except OSError as error:
            raise NetworkError(
                f"cannot listen on {host}:{port}: {error.strerror}",
                reason=Reason.LOCKED,
                hint="Another simulation may run there; --port 0 takes any free port.",
            ) from error
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Switch everything off; safe to call twice."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for transport in list(self.hosts):
            transport.abort()
        if server is not None:
            await server.wait_closed()
        for band in self.bands:
            await band.stop()
        self.bands.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
