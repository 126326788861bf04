"""Mudra Link: three channels with the device's own clock at the end of every packet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge_edge.bands.protocol.octets import BATTERY_LEVEL, interleaved, malformed, uuid16
from embridge_shared.errors import ConfigError

SERVICE = uuid16(0xFFF0)
COMMAND = uuid16(0xFFF1)
"""Read, write, notify."""
LOG = uuid16(0xFFF2)
SNC = uuid16(0xFFF4)
"""Notify: EMG."""
IMU = uuid16(0xFFF5)
"""Notify: motion."""
MESSAGE = uuid16(0xFFF6)
BATTERY = BATTERY_LEVEL
CHARGING = uuid16(0x2A1A)
SERIAL_RIGHT = uuid16(0x2A25)
SERIAL_LEFT = uuid16(0x2A27)

CHANNELS = ("ulnar", "median", "radial")
RATE_HZ = 834.0
SAMPLES_PER_PACKET = 18
UV_PER_COUNT = 0.035
CLOCK_MODULUS = 1 << 32
"""The trailer counts µs and wraps after 71 minutes."""
IMU_CHANNELS = 6
IMU_RATE_HZ = 100.0

_TRAILER = 4
_SAMPLE = 2 * len(CHANNELS)


@dataclass(frozen=True, slots=True)
class Frame:
    """One EMG packet.

    Attributes:
        samples: int16 (n, 3), counts.
        device_us: The device's clock at its end, µs, modulo 2^32.
    """

    samples: NDArray[Any]
    device_us: int


def encode(frame: Frame) -> bytes:
    """Bytes of an EMG packet.

    Raises:
        ConfigError: Not (n, 3) samples, or none.
    """
    if frame.samples.ndim != 2 or frame.samples.shape[1] != len(CHANNELS) or not len(frame.samples):
        raise ConfigError(f"a Mudra packet holds (n, 3) samples, not {frame.samples.shape}")
    body = np.ascontiguousarray(frame.samples, "<i2").tobytes()
    return body + (frame.device_us % CLOCK_MODULUS).to_bytes(_TRAILER, "little")


def decode(data: bytes) -> Frame:
    """An EMG packet.

    Raises:
        DeviceError: MALFORMED: no whole samples before the clock.
    """
    if len(data) < _SAMPLE + _TRAILER or (len(data) - _TRAILER) % _SAMPLE:
        raise malformed("Mudra EMG packet", data)
    return Frame(interleaved(data[:-_TRAILER], "<i2", len(CHANNELS)), int.from_bytes(data[-_TRAILER:], "little"))


def encode_imu(samples: NDArray[Any]) -> bytes:
    """Bytes of a motion packet from int16 (n, 6): acceleration, rotation."""
    return np.ascontiguousarray(samples, "<i2").tobytes()


def decode_imu(data: bytes) -> NDArray[Any]:
    """Counts, int16 (n, 6), of a motion packet.

    Raises:
        DeviceError: MALFORMED: no whole samples.
    """
    if not data or len(data) % (2 * IMU_CHANNELS):
        raise malformed("Mudra motion packet", data)
    return interleaved(data, "<i2", IMU_CHANNELS)


def enable_snc(on: bool = True) -> bytes:
    """Bytes that turn EMG on or off."""
    return bytes((0x06, 0x00, on))


def enable_motion(on: bool = True) -> tuple[bytes, bytes]:
    """The two commands that turn acceleration and rotation on or off."""
    return bytes((0x07, 0x03, on)), bytes((0x07, 0x02, on))


def decode_enable(data: bytes) -> tuple[int, int, bool]:
    """(group, feature, on) of an enable command.

    Raises:
        DeviceError: MALFORMED: not one.
    """
    if len(data) != 3 or data[0] not in (0x06, 0x07) or data[2] > 1:
        raise malformed("Mudra command", data)
    return data[0], data[1], bool(data[2])


def serial_number(right: bytes, left: bytes) -> int:
    """The band's number from its two serial characteristics, hexadecimal text.

    Raises:
        DeviceError: MALFORMED: not hexadecimal.
    """
    try:
        return int(left.decode("ascii").strip("\0 "), 16) * 1_000_000 + int(right.decode("ascii").strip("\0 "), 16)
    except ValueError as error:
        raise malformed("Mudra serial number", right + left) from error
