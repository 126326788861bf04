"""Routes that tell what a session's samples are worth: signal quality, gaps, and what its bands went through."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from fastapi import FastAPI, HTTPException, Query

from embridge_cloud.api.roles import Role, access
from embridge_cloud.context import CloudContext
from embridge_cloud.store.manifest import QUALITY
from embridge_cloud.store.reader import Reader
from embridge_shared.quality import Grade
from embridge_shared.session import Session

Limit = Annotated[int, Query(ge=1, le=100_000)]


def add(app: FastAPI, context: CloudContext) -> None:
    """Add the routes."""
    read = context.store.read

    @app.get("/api/sessions/{session}/quality")
    @access(Role.VIEWER)
    def quality(session: UUID) -> list[dict[str, Any]]:
        """What the edge saw of each channel: windows judged, warned of and bad, its grade, the last reasons."""
        known = _known(read, session)
        rows = read.records(
            "SELECT * EXCLUDE (session) FROM v_quality WHERE session = ? ORDER BY stream, channel", [session]
        )
        return [_named(known, row) for row in rows]

    @app.get("/api/sessions/{session}/quality/windows")
    @access(Role.VIEWER)
    def windows(session: UUID, grade: Grade | None = None, limit: Limit = 1000) -> list[dict[str, Any]]:
        """What the edge saw window by window, in order."""
        known = _known(read, session)
        chosen = grade.value if grade is not None else None
        ask = "SELECT * FROM {} WHERE coalesce(grade = $1, true) ORDER BY seq, channel LIMIT $2"
        if (file := _sealed_quality(read, session)) is not None:
            return read.records(ask.format("read_parquet($3)"), [chosen, limit, str(file)])
        hot = "(SELECT * EXCLUDE (session) FROM quality WHERE session = $3)"
        return [_named(known, row) for row in read.records(ask.format(hot), [chosen, limit, session])]

    @app.get("/api/sessions/{session}/gaps")
    @access(Role.VIEWER)
    def gaps(session: UUID, limit: Limit = 1000) -> list[dict[str, Any]]:
        """What was lost before it came, and whether the length of each gap is exact or an estimate."""
        _known(read, session)
        return read.records(
            "SELECT name AS stream, first, n, seconds, inferred FROM v_gaps WHERE session = ? "
            "ORDER BY v_gaps.stream, first LIMIT ?",
            [session, limit],
        )

    @app.get("/api/sessions/{session}/bands")
    @access(Role.VIEWER)
    def bands(session: UUID, limit: Limit = 1000) -> list[dict[str, Any]]:
        """The states its bands went through, in order."""
        _known(read, session)
        return read.records(
            "SELECT * EXCLUDE (session, seq) FROM v_bands WHERE session = ? ORDER BY entered_at, seq LIMIT ?",
            [session, limit],
        )


def _known(read: Reader, session: UUID) -> Session:
    found = read.session(session)
    if found is None:
        raise HTTPException(404, f"session {session} was never opened here")
    return found.session


def _named(session: Session, row: dict[str, Any]) -> dict[str, Any]:
    """A row with the names of its stream and channel in place of their numbers; what no stream has keeps them."""
    stream, channel = row["stream"], row["channel"]
    if not 0 <= stream < len(session.streams) or channel >= session.streams[stream].n_channels:
        return row
    spec = session.streams[stream]
    return row | {"stream": spec.name, "channel": spec.channels[channel]}


def _sealed_quality(read: Reader, session: UUID) -> Path | None:
    """The file of what was seen of a sealed session; None while it is not sealed, or where nothing was seen."""
    rows = read.rows("SELECT path FROM sealed_sessions WHERE session = ?", [session])
    file = Path(rows[0][0]) / QUALITY if rows else None
    return file if file is not None and file.is_file() else None
