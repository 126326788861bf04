"""One connection to a broker: arrivals in batches, acknowledged by hand, and no more of them than are wanted."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from embridge_cloud.mqtt.drive import Drive
from embridge_shared.errors import NetworkError, Reason

# Arrivals are picked up this often, not one by one: a wake-up costs as much as several messages.
_GATHER_S = 0.01
_TIMEOUT_S = 10.0
# paho reads as many packets at once as it has messages on their way out, so this bounds memory too.
_AT_ONCE = 128
_QUEUED = 8 * _AT_ONCE
_GATHERED = 256
_HELD_BYTES = 8 << 20
_CONNACK = 0


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


class Link:
    """A connection.

    What arrives waits here until somebody takes it; while more than 8 MiB wait the socket is not read, so that the
    broker keeps the rest. Until somebody begins to take, everything is read: a broker sends what it kept for us
    before it answers the first subscription. Made by `connect`.
    """

    def __init__(self, login: Login, tls: ssl.SSLContext | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._keepalive_s = login.keepalive_s
        self._client = self._made(login, tls)
        self._drive = Drive(self._client, read=self._read, lost=lambda why: self._lose(_gone(why)))
        self._arrived: list[Delivery] = []
        self._arrived_bytes = 0
        self._seen = 0
        self._something = asyncio.Event()
        self._wanted = False
        self._lost: NetworkError | None = None
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._turn = asyncio.Lock()

    # what the connection's users call

    async def open(self, host: str, port: int) -> None:
        """Connect and introduce oneself.

        Raises:
            NetworkError: There is no broker, it refused, or it did not answer in time.
        """
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await self._drive.open(host, port, self._keepalive_s)
        except TimeoutError:
            raise _gone("no connection in time") from None
        except OSError as error:
            raise _gone(str(error)) from error
        await self._answered([_CONNACK])
        self._drive.keep_alive()

    async def subscribe(self, filters: Sequence[str]) -> list[str]:
        """Subscribe with quality of service 1; returns the filters that the broker refused.

        Raises:
            NetworkError: The connection is lost, or the broker did not answer in time.
        """
        refused: list[str] = []
        for at in range(0, len(filters), _AT_ONCE):
            some = filters[at : at + _AT_ONCE]
            code, mid = self._client.subscribe([(f, 1) for f in some])
            if mid is None:
                raise self._lost or _gone(code.name)
            (granted,) = await self._answered([mid])
            if len(granted) != len(some):
                raise _gone("it does not speak MQTT: an answer to another subscription")
            refused += [f for f, answer in zip(some, granted, strict=True) if answer.is_failure]
        return refused

    async def deliveries(self) -> AsyncIterator[list[Delivery]]:
        """What arrives, in order, some at a time.

        Raises:
            NetworkError: The connection is lost.
        """
        self._wanted = True
        while True:
            await self._something.wait()
            arrived, self._arrived = self._arrived, []
            self._arrived_bytes = self._seen = 0
            was_full = self._drive.paused
            if arrived:
                self._something.clear()
                self._drive.resume()
                yield arrived
            if self._lost is not None:
                raise self._lost
            if not was_full and len(arrived) < _GATHERED:
                await asyncio.sleep(_GATHER_S)

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        """Let the broker forget deliveries of this connection; a lost connection acknowledges nothing."""
        if self._lost is None:
            for delivery in deliveries:
                if delivery.mid and delivery.source is self:
                    self._client.ack(delivery.mid, 1)

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish with quality of service 1 and wait for the broker to take it.

        Raises:
            NetworkError: It did not.
        """
        async with self._turn:
            await self._answered([self._send(topic, payload, retain=retain)])

    async def publish_all(self, messages: Sequence[tuple[str, bytes]], *, retain: bool = False) -> None:
        """Publish messages, many on their way at once, and wait for the broker to take them.

        Raises:
            NetworkError: It did not take all of them.
        """
        for at in range(0, len(messages), _AT_ONCE):
            async with self._turn:
                await self._answered([self._send(*message, retain=retain) for message in messages[at : at + _AT_ONCE]])

    async def close(self) -> None:
        """Say goodbye and close."""
        if self._lost is not None:
            self._drive.abort()
            return
        self._lose(_gone("closed"))
        await self._drive.close()

    def _read(self) -> bool:
        """Whether something arrived since the last time this was asked."""
        if len(self._arrived) == self._seen:
            return False
        self._seen = len(self._arrived)
        self._something.set()
        if self._wanted and self._arrived_bytes > _HELD_BYTES:
            self._drive.pause()
        return True

    def _made(self, login: Login, tls: ssl.SSLContext | None) -> Client:
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=login.client_id,
            clean_session=False,
            protocol=MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.max_inflight_messages_set(_AT_ONCE)
        client.max_queued_messages_set(_QUEUED)
        if login.username:
            client.username_pw_set(login.username, login.password or None)
        if tls is not None:
            client.tls_set_context(tls)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        return client

    # what paho calls, while it reads and so within the loop

    def _on_connect(self, _: Client, __: Any, ___: Any, answer: ReasonCode, ____: Any) -> None:
        if answer.is_failure:
            self._lose(_gone(f"it refused: {answer}"))
        self._settle(_CONNACK, None)

    def _on_subscribe(self, _: Client, __: Any, mid: int, granted: list[ReasonCode], ___: Any) -> None:
        self._settle(mid, granted)

    def _on_publish(self, _: Client, __: Any, mid: int, ___: Any, ____: Any) -> None:
        self._settle(mid, None)

    def _on_message(self, _: Client, __: Any, message: MQTTMessage) -> None:
        mid = message.mid if message.qos == 1 else 0
        payload = bytes(message.payload)
        self._arrived.append(Delivery(message.topic, payload, mid, self))
        self._arrived_bytes += len(payload)

    # answers

    def _send(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        if self._lost is not None:
            raise self._lost
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        if info.rc is not MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise _gone(f"{topic} was not published: {info.rc.name}")
        return info.mid

    async def _answered(self, mids: Sequence[int]) -> list[Any]:
        """The broker's answers to packets that were sent just now."""
        if self._lost is not None:
            raise self._lost
        answers = [self._answers.setdefault(mid, self._loop.create_future()) for mid in mids]
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await asyncio.gather(*answers)
        except TimeoutError:
            raise _gone("it did not answer in time") from None
        finally:
            for mid in mids:
                self._answers.pop(mid, None)

    def _settle(self, mid: int, answer: Any) -> None:
        waiting = self._answers.get(mid)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def _lose(self, error: NetworkError) -> None:
        """Nothing more can be said over this connection."""
        if self._lost is not None:
            return
        self._lost = error
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
    link = Link(login, tls)
    try:
        await link.open(host, port)
        yield link
    finally:
        await link.close()


def _gone(text: str) -> NetworkError:
    return NetworkError(text, reason=Reason.UNREACHABLE)
