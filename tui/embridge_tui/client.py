"""Reads a running cloud process over HTTP; it changes nothing there."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar
from uuid import UUID

import msgspec

from embridge_shared.cloud_client import CloudApi
from embridge_shared.errors import NetworkError, OperatorError, Reason
from embridge_tui.model import Edge, Ingest, Job, Readiness, Release, Session, SessionDetail, Snapshot

T = TypeVar("T")

SESSIONS_SHOWN: Final = 200
_TIMEOUT_S = 4.0


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
        cloud: Whom to ask: its address, or also the token to show.
        timeout_s: How long one answer may take, all its bytes included.

    Raises:
        ConfigError: The address is none.
    """

    def __init__(self, cloud: CloudApi | str, *, timeout_s: float = _TIMEOUT_S) -> None:
        known = CloudApi(cloud) if isinstance(cloud, str) else cloud
        self._cloud = dataclasses.replace(known, timeout_s=timeout_s)

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
            return msgspec.json.decode(self._cloud.read(path, also=also), type=kind)
        except msgspec.DecodeError as error:
            raise NetworkError(
                f"{path} is not what an EMBridge cloud answers: {error}",
                reason=Reason.FOREIGN,
                hint="Is an `embridge cloud run` of this version there?",
            ) from error
        except OperatorError as error:
            raise NetworkError(error.message, reason=error.reason, hint=error.hint) from error


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
