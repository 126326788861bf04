"""Routes over the process itself: health, metrics, what there is to ask, and events as they happen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Final

from fastapi import FastAPI, Header, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from embridge_cloud.api import models
from embridge_cloud.api.events import as_server_sent
from embridge_cloud.api.problems import problem
from embridge_cloud.api.roles import Role, access
from embridge_cloud.context import CloudContext
from embridge_shared.errors import Reason

STREAMS_MAX: Final = 64


def add(app: FastAPI, context: CloudContext) -> None:
    """Add the routes."""
    _add_health(app, context)
    _add_monitor(app, context)
    _add_events(app, context)


def _add_health(app: FastAPI, context: CloudContext) -> None:
    @app.get("/health", response_model=models.Alive, tags=["process"])
    @access(None)
    async def health() -> dict[str, Any]:
        """The process runs."""
        return {"state": context.ingester.status.state.value}

    @app.get("/ready", response_model=models.Readiness, tags=["process"], responses={503: {"model": models.Readiness}})
    @access(None)
    async def ready(request: Request) -> JSONResponse:
        """The process ingests: broker connected, database writable, room on the disk, event loop in time."""
        status, checks = context.ingester.status, await context.health.check()
        good = all(check.ok for check in checks)
        body: dict[str, Any] = {
            "ready": good,
            "state": status.state.value,
            "checks": {check.name: check.ok for check in checks},
        }
        if request.state.principal is not None:
            body["details"] = {check.name: check.detail for check in checks}
            body["last_error"] = status.last_error
        return JSONResponse(body, 200 if good else 503)


def _add_monitor(app: FastAPI, context: CloudContext) -> None:
    @app.get("/metrics", response_class=Response, tags=["process"], responses={200: {"content": {"text/plain": {}}}})
    @access(Role.METRICS)
    async def metrics() -> Response:
        """Figures of the process in Prometheus' text format."""
        return Response(await context.metrics.page(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    @app.get("/api/openapi.json", include_in_schema=False)
    @access(Role.VIEWER)
    async def openapi() -> JSONResponse:
        """What there is to ask, as an OpenAPI document."""
        return JSONResponse(app.openapi())

    @app.get("/api/whoami", response_model=models.Whoami, tags=["tokens"])
    @access(Role.METRICS)
    async def whoami(request: Request) -> dict[str, Any]:
        """Whose token this is."""
        who = request.state.principal
        return {"name": who.name, "role": who.role}


def _add_events(app: FastAPI, context: CloudContext) -> None:
    bus = context.events

    @app.get(
        "/api/events",
        response_class=Response,
        tags=["process"],
        responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    )
    @access(Role.VIEWER, stream=True)
    async def events(
        request: Request,
        last_event_id: Annotated[str, Header(max_length=64, description="Of the last event the caller had.")] = "",
    ) -> Response:
        """Server-sent events: sessions opened, ended and sealed, edges, jobs, releases, rollouts, quarantine.

        An `event: lost` says that some were missed: ask anew for what matters. A line that begins with a colon comes
        every 15 s of silence.
        """
        if bus.listeners >= STREAMS_MAX:
            hint = "Close one, or poll with If-None-Match."
            return problem(f"{STREAMS_MAX} streams are open", Reason.RATE_LIMITED, hint=hint)
        request.scope["embridge_stream"] = True
        still_valid = request.state.still_valid

        async def lines() -> AsyncIterator[bytes]:
            yield b"retry: 2000\n\n"
            async with aclosing(bus.listen(last_event_id)) as heard:
                async for event in heard:
                    if not still_valid():
                        return
                    yield as_server_sent(event)

        return StreamingResponse(lines(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
