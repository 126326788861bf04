"""What surrounds every request: its number, its size, the name it was asked by, headers, counters and one log line."""

from __future__ import annotations

import ipaddress
import logging
import re
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embridge_cloud.api.metrics import HttpMetrics
from embridge_cloud.api.problems import problem
from embridge_shared import logs
from embridge_shared.clock import Clock
from embridge_shared.cloud_client import is_loopback
from embridge_shared.errors import Reason
from embridge_shared.settings import CloudSettings

logger = logging.getLogger(__name__)

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
_TLS_HEADERS: Final = {"strict-transport-security": "max-age=31536000"}


class Hosts:
    """Names this process may be asked by: a page in somebody's browser cannot make up one that leads here.

    Args:
        cloud: Settings.
    """

    def __init__(self, cloud: CloudSettings) -> None:
        own = (cloud.http_host, urlsplit(cloud.public_url).hostname or "", socket.gethostname(), *cloud.http_hosts)
        self._any = "*" in cloud.http_hosts
        self._names = {name.lower().strip("[]") for name in own if name}

    def allow(self, host: str, local: str) -> bool:
        """Whether a request may name `host`.

        Args:
            host: The header's value, with or without a port.
            local: The address of this machine that the request came to.
        """
        name = _name(host)
        if self._any or name in self._names or is_loopback(name):
            return True
        try:
            return ipaddress.ip_address(name) == ipaddress.ip_address(local)
        except ValueError:
            return False


@dataclass(slots=True)
class _Exchange:
    """One request and its answer so far."""

    scope: Scope
    request_id: str
    began_ns: int
    status: int = 0
    received: int = 0
    headers: dict[str, str] = field(default_factory=dict)


class Shield:
    """Surrounds an application.

    Args:
        app: What is behind.
        settings: Limits and names.
        metrics: Counts requests.
        clock: Time.
    """

    def __init__(self, app: ASGIApp, settings: CloudSettings, metrics: HttpMetrics, clock: Clock) -> None:
        self._app = app
        self._max_body = settings.http_max_body_bytes
        self._hosts = Hosts(settings)
        self._metrics = metrics
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        given = _header(scope, b"x-request-id")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        exchange = _Exchange(scope, request_id, self._clock.monotonic_ns(), headers=_headers_for(scope))
        with logs.context(request=request_id):
            try:
                await self._handle(exchange, receive, send)
            finally:
                self._note(exchange)

    async def _handle(self, exchange: _Exchange, receive: Receive, send: Send) -> None:
        scope = exchange.scope

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = int(message["status"])
                message = {**message, "headers": _merged(message.get("headers", ()), exchange.headers)}
            await send(message)

        async def limited() -> Message:
            message = await receive()
            exchange.received += len(message.get("body", b""))
            if exchange.received > self._max_body:
                # The application answers it like any other: it has begun, and so has the body.
                self._metrics.refused.labels(Reason.TOO_LARGE.value).inc()
                raise HTTPException(413, f"a body holds at most {self._max_body} bytes")
            return message

        refusal = self._refusal(scope)
        try:
            await (refusal or self._app)(scope, limited, answer)
        except Exception:
            # Logged here with the request's number; the application has answered with 500 if it could.
            logger.exception("%s %s broke", scope["method"], scope["path"])
            if exchange.status == 0:
                broken = problem("something broke here", Reason.INTERNAL, hint="The log tells what.", status=500)
                await broken(scope, receive, answer)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        local = scope["server"][0] if scope.get("server") else ""
        if not self._hosts.allow(_header(scope, b"host"), local):
            self._metrics.refused.labels("host").inc()
            hint = "Ask by its address, or add the name to cloud.http_hosts."
            return problem("this host is not served here", Reason.FORBIDDEN, hint=hint, status=421)
        length = _header(scope, b"content-length")
        if length.isdecimal() and int(length) > self._max_body:
            return self._too_large()
        return None

    def _too_large(self) -> ASGIApp:
        self._metrics.refused.labels(Reason.TOO_LARGE.value).inc()
        hint = "cloud.http_max_body_bytes sets the limit."
        return problem(f"a body holds at most {self._max_body} bytes", Reason.TOO_LARGE, hint=hint)

    def _note(self, exchange: _Exchange) -> None:
        scope = exchange.scope
        route, took_s = str(scope.get("embridge_route", "refused")), self._seconds(exchange)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.requests.labels(method, route, str(exchange.status or 499)).inc()
        if not scope.get("embridge_stream"):
            self._metrics.seconds.labels(route).observe(took_s)
        who = scope["state"].get("principal")
        fields = {"status": exchange.status, "ms": round(took_s * 1e3, 1), "actor": who.name if who else ""}
        level = logging.DEBUG if method in ("GET", "HEAD") else logging.INFO
        logger.log(level, "%s %s %d", method, scope["path"], exchange.status, extra=fields)

    def _seconds(self, exchange: _Exchange) -> float:
        return (self._clock.monotonic_ns() - exchange.began_ns) * 1e-9


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _headers_for(scope: Scope) -> dict[str, str]:
    own = {**_HEADERS, "x-request-id": scope["state"]["request_id"]}
    if scope.get("scheme") == "https":
        own |= _TLS_HEADERS
    if not scope["path"].startswith("/updates"):
        own["cache-control"] = "no-store"
    return own


def _merged(given: Iterable[tuple[bytes, bytes]], ours: dict[str, str]) -> list[tuple[bytes, bytes]]:
    """The answer's own headers; ours where it says nothing."""
    kept = list(given)
    names = {name.lower() for name, _ in kept}
    return kept + [(n.encode(), v.encode("latin-1")) for n, v in ours.items() if n.encode() not in names]


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")
