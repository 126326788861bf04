"""The gate before every route: who asks, in which role, how often, for how long; changes go on record."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from fastapi.responses import JSONResponse
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embridge_cloud.api.limits import Limits
from embridge_cloud.api.metrics import HttpMetrics
from embridge_cloud.api.problems import problem
from embridge_cloud.api.roles import Access, Role, access_of
from embridge_cloud.api.tokens import Principal, TokenFile
from embridge_shared.clock import Clock
from embridge_shared.errors import ConfigError, EmbridgeError, OperatorError, Reason

logger = logging.getLogger(__name__)

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_FILES: Final = Access(None, stream=True)
_UNKNOWN: Final = Access(Role.VIEWER)


class Audit(Protocol):
    """Puts changes on record."""

    def record(self, actor: str, action: str, subject: str, detail: Any, wall_ns: int) -> object:
        """Append a row; committed when this returns."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """The route a request means.

    Attributes:
        path: As it was declared.
        access: What it asks for.
        values: Of the placeholders in the path.
        files: It hands out the files of a folder.
    """

    path: str
    access: Access
    values: tuple[str, ...] = ()
    files: bool = False


def check_routes(routes: Sequence[BaseRoute]) -> None:
    """See to it that every route says who may call it, and every change what the audit log calls it.

    Raises:
        ConfigError: One does not.
    """
    for route in routes:
        if isinstance(route, Mount):
            continue
        path = getattr(route, "path", repr(route))
        found = access_of(getattr(route, "endpoint", None))
        if not isinstance(route, Route) or found is None:
            raise ConfigError(f"the route {path} does not say who may call it.", hint="Declare it with `access(role)`.")
        if set(route.methods or ()) - _SAFE and (found.role in (None, Role.METRICS, Role.VIEWER) or not found.action):
            raise ConfigError(
                f"the route {path} changes something and names no action, or is open to viewers.",
                hint='Declare it with `access(Role.OPERATOR, action="noun.verb")`.',
            )


class Gate:
    """Lets through who may.

    Args:
        app: The application behind.
        routes: Its routes.
        tokens: Who may come.
        limits: How often.
        metrics: Counts what is refused.
        audit: Puts changes on record.
        clock: Time.
        timeout_s: How long a request may take, streams and files aside.
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: Callable[[], Sequence[BaseRoute]],
        *,
        tokens: TokenFile,
        limits: Limits,
        metrics: HttpMetrics,
        audit: Audit,
        clock: Clock,
        timeout_s: float,
    ) -> None:
        self._app = app
        self._routes = routes
        self._tokens = tokens
        self._limits = limits
        self._metrics = metrics
        self._audit = audit
        self._clock = clock
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        found = self._find(scope)
        scope["embridge_route"] = found.path
        state = scope.setdefault("state", {})
        refused = self._judge(scope, found, state)
        if refused is not None:
            await refused(scope, receive, send)
            return
        if found.access.action and scope["method"] not in _SAFE:
            send = self._recording(scope, found, send)
        await self._in_time(found, scope, receive, send)

    def _find(self, scope: Scope) -> Found:
        """As the router behind will choose: the first that takes path and method, else the first that has the path."""
        partly: Found | None = None
        for route in self._routes():
            match, child = route.matches(scope)
            if match is Match.NONE:
                continue
            found = _found(route, child)
            if match is Match.FULL:
                return found
            partly = partly or found
        return partly or Found("unknown", _UNKNOWN)

    def _judge(self, scope: Scope, found: Found, state: dict[str, Any]) -> JSONResponse | None:
        """None for a request that may go on, else the answer."""
        address = scope["client"][0] if scope.get("client") else "unknown"
        try:
            text = _token(scope)
            who = self._tokens.check(text, self._clock.wall_ns()) if text else None
        except OperatorError as error:
            return self._refuse(error)
        except ConfigError as error:
            logger.error("nobody is let in: %s", error)
            return self._refuse(error, status=503)
        if text and who is None:
            return self._wrong_token(address)
        wait_s = self._limits.of_token(who.name) if who else 0.0
        if who is None and not found.files:
            wait_s = self._limits.of_address(address)
        if wait_s > 0:
            return self._slow_down(wait_s)
        state["principal"], state["actor"] = who, f"token:{who.name}" if who else ""
        state["still_valid"] = lambda: self._tokens.check(text, self._clock.wall_ns()) == who if text else True
        return self._authorise(found.access, who)

    def _authorise(self, access: Access, who: Principal | None) -> JSONResponse | None:
        if access.role is None:
            return None
        if who is None:
            return self._refuse(
                OperatorError(
                    "a token is asked for",
                    reason=Reason.UNAUTHENTICATED,
                    hint="Send it as `Authorization: Bearer TOKEN`; `embridge token create` makes one.",
                ),
                headers={"WWW-Authenticate": "Bearer"},
            )
        if not who.role.allows(access.role):
            logger.warning("%s, %s, was refused what needs %s", who.name, who.role.value, access.role.value)
            return self._refuse(
                OperatorError(
                    f"the role {who.role.value} does not allow this, {access.role.value} would",
                    reason=Reason.FORBIDDEN,
                    hint=f"Ask an admin for a token: `embridge token create NAME --role {access.role.value}`.",
                )
            )
        return None

    def _wrong_token(self, address: str) -> JSONResponse:
        wait_s = self._limits.of_failure(address)
        if wait_s > 0:
            return self._slow_down(wait_s)
        logger.warning("a token that is not valid was shown from %s", address)
        return self._refuse(
            OperatorError(
                "this token is not valid",
                reason=Reason.UNAUTHENTICATED,
                hint="It was revoked, or its term is over; `embridge token list` shows those that are.",
            ),
            headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
        )

    def _slow_down(self, wait_s: float) -> JSONResponse:
        error = OperatorError("too many requests", reason=Reason.RATE_LIMITED, hint=f"Wait {wait_s:.1f} s.")
        return self._refuse(error, headers={"Retry-After": str(int(wait_s) + 1)})

    def _refuse(
        self, error: EmbridgeError, *, status: int | None = None, headers: dict[str, str] | None = None
    ) -> JSONResponse:
        self._metrics.refused.labels(error.reason.value).inc()
        return problem(error.message, error.reason, hint=error.hint, status=status, headers=headers)

    async def _in_time(self, found: Found, scope: Scope, receive: Receive, send: Send) -> None:
        if found.access.stream:
            await self._app(scope, receive, send)
            return
        begun = False

        async def watch(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            async with asyncio.timeout(self._timeout_s):
                await self._app(scope, receive, watch)
        except TimeoutError:
            self._metrics.refused.labels(Reason.TIMEOUT.value).inc()
            logger.warning("%s took more than %g s", found.path, self._timeout_s)
            if begun:
                raise
            late = problem(f"no answer within {self._timeout_s:g} s", Reason.TIMEOUT, hint="Ask for less, or later.")
            await late(scope, receive, send)

    def _recording(self, scope: Scope, found: Found, send: Send) -> Send:
        """Put a change on record before its answer leaves."""

        async def record(message: Message) -> None:
            if message["type"] == "http.response.start":
                await self._record(scope, found, int(message["status"]))
            await send(message)

        return record

    async def _record(self, scope: Scope, found: Found, status: int) -> None:
        state, access = scope["state"], found.access
        subject = ":".join([access.noun, *(state.get("subject") or found.values)])
        detail = {"status": status, "request": str(state.get("request_id", "")), **state.get("detail", {})}
        actor = state["actor"]
        try:
            await asyncio.to_thread(self._audit.record, actor, access.action, subject, detail, self._clock.wall_ns())
        except EmbridgeError as error:
            self._metrics.audit_failures.inc()
            logger.error("%s %s by %s is not in the audit log: %s", access.action, subject, actor, error)


def _found(route: BaseRoute, child: Scope) -> Found:
    path = getattr(route, "path", "")
    if isinstance(route, Mount):
        return Found(path, _FILES, files=True)
    values = tuple(str(v) for v in child.get("path_params", {}).values())
    return Found(path, access_of(getattr(route, "endpoint", None)) or _UNKNOWN, values)


def _token(scope: Scope) -> str:
    """The bearer token of a request, or nothing.

    Raises:
        OperatorError: MALFORMED.
    """
    shown: list[bytes] = [value for name, value in scope["headers"] if name == b"authorization"]
    if not shown:
        return ""
    kind, _, text = shown[0].decode("latin-1").partition(" ")
    if len(shown) > 1 or kind.lower() != "bearer" or not text.strip():
        raise OperatorError(
            "this is no bearer token", reason=Reason.MALFORMED, hint="Send `Authorization: Bearer TOKEN`, once."
        )
    return text.strip()
