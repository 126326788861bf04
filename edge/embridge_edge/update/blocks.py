"""The repository in blocks over the broker, for edges that reach nothing else."""

from __future__ import annotations

import itertools
import os
import re
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Final, Protocol

from tuf.api import exceptions

from embridge_edge.update.fetch import Fetcher, HttpFetcher, Progress, check_length, held_of
from embridge_shared.errors import ConfigError, DataError, ModelError, NetworkError, Reason
from embridge_shared.settings import EdgeSettings
from embridge_shared.wire.blocks import (
    BLOCK_BYTES,
    WINDOW,
    BlockReply,
    BlockRequest,
    is_served,
    pack_block,
    unpack_block,
)

_TRIES: Final = 3
_PATH: Final = re.compile(r"(?:metadata|targets|deltas)/[^/]+$")
_HINT: Final = "It will resume where it stopped."


class Ask(Protocol):
    """Asks for a block; may be called from any thread."""

    def __call__(self, path: str, offset: int, size: int) -> Future[BlockReply]:
        """The block to come; cancelled when nobody waits for it any more."""
        ...


class Post:
    """Requests of the updater's thread, answers of the agent's loop.

    Args:
        send: Sends a request to the cloud, from any thread; what is sent while there is no link is lost.
    """

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._ids = itertools.count(1)
        self._waiting: dict[int, tuple[BlockRequest, Future[BlockReply]]] = {}
        self._lock = threading.Lock()

    def ask(self, path: str, offset: int, size: int) -> Future[BlockReply]:
        """Ask for a block."""
        answer: Future[BlockReply] = Future()
        with self._lock:
            request = BlockRequest(next(self._ids), path, offset, size)
            self._waiting[request.id] = request, answer
        answer.add_done_callback(lambda _: self._forget(request.id))
        self._send(pack_block(request))
        return answer

    def answered(self, payload: bytes) -> None:
        """Take what came on the topic of blocks.

        Raises:
            DataError: It is no block.
        """
        reply = unpack_block(payload, BlockReply)
        with self._lock:
            request, answer = self._waiting.get(reply.id, (None, None))
        if request is None or answer is None:
            return
        wanted = min(request.size, max(0, reply.total - request.offset))
        if reply.total >= 0 and len(reply.data) != wanted:
            raise DataError(f"a block of {len(reply.data)} bytes where {wanted} were due", reason=Reason.MALFORMED)
        if answer.set_running_or_notify_cancel():
            answer.set_result(reply)

    def _forget(self, number: int) -> None:
        with self._lock:
            self._waiting.pop(number, None)


class BlockFetcher(Fetcher):
    """Fetches by asking for blocks; so many are on their way at once, and each is asked for again if it stays away.

    Args:
        ask: Asks for a block.
        timeout_s: Longest wait for a block, s.
    """

    def __init__(self, ask: Ask, timeout_s: float = 10.0) -> None:
        self._ask = ask
        self._timeout_s = timeout_s

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = _path(url)
        first = self._block(path, 0, self._ask(path, 0, BLOCK_BYTES), exceptions.SlowRetrievalError)
        if first.total < 0:
            raise exceptions.DownloadHTTPError(f"there is no {path}", 404)
        return self._blocks(path, first)

    def _blocks(self, path: str, first: BlockReply) -> Iterator[bytes]:
        yield first.data
        at = len(first.data)
        while at < first.total:
            asked = self._ask(path, at, BLOCK_BYTES)
            found = self._block(path, at, asked, exceptions.SlowRetrievalError)
            if found.total != first.total:
                raise exceptions.DownloadError(f"{path} changed while it came")
            yield found.data
            at += len(found.data)

    def resume(self, url: str, part: Path, size: int, progress: Progress | None = None) -> None:
        """Bring `part` to `size` bytes, block by block; see `Fetcher`."""
        path, held = _path(url), held_of(part, size)
        ahead: deque[tuple[int, Future[BlockReply]]] = deque()
        due = held
        try:
            with part.open("ab") as file:
                file.truncate(held)
                while held < size:
                    while due < size and len(ahead) < WINDOW:
                        length = min(BLOCK_BYTES, size - due)
                        ahead.append((due, self._ask(path, due, length)))
                        due += length
                    at, asked = ahead.popleft()
                    found = self._block(path, at, asked, _LateError, size=size)
                    self._check(path, found, size)
                    file.write(found.data)
                    held += len(found.data)
                    if progress is not None:
                        progress(held, size)
                file.flush()
                os.fsync(file.fileno())
        except _LateError as error:
            raise NetworkError(f"{path}: {error}.", reason=Reason.TIMEOUT, hint=_HINT) from error
        finally:
            for _, asked in ahead:
                asked.cancel()

    def _check(self, path: str, found: BlockReply, size: int) -> None:
        if found.total < 0:
            raise NetworkError(f"the cloud has no {path}.", reason=Reason.UNREACHABLE, hint=_HINT)
        check_length(path, found.total, size)
        if found.total < size:
            raise ModelError(
                f"{path} has {found.total} bytes where {size} were signed.",
                reason=Reason.HASH_MISMATCH,
                hint="The running release stays.",
            )

    def _block(
        self, path: str, at: int, asked: Future[BlockReply], late: type[Exception], *, size: int | None = None
    ) -> BlockReply:
        for _ in range(_TRIES):
            try:
                found = asked.result(self._timeout_s)
            except TimeoutError:
                asked.cancel()
                length = BLOCK_BYTES if size is None else min(BLOCK_BYTES, size - at)
                asked = self._ask(path, at, length)
            else:
                self.received += len(found.data)
                return found
        asked.cancel()
        raise late(f"byte {at} did not come in {_TRIES * self._timeout_s:.0f} s")


class RouteFetcher(Fetcher):
    """HTTP first; where it reaches nobody, blocks, until this fetcher is given up.

    Args:
        http: The one.
        blocks: The other.
    """

    def __init__(self, http: Fetcher, blocks: Fetcher) -> None:
        self._http, self._blocks = http, blocks
        self._cut_off = False

    @property
    def received(self) -> int:  # type: ignore[override]
        """Bytes of all bodies so far, by either route."""
        return self._http.received + self._blocks.received

    def _fetch(self, url: str) -> Iterator[bytes]:
        if not self._cut_off:
            try:
                return self._http._fetch(url)
            except exceptions.DownloadHTTPError:
                raise
            except exceptions.DownloadError:
                self._cut_off = True
        return self._blocks._fetch(url)

    def resume(self, url: str, part: Path, size: int, progress: Progress | None = None) -> None:
        """Bring `part` to `size` bytes by the route that works; see `Fetcher`."""
        (self._blocks if self._cut_off else self._http).resume(url, part, size, progress)


def fetcher_for(url: str, settings: EdgeSettings, ask: Ask | None) -> Fetcher:
    """The fetcher of a repository: by blocks where its URL or `edge.update_route` says so, else over HTTP(S).

    Args:
        url: Base URL of the repository.
        settings: Route, and whom HTTPS is checked against.
        ask: Asks for blocks; None where nobody could.

    Raises:
        ConfigError: The file of `edge.update_ca_file` is none.
    """
    blocks = BlockFetcher(ask) if ask is not None else None
    if blocks is not None and (settings.update_route == "mqtt" or url.startswith("mqtt:")):
        return blocks
    authority = settings.update_ca_file
    try:
        http = HttpFetcher(tls=ssl.create_default_context(cafile=authority) if authority is not None else None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{authority} holds no certificates: {error}", hint="Set edge.update_ca_file.") from error
    return RouteFetcher(http, blocks) if blocks is not None and settings.update_route == "auto" else http


def _path(url: str) -> str:
    """The part of a URL below the repository's base."""
    found = _PATH.search(url)
    if found is None or not is_served(found.group()):
        raise exceptions.DownloadHTTPError(f"{url} is no file of a repository", 404)
    return found.group()


class _LateError(Exception):
    pass
