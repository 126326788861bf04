"""OYMotion gForce: commands with replies on one characteristic, typed and numbered data packets on another."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge_edge.bands.protocol.octets import interleaved, malformed, uuid16
from embridge_shared.errors import ConfigError

SERVICE = uuid16(0xFFD0)
COMMAND = "f000ffe1-0451-4000-b000-000000000000"
"""Write and notify: requests and replies."""
DATA = "f000ffe2-0451-4000-b000-000000000000"
"""Notify: data packets."""

CHANNELS = 8
PACKET_BYTES = 128
SEQ_BYTES = 1
"""Width of the packet number of a gForcePro+; newer devices have 2."""
OFFSET_8_BIT = 119
"""Counts of silence at 8 bit, where offset binary would have 128."""
OFFSET_12_BIT = 2000
"""Counts of silence at 12 bit."""
UV_PER_COUNT_8_BIT = 2.5e6 / 1200 / 127
"""2.5 V of the converter over the gain of 1200 and half its range."""
UV_PER_COUNT_12_BIT = 2.5e6 / 1200 / 2047

_CONFIG = struct.Struct("<HHBB")
_SWITCH = struct.Struct("<I")


class Op(IntEnum):
    """First byte of a request, second of a reply."""

    PROTOCOL_VERSION = 0x00
    FEATURE_MAP = 0x01
    DEVICE_NAME = 0x02
    MODEL = 0x03
    SERIAL = 0x04
    HARDWARE = 0x05
    FIRMWARE = 0x06
    MANUFACTURER = 0x07
    BATTERY = 0x08
    POWER_OFF = 0x1D
    MOTOR = 0x24
    LED = 0x25
    PACKAGE_ID = 0x26
    SET_EMG_CONFIG = 0x3F
    GET_EMG_CONFIG = 0x46
    DATA_SWITCH = 0x4F


class Code(IntEnum):
    """First byte of a reply."""

    OK = 0
    UNSUPPORTED = 1
    BAD_PARAMETER = 2
    FAILED = 3
    TIMEOUT = 4
    PARTIAL = 0xFF


class Notify(IntFlag):
    """What the data switch turns on."""

    OFF = 0
    ACCELERATION = 0x01
    ROTATION = 0x02
    MAGNETOMETER = 0x04
    EULER = 0x08
    QUATERNION = 0x10
    GESTURE = 0x40
    EMG = 0x80
    CONCAT = 0x80000000


class DataType(IntEnum):
    """First byte of a data packet, without its top bit."""

    ACCELERATION = 0x01
    ROTATION = 0x02
    EULER = 0x04
    QUATERNION = 0x05
    GESTURE = 0x07
    EMG = 0x08


@dataclass(frozen=True, slots=True)
class EmgConfig:
    """How EMG is sampled and sent.

    Attributes:
        rate_hz: Samples a second.
        mask: One bit a channel.
        packet_bytes: EMG bytes in a packet.
        bits: 8 or 12.
    """

    rate_hz: int = 1000
    mask: int = 0xFF
    packet_bytes: int = PACKET_BYTES
    bits: int = 8

    @property
    def samples_per_packet(self) -> int:
        """Samples in a packet."""
        return self.packet_bytes // (self.mask.bit_count() * (1 if self.bits == 8 else 2))


@dataclass(frozen=True, slots=True)
class Request:
    """One write to the command characteristic."""

    op: int
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Reply:
    """One notification of the command characteristic."""

    code: Code
    op: int
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Frame:
    """One data packet.

    Attributes:
        kind: What it holds.
        seq: Packets sent, modulo the width of the number; None where numbering is off.
        body: The rest.
    """

    kind: int
    seq: int | None
    body: bytes


def encode_request(request: Request) -> bytes:
    """Bytes of a request."""
    return bytes((request.op,)) + request.body


def decode_request(data: bytes) -> Request:
    """A request; whether its code is known is the device's affair.

    Raises:
        DeviceError: MALFORMED: empty.
    """
    if not data:
        raise malformed("gForce request", data)
    return Request(data[0], bytes(data[1:]))


def encode_reply(reply: Reply) -> bytes:
    """Bytes of a reply."""
    return bytes((reply.code, reply.op)) + reply.body


def decode_reply(data: bytes) -> Reply:
    """A reply. Of a partial one `op` is the countdown to its last part.

    Raises:
        DeviceError: MALFORMED: too short, or of an unknown code.
    """
    if len(data) < 2 or data[0] not in set(Code):
        raise malformed("gForce reply", data)
    return Reply(Code(data[0]), data[1], bytes(data[2:]))


def encode_config(config: EmgConfig) -> bytes:
    """Body of SET_EMG_CONFIG, and of the reply to GET_EMG_CONFIG."""
    return _CONFIG.pack(config.rate_hz, config.mask, config.packet_bytes, config.bits)


def decode_config(body: bytes) -> EmgConfig:
    """The EMG configuration.

    Raises:
        DeviceError: MALFORMED: another length, no channels, or neither 8 nor 12 bit.
    """
    if len(body) != _CONFIG.size:
        raise malformed("gForce EMG configuration", body)
    config = EmgConfig(*_CONFIG.unpack(body))
    if not config.mask or config.bits not in (8, 12) or config.samples_per_packet < 1 or not config.rate_hz:
        raise malformed("gForce EMG configuration", body)
    return config


def set_config(config: EmgConfig) -> bytes:
    """Bytes that choose how EMG is sampled."""
    return encode_request(Request(Op.SET_EMG_CONFIG, encode_config(config)))


def package_id(on: bool) -> bytes:
    """Bytes that turn the numbering of packets on or off."""
    return encode_request(Request(Op.PACKAGE_ID, bytes((on,))))


def data_switch(flags: Notify) -> bytes:
    """Bytes that choose what is sent."""
    return encode_request(Request(Op.DATA_SWITCH, _SWITCH.pack(flags)))


def decode_switch(body: bytes) -> Notify:
    """Body of DATA_SWITCH.

    Raises:
        DeviceError: MALFORMED: not 4 bytes.
    """
    if len(body) != _SWITCH.size:
        raise malformed("gForce data switch", body)
    return Notify(_SWITCH.unpack(body)[0])


def motor(on: bool) -> bytes:
    """Bytes that turn the vibration on or off."""
    return encode_request(Request(Op.MOTOR, bytes((on,))))


def encode_frame(frame: Frame, seq_bytes: int = SEQ_BYTES) -> bytes:
    """Bytes of a data packet whose number has so many bytes."""
    numbered = b"" if frame.seq is None else (frame.seq % (1 << 8 * seq_bytes)).to_bytes(seq_bytes, "little")
    return bytes((frame.kind,)) + numbered + frame.body


def decode_frame(data: bytes, seq_bytes: int = SEQ_BYTES) -> Frame:
    """A data packet whose number has so many bytes; none where numbering is off.

    Raises:
        DeviceError: MALFORMED: too short.
    """
    head = 1 + seq_bytes
    if len(data) <= head:
        raise malformed("gForce data packet", data)
    seq = int.from_bytes(data[1:head], "little") if seq_bytes else None
    return Frame(data[0] & 0x7F, seq, bytes(data[head:]))


def encode_emg(samples: NDArray[Any], bits: int = 8) -> bytes:
    """Body of an EMG packet from counts around 0, (n, channels).

    Raises:
        ConfigError: A count does not fit `bits`.
    """
    offset, top = (OFFSET_8_BIT, 0xFF) if bits == 8 else (OFFSET_12_BIT, 0xFFF)
    codes = np.asarray(samples, np.int32) + offset
    if codes.size and (codes.min() < 0 or codes.max() > top):
        raise ConfigError(f"counts must lie within {-offset} and {top - offset} at {bits} bit")
    return codes.astype(np.uint8 if bits == 8 else "<u2").tobytes()


def decode_emg(body: bytes, channels: int = CHANNELS, bits: int = 8) -> NDArray[np.int16]:
    """Counts around 0, int16 (n, channels), of an EMG packet.

    Raises:
        DeviceError: MALFORMED: no whole samples, or a code beyond 12 bit.
    """
    width = channels * (1 if bits == 8 else 2)
    if not body or len(body) % width:
        raise malformed(f"gForce EMG packet of {bits} bit", body)
    if bits == 8:
        return interleaved(body, "u1", channels).astype(np.int16) - np.int16(OFFSET_8_BIT)
    codes = interleaved(body, "<u2", channels)
    if codes.max() > 0xFFF:
        raise malformed("gForce EMG packet of 12 bit", body)
    return codes.astype(np.int16) - np.int16(OFFSET_12_BIT)


def decode_quaternion(body: bytes) -> NDArray[Any]:
    """Quaternion w x y z, float32 (1, 4).

    Raises:
        DeviceError: MALFORMED: not 16 bytes.
    """
    if len(body) != 16:
        raise malformed("gForce quaternion", body)
    return interleaved(body, "<f4", 4)


def decode_motion(body: bytes) -> NDArray[Any]:
    """Acceleration (g) or rotation (degrees a second), float32 (1, 3).

    Raises:
        DeviceError: MALFORMED: not 12 bytes.
    """
    if len(body) != 12:
        raise malformed("gForce motion packet", body)
    return (interleaved(body, "<i4", 3) / 65536).astype(np.float32)
