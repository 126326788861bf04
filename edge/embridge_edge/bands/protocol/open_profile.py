"""EMBridge's own open GATT profile: 16 channels at 2 kHz, two counters in every packet.

The specification is docs/band-profile.md.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge_edge.bands.protocol.octets import interleaved, malformed
from embridge_shared.errors import ConfigError

_BASE = "7a1f{:04x}-5c3e-4d2b-9e86-0b5a6d1c42e7"

SERVICE = _BASE.format(1)
DATA = _BASE.format(2)
"""Notify: data packets."""
CONTROL = _BASE.format(3)
"""Write with response: commands."""
INFO = _BASE.format(4)
"""Read: `Info`."""

VERSION = 1
CHANNELS = 16
RATE_HZ = 2000
UV_PER_COUNT = 0.195
SAMPLES_PER_PACKET = 7
"""What fits a notification at MTU 247: 244 - 8 bytes over 32 bytes a sample."""
SEQ_MODULUS = 1 << 16
SAMPLE_MODULUS = 1 << 32

_HEADER = struct.Struct("<HIBB")
_INFO = struct.Struct("<BBHfBBHI")

ERROR_UNKNOWN_COMMAND = 0x80
"""ATT application error: no such command."""
ERROR_BAD_LENGTH = 0x81
"""ATT application error: the command has another length."""


class Flags(IntFlag):
    """What a data packet says about itself."""

    RESTARTED = 0x01
    """First packet since the sample counter began at 0."""
    OVERFLOW = 0x02
    """The firmware's queue overflowed before this packet."""
    TRIGGER = 0x04
    """The sync input was high during this packet."""
    LEAD_OFF = 0x08
    """An electrode has no contact."""


_NO_FLAGS = Flags(0)


class Command(IntEnum):
    """First byte of a write to the control characteristic."""

    STOP = 0x00
    START = 0x01
    IDENTIFY = 0x02


@dataclass(frozen=True, slots=True)
class Info:
    """What the information characteristic tells.

    Attributes:
        version: Of the profile.
        channels: Channels a sample.
        rate_hz: Samples a second.
        uv_per_count: Scale, µV.
        firmware: (major, minor).
        samples_per_packet: Most samples the band puts into a notification.
        serial: Serial number.
    """

    version: int = VERSION
    channels: int = CHANNELS
    rate_hz: int = RATE_HZ
    uv_per_count: float = UV_PER_COUNT
    firmware: tuple[int, int] = (1, 0)
    samples_per_packet: int = SAMPLES_PER_PACKET
    serial: int = 0


@dataclass(frozen=True, slots=True)
class Frame:
    """One data packet.

    Attributes:
        seq: Packets sent since the counter began, modulo 2^16.
        first: Index of the first sample, modulo 2^32.
        samples: int16 (n, channels), counts.
        flags: What else it says.
    """

    seq: int
    first: int
    samples: NDArray[Any]
    flags: Flags = _NO_FLAGS


def encode(frame: Frame) -> bytes:
    """Bytes of a data packet.

    Raises:
        ConfigError: It holds no sample or more than 255.
    """
    n = len(frame.samples)
    if not 0 < n < 256:
        raise ConfigError(f"a packet holds 1 to 255 samples, not {n}")
    header = _HEADER.pack(frame.seq % SEQ_MODULUS, frame.first % SAMPLE_MODULUS, n, frame.flags)
    return header + np.ascontiguousarray(frame.samples, "<i2").tobytes()


def decode(data: bytes, channels: int = CHANNELS) -> Frame:
    """A data packet from its bytes.

    Raises:
        DeviceError: MALFORMED: it does not hold the samples it announces.
    """
    if len(data) < _HEADER.size:
        raise malformed("data packet of the open profile", data)
    seq, first, n, flags = _HEADER.unpack_from(data)
    body = data[_HEADER.size :]
    if n == 0 or flags & ~0x0F or len(body) != 2 * n * channels:
        raise malformed("data packet of the open profile", data)
    return Frame(seq, first, interleaved(body, "<i2", channels), Flags(flags))


def encode_info(info: Info) -> bytes:
    """Bytes of the information characteristic."""
    return _INFO.pack(
        info.version,
        info.channels,
        info.rate_hz,
        info.uv_per_count,
        *info.firmware,
        info.samples_per_packet,
        info.serial,
    )


def decode_info(data: bytes) -> Info:
    """The information characteristic from its bytes; later versions may append fields.

    Raises:
        DeviceError: MALFORMED: too short, or it speaks of no channels, no rate or no scale.
    """
    if len(data) < _INFO.size:
        raise malformed("information of the open profile", data)
    version, channels, rate_hz, uv_per_count, major, minor, per_packet, serial = _INFO.unpack_from(data)
    if not channels or not rate_hz or not 0 < uv_per_count < np.inf:
        raise malformed("information of the open profile", data)
    return Info(version, channels, rate_hz, uv_per_count, (major, minor), per_packet, serial)


def encode_command(command: Command, argument: int = 0) -> bytes:
    """Bytes of a command; only IDENTIFY has an argument, how often to blink."""
    return bytes((command, argument)) if command is Command.IDENTIFY else bytes((command,))


def decode_command(data: bytes) -> tuple[Command, int]:
    """A command and its argument.

    Raises:
        DeviceError: MALFORMED: unknown, or of another length.
    """
    if not data or data[0] not in set(Command):
        raise malformed("command of the open profile", data)
    command = Command(data[0])
    if len(data) != (2 if command is Command.IDENTIFY else 1):
        raise malformed("command of the open profile", data)
    return command, data[1] if len(data) > 1 else 0
