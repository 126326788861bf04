"""Bands that send packets over the Nordic UART service, described in TOML.

name = "lab-band"
rate_hz = 1000.0
channels = ["e0", "e1", "e2", "e3"]
unit = "µV"
scale = 0.195

[packet]
order = "little"
header = "HB"      # what comes before the samples, as in Python's struct
seq = 0            # which field of the header counts
counts = "packets"
sample = "h"       # type of one value; "i24" is a 24-bit integer
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_edge.bands.protocol.framing import Framer
from embridge_edge.bands.protocol.octets import malformed
from embridge_shared.errors import ConfigError, DataError, Reason
from embridge_shared.signal import Modality, SampleType, StreamSpec

SERVICE = "6e400001-b5a3-f393-e0a9-e50e24dcca9e"
WRITE = "6e400002-b5a3-f393-e0a9-e50e24dcca9e"
NOTIFY = "6e400003-b5a3-f393-e0a9-e50e24dcca9e"

_TYPES = {
    "b": ("i1", SampleType.INT16),
    "B": ("u1", SampleType.INT16),
    "h": ("i2", SampleType.INT16),
    "H": ("u2", SampleType.INT32),
    "i": ("i4", SampleType.INT32),
    "f": ("f4", SampleType.FLOAT32),
}
_I24 = "i24"
_COUNTERS = "BHIQ"
_HINT = "docs/bands.md describes every field; docs/examples/uart-band.toml is a working example."


class PacketLayout(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a packet is laid out: header, then samples, then trailer.

    Attributes:
        order: Byte order of all of it.
        header: Fields before the samples, as in Python's `struct`.
        trailer: Fields after them.
        seq: Index of the field of the header that counts; without one, loss is inferred from arrival times.
        counts: What it counts.
        modulus: Where it wraps; by default where its type does.
        sample: Type of one value: "b", "B", "h", "H", "i", "f" or "i24".
        samples: Samples a packet; as many as its length allows when 0.
        layout: Channel after channel within a sample, or sample after sample within a channel.
        framing: A notification is one packet, or the notifications are a stream that packets are cut from.
        begins: What every packet begins with, part of the header: text, or bytes as "hex:A0 5A".
        ends: What every packet ends with, part of the trailer.
    """

    order: Literal["little", "big"] = "little"
    header: str = ""
    trailer: str = ""
    seq: int | None = None
    counts: Literal["packets", "samples"] = "packets"
    modulus: int = 0
    sample: str = "h"
    samples: int = 0
    layout: Literal["interleaved", "planar"] = "interleaved"
    framing: Literal["notification", "stream"] = "notification"
    begins: str = ""
    ends: str = ""


class UartProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A band behind a UART-like service.

    Attributes:
        name: Model, as it stands in recordings.
        rate_hz: Samples a second.
        channels: Channel names in the order of the packet.
        packet: Layout of a packet.
        unit: Unit of `value * scale`.
        scale: Value times this is `unit`.
        calibrated: The scale is known, not guessed.
        advertised: The advertised name begins with this; any name when empty.
        service: UUID of the service.
        notify: UUID of the characteristic that sends.
        write: UUID of the characteristic that takes commands.
        start: Written to begin: text, or bytes as "hex:01 02".
        stop: Written to end.
        identify: Written to make it blink or vibrate.
    """

    name: str
    rate_hz: float
    channels: tuple[str, ...]
    packet: PacketLayout = PacketLayout()
    unit: str = "count"
    scale: float = 1.0
    calibrated: bool = False
    advertised: str = ""
    service: str = SERVICE
    notify: str = NOTIFY
    write: str = WRITE
    start: str = ""
    stop: str = ""
    identify: str = ""

    @property
    def spec(self) -> StreamSpec:
        """The stream it delivers."""
        kind = SampleType.INT32 if self.packet.sample == _I24 else _TYPES[self.packet.sample][1]
        return StreamSpec(
            name="emg",
            modality=Modality.EMG,
            channels=self.channels,
            rate_hz=self.rate_hz,
            dtype=kind,
            unit=self.unit,
            scale=self.scale,
            calibrated=self.calibrated,
            device=self.name,
        )


def load(path: Path) -> UartProfile:
    """Read and check a profile.

    Raises:
        ConfigError: It cannot be read, or cannot describe a packet; the message says what and where.
    """
    try:
        profile = msgspec.toml.decode(path.read_bytes(), type=UartProfile)
    except OSError as error:
        raise ConfigError(
            f"the band profile {path} cannot be read: {error.strerror}", reason=Reason.NOT_FOUND, hint="Check its path."
        ) from error
    except (msgspec.DecodeError, ValueError) as error:
        raise ConfigError(f"the band profile {path}: {error}", hint=_HINT) from error
    try:
        check(profile)
    except ConfigError as error:
        raise ConfigError(f"the band profile {path}: {error.message}", hint=_HINT) from error
    return profile


def check(profile: UartProfile) -> None:
    """Refuse a profile that cannot describe a packet.

    Raises:
        ConfigError: What is wrong.
    """
    packet = profile.packet
    if packet.sample not in {*_TYPES, _I24}:
        raise ConfigError(f"packet.sample {packet.sample!r} is none of {', '.join([*_TYPES, _I24])}", hint=_HINT)
    if not math.isfinite(profile.rate_hz) or not math.isfinite(profile.scale) or packet.samples < 0:
        raise ConfigError("rate_hz, scale and packet.samples must be finite, and not negative", hint=_HINT)
    try:
        _ = profile.spec
    except DataError as error:
        raise ConfigError(error.message, hint=_HINT) from error
    for key, text in (("header", packet.header), ("trailer", packet.trailer)):
        if text[:1] in "<>=!@" and text:
            raise ConfigError(f"packet.{key} {text!r} must not name a byte order; packet.order does", hint=_HINT)
        try:
            struct.calcsize(f"<{text}")
        except struct.error as error:
            raise ConfigError(f"packet.{key} {text!r}: {error}", hint=_HINT) from error
    for key in ("start", "stop", "identify"):
        command(getattr(profile, key))
    _check_framing(packet)
    _check_counter(packet)


def _check_framing(packet: PacketLayout) -> None:
    for key, text, fields in (("begins", packet.begins, packet.header), ("ends", packet.ends, packet.trailer)):
        size = struct.calcsize(f"<{fields}")
        if len(command(text)) > size:
            where = "header" if key == "begins" else "trailer"
            raise ConfigError(f"packet.{key} is longer than the {where}, which has {size} bytes", hint=_HINT)
    if packet.framing == "stream" and not (packet.begins and packet.samples):
        raise ConfigError("a stream is cut by packet.begins and packet.samples: both are needed", hint=_HINT)


def _check_counter(packet: PacketLayout) -> None:
    if packet.seq is None:
        if packet.modulus:
            raise ConfigError("packet.modulus needs packet.seq", hint=_HINT)
        return
    if packet.counts == "packets" and not packet.samples:
        raise ConfigError("packet.samples is needed where the counter counts packets", hint=_HINT)
    fields = _fields(packet.header)
    if not 0 <= packet.seq < len(fields):
        raise ConfigError(f"packet.seq {packet.seq}: the header has {len(fields)} fields, from 0", hint=_HINT)
    if fields[packet.seq] not in _COUNTERS:
        raise ConfigError(f"packet.seq {packet.seq} is no unsigned integer (B, H, I, Q)", hint=_HINT)
    widest = 1 << 8 * struct.calcsize(f"<{fields[packet.seq]}")
    if packet.modulus and not 2 <= packet.modulus <= widest:
        raise ConfigError(f"packet.modulus must be 2 to {widest} for this field", hint=_HINT)


def _fields(header: str) -> list[str]:
    """Type letters of the fields of a struct string, repeats written out; padding is no field."""
    fields, count = [], ""
    for letter in header.replace(" ", ""):
        if letter.isdigit():
            count += letter
            continue
        fields += [letter] * (1 if letter in "sp" else int(count or 1))
        count = ""
    return [f for f in fields if f != "x"]


def command(text: str) -> bytes:
    """Bytes of a command: text, or "hex:" and bytes.

    Raises:
        ConfigError: No hexadecimal bytes.
    """
    if not text.startswith("hex:"):
        return text.encode()
    try:
        return bytes.fromhex(text[4:])
    except ValueError as error:
        raise ConfigError(f"{text!r} holds no hexadecimal bytes", hint=_HINT) from error


class Codec:
    """Reads and writes the packets of a profile."""

    def __init__(self, profile: UartProfile) -> None:
        check(profile)
        self._packet = profile.packet
        self._channels = len(profile.channels)
        mark = "<" if profile.packet.order == "little" else ">"
        self._header = struct.Struct(mark + profile.packet.header)
        self._trailer = struct.Struct(mark + profile.packet.trailer)
        self._mark = mark
        self._value_bytes = 3 if profile.packet.sample == _I24 else np.dtype(_TYPES[profile.packet.sample][0]).itemsize
        self._dtype = profile.spec.dtype.numpy
        self._begins, self._ends = command(profile.packet.begins), command(profile.packet.ends)

    def framer(self) -> Framer | None:
        """What cuts notifications into packets; None where each is one."""
        if self._packet.framing == "notification":
            return None
        body = self._packet.samples * self._channels * self._value_bytes
        return Framer(self._header.size + body + self._trailer.size, self._begins, self._ends)

    @property
    def modulus(self) -> int:
        """Where the counter wraps, in its own units; 0 without one."""
        packet = self._packet
        if packet.seq is None:
            return 0
        return packet.modulus or 1 << 8 * struct.calcsize(f"<{_fields(packet.header)[packet.seq]}")

    def decode(self, data: bytes) -> tuple[int | None, NDArray[Any]]:
        """Counter, in its own units, and values (n, channels) of a packet.

        Raises:
            DeviceError: MALFORMED: the length does not fit, or it begins or ends otherwise.
        """
        width = self._value_bytes * self._channels
        size = len(data) - self._header.size - self._trailer.size
        n = size // width
        whole = size > 0 and size % width == 0 and self._packet.samples in (0, n)
        if not whole or not data.startswith(self._begins) or not data.endswith(self._ends):
            raise malformed("packet of the band profile", data)
        values = self._values(data[self._header.size : self._header.size + size])
        shaped = values.reshape(self._channels, n).T if self._packet.layout == "planar" else values.reshape(n, -1)
        counter = None if self._packet.seq is None else self._header.unpack_from(data)[self._packet.seq]
        return counter, shaped.astype(self._dtype)

    def _values(self, body: bytes) -> NDArray[Any]:
        if self._packet.sample != _I24:
            return np.frombuffer(body, self._mark + _TYPES[self._packet.sample][0])
        octets = np.frombuffer(body, np.uint8).reshape(-1, 3).astype(np.int32)
        low, middle, high = (0, 1, 2) if self._mark == "<" else (2, 1, 0)
        value = octets[:, high] << 16 | octets[:, middle] << 8 | octets[:, low]
        return value - ((value & 0x800000) << 1)

    def encode(self, counter: int, values: NDArray[Any]) -> bytes:
        """Bytes of a packet; the other fields are zero."""
        fields: list[Any] = [b"" if f in "sp" else 0 for f in _fields(self._packet.header)]
        if self._packet.seq is not None:
            fields[self._packet.seq] = counter % self.modulus
        ends = [b"" if f in "sp" else 0 for f in _fields(self._packet.trailer)]
        ordered = values.T if self._packet.layout == "planar" else values
        if self._packet.sample == _I24:
            order = self._packet.order
            body = b"".join(int(v).to_bytes(3, order, signed=True) for v in ordered.ravel())
        else:
            body = np.ascontiguousarray(ordered, self._mark + _TYPES[self._packet.sample][0]).tobytes()
        header, trailer = self._header.pack(*fields), self._trailer.pack(*ends)
        return (
            self._begins + header[len(self._begins) :] + body + trailer[: len(trailer) - len(self._ends)] + self._ends
        )
