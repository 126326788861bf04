"""The ingester's transport on aiomqtt, and paho by itself: what the ingester is measured beside."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import aiomqtt
from paho.mqtt.client import CallbackAPIVersion, Client

from embridge_cloud.mqtt.link import Delivery


class AiomqttTransport:
    """Acknowledges by hand the way aiomqtt's users do."""

    def __init__(self, port: int, client_id: str, *, by_hand: bool = True) -> None:
        self._port, self._client_id, self._by_hand = port, client_id, by_hand

    @asynccontextmanager
    async def connect(self, filters):
        client = aiomqtt.Client(
            "127.0.0.1",
            self._port,
            identifier=self._client_id,
            clean_session=False,
            protocol=aiomqtt.ProtocolVersion.V311,
        )
        client._client.manual_ack_set(self._by_hand)
        client.pending_calls_threshold = 100_000
        async with client:
            await client.subscribe([(f, 1) for f in filters])
            yield _Connection(client, by_hand=self._by_hand)


class _Connection:
    def __init__(self, client: aiomqtt.Client, *, by_hand: bool) -> None:
        self._client, self._by_hand = client, by_hand

    async def deliveries(self):
        queue = self._client.messages._client._queue
        async for first in self._client.messages:
            messages = [first]
            while not queue.empty():
                messages.append(queue.get_nowait())
            yield [Delivery(m.topic.value, bytes(m.payload), m.mid, self) for m in messages]
            await asyncio.sleep(0.01)

    def acknowledge(self, deliveries) -> None:
        if self._by_hand:
            for delivery in deliveries:
                self._client._client.ack(delivery.mid, 1)

    async def publish(self, topic, payload, *, retain=False) -> None:
        await self._client.publish(topic, payload, qos=1, retain=retain)

    async def publish_all(self, messages, *, retain=False) -> None:
        await asyncio.gather(*(self.publish(t, p) for t, p in messages))


class BareSubscriber:
    """paho as its users run it: in a thread of its own, acknowledging at once; counts chunks."""

    def __init__(self, port: int, client_id: str, filters) -> None:
        self.chunks = 0
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=False)
        self._client.on_message = self._count
        self._client.connect("127.0.0.1", port)
        self._client.subscribe([(f, 1) for f in filters])
        self._client.loop_start()

    def _count(self, client, userdata, message) -> None:
        self.chunks += "/up/" in message.topic

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
