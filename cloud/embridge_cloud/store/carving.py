"""Carving: chunks are found in the bytes of a file that no database can open any more.

A chunk names itself: magic, session, first sample, length and checksum. So it is found whatever became of the tables
around it. In a database file it may go on in another block, whose number stands at the end of the first.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import UUID

from embridge_cloud.store.ranges import RangeSet
from embridge_cloud.store.rows import ChunkRow
from embridge_shared.errors import DataError
from embridge_shared.wire import codec

HEADERS = 12288
"""Where the first block of a DuckDB file begins."""
BLOCK = 262144
"""Size of its blocks; the first 8 bytes are a checksum."""

_LINK = 8
_SESSION = slice(8, 24)
_LENGTH = slice(56, 60)


def carve(path: Path, wanted: Mapping[UUID, Mapping[int, RangeSet]], *, received_ns: int) -> Iterator[ChunkRow]:
    """Find chunks that are wanted, each once.

    Args:
        path: Any file.
        wanted: Samples by session and stream: a chunk is taken if all of its samples are among them. They are taken
            out of it as they are found.
        received_ns: Unix time the chunks are given as that of their arrival, ns.
    """
    if not path.exists() or path.stat().st_size < codec.HEADER.size:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
        at = memory.find(codec.MAGIC)
        while at >= 0:
            head = memory[at : at + codec.HEADER.size]
            if len(head) == codec.HEADER.size and UUID(bytes=head[_SESSION]) in wanted:
                size = codec.HEADER.size + int.from_bytes(head[_LENGTH], "little")
                row = _row(memory[at : at + size], wanted, received_ns)
                if row is None:
                    row = _row(_linked(memory, at, size), wanted, received_ns)
                if row is not None:
                    yield row
            at = memory.find(codec.MAGIC, at + 1)


def _linked(memory: mmap.mmap, at: int, size: int) -> bytes:
    """What begins at `at` and goes on from block to block, as far as it does."""
    found = b""
    while at >= HEADERS and len(found) < size:
        end = HEADERS + ((at - HEADERS) // BLOCK + 1) * BLOCK - _LINK
        found += memory[at : min(end, at + size - len(found))]
        number = int.from_bytes(memory[end : end + _LINK], "little")
        at = HEADERS + number * BLOCK + _LINK
        if at >= len(memory):
            break
    return found


def _row(payload: bytes, wanted: Mapping[UUID, Mapping[int, RangeSet]], received_ns: int) -> ChunkRow | None:
    try:
        chunk = codec.decode(payload)
    except DataError:
        return None
    ranges = wanted[chunk.session].get(chunk.stream)
    if ranges is None or not ranges.covers(chunk.first, chunk.end):
        return None
    ranges.discard(chunk.first, chunk.end)
    return ChunkRow.of(chunk, payload, received_ns)
