"""A virtual Mudra Link: three channels, and the band's own clock at the end of every packet."""

from __future__ import annotations

import time

import numpy as np
from bumble.att import ErrorCode
from bumble.gatt import Service

from embridge_edge.bands.protocol import mudra as wire
from embridge_edge.bands.protocol.octets import FIRMWARE_REVISION, uuid16
from embridge_edge.virtual import gatt
from embridge_edge.virtual.band import VirtualBand
from embridge_edge.virtual.feed import Array32
from embridge_shared.errors import DeviceError

_TRAILER_BYTES, _SAMPLE_BYTES = 4, 6
_SNC = (0x06, 0x00)


class MudraBand(VirtualBand):
    """A Mudra Link."""

    kind = "mudra"
    default_name = "Mudra Link V"
    channels = len(wire.CHANNELS)

    @property
    def rate_hz(self) -> float:
        """834 Hz."""
        return wire.RATE_HZ

    def services(self) -> list[Service]:
        """Generic services, device information with the two serial numbers, battery, the stream service."""
        self._powered_s = time.monotonic()
        self._snc = gatt.characteristic(wire.SNC, gatt.NOTIFY)
        left, right = divmod(self.traits.serial, 1_000_000)
        quiet = gatt.NOTIFY
        return [
            gatt.gap(self.name),
            gatt.generic_attribute(),
            Service(
                uuid16(0x180A),
                [
                    gatt.characteristic(wire.SERIAL_RIGHT, gatt.READ, read=f"{right:X}".encode()),
                    gatt.characteristic(FIRMWARE_REVISION, gatt.READ, read=b"1.0.0"),
                    gatt.characteristic(wire.SERIAL_LEFT, gatt.READ, read=f"{left:X}".encode()),
                ],
            ),
            Service(uuid16(0x180F), [self._level, gatt.characteristic(wire.CHARGING, gatt.READ, read=b"\0")]),
            Service(
                wire.SERVICE,
                [
                    gatt.characteristic(
                        wire.COMMAND,
                        gatt.READ | gatt.WRITE | gatt.WRITE_QUICK | gatt.NOTIFY,
                        written=self._command,
                    ),
                    gatt.characteristic(wire.LOG, quiet),
                    self._snc,
                    gatt.characteristic(wire.IMU, quiet),
                    gatt.characteristic(wire.MESSAGE, quiet),
                ],
            ),
        ]

    def advertisement(self) -> tuple[bytes, bytes]:
        """The service and the name."""
        return gatt.advertisement(self.name, wire.SERVICE)

    def reset(self) -> None:
        """Nothing to forget: streams end with the link, and the clock runs on."""

    def _command(self, data: bytes) -> None:
        try:
            group, feature, on = wire.decode_enable(data)
        except DeviceError:
            raise gatt.refuse(ErrorCode.VALUE_NOT_ALLOWED) from None
        if (group, feature) != _SNC:
            return
        if on and not self.streaming:
            self.stream()
        elif not on:
            self.halt()

    def packet_samples(self) -> int:
        """18, or what the link takes."""
        return max(1, min(wire.SAMPLES_PER_PACKET, (self.payload - _TRAILER_BYTES) // _SAMPLE_BYTES))

    def ready(self) -> bool:
        """It waits for the stream to be subscribed to."""
        return self.subscribed(self._snc)

    def send(self, first: int, samples: Array32) -> bool:
        """Send a packet, stamped with the band's clock at its last sample."""
        counts = np.clip(np.rint(samples / wire.UV_PER_COUNT), -32768, 32767).astype(np.int16)
        last_s = self.sample_s(first + len(samples) - 1) - self._powered_s
        device_us = round(last_s * (1e6 + self.traits.drift_ppm))
        return self.notify(self._snc, wire.encode(wire.Frame(counts, device_us)))
