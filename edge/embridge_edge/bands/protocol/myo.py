"""Thalmic Myo: EMG in rotation over four characteristics, no counter."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge_edge.bands.protocol.octets import BATTERY_LEVEL, interleaved, malformed, need
from embridge_shared.errors import ConfigError

_BASE = "d506{:04x}-a904-deb9-4748-2c7f4a124842"

CONTROL_SERVICE = _BASE.format(0x0001)
"""Advertised; holds information, firmware version and command."""
INFO = _BASE.format(0x0101)
FIRMWARE = _BASE.format(0x0201)
COMMAND = _BASE.format(0x0401)
IMU_SERVICE = _BASE.format(0x0002)
IMU = _BASE.format(0x0402)
MOTION = _BASE.format(0x0502)
CLASSIFIER_SERVICE = _BASE.format(0x0003)
CLASSIFIER = _BASE.format(0x0103)
FV_SERVICE = _BASE.format(0x0004)
FV = _BASE.format(0x0104)
EMG_SERVICE = _BASE.format(0x0005)
EMG = tuple(_BASE.format(0x0105 + 0x100 * i) for i in range(4))
"""In the order of their rotation."""
BATTERY = BATTERY_LEVEL

HANDLES = {
    BATTERY: 0x11,
    INFO: 0x15,
    FIRMWARE: 0x17,
    COMMAND: 0x19,
    IMU: 0x1C,
    CLASSIFIER: 0x23,
    FV: 0x27,
    EMG[0]: 0x2B,
    EMG[1]: 0x2E,
    EMG[2]: 0x31,
    EMG[3]: 0x34,
}
"""Value handles on the device."""

CHANNELS = 8
RATE_HZ = 200
SAMPLES_PER_PACKET = 2
IMU_RATE_HZ = 50
QUATERNION_SCALE = 16384.0
ACCELERATION_SCALE = 2048.0
"""Counts a g."""
ROTATION_SCALE = 16.0
"""Counts a degree a second."""

_INFO = struct.Struct("<6sHBBBBB7s")
_FIRMWARE = struct.Struct("<4H")
_FV = struct.Struct("<8HB")


class Op(IntEnum):
    """Commands."""

    SET_MODE = 0x01
    VIBRATE = 0x03
    DEEP_SLEEP = 0x04
    LED = 0x06
    VIBRATE2 = 0x07
    SLEEP_MODE = 0x09
    UNLOCK = 0x0A
    USER_ACTION = 0x0B


_PAYLOADS = {
    Op.SET_MODE: 3,
    Op.VIBRATE: 1,
    Op.DEEP_SLEEP: 0,
    Op.LED: 6,
    Op.VIBRATE2: 18,
    Op.SLEEP_MODE: 1,
    Op.UNLOCK: 1,
    Op.USER_ACTION: 1,
}


class EmgMode(IntEnum):
    """What the EMG service sends."""

    OFF = 0
    FV = 1
    FILTERED = 2
    RAW = 3


class ImuMode(IntEnum):
    """What the IMU service sends."""

    OFF = 0
    DATA = 1
    EVENTS = 2
    ALL = 3
    RAW = 4


@dataclass(frozen=True, slots=True)
class Command:
    """One write to the command characteristic."""

    op: Op
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Info:
    """The information characteristic, 20 bytes."""

    serial: bytes
    unlock_pose: int = 0
    classifier_type: int = 0
    classifier_index: int = 0
    has_custom: bool = False
    stream_indicating: bool = False
    sku: int = 0


@dataclass(frozen=True, slots=True)
class Firmware:
    """Version of the firmware and revision of the hardware."""

    major: int
    minor: int
    patch: int
    hardware: int


def encode_emg(samples: NDArray[Any]) -> bytes:
    """Bytes of one EMG notification from int8 (2, 8) counts.

    Raises:
        ConfigError: Another shape.
    """
    if samples.shape != (SAMPLES_PER_PACKET, CHANNELS):
        raise ConfigError(f"a Myo packet holds (2, 8) samples, not {samples.shape}")
    return np.ascontiguousarray(samples, np.int8).tobytes()


def decode_emg(data: bytes) -> NDArray[np.int8]:
    """Counts, int8 (2, 8), of one EMG notification.

    Raises:
        DeviceError: MALFORMED: not 16 bytes.
    """
    need("Myo EMG packet", data, SAMPLES_PER_PACKET * CHANNELS)
    return interleaved(data, "i1", CHANNELS)


def encode_imu(values: NDArray[Any]) -> bytes:
    """Bytes of one IMU notification from int16 (10,): quaternion w x y z, acceleration, rotation."""
    return np.ascontiguousarray(values, "<i2").tobytes()


def decode_imu(data: bytes) -> NDArray[Any]:
    """Counts, int16 (1, 10), of one IMU notification.

    Raises:
        DeviceError: MALFORMED: not 20 bytes.
    """
    need("Myo IMU packet", data, 20)
    return interleaved(data, "<i2", 10)


def encode_fv(values: NDArray[Any], mask: int = 0xFF) -> bytes:
    """Bytes of one smoothed-EMG notification from uint16 (8,)."""
    return _FV.pack(*map(int, values), mask)


def decode_fv(data: bytes) -> tuple[NDArray[Any], int]:
    """Smoothed EMG, uint16 (1, 8), and its mask.

    Raises:
        DeviceError: MALFORMED: not 17 bytes.
    """
    need("Myo FV packet", data, _FV.size)
    return interleaved(data[:16], "<u2", CHANNELS), data[16]


def encode_info(info: Info) -> bytes:
    """Bytes of the information characteristic."""
    return _INFO.pack(
        info.serial,
        info.unlock_pose,
        info.classifier_type,
        info.classifier_index,
        info.has_custom,
        info.stream_indicating,
        info.sku,
        bytes(7),
    )


def decode_info(data: bytes) -> Info:
    """The information characteristic.

    Raises:
        DeviceError: MALFORMED: not 20 bytes.
    """
    need("Myo information", data, _INFO.size)
    serial, pose, kind, index, custom, indicating, sku, _ = _INFO.unpack(data)
    return Info(serial, pose, kind, index, bool(custom), bool(indicating), sku)


def encode_firmware(firmware: Firmware) -> bytes:
    """Bytes of the firmware version."""
    return _FIRMWARE.pack(firmware.major, firmware.minor, firmware.patch, firmware.hardware)


def decode_firmware(data: bytes) -> Firmware:
    """The firmware version.

    Raises:
        DeviceError: MALFORMED: not 8 bytes.
    """
    need("Myo firmware version", data, _FIRMWARE.size)
    return Firmware(*_FIRMWARE.unpack(data))


def encode_command(command: Command) -> bytes:
    """Bytes of a command: code, length, payload."""
    return bytes((command.op, len(command.payload))) + command.payload


def decode_command(data: bytes) -> Command:
    """A command.

    Raises:
        DeviceError: MALFORMED: unknown, or its length is not the announced one or not that of the command.
    """
    if len(data) < 2 or data[0] not in set(Op) or len(data) != 2 + data[1]:
        raise malformed("Myo command", data)
    op = Op(data[0])
    if data[1] != _PAYLOADS[op]:
        raise malformed(f"Myo command {op.name}", data)
    return Command(op, bytes(data[2:]))


def set_mode(emg: EmgMode, imu: ImuMode = ImuMode.OFF, *, classifier: bool = False) -> bytes:
    """Bytes that choose what is sent."""
    return encode_command(Command(Op.SET_MODE, bytes((emg, imu, classifier))))


def never_sleep() -> bytes:
    """Bytes that keep the band awake."""
    return encode_command(Command(Op.SLEEP_MODE, b"\x01"))


def vibrate(strength: int = 2) -> bytes:
    """Bytes that let it vibrate, 1 (short) to 3 (long)."""
    return encode_command(Command(Op.VIBRATE, bytes((strength,))))


def led(logo: tuple[int, int, int], line: tuple[int, int, int]) -> bytes:
    """Bytes that colour its two lights, RGB each."""
    return encode_command(Command(Op.LED, bytes((*logo, *line))))


def unlock() -> bytes:
    """Bytes that hold it unlocked."""
    return encode_command(Command(Op.UNLOCK, b"\x02"))
