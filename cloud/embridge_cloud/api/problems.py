"""Errors as answers: one body for all of them, `{"error", "reason", "hint"}`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from embridge_shared.errors import ConfigError, DataError, EmbridgeError, NetworkError, OperatorError, Reason

logger = logging.getLogger(__name__)

_STATUS: Final = {
    Reason.NOT_FOUND: 404,
    Reason.LOCKED: 409,
    Reason.UNREACHABLE: 503,
    Reason.DISK_FULL: 507,
    Reason.UNAUTHENTICATED: 401,
    Reason.FORBIDDEN: 403,
    Reason.RATE_LIMITED: 429,
    Reason.TOO_LARGE: 413,
    Reason.TIMEOUT: 504,
}
_HTTP: Final = {404: Reason.NOT_FOUND, 413: Reason.TOO_LARGE}


def problem(
    message: str, reason: Reason, *, hint: str = "", status: int | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The answer that something is wrong.

    Args:
        message: What happened.
        reason: Machine-readable cause.
        hint: What to do next.
        status: HTTP's; by default the one of the reason.
        headers: Further headers.
    """
    body = {"error": message, "reason": reason.value, "hint": hint}
    return JSONResponse(body, status or _STATUS.get(reason, 400), dict(headers or {}))


def add_handlers(app: FastAPI) -> None:
    """Let every error of an application answer with that body."""
    app.add_exception_handler(EmbridgeError, _refused)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _misshapen)
    app.add_exception_handler(Exception, _broken)


async def _refused(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, EmbridgeError):
        raise error
    blame = 400 if isinstance(error, OperatorError | DataError | ConfigError) else 500
    status = _STATUS.get(error.reason, 503 if isinstance(error, NetworkError) else blame)
    if status >= 500:
        logger.error("%s", error)
    return problem(error.message, error.reason, hint=error.hint, status=status)


async def _http(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    said = error.detail or HTTPStatus(error.status_code).phrase
    reason = _HTTP.get(error.status_code, Reason.INVALID)
    hint = "`GET /api/openapi.json` lists what there is." if error.status_code in (404, 405) else ""
    headers = {"Allow": _allowed(request)} if error.status_code == 405 else error.headers
    return problem(str(said), reason, hint=hint, status=error.status_code, headers=headers)


def _allowed(request: Request) -> str:
    """The methods that all routes of a path take together."""
    found: set[str] = set()
    for route in request.app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= set(getattr(route, "methods", None) or ())
    return ", ".join(sorted(found))


async def _misshapen(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    faults = "; ".join(f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors()[:8])
    return problem(faults, Reason.MALFORMED, hint="`GET /api/openapi.json` says what is taken.", status=422)


async def _broken(_: Request, error: Exception) -> JSONResponse:
    return problem("something broke here", Reason.INTERNAL, hint="The log of the cloud process tells what.", status=500)
