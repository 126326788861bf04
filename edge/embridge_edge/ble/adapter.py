"""Which Bluetooth radio the edge uses.

An adapter hands out `BleakClient` and `BleakScanner`; the code above it does not know what lies below:

    ""  or "platform"           the operating system's Bluetooth, as bleak finds it
    "hci1"                      the same, on the BlueZ adapter of that name
    "tcp-client:127.0.0.1:9000" HCI over TCP, as `embridge band simulate` serves it
    "usb:0", "serial:...", ...  a dongle driven from this process; every transport of bumble works

The last two run the whole stack above HCI in this process (`embridge_edge.ble.stack`), so that connection interval, PHY
and data length can be chosen and read back; no operating system lets bleak do that.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from bleak import BleakClient, BleakScanner
from bleak.backends.client import BaseBleakClient
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData, BaseBleakScanner

from embridge_shared.errors import ConfigError, Reason

if TYPE_CHECKING:
    from embridge_edge.ble.stack import BumbleAdapter

Detected = Callable[[BLEDevice, AdvertisementData], None]
Disconnected = Callable[[BleakClient], None]

_BLUEZ_NAME = re.compile(r"hci\d+")
_TRANSPORT = re.compile(r"[\w-]+:.*|vhci|hci-socket|pty", re.DOTALL)


@dataclass(frozen=True, slots=True)
class LinkReport:
    """What both ends of a link agreed on; None where the platform does not tell.

    Attributes:
        mtu: ATT MTU, bytes; a notification holds 3 less.
        rssi_dbm: Strength of the signal received.
        interval_ms: Connection interval.
        phy: "1M", "2M" or "coded", from the band to the host.
        data_length: Largest payload of a link-layer packet from the band, bytes: 27 to 251.
    """

    mtu: int
    rssi_dbm: int | None = None
    interval_ms: float | None = None
    phy: str | None = None
    data_length: int | None = None


class Adapter(ABC):
    """One radio in central role. Use it as an async context manager, in one event loop."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What it was asked for as, for people."""

    @property
    @abstractmethod
    def client_backend(self) -> type[BaseBleakClient] | None:
        """The class bleak makes clients of; None is the platform's own."""

    @property
    @abstractmethod
    def scanner_backend(self) -> type[BaseBleakScanner] | None:
        """The class bleak makes scanners of; None is the platform's own."""

    @property
    def bluez(self) -> dict[str, Any]:
        """Arguments for bleak's BlueZ backend."""
        return {}

    @abstractmethod
    async def open(self) -> None:
        """Get the radio ready.

        Raises:
            DeviceError: It cannot be reached or does not answer.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let the radio go, and every connection with it; safe to call twice."""

    async def report(self, client: BleakClient) -> LinkReport:
        """What the link of a connected client is like."""
        return LinkReport(mtu=client.mtu_size)

    def make_client(
        self, device: BLEDevice, *, disconnected: Disconnected | None = None, timeout_s: float = 10.0
    ) -> BleakClient:
        """A client of a device that a scanner of this adapter has seen.

        Args:
            device: The device.
            disconnected: Called when the link ends, whoever ends it.
            timeout_s: Longest time to connect.
        """
        return BleakClient(
            device,
            disconnected_callback=disconnected,
            timeout=timeout_s,
            bluez=self.bluez,  # type: ignore[arg-type]
            backend=self.client_backend,
        )

    def make_scanner(
        self, detected: Detected | None = None, *, service_uuids: Sequence[str] | None = None
    ) -> BleakScanner:
        """A scanner, not yet started.

        Args:
            detected: Called with every advertisement.
            service_uuids: Only devices that advertise one of these.
        """
        return BleakScanner(
            detected,
            list(service_uuids) if service_uuids is not None else None,
            bluez=self.bluez,  # type: ignore[arg-type]
            backend=self.scanner_backend,
        )

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class PlatformAdapter(Adapter):
    """The operating system's Bluetooth.

    Args:
        bluez: Name of a BlueZ adapter such as "hci1"; the default one when empty.
    """

    def __init__(self, bluez: str = "") -> None:
        self._bluez = bluez

    @property
    def name(self) -> str:
        """What it was asked for as."""
        return self._bluez or "platform"

    @property
    def client_backend(self) -> None:
        """bleak chooses."""
        return None

    @property
    def scanner_backend(self) -> None:
        """bleak chooses."""
        return None

    @property
    def bluez(self) -> dict[str, Any]:
        """The adapter's name, for BlueZ."""
        return {"adapter": self._bluez} if self._bluez else {}

    async def open(self) -> None:
        """Nothing to do: bleak opens it when it is used."""

    async def close(self) -> None:
        """Nothing to do: clients and scanners are closed by those who made them."""

    async def report(self, client: BleakClient) -> LinkReport:
        """The MTU, which is all that bleak can tell.

        Every client is told 23 by BlueZ; the room of a write without response says more.
        """
        rooms = [c.max_write_without_response_size for s in client.services for c in s.characteristics]
        return LinkReport(mtu=max(rooms, default=20) + 3)


def make_adapter(spec: str = "") -> Adapter:
    """The adapter that a settings entry or `--adapter` names.

    Args:
        spec: "" or "platform", "hci<N>", or a transport of bumble such as "tcp-client:127.0.0.1:9000" or "usb:0".

    Raises:
        ConfigError: It names nothing, or bumble is needed and not installed.
    """
    if spec in ("", "platform"):
        return PlatformAdapter()
    if _BLUEZ_NAME.fullmatch(spec):
        return PlatformAdapter(spec)
    if not _TRANSPORT.fullmatch(spec):
        raise ConfigError(
            f"there is no Bluetooth adapter {spec!r}",
            hint='Give "platform", "hci0", "usb:0" or a transport such as "tcp-client:127.0.0.1:9000".',
        )
    return _bumble_adapter(spec)


def _bumble_adapter(spec: str) -> BumbleAdapter:
    try:
        from embridge_edge.ble.stack import BumbleAdapter
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "bumble":
            raise
        raise ConfigError(
            f"the adapter {spec!r} needs bumble, which is not installed",
            reason=Reason.MISSING_EXTRA,
            hint='Install it with: pip install "embridge[radio]"',
        ) from error
    return BumbleAdapter(spec)
