"""What pose senders put into a datagram: JSON, or OSC 1.0. Bytes in, frames out; nothing here raises on bad bytes.

JSON: `{"frame": 17, "pose": [20 angles]}` or `{"frame": 17, "glove": [22 counts]}`; other members are ignored.
OSC: one int32, the frame, then the values as float32, float64 or int32, in one message or in several of a bundle.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

COUNTER = 1 << 32
"""Frame numbers wrap here."""

_MOST = 1e6
_MAX_DEPTH = 4
_BUNDLE = b"#bundle\0"
_SIZES = {"i": 4, "f": 4, "d": 8, "h": 8}


class Fault(StrEnum):
    """Why a datagram is no frame."""

    NOT_JSON = "not JSON"
    NO_FRAME = "no frame number"
    NO_VALUES = "no list of values"
    WRONG_COUNT = "wrong number of values"
    NOT_FINITE = "values that are no numbers of a sane size"
    NOT_OSC = "not OSC"
    WRONG_ADDRESS = "another OSC address"
    WRONG_TYPES = "OSC arguments that are no numbers"
    OTHER_SENDER = "a second sender"


@dataclass(frozen=True, slots=True)
class Frame:
    """One pose.

    Attributes:
        number: Counted by the sender, modulo 2^32.
        values: float32 (n,).
    """

    number: int
    values: NDArray[np.float32]


def from_json(data: bytes, key: str, n: int) -> Frame | Fault:
    """The frame in a JSON datagram.

    Args:
        data: The datagram.
        key: Member that holds the values, "pose" or "glove".
        n: How many there must be.
    """
    try:
        told = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Fault.NOT_JSON
    if not isinstance(told, dict):
        return Fault.NO_FRAME
    number, values = told.get("frame"), told.get(key)
    if type(number) is not int or not 0 <= number < 1 << 63:
        return Fault.NO_FRAME
    if not isinstance(values, list) or not all(type(v) in (int, float) for v in values):
        return Fault.NO_VALUES
    return _frame(number, values, n)


def from_osc(data: bytes, address: str, n: int) -> list[Frame | Fault]:
    """The frames in an OSC datagram, one a message.

    Args:
        data: The datagram.
        address: Messages to others are faults.
        n: How many values there must be after the frame number.
    """
    try:
        messages = list(_messages(data, 0))
    except (ValueError, struct.error):
        return [Fault.NOT_OSC]
    return [_osc_frame(to, arguments, address, n) for to, arguments in messages]


def _osc_frame(to: str, arguments: list[Any] | None, address: str, n: int) -> Frame | Fault:
    if to != address:
        return Fault.WRONG_ADDRESS
    if arguments is None:
        return Fault.WRONG_TYPES
    if not arguments or not isinstance(arguments[0], int):
        return Fault.NO_FRAME
    return _frame(arguments[0] % COUNTER, arguments[1:], n)


def _frame(number: int, values: list[Any], n: int) -> Frame | Fault:
    if len(values) != n:
        return Fault.WRONG_COUNT
    try:
        array = np.array(values, np.float64)
    except OverflowError:
        return Fault.NOT_FINITE
    if not (np.abs(array) < _MOST).all():
        return Fault.NOT_FINITE
    return Frame(number % COUNTER, array.astype(np.float32))


def _messages(data: bytes, depth: int) -> Iterator[tuple[str, list[Any] | None]]:
    """Address and arguments of every message, None for arguments of other types; ValueError where it is no OSC."""
    if not data.startswith(_BUNDLE):
        yield _message(data)
        return
    if depth == _MAX_DEPTH or len(data) < 16:
        raise ValueError("no bundle")
    at = 16
    while at < len(data):
        (size,) = struct.unpack_from(">i", data, at)
        if size <= 0 or size % 4 or at + 4 + size > len(data):
            raise ValueError("an element of no size")
        yield from _messages(data[at + 4 : at + 4 + size], depth + 1)
        at += 4 + size


def _message(data: bytes) -> tuple[str, list[Any] | None]:
    address, at = _string(data, 0)
    if not address.startswith("/"):
        raise ValueError("no address")
    types, at = _string(data, at)
    if not types.startswith(","):
        raise ValueError("no types")
    if any(t not in _SIZES for t in types[1:]):
        return address, None
    arguments = []
    for t in types[1:]:
        (value,) = struct.unpack_from({"h": ">q"}.get(t, f">{t}"), data, at)
        arguments.append(value)
        at += _SIZES[t]
    if at != len(data):
        raise ValueError("bytes after the arguments")
    return address, arguments


def _string(data: bytes, at: int) -> tuple[str, int]:
    """An OSC string and the place after its padding; ValueError when it does not end."""
    end = data.index(b"\0", at)
    return data[at:end].decode("ascii"), end + 4 - end % 4
