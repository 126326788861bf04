"""Rows to Arrow columns and into the tables: the only fast way into DuckDB."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embridge_cloud.store.rows import Batch, ChunkRow, EventRow, QuarantineRow, session_digest
from embridge_shared.quality.grades import Grade, Metric, worst
from embridge_shared.session import CueShown, QualitySeen, Repetition, Session, SessionClosed, SessionOpened
from embridge_shared.wire.messages import EdgeState

Column = tuple[str, pa.DataType]

_UUID = "session"
_INLINE = 12
_VIEW = np.dtype([("size", "<i4"), ("prefix", "V4"), ("buffer", "<i4"), ("offset", "<i4")])
_COLUMNS: dict[str, tuple[Column, ...]] = {
    "participants": (("id", pa.string()), ("consent_version", pa.string())),
    "sessions": (
        ("session", pa.string()), ("edge", pa.string()), ("participant", pa.string()),
        ("consent_version", pa.string()), ("side", pa.string()), ("position", pa.string()),
        ("rotation_deg", pa.float64()), ("purpose", pa.string()), ("protocol", pa.string()),
        ("started_ns", pa.int64()), ("host_ns", pa.int64()), ("source", pa.string()), ("release", pa.string()),
        ("description", pa.string()),
    ),
    "streams": (
        ("session", pa.string()), ("stream", pa.int32()), ("name", pa.string()), ("modality", pa.string()),
        ("channels", pa.int32()), ("rate_hz", pa.float64()), ("dtype", pa.string()), ("unit", pa.string()),
        ("scale", pa.float64()), ("calibrated", pa.bool_()), ("device", pa.string()),
    ),
    "chunks": (
        ("session", pa.string()), ("stream", pa.int32()), ("first", pa.int64()), ("n", pa.int64()),
        ("gap_before", pa.int64()), ("t0_ns", pa.int64()), ("crc", pa.uint32()), ("received_ns", pa.int64()),
        ("bytes", pa.int64()), ("payload", pa.binary_view()), ("gap_inferred", pa.bool_()),
    ),
    "events": (
        ("session", pa.string()), ("seq", pa.int64()), ("kind", pa.string()), ("body", pa.string()),
        ("received_ns", pa.int64()),
    ),
    "cues": (
        ("session", pa.string()), ("seq", pa.int64()), ("gesture", pa.string()), ("repetition", pa.int64()),
        ("start_ns", pa.int64()), ("end_ns", pa.int64()),
    ),
    "repetitions": (
        ("session", pa.string()), ("seq", pa.int64()), ("gesture", pa.string()), ("repetition", pa.int64()),
        ("start_ns", pa.int64()), ("end_ns", pa.int64()), ("status", pa.string()), ("reason", pa.string()),
    ),
    "quality": (
        ("session", pa.string()), ("seq", pa.int64()), ("stream", pa.int32()), ("channel", pa.int32()),
        ("first", pa.int64()), ("n", pa.int64()), ("t_ns", pa.int64()), ("grade", pa.string()),
        *((metric.value, pa.float64()) for metric in Metric), ("reasons", pa.string()),
    ),
    "session_ends": (
        ("session", pa.string()), ("seq", pa.int64()), ("ended_ns", pa.int64()), ("reason", pa.string()),
    ),
    "session_totals": (("session", pa.string()), ("stream", pa.int32()), ("total", pa.int64())),
    "quarantine": (
        ("id", pa.string()), ("received_ns", pa.int64()), ("topic", pa.string()), ("edge", pa.string()),
        ("session", pa.string()), ("stream", pa.int32()), ("first", pa.int64()), ("reason", pa.string()),
        ("detail", pa.string()), ("payload", pa.large_binary()), ("bytes", pa.int64()),
    ),
    "edges": (
        ("edge", pa.string()), ("online", pa.bool_()), ("agent", pa.string()), ("release", pa.string()),
        ("recording", pa.string()), ("spooled", pa.int64()), ("spooled_bytes", pa.int64()), ("t_ns", pa.int64()),
        ("received_ns", pa.int64()), ("body", pa.string()),
    ),
    "sealed": (
        ("session", pa.string()), ("stream", pa.int32()), ("path", pa.string()), ("sha256", pa.string()),
        ("rows", pa.int64()), ("bytes", pa.int64()),
    ),
    "sealed_ranges": (
        ("session", pa.string()), ("stream", pa.int32()), ("first", pa.int64()), ("end", pa.int64()),
    ),
    "sealed_gaps": (
        ("session", pa.string()), ("stream", pa.int32()), ("first", pa.int64()), ("end", pa.int64()),
        ("inferred", pa.bool_()),
    ),
    "released": (("id", pa.string()),),
    "keys": (("session", pa.string()), ("stream", pa.int32()), ("first", pa.int64())),
}  # fmt: skip

# A message that is sent again keeps its row; one that was held and is now refused says why.
_ON_CONFLICT = {
    "quarantine": " ON CONFLICT (id) DO UPDATE SET reason = excluded.reason, detail = excluded.detail",
    "edges": (
        " ON CONFLICT (edge) DO UPDATE SET online = excluded.online, agent = excluded.agent,"
        " release = excluded.release, recording = excluded.recording, spooled = excluded.spooled,"
        " spooled_bytes = excluded.spooled_bytes, t_ns = excluded.t_ns, received_ns = excluded.received_ns,"
        " body = excluded.body"
    ),
}


def table(name: str, rows: Sequence[Sequence[Any]]) -> pa.Table:
    """Arrow table of `rows` in the column order of the database table `name`."""
    columns = _COLUMNS[name]
    values = zip(*rows, strict=True) if rows else ([] for _ in columns)
    arrays = [pa.array(v, t) for v, (_, t) in zip(values, columns, strict=True)]
    return pa.Table.from_arrays(arrays, names=[c for c, _ in columns])


def insert(connection: duckdb.DuckDBPyConnection, name: str, rows: Iterable[Sequence[Any]]) -> None:
    """Insert rows into the table `name`; rows whose key is there are left as they are."""
    _write(connection, name, table(name, list(rows)), "INSERT" if name in _ON_CONFLICT else "INSERT OR IGNORE")


def chunk_table(rows: Sequence[ChunkRow]) -> pa.Table:
    """Arrow table of chunks: the payloads are not copied, the table holds on to the very bytes that came."""
    columns = _COLUMNS["chunks"]
    if not rows:
        return table("chunks", [])
    sessions, *numbers, payloads, inferred = zip(*rows, strict=True)
    names = {session: str(session) for session in set(sessions)}
    sizes = np.fromiter(map(len, payloads), np.int64, len(rows))
    values = [[names[s] for s in sessions], *numbers, sizes]
    arrays = [pa.array(v, t) for v, (_, t) in zip(values, columns, strict=False)]
    arrays += [_views(payloads, sizes), pa.array(inferred, pa.bool_())]
    return pa.Table.from_arrays(arrays, names=[c for c, _ in columns])


def _views(payloads: Sequence[bytes], sizes: NDArray[np.int64]) -> pa.Array:
    """A column of binary views, each into the bytes object itself; a view of up to 12 bytes holds them."""
    if int(sizes.min()) <= _INLINE:
        return pa.array(payloads, pa.binary_view())
    views = np.zeros(len(payloads), _VIEW)
    views["size"], views["buffer"] = sizes, np.arange(len(payloads))
    views["prefix"] = np.frombuffer(b"".join(p[:4] for p in payloads), "V4")
    return pa.Array.from_buffers(
        pa.binary_view(), len(payloads), [None, pa.py_buffer(views.tobytes()), *map(pa.py_buffer, payloads)]
    )


def _write(connection: duckdb.DuckDBPyConnection, name: str, rows: pa.Table, how: str) -> None:
    if not rows.num_rows:
        return
    names = ", ".join(f'"{c}"' for c, _ in _COLUMNS[name])
    values = ", ".join(f'"{c}"::UUID' if c in (_UUID, "recording") else f'"{c}"' for c, _ in _COLUMNS[name])
    connection.register("incoming", rows)
    try:
        connection.execute(
            f"{how} INTO {name} ({names}) SELECT {values} FROM incoming{_ON_CONFLICT.get(name, '')}"  # noqa: S608
        )
    finally:
        connection.unregister("incoming")


def write_batch(
    connection: duckdb.DuckDBPyConnection, batch: Batch, quarantined: Sequence[QuarantineRow], *, again: bool = False
) -> None:
    """Write a batch within the running transaction.

    Args:
        connection: In a transaction.
        batch: What to write.
        quarantined: The rows of its quarantine that are kept.
        again: Some of its chunks may be there already; to look for them first costs as much again.

    Raises:
        duckdb.ConstraintException: A chunk is there, and nobody said that it may be.
    """
    _write_events(connection, batch.events)
    _write(connection, "chunks", chunk_table(batch.chunks), "INSERT OR IGNORE" if again else "INSERT")
    insert(connection, "quarantine", (_quarantine(row) for row in quarantined))
    insert(connection, "edges", (_edge(state, at) for state, at in batch.edges.values()))
    for session, erasure in batch.barred.items():
        connection.execute("INSERT OR IGNORE INTO erased_sessions VALUES (?, ?)", [session_digest(session), erasure])
        connection.execute("DELETE FROM quarantine WHERE session = ?", [session])
    if batch.released:
        connection.register("incoming", table("released", [(i,) for i in batch.released]))
        try:
            connection.execute("DELETE FROM quarantine WHERE id IN (SELECT id FROM incoming)")
        finally:
            connection.unregister("incoming")


def _write_events(connection: duckdb.DuckDBPyConnection, rows: Sequence[EventRow]) -> None:
    sessions = [r.event.session for r in rows if isinstance(r.event, SessionOpened)]
    people = {(s.participant.id, s.participant.consent_version) for s in sessions}
    insert(connection, "participants", sorted(people))
    insert(connection, "sessions", (_session(s) for s in sessions))
    insert(connection, "streams", (row for s in sessions for row in _streams(s)))
    insert(connection, "events", (_event(r) for r in rows))
    insert(connection, "cues", (_cue(r.session, r.seq, r.event) for r in rows if isinstance(r.event, CueShown)))
    insert(
        connection,
        "repetitions",
        (_repetition(r.session, r.seq, r.event) for r in rows if isinstance(r.event, Repetition)),
    )
    seen = [(r.session, r.seq, r.event) for r in rows if isinstance(r.event, QualitySeen)]
    insert(connection, "quality", (row for s, seq, e in seen for row in quality_rows(s, seq, e)))
    ends = [(r.session, r.seq, r.event) for r in rows if isinstance(r.event, SessionClosed)]
    insert(connection, "session_ends", ((str(s), seq, e.t_ns, e.reason) for s, seq, e in ends))
    insert(connection, "session_totals", ((str(s), i, n) for s, _, e in ends for i, n in enumerate(e.totals)))


def json_text(value: Any) -> str:
    """JSON of a message or session."""
    return msgspec.json.encode(value).decode()


def _session(s: Session) -> tuple[Any, ...]:
    return (
        str(s.id), s.edge, s.participant.id, s.participant.consent_version, s.placement.side.value,
        s.placement.position, s.placement.rotation_deg, s.purpose.value, s.protocol, s.started_ns, s.host_ns,
        s.source, s.release, json_text(s),
    )  # fmt: skip


def _streams(s: Session) -> list[tuple[Any, ...]]:
    return [
        (str(s.id), i, x.name, x.modality.value, x.n_channels, x.rate_hz, x.dtype.value, x.unit, x.scale,
         x.calibrated, x.device)
        for i, x in enumerate(s.streams)
    ]  # fmt: skip


def _event(r: EventRow) -> tuple[Any, ...]:
    return (str(r.session), r.seq, type(r.event).__struct_config__.tag, json_text(r.event), r.received_ns)


def _cue(session: UUID, seq: int, e: CueShown) -> tuple[Any, ...]:
    return (str(session), seq, e.gesture, e.repetition, e.start_ns, e.end_ns)


def _repetition(session: UUID, seq: int, e: Repetition) -> tuple[Any, ...]:
    return (str(session), seq, e.gesture, e.repetition, e.start_ns, e.end_ns, e.status.value, e.reason)


def quality_rows(session: UUID, seq: int, e: QualitySeen) -> list[tuple[Any, ...]]:
    """A row a channel, in the column order of the table "quality"."""
    rows = []
    for c in range(max((len(v) for v in e.values.values()), default=0)):
        found = [f for f in e.findings if f.channel == c]
        known = any(c < len(v) and v[c] is not None for v in e.values.values())
        grade = worst(f.grade for f in found) if found else Grade.GOOD if known else Grade.UNKNOWN
        values = (e.values.get(m, ()) for m in Metric)
        rows.append(
            (str(session), seq, e.stream, c, e.first, e.n, e.t_ns, grade.value,
             *(v[c] if c < len(v) else None for v in values), "; ".join(f.reason for f in found))
        )  # fmt: skip
    return rows


def _quarantine(r: QuarantineRow) -> tuple[Any, ...]:
    session = None if r.session is None else str(r.session)
    return (
        r.id, r.received_ns, r.topic, r.edge, session, r.stream, r.first, r.reason, r.detail, r.payload,
        len(r.payload),
    )  # fmt: skip


def _edge(s: EdgeState, received_ns: int) -> tuple[Any, ...]:
    recording = None if s.recording is None else str(s.recording)
    return (
        s.edge, s.online, s.agent, s.release, recording, s.spooled, s.spooled_bytes, s.t_ns, received_ns,
        json_text(s),
    )  # fmt: skip
