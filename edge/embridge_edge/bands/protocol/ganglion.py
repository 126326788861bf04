"""OpenBCI Ganglion: 4 channels at 200 Hz, packed into 18 or 19 bits, numbered.

Firmware 3 sends values, firmware 2 differences to the sample before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge_edge.bands.protocol.octets import malformed, uuid16
from embridge_shared.errors import ConfigError

SERVICE = uuid16(0xFE84)
DATA = "2d30c082-f39f-4ce6-923f-3484ea480596"
"""Notify: data packets."""
CONTROL = "2d30c083-f39f-4ce6-923f-3484ea480596"
"""Write: single letters."""

START, STOP = b"b", b"s"
CHANNELS = 4
RATE_HZ = 200
SAMPLES_PER_PACKET = 2
UV_PER_COUNT = 1.2e6 / (8388607 * 1.5 * 51)
MODULUS_V3 = 100 * SAMPLES_PER_PACKET
MODULUS_V2 = 1 + 100 * SAMPLES_PER_PACKET
"""A raw sample, then a hundred packets of two."""

_PACKET_BYTES = 20
_AXES = "zyx"


@dataclass(frozen=True, slots=True)
class Frame:
    """One data packet.

    Attributes:
        number: Its number within the turn, from 0; of firmware 2, 0 is the raw sample.
        bits: 18 or 19 a value; 24 is the raw sample of firmware 2.
        values: int32 (n, 4): 24-bit counts of firmware 3, differences of firmware 2.
        acceleration: (axis, counts of 0.016 g) where it holds one.
    """

    number: int
    bits: int
    values: NDArray[Any]
    acceleration: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Impedance:
    """Impedance of an electrode: 1 to 4 are channels, 5 the reference; as the device tells it."""

    electrode: int
    ohm: int


def _unpack(body: bytes, bits: int) -> NDArray[np.int32]:
    """Eight numbers of `bits`, most significant bit first."""
    word = int.from_bytes(body, "big") >> (8 * len(body) - 8 * bits)
    sign, top = 1 << (bits - 1), 1 << bits
    codes = [(word >> (bits * (7 - i))) & (top - 1) for i in range(8)]
    # The device writes the sign into the lowest bit too, so negative numbers come one too high.
    return np.array([c - top - 1 if c & sign else c for c in codes], np.int32).reshape(2, CHANNELS)


def _pack(values: NDArray[Any], bits: int, length: int) -> bytes:
    half = 1 << (bits - 1)
    word = 0
    for value in map(int, np.asarray(values).ravel()):
        if not -half - 1 <= value < half or value == -1:
            raise ConfigError(f"{value} cannot be sent in {bits} bit")
        word = word << bits | (value + 1 if value < 0 else value) & ((1 << bits) - 1)
    return (word << (8 * length - 8 * bits)).to_bytes(length, "big")


def encode(frame: Frame, version: int = 3) -> bytes:
    """Bytes of a data packet.

    Raises:
        ConfigError: A value does not fit; -1 never does, the device has no code for it.
    """
    if frame.bits == 24:
        raw = b"".join(int(v).to_bytes(3, "big", signed=True) for v in frame.values.ravel())
        return bytes((0,)) + raw.ljust(_PACKET_BYTES - 1, b"\0")
    values = frame.values >> (24 - frame.bits) if version == 3 else frame.values
    number = frame.number + (100 if frame.bits == 19 else 0)
    if frame.bits == 19:
        return bytes((number,)) + _pack(values, 19, 19)
    tail = (frame.acceleration[1] if frame.acceleration else 0) & 0xFF
    return bytes((number,)) + _pack(values, 18, 18) + bytes((tail,))


def decode(data: bytes, version: int = 3) -> Frame | Impedance:
    """A packet of a firmware of `version`.

    Raises:
        DeviceError: MALFORMED: another length or number.
    """
    if len(data) >= 3 and 200 < data[0] < 206:
        return _impedance(data)
    if len(data) != _PACKET_BYTES or data[0] > (199 if version == 3 else 200):
        raise malformed("Ganglion packet", data)
    number = data[0]
    if version == 2 and number == 0:
        raw = [int.from_bytes(data[1 + 3 * i : 4 + 3 * i], "big", signed=True) for i in range(CHANNELS)]
        return Frame(0, 24, np.array([raw], np.int32))
    first = 100 if version == 3 else 101
    bits = 18 if number < first else 19
    values = _unpack(data[1:19] if bits == 18 else data[1:], bits)
    if version == 3:
        values = values << (24 - bits)
    number -= 100 if bits == 19 else 0
    axis = number % 10
    signed = data[19] - 256 if data[19] > 127 else data[19]
    acceleration = (_AXES[axis], signed) if bits == 18 and axis < len(_AXES) else None
    return Frame(number, bits, values, acceleration)


def _impedance(data: bytes) -> Impedance:
    text, end, _ = data[1:].partition(b"Z")
    if not end or not text.isdigit():
        raise malformed("Ganglion impedance", data)
    return Impedance(data[0] - 200, int(text))


def version_of(revision: bytes) -> int:
    """Which packets a software revision sends, 2 or 3.

    Raises:
        DeviceError: MALFORMED: no version at all.
    """
    major = revision.decode("ascii", "replace").strip("\0 vV").partition(".")[0]
    if not major.isdigit():
        raise malformed("Ganglion software revision", revision)
    return 3 if int(major) >= 3 else 2


class Differences:
    """Adds up the differences that firmware 2 sends; after loss nothing is known until the next raw sample."""

    def __init__(self) -> None:
        self._last: NDArray[np.int32] | None = None
        self._number = 0

    def values(self, frame: Frame) -> NDArray[np.int32] | None:
        """24-bit counts of a packet, int32 (n, 4), or None while the level is unknown."""
        if frame.bits == 24:
            self._last, self._number = frame.values[0], 0
            return frame.values
        known, self._number = frame.number == self._number + 1, frame.number
        if self._last is None or not known:
            self._last = None
            return None
        rows = self._last - np.cumsum(frame.values, axis=0, dtype=np.int32)
        self._last = rows[-1]
        return rows
