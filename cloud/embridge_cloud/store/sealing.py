"""Sealing: a complete session leaves the hot file and becomes one folder of Parquet files.

The order of steps makes every crash harmless: files are written and synced under a temporary name, the folder gets its
name in one rename, and only then one transaction records it and deletes the hot rows. Until that transaction the hot
rows are the truth; a finished folder found without a record is verified and recorded.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embridge_cloud.store.columns import quality_rows, table
from embridge_cloud.store.failures import NotSealableError
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.manifest import (
    INDEX,
    MANIFEST,
    QUALITY,
    TIME,
    ContentDigest,
    FileEntry,
    Manifest,
    StreamEntry,
    column_names,
    content_hash,
    file_sha256,
)
from embridge_cloud.store.reader import Anchor
from embridge_cloud.store.rows import StoredSession
from embridge_cloud.store.sealed import NumberedEvent, SealedSession
from embridge_shared.errors import DataError, Reason
from embridge_shared.session import QualitySeen, SessionClosed
from embridge_shared.signal import Chunk, SampleType, StreamSpec
from embridge_shared.wire import codec

logger = logging.getLogger(__name__)

ROW_GROUP = 32768
_PREFIX = ".sealing-"
_ASIDE = ".aside-"


class Sealer:
    """Seals sessions of a hot store into folders under `directory`.

    Args:
        store: Where they are.
        directory: Where they go.
        wall_ns: Unix time, ns.
    """

    def __init__(self, store: HotStore, directory: Path, *, wall_ns: Callable[[], int]) -> None:
        self._store = store
        self._directory = directory
        self._wall_ns = wall_ns
        self._software = version("embridge")

    def prepare(self) -> None:
        """Make the folder and clear what a crash left half written."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for path in self._directory.glob(_PREFIX + "*"):
            shutil.rmtree(path)

    def seal(self, session: UUID) -> SealedSession:
        """Seal a complete session: `write`, then `register`.

        Raises:
            NotSealableError: It is not complete.
            DataError: It is not known, or its chunks cannot be read.
            StoreError: The database refused.
        """
        sealed = self.write(session)
        self.register(sealed)
        return sealed

    def write(self, session: UUID) -> SealedSession:
        """Write a complete session's folder; the hot rows stay.

        Raises:
            NotSealableError: It is not complete.
            DataError: It is not known, or its chunks cannot be read.
        """
        stored = self._store.read.session(session)
        if stored is None:
            raise DataError(f"session {session} is not in the store", reason=Reason.UNKNOWN_SESSION)
        final = self._directory / str(session)
        if stored.sealed:
            return SealedSession(final)
        if not stored.complete:
            raise NotSealableError(
                f"session {session} is {'open' if stored.totals is None else f'lacking {stored.awaited()}'}.",
                reason=Reason.TOO_LITTLE_DATA,
                hint="It is sealed once its edge has delivered everything.",
            )
        if final.exists():
            if self._finished(stored, final):
                return SealedSession(final)
            final.replace(self._directory / f"{_ASIDE}{session}-{self._wall_ns()}")
        self._write_folder(stored, final)
        return SealedSession(final)

    def register(self, sealed: SealedSession) -> None:
        """Record a sealed folder and delete its hot rows.

        Raises:
            NotSealableError: The hot rows are not what was sealed.
            StoreError: The database refused.
        """
        if not self._store.read.is_sealed(sealed.id):
            self._store.register_sealed(sealed.manifest, sealed.directory)

    def _finished(self, stored: StoredSession, final: Path) -> bool:
        try:
            sealed = SealedSession(final)
            sealed.verify()
            if any(e.stored() != list(stored.of(e.stream).stored) for e in sealed.manifest.streams):
                raise DataError(f"{final} holds other samples than the hot store", reason=Reason.OVERLAP)
        except DataError as error:
            logger.warning("an unrecorded sealed folder is set aside: %s", error)
            return False
        return True

    def _write_folder(self, stored: StoredSession, final: Path) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        folder = self._directory / f"{_PREFIX}{stored.session.id}"
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        try:
            self._fill_folder(stored, folder)
        except BaseException:
            # On a full disk what is half written is in the way of everything else.
            shutil.rmtree(folder, ignore_errors=True)
            raise
        folder.replace(final)
        _sync(self._directory)

    def _fill_folder(self, stored: StoredSession, folder: Path) -> None:
        streams = tuple(self._write_stream(stored, i, folder) for i in range(len(stored.session.streams)))
        numbered = [NumberedEvent(seq, event) for seq, event in self._store.read.events(stored.session.id)]
        rows = _quality_rows(stored, numbered)
        seen = {row[1] for row in rows}
        events = [e for e in numbered if e.seq not in seen]
        closed = next(e.event for e in reversed(events) if isinstance(e.event, SessionClosed))
        path = folder / "events.json"
        _write_bytes(path, msgspec.json.format(msgspec.json.encode(events), indent=1))
        manifest = Manifest(
            session=stored.session,
            closed=closed,
            streams=streams,
            events=_entry(path, len(events)),
            content_hash=content_hash(stored.session.id, [s.content for s in streams]),
            sealed_ns=self._wall_ns(),
            software=self._software,
            quality=_write_quality(stored, rows, folder / QUALITY) if rows else None,
        )
        _write_bytes(folder / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=1))
        _sync(folder)

    def _write_stream(self, stored: StoredSession, stream: int, folder: Path) -> StreamEntry:
        spec = stored.session.streams[stream]
        anchors = self._store.read.anchors(stored.session.id, stream)
        digest = ContentDigest(spec)
        pairs: list[NDArray[np.int64]] = []
        path, arrivals = folder / f"{spec.name}.parquet", folder / f"{spec.name}.arrivals.parquet"
        with _stream_writer(path, spec) as writer:
            for block in self._blocks(stored.session.id, stream, anchors):
                for chunk in block:
                    digest.update(chunk.first, chunk.samples)
                    pairs.append(np.stack([chunk.arrivals.index, chunk.arrivals.host_ns]))
                writer.write_table(_stream_table(spec, block, anchors), row_group_size=ROW_GROUP)
        _sync(path)
        rows = stored.of(stream).stored
        index, host_ns = np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0), np.int64)
        pq.write_table(pa.table({"index": index, "host_ns": host_ns}), arrivals, **_plain(["index", "host_ns"]))
        _sync(arrivals)
        total = max(rows.end, stored.totals[stream] if stored.totals else 0)
        gaps = tuple(rows.missing(0, total))
        estimated = {a.first for a in anchors if a.gap_inferred}
        return StreamEntry(
            stream=stream,
            name=spec.name,
            chunks=len(pairs),
            total=total,
            gaps=gaps,
            inferred=tuple(gap for gap in gaps if gap[1] in estimated),
            content=digest.hexdigest(),
            arrivals=_entry(arrivals, len(index)),
            **msgspec.structs.asdict(_entry(path, rows.count)),
        )

    def _blocks(self, session: UUID, stream: int, anchors: list[Anchor]) -> Iterator[list[Chunk]]:
        """Chunks in order, in blocks of at least a row group."""
        block: list[Chunk] = []
        size = 0
        for payload in self._store.read.payloads(session, stream, anchors):
            block.append(codec.decode(payload))
            size += block[-1].n
            if size >= ROW_GROUP:
                yield block
                block, size = [], 0
        if block:
            yield block


def _quality_rows(stored: StoredSession, events: list[NumberedEvent]) -> list[tuple[Any, ...]]:
    """One row a window and channel of what was seen of streams and channels that exist."""
    channels = [s.n_channels for s in stored.session.streams]
    return [
        row
        for e in events
        if isinstance(e.event, QualitySeen) and 0 <= e.event.stream < len(channels)
        for row in quality_rows(stored.session.id, e.seq, e.event)
        if row[3] < channels[e.event.stream]
    ]


def _write_quality(stored: StoredSession, rows: list[tuple[Any, ...]], path: Path) -> FileEntry:
    """As in the table `quality`, but with the names of stream and channel."""
    streams = stored.session.streams
    found = table("quality", rows).drop_columns(["session"])
    names = ([streams[r[2]].name for r in rows], [streams[r[2]].channels[r[3]] for r in rows])
    for name, values in zip(("stream", "channel"), names, strict=True):
        found = found.set_column(found.column_names.index(name), name, pa.array(values).dictionary_encode())
    pq.write_table(found, path, compression="zstd")
    _sync(path)
    return _entry(path, len(rows))


def timeline(anchors: list[Anchor], index: NDArray[np.int64], rate_hz: float) -> NDArray[np.int64]:
    """Unix time of samples, piecewise linear between the chunks' first samples.

    Args:
        anchors: The stream's chunks in order.
        index: Sample indices, int64 (n,).
        rate_hz: Nominal rate; it holds after the last anchor.

    Returns:
        Times, ns, int64 (n,), which do not decrease with the index.
    """
    first = np.array([a.first for a in anchors], np.int64)
    t0 = np.maximum.accumulate(np.array([a.t0_ns for a in anchors], np.int64))
    origin = int(t0[0])
    knots, times = first.astype(np.float64), (t0 - origin).astype(np.float64)
    tail = anchors[-1].n + 1
    knots = np.append(knots, knots[-1] + tail)
    times = np.append(times, times[-1] + tail / rate_hz * 1e9)
    return np.rint(np.interp(index, knots, times)).astype(np.int64) + origin


def _stream_table(spec: StreamSpec, block: list[Chunk], anchors: list[Anchor]) -> pa.Table:
    index = np.concatenate([np.arange(c.first, c.end, dtype=np.int64) for c in block])
    values = np.concatenate([c.samples for c in block])
    columns = [pa.array(np.ascontiguousarray(values[:, i])) for i in range(spec.n_channels)]
    t_ns = timeline(anchors, index, spec.rate_hz)
    return pa.Table.from_arrays([pa.array(index), pa.array(t_ns), *columns], schema=_schema(spec))


def _schema(spec: StreamSpec) -> pa.Schema:
    kind = pa.from_numpy_dtype(np.dtype(spec.dtype.value))
    fields = [(INDEX, pa.int64()), (TIME, pa.int64()), *((name, kind) for name in column_names(spec))]
    return pa.schema(fields, metadata={"embridge.stream": json.dumps(msgspec.to_builtins(spec))})


def _plain(columns: list[str]) -> dict[str, object]:
    """Parquet options for integers: differences, bit-packed; a codec on top gains nothing."""
    return {
        "use_dictionary": False,
        "compression": "none",
        "column_encoding": dict.fromkeys(columns, "DELTA_BINARY_PACKED"),
    }


def _stream_writer(path: Path, spec: StreamSpec) -> pq.ParquetWriter:
    names = column_names(spec)
    if spec.dtype is not SampleType.FLOAT32:
        return pq.ParquetWriter(path, _schema(spec), **_plain([INDEX, TIME, *names]))
    options = _plain([INDEX, TIME])
    encoding = {INDEX: "DELTA_BINARY_PACKED", TIME: "DELTA_BINARY_PACKED"} | dict.fromkeys(names, "BYTE_STREAM_SPLIT")
    compression = {INDEX: "none", TIME: "none"} | dict.fromkeys(names, "zstd")
    return pq.ParquetWriter(
        path, _schema(spec), **(options | {"column_encoding": encoding, "compression": compression})
    )


def _entry(path: Path, rows: int) -> FileEntry:
    return FileEntry(file=path.name, sha256=file_sha256(path), bytes=path.stat().st_size, rows=rows)


def _write_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    _sync(path)


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
