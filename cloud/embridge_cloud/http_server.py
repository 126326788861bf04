"""The HTTP server: where it may listen, TLS, and how long a caller may take to say what it wants."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from embridge_shared.cloud_client import is_loopback
from embridge_shared.errors import ConfigError, NetworkError, Reason
from embridge_shared.settings import CloudSettings

HEAD_S: Final = 10.0
CONNECTIONS_MAX: Final = 1024
_GOODBYE_S = 5
_HEAD_MAX_BYTES = 32 << 10


class HttpServer(uvicorn.Server):
    """Serves an application on a listening socket, and leaves signals to the process.

    Args:
        app: What is served.
        cloud: Settings.

    Raises:
        ConfigError: The certificate or its key cannot be used.
    """

    def __init__(self, app: ASGIApp, cloud: CloudSettings) -> None:
        context = tls_context(cloud)
        super().__init__(
            uvicorn.Config(
                app,
                http=_PatientProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                log_level="warning",
                server_header=False,
                proxy_headers=bool(cloud.http_proxies),
                forwarded_allow_ips=list(cloud.http_proxies),
                limit_concurrency=CONNECTIONS_MAX,
                h11_max_incomplete_event_size=_HEAD_MAX_BYTES,
                timeout_graceful_shutdown=_GOODBYE_S,
                ssl_context_factory=None if context is None else lambda *_: context,
            )
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them to the process."""
        yield


@contextmanager
def listen(cloud: CloudSettings) -> Iterator[socket.socket]:
    """A listening socket, for the length of the context.

    Raises:
        ConfigError: It would be reached from beyond this machine without TLS.
        NetworkError: The port is taken.
    """
    host, port = cloud.http_host, cloud.http_port
    if not is_loopback(host) and cloud.http_cert_file is None and not cloud.http_insecure:
        raise ConfigError(
            f"the HTTP interface would listen on {host or 'every address'} without TLS, and show tokens and recordings "
            "to the network.",
            hint="Set cloud.http_cert_file and cloud.http_key_file (`embridge site init` makes them), or "
            "cloud.http_insecure where the network itself is protected.",
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise NetworkError(
            f"no server can listen on {host}:{port}: {os.strerror(error.errno or 0)}",
            reason=Reason.LOCKED,
            hint="Set cloud.http_port; 0 takes any free port.",
        ) from error
    with listener:
        # Connections inherit it; asyncio sets it only on sockets that name TCP, and without it each answer takes 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listener


def url_of(listener: socket.socket, cloud: CloudSettings) -> str:
    """Where commands on this machine reach a listening socket."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    scheme = "http" if cloud.http_cert_file is None else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def tls_context(cloud: CloudSettings) -> ssl.SSLContext | None:
    """TLS of the HTTP interface, 1.2 at least, or None where no certificate is set.

    Raises:
        ConfigError: The certificate or its key cannot be used.
    """
    if cloud.http_cert_file is None:
        if cloud.http_key_file is not None:
            raise ConfigError("cloud.http_key_file has no certificate.", hint="Set cloud.http_cert_file too.")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cloud.http_cert_file, cloud.http_key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"the certificate of the HTTP interface cannot be used: {error}.",
            hint="Check cloud.http_cert_file and cloud.http_key_file.",
        ) from error
    return context


class _PatientProtocol(H11Protocol):
    """Closes a connection whose next request takes too long to arrive: slow heads would hold it for ever."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._rest()
        elif self._timer is None and self.conn.trailing_data[0]:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._timer = self.loop.call_later(HEAD_S, self._too_slow)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.close()
