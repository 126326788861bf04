"""Answers that need not be sent again: an ETag on every JSON answer, and 304 to whoever has it already."""

from __future__ import annotations

import hashlib
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_MAX_BYTES: Final = 4 << 20


class Revalidation:
    """Tells callers that poll whether what they have still holds; the answer is made, and not sent.

    Args:
        app: What is behind.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["method"] != "GET" or not scope["path"].startswith("/api/"):
            await self._app(scope, receive, send)
            return
        wanted = next((value for name, value in scope["headers"] if name == b"if-none-match"), b"")
        await self._app(scope, receive, _Answer(wanted, send))


class _Answer:
    def __init__(self, wanted: bytes, send: Send) -> None:
        self._wanted = {tag.strip().removeprefix(b"W/") for tag in wanted.split(b",") if tag.strip()}
        self._send = send
        self._start: Message | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _is_json(message):
            self._start = message
        elif self._start is None or message["type"] != "http.response.body":
            await self._send(message)
        elif message.get("more_body") or len(message.get("body", b"")) > _MAX_BYTES:
            start, self._start = self._start, None
            await self._send(start)
            await self._send(message)
        else:
            start, self._start = self._start, None
            await self._whole(start, message)

    async def _whole(self, start: Message, message: Message) -> None:
        tag = b'"%s"' % hashlib.blake2b(message.get("body", b""), digest_size=12).hexdigest().encode()
        headers = [*start["headers"], (b"etag", b"W/" + tag), (b"cache-control", b"private, no-cache")]
        if tag in self._wanted:
            kept = [(n, v) for n, v in headers if n not in (b"content-length", b"content-type")]
            await self._send({"type": "http.response.start", "status": 304, "headers": kept})
            await self._send({"type": "http.response.body", "body": b""})
            return
        await self._send({**start, "headers": headers})
        await self._send(message)


def _is_json(start: Message) -> bool:
    kinds = [value for name, value in start.get("headers", ()) if name.lower() == b"content-type"]
    return start["status"] == 200 and bool(kinds) and kinds[0].startswith(b"application/json")
