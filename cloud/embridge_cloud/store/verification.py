"""Whether a sealed session still is what was sealed: every digest, count and order computed anew."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_cloud.store.manifest import (
    INDEX,
    MANIFEST,
    TIME,
    ContentDigest,
    FileEntry,
    Manifest,
    StreamEntry,
    column_names,
    content_hash,
    file_sha256,
)
from embridge_cloud.store.ranges import Range, RangeSet
from embridge_shared.errors import DataError
from embridge_shared.session import SessionClosed, SessionOpened
from embridge_shared.signal import StreamSpec

if TYPE_CHECKING:
    import pyarrow as pa

    from embridge_cloud.store.sealed import SealedSession

_SPEC = b"embridge.stream"


class FaultKind(StrEnum):
    """What is wrong with a sealed session."""

    MISSING_FILE = "missing_file"
    CHANGED_FILE = "changed_file"
    FOREIGN_FILE = "foreign_file"
    UNREADABLE = "unreadable"
    MANIFEST = "manifest"
    RANGES = "ranges"
    CONTENT = "content"
    ORDER = "order"
    CLOCK = "clock"
    EVENTS = "events"
    QUALITY = "quality"
    RECORD = "record"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        kind: Machine-readable.
        where: File or stream.
        what: One sentence without its full stop.
    """

    kind: FaultKind
    where: str
    what: str


def faults(sealed: SealedSession) -> list[Fault]:
    """Everything that is wrong with a session; empty when nothing is."""
    check = _Check(sealed)
    return [*check.manifest(), *check.files(), *check.streams(), *check.arrivals(), *check.events(), *check.quality()]


class _Check:
    def __init__(self, sealed: SealedSession) -> None:
        self._sealed = sealed
        self._folder = sealed.directory
        self._manifest: Manifest = sealed.manifest

    def manifest(self) -> Iterator[Fault]:
        """Whether the manifest agrees with itself, its folder and the session's own events."""
        m = self._manifest
        names = [(e.stream, e.name) for e in m.streams]
        if names != [(i, s.name) for i, s in enumerate(m.session.streams)]:
            yield Fault(FaultKind.MANIFEST, MANIFEST, "its streams are not those of its session")
            return
        if self._folder.name != str(m.session.id):
            yield Fault(FaultKind.MANIFEST, MANIFEST, f"it is of session {m.session.id}, the folder is not")
        for e in m.streams:
            if tuple(RangeSet(e.gaps)) != e.gaps or (e.gaps and not 0 <= e.gaps[0][0] <= e.gaps[-1][1] <= e.total):
                yield Fault(FaultKind.MANIFEST, e.name, f"gaps {e.gaps} are no ranges of 0..{e.total}")
            elif e.total - RangeSet(e.gaps).count != e.rows:
                yield Fault(FaultKind.MANIFEST, e.name, f"{e.rows} rows and its gaps do not make {e.total} samples")
            if not set(e.inferred) <= set(e.gaps):
                yield Fault(FaultKind.MANIFEST, e.name, "an estimated gap is none of its gaps")
        if len(m.closed.totals) != len(m.streams) or any(
            e.total < t for e, t in zip(m.streams, m.closed.totals, strict=False)
        ):
            yield Fault(FaultKind.MANIFEST, MANIFEST, "the totals at its close are not those of its streams")

    def files(self) -> Iterator[Fault]:
        """Whether every file is there, is the one that was sealed, and no other is."""
        m = self._manifest
        parts: list[StreamEntry | FileEntry] = [*m.streams, *(s.arrivals for s in m.streams), m.events]
        if m.quality is not None:
            parts.append(m.quality)
        for part in parts:
            path = self._folder / part.file
            if os.path.basename(part.file) != part.file:  # noqa: PTH119
                yield Fault(FaultKind.MANIFEST, part.file, "a file of a session lies in its folder")
            elif not path.is_file():
                yield Fault(FaultKind.MISSING_FILE, part.file, "is missing")
            elif path.stat().st_size != part.bytes:
                yield Fault(FaultKind.CHANGED_FILE, part.file, f"has {path.stat().st_size} bytes, not {part.bytes}")
            elif file_sha256(path) != part.sha256:
                yield Fault(FaultKind.CHANGED_FILE, part.file, "is not the file that was sealed")
        known = {MANIFEST, *(p.file for p in parts)}
        for path in sorted(self._folder.iterdir()):
            if path.name not in known and stat.S_ISREG(path.lstat().st_mode):
                yield Fault(FaultKind.FOREIGN_FILE, path.name, "was not sealed")

    def streams(self) -> Iterator[Fault]:
        """Whether the streams hold the samples that were sealed, in order, in time, where the manifest says."""
        import pyarrow as pa

        contents = []
        for entry in self._manifest.streams:
            if not (self._folder / entry.file).is_file():
                continue
            try:
                digest, held, found = self._scan(entry)
            except (OSError, pa.ArrowException, KeyError, IndexError, ValueError, DataError) as error:
                yield Fault(FaultKind.UNREADABLE, entry.file, f"cannot be read: {error}")
                continue
            yield from found
            contents.append(digest)
            if held != entry.stored():
                yield Fault(FaultKind.RANGES, entry.name, f"holds {_few(held)}, not {_few(entry.stored())}")
            if digest != entry.content:
                yield Fault(FaultKind.CONTENT, entry.name, "has other samples than were sealed")
        complete = len(contents) == len(self._manifest.streams)
        if complete and content_hash(self._sealed.id, contents) != self._manifest.content_hash:
            yield Fault(FaultKind.CONTENT, MANIFEST, "the content hash does not match")

    def _scan(self, entry: StreamEntry) -> tuple[str, list[Range], list[Fault]]:
        """Content digest, stored ranges and disorder of a stream, a row group at a time."""
        import pyarrow.parquet as pq

        spec = self._manifest.session.streams[entry.stream]
        digest, held, last_t = ContentDigest(spec), RangeSet(), -(2**63)
        found: dict[FaultKind, Fault] = {}
        with pq.ParquetFile(self._folder / entry.file) as file:
            described = (file.schema_arrow.metadata or {}).get(_SPEC, b"null")
            if msgspec.json.decode(described, type=StreamSpec | None) != spec:
                found[FaultKind.MANIFEST] = Fault(FaultKind.MANIFEST, entry.name, "is described otherwise in its file")
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                index, t_ns = table[INDEX].to_numpy(), table[TIME].to_numpy()
                if not len(index):
                    continue
                if (np.diff(t_ns) < 0).any() or t_ns[0] < last_t:
                    found[FaultKind.CLOCK] = Fault(FaultKind.CLOCK, entry.name, "its time runs backwards")
                if (np.diff(index) <= 0).any() or index[0] < held.end:
                    found[FaultKind.ORDER] = Fault(FaultKind.ORDER, entry.name, "its index runs backwards")
                last_t = int(t_ns[-1])
                values = np.stack([table[c].to_numpy() for c in column_names(spec)], axis=1)
                for a, b in _runs(index):
                    digest.update(int(index[a]), values[a:b].astype(spec.dtype.numpy, copy=False))
                    held.add(int(index[a]), int(index[b - 1]) + 1)
        return digest.hexdigest(), list(held), list(found.values())

    def arrivals(self) -> Iterator[Fault]:
        """Whether the pairs a clock is fitted to are all there and speak of samples of their stream."""
        for entry in self._manifest.streams:
            name = entry.arrivals.file
            table = self._table(name)
            if isinstance(table, Fault):
                yield table
            if table is None or isinstance(table, Fault):
                continue
            if {"index", "host_ns"} - set(table.column_names):
                yield Fault(FaultKind.UNREADABLE, name, "holds no arrivals")
                continue
            index, host_ns = table["index"].to_numpy(), table["host_ns"].to_numpy()
            if len(index) != entry.arrivals.rows:
                yield Fault(FaultKind.CLOCK, name, f"holds {len(index)} pairs, not {entry.arrivals.rows}")
            if len(index) and not 0 <= index.min() <= index.max() < entry.total:
                yield Fault(FaultKind.CLOCK, name, f"speaks of samples outside 0..{entry.total}")
            if (np.diff(index) < 0).any() or (np.diff(host_ns) < 0).any():
                yield Fault(FaultKind.CLOCK, name, "its packets arrive backwards")

    def events(self) -> Iterator[Fault]:
        """Whether all events are there, and open and close the session of the manifest."""
        m = self._manifest
        try:
            events = self._sealed.events()
        except DataError as error:
            yield Fault(FaultKind.UNREADABLE, m.events.file, error.message)
            return
        numbers = [e.seq for e in events]
        if len(numbers) != m.events.rows or len(set(numbers)) != len(numbers):
            yield Fault(FaultKind.EVENTS, m.events.file, f"holds {len(numbers)} events, not {m.events.rows}")
        every = sorted({*numbers, *self._quality_numbers()})
        if every != list(range(len(every))):
            yield Fault(FaultKind.EVENTS, m.events.file, "an event is missing")
        opened = [e.event for e in events if isinstance(e.event, SessionOpened)]
        closed = [e.event for e in events if isinstance(e.event, SessionClosed)]
        if [e.session for e in opened] != [m.session]:
            yield Fault(FaultKind.MANIFEST, MANIFEST, "its session is not the one that was opened")
        if m.closed not in closed:
            yield Fault(FaultKind.MANIFEST, MANIFEST, "its close is not the one that was recorded")

    def quality(self) -> Iterator[Fault]:
        """Whether what was seen of the signal is all there and of streams and channels that exist."""
        entry = self._manifest.quality
        table = None if entry is None else self._table(entry.file)
        if isinstance(table, Fault):
            yield table
        if entry is None or table is None or isinstance(table, Fault):
            return
        try:
            rows = table.select(["seq", "stream", "channel", "first", "n"]).to_pylist()
        except KeyError as error:
            yield Fault(FaultKind.UNREADABLE, entry.file, f"lacks {error}")
            return
        if len(rows) != entry.rows:
            yield Fault(FaultKind.QUALITY, entry.file, f"holds {len(rows)} rows, not {entry.rows}")
        known = {s.name: set(s.channels) for s in self._manifest.session.streams}
        if any(r["channel"] not in known.get(r["stream"], ()) for r in rows):
            yield Fault(FaultKind.QUALITY, entry.file, "speaks of a stream or channel that is none")
        if len({(r["seq"], r["stream"], r["channel"]) for r in rows}) != len(rows):
            yield Fault(FaultKind.QUALITY, entry.file, "holds a row twice")

    def _quality_numbers(self) -> set[int]:
        entry = self._manifest.quality
        table = None if entry is None else self._table(entry.file)
        if table is None or isinstance(table, Fault) or "seq" not in table.column_names:
            return set()
        return {int(x) for x in np.unique(table["seq"].to_numpy())}

    def _table(self, name: str) -> pa.Table | Fault | None:
        """A file whole; None where it is missing, which `files` tells."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.read_table(self._folder / name)
        except FileNotFoundError:
            return None
        except (OSError, pa.ArrowException, ValueError) as error:
            return Fault(FaultKind.UNREADABLE, name, f"cannot be read: {error}")


def _few(ranges: list[Range]) -> str:
    shown = ", ".join(f"{a}..{b}" for a, b in ranges[:4])
    return f"{shown} and {len(ranges) - 4} more" if len(ranges) > 4 else shown or "nothing"


def _runs(index: NDArray[Any]) -> list[Range]:
    """Positions [a, b) of the contiguous runs of an increasing index."""
    cuts = [0, *(np.flatnonzero(np.diff(index) != 1) + 1).tolist(), len(index)]
    return list(pairwise(cuts))
