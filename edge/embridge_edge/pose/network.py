"""Hand pose from UDP datagrams, JSON or OSC; docs/pose-sources.md has the payload."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from embridge_edge.pose.live import LivePose
from embridge_edge.pose.payload import Fault, Frame, from_json, from_osc
from embridge_edge.pose.plan import Measured, OscPoseSource, UdpPoseSource
from embridge_shared.clock import Clock
from embridge_shared.errors import DeviceError, Reason


class NetworkPose(LivePose):
    """Listens on a port; the first sender that makes sense is the one that is heard.

    Args:
        source: Where and what.
        base: Folder that the calibration's path starts from.
        clock: Stamps arrivals.

    Raises:
        DataError: The calibration cannot be read.
    """

    def __init__(self, source: UdpPoseSource | OscPoseSource, *, base: Path, clock: Clock) -> None:
        kind = "osc" if isinstance(source, OscPoseSource) else "udp"
        super().__init__(source, kind, kind, base=base, clock=clock)
        self._at = source
        self._transport: asyncio.DatagramTransport | None = None
        self._sender: tuple[str, int] | None = None
        self.port = source.port
        """The port it listens on, once open."""

    @property
    def where(self) -> str:
        """Protocol, address and port."""
        return f"{self._kind}://{self._at.host}:{self.port}"

    @property
    def advice(self) -> str:
        """Where to send."""
        open_to = " Only this computer is heard: set host for others." if self._at.host == "127.0.0.1" else ""
        return f"Let the sender send to port {self.port}.{open_to}"

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._transport, _ = await loop.create_datagram_endpoint(
                lambda: _Listener(self), local_addr=(self._at.host, self._at.port)
            )
        except OSError as error:
            raise DeviceError(
                f"{self.where} cannot be listened on: {error.strerror or error}",
                reason=Reason.UNREACHABLE,
                hint="Another program may have the port: choose another.",
            ) from error
        self.port = self._transport.get_extra_info("sockname")[1]

    async def _end(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def heard(self, data: bytes, sender: tuple[str, int]) -> None:
        """Take in a datagram."""
        host_ns = self._clock.monotonic_ns()
        if self._sender is not None and sender[0] != self._sender[0]:
            self.complain(Fault.OTHER_SENDER)
            return
        for item in self._decode(data):
            if isinstance(item, Frame):
                self._sender = sender
                self.take(item, host_ns)
            elif item is not Fault.WRONG_ADDRESS or not self.received:
                # Programs send more than poses; once they come the rest is no fault.
                self.complain(item)

    def _decode(self, data: bytes) -> list[Frame | Fault]:
        if isinstance(self._at, OscPoseSource):
            return from_osc(data, self._at.address, self.values)
        return [from_json(data, "glove" if self._at.measured is Measured.GLOVE else "pose", self.values)]


class _Listener(asyncio.DatagramProtocol):
    def __init__(self, pose: NetworkPose) -> None:
        self._pose = pose

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._pose.heard(data, addr)
