"""The ingester's own MQTT client against Mosquitto: acknowledgement by hand, TLS, refusals, an early backlog."""

from __future__ import annotations

import asyncio
import getpass
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import aiomqtt
import pytest

from embridge_cloud.ingest import Ingester
from embridge_cloud.mqtt import link
from embridge_cloud.site.authority import issue, make_authority
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.sealing import Sealer
from embridge_cloud.transport import MqttTransport
from embridge_shared.clock import SystemClock
from embridge_shared.errors import NetworkError, Reason
from embridge_shared.settings import CloudSettings, MqttSettings
from embridge_shared.wire import topics
from support.sessions import T0, emg_spec, record, session_of

FILTERS = topics.ingest_filters()


def transport(broker, client_id: str = "ingest", **mqtt) -> MqttTransport:
    return MqttTransport(MqttSettings(port=broker.port, **mqtt), client_id)


async def publish(broker, messages) -> None:
    async with aiomqtt.Client(broker.host, broker.port) as client:
        client.pending_calls_threshold = 10_000
        await asyncio.gather(*(client.publish(t, p, qos=1) for t, p in messages))


async def until(condition, timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def take(connection, n: int) -> list[link.Delivery]:
    found: list[link.Delivery] = []
    async with asyncio.timeout(10):
        async for deliveries in connection.deliveries():
            found += deliveries
            if len(found) >= n:
                return found
    raise AssertionError(len(found))


async def test_what_is_not_acknowledged_comes_again_in_order_over_the_next_connection(own_mosquitto):
    messages = [(f"embridge/v1/up/1/e/s/{i}", b"%d" % i) for i in range(20)]
    ours = transport(own_mosquitto)
    async with ours.connect(FILTERS) as first:
        await publish(own_mosquitto, messages)
        found = await take(first, 20)
        assert {(d.topic, d.payload) for d in found} == set(messages)
        first.acknowledge(found[:5])
    async with ours.connect(FILTERS) as second:
        again = await take(second, 15)
        assert [d[:2] for d in again] == [d[:2] for d in found[5:]]
        # Deliveries of the first connection mean nothing on the second, whatever their numbers.
        second.acknowledge(found)
    async with ours.connect(FILTERS) as third:
        found = await take(third, 15)
        third.acknowledge(found)
    async with ours.connect(FILTERS) as last:
        await publish(own_mosquitto, [("embridge/v1/up/1/e/s/last", b"")])
        assert [d.topic[-4:] for d in await take(last, 1)] == ["last"]


async def test_a_kill_between_receipt_and_commit_loses_nothing(tmp_path, own_mosquitto, monkeypatch):
    recording = record(session_of(emg_spec(4, 200.0)), 3, n_chunks=30)
    messages = recording.messages()
    settings = CloudSettings(state_dir=tmp_path, commit_s=0.02)
    received = 0

    def hang(self, batch) -> None:
        nonlocal received
        received += len(batch.chunks) + len(batch.events)
        raise KeyboardInterrupt  # the process is gone: nothing after this line of it ever runs

    async def ingest(store, run_until) -> None:
        sealer = Sealer(store, tmp_path / "sealed", wall_ns=lambda: T0)
        ingester = Ingester(store, settings, transport=transport(own_mosquitto), sealer=sealer, clock=SystemClock())
        running = asyncio.create_task(ingester.run())
        await until(lambda: ingester.status.connected)
        await run_until(ingester, running)

    async def killed(ingester, running) -> None:
        await publish(own_mosquitto, messages)
        with pytest.raises(KeyboardInterrupt):
            await asyncio.wait_for(asyncio.shield(running), 10)

    async def drained(ingester, running) -> None:
        await until(lambda: ingester.counters.chunks == 30 and ingester.counters.events == len(recording.events))
        ingester.stop()
        await running

    with HotStore(tmp_path / "hot.duckdb") as store, monkeypatch.context() as patch:
        patch.setattr(HotStore, "commit", hang)
        # A task that a KeyboardInterrupt ends tells its loop too, which is what a kill looks like from inside.
        await asyncio.to_thread(_in_a_loop_of_its_own, ingest, store, killed)
    assert received > 0
    with HotStore(tmp_path / "hot.duckdb") as store:
        assert store.read.rows("SELECT count(*) FROM chunks") == [(0,)]
        await ingest(store, drained)
        assert store.read.coverage(recording.session.id)[0].stored.count == len(recording.samples[0])


def _in_a_loop_of_its_own(ingest, store, until_killed) -> None:
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(ingest(store, until_killed))


async def test_a_backlog_that_comes_before_the_subscription_s_answer_is_taken(own_mosquitto, monkeypatch):
    monkeypatch.setattr(link, "_HELD_BYTES", 1 << 16)
    ours = transport(own_mosquitto)
    async with ours.connect(FILTERS):
        pass
    await publish(own_mosquitto, [(f"embridge/v1/up/1/e/s/{i}", bytes(20_000)) for i in range(300)])
    async with asyncio.timeout(10), ours.connect(FILTERS) as connection:
        assert len(await take(connection, 300)) == 300


async def test_many_messages_are_published_and_taken_by_the_broker(own_mosquitto):
    async with (
        transport(own_mosquitto, "a").connect(FILTERS) as ours,
        transport(own_mosquitto, "b").connect([]) as other,
    ):
        await other.publish_all([(f"embridge/v1/up/1/e/s/{i}", b"x") for i in range(1000)])
        await other.publish("embridge/v1/up/1/e/s/kept", b"y", retain=True)
        assert len(await take(ours, 1001)) == 1001
    async with transport(own_mosquitto, "c").connect(FILTERS) as late:
        assert [d.topic[-4:] for d in await take(late, 1)] == ["kept"]


async def test_a_broker_that_dies_is_noticed_and_nothing_is_published(own_mosquitto):
    async with transport(own_mosquitto).connect(FILTERS) as connection:
        own_mosquitto.kill()
        with pytest.raises(NetworkError):
            await take(connection, 1)
        with pytest.raises(NetworkError):
            await connection.publish_all([("a", b"")])
        with pytest.raises(NetworkError):
            await connection.publish("a", b"")
        connection.acknowledge([])
    with pytest.raises(NetworkError) as caught:
        async with transport(own_mosquitto).connect(FILTERS):
            pass
    assert caught.value.reason is Reason.UNREACHABLE
    assert "Is it running" in caught.value.hint


@pytest.fixture
def tls(tmp_path, own_mosquitto):
    """A broker that asks for certificates; what a client shows."""
    now = datetime.now(UTC)
    authority = make_authority("test", days=2, now=now)
    server = issue(authority, "broker", days=1, now=now, hosts=["127.0.0.1"], serves=True)
    files = {"ca": authority.certificate_pem, "server": server.pem}
    files |= {name: issue(authority, name, days=1, now=now).pem for name in ("ingest",)}
    for name, data in files.items():
        path = tmp_path / f"{name}.pem"
        path.write_bytes(data)
        path.chmod(0o644 if name in ("ca", "server") else 0o600)
    own_mosquitto.kill()
    # Started as root it would become a user who may not read here.
    own_mosquitto.options = (
        f"user {getpass.getuser()}\ncafile {tmp_path}/ca.pem\n"
        f"certfile {tmp_path}/server.pem\nkeyfile {tmp_path}/server.pem\n"
        f"require_certificate true\n"
    )
    own_mosquitto.start()
    return lambda name: {"ca_file": tmp_path / "ca.pem", "cert_file": tmp_path / f"{name}.pem" if name else None}


async def test_tls_with_a_certificate_and_without(tls, own_mosquitto):
    async with transport(own_mosquitto, **tls("ingest")).connect(FILTERS) as connection:
        await connection.publish("embridge/v1/up/1/e/s/t", b"x")
        assert [d.payload for d in await take(connection, 1)] == [b"x"]
    with pytest.raises(NetworkError, match="broker at"):
        async with transport(own_mosquitto, **tls(None)).connect(FILTERS):
            pass
    with pytest.raises(NetworkError, match="broker at"):
        async with transport(own_mosquitto).connect(FILTERS):
            pass


async def test_large_messages_through_tls(tls, own_mosquitto):
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(transport(own_mosquitto, "a", **tls("ingest")).connect(FILTERS))
        other = await stack.enter_async_context(transport(own_mosquitto, "b", **tls("ingest")).connect([]))
        payloads = [bytes([i]) * 300_000 for i in range(40)]
        await other.publish_all([("embridge/v1/up/1/e/s/t", p) for p in payloads])
        assert [d.payload for d in await take(ours, 40)] == payloads
