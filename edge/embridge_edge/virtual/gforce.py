"""A virtual OYMotion gForce: commands with replies, and numbered packets of 8 or 12 bit."""

from __future__ import annotations

import numpy as np
from bumble.gatt import Service

from embridge_edge.bands.protocol import gforce as wire
from embridge_edge.virtual import gatt
from embridge_edge.virtual.band import VirtualBand
from embridge_edge.virtual.feed import Array32
from embridge_shared.errors import DeviceError

_FEATURES = 0x0000_0000_0001_FFFF
_FAST_HZ = 1000
_VERSION = "2.1.0"


class GForceBand(VirtualBand):
    """A gForcePro+. It numbers the packets it makes, so that what its queue drops is a gap of the number."""

    kind = "gforce"
    default_name = "gForcePro+(V)"
    channels = wire.CHANNELS
    seq_bytes = wire.SEQ_BYTES
    """Width of the packet number; 2 on newer devices."""

    @property
    def rate_hz(self) -> float:
        """As configured: up to 1 kHz at 8 bit, 500 Hz at 12 bit."""
        return float(self.config.rate_hz)

    def services(self) -> list[Service]:
        """Generic services, battery, and the one service with a command and a data characteristic."""
        self.config = wire.EmgConfig()
        self._reply = gatt.characteristic(
            wire.COMMAND, gatt.WRITE | gatt.WRITE_QUICK | gatt.NOTIFY, written=self._request
        )
        self._data = gatt.characteristic(wire.DATA, gatt.NOTIFY)
        return [
            gatt.gap(self.name),
            gatt.generic_attribute(),
            gatt.device_information(manufacturer="OYMotion", model="gForcePro+", firmware=_VERSION),
            gatt.battery(self._level),
            Service(wire.SERVICE, [self._reply, self._data]),
        ]

    def advertisement(self) -> tuple[bytes, bytes]:
        """The service and the name."""
        return gatt.advertisement(self.name, wire.SERVICE)

    def reset(self) -> None:
        """Everything off, numbering off."""
        self.config = wire.EmgConfig()
        self.flags = wire.Notify.OFF
        self._numbered = False
        self._seq = 0

    def _request(self, data: bytes) -> None:
        try:
            request = wire.decode_request(data)
        except DeviceError:
            return
        try:
            code, body = self._answer(request)
        except DeviceError:
            code, body = wire.Code.BAD_PARAMETER, b""
        self.notify(self._reply, wire.encode_reply(wire.Reply(code, request.op, body)))

    def _answer(self, request: wire.Request) -> tuple[wire.Code, bytes]:
        """Code and body of the reply; the request is carried out."""
        ok, op, body = wire.Code.OK, request.op, request.body
        told = {
            wire.Op.PROTOCOL_VERSION: b"1.0",
            wire.Op.FEATURE_MAP: _FEATURES.to_bytes(8, "little"),
            wire.Op.DEVICE_NAME: self.name.encode(),
            wire.Op.MODEL: b"gForcePro+",
            wire.Op.SERIAL: str(self.traits.serial).encode(),
            wire.Op.HARDWARE: b"2.0",
            wire.Op.FIRMWARE: _VERSION.encode(),
            wire.Op.MANUFACTURER: b"OYMotion",
            wire.Op.BATTERY: bytes((self.battery,)),
            wire.Op.GET_EMG_CONFIG: wire.encode_config(self.config),
        }
        if op in told:
            return ok, told[wire.Op(op)]
        if op in (wire.Op.MOTOR, wire.Op.LED, wire.Op.PACKAGE_ID):
            if op == wire.Op.PACKAGE_ID:
                self._numbered = body[:1] == b"\x01"
            return (ok if len(body) == 1 else wire.Code.BAD_PARAMETER), b""
        if op == wire.Op.SET_EMG_CONFIG:
            return self._configure(wire.decode_config(body)), b""
        if op == wire.Op.DATA_SWITCH:
            self._switch(wire.decode_switch(body))
            return ok, b""
        return wire.Code.UNSUPPORTED, b""

    def _configure(self, config: wire.EmgConfig) -> wire.Code:
        fastest = _FAST_HZ if config.bits == 8 else _FAST_HZ // 2
        if config.mask != 0xFF or config.rate_hz > fastest or self.streaming:
            return wire.Code.BAD_PARAMETER
        self.config = config
        return wire.Code.OK

    def _switch(self, flags: wire.Notify) -> None:
        self.flags = flags
        if flags & wire.Notify.EMG and not self.streaming:
            self._seq = 0
            self.stream()
        elif not flags & wire.Notify.EMG:
            self.halt()

    def packet_samples(self) -> int:
        """As many as the configured packet holds and the link takes."""
        width = wire.CHANNELS * (1 if self.config.bits == 8 else 2)
        return max(1, min(self.config.samples_per_packet, (self.payload - 1 - self.seq_bytes) // width))

    def ready(self) -> bool:
        """It waits for its data characteristic to be subscribed to."""
        return self.subscribed(self._data)

    def send(self, first: int, samples: Array32) -> bool:
        """Send a packet of EMG."""
        bits = self.config.bits
        offset, top = (wire.OFFSET_8_BIT, 0xFF) if bits == 8 else (wire.OFFSET_12_BIT, 0xFFF)
        scale = wire.UV_PER_COUNT_8_BIT if bits == 8 else wire.UV_PER_COUNT_12_BIT
        counts = np.clip(np.rint(samples / scale), -offset, top - offset).astype(np.int16)
        seq = self._seq if self._numbered else None
        self._seq += 1
        frame = wire.Frame(int(wire.DataType.EMG), seq, wire.encode_emg(counts, bits))
        return self.notify(self._data, wire.encode_frame(frame, self.seq_bytes))
