"""MQTT for the cloud behind one small interface: deliveries are acknowledged by hand, after the commit."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import aiomqtt

from embridge_shared.errors import NetworkError, Reason
from embridge_shared.settings import MqttSettings
from embridge_shared.tls import tls_context

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Messages are picked up this often, not one by one: each wake-up costs as much as decoding a message.
_GATHER_S = 0.01
_TIMEOUT_S = 10.0
_IN_FLIGHT = 8


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message the broker delivered.

    Attributes:
        topic: Its topic.
        payload: Its bytes.
        mid: Its packet id on the connection it came over.
        qos: Its quality of service.
        source: That connection.
    """

    topic: str
    payload: bytes
    mid: int
    qos: int
    source: Connection

    def acknowledge(self) -> None:
        """Let the broker forget it."""
        self.source.acknowledge(self)


class Connection(Protocol):
    """A connection to a broker."""

    def deliveries(self) -> AsyncIterator[list[Delivery]]:
        """What arrives, in order, some at a time.

        Raises:
            NetworkError: The connection is lost.
        """
        ...

    def acknowledge(self, delivery: Delivery) -> None:
        """Acknowledge a delivery of this connection; a lost connection acknowledges nothing."""
        ...

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish with quality of service 1 and wait for the broker to take it.

        Raises:
            NetworkError: It did not.
        """
        ...


class Transport(Protocol):
    """Makes connections."""

    def connect(self, filters: Sequence[str]) -> AbstractAsyncContextManager[Connection]:
        """Connect and subscribe; leaving the context disconnects.

        Raises:
            NetworkError: The broker cannot be reached, or refused the connection or a subscription.
        """
        ...


class Client(aiomqtt.Client):
    """aiomqtt's client, stopped by every cancellation.

    The original waits with `asyncio.wait_for`, which before Python 3.12 forgets a cancellation that meets the answer
    it waits for: a task stopped at that moment would never end.
    """

    async def _wait_for(self, fut: Awaitable[T], timeout: float | None) -> T:  # noqa: ASYNC109
        seconds = self.timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                return await fut
        except TimeoutError:
            raise aiomqtt.MqttError("the broker did not answer in time") from None


class MqttTransport:
    """Connections of a fixed client id whose session the broker keeps, so that order holds over reconnects.

    The queue of arrivals is not bounded here: aiomqtt drops what does not fit a bounded one. The broker bounds it: it
    sends no more than its `max_inflight_messages` before the first is acknowledged. MQTT 3.1.1 is spoken so that every
    broker will do.

    Args:
        settings: The broker.
        client_id: Under which the broker keeps the session.
    """

    def __init__(self, settings: MqttSettings, client_id: str) -> None:
        self._settings = settings
        self._client_id = client_id

    @asynccontextmanager
    async def connect(self, filters: Sequence[str]) -> AsyncIterator[Connection]:
        """Connect and subscribe."""
        arrived: asyncio.Queue[aiomqtt.Message] = asyncio.Queue()
        mqtt = self._settings
        client = Client(
            mqtt.host,
            mqtt.port,
            identifier=self._client_id,
            username=mqtt.username or None,
            password=mqtt.password.get_secret_value() or None,
            protocol=aiomqtt.ProtocolVersion.V311,
            clean_session=False,
            keepalive=mqtt.keepalive_s,
            timeout=_TIMEOUT_S,
            tls_context=tls_context(mqtt),
            queue_type=lambda maxsize: arrived,  # type: ignore[arg-type]
            max_concurrent_outgoing_calls=_IN_FLIGHT,
        )
        paho = client._client  # the way aiomqtt's users acknowledge by hand (aiomqtt issue 345)
        paho.manual_ack_set(True)
        try:
            async with client:
                granted = await client.subscribe([(f, 1) for f in filters])
                _check_granted(filters, granted)
                connection = _MqttConnection(client, arrived)
                try:
                    yield connection
                finally:
                    connection.close()
        except aiomqtt.MqttError as error:
            raise NetworkError(
                f"the broker at {mqtt.host}:{mqtt.port}: {error}",
                reason=Reason.UNREACHABLE,
                hint="Is it running, and are mqtt.host, port and credentials right?",
            ) from error


class _MqttConnection:
    def __init__(self, client: Client, arrived: asyncio.Queue[aiomqtt.Message]) -> None:
        self._client = client
        self._arrived = arrived
        self._open = True

    def close(self) -> None:
        self._open = False

    async def deliveries(self) -> AsyncIterator[list[Delivery]]:
        try:
            async for first in self._client.messages:
                messages = [first]
                while not self._arrived.empty():
                    messages.append(self._arrived.get_nowait())
                yield [Delivery(m.topic.value, bytes(m.payload), m.mid, m.qos, self) for m in messages]
                await asyncio.sleep(_GATHER_S)
        except aiomqtt.MqttError as error:
            self._open = False
            raise NetworkError(f"the broker is gone: {error}", reason=Reason.UNREACHABLE) from error

    def acknowledge(self, delivery: Delivery) -> None:
        # A packet id means something on the connection it came over only.
        if self._open and delivery.source is self and delivery.qos > 0:
            self._client._client.ack(delivery.mid, delivery.qos)

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        try:
            await self._client.publish(topic, payload, qos=1, retain=retain)
        except aiomqtt.MqttError as error:
            raise NetworkError(f"{topic} was not published: {error}", reason=Reason.UNREACHABLE) from error


def _check_granted(filters: Sequence[str], granted: Any) -> None:
    refused = [f for f, code in zip(filters, granted, strict=False) if getattr(code, "value", code) > 2]
    if refused:
        raise NetworkError(
            f"the broker refused the subscription to {refused[0]}",
            reason=Reason.INVALID,
            hint="Its access list must let the ingester read the topics of its shards.",
        )
