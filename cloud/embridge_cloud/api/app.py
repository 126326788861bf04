"""The HTTP interface: an application of routes, and what stands before it.

Shield        number, size, host, headers, counters, log line
CORS          only for the pages cloud.http_origins names
Gate          token, role, rate, time; changes go into the audit log
Revalidation  ETag and 304
FastAPI       the routes of this package and of extensions; /updates is public, since it is signed
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from embridge_cloud.api import admin_routes, evidence, models, process_routes, store_routes
from embridge_cloud.api.gate import Gate, check_routes
from embridge_cloud.api.limits import Limits
from embridge_cloud.api.problems import add_handlers
from embridge_cloud.api.revalidation import Revalidation
from embridge_cloud.api.roles import access_of
from embridge_cloud.api.shield import Shield
from embridge_cloud.context import CloudContext

Extension = Callable[[FastAPI, CloudContext], None]
"""Adds routes of its own, each with `access(role)`; called once, before the server starts."""

_SHARED_ANSWERS: Final = {
    "400": "What was sent cannot be carried out.",
    "401": "No token, or one that is not valid.",
    "403": "The role of the token does not allow it.",
    "404": "There is no such thing.",
    "409": "Something else has it.",
    "413": "The body is too large.",
    "422": "What was sent is not of the right shape.",
    "429": "Too many requests; `Retry-After` says how long to wait.",
    "500": "Something broke; the log tells what.",
    "503": "A part of the process, or the broker, does not answer.",
    "504": "It took too long.",
    "507": "The disk is full.",
}


def create_app(context: CloudContext, extensions: Sequence[Extension] = ()) -> FastAPI:
    """The application over a running cloud process: routes alone; `protect` sets the guards before it.

    Args:
        context: The running process.
        extensions: Add routes of their own.

    Raises:
        ConfigError: A route does not say who may call it.
    """
    app = FastAPI(title="EMBridge cloud", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    add_handlers(app)
    for part in (process_routes, store_routes, evidence, admin_routes):
        part.add(app, context)
    for extend in extensions:
        extend(app, context)
    app.mount("/updates", StaticFiles(directory=context.updates_dir), name="updates")
    check_routes(app.routes)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    return app


def protect(app: FastAPI, context: CloudContext) -> ASGIApp:
    """The application behind its guards."""
    cloud, clock = context.settings.cloud, context.clock
    gate: ASGIApp = Gate(
        Revalidation(app),
        lambda: app.routes,
        tokens=context.tokens,
        limits=Limits(cloud.http_rate, clock),
        metrics=context.metrics.http,
        audit=context.audit,
        clock=clock,
        timeout_s=cloud.http_timeout_s,
    )
    if cloud.http_origins:
        gate = CORSMiddleware(
            gate,
            allow_origins=cloud.http_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "If-None-Match", "Last-Event-ID"],
            expose_headers=["ETag", "Link", "Retry-After", "X-Request-ID"],
        )
    return Shield(gate, cloud, context.metrics.http, clock)


def _document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document: what FastAPI knows, with roles, tokens and the one shape of errors."""
    if app.openapi_schema is not None:
        return app.openapi_schema
    found = get_openapi(title=app.title, version=_version(), description=_ABOUT, routes=app.routes)
    parts = found.setdefault("components", {})
    parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    schemas = parts.setdefault("schemas", {})
    schemas.update(getattr(app.state, "schemas", {}), Problem=models.Problem.model_json_schema())
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for route in app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            for method in route.methods or ():
                _complete(found["paths"][route.path_format][method.lower()], route)
    app.openapi_schema = found
    return found


def _complete(operation: dict[str, Any], route: APIRoute) -> None:
    needed = access_of(route.endpoint)
    if needed is not None and needed.role is not None:
        operation["security"] = [{"token": []}]
        operation["x-role"] = needed.role.value
    body = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    operation["responses"].pop("422", None)
    for status, said in _SHARED_ANSWERS.items():
        operation["responses"].setdefault(status, {"description": said, "content": body})


def _version() -> str:
    from importlib.metadata import version

    return version("embridge")


_ABOUT: Final = """\
Sessions, edges, quarantine, jobs, releases and tokens of one cloud process.

Every request but `/health` and `/ready` shows a token: `Authorization: Bearer TOKEN`. `x-role` names the least role an
operation asks for: metrics, viewer, operator, admin. Errors answer `{"error", "reason", "hint"}`. Lists of sessions and
of the quarantine lead to their next page in the `Link` header. JSON answers carry an `ETag`; who polls sends it back as
`If-None-Match` and is answered 304 where nothing changed, or listens to `/api/events`.
"""
