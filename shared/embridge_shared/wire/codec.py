"""Chunks as bytes: a fixed little-endian header with a CRC, arrival pairs, and the samples.

Header (64 bytes):

    offset size field
    0      4    magic "EMBR"
    4      1    version (1)
    5      1    codec: 0 raw, 1 transpose-delta-zigzag-shuffle-zstd
    6      1    sample type: 0 int16, 1 int32, 2 float32
    7      1    flags: bit 0, the length of the gap before it is an estimate; the others 0
    8      16   session id
    24     2    stream ordinal
    26     2    channels
    28     4    samples
    32     8    index of the first sample
    40     8    Unix time of the first sample, ns, signed; not before 1970
    48     4    samples lost just before the first
    52     4    arrival pairs
    56     4    body length
    60     4    crc32 of bytes 0..59 and the body

A reader ignores flags it does not know: none changes how the rest is read.

The body is the arrival pairs (u32 offset of the packet's last sample from `first`, then i64 host ns, column by
column), then the samples. Codec 1 stores each channel's differences; on EMG it comes within a few per cent of the
signal's order-0 entropy. float32 goes through it bit by bit as int32, so every codec is lossless.
"""

from __future__ import annotations

import struct
import threading
import zlib
from functools import lru_cache
from typing import Any, Final, NamedTuple
from uuid import UUID

import numpy as np
import zstandard
from numpy.typing import NDArray

from embridge_shared.errors import DataError, Reason
from embridge_shared.signal import Arrivals, Chunk, SampleType

HEADER: Final = struct.Struct("<4sBBBB16sHHIQqIIII")
MAGIC: Final = b"EMBR"
VERSION: Final = 1
RAW: Final = 0
DELTA_ZSTD: Final = 1
GAP_INFERRED: Final = 1
MAX_SAMPLE_BYTES: Final = 16 << 20

_TYPES: Final = (SampleType.INT16, SampleType.INT32, SampleType.FLOAT32)
_WIDTHS: Final = {t: t.numpy.itemsize for t in _TYPES}
_PAIR_BYTES: Final = 12
_MAX_INDEX: Final = 1 << 62

_own = threading.local()


def encode(chunk: Chunk, codec: int = DELTA_ZSTD) -> bytes:
    """Encode a chunk.

    Raises:
        DataError: Its samples are of no storable type, or it is larger than a message may be.
    """
    try:
        sample_type = SampleType(chunk.samples.dtype.name)
    except ValueError:
        raise DataError(f"samples of {chunk.samples.dtype} cannot be stored", reason=Reason.WRONG_SHAPE) from None
    if chunk.samples.nbytes > MAX_SAMPLE_BYTES:
        raise DataError(f"a chunk of {chunk.samples.nbytes} bytes is too large", reason=Reason.WRONG_SHAPE)
    samples = np.ascontiguousarray(chunk.samples, dtype=sample_type.numpy)
    packed = samples.tobytes() if codec == RAW else _compress(samples)
    offsets = (chunk.arrivals.index - chunk.first).astype("<u4")
    body = offsets.tobytes() + chunk.arrivals.host_ns.astype("<i8").tobytes() + packed
    fields = (
        MAGIC, VERSION, codec, _TYPES.index(sample_type), GAP_INFERRED if chunk.gap_inferred else 0,
        chunk.session.bytes, chunk.stream,
        samples.shape[1], samples.shape[0], chunk.first, chunk.t0_ns, chunk.gap_before, len(chunk.arrivals),
        len(body),
    )  # fmt: skip
    crc = zlib.crc32(body, zlib.crc32(HEADER.pack(*fields, 0)[:-4]))
    return HEADER.pack(*fields, crc) + body


class Head(NamedTuple):
    """What a chunk's header says.

    Attributes:
        session: The session it belongs to.
        stream: Ordinal of the stream in the session.
        first: Index of the first sample.
        n: Samples.
        channels: Channels.
        sample_type: Type of a sample.
        t0_ns: Unix time of the first sample, ns.
        gap_before: Samples lost just before the first.
        gap_inferred: How many were lost is an estimate.
        crc: The checksum.
        codec: How the samples are packed.
        pairs: Arrival pairs.
    """

    session: UUID
    stream: int
    first: int
    n: int
    channels: int
    sample_type: SampleType
    t0_ns: int
    gap_before: int
    gap_inferred: bool
    crc: int
    codec: int
    pairs: int

    @property
    def end(self) -> int:
        """Index after the last sample."""
        return self.first + self.n

    @property
    def sample_bytes(self) -> int:
        """Size of the samples when they are not packed."""
        return self.n * self.channels * _WIDTHS[self.sample_type]


def decode(payload: bytes) -> Chunk:
    """Decode and check a chunk.

    Raises:
        DataError: It is foreign, truncated, damaged, of a later version, or its counts do not add up. The reason
            tells which.
    """
    head, body = _open(payload)
    split, end = head.pairs * 4, head.pairs * _PAIR_BYTES
    arrivals = Arrivals(
        np.frombuffer(body[:split], "<u4").astype(np.int64) + head.first,
        np.frombuffer(body[split:end], "<i8").astype(np.int64),
    )
    samples = _unpack(_flat(head, body[end:]), head)
    return Chunk(
        head.session, head.stream, head.first, samples, head.t0_ns, head.gap_before, arrivals, head.gap_inferred
    )


def check(payload: bytes) -> Head:
    """Check a chunk as `decode` does, at a third of its cost: the samples are unpacked, not put together.

    Raises:
        DataError: As `decode` does, and a chunk without samples or with a gap from before the stream began.
    """
    head, body = _open(payload)
    _flat(head, body[head.pairs * _PAIR_BYTES :])
    if not head.n or not head.channels:
        raise DataError(
            f"a chunk holds (n, channels) samples, not {(head.n, head.channels)}", reason=Reason.WRONG_SHAPE
        )
    if head.gap_before > head.first:
        raise DataError(f"chunk at {head.first} cannot follow a gap of {head.gap_before}")
    return head


@lru_cache(4096)
def _uuid(raw: bytes) -> UUID:
    """A session's id: a stream's chunks all name the same."""
    return UUID(bytes=raw)


def _open(payload: bytes) -> tuple[Head, memoryview]:
    """Header and body of a chunk that is whole."""
    if payload[:4] != MAGIC:
        raise DataError("the payload is no EMBridge chunk", reason=Reason.FOREIGN)
    if len(payload) < HEADER.size:
        raise DataError(f"a chunk of {len(payload)} bytes ends in its header", reason=Reason.TRUNCATED)
    (_, version, codec, type_code, flags, session, stream, channels, n, first, t0_ns, gap, pairs, length, crc) = (
        HEADER.unpack_from(payload)
    )
    if version != VERSION or codec not in (RAW, DELTA_ZSTD) or type_code >= len(_TYPES):
        raise DataError(
            f"chunk version {version}, codec {codec}, sample type {type_code}: this version speaks {VERSION}",
            reason=Reason.UNSUPPORTED_VERSION,
            hint="Update this side.",
        )
    body = memoryview(payload)[HEADER.size :]
    if len(body) != length:
        raise DataError(f"a chunk body of {len(body)} bytes should have {length}", reason=Reason.TRUNCATED)
    if zlib.crc32(body, zlib.crc32(payload[: HEADER.size - 4])) != crc:
        raise DataError("the chunk's checksum does not match", reason=Reason.CHECKSUM)
    if first + n > _MAX_INDEX or t0_ns < 0:
        raise DataError(f"no stream has a sample {first} at {t0_ns} ns", reason=Reason.MALFORMED)
    inferred = bool(flags & GAP_INFERRED)
    head = Head(_uuid(session), stream, first, n, channels, _TYPES[type_code], t0_ns, gap, inferred, crc, codec, pairs)
    if head.sample_bytes > MAX_SAMPLE_BYTES or pairs * _PAIR_BYTES > length:
        raise DataError(f"{n} × {channels} samples cannot be in this chunk", reason=Reason.SAMPLE_COUNT)
    return head, body


def _compress(samples: NDArray[Any]) -> bytes:
    width = samples.dtype.itemsize
    bits = samples.view(f"<i{width}").T
    delta = np.diff(bits, axis=1, prepend=np.zeros((bits.shape[0], 1), bits.dtype))
    zigzag = ((delta << 1) ^ (delta >> (8 * width - 1))).view(f"<u{width}")
    shuffled = zigzag.reshape(-1, 1).view(np.uint8).T
    return zstandard.ZstdCompressor(level=1).compress(shuffled.tobytes())


def _flat(head: Head, packed: memoryview) -> bytes | memoryview:
    """The bytes of the samples, still shuffled where the codec shuffles."""
    size = head.sample_bytes
    if head.codec == RAW:
        if len(packed) != size:
            raise _wrong_count(len(packed), size)
        return packed
    try:
        # An honest frame states its size; the limit keeps a hostile one from filling the memory.
        if zstandard.frame_content_size(bytes(packed[:18])) != size:
            raise _wrong_count(zstandard.frame_content_size(bytes(packed[:18])), size)
        flat = _unpacker().decompress(packed, max_output_size=size)
    except zstandard.ZstdError as error:
        raise DataError(f"the chunk's samples cannot be unpacked: {error}", reason=Reason.MALFORMED) from error
    if len(flat) != size:
        raise _wrong_count(len(flat), size)
    return flat


def _unpacker() -> zstandard.ZstdDecompressor:
    """The decompressor of this thread: to make one costs half as much as to use it."""
    found: zstandard.ZstdDecompressor | None = getattr(_own, "unpacker", None)
    if found is None:
        found = _own.unpacker = zstandard.ZstdDecompressor()
    return found


def _unpack(flat: bytes | memoryview, head: Head) -> NDArray[Any]:
    dtype, shape = head.sample_type.numpy, (head.n, head.channels)
    if head.codec == RAW:
        return np.frombuffer(flat, dtype).reshape(shape)
    width = dtype.itemsize
    shuffled = np.frombuffer(flat, np.uint8).reshape(width, head.n * head.channels)
    zigzag = np.ascontiguousarray(shuffled.T).view(f"<u{width}").reshape(head.channels, head.n)
    delta = (zigzag >> 1) ^ (-(zigzag & 1).astype(f"<i{width}")).view(f"<u{width}")
    bits = np.cumsum(delta.view(f"<i{width}"), axis=1, dtype=f"<i{width}")
    return np.ascontiguousarray(bits.T).view(dtype)


def _wrong_count(got: int, expected: int) -> DataError:
    return DataError(f"{got} bytes of samples where the header says {expected}", reason=Reason.SAMPLE_COUNT)
