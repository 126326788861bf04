"""A virtual band of the open profile: 16 channels at 2 kHz, two counters in every packet (docs: band profile).

The packet counter counts packets sent, the sample counter samples taken: what the firmware drops is a gap in the
second alone, what is lost behind the radio a gap in both.
"""

from __future__ import annotations

import numpy as np
from bumble.gatt import Service

from embridge_edge.bands.protocol import open_profile as wire
from embridge_edge.virtual import gatt
from embridge_edge.virtual.band import VirtualBand
from embridge_edge.virtual.feed import Array32
from embridge_shared.errors import DeviceError

_HEADER_BYTES, _SAMPLE_BYTES = 8, 2 * wire.CHANNELS


class OpenBand(VirtualBand):
    """A band of the open profile."""

    kind = "open"
    default_name = "EMBridge-16"
    channels = wire.CHANNELS
    counts_on = True
    identified = 0
    """Blinks asked for so far."""

    @property
    def rate_hz(self) -> float:
        """2 kHz."""
        return float(wire.RATE_HZ)

    def services(self) -> list[Service]:
        """Generic services, device information, battery, the profile."""
        self.reset()
        self._data = gatt.characteristic(wire.DATA, gatt.NOTIFY)
        info = wire.Info(serial=self.traits.serial)
        return [
            gatt.gap(self.name),
            gatt.generic_attribute(),
            gatt.device_information(
                manufacturer="EMBridge", model="virtual-16", serial=str(self.traits.serial), firmware="1.0"
            ),
            gatt.battery(self._level),
            Service(
                wire.SERVICE,
                [
                    self._data,
                    gatt.characteristic(wire.CONTROL, gatt.WRITE, written=self._command),
                    gatt.characteristic(wire.INFO, gatt.READ, read=wire.encode_info(info)),
                ],
            ),
        ]

    def advertisement(self) -> tuple[bytes, bytes]:
        """The service; the name follows in the scan response."""
        return gatt.advertisement(self.name, wire.SERVICE)

    def _command(self, data: bytes) -> None:
        if not data or data[0] not in set(wire.Command):
            raise gatt.refuse(wire.ERROR_UNKNOWN_COMMAND)
        try:
            command, argument = wire.decode_command(data)
        except DeviceError:
            raise gatt.refuse(wire.ERROR_BAD_LENGTH) from None
        if command is wire.Command.START and not self.streaming:
            self.reset()
            self.stream()
        elif command is wire.Command.STOP:
            self.halt()
        elif command is wire.Command.IDENTIFY:
            self.identified += argument

    def packet_samples(self) -> int:
        """7 at MTU 247 and without a host; 1 where not even one fits, and then none is sent."""
        if self.connection is None:
            return wire.SAMPLES_PER_PACKET
        return max(1, min((self.payload - _HEADER_BYTES) // _SAMPLE_BYTES, wire.SAMPLES_PER_PACKET))

    def reset(self) -> None:
        """Both counters begin anew."""
        self._seq, self._overflow = 0, False

    def send(self, first: int, samples: Array32) -> bool:
        """Send a packet; it says so when one before it was dropped. Without a host nothing is made."""
        if not self.subscribed(self._data):
            return True
        flags = wire.Flags.RESTARTED if first == 0 else wire.Flags(0)
        if self._overflow:
            flags |= wire.Flags.OVERFLOW
        counts = np.clip(np.rint(samples / wire.UV_PER_COUNT), -32768, 32767).astype(np.int16)
        data = wire.encode(wire.Frame(self._seq, first, counts, flags))
        self._overflow = len(data) > self.payload or not self.notify(self._data, data)
        if self._overflow:
            return False
        self._seq += 1
        return True
