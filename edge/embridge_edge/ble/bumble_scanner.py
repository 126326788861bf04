"""Scanning for bleak on bumble: advertisements and their scan responses, joined."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from bleak.backends.scanner import AdvertisementData, AdvertisementDataCallback, BaseBleakScanner
from bumble.core import AdvertisingData
from bumble.device import Advertisement

if TYPE_CHECKING:
    from embridge_edge.ble.stack import BumbleAdapter

_UUID_LISTS = {
    AdvertisingData.INCOMPLETE_LIST_OF_16_BIT_SERVICE_CLASS_UUIDS: 2,
    AdvertisingData.COMPLETE_LIST_OF_16_BIT_SERVICE_CLASS_UUIDS: 2,
    AdvertisingData.INCOMPLETE_LIST_OF_32_BIT_SERVICE_CLASS_UUIDS: 4,
    AdvertisingData.COMPLETE_LIST_OF_32_BIT_SERVICE_CLASS_UUIDS: 4,
    AdvertisingData.INCOMPLETE_LIST_OF_128_BIT_SERVICE_CLASS_UUIDS: 16,
    AdvertisingData.COMPLETE_LIST_OF_128_BIT_SERVICE_CLASS_UUIDS: 16,
}
_SERVICE_DATA = {
    AdvertisingData.SERVICE_DATA_16_BIT_UUID: 2,
    AdvertisingData.SERVICE_DATA_32_BIT_UUID: 4,
    AdvertisingData.SERVICE_DATA_128_BIT_UUID: 16,
}
_BASE_TAIL = "-0000-1000-8000-00805f9b34fb"


def uuid_text(raw: bytes) -> str:
    """A UUID of 2, 4 or 16 little-endian bytes as bleak writes it."""
    if len(raw) < 16:
        return f"{int.from_bytes(raw, 'little'):08x}{_BASE_TAIL}"
    return str(UUID(bytes=raw[::-1]))


def read_advertisement(data: AdvertisingData, rssi_dbm: int, *platform: Any) -> AdvertisementData:
    """What an advertisement, joined with its scan response, says.

    Args:
        data: The structures received.
        rssi_dbm: Strength of the signal.
        platform: Handed on as platform data.
    """
    names: dict[int, str] = {}
    services: dict[str, None] = {}  # a set in order: both parts may list the same service
    manufacturer: dict[int, bytes] = {}
    service_data: dict[str, bytes] = {}
    power: int | None = None
    for kind, raw in data.ad_structures:
        if kind in (AdvertisingData.COMPLETE_LOCAL_NAME, AdvertisingData.SHORTENED_LOCAL_NAME):
            names[kind] = raw.decode("utf-8", "replace")
        elif size := _UUID_LISTS.get(kind, 0):
            services.update((uuid_text(raw[i : i + size]), None) for i in range(0, len(raw) - size + 1, size))
        elif (size := _SERVICE_DATA.get(kind, 0)) and len(raw) >= size:
            service_data[uuid_text(raw[:size])] = raw[size:]
        elif kind == AdvertisingData.MANUFACTURER_SPECIFIC_DATA and len(raw) >= 2:
            manufacturer[int.from_bytes(raw[:2], "little")] = raw[2:]
        elif kind == AdvertisingData.TX_POWER_LEVEL and len(raw) == 1:
            power = int.from_bytes(raw, "little", signed=True)
    return AdvertisementData(
        local_name=names.get(AdvertisingData.COMPLETE_LOCAL_NAME, names.get(AdvertisingData.SHORTENED_LOCAL_NAME)),
        manufacturer_data=manufacturer,
        service_data=service_data,
        service_uuids=list(services),
        tx_power=power,
        rssi=rssi_dbm,
        platform_data=platform,
    )


class BumbleScanner(BaseBleakScanner):
    """A scanner on the adapter in `radio`."""

    radio: ClassVar[BumbleAdapter]

    def __init__(
        self,
        detection_callback: AdvertisementDataCallback | None,
        service_uuids: list[str] | None,
        scanning_mode: str = "active",
        **kwargs: Any,
    ) -> None:
        super().__init__(detection_callback, service_uuids)

    async def start(self) -> None:
        """Start scanning."""
        self.seen_devices = {}
        await self.radio.open()
        await self.radio.start_scan(self._take)

    async def stop(self) -> None:
        """Stop; the radio goes on while another scanner needs it."""
        await self.radio.stop_scan(self._take)

    def _take(self, heard: Advertisement) -> None:
        found = read_advertisement(heard.data, heard.rssi, heard)
        if not self.is_allowed_uuid(found.service_uuids):
            return
        address = heard.address.to_string(False)
        device = self.create_or_update_device(address, address, found.local_name, {"address": heard.address}, found)
        self.call_detection_callbacks(device, found)
