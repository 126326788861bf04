"""A mirror of an update repository that does as it is told: honest until a path is given another answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Answer = Callable[[BaseHTTPRequestHandler], None]


class Mirror:
    """What a test sees of it.

    Attributes:
        url: Base URL.
        lies: What is answered to paths that hold such a text.
        asked: Paths asked for.
        ended: Set when the test is over: answers that never end look at it.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.lies: dict[str, bytes | Answer] = {}
        self.asked: list[str] = []
        self.ended = threading.Event()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append(handler.path)
        for part, lie in self.lies.items():
            if part in handler.path:
                if callable(lie):
                    lie(handler)
                else:
                    send(handler, lie)
                return
        path = self.folder / handler.path.lstrip("/")
        if path.is_file():
            send(handler, path.read_bytes())
        else:
            handler.send_error(404)


def send(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    """An ordinary answer, a range where one is asked for."""
    asked = handler.headers.get("Range", "")
    first = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
    handler.send_response(206 if asked else 200)
    if asked:
        handler.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
    handler.send_header("Content-Length", str(len(data) - first))
    handler.end_headers()
    handler.wfile.write(data[first:])


def redirect(where: str) -> Answer:
    """Lead elsewhere."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", where)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def endless(handler: BaseHTTPRequestHandler) -> None:
    """Data without end."""
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b"\0" * 65536)
    except OSError:
        return


def trickle(ended: threading.Event, *, head: bool) -> Answer:
    """A byte now and then, of the head or of the body: each wait alone is short enough."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        start = b"HTTP/1.1 200 OK\r\nX-Slow: " if head else b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
        try:
            handler.wfile.write(start)
            while not ended.wait(0.05):
                handler.wfile.write(b"a")
                handler.wfile.flush()
        except OSError:
            return

    return answer


@contextmanager
def mirror_of(folder: Path) -> Iterator[Mirror]:
    """Serve a repository on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            mirror.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    mirror = Mirror(folder, f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield mirror
    finally:
        mirror.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
