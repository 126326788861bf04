"""The HTTP interface: health, sessions, edges, quarantine, counters, and the update repository as files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any
from uuid import UUID

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles

from embridge_cloud.context import CloudContext
from embridge_cloud.status import IngestState
from embridge_cloud.store.ranges import CommittedRanges
from embridge_shared.errors import DataError, EmbridgeError, NetworkError, OperatorError, Reason

Extension = Callable[[FastAPI, CloudContext], None]
"""Adds routes of its own; called once, before the server starts."""

_STATUS = {Reason.NOT_FOUND: 404, Reason.LOCKED: 409, Reason.UNREACHABLE: 503}


def create_app(context: CloudContext) -> FastAPI:
    """The application over a running cloud process."""
    app = FastAPI(title="EMBridge cloud", docs_url=None, redoc_url=None)
    _add_health(app, context)
    _add_sessions(app, context)
    _add_ingest(app, context)
    app.add_exception_handler(EmbridgeError, _refuse)
    app.mount("/updates", StaticFiles(directory=context.updates_dir), name="updates")
    return app


async def _refuse(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, EmbridgeError):
        raise error
    usage = 400 if isinstance(error, OperatorError | DataError) else 500
    code = _STATUS.get(error.reason, 503 if isinstance(error, NetworkError) else usage)
    return JSONResponse({"error": error.message, "reason": error.reason.value, "hint": error.hint}, code)


def _add_health(app: FastAPI, context: CloudContext) -> None:
    @app.get("/health")
    async def health() -> dict[str, Any]:
        """The process runs."""
        return {"state": context.ingester.status.state.value}

    @app.get("/ready")
    async def ready() -> JSONResponse:
        """The process ingests: broker connected, database writable."""
        status = context.ingester.status
        good = status.state is IngestState.READY
        body = {"ready": good, "state": status.state.value, "last_error": status.last_error}
        return JSONResponse(body, 200 if good else 503)


def _add_sessions(app: FastAPI, context: CloudContext) -> None:
    read = context.store.read

    @app.get("/api/sessions")
    def sessions(
        state: str | None = None, edge: str | None = None, limit: int = Query(200, ge=1, le=10_000)
    ) -> list[dict[str, Any]]:
        """Sessions, newest first."""
        return read.records(
            "SELECT * FROM v_sessions WHERE coalesce(state = $1, true) AND coalesce(edge = $2, true) "
            "ORDER BY started_at DESC, session LIMIT $3",
            [state, edge, limit],
        )

    @app.get("/api/sessions/{session}")
    def session(session: UUID) -> dict[str, Any]:
        """One session: its description, streams with what is held and awaited, cues and repetitions."""
        rows = read.records("SELECT * FROM v_sessions WHERE session = ?", [session])
        stored = read.session(session)
        if not rows or stored is None:
            raise HTTPException(404, f"session {session} was never opened here")
        streams = read.records("SELECT * FROM v_streams WHERE session = ? ORDER BY stream", [session])
        for row in streams:
            held = stored.ranges.get(row["stream"], CommittedRanges())
            row["until"] = held.stored.end
            row["awaited"] = held.awaited(stored.totals[row["stream"]] if stored.totals else None)
        return {
            **rows[0],
            "totals": stored.totals,
            "streams": streams,
            "cues": read.records("SELECT * EXCLUDE (session) FROM cues WHERE session = ? ORDER BY seq", [session]),
            "repetitions": read.records(
                "SELECT * EXCLUDE (session) FROM repetitions WHERE session = ? ORDER BY seq", [session]
            ),
        }


def _add_ingest(app: FastAPI, context: CloudContext) -> None:
    read = context.store.read

    @app.get("/api/edges")
    def edges() -> list[dict[str, Any]]:
        """Last known state of every edge."""
        return read.records(
            "SELECT edge, online, agent, release, body->>'digest' AS digest, body->>'update' AS update, recording, "
            "spooled, spooled_bytes, make_timestamp_ns(received_ns) AS seen_at FROM edges ORDER BY edge"
        )

    @app.get("/api/quarantine")
    def quarantine(limit: int = Query(200, ge=1, le=10_000)) -> dict[str, Any]:
        """What the store could not place, newest first; payloads stay in the database."""
        messages = read.records(
            "SELECT id, make_timestamp_ns(received_ns) AS received_at, topic, edge, session, stream, first, reason, "
            "detail, bytes FROM quarantine ORDER BY received_ns DESC LIMIT ?",
            [limit],
        )
        summary = read.records("SELECT * FROM v_quarantine ORDER BY reason, edge, session")
        store = context.store
        return {"bytes": store.quarantine_bytes, "skipped": store.quarantine_skipped, "summary": summary,
                "messages": messages}  # fmt: skip

    @app.get("/api/ingest")
    async def ingest() -> dict[str, Any]:
        """Counters since the process started."""
        status = context.ingester.status
        mean_ms = status.commit_ms_total / status.commits if status.commits else 0.0
        return {
            **dataclasses.asdict(context.ingester.counters),
            **dataclasses.asdict(status),
            "unsealable": sorted(status.unsealable),
            "commit_ms_mean": round(mean_ms, 3),
        }
