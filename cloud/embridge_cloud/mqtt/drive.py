"""Runs a paho client on the event loop: reads as long as is wanted, writes, keeps alive, and closes in order."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import LogLevel, MQTTErrorCode

_DIAL_S, _GOODBYE_S = 5.0, 0.5
_PACKETS_A_TURN = 64
# How often to look after a connection; after which part of its keepalive to say something that no answer is awaited to.
_LOOK_S, _NUDGE = 1.0, 0.5
_NOBODYS = "embridge/nobody"


class Drive:
    """The event loop's side of a paho client.

    Args:
        client: Not connected; its socket hooks and its log belong to the drive.
        read: Called after every read; returns whether something arrived.
        lost: Called with why, when the connection is lost; may be called again.
    """

    def __init__(self, client: Client, *, read: Callable[[], bool], lost: Callable[[str], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._client = client
        self._read, self._lost = read, lost
        self._sock: socket.socket | None = None
        self._left = False
        self._read_up = True
        self._why = ""
        self._spoke_s = self._loop.time()
        self._ticker: asyncio.TimerHandle | None = None
        self.paused = False
        client.connect_timeout = _DIAL_S
        client.on_log = self._note

    async def open(self, host: str, port: int, keepalive_s: int) -> None:
        """Connect; reading begins when the event loop is next asked.

        Raises:
            OSError: There is no broker, or TLS failed.
        """
        client = self._client
        # paho waits for the handshakes of TCP and TLS.
        await self._loop.run_in_executor(None, self._dial, host, port, keepalive_s)
        sock = client.socket()
        if not isinstance(sock, socket.socket):
            raise ConnectionError(self._why or "it closed the connection")
        self._sock = sock
        client.on_socket_register_write = self._watch_writable
        client.on_socket_unregister_write = self._ignore_writable
        client.on_socket_close = self._closing
        self._loop.add_reader(sock, self._on_readable)
        if client.want_write():
            self._loop.add_writer(sock, self._on_writable)

    def keep_alive(self) -> None:
        """From now on ping where it is quiet; the broker has let us in."""
        self._client.on_log = None
        self._tick()

    def pause(self) -> None:
        """Read no more."""
        if self._sock is not None and not self.paused:
            self.paused, self._read_up = True, False
            self._loop.remove_reader(self._sock)

    def resume(self) -> None:
        """Read again."""
        if self._sock is not None and self.paused:
            self.paused = False
            self._loop.add_reader(self._sock, self._on_readable)
            # Of what TLS has decrypted already the socket does not tell.
            self._loop.call_soon(self._on_readable)

    async def close(self) -> None:
        """Say goodbye, with all that waits to be said before, and close.

        paho closes with the goodbye, but a broker that meets a closed socket may leave acknowledgements unread. So
        another handle keeps the connection until the broker, which reads in order, has ended it.
        """
        try:
            if self._sock is not None:
                self._loop.remove_reader(self._sock)
                with socket.socket(fileno=os.dup(self._sock.fileno())) as other, suppress(TimeoutError, OSError):
                    other.setblocking(False)
                    self._client.disconnect()
                    async with asyncio.timeout(_GOODBYE_S):
                        while await self._loop.sock_recv(other, 1 << 16):
                            pass
        finally:
            self.abort()

    def abort(self) -> None:
        """Close, whatever has not been said."""
        self._left = True
        client, sock = self._client, self._sock
        if sock is not None:
            self._closing(client, None, sock)
            self._loop.remove_writer(sock)
        client.on_socket_register_write = client.on_socket_unregister_write = client.on_socket_close = None
        _close(client)

    def _dial(self, host: str, port: int, keepalive_s: int) -> None:
        self._client.connect(host, port, keepalive_s)
        if self._left:
            _close(self._client)

    def _on_readable(self) -> None:
        for _ in range(_PACKETS_A_TURN):
            if self.paused or self._sock is None:
                return
            try:
                code = self._client.loop_read()
            except Exception as error:
                # By what the broker sent, within the library or a callback.
                self._lost(f"it does not speak MQTT: {error}")
                self.abort()
                return
            self._judge(code)
            if not self._read() and not self._decrypted():
                self._read_up = True
                return
        if self._decrypted():
            self._loop.call_soon(self._on_readable)

    def _on_writable(self) -> None:
        self._judge(self._client.loop_write())

    def _judge(self, code: MQTTErrorCode) -> None:
        """Tell when paho has given up."""
        if code is MQTTErrorCode.MQTT_ERR_PROTOCOL:
            self._lost("it does not speak MQTT 3.1.1")
        elif code is not MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._lost(self._why or "it closed the connection")

    def _decrypted(self) -> bool:
        return isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0

    def _tick(self) -> None:
        keepalive_s, now_s = self._client.keepalive, self._loop.time()
        if self._read_up:
            self._spoke_s = now_s
            self._client.loop_misc()
            if self._sock is None:
                self._lost(f"not a word for {keepalive_s} s, nor an answer to a ping")
                return
        elif now_s - self._spoke_s > _NUDGE * keepalive_s:
            # The answer to a ping of paho's would lie behind what is not read, and paho take the broker for dead.
            self._spoke_s = now_s
            self._client.unsubscribe(_NOBODYS)
        self._ticker = self._loop.call_later(min(_LOOK_S, 0.25 * keepalive_s), self._tick)

    # paho's hooks

    def _watch_writable(self, _: Client, __: Any, sock: Any) -> None:
        self._loop.add_writer(sock, self._on_writable)

    def _ignore_writable(self, _: Client, __: Any, sock: Any) -> None:
        self._loop.remove_writer(sock)

    def _closing(self, _: Client, __: Any, sock: Any) -> None:
        self._loop.remove_reader(sock)
        self._sock = None
        if self._ticker is not None:
            self._ticker.cancel()

    def _note(self, _: Client, __: Any, level: int, text: str) -> None:
        if level == LogLevel.MQTT_LOG_ERR:
            self._why = text


def _close(client: Client) -> None:
    sock = client.socket()
    if sock is not None:
        sock.close()
