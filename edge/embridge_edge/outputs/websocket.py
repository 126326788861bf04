"""A local WebSocket server: JSON messages for programs and pages on this machine.

Nobody is waited for: a client is sent the latest decision only, its events wait in a short queue, and one that does not
read is dropped.
"""

from __future__ import annotations

import asyncio
import http
import logging
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from embridge_edge.decode.decision import Decided
from embridge_edge.outputs import messages
from embridge_edge.outputs.base import Output, Pace
from embridge_edge.outputs.door import Asked, Door, check_address
from embridge_edge.outputs.messages import Notice
from embridge_shared.errors import ConfigError, OperatorError, Reason

if TYPE_CHECKING:
    from websockets.asyncio.server import Server, ServerConnection
    from websockets.http11 import Request, Response

logger = logging.getLogger(__name__)

_WAITING: Final = 64
_CLIENTS: Final = 16
_LARGEST_B: Final = 4096
_SEND_S: Final = 2.0
_PING_S: Final = 5.0
_MOST_HZ: Final = 1000.0
_CLOSE_S: Final = 1.0
_HEADERS: Final = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' data: ws: wss:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Connection": "close",
}


@dataclass(eq=False, slots=True)
class _Client:
    """Somebody who listens.

    Attributes:
        pace: How often they want decisions.
        waiting: What they must get, in order.
        latest: The decision they were not sent yet, if any.
        news: Set when there is something to send.
        overrun: They did not read what they must get.
    """

    pace: Pace
    waiting: deque[str] = field(default_factory=deque)
    latest: str | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)
    overrun: bool = False

    def put(self, text: str) -> None:
        self.overrun |= len(self.waiting) >= _WAITING
        if not self.overrun:
            self.waiting.append(text)
        self.news.set()

    def update(self, text: str) -> None:
        self.latest = text
        self.news.set()

    def take(self) -> str | None:
        """The next text: what changed first."""
        if self.waiting:
            return self.waiting.popleft()
        text, self.latest = self.latest, None
        return text


class WebSocketOutput(Output):
    """Serves decisions.

    Args:
        host: Address to listen on.
        port: 0 takes any free one.
        edge: Name of this edge.
        updates_hz: Decisions a second, where a client does not say.
        door: Who may connect.
        page: HTML file to hand out at `/`.

    Attributes:
        port: Where it listens, once started.
        refused: Clients that were not let in.
        dropped: Clients that did not read.

    Raises:
        ConfigError: INSECURE: others than this machine could listen and no token is asked for; the page is no file.
    """

    name = "websocket"

    def __init__(
        self,
        host: str,
        port: int,
        *,
        edge: str,
        updates_hz: float = 10.0,
        door: Door | None = None,
        page: Path | None = None,
    ) -> None:
        self._door = door or Door()
        check_address(host, self._door.token)
        self._host = host
        self.port = port
        self._edge = edge
        self._updates_hz = updates_hz
        self._page = None if page is None else _read(page)
        self._clients: set[_Client] = set()
        self._server: Server | None = None
        self._last: Decided | None = None
        self.refused = 0
        self.dropped = 0

    @property
    def clients(self) -> int:
        """How many listen."""
        return len(self._clients)

    @property
    def where(self) -> str:
        """Where it is reached."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"ws://{host}:{self.port}/"

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: MISSING_EXTRA: `websockets` is not installed.
            OperatorError: The port is taken.
        """
        serve = _load_serve()
        # At lower levels it logs requests, tokens and all.
        protocol = logging.getLogger(f"{__name__}.protocol")
        protocol.setLevel(logging.ERROR)
        try:
            self._server = await serve(
                self._serve,
                self._host,
                self.port,
                process_request=self._answer,
                compression=None,
                max_size=_LARGEST_B,
                max_queue=4,
                write_limit=_LARGEST_B,
                ping_interval=_PING_S,
                ping_timeout=_PING_S,
                open_timeout=_PING_S,
                close_timeout=_CLOSE_S,
                server_header=None,
                logger=protocol,
            )
        except OSError as error:
            raise OperatorError(
                f"{self.where} cannot be listened on: {error.strerror or error}",
                reason=Reason.LOCKED,
                hint="Another program, or another agent, may have the port: choose another, as in `websocket:8472`.",
            ) from error
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        logger.info("decisions at %s", self.where)

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """Let a client in (None), hand the page out, or refuse."""
        asked = Asked(
            path=request.path,
            host=_first(request.headers.get_all("Host")),
            origin=next(iter(request.headers.get_all("Origin")), None),
            authorization=_first(request.headers.get_all("Authorization")),
        )
        why = self._door.refusal(asked)
        if why:
            self.refused += 1
            logger.warning("a client is not let in: %s", why)
            return connection.respond(http.HTTPStatus.FORBIDDEN, f"{why}\n")
        if "websocket" not in _first(request.headers.get_all("Upgrade")).lower():
            return self._handed_out(connection, request.path.partition("?")[0])
        if len(self._clients) >= _CLIENTS:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "too many clients\n")
        if _wanted_hz(asked) is None:
            return connection.respond(http.HTTPStatus.BAD_REQUEST, "hz is no rate\n")
        return None

    def _handed_out(self, connection: ServerConnection, path: str) -> Response:
        if self._page is None or path != "/":
            return connection.respond(http.HTTPStatus.NOT_FOUND, "there is a WebSocket here, and no page\n")
        response = connection.respond(http.HTTPStatus.OK, self._page)
        for key, value in _HEADERS.items():
            with suppress(KeyError):
                del response.headers[key]
            response.headers[key] = value
        return response

    async def _serve(self, connection: ServerConnection) -> None:
        from websockets.exceptions import ConnectionClosed

        request = connection.request
        wanted = None if request is None else _wanted_hz(Asked(request.path, ""))
        hz = self._updates_hz if wanted is None or wanted < 0 else min(wanted, _MOST_HZ)
        client = _Client(Pace(hz))
        client.put(messages.encode(messages.hello_of(self._last, self._edge, hz)))
        self._clients.add(client)
        feeding = asyncio.create_task(self._feed(connection, client), name="websocket-client")
        try:
            # What a client says is not wanted; its goodbye is heard all the same.
            async for _ in connection:
                pass
        except ConnectionClosed:
            pass
        finally:
            self._clients.discard(client)
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)

    async def _feed(self, connection: ServerConnection, client: _Client) -> None:
        """Send what waits for a client, and cut the line when it does not read."""
        with suppress(TimeoutError):
            while not client.overrun:
                text = client.take()
                if text is None:
                    client.news.clear()
                    await client.news.wait()
                    continue
                async with asyncio.timeout(_SEND_S):
                    await connection.send(text)
        self.dropped += 1
        logger.warning("a client that does not read is dropped")
        connection.transport.abort()

    async def tell(self, decided: Decided) -> None:
        """Hand a decision to every client's queue."""
        last, self._last = self._last, decided
        changed = last is None or (last.session, last.release, last.labels) != (
            decided.session,
            decided.release,
            decided.labels,
        )
        if not self._clients:
            return
        gestures = [messages.encode(m) for m in messages.gestures_of(decided)]
        update: str | None = None
        for client in self._clients:
            if changed:
                client.put(messages.encode(messages.hello_of(decided, self._edge, client.pace.hz)))
            if client.pace.due(decided.t_ns) or (gestures and client.pace.hz > 0):
                update = update or messages.encode(messages.update_of(decided))
                client.update(update)
            for text in gestures:
                client.put(text)

    def notice(self, notice: Notice) -> None:
        """Hand something to every client's queue."""
        for client in self._clients:
            client.put(messages.encode(notice))

    async def close(self) -> None:
        """Say goodbye and stop listening."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            await server.wait_closed()


def _wanted_hz(asked: Asked) -> float | None:
    """Decisions a second a client asks for; -1 where it does not, None where it makes no sense."""
    text = asked.wish("hz")
    if not text:
        return -1.0
    try:
        hz = float(text)
    except ValueError:
        return None
    return hz if 0 <= hz < float("inf") else None


def _first(values: list[str]) -> str:
    return values[0] if len(values) == 1 else ""


def _read(page: Path) -> str:
    try:
        return page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the page {page} cannot be read: {error}", reason=Reason.NOT_FOUND) from error


def _load_serve() -> Any:
    try:
        from websockets.asyncio.server import serve
    except ModuleNotFoundError as error:
        raise ConfigError(
            "the WebSocket output needs websockets, which is not installed",
            reason=Reason.MISSING_EXTRA,
            hint='Install it with: pip install "embridge[websocket]"',
        ) from error
    return serve
