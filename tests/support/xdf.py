"""XDF as LabRecorder writes it, for tests: https://github.com/sccn/xdf/wiki/Specifications."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

_FORMATS = {"int16": "<i2", "int32": "<i4", "float32": "<f4", "double64": "<f8"}


@dataclass
class XdfStream:
    """One stream: `values` is an array (n, channels), or a list of texts."""

    name: str
    kind: str
    format: str
    rate_hz: float
    stamps: np.ndarray
    values: object
    labels: tuple[str, ...] = ()
    unit: str = ""
    offsets: list[tuple[float, float]] = field(default_factory=list)

    @property
    def channels(self) -> int:
        return 1 if self.format == "string" else self.values.shape[1]


def write_xdf(path: Path, streams: list[XdfStream], datetime: str = "2025-10-09T08:53:20+0000") -> None:
    """Write a file."""
    body = b"XDF:" + _chunk(1, f"<info><version>1.0</version><datetime>{datetime}</datetime></info>".encode())
    for number, stream in enumerate(streams, 1):
        body += _chunk(2, _header(stream), number)
        for at, (time_s, offset) in enumerate(stream.offsets):
            body += _chunk(4, struct.pack("<dd", time_s, offset), number)
            assert at >= 0
        body += _chunk(3, _samples(stream), number)
        footer = f"<info><first_timestamp>{stream.stamps[0]}</first_timestamp><sample_count>{len(stream.stamps)}"
        body += _chunk(6, f"{footer}</sample_count></info>".encode(), number)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)


def _header(s: XdfStream) -> bytes:
    channels = "".join(f"<channel><label>{x}</label><unit>{s.unit}</unit></channel>" for x in s.labels)
    return (
        f"<info><name>{s.name}</name><type>{s.kind}</type><channel_count>{s.channels}</channel_count>"
        f"<nominal_srate>{s.rate_hz}</nominal_srate><channel_format>{s.format}</channel_format>"
        f"<source_id>x</source_id><hostname>h</hostname><desc><channels>{channels}</channels></desc></info>"
    ).encode()


def _samples(s: XdfStream) -> bytes:
    rows = []
    for i, stamp in enumerate(s.stamps):
        stamped = b"\x08" + struct.pack("<d", stamp)
        if s.format == "string":
            text = s.values[i].encode()
            rows.append(stamped + _length(len(text)) + text)
        else:
            rows.append(stamped + np.asarray(s.values[i]).astype(_FORMATS[s.format]).tobytes())
    return _length(len(rows)) + b"".join(rows)


def _chunk(tag: int, content: bytes, stream: int | None = None) -> bytes:
    inner = struct.pack("<H", tag) + (b"" if stream is None else struct.pack("<I", stream)) + content
    return _length(len(inner)) + inner


def _length(n: int) -> bytes:
    return b"\x01" + bytes([n]) if n < 256 else b"\x04" + struct.pack("<I", n)
