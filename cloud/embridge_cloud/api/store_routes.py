"""Routes over the store: sessions, edges, quarantine, counters of ingest."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlencode
from uuid import UUID

import msgspec
from fastapi import FastAPI, HTTPException, Query, Request, Response

from embridge_cloud.api import models
from embridge_cloud.api.roles import Role, access
from embridge_cloud.context import CloudContext
from embridge_cloud.store.ranges import CommittedRanges
from embridge_shared.errors import OperatorError, Reason

PAGE_MAX: Final = 1000
_INT64_MAX = 2**63 - 1

Limit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="Rows at most.")]
Cursor = Annotated[
    str | None,
    Query(pattern=r"^\d{1,19}_[0-9A-Za-z-]{1,64}$", description="From the `Link` header of the page before."),
]

_SESSIONS = """
SELECT v_sessions.*, epoch_ns(started_at) AS started_ns, coalesce(description->>'split', '') AS split,
       coalesce((description->>'$.placement.donning')::INTEGER, 0) AS donning
FROM v_sessions JOIN (SELECT session, description FROM sessions) USING (session)
WHERE coalesce(state = $1, true) AND coalesce(edge = $2, true) AND coalesce(participant = $3, true)
  AND ($4 IS NULL OR epoch_ns(started_at) < $4 OR (epoch_ns(started_at) = $4 AND session::VARCHAR > $5))
ORDER BY started_at DESC, session::VARCHAR LIMIT $6
"""
_QUARANTINE = """
SELECT id, make_timestamp_ns(received_ns) AS received_at, topic, edge, session, stream, first, reason, detail, bytes,
       received_ns
FROM quarantine
WHERE ($1 IS NULL OR received_ns < $1 OR (received_ns = $1 AND id > $2)) AND received_ns > $3
ORDER BY received_ns DESC, id LIMIT $4
"""


def add(app: FastAPI, context: CloudContext) -> None:
    """Add the routes."""
    _add_sessions(app, context)
    _add_sealing(app, context)
    _add_edges(app, context)
    _add_quarantine(app, context)
    _add_ingest(app, context)


def _add_sessions(app: FastAPI, context: CloudContext) -> None:
    read = context.store.read

    @app.get("/api/sessions", response_model=list[models.Session], tags=["sessions"])
    @access(Role.VIEWER)
    def sessions(
        request: Request,
        response: Response,
        *,
        state: Literal["open", "ended", "sealed"] | None = None,
        edge: str | None = None,
        participant: str | None = None,
        cursor: Cursor = None,
        limit: Limit = 200,
    ) -> list[dict[str, Any]]:
        """Sessions, newest first; the `Link` header leads to the next page."""
        at, key = _place(cursor)
        rows = read.records(_SESSIONS, [state, edge, participant, at, key, limit + 1])
        return _page(request, response, rows, limit=limit, at="started_ns", key="session")

    @app.get("/api/sessions/{session}", response_model=models.SessionDetail, tags=["sessions"])
    @access(Role.VIEWER)
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
            "split": stored.session.split,
            "donning": stored.session.placement.donning,
            "totals": stored.totals,
            "streams": streams,
            "cues": read.records("SELECT * EXCLUDE (session) FROM cues WHERE session = ? ORDER BY seq", [session]),
            "repetitions": read.records(
                "SELECT * EXCLUDE (session) FROM repetitions WHERE session = ? ORDER BY seq", [session]
            ),
        }


def _add_sealing(app: FastAPI, context: CloudContext) -> None:
    @app.post("/api/sessions/{session}/seal", response_model=models.SealAnswer, status_code=202, tags=["sessions"])
    @access(Role.OPERATOR, action="session.seal")
    async def seal(session: UUID, order: models.SealOrder) -> dict[str, Any]:
        """Seal a session whose edge will never deliver the rest of it; what lacks is declared lost."""
        ended = await context.ingester.end_incomplete(session, order.reason, force=order.force)
        return {"session": ended.session, "closed": ended.closed, "lacking": ended.streams}


def _add_edges(app: FastAPI, context: CloudContext) -> None:
    @app.get("/api/edges", response_model=list[models.Edge], tags=["edges"])
    @access(Role.VIEWER)
    def edges() -> list[dict[str, Any]]:
        """Last known state of every edge."""
        rows = context.store.read.records(
            "SELECT edge, online, agent, release, body->>'digest' AS digest, body->'update' AS update, "
            "body->'health' AS health, recording, spooled, spooled_bytes, make_timestamp_ns(received_ns) AS seen_at "
            "FROM edges ORDER BY edge"
        )
        for row in rows:
            row |= {part: msgspec.json.decode(row[part]) for part in ("update", "health") if row[part] is not None}
        return rows


def _add_quarantine(app: FastAPI, context: CloudContext) -> None:
    @app.get("/api/quarantine", response_model=models.Quarantine, tags=["ingest"])
    @access(Role.VIEWER)
    def quarantine(
        request: Request,
        response: Response,
        *,
        since_ns: Annotated[int, Query(ge=0, le=_INT64_MAX, description="Received after, Unix time, ns.")] = 0,
        cursor: Cursor = None,
        limit: Limit = 200,
    ) -> dict[str, Any]:
        """What the store could not place, newest first; payloads stay in the database."""
        store, (at, key) = context.store, _place(cursor)
        rows = store.read.records(_QUARANTINE, [at, key, since_ns or -1, limit + 1])
        messages = _page(request, response, rows, limit=limit, at="received_ns", key="id")
        summary = store.read.records("SELECT * FROM v_quarantine ORDER BY reason, edge, session")
        return {"bytes": store.quarantine_bytes, "skipped": store.quarantine_skipped, "summary": summary,
                "messages": messages}  # fmt: skip


def _add_ingest(app: FastAPI, context: CloudContext) -> None:
    @app.get("/api/ingest", response_model=models.Ingest, tags=["ingest"])
    @access(Role.VIEWER)
    async def ingest() -> dict[str, Any]:
        """Counters since the process started."""
        status = context.ingester.status
        told = {f.name: getattr(status, f.name) for f in dataclasses.fields(status) if f.name != "on_commit"}
        mean_ms = status.commit_ms_total / status.commits if status.commits else 0.0
        return {
            **dataclasses.asdict(context.ingester.counters),
            **told,
            "unsealable": sorted(status.unsealable),
            "commit_ms_mean": round(mean_ms, 3),
        }


def _place(cursor: str | None) -> tuple[int | None, str]:
    """Where a page begins: after this time and key."""
    if cursor is None:
        return None, ""
    at, _, key = cursor.partition("_")
    if int(at) > _INT64_MAX:
        raise OperatorError("this cursor is none", reason=Reason.MALFORMED, hint="Take the one of the `Link` header.")
    return int(at), key


def _page(
    request: Request, response: Response, rows: list[dict[str, Any]], *, limit: int, at: str, key: str
) -> list[dict[str, Any]]:
    """The rows of one page; the header says where the next one is, if there is one."""
    if len(rows) > limit:
        last = rows[limit - 1]
        query = {**request.query_params, "cursor": f"{last[at]}_{last[key]}"}
        response.headers["Link"] = f'<{request.url.path}?{urlencode(query)}>; rel="next"'
    return rows[:limit]
