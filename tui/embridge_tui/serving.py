"""A terminal interface in a browser of this machine: one process of its own a tab, behind a key, on loopback alone.

What is served can do all that its user can, so nobody else may reach it: the address is loopback, a page of another
origin is turned away (DNS rebinding, WebSockets across sites), and only who has the key from the terminal gets in.
"""

from __future__ import annotations

import hmac
import secrets
import shlex
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import typer
from aiohttp import web
from textual_serve.server import Server

from embridge_shared.errors import OperatorError, Reason

_COOKIE: Final = "embridge-key"
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class LoopbackServer(Server):
    """Serves a command that is a Textual application.

    Args:
        command: What runs for every tab.
        port: On loopback.
        title: Of the page.
        key: Opens it; a random one by default.
    """

    def __init__(self, command: Sequence[str], port: int, title: str, *, key: str = "") -> None:
        self.key = key or secrets.token_urlsafe(24)
        super().__init__(shlex.join(command), host="127.0.0.1", port=port, title=title)

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"{self.public_url}/?key={self.key}"

    def initialize_logging(self) -> None:
        """Logging is set up already."""

    async def on_startup(self, app: web.Application) -> None:
        """Say where it is."""
        typer.echo(f"{self.title}: open {self.address}", err=True)
        typer.echo(
            "A tablet gets there through an SSH tunnel. Every tab is a process of its own. Ctrl-C ends it.", err=True
        )

    async def _make_app(self) -> web.Application:
        app = await super()._make_app()
        app.middlewares.append(self._guard)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Let in who has the key and comes from this address."""
        own = self.public_url.partition("://")[2]
        if request.host != own or request.headers.get("Origin", self.public_url) != self.public_url:
            raise web.HTTPForbidden(text="This page is served to its own address alone.")
        given = request.query.get("key") or request.cookies.get(_COOKIE, "")
        if not hmac.compare_digest(given.encode(), self.key.encode()):
            raise web.HTTPForbidden(text="Open the address that the terminal shows: the key is part of it.")
        response = await handler(request)
        if not response.prepared:
            response.set_cookie(_COOKIE, self.key, httponly=True, samesite="Strict", path="/")
            # The page's template asks a font server of others; nobody but this process is to be asked.
            response.headers["Content-Security-Policy"] = (
                f"default-src 'self' data: blob:; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
                f"connect-src 'self' ws://{own}; frame-ancestors 'none'"
            )
            response.headers["Referrer-Policy"] = "no-referrer"
        return response


def serve(command: Sequence[str], *, port: int, title: str) -> None:
    """Serve until interrupted.

    Args:
        command: What runs for every tab.
        port: On loopback.
        title: Of the page.

    Raises:
        OperatorError: The port is taken.
    """
    try:
        LoopbackServer(command, port, title).serve()
    except OSError as error:
        raise OperatorError(
            f"127.0.0.1:{port} cannot be served: {error.strerror or error}",
            reason=Reason.INVALID,
            hint="Give another --port.",
        ) from error
