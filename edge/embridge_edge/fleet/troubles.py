"""What may be wrong with an edge of a rehearsal, and a repository that lies."""

from __future__ import annotations

import contextlib
import random
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Final
from urllib.error import HTTPError

from embridge_shared.errors import ConfigError

_TIMEOUT_S: Final = 30.0


class Trouble(StrEnum):
    """What is wrong with an edge."""

    SLOW = "slow"
    """Its downloads crawl."""
    FLAPPING = "flapping"
    """Its link to the broker comes and goes."""
    CORRUPT_DISK = "corrupt-disk"
    """A byte of the new release flips on its disk, once."""
    STALE_CLOCK = "stale-clock"
    """Its wall clock is far ahead, so that every signature looks expired."""
    MIRROR = "mirror"
    """What it downloads is tampered with on the way."""
    SLUGGISH = "sluggish"
    """Under the new release its windows take too long."""
    STARVED = "starved"
    """Under the new release it decodes only some windows."""
    BROKEN = "broken"
    """Under the new release scores are no finite numbers."""
    CRASHING = "crashing"
    """Under the new release the agent crashes."""


SICK: Final = frozenset({Trouble.SLUGGISH, Trouble.STARVED, Trouble.BROKEN, Trouble.CRASHING})
"""Bad health, which nobody sees before the release runs."""


def parse(words: Sequence[str]) -> dict[Trouble, float]:
    """Troubles and their shares, from words like "slow=0.05".

    Raises:
        ConfigError: There is no such trouble, or the shares are none.
    """
    found: dict[Trouble, float] = {}
    for word in words:
        name, _, share = word.partition("=")
        try:
            found[Trouble(name)] = float(share)
        except ValueError:
            raise ConfigError(
                f"{word!r} is no trouble with a share", hint=f"As in slow=0.05; there are {', '.join(Trouble)}."
            ) from None
    if any(not 0.0 <= share <= 1.0 for share in found.values()) or sum(found.values()) > 1.0:
        raise ConfigError("the shares of troubles lie between 0 and 1 and add up to 1 at most")
    return found


def assign(names: Sequence[str], shares: Mapping[Trouble, float], seed: int) -> dict[str, Trouble]:
    """Which edges have which trouble; each one at most, the same for the same seed."""
    left = list(names)
    random.Random(seed).shuffle(left)  # noqa: S311
    found: dict[str, Trouble] = {}
    for trouble, share in sorted(shares.items()):
        for name in left[: round(share * len(names))]:
            found[name] = trouble
        left = left[round(share * len(names)) :]
    return found


@contextlib.contextmanager
def malicious_mirror(url: str) -> Iterator[str]:
    """A mirror of a repository that changes a byte of every release it hands out; its address."""

    class Lying(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            request = urllib.request.Request(url.rstrip("/") + self.path)  # noqa: S310
            if "Range" in self.headers:
                request.add_header("Range", self.headers["Range"])
            try:
                with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
                    body, status, headers = answer.read(), answer.status, answer.headers
            except HTTPError as error:
                self.send_error(error.code)
                return
            if "/targets/" in self.path and body:
                at = len(body) // 2
                body = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
            self.send_response(status)
            for name in ("Content-Range", "Content-Type"):
                if name in headers:
                    self.send_header(name, headers[name])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Lying)
    Thread(target=server.serve_forever, name="malicious-mirror", daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
