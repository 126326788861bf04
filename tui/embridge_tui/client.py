"""Reads a running cloud process over HTTP; it changes nothing there."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from http.client import HTTPException
from typing import Any, Final, Protocol, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen
from uuid import UUID

import msgspec

from embridge_shared.errors import ConfigError, NetworkError, Reason
from embridge_tui.model import Edge, Ingest, Job, Readiness, Release, Session, SessionDetail, Snapshot

T = TypeVar("T")

SESSIONS_SHOWN: Final = 200
_TIMEOUT_S = 4.0
_MAX_BYTES = 32 << 20
_BLOCK = 1 << 16


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


class HttpClient:
    """The client of a cloud's HTTP interface.

    Args:
        address: As in "http://127.0.0.1:8470".
        timeout_s: How long one answer may take, all its bytes included.

    Raises:
        ConfigError: `address` is no HTTP address.
    """

    def __init__(self, address: str, *, timeout_s: float = _TIMEOUT_S) -> None:
        if not address.startswith(("http://", "https://")):
            raise ConfigError(
                f"{address!r} is no address of an HTTP interface.", hint="Give one like http://127.0.0.1:8470."
            )
        self._address = address.rstrip("/")
        self._timeout_s = timeout_s

    @property
    def address(self) -> str:
        """Base URL."""
        return self._address

    async def snapshot(self) -> Snapshot:
        """Everything the lists show; raises NetworkError."""
        return await _in_thread(self._snapshot)

    async def session(self, session: UUID) -> SessionDetail:
        """One session; raises NetworkError."""
        return await _in_thread(lambda: self._get(f"/api/sessions/{session}", SessionDetail))

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            readiness=self._get("/ready", Readiness, also=503),
            ingest=self._get("/api/ingest", Ingest),
            sessions=self._get(f"/api/sessions?limit={SESSIONS_SHOWN}", tuple[Session, ...]),
            edges=self._get("/api/edges", tuple[Edge, ...]),
            releases=self._get("/api/releases", tuple[Release, ...]),
            jobs=self._get("/api/jobs", tuple[Job, ...]),
        )

    def _get(self, path: str, kind: type[T], *, also: int = 200) -> T:
        try:
            body = self._read(path, also)
            return msgspec.json.decode(body, type=kind)
        except msgspec.DecodeError as error:
            raise self._foreign(f"{path} is not what an EMBridge cloud answers: {error}") from error
        except TimeoutError as error:
            raise NetworkError(
                f"the cloud at {self._address} took more than {self._timeout_s:g} s to answer",
                reason=Reason.TIMEOUT,
                hint="See whether its machine is overloaded, or what its log says.",
            ) from error
        except (OSError, HTTPException, ValueError) as error:
            raise NetworkError(
                f"no cloud answers at {self._address}: {_why(error)}",
                reason=Reason.UNREACHABLE,
                hint="Start `embridge cloud run`, or give its address with --url.",
            ) from error

    def _read(self, path: str, also: int) -> bytes:
        deadline = time.monotonic() + self._timeout_s
        request = Request(self._address + path, headers={"Accept": "application/json"})  # noqa: S310
        try:
            answer = urlopen(request, timeout=self._timeout_s)  # noqa: S310
        except HTTPError as error:
            if error.code != also:
                error.close()
                raise self._refused(path, error.code) from error
            answer = error
        except URLError as error:
            raise (error.reason if isinstance(error.reason, OSError) else error) from error
        body = bytearray()
        with answer:
            while block := answer.read1(_BLOCK):
                body += block
                if time.monotonic() > deadline:
                    raise TimeoutError
                if len(body) > _MAX_BYTES:
                    raise self._foreign(f"{path} answers without an end")
        return bytes(body)

    def _refused(self, path: str, code: int) -> NetworkError:
        return self._foreign(f"{self._address}{path} answered {code}")

    def _foreign(self, message: str) -> NetworkError:
        return NetworkError(message, reason=Reason.FOREIGN, hint="Is an `embridge cloud run` of this version there?")


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


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
