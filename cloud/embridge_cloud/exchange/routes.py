"""Routes for what commands beside a running cloud must tell it: exports it has to know of."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field

from embridge_cloud.api.models import Answer
from embridge_cloud.api.roles import Role, access
from embridge_cloud.context import CloudContext
from embridge_cloud.exchange.outgoing import ExportFormat, allowed
from embridge_cloud.store.exports import ExportIndex


class NewExport(BaseModel):
    """An export that is about to be written."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    format: ExportFormat
    """What it will be written as."""
    path: str = Field(max_length=4096, pattern="^/")
    """File or folder it will be written to, absolute."""
    sessions: list[UUID] = Field(min_length=1, max_length=100_000)
    """What it will hold."""


class NotedExport(Answer):
    """An export on record."""

    id: UUID
    """Its number."""
    format: str
    """What it was written as."""
    path: str
    """Where it was written to."""
    sessions: list[UUID]
    """What it holds."""
    participants: list[str]
    """Whose it is."""


def add_exchange(app: FastAPI, context: CloudContext) -> None:
    """Add the routes of exports to a cloud process."""

    @app.get("/api/exports", response_model=list[NotedExport], tags=["exports"])
    @access(Role.OPERATOR)
    def exports() -> list[dict[str, Any]]:
        """What left the store, oldest first."""
        return [_row(e) for e in ExportIndex(context.store).of()]

    @app.post("/api/exports", response_model=NotedExport, status_code=201, tags=["exports"])
    @access(Role.OPERATOR, action="session.export")
    def note(wanted: NewExport, request: Request) -> dict[str, Any]:
        """Put an export on record before it is written; refused where somebody did not agree to be handed on."""
        sessions = [context.catalogue.get(i) for i in dict.fromkeys(wanted.sessions)]
        allowed(sessions, context.catalogue)
        whose = [(s.id, s.session.participant.id) for s in sessions]
        actor = str(getattr(request.state, "actor", "") or "api")
        noted = ExportIndex(context.store).record(
            whose, path=Path(wanted.path), format=wanted.format.value, actor=actor, wall_ns=context.clock.wall_ns()
        )
        request.state.subject = (str(noted.id),)
        request.state.detail = {"format": wanted.format.value, "sessions": len(sessions)}
        return _row(noted)


def _row(export: Any) -> dict[str, Any]:
    return {
        "id": export.id,
        "format": export.format,
        "path": str(export.path),
        "sessions": list(export.sessions),
        "participants": list(export.participants),
    }
