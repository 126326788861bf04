"""Routes of admins: tokens, and the audit log."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request

from embridge_cloud.api import models
from embridge_cloud.api.roles import Role, access
from embridge_cloud.api.store_routes import Limit
from embridge_cloud.api.tokens import Token
from embridge_cloud.context import CloudContext
from embridge_cloud.store.audit import AuditEntry


def add(app: FastAPI, context: CloudContext) -> None:
    """Add the routes."""
    _add_tokens(app, context)
    _add_audit(app, context)


def _add_tokens(app: FastAPI, context: CloudContext) -> None:
    tokens, clock = context.tokens, context.clock

    @app.get("/api/tokens", response_model=list[models.TokenInfo], tags=["tokens"])
    @access(Role.ADMIN)
    def listing() -> list[dict[str, Any]]:
        """All tokens; their secrets are known to nobody."""
        return [token_info(token, clock.wall_ns()) for token in tokens.known()]

    @app.post("/api/tokens", response_model=models.MadeToken, status_code=201, tags=["tokens"])
    @access(Role.ADMIN, action="token.create")
    def create(wanted: models.NewToken, request: Request) -> dict[str, Any]:
        """Make a token; it is shown this once."""
        request.state.subject = (wanted.name,)
        request.state.detail = {"role": wanted.role.value, "days": wanted.days or 0}
        now = clock.wall_ns()
        text = tokens.create(wanted.name, wanted.role, now_ns=now, days=wanted.days)
        (made,) = (token for token in tokens.known() if token.name == wanted.name)
        return {"token": text, "info": token_info(made, now)}

    @app.delete("/api/tokens/{name}", response_model=list[models.TokenInfo], tags=["tokens"])
    @access(Role.ADMIN, action="token.revoke")
    def revoke(name: Annotated[str, Path(max_length=64)]) -> list[dict[str, Any]]:
        """Take a token's right away at once; returns those that are left."""
        tokens.revoke(name)
        return listing()


def _add_audit(app: FastAPI, context: CloudContext) -> None:
    @app.get("/api/audit", response_model=list[models.AuditRow], tags=["audit"])
    @access(Role.ADMIN)
    def audit(
        after: Annotated[int, Query(ge=0, le=2**62, description="Number of the last row that is known.")] = 0,
        newest: Annotated[bool, Query(description="The last rows rather than the first.")] = False,
        limit: Limit = 200,
    ) -> list[dict[str, Any]]:
        """Who changed what when, in order; people and sessions are codes."""
        rows = context.audit.entries(after=after, limit=limit, newest=newest)
        return [audit_row(row) for row in rows]


def audit_row(row: AuditEntry) -> dict[str, Any]:
    """A row of the audit log as it is answered."""
    return {
        "seq": row.seq,
        "at": _moment(row.wall_ns),
        "actor": row.actor,
        "action": row.action,
        "subject": row.subject,
        "detail": dict(row.detail),
        "digest": row.digest,
    }


def token_info(token: Token, now_ns: int) -> dict[str, Any]:
    """What everybody may know of a token."""
    return {
        "id": token.id,
        "name": token.name,
        "role": token.role,
        "created_at": _moment(token.created_ns),
        "expires_at": _moment(token.expires_ns) if token.expires_ns else None,
        "expired": token.expired(now_ns),
    }


def _moment(wall_ns: int) -> datetime:
    return datetime.fromtimestamp(wall_ns // 1_000_000_000, UTC)
