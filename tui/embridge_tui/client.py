"""Speaks to a running cloud process over HTTP: what it holds, what happens there, and what an operator asks of it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Final, Protocol, TypeVar
from uuid import UUID

import msgspec

from embridge_shared.cloud_client import CloudApi
from embridge_shared.errors import EmbridgeError, NetworkError, OperatorError, Reason
from embridge_shared.fleet import Rollout
from embridge_tui.model import Edge, Ingest, Job, Readiness, Release, Session, SessionDetail, Snapshot

T = TypeVar("T")

SESSIONS_SHOWN: Final = 200
_TIMEOUT_S = 4.0
_QUIET_S = 40.0


class CloudClient(Protocol):
    """What the screens ask a cloud."""

    @property
    def address(self) -> str:
        """Whom they ask, for people."""
        ...

    async def snapshot(self) -> Snapshot:
        """Everything the lists show.

        Raises:
            NetworkError: The cloud does not answer, or what answers is none.
        """
        ...

    async def session(self, session: UUID) -> SessionDetail:
        """One session.

        Raises:
            NetworkError: The cloud does not answer, does not know it, or what answers is none.
        """
        ...

    def events(self) -> AsyncIterator[tuple[str, str]]:
        """Kind and subject of what happens there, as it happens, until the stream ends.

        Raises:
            NetworkError: The cloud does not answer.
        """
        ...

    async def ask(self, path: str) -> Any:
        """What a path of the interface answers, as JSON.

        Raises:
            EmbridgeError: The cloud does not answer, or refuses; the message says why.
        """
        ...

    async def tell(self, path: str, body: Any = None, *, method: str = "POST") -> Any:
        """Ask for a change; what is answered, as JSON. Raises as `ask`."""
        ...

    async def text(self, path: str) -> str:
        """What a path answers, as text. Raises as `ask`."""
        ...


class HttpClient:
    """The client of a cloud's HTTP interface.

    Args:
        cloud: Whom to ask: its address, or also the token to show.
        timeout_s: How long one answer may take, all its bytes included.

    Raises:
        ConfigError: The address is none.
    """

    def __init__(self, cloud: CloudApi | str, *, timeout_s: float = _TIMEOUT_S) -> None:
        known = CloudApi(cloud) if isinstance(cloud, str) else cloud
        self._cloud = dataclasses.replace(known, timeout_s=timeout_s)
        self._listener = dataclasses.replace(known, timeout_s=_QUIET_S)
        self._last_event = ""

    @property
    def address(self) -> str:
        """Base URL."""
        return self._cloud.address

    async def snapshot(self) -> Snapshot:
        """Everything the lists show; raises NetworkError."""
        return await _in_thread(self._snapshot)

    async def session(self, session: UUID) -> SessionDetail:
        """One session; raises NetworkError."""
        return await _in_thread(lambda: self._get(f"/api/sessions/{session}", SessionDetail))

    async def events(self) -> AsyncIterator[tuple[str, str]]:
        """What happens there, until the stream ends; raises NetworkError."""
        queue: asyncio.Queue[tuple[str, str] | EmbridgeError | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        heard, last = threading.Event(), self._last_event

        def hear() -> None:
            end: EmbridgeError | None = None
            try:
                for event in _events(self._listener.lines("/api/events", last_id=last)):
                    if heard.is_set():
                        return
                    self._last_event = event[0] or self._last_event
                    loop.call_soon_threadsafe(queue.put_nowait, event[1:])
            except EmbridgeError as error:
                end = error
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(queue.put_nowait, end)

        threading.Thread(target=hear, name="cloud-events", daemon=True).start()
        try:
            while (event := await queue.get()) is not None:
                if isinstance(event, EmbridgeError):
                    raise event
                yield event
        finally:
            heard.set()

    async def ask(self, path: str) -> Any:
        """What a path answers; raises EmbridgeError."""
        return await _in_thread(lambda: self._cloud.get(path))

    async def tell(self, path: str, body: Any = None, *, method: str = "POST") -> Any:
        """Ask for a change; raises EmbridgeError."""
        sent = None if body is None else msgspec.json.encode(body)
        return await _in_thread(
            lambda: msgspec.json.decode(self._cloud.read(path, method=method, body=sent) or b"null")
        )

    async def text(self, path: str) -> str:
        """What a path answers, as text; raises EmbridgeError."""
        return await _in_thread(lambda: self._cloud.read(path).decode("utf-8", "replace"))

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            readiness=self._get("/ready", Readiness, also=503),
            ingest=self._get("/api/ingest", Ingest),
            sessions=self._get(f"/api/sessions?limit={SESSIONS_SHOWN}", tuple[Session, ...]),
            edges=self._get("/api/edges", tuple[Edge, ...]),
            releases=self._get("/api/releases", tuple[Release, ...]),
            jobs=self._get("/api/jobs", tuple[Job, ...]),
            rollouts=self._get("/api/rollouts", tuple[Rollout, ...]),
        )

    def _get(self, path: str, kind: type[T], *, also: int = 200) -> T:
        try:
            return _decoded(path, self._cloud.read(path, also=also), kind)
        except OperatorError as error:
            raise NetworkError(error.message, reason=error.reason, hint=error.hint) from error


def _decoded(path: str, body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body or b"null", type=kind)
    except msgspec.DecodeError as error:
        raise NetworkError(
            f"{path} is not what an EMBridge cloud answers: {error}",
            reason=Reason.FOREIGN,
            hint="Is an `embridge cloud run` of this version there?",
        ) from error


def _events(lines: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Id, kind and subject of the events in a stream."""
    found: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            found[name] = value.strip()
        elif "event" in found:
            body = msgspec.json.decode(found.get("data", "{}").encode())
            yield found.get("id", ""), found["event"], str(body.get("subject", "")) if isinstance(body, dict) else ""
            found = {}


async def _in_thread(call: Callable[[], T]) -> T:
    """Run what blocks in a daemon thread: one that hangs holds up neither the loop nor the end of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: Any, error: Exception | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def run() -> None:
        outcome: tuple[Any, Exception | None]
        try:
            outcome = (call(), None)
        except Exception as error:
            outcome = (None, error)
        # The loop may have ended while the call was under way.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name="cloud-client", daemon=True).start()
    return await future
