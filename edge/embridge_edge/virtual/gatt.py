"""Helpers to lay out the attributes of a virtual band."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from bumble import att
from bumble.core import AdvertisingData
from bumble.device import Connection
from bumble.gatt import Characteristic, CharacteristicValue, Service

from embridge_edge.bands.protocol.octets import BATTERY_LEVEL, uuid16

Written = Callable[[bytes], None]
Bytes = Characteristic[bytes]

READ = Characteristic.Properties.READ
WRITE = Characteristic.Properties.WRITE
WRITE_QUICK = Characteristic.Properties.WRITE_WITHOUT_RESPONSE
NOTIFY = Characteristic.Properties.NOTIFY
INDICATE = Characteristic.Properties.INDICATE

ADVERTISEMENT_BYTES = 31

_FLAGS = bytes((2, AdvertisingData.FLAGS, 0x06))
_READABLE, _WRITEABLE = Characteristic.Permissions.READABLE, Characteristic.Permissions.WRITEABLE


def refuse(code: int) -> att.ATT_Error:
    """The error a write handler raises to answer with an ATT error code."""
    return att.ATT_Error(code)


def characteristic(
    uuid: str,
    properties: Characteristic.Properties,
    *,
    read: Callable[[], bytes] | bytes = b"",
    written: Written | None = None,
) -> Bytes:
    """A characteristic.

    Args:
        uuid: Its UUID.
        properties: What a client may do with it.
        read: Its value, or what makes it.
        written: Takes what a client writes; raises `refuse(code)` to answer with an error.
    """

    def on_read(_: Connection) -> bytes:
        if not properties & READ:
            raise refuse(att.ErrorCode.READ_NOT_PERMITTED)
        return read() if callable(read) else read

    def on_write(_: Connection, value: bytes) -> None:
        if written is None:
            raise refuse(att.ErrorCode.WRITE_NOT_PERMITTED)
        written(bytes(value))

    permissions = Characteristic.Permissions(0)
    if properties & READ:
        permissions |= _READABLE
    if properties & (WRITE | WRITE_QUICK):
        permissions |= _WRITEABLE
    return Characteristic(uuid, properties, permissions, CharacteristicValue(read=on_read, write=on_write))


def gap(name: str) -> Service:
    """Generic access: device name, appearance, preferred connection parameters."""
    return Service(
        uuid16(0x1800),
        [
            characteristic(uuid16(0x2A00), READ, read=name.encode()),
            characteristic(uuid16(0x2A01), READ, read=bytes(2)),
            characteristic(uuid16(0x2A04), READ, read=bytes.fromhex("0600 0c00 0000 9001")),
        ],
    )


def generic_attribute() -> Service:
    """Generic attribute: service changed."""
    return Service(uuid16(0x1801), [characteristic(uuid16(0x2A05), INDICATE)])


def device_information(**texts: str) -> Service:
    """Device information.

    Args:
        texts: Of manufacturer, model, serial, firmware, hardware and software, those the device has.
    """
    short = {"manufacturer": 0x2A29, "model": 0x2A24, "serial": 0x2A25}
    short |= {"firmware": 0x2A26, "hardware": 0x2A27, "software": 0x2A28}
    values = [characteristic(uuid16(short[k]), READ, read=v.encode()) for k, v in texts.items()]
    return Service(uuid16(0x180A), values)


def battery(level: Bytes) -> Service:
    """Battery service around a level characteristic."""
    return Service(uuid16(0x180F), [level])


def battery_level(percent: Callable[[], int]) -> Bytes:
    """Battery level, read and notify."""
    return characteristic(BATTERY_LEVEL, READ | NOTIFY, read=lambda: bytes((percent(),)))


def advertisement(name: str, *services: str) -> tuple[bytes, bytes]:
    """Advertising data and scan response; the name goes into the latter where the former has no room.

    Args:
        name: Complete local name.
        services: UUIDs to advertise.
    """
    lists: dict[int, bytes] = {}
    for service in services:
        short = (
            bytes.fromhex(service[4:8])[::-1] if service == uuid16(int(service[:8], 16)) else UUID(service).bytes[::-1]
        )
        kind = {
            2: AdvertisingData.COMPLETE_LIST_OF_16_BIT_SERVICE_CLASS_UUIDS,
            16: AdvertisingData.COMPLETE_LIST_OF_128_BIT_SERVICE_CLASS_UUIDS,
        }[len(short)]
        lists[int(kind)] = lists.get(int(kind), b"") + short
    data = _FLAGS + b"".join(bytes((len(v) + 1, k)) + v for k, v in lists.items())
    encoded = name.encode()
    named = bytes((len(encoded) + 1, AdvertisingData.COMPLETE_LOCAL_NAME)) + encoded
    if len(data) + len(named) <= ADVERTISEMENT_BYTES:
        return data + named, b""
    return data, named
