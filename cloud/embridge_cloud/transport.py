"""MQTT for the cloud behind one small interface: deliveries are acknowledged by hand, after the commit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from embridge_cloud.mqtt.link import Delivery, Login, connect
from embridge_shared.errors import NetworkError, Reason
from embridge_shared.settings import MqttSettings
from embridge_shared.tls import tls_context

__all__ = ["Connection", "Delivery", "MqttTransport", "Transport"]


class Connection(Protocol):
    """A connection to a broker."""

    def deliveries(self) -> AsyncIterator[list[Delivery]]:
        """What arrives, in order, some at a time; as long as nobody asks for more, little more is read.

        Raises:
            NetworkError: The connection is lost.
        """
        ...

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        """Acknowledge deliveries of this connection; others, and a lost connection, acknowledge nothing."""
        ...

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish with quality of service 1 and wait for the broker to take it.

        Raises:
            NetworkError: It did not.
        """
        ...

    async def publish_all(self, messages: Sequence[tuple[str, bytes]], *, retain: bool = False) -> None:
        """Publish topics and payloads with quality of service 1 and wait for the broker to take them.

        Raises:
            NetworkError: It did not take all of them.
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


class MqttTransport:
    """Connections of a fixed client id whose session the broker keeps, so that order holds over reconnects.

    Two bounds keep memory flat: the broker sends no more than its `max_inflight_messages` before the first is
    acknowledged, and what nobody takes is not read from the socket. MQTT 3.1.1 is spoken so that every broker will do.

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
        mqtt = self._settings
        login = Login(self._client_id, mqtt.keepalive_s, mqtt.username, mqtt.password.get_secret_value())
        try:
            async with connect(mqtt.host, mqtt.port, login, tls=tls_context(mqtt)) as link:
                _check_granted(await link.subscribe(filters))
                yield link
        except NetworkError as error:
            if error.hint:
                raise
            raise NetworkError(
                f"the broker at {mqtt.host}:{mqtt.port}: {error}",
                reason=error.reason,
                hint="Is it running, and are mqtt.host, port, credentials and certificates right?",
            ) from error


def _check_granted(refused: Sequence[str]) -> None:
    if refused:
        raise NetworkError(
            f"the broker refused the subscription to {refused[0]}",
            reason=Reason.INVALID,
            hint="Its access list must let the ingester read the topics of its shards.",
        )
