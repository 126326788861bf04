"""HTTP for updates: metadata for the trust layer, and bundles that resume where a link broke."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import urllib3
from tuf.api import exceptions
from tuf.ngclient import FetcherInterface

from embridge_shared.errors import ModelError, NetworkError, Reason

_BLOCK: Final = 1 << 16
_HINT: Final = "It will resume where it stopped."

Progress = Callable[[int, int], None]


class HttpFetcher(FetcherInterface):
    """Fetches over HTTP(S).

    Args:
        timeout_s: Longest wait for a connection and between two blocks, s.
        tls: Certificates to trust and to show; the system's by default.

    Attributes:
        received: Bytes of all bodies so far.
    """

    def __init__(self, timeout_s: float = 30.0, tls: ssl.SSLContext | None = None) -> None:
        # Who retries, and when, is the agent's to say; a redirect is an object store's ordinary answer.
        self._pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=timeout_s, read=timeout_s),
            retries=urllib3.Retry(connect=0, read=0, status=0, other=0, redirect=3),
            ssl_context=tls,
            headers={"Accept-Encoding": "identity", "User-Agent": "embridge-edge"},
        )
        self.received = 0

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            response = self._pool.request("GET", url, preload_content=False)
        except urllib3.exceptions.HTTPError as error:
            raise _download_error(url, error) from error
        if response.status != 200:
            response.close()
            raise exceptions.DownloadHTTPError(f"{url} answered {response.status}", response.status)
        return self._blocks(url, response)

    def _blocks(self, url: str, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        try:
            for block in response.stream(_BLOCK, decode_content=False):
                self.received += len(block)
                yield block
        except urllib3.exceptions.HTTPError as error:
            raise _download_error(url, error) from error
        finally:
            response.close()

    def resume(self, url: str, part: Path, size: int, progress: Progress | None = None) -> None:
        """Bring `part` to `size` bytes, asking only for what is missing.

        Args:
            url: The file.
            part: What an earlier attempt left, or nothing; kept when the link breaks.
            size: Length the file must have.
            progress: Called with bytes held and `size` after every block; what it raises ends the download.

        Raises:
            NetworkError: UNREACHABLE or TIMEOUT; call again to go on.
            ModelError: HASH_MISMATCH: the server sends more than `size`.
        """
        held = part.stat().st_size if part.exists() else 0
        if held > size:
            held = 0
        if held == size:
            return
        headers = {**self._pool.headers, **({"Range": f"bytes={held}-"} if held else {})}
        try:
            with contextlib.closing(self._pool.request("GET", url, headers=headers, preload_content=False)) as response:
                held = _resumed_at(url, response, held)
                with part.open("ab") as file:
                    file.truncate(held)
                    while block := response.read1(_BLOCK, decode_content=False):
                        held += len(block)
                        self.received += len(block)
                        if held > size:
                            raise ModelError(
                                f"{url} is longer than the {size} bytes that were signed.",
                                reason=Reason.HASH_MISMATCH,
                                hint="The running release stays.",
                            )
                        file.write(block)
                        if progress is not None:
                            progress(held, size)
                    file.flush()
                    os.fsync(file.fileno())
        except urllib3.exceptions.HTTPError as error:
            raise _network_error(url, error) from error
        if held < size:
            raise NetworkError(f"{url} ended at byte {held} of {size}.", reason=Reason.UNREACHABLE, hint=_HINT)


def _resumed_at(url: str, response: urllib3.BaseHTTPResponse, held: int) -> int:
    if response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {held}-"):
        return held
    if response.status == 200:
        return 0
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
