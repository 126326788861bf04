"""HTTP for updates: metadata for the trust layer, and parts that resume where a link broke."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Final, Protocol, cast
from urllib.parse import urljoin, urlsplit

import urllib3
from tuf.api import exceptions
from tuf.ngclient import FetcherInterface

from embridge_shared.errors import ModelError, NetworkError, Reason

_BLOCK: Final = 1 << 16
_REDIRECTS: Final = 3
_HINT: Final = "It will resume where it stopped."

Progress = Callable[[int, int], None]


class Fetcher(FetcherInterface):
    """Brings files of a repository here, by whatever route; nothing it brings is trusted.

    Attributes:
        received: Bytes of all bodies so far.
    """

    received: int = 0

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Fetch a small file; what is under way ends with whatever goes wrong, not when it is collected.

        Args:
            url: The file.
            max_length: The most it may have, bytes.

        Raises:
            tuf.api.exceptions.DownloadError: It cannot be had, or is longer.
        """
        found = bytearray()
        with contextlib.ExitStack() as ending:
            blocks = self.fetch(url)
            if isinstance(blocks, Generator):
                ending.callback(blocks.close)
            for block in blocks:
                found += block
                if len(found) > max_length:
                    raise exceptions.DownloadLengthMismatchError(f"{url} has more than {max_length} bytes")
        return bytes(found)

    def resume(self, url: str, part: Path, size: int, progress: Progress | None = None) -> None:
        """Bring `part` to `size` bytes, asking only for what is missing.

        Args:
            url: The file.
            part: What an earlier attempt left, or nothing; kept when the link breaks.
            size: Length the file must have.
            progress: Called with bytes held and `size` after every block; what it raises ends the download.

        Raises:
            NetworkError: UNREACHABLE or TIMEOUT; call again to go on.
            ModelError: HASH_MISMATCH: the other side sends more than `size`.
        """
        raise NotImplementedError


class HttpFetcher(Fetcher):
    """Fetches over HTTP(S).

    A server that is slow on purpose holds nobody up: a head must be whole within the timeout, and so many bytes must
    come within each.

    Args:
        timeout_s: Longest wait for a connection, for a head, and between two blocks, s.
        tls: Certificates to trust and to show; the system's by default.
        least_bytes: Bytes that must come within any `timeout_s`.
    """

    def __init__(self, timeout_s: float = 30.0, tls: ssl.SSLContext | None = None, *, least_bytes: int = 1024) -> None:
        self._timeout_s = timeout_s
        self._least = least_bytes
        # Who retries, and when, is the agent's to say.
        self._pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=timeout_s, read=timeout_s),
            retries=False,
            ssl_context=tls,
            headers={"Accept-Encoding": "identity", "User-Agent": "embridge-edge"},
        )
        self._pool.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            response = self._get(url)
        except urllib3.exceptions.HTTPError as error:
            raise _download_error(url, error) from error
        if response.status != 200:
            response.close()
            raise exceptions.DownloadHTTPError(f"{url} answered {response.status}", response.status)
        return self._blocks(url, response)

    def _blocks(self, url: str, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        pace = _Pace(self._least, self._timeout_s)
        try:
            while block := response.read1(_BLOCK, decode_content=False):
                self.received += len(block)
                yield block
                pace.check(url, len(block))
        except NetworkError as error:
            raise exceptions.SlowRetrievalError(error.message) from error
        except urllib3.exceptions.HTTPError as error:
            raise _download_error(url, error) from error
        finally:
            response.close()

    def resume(self, url: str, part: Path, size: int, progress: Progress | None = None) -> None:
        """Bring `part` to `size` bytes by a range request; see `Fetcher`."""
        held = held_of(part, size)
        if held == size:
            return
        pace = _Pace(self._least, self._timeout_s)
        try:
            with contextlib.closing(self._found(url, held)) as response:
                held = _resumed_at(url, response, held, size)
                with part.open("ab") as file:
                    file.truncate(held)
                    while block := response.read1(_BLOCK, decode_content=False):
                        held += len(block)
                        self.received += len(block)
                        check_length(url, held, size)
                        file.write(block)
                        pace.check(url, len(block))
                        if progress is not None:
                            progress(held, size)
                    file.flush()
                    os.fsync(file.fileno())
        except urllib3.exceptions.HTTPError as error:
            raise _network_error(url, error) from error
        if held < size:
            raise NetworkError(f"{url} ended at byte {held} of {size}.", reason=Reason.UNREACHABLE, hint=_HINT)

    def _get(self, url: str, held: int = 0) -> urllib3.BaseHTTPResponse:
        headers = {**self._pool.headers, **({"Range": f"bytes={held}-"} if held else {})}
        return self._pool.request("GET", url, headers=headers, preload_content=False, redirect=False)

    def _found(self, url: str, held: int) -> urllib3.BaseHTTPResponse:
        """Where a part is, after redirects: an object store's ordinary answer, but never one that leaves TLS."""
        at = url
        for _ in range(_REDIRECTS + 1):
            response = self._get(at, held)
            where = response.headers.get("Location", "")
            if response.status not in (301, 302, 303, 307, 308) or not where:
                return response
            response.close()
            before, at = at, urljoin(at, where)
            scheme = urlsplit(at).scheme
            if scheme not in ("http", "https") or (urlsplit(before).scheme == "https" and scheme != "https"):
                raise NetworkError(f"{url} leads to {scheme}: elsewhere.", reason=Reason.UNREACHABLE, hint=_HINT)
        raise NetworkError(f"{url} leads on and on.", reason=Reason.UNREACHABLE, hint=_HINT)


def held_of(part: Path, size: int) -> int:
    """How much of a file of `size` bytes an earlier attempt left."""
    held = part.stat().st_size if part.exists() else 0
    return held if held <= size else 0


def check_length(url: str, held: int, size: int) -> None:
    """Raise HASH_MISMATCH where more came than was signed."""
    if held > size:
        raise ModelError(
            f"{url} is longer than the {size} bytes that were signed.",
            reason=Reason.HASH_MISMATCH,
            hint="The running release stays.",
        )


class _Pace:
    """Bytes must keep coming."""

    def __init__(self, least: int, within_s: float) -> None:
        self._least, self._within_s = least, within_s
        self._since_s, self._bytes = time.monotonic(), 0

    def check(self, url: str, came: int) -> None:
        """Note bytes; raises NetworkError TIMEOUT where they came too slowly."""
        self._bytes += came
        now_s = time.monotonic()
        if now_s - self._since_s < self._within_s:
            return
        if self._bytes < self._least:
            raise NetworkError(
                f"{url} sent {self._bytes} bytes in {now_s - self._since_s:.0f} s.", reason=Reason.TIMEOUT, hint=_HINT
            )
        self._since_s, self._bytes = now_s, 0


class _Socket(Protocol):
    def shutdown(self, how: int, /) -> None: ...


@contextlib.contextmanager
def _within(connection: urllib3.connection.HTTPConnection) -> Iterator[None]:
    """Give up a head that trickles: the socket's own timeout starts anew with every byte."""
    sock = cast("_Socket | None", connection.sock)

    late = threading.Event()

    def end() -> None:
        late.set()
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(float(connection.timeout or 30.0), end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
    if late.is_set():
        # What came until then may look like a whole head.
        raise TimeoutError("the head of the answer did not come in time")


class _Http(urllib3.connection.HTTPConnection):
    def getresponse(self) -> urllib3.response.HTTPResponse:  # type: ignore[override]
        with _within(self):
            return super().getresponse()


class _Https(urllib3.connection.HTTPSConnection):
    def getresponse(self) -> urllib3.response.HTTPResponse:  # type: ignore[override]
        with _within(self):
            return super().getresponse()


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Https


def _resumed_at(url: str, response: urllib3.BaseHTTPResponse, held: int, size: int) -> int:
    if response.status == 206 and held:
        if response.headers.get("Content-Range", "") == f"bytes {held}-{size - 1}/{size}":
            return held
        raise ModelError(
            f"{url} sends another range than was asked for.", reason=Reason.HASH_MISMATCH, hint="It is fetched anew."
        )
    if response.status == 200:
        return 0
    if response.status == 416:
        raise ModelError(
            f"{url} is shorter than what is here.", reason=Reason.HASH_MISMATCH, hint="It is fetched anew."
        )
    raise NetworkError(f"{url} answered {response.status}.", reason=Reason.UNREACHABLE, hint=_HINT)


def _timed_out(error: BaseException) -> bool:
    cause = getattr(error, "reason", None)
    return any(
        isinstance(e, urllib3.exceptions.TimeoutError) and not isinstance(e, urllib3.exceptions.NewConnectionError)
        for e in (error, cause)
    )


def _download_error(url: str, error: BaseException) -> exceptions.DownloadError:
    kind = exceptions.SlowRetrievalError if _timed_out(error) else exceptions.DownloadError
    return kind(f"{url}: {error}")


def _network_error(url: str, error: BaseException) -> NetworkError:
    reason = Reason.TIMEOUT if _timed_out(error) else Reason.UNREACHABLE
    return NetworkError(f"{url}: {error}.", reason=reason, hint=_HINT)
