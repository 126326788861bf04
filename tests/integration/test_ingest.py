from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import asynccontextmanager
from pathlib import Path

import aiomqtt
import pytest

from embridge_cloud.api.roles import Role, access
from embridge_cloud.server import serve
from embridge_cloud.store.failures import StoreError
from embridge_cloud.store.hot import HotStore
from embridge_shared.errors import EmbridgeError, Reason
from embridge_shared.settings import CloudSettings, MqttSettings, Settings
from embridge_shared.wire import codec
from embridge_shared.wire.messages import EdgeState, pack
from embridge_shared.wire.topics import chunk_topic, state_topic
from support.publisher import TestEdge
from support.sessions import assert_sealed_equals, emg_spec, pose_spec, record, session_of


def configuration(tmp_path: Path, port: int, **cloud) -> Settings:
    return Settings(
        mqtt=MqttSettings(port=port),
        cloud=CloudSettings(state_dir=tmp_path / "cloud", http_port=0, commit_s=0.05, **cloud),
    )


tokens: dict[str, str] = {}
"""The local token of each cloud process, by host and port."""


@asynccontextmanager
async def running(settings: Settings, **options):
    async with serve(settings, **options) as context:
        tokens[context.url.split("/")[2]] = context.tokens.local_path.read_text().strip()
        await until(lambda: context.ingester.status.connected)
        yield context


async def until(condition, timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def get(url: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    own = {"Authorization": f"Bearer {token}"} if (token := tokens.get(url.split("/")[2])) else {}

    def fetch() -> tuple[int, bytes]:
        try:
            request = urllib.request.Request(url, headers={**own, **(headers or {})})
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    return await asyncio.to_thread(fetch)


async def get_json(url: str):
    status, body = await get(url)
    assert status == 200, body
    return json.loads(body)


@pytest.fixture
def recording():
    return record(session_of(emg_spec(8, 500.0), pose_spec()), 3, n_chunks=12)


async def test_a_session_goes_through_mosquitto_into_a_sealed_folder(tmp_path, own_mosquitto, recording):
    mosquitto = own_mosquitto
    async with running(configuration(tmp_path, mosquitto.port)) as cloud:
        edge = TestEdge("edge-1", recording.messages())
        await edge.deliver(mosquitto.host, mosquitto.port, recording.session.id)
        assert edge.resent == 0
        assert edge.spool.items == []
        assert_sealed_equals(cloud.catalogue.get(recording.session.id), recording)
        counters = await get_json(cloud.url + "/api/ingest")
    assert counters["chunks"] == 24
    assert counters["samples"] == sum(len(s) for s in recording.samples)
    assert (counters["duplicates"], counters["refused"], counters["foreign"]) == (0, 0, 0)
    assert counters["commits"] >= 1


async def test_a_session_goes_through_the_embedded_broker(tmp_path, recording):
    settings = configuration(tmp_path, 1883, embedded_broker=True)
    async with running(settings, broker_port=0) as cloud:
        assert cloud.broker.port != 1883
        edge = TestEdge("edge-1", recording.messages())
        await edge.deliver(cloud.broker.host, cloud.broker.port, recording.session.id)
        assert_sealed_equals(cloud.catalogue.get(recording.session.id), recording)


async def test_several_edges_at_once(tmp_path, own_mosquitto):
    mosquitto = own_mosquitto
    recordings = [
        record(session_of(emg_spec(4, 200.0), edge=f"edge-{i}", number=10 + i), i, n_chunks=15) for i in range(5)
    ]
    edges = [TestEdge(r.session.edge, r.messages()) for r in recordings]
    async with running(configuration(tmp_path, mosquitto.port)) as cloud:
        async with asyncio.TaskGroup() as tasks:
            for edge, r in zip(edges, recordings, strict=True):
                tasks.create_task(edge.deliver(mosquitto.host, mosquitto.port, r.session.id))
        for r in recordings:
            assert_sealed_equals(cloud.catalogue.get(r.session.id), r)
        listed = await get_json(cloud.url + "/api/sessions")
        assert {s["state"] for s in listed} == {"sealed"}
        assert len(listed) == 5


async def test_bad_messages_on_a_real_broker_disturb_nobody(tmp_path, own_mosquitto, recording):
    mosquitto = own_mosquitto
    chunk = recording.chunks[0][0]
    session = recording.session
    topic, good = chunk_topic("edge-1", session.id, "emg"), codec.encode(chunk)
    wide = codec.encode(type(chunk)(session.id, 0, chunk.first, chunk.samples[:, :3], chunk.t0_ns))
    async with running(configuration(tmp_path, mosquitto.port)) as cloud:
        async with aiomqtt.Client(mosquitto.host, mosquitto.port) as client:
            for payload in (good[:70], b"hello", good[:-1] + b"\0", b""):
                await client.publish(topic, payload, qos=1)
            await client.publish(topic.replace(str(session.id), "not-a-uuid"), good, qos=1)
        edge = TestEdge("edge-1", [recording.messages()[0], (topic, wide), *recording.messages()[1:]])
        await edge.deliver(mosquitto.host, mosquitto.port, session.id)
        assert edge.spool.refused == [(0, chunk.first, "wrong_shape")]
        assert_sealed_equals(cloud.catalogue.get(session.id), recording)
        quarantine = await get_json(cloud.url + "/api/quarantine")
        reasons = sorted(m["reason"] for m in quarantine["messages"])
        assert reasons == ["checksum", "foreign", "foreign", "foreign", "truncated", "wrong_shape"]
        assert quarantine["bytes"] == sum(m["bytes"] for m in quarantine["messages"])


async def test_an_edge_that_comes_back_is_told_where_it_stands(tmp_path, own_mosquitto, recording):
    mosquitto = own_mosquitto
    *most, closing = recording.messages()
    client = aiomqtt.Client(mosquitto.host, mosquitto.port)
    async with running(configuration(tmp_path, mosquitto.port)) as cloud, client:
        for topic, payload in most:
            await client.publish(topic, payload, qos=1)
        await until(lambda: cloud.ingester.counters.chunks == 24)
    async with running(configuration(tmp_path, mosquitto.port)) as cloud:
        edge = TestEdge("edge-1", recording.messages(), window=0, resend_s=30)
        serving = asyncio.create_task(edge.deliver(mosquitto.host, mosquitto.port, recording.session.id))
        await until(lambda: edge.reports)
        assert edge.sent == 0
        held = {c.stream: c.until for c in edge.reports[0].streams}
        assert held == {-1: 5, 0: recording.chunks[0][-1].end, 1: recording.chunks[1][-1].end}
        edge.waiting, edge.window = [closing], 1
        await serving
        assert edge.sent == 1


async def test_the_http_interface(tmp_path, own_mosquitto, recording):
    mosquitto = own_mosquitto
    settings = configuration(tmp_path, mosquitto.port)
    messages = recording.messages()
    async with running(settings) as cloud:
        assert json.loads((await get(cloud.url + "/health"))[1]) == {"state": "ready"}
        assert (await get(cloud.url + "/ready"))[0] == 200
        async with aiomqtt.Client(mosquitto.host, mosquitto.port) as client:
            state = EdgeState(edge="edge-1", online=True, agent="1.2", digest="d", spooled=3)
            await client.publish(state_topic("edge-1"), pack(state), qos=1, retain=True)
            for topic, payload in (*messages[:5], messages[6], messages[-1]):
                await client.publish(topic, payload, qos=1)
        session = recording.session.id
        await until(lambda: cloud.ingester.counters.events == 2)
        body = await get_json(f"{cloud.url}/api/sessions/{session}")
        assert body["state"] == "ended"
        assert body["participant"] == "p01"
        emg = body["streams"][0]
        assert emg["awaited"][0][0] == recording.chunks[0][3].end
        assert emg["until"] == recording.chunks[0][5].end
        (row,) = await get_json(cloud.url + "/api/edges")
        assert (row["edge"], row["online"], row["digest"], row["spooled"]) == ("edge-1", True, "d", 3)
        assert (await get(f"{cloud.url}/api/sessions/{session.hex[:-1]}0"))[0] == 404
        assert (await get(cloud.url + "/api/sessions?limit=0"))[0] == 422
        assert await get_json(cloud.url + "/api/sessions?state=sealed") == []
        data = bytes(range(256)) * 40
        (cloud.updates_dir / "targets").mkdir()
        (cloud.updates_dir / "targets" / "bundle").write_bytes(data)
        url = cloud.url + "/updates/targets/bundle"
        assert await get(url) == (200, data)
        assert await get(url, {"Range": "bytes=1000-1999"}) == (206, data[1000:2000])
        assert await get(url, {"Range": "bytes=10000-"}) == (206, data[10000:])
        assert (await get(cloud.url + "/updates/../hot/ingest-0-255.duckdb"))[0] == 404


async def test_extensions_add_routes_and_tasks(tmp_path, own_mosquitto):
    mosquitto = own_mosquitto
    ran = asyncio.Event()

    def extend(app, context) -> None:
        async def work() -> None:
            ran.set()
            await context.stopping.wait()

        @app.get("/api/extra")
        @access(Role.VIEWER)
        async def extra() -> dict[str, int]:
            return {"sessions": len(context.catalogue.sessions())}

        @app.get("/api/broken")
        @access(Role.VIEWER)
        async def broken() -> None:
            raise EmbridgeError("no such thing", reason=Reason.NOT_FOUND, hint="look elsewhere")

        context.tasks.create_task(work())

    async with running(configuration(tmp_path, mosquitto.port), extensions=[extend]) as cloud:
        assert ran.is_set()
        assert await get_json(cloud.url + "/api/extra") == {"sessions": 0}
        status, body = await get(cloud.url + "/api/broken")
        assert status == 404
        assert json.loads(body) == {"error": "no such thing", "reason": "not_found", "hint": "look elsewhere"}


async def test_a_commit_that_fails_for_a_while_loses_nothing(tmp_path, own_mosquitto, recording, monkeypatch):
    mosquitto = own_mosquitto
    real, failures = HotStore.commit, 3

    def commit(self, batch):
        nonlocal failures
        if batch.chunks and failures:
            failures -= 1
            raise StoreError("disk full", reason=Reason.DISK_FULL, hint="", reopen=failures == 1)
        real(self, batch)

    monkeypatch.setattr(HotStore, "commit", commit)
    async with running(configuration(tmp_path, mosquitto.port)) as cloud:
        edge = TestEdge("edge-1", recording.messages())
        serving = asyncio.create_task(edge.deliver(mosquitto.host, mosquitto.port, recording.session.id))
        await until(lambda: failures <= 1)
        assert (await get(cloud.url + "/ready"))[0] == 503
        assert all(c.stream == -1 for r in edge.reports for c in r.streams)
        await serving
        assert failures == 0
        assert_sealed_equals(cloud.catalogue.get(recording.session.id), recording)
        assert (await get(cloud.url + "/ready"))[0] == 200


async def test_a_database_that_cannot_be_saved_ends_the_process(tmp_path, own_mosquitto, recording, monkeypatch):
    mosquitto = own_mosquitto
    from embridge_cloud import ingest

    def commit(self, batch):
        raise StoreError("no answer", reason=Reason.INVALID, hint="ask again")

    monkeypatch.setattr(HotStore, "commit", commit)
    monkeypatch.setattr(ingest, "GIVE_UP_S", 0.3)
    edge = TestEdge("edge-1", recording.messages())
    serving = asyncio.create_task(edge.deliver(mosquitto.host, mosquitto.port, recording.session.id))
    with pytest.raises(BaseExceptionGroup) as caught:
        async with asyncio.timeout(20), serve(configuration(tmp_path, mosquitto.port)) as cloud:
            await cloud.stopping.wait()
    assert caught.group_contains(StoreError, match="no answer")
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    assert edge.reports == []
    assert edge.spool.items


async def test_the_broker_may_die_and_come_back(tmp_path, own_mosquitto, recording):
    broker = own_mosquitto
    async with running(configuration(tmp_path, broker.port)) as cloud:
        edge = TestEdge("edge-1", recording.messages(), pace_s=0.02, resend_s=0.5)
        serving = asyncio.create_task(edge.deliver(broker.host, broker.port, recording.session.id))
        for _ in range(2):
            await asyncio.sleep(0.3)
            broker.kill()
            await asyncio.sleep(0.2)
            broker.start()
        await serving
        assert_sealed_equals(cloud.catalogue.get(recording.session.id), recording)
        assert cloud.ingester.status.connections >= 2


def start_cloud(tmp_path: Path, port: int, *arguments: str) -> tuple[subprocess.Popen[bytes], Path]:
    ready = tmp_path / f"ready-{time.monotonic_ns()}.json"
    code = "import sys; from embridge_cloud.cli import app; app(sys.argv[1:], standalone_mode=False)"
    command = [sys.executable, "-c", code, "run", "--state-dir", str(tmp_path / "cloud"), "--mqtt-port", str(port)]
    command += ["--http-port", "0", "--ready-file", str(ready), *arguments]
    environment = {**os.environ, "EMBRIDGE_CLOUD__COMMIT_S": "0.05"}
    with (tmp_path / "cloud.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment), ready


async def wait_ready(process: subprocess.Popen[bytes], ready: Path) -> dict:
    await until(lambda: ready.exists() or process.poll() is not None, 30)
    body = json.loads(ready.read_text())  # noqa: ASYNC240
    tokens[body["http_url"].split("/")[2]] = Path(body["token_file"]).read_text().strip()  # noqa: ASYNC240
    return body


async def test_sigkill_of_cloud_and_broker_loses_nothing_and_stores_nothing_twice(tmp_path, own_mosquitto):
    broker = own_mosquitto
    recording = record(session_of(emg_spec(16, 2000.0), pose_spec(20, 100.0)), 7, n_chunks=150)
    edge = TestEdge("edge-1", recording.messages(), pace_s=0.01, resend_s=1.0, window=48)
    serving = asyncio.create_task(edge.deliver(broker.host, broker.port, recording.session.id, timeout_s=60))
    for pause_s, with_broker in ((0.2, True), (0.5, False), (0.15, True), (0.8, False), (0.3, True)):
        process, ready = start_cloud(tmp_path, broker.port)
        await wait_ready(process, ready)
        await asyncio.sleep(pause_s)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not serving.done()
        if with_broker:
            # It keeps nothing: only what the edges still hold can come again.
            broker.kill()
            broker.start()
    process, ready = start_cloud(tmp_path, broker.port)
    body = await wait_ready(process, ready)
    await serving
    counters = await get_json(body["http_url"] + "/api/ingest")
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert edge.spool.items == []
    assert edge.spool.refused == []
    with HotStore(tmp_path / "cloud" / "hot" / "ingest-0-255.duckdb") as store:
        assert store.read.rows("SELECT count(*) FROM chunks") == [(0,)]
        assert store.read.rows("SELECT count(*) FROM quarantine") == [(0,)]
    from embridge_cloud.store.sealed import Catalogue

    assert_sealed_equals(Catalogue(tmp_path / "cloud" / "sealed").get(recording.session.id), recording)
    assert counters["refused"] == 0


async def test_sigterm_ends_with_a_last_commit_and_exit_code_0(tmp_path, recording):
    process, ready = start_cloud(tmp_path, 0, "--embedded-broker")
    body = await wait_ready(process, ready)
    assert body["pid"] == process.pid
    async with aiomqtt.Client(body["mqtt_host"], body["mqtt_port"]) as client:
        for topic, payload in recording.messages()[:5]:
            await client.publish(topic, payload, qos=1)
        await asyncio.sleep(0.02)
        process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, 20) == 0, (tmp_path / "cloud.log").read_text()
    log = (tmp_path / "cloud.log").read_text()
    assert "Traceback" not in log
    assert "stopped" in log
    with HotStore(tmp_path / "cloud" / "hot" / "ingest-0-255.duckdb") as store:
        assert store.read.rows("SELECT count(*) FROM events") == [(1,)]
