"""bumble's host with a short way for notifications, and the transports it speaks over."""

from __future__ import annotations

from collections.abc import Callable

from bumble.host import Host
from bumble.transport import open_transport
from bumble.transport.common import Transport, TransportSink, TransportSource

from embridge_shared.errors import DeviceError, Reason

Notified = Callable[[bytearray], None]

_ACL, _ATT_CID, _NOTIFICATION = 0x02, 0x04, 0x1B
_VALUE_AT = 12  # type 1, handle 2, length 2, L2CAP length 2 and channel 2, opcode 1, attribute 2


async def open_hci(spec: str) -> Transport:
    """Open a transport to a controller.

    Args:
        spec: As bumble names transports, such as "usb:0" or "tcp-client:127.0.0.1:9000".

    Raises:
        DeviceError: It cannot be opened.
    """
    try:
        return await open_transport(spec)
    except Exception as error:  # each transport has a library with errors of its own
        raise unreachable(spec, error) from error


def unreachable(name: str, error: Exception) -> DeviceError:
    """The error for a controller that cannot be reached or does not answer."""
    return DeviceError(
        f"no Bluetooth controller answers at {name}: {error or type(error).__name__}",
        reason=Reason.UNREACHABLE,
        hint="Is the dongle plugged in and free, or `embridge band simulate` running?",
    )


class NotifyingHost(Host):
    """A host that hands a notification that came in one piece to its callback at once.

    Everything else, and notifications nobody registered for, take bumble's way through ACL, L2CAP and ATT.

    Args:
        source: Where packets come from.
        sink: Where packets go.
        lost: Called when the transport is gone.
    """

    def __init__(self, source: TransportSource, sink: TransportSink, lost: Callable[[Host], None]) -> None:
        self.notified: dict[int, Notified] = {}
        self._lost = lost
        super().__init__(source, sink)

    def on_transport_lost(self) -> None:
        """The transport is gone: every connection ends."""
        super().on_transport_lost()  # type: ignore[no-untyped-call]
        self._lost(self)

    @staticmethod
    def key(connection: int, attribute: int) -> int:
        """Where in `notified` the callback of an attribute of a connection is."""
        return connection << 16 | attribute

    def on_packet(self, packet: bytes) -> None:
        """Take a packet from the controller."""
        if len(packet) >= _VALUE_AT and packet[0] == _ACL and packet[9] == _NOTIFICATION:
            whole = packet[2] & 0x10 == 0 and packet[5] + (packet[6] << 8) + 9 == len(packet)
            if whole and packet[7] == _ATT_CID and packet[8] == 0:
                connection = packet[1] | (packet[2] & 0x0F) << 8
                take = self.notified.get(connection << 16 | packet[10] | packet[11] << 8)
                if take is not None:
                    take(bytearray(memoryview(packet)[_VALUE_AT:]))
                    return
        super().on_packet(packet)

    def forget(self, connection: int) -> None:
        """Drop the callbacks of a connection that is over."""
        for key in [k for k in self.notified if k >> 16 == connection]:
            del self.notified[key]
