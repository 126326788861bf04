"""A client for bleak on bumble: connecting and GATT with the stack in this process.

`handle` of a characteristic is that of its declaration, as with BlueZ; its value is at the next handle.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from bleak.args import SizedBuffer
from bleak.assigned_numbers import gatt_char_props_to_strs
from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.client import BaseBleakClient, NotifyCallback
from bleak.backends.descriptor import BleakGATTDescriptor
from bleak.backends.device import BLEDevice
from bleak.backends.service import BleakGATTService, BleakGATTServiceCollection
from bleak.exc import BleakDeviceNotFoundError, BleakError, BleakGATTProtocolError
from bumble import att, core, hci
from bumble.device import Advertisement, Connection
from bumble.gatt_client import CharacteristicProxy, Client

from embridge_edge.ble.bumble_scanner import uuid_text

if TYPE_CHECKING:
    from embridge_edge.ble.stack import BumbleAdapter

logger = logging.getLogger(__name__)

T = TypeVar("T")

_CCCD = "00002902-0000-1000-8000-00805f9b34fb"
_DLE_OCTETS, _DLE_TIME_US = 251, 2120


class BumbleClient(BaseBleakClient):
    """A client on the adapter in `radio`."""

    radio: ClassVar[BumbleAdapter]

    def __init__(
        self,
        address_or_ble_device: BLEDevice | str,
        services: set[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(address_or_ble_device, **kwargs)
        device = address_or_ble_device if isinstance(address_or_ble_device, BLEDevice) else None
        self._target: hci.Address | None = device.details["address"] if device is not None else None
        self._name = (device.name if device is not None else None) or self.address
        self._wanted = services
        self._connection: Connection | None = None
        self._gatt: Client | None = None
        self._over = asyncio.Event()

    @property
    def name(self) -> str:
        """Name it advertised, or its address."""
        return self._name

    @property
    def mtu_size(self) -> int:
        """Negotiated ATT MTU, bytes."""
        return self._gatt.mtu if self._gatt is not None else att.ATT_DEFAULT_MTU

    @property
    def is_connected(self) -> bool:
        """Whether the link stands."""
        return self._connection is not None

    @property
    def connection(self) -> Connection:
        """The bumble connection.

        Raises:
            BleakError: There is none.
        """
        if self._connection is None:
            raise BleakError("Not connected")
        return self._connection

    async def connect(self, pair: bool, **kwargs: Any) -> None:
        """Connect, agree on MTU and data length, and discover everything the server has.

        Raises:
            TimeoutError: Not done in time; nothing is left behind.
            BleakError: Already connected, or the link broke while it was set up.
        """
        if self.is_connected:
            raise BleakError("already connected")
        timeout_s = float(kwargs.get("timeout", self._timeout))
        async with asyncio.timeout(timeout_s) as limit:
            await self.radio.open()
            target = self._target or await self._look_for()
            left_s = (limit.when() or 0.0) - asyncio.get_running_loop().time()
            connection = await self.radio.connect(target, left_s)
            self._began(connection)
            try:
                if pair:
                    await self.pair()
                await self._set_up(connection)
            except BaseException:
                await asyncio.shield(self._break_off(connection))
                raise

    async def _look_for(self) -> hci.Address:
        """The address, with its type, of a device given as text."""
        wanted = self.address.upper()
        known = self.radio.known.get(wanted)
        if known is not None:
            return known
        found: asyncio.Future[hci.Address] = asyncio.get_running_loop().create_future()

        def take(heard: Advertisement) -> None:
            if heard.address.to_string(False) == wanted and not found.done():
                found.set_result(heard.address)

        await self.radio.start_scan(take)
        try:
            return await asyncio.wait_for(found, self._timeout)
        except TimeoutError:
            raise BleakDeviceNotFoundError(self.address, f"Device with address {self.address} was not found") from None
        finally:
            await self.radio.stop_scan(take)

    def _began(self, connection: Connection) -> None:
        self.services = None
        self._connection = connection
        self._gatt = connection.gatt_client
        self._over.clear()
        connection.once(Connection.EVENT_DISCONNECTION, lambda reason: self._ended(connection, reason))

    def _ended(self, connection: Connection, reason: int) -> None:
        """The link is gone, whoever wanted it."""
        logger.debug("%s: link ended, reason 0x%02x", self.address, reason)
        if self._connection is not connection:
            return
        self._connection, self._gatt = None, None
        self.radio.forget(connection.handle)
        self._over.set()
        if self._disconnected_callback is not None and self.services is not None:
            self._disconnected_callback()

    async def _set_up(self, connection: Connection) -> None:
        gatt = self._client()
        await self._ask(connection.set_data_length(_DLE_OCTETS, _DLE_TIME_US), optional=True)
        if self.radio.device.supports_le_phy(hci.Phy.LE_2M):
            phys = [hci.Phy.LE_2M]
            await self._ask(connection.set_phy(tx_phys=phys, rx_phys=phys), optional=True)
        await self._ask(gatt.request_mtu(self.radio.mtu), optional=True)
        self.services = await self._discover(gatt)

    async def _break_off(self, connection: Connection) -> None:
        """Undo a connection that could not be set up; its end is no event for anybody."""
        self.services = None
        if self._connection is connection:
            try:
                await connection.disconnect()
            except (core.BaseBumbleError, hci.HCI_Error) as error:
                logger.debug("%s: %s", self.address, error)
                self._ended(connection, 0)

    async def _discover(self, gatt: Client) -> BleakGATTServiceCollection:
        found = BleakGATTServiceCollection()
        for service in await self._ask(gatt.discover_services()):
            uuid = uuid_text(bytes(service.uuid.to_bytes(force_128=True)))
            if self._wanted and uuid not in self._wanted:
                continue
            mine = BleakGATTService(service, service.handle, uuid)
            found.add_service(mine)
            for characteristic in await self._ask(gatt.discover_characteristics([], service)):
                await self._add(found, mine, gatt, characteristic)
        return found

    async def _add(
        self,
        found: BleakGATTServiceCollection,
        service: BleakGATTService,
        gatt: Client,
        characteristic: CharacteristicProxy[bytes],
    ) -> None:
        mine = BleakGATTCharacteristic(
            characteristic,
            characteristic.handle - 1,
            uuid_text(bytes(characteristic.uuid.to_bytes(force_128=True))),
            list(gatt_char_props_to_strs(int(characteristic.properties))),
            lambda: self.mtu_size - 3,
            service,
        )
        found.add_characteristic(mine)
        if characteristic.end_group_handle <= characteristic.handle:
            return
        for descriptor in await self._ask(gatt.discover_descriptors(characteristic)):
            uuid = uuid_text(bytes(descriptor.type.to_bytes(force_128=True)))
            found.add_descriptor(BleakGATTDescriptor(descriptor, descriptor.handle, uuid, mine))

    async def disconnect(self) -> None:
        """End the link; safe to call when it is over."""
        connection = self._connection
        if connection is None:
            return
        try:
            await connection.disconnect()
            async with asyncio.timeout(self._timeout):
                await self._over.wait()
        except (core.BaseBumbleError, hci.HCI_Error) as error:
            if self.is_connected:
                raise BleakError(f"cannot disconnect: {error}") from error

    async def pair(self, *args: Any, **kwargs: Any) -> None:
        """Pair and encrypt."""
        await self._ask(self.connection.pair())

    async def unpair(self) -> None:
        """Not possible.

        Raises:
            NotImplementedError: This stack keeps no bonds.
        """
        raise NotImplementedError("no bonds are kept, so there is none to remove")

    def _client(self) -> Client:
        if self._gatt is None:
            raise BleakError("Not connected")
        return self._gatt

    async def _ask(self, request: Awaitable[T], *, optional: bool = False) -> T:
        """Wait for an answer; failures come as bleak's errors, or are only logged for what a device may refuse.

        When a link ends, bumble cancels what waits for an answer; that is no cancellation of ours.
        """
        task = asyncio.current_task()
        pending = task.cancelling() if task is not None else 0
        try:
            return await request
        except asyncio.CancelledError:
            if self.is_connected or (task is not None and task.cancelling() > pending):
                raise
            raise BleakError("disconnected before the answer came") from None
        except att.ATT_Error as error:
            if not optional:
                raise BleakGATTProtocolError(int(error.error_code)) from error
            logger.debug("%s: %s", self.address, error)
        except (core.BaseBumbleError, hci.HCI_Error) as error:
            if not optional:
                raise BleakError(str(error) or type(error).__name__) from error
            logger.debug("%s: %s", self.address, error)
        return None  # type: ignore[return-value]

    async def read_gatt_char(
        self, characteristic: BleakGATTCharacteristic, *, use_cached: bool = False, **kwargs: Any
    ) -> bytearray:
        """Read a value of any length."""
        return bytearray(await self._ask(self._client().read_value(characteristic.handle + 1)))

    async def read_gatt_descriptor(
        self, descriptor: BleakGATTDescriptor, *, use_cached: bool = False, **kwargs: Any
    ) -> bytearray:
        """Read a descriptor."""
        return bytearray(await self._ask(self._client().read_value(descriptor.handle)))

    async def write_gatt_char(self, characteristic: BleakGATTCharacteristic, data: SizedBuffer, response: bool) -> None:
        """Write a value; with response it may be longer than one packet.

        Raises:
            BleakError: Without response it is longer than one packet.
        """
        value = bytes(data)
        if not response and len(value) > self.mtu_size - 3:
            raise BleakError(f"{len(value)} bytes do not fit a write without response, which holds {self.mtu_size - 3}")
        await self._ask(self._client().write_value(characteristic.handle + 1, value, with_response=response))

    async def write_gatt_descriptor(self, descriptor: BleakGATTDescriptor, data: SizedBuffer) -> None:
        """Write a descriptor."""
        await self._ask(self._client().write_value(descriptor.handle, bytes(data), with_response=True))

    async def start_notify(
        self, characteristic: BleakGATTCharacteristic, callback: NotifyCallback, **kwargs: Any
    ) -> None:
        """Take notifications, or indications where there are no notifications.

        Raises:
            BleakError: The characteristic has no switch for either.
        """
        gatt, value = self._client(), characteristic.handle + 1
        switch = characteristic.get_descriptor(_CCCD)
        if switch is None:
            raise BleakError(f"characteristic {characteristic.uuid} cannot notify")
        notify = "notify" in characteristic.properties
        taken = gatt.notification_subscribers if notify else gatt.indication_subscribers
        taken[value] = {_as_bytearray(callback)}
        if notify:
            self.radio.host.notified[self.radio.host.key(self.connection.handle, value)] = callback
        await self._ask(gatt.write_value(switch.handle, b"\x01\x00" if notify else b"\x02\x00", with_response=True))

    async def stop_notify(self, characteristic: BleakGATTCharacteristic) -> None:
        """Take no more notifications or indications."""
        gatt, value = self._client(), characteristic.handle + 1
        switch = characteristic.get_descriptor(_CCCD)
        if switch is not None:
            await self._ask(gatt.write_value(switch.handle, b"\x00\x00", with_response=True))
        gatt.notification_subscribers.pop(value, None)
        gatt.indication_subscribers.pop(value, None)
        self.radio.host.notified.pop(self.radio.host.key(self.connection.handle, value), None)


def _as_bytearray(callback: NotifyCallback) -> Callable[[bytes], None]:
    """bumble hands out bytes where bleak promises a bytearray."""
    return lambda value: callback(bytearray(value))
