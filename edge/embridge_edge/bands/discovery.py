"""Looks which bands are in the air."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bleak.exc import BleakError

from embridge_edge.bands.catalogue import recognise
from embridge_edge.ble.adapter import make_adapter
from embridge_edge.ble.faults import blame

if TYPE_CHECKING:
    from bleak.backends.device import BLEDevice
    from bleak.backends.scanner import AdvertisementData


@dataclass(frozen=True, slots=True)
class Found:
    """A device that advertises.

    Attributes:
        address: Its address.
        name: Its name.
        kind: Kind of band, or empty.
        rssi_dbm: Strength of the signal received.
        services: What it advertises.
    """

    address: str
    name: str
    kind: str
    rssi_dbm: int
    services: tuple[str, ...]


async def scan(adapter: str, seconds: float, *, everything: bool = False) -> list[Found]:
    """Listen for so long; the strongest first.

    Args:
        adapter: Bluetooth adapter.
        seconds: How long.
        everything: Devices of unknown kind too.

    Raises:
        DeviceError: There is no Bluetooth, it is off, or may not be used; the message says what to do.
    """
    found: dict[str, Found] = {}

    def take(device: BLEDevice, advertisement: AdvertisementData) -> None:
        before = found.get(device.address)
        name = advertisement.local_name or device.name or (before.name if before is not None else "")
        services = tuple(advertisement.service_uuids) or (before.services if before is not None else ())
        info = recognise(name, services)
        found[device.address] = Found(
            device.address, name, info.kind if info is not None else "", advertisement.rssi, services
        )

    try:
        async with make_adapter(adapter) as radio:
            scanner = radio.make_scanner(take)
            await scanner.start()
            try:
                await asyncio.sleep(seconds)
            finally:
                await scanner.stop()
    except (BleakError, OSError, TimeoutError) as error:
        raise blame(error, "scanning").error() from error
    return sorted((f for f in found.values() if f.kind or everything), key=lambda f: -f.rssi_dbm)
