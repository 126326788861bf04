"""A Bluetooth LE central in this process: bumble from HCI upwards, below bleak.

The adapter owns one bumble device and the classes bleak makes clients and scanners of. It serialises connects (a
controller takes one at a time), shares the scan among scanners, and hands notifications from HCI straight to their
callback.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

from bleak import BleakClient
from bleak.backends.client import BaseBleakClient
from bleak.backends.scanner import BaseBleakScanner
from bleak.exc import BleakError
from bumble import core, hci
from bumble.controller import Controller
from bumble.device import Advertisement, Connection, ConnectionParametersPreferences, Device, DeviceConfiguration
from bumble.host import Host
from bumble.transport.common import Transport

from embridge_edge.ble.adapter import Adapter, LinkReport
from embridge_edge.ble.bumble_backend import BumbleClient
from embridge_edge.ble.bumble_scanner import BumbleScanner
from embridge_edge.ble.host import NotifyingHost, open_hci, unreachable
from embridge_shared.errors import DeviceError, Reason

logger = logging.getLogger(__name__)

_ANSWER_S = 5.0
_PHYS = {1: "1M", 2: "2M", 3: "coded"}


class BumbleAdapter(Adapter):
    """A radio driven through HCI from this process.

    Args:
        transport: A transport of bumble, or a controller on a simulated link of this process.
        interval_ms: Connection interval asked for, least and greatest.
        supervision_ms: After how long without a packet a link is taken for lost.
        mtu: ATT MTU asked for, bytes. 247 fills one link-layer packet; more is split and carries less.
    """

    def __init__(
        self,
        transport: str | Controller,
        *,
        interval_ms: tuple[float, float] = (7.5, 15.0),
        supervision_ms: float = 2000.0,
        mtu: int = 247,
    ) -> None:
        self.mtu = mtu
        self._where = transport
        self._preferences = ConnectionParametersPreferences(
            connection_interval_min=interval_ms[0],
            connection_interval_max=interval_ms[1],
            max_latency=0,
            supervision_timeout=int(supervision_ms),
        )
        self._transport: Transport | None = None
        self._device: Device | None = None
        self._scanners: list[Callable[[Advertisement], None]] = []
        self._opening = asyncio.Lock()
        self._scanning = asyncio.Lock()
        self._connecting = asyncio.Lock()
        self.known: dict[str, hci.Address] = {}
        self._client, self._scanner = _bind(self)

    @property
    def name(self) -> str:
        """The transport."""
        return self._where if isinstance(self._where, str) else f"link:{self._where.name}"

    @property
    def client_backend(self) -> type[BaseBleakClient]:
        """Clients on this radio."""
        return self._client

    @property
    def scanner_backend(self) -> type[BaseBleakScanner]:
        """Scanners on this radio."""
        return self._scanner

    @property
    def device(self) -> Device:
        """The bumble device.

        Raises:
            DeviceError: The adapter is not open.
        """
        if self._device is None:
            raise DeviceError(f"the Bluetooth adapter {self.name} is not open", reason=Reason.UNREACHABLE)
        return self._device

    @property
    def host(self) -> NotifyingHost:
        """The bumble host."""
        return cast(NotifyingHost, self.device.host)

    async def open(self) -> None:
        """Reset the controller and get it ready; scanners and clients do so when they are first used.

        Raises:
            DeviceError: The transport cannot be opened, or nobody answers on it.
        """
        async with self._opening:
            if self._device is None:
                await self._open()

    async def _open(self) -> None:
        try:
            source, sink = await self._ends()
            host = NotifyingHost(source, sink, self._gone)
            if isinstance(self._where, Controller):
                self._where.set_packet_sink(host)
            config = DeviceConfiguration(name="EMBridge", address=hci.Address.generate_static_address())
            device = Device(config=config, host=host)
            async with asyncio.timeout(_ANSWER_S):
                await device.power_on()
        except (OSError, ValueError, core.BaseBumbleError, TimeoutError) as error:
            await self.close()
            raise unreachable(self.name, error) from error
        device.on(Device.EVENT_ADVERTISEMENT, self._advertised)
        self._device = device

    def _gone(self, host: Host) -> None:
        """The controller went away; the next use opens it again."""
        if self._device is None or self._device.host is not host:
            return
        logger.warning("the Bluetooth adapter %s is gone", self.name)
        self._device = None
        self._scanners.clear()
        transport, self._transport = self._transport, None
        if transport is not None:
            self._closing = asyncio.ensure_future(transport.close())

    async def _ends(self) -> tuple[Any, Any]:
        """Source and sink of HCI packets."""
        if isinstance(self._where, Controller):
            return None, self._where
        self._transport = await open_hci(self._where)
        return self._transport.source, self._transport.sink

    async def close(self) -> None:
        """End every connection and close the transport; safe to call twice."""
        device, self._device = self._device, None
        if device is not None:
            with suppress(core.BaseBumbleError, hci.HCI_Error, TimeoutError):
                async with asyncio.timeout(_ANSWER_S):
                    for connection in list(device.connections.values()):
                        await connection.disconnect()
                    await device.power_off()
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()

    async def report(self, client: BleakClient) -> LinkReport:
        """All that the controller knows about a link."""
        backend = cast(BumbleClient, client._backend)
        connection = backend.connection
        rssi: int | None = None
        phy: str | None = None
        with suppress(hci.HCI_Error, core.BaseBumbleError):
            rssi = (await self.device.send_sync_command(hci.HCI_Read_RSSI_Command(handle=connection.handle))).rssi
        with suppress(hci.HCI_Error, core.BaseBumbleError):
            phy = _PHYS.get((await connection.get_phy()).rx_phy)
        return LinkReport(
            mtu=client.mtu_size,
            rssi_dbm=rssi,
            interval_ms=connection.parameters.connection_interval,
            phy=phy,
            data_length=connection.data_length.max_rx_octets,
        )

    async def connect(self, address: hci.Address, timeout_s: float) -> Connection:
        """Connect, one device at a time.

        Raises:
            TimeoutError: Nobody answered; the controller is ready for another attempt.
            BleakError: The controller refused.
        """
        async with asyncio.timeout(timeout_s), self._connecting:
            task = asyncio.create_task(
                self.device.connect_le(
                    address,
                    connection_parameters_preferences={hci.Phy.LE_1M: self._preferences},
                    timeout=None,
                ),
                name=f"connect {address}",
            )
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                if task.cancelled():
                    raise BleakError(f"the Bluetooth adapter {self.name} is gone") from None
                await self._abandon(task)
                raise
            except (core.BaseBumbleError, hci.HCI_Error) as error:
                raise BleakError(f"{address} cannot be connected to: {error}") from error

    async def _abandon(self, task: asyncio.Task[Connection]) -> None:
        """Take back a connect under way, and the connection if it came after all."""
        with suppress(hci.HCI_Error, core.BaseBumbleError):
            await self.device.send_sync_command(hci.HCI_LE_Create_Connection_Cancel_Command())
        done, _ = await asyncio.wait([task], timeout=1.0)
        if not done:
            task.cancel()
        elif not task.cancelled() and task.exception() is None:
            await task.result().disconnect()

    def forget(self, connection: int) -> None:
        """Drop the callbacks of a connection that is over."""
        if self._device is not None:
            self.host.forget(connection)

    async def start_scan(self, take: Callable[[Advertisement], None]) -> None:
        """Scan, and give every advertisement to `take`; the radio scans while anybody wants it to.

        Raises:
            BleakError: The controller refuses or is gone.
        """
        async with self._scanning:
            if not self._scanners:
                with self._as_bleak():
                    await self.device.start_scanning(active=True, filter_duplicates=False)
            self._scanners.append(take)

    async def stop_scan(self, take: Callable[[Advertisement], None]) -> None:
        """Stop giving advertisements to `take`."""
        async with self._scanning:
            if take not in self._scanners:
                return
            self._scanners.remove(take)
            if not self._scanners and self._device is not None:
                with self._as_bleak():
                    await self._device.stop_scanning()

    @contextmanager
    def _as_bleak(self) -> Iterator[None]:
        """Errors of the stack as bleak's."""
        try:
            yield
        except (core.BaseBumbleError, hci.HCI_Error, TimeoutError) as error:
            raise BleakError(f"the Bluetooth adapter {self.name}: {error or 'no answer'}") from error

    def _advertised(self, advertisement: Advertisement) -> None:
        self.known[advertisement.address.to_string(False)] = advertisement.address
        for take in list(self._scanners):
            take(advertisement)


def _bind(adapter: BumbleAdapter) -> tuple[type[BumbleClient], type[BumbleScanner]]:
    """Backend classes that know their adapter; bleak takes classes, not objects."""

    class Client(BumbleClient):
        radio = adapter

    class Scanner(BumbleScanner):
        radio = adapter

    return Client, Scanner
