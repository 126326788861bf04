"""A loopback web server for a folder: honours Range, remembers requests, and can break off in the middle."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Web:
    """What a test sees of the server.

    Attributes:
        url: Base URL.
        requests: (path, Range header or "") of every request.
        cut: Break the connection after so many bytes of a bundle; None for never.
        ranges: Honour Range.
        extra: Bytes sent after a bundle's own.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.requests: list[tuple[str, str]] = []
        self.cut: int | None = None
        self.ranges = True
        self.extra = b""


@contextmanager
def serve(folder: Path) -> Iterator[Web]:
    """Serve a folder on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            web.requests.append((self.path, asked))
            path = web.folder / self.path.lstrip("/")
            if not path.is_file():
                self.send_error(404)
                return
            data, first = path.read_bytes(), 0
            if "/targets/" in self.path:
                data += web.extra
            if asked and web.ranges:
                first = int(asked.removeprefix("bytes=").rstrip("-"))
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(data) - first))
            self.end_headers()
            body = data[first:]
            if web.cut is not None and "/targets/" in self.path:
                body = body[: web.cut]
                self.close_connection = True
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    web = Web(folder, f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
