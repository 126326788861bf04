"""One connection to a broker: arrivals in batches, acknowledged by hand, and no more of them than are wanted."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple, cast

from embridge_cloud.mqtt import packets
from embridge_shared.errors import NetworkError, Reason

logger = logging.getLogger(__name__)

# Arrivals are picked up this often, not one by one: a wake-up costs as much as several messages.
_GATHER_S = 0.01
_TIMEOUT_S, _GOODBYE_S = 10.0, 0.5
_AT_ONCE = 256
_HELD_BYTES = 8 << 20
_MAX_PACKET = 32 << 20
_TOPICS = 1 << 14


class Delivery(NamedTuple):
    """A message that came.

    Attributes:
        topic: Its topic.
        payload: Its bytes.
        mid: Its packet id on the connection it came over; 0 wants no acknowledgement.
        source: That connection.
    """

    topic: str
    payload: bytes
    mid: int
    source: Link

    def acknowledge(self) -> None:
        """Let the broker forget it."""
        self.source.acknowledge((self,))


@dataclass(frozen=True, slots=True)
class Login:
    """How to introduce oneself to a broker."""

    client_id: str
    keepalive_s: int
    username: str = ""
    password: str = ""


class Link(asyncio.BufferedProtocol):
    """A connection.

    What arrives waits here until somebody takes it; while more than 8 MiB wait nothing is read, so that the broker
    keeps the rest. Until somebody begins to take, everything is read: a broker sends what it kept for us before it
    answers the first subscription. Made by `connect`.
    """

    def __init__(self, keepalive_s: int) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._keepalive_s = keepalive_s
        self._frames = packets.Frames(_MAX_PACKET)
        self._transport: asyncio.Transport | None = None
        self._arrived: list[Delivery] = []
        self._arrived_bytes = 0
        self._something = asyncio.Event()
        self._closed = loop.create_future()
        self._wanted = self._paused = False
        self._lost: NetworkError | None = None
        self._answers: dict[int, asyncio.Future[bytes]] = {}
        self._mid = 0
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._names: dict[bytes, str] = {}
        self._heard_s = self._spoke_s = loop.time()
        self._ticker: asyncio.TimerHandle | None = None

    # what the connection's users call

    async def login(self, login: Login) -> None:
        """Introduce oneself.

        Raises:
            NetworkError: The broker refused, or did not answer in time.
        """
        packet = packets.connect(
            login.client_id, keepalive_s=login.keepalive_s, username=login.username, password=login.password
        )
        code = (await self._ask(0, packet))[1]
        if code:
            known = code < len(packets.CONNACK_CODES)
            raise _gone(f"it refused: {packets.CONNACK_CODES[code] if known else f'code {code}'}")
        self._tick()

    async def subscribe(self, filters: Sequence[str]) -> list[str]:
        """Subscribe with quality of service 1; returns the filters that the broker refused.

        Raises:
            NetworkError: The connection is lost, or the broker did not answer in time.
        """
        refused = []
        for at in range(0, len(filters), _AT_ONCE):
            some = filters[at : at + _AT_ONCE]
            mid = self._next_mid()
            answer = await self._ask(mid, packets.subscribe(mid, some))
            refused += [f for f, code in zip(some, answer[2:], strict=False) if code >= packets.REFUSED]
        return refused

    async def deliveries(self) -> AsyncIterator[list[Delivery]]:
        """What arrives, in order, some at a time.

        Raises:
            NetworkError: The connection is lost.
        """
        self._wanted = True
        while True:
            await self._something.wait()
            arrived, self._arrived, self._arrived_bytes = self._arrived, [], 0
            if arrived:
                self._something.clear()
                self._resume()
                yield arrived
            if self._lost is not None:
                raise self._lost
            if not self._paused and len(arrived) < _AT_ONCE:
                await asyncio.sleep(_GATHER_S)

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        """Let the broker forget deliveries of this connection; a lost connection acknowledges nothing."""
        if self._lost is None:
            acks = packets.pubacks(d.mid for d in deliveries if d.mid and d.source is self)
            if acks:
                self._send(acks)

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish with quality of service 1 and wait for the broker to take it.

        Raises:
            NetworkError: It did not.
        """
        async with self._slots:
            mid = self._next_mid()
            await self._ask(mid, packets.publish(mid, topic, payload, retain=retain))

    async def publish_all(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish messages, many on their way at once, and wait for the broker to take them.

        Raises:
            NetworkError: It did not take all of them.
        """
        for at in range(0, len(messages), _AT_ONCE):
            async with self._slots:
                await self._ask_all(messages[at : at + _AT_ONCE])

    async def close(self) -> None:
        """Say goodbye and close."""
        transport = self._transport
        if transport is None:
            return
        if self._lost is None:
            self._resume()
            self._send(packets.DISCONNECT)
            self._lose(_gone("closed"))
            # A broker that sees the socket close forgets acknowledgements it has not read; it closes when it has.
            await asyncio.wait({self._closed}, timeout=_GOODBYE_S)
        transport.close()
        await asyncio.wait({self._closed}, timeout=_GOODBYE_S)
        transport.abort()

    # what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open."""
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the socket reads into."""
        return self._frames.room()

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        self._heard_s = self._loop.time()
        try:
            for head, body in self._frames.cut(nbytes):
                self._handle(head, body)
        except (NetworkError, IndexError, UnicodeDecodeError) as error:
            self._end(_gone(f"it does not speak MQTT: {error}"))
            return
        if self._arrived:
            self._something.set()
            full = self._wanted and self._arrived_bytes > _HELD_BYTES
            if full and not self._paused and self._transport is not None:
                self._paused = True
                self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The broker closed."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        if not self._closed.done():
            self._closed.set_result(None)
        self._end(_gone(str(exc) if exc is not None else "it closed the connection"))

    # inside

    def _handle(self, head: int, body: memoryview) -> None:
        kind = head & 0xF0
        if kind == packets.PUBLISH:
            end = 2 + (body[0] << 8 | body[1])
            mid = 0
            topic = self._name(bytes(body[2:end]))
            if head & 0x06:
                mid = body[end] << 8 | body[end + 1]
                end += 2
            payload = bytes(body[end:])
            self._arrived.append(Delivery(topic, payload, mid, self))
            self._arrived_bytes += len(payload)
        elif kind in (packets.PUBACK, packets.SUBACK, packets.CONNACK):
            answer = bytes(body)
            mid = 0 if kind == packets.CONNACK else answer[0] << 8 | answer[1]
            waiting = self._answers.get(mid)
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)

    def _name(self, raw: bytes) -> str:
        """A topic as text; the same object for the same topic."""
        name = self._names.get(raw)
        if name is None:
            if len(self._names) >= _TOPICS:
                self._names.clear()
            name = self._names[raw] = raw.decode()
        return name

    async def _ask(self, mid: int, packet: bytes) -> bytes:
        """Send and wait for the answer."""
        if self._lost is not None:
            raise self._lost
        answer: asyncio.Future[bytes] = self._loop.create_future()
        self._answers[mid] = answer
        try:
            self._send(packet)
            async with asyncio.timeout(_TIMEOUT_S):
                return await answer
        except TimeoutError:
            raise _gone("it did not answer in time") from None
        finally:
            del self._answers[mid]

    async def _ask_all(self, messages: Sequence[tuple[str, bytes]]) -> None:
        if self._lost is not None:
            raise self._lost
        answers, sent = {}, []
        for topic, payload in messages:
            mid = self._next_mid()
            answers[mid] = self._answers[mid] = self._loop.create_future()
            sent.append(packets.publish(mid, topic, payload))
        try:
            self._send(b"".join(sent))
            async with asyncio.timeout(_TIMEOUT_S):
                await asyncio.gather(*answers.values())
        except TimeoutError:
            raise _gone("it did not answer in time") from None
        finally:
            for mid, answer in answers.items():
                answer.cancel()
                del self._answers[mid]

    def _next_mid(self) -> int:
        while True:
            self._mid = self._mid % 0xFFFF + 1
            if self._mid not in self._answers:
                return self._mid

    def _send(self, data: bytes) -> None:
        assert self._transport is not None
        self._spoke_s = self._loop.time()
        self._transport.write(data)

    def _resume(self) -> None:
        if self._paused and self._lost is None and self._transport is not None:
            self._paused = False
            self._heard_s = self._loop.time()
            self._transport.resume_reading()

    def _tick(self) -> None:
        """Ping where it was quiet; end where the broker is silent although we listen."""
        now_s = self._loop.time()
        if not self._paused and now_s - self._heard_s > 1.5 * self._keepalive_s:
            self._end(_gone(f"not a word for {now_s - self._heard_s:.0f} s"))
            return
        if min(self._spoke_s, self._heard_s) < now_s - 0.5 * self._keepalive_s:
            self._send(packets.PINGREQ)
        self._ticker = self._loop.call_later(0.25 * self._keepalive_s, self._tick)

    def _end(self, error: NetworkError) -> None:
        """Nothing more can be said over this connection."""
        self._lose(error)
        if self._transport is not None:
            self._transport.close()

    def _lose(self, error: NetworkError) -> None:
        if self._lost is not None:
            return
        self._lost = error
        if self._ticker is not None:
            self._ticker.cancel()
        self._something.set()
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_exception(error)


@asynccontextmanager
async def connect(host: str, port: int, login: Login, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Link]:
    """A connection to a broker, for the length of the context.

    Raises:
        NetworkError: There is no broker, or it refused.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            _, link = await loop.create_connection(lambda: Link(login.keepalive_s), host, port, ssl=tls)
    except TimeoutError:
        raise _gone("no connection in time") from None
    except OSError as error:
        raise _gone(str(error)) from error
    try:
        await link.login(login)
        yield link
    finally:
        await link.close()


def _gone(text: str) -> NetworkError:
    return NetworkError(text, reason=Reason.UNREACHABLE)
