"""Simulated fleets against a real cloud: nothing lost, nothing twice, through an outage and over shards."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from embridge_cloud.server import serve
from embridge_edge.fleet.cli import app
from embridge_edge.fleet.edge import SimulatedEdge
from embridge_edge.fleet.simulate import Load, run, signal, verify
from embridge_shared.clock import SystemClock
from embridge_shared.cloud_client import connect
from embridge_shared.errors import ConfigError, NetworkError, Reason
from embridge_shared.settings import CloudSettings, EdgeSettings, MqttSettings, Settings
from embridge_shared.wire.topics import shard
from support.shards import Ingesters

CLOCK = SystemClock()


@pytest.fixture(scope="module")
def emg():
    return signal(4, 1)[:4000]


def fleet_of(names, port: int, emg, folder: Path, load: Load, **edge) -> list[SimulatedEdge]:
    return [
        SimulatedEdge(
            Settings(mqtt=MqttSettings(port=port), edge=EdgeSettings(name=name, **edge)), emg, load.rate_hz,
            load.chunk_s, folder=folder, clock=CLOCK, seed=i,
        )
        for i, name in enumerate(names)
    ]  # fmt: skip


@asynccontextmanager
async def cloud_at(folder: Path, port: int):
    settings = Settings(mqtt=MqttSettings(port=port), cloud=CloudSettings(state_dir=folder, http_port=0, commit_s=0.05))
    async with serve(settings) as context:
        async with asyncio.timeout(20):
            while not context.ingester.status.connected:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        yield context, settings


async def test_a_fleet_delivers_everything_once_through_an_outage(tmp_path, own_mosquitto, emg):
    load = Load(seconds=3.0, rate_hz=500.0, chunk_s=0.1, outage_s=0.6, patience_s=20)
    async with cloud_at(tmp_path / "cloud", own_mosquitto.port) as (cloud, settings):
        edges = fleet_of((f"sim-{i}" for i in range(4)), own_mosquitto.port, emg, tmp_path, load, resend_s=1.0)
        outcome = await run(edges, load, CLOCK)
        wanted = {e.session.id: e.samples for e in edges}
        api = connect(cloud.url, settings=settings)
        outcome = await verify(outcome, wanted, api, CLOCK, 20)
        assert (outcome.lost, outcome.refused, outcome.faults) == (0, 0, ())
        assert outcome.whole
        assert outcome.verified == 4
        assert outcome.chunks == 4 * 30
        assert outcome.samples == 4 * 30 * 50
        assert outcome.committed == outcome.chunks + outcome.events
        assert outcome.sent >= outcome.committed
        assert 0 < outcome.commit_ms_p50 <= outcome.commit_ms_p99
        assert outcome.commit_ms_p99 > 300  # what was recorded during the outage had to wait for its end
        assert 0 < outcome.drain_s < 20
        for edge in edges:
            sealed = cloud.catalogue.get(edge.session.id)
            sealed.verify()
            assert (np.diff(sealed.samples("emg").index) == 1).all()
        # And what is not there is said to be missing.
        lying = dict.fromkeys(wanted, 10)
        assert (await verify(outcome, lying, api, CLOCK, 0)).verified == 0
        assert not (await verify(outcome, lying, api, CLOCK, 0)).whole


async def test_two_ingester_processes_share_a_broker_by_shard(tmp_path, own_mosquitto, emg):
    load = Load(seconds=2.0, rate_hz=500.0, chunk_s=0.1, patience_s=30)
    names = [f"sim-{i}" for i in range(8)]
    low = {n for n in names if shard(n) < 128}
    assert 0 < len(low) < len(names)
    ingesters = Ingesters(tmp_path, own_mosquitto.port)
    async with AsyncExitStack() as stack:
        stack.callback(ingesters.close)
        for first, last in ((0, 127), (128, 255)):
            await asyncio.to_thread(ingesters.start, first, last)
        edges = fleet_of(names, own_mosquitto.port, emg, tmp_path, load, resend_s=1.0)
        running = asyncio.create_task(run(edges, load, CLOCK))
        await asyncio.sleep(1.0)
        # One of them is killed; the other's edges do not notice, its own wait for it.
        await asyncio.to_thread(ingesters.kill, 128, 255)
        await asyncio.to_thread(ingesters.start, 128, 255)
        outcome = await running
        assert outcome.whole
        for first, last in ((0, 127), (128, 255)):
            wanted = {e.session.id: e.samples for e in edges if first <= shard(e.session.edge) <= last}
            found = await verify(outcome, wanted, ingesters.api(first, last), CLOCK, 20)
            assert found.verified == len(wanted)
            listed = await asyncio.to_thread(ingesters.api(first, last).get, "/api/sessions")
            assert {s["session"] for s in listed} == {str(i) for i in wanted}


def test_the_command_says_what_became_of_the_fleet(tmp_path, own_mosquitto):
    ingesters = Ingesters(tmp_path, own_mosquitto.port)
    try:
        ingesters.start(0, 255)
        done = ingesters.embridge(
            "fleet", "simulate", "--edges", "3", "--seconds", "1", "--chunk-s", "0.2", "--json",
            "--verify", ingesters.url(0, 255),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert (found["edges"], found["chunks"], found["lost"], found["verified"]) == (3, 15, 0, 3)
        ingesters.kill(0, 255)
        done = ingesters.embridge("fleet", "simulate", "--edges", "1", "--seconds", "0.5", "--patience", "1")
        assert done.returncode == 4
        assert "3 messages were not committed in time" in done.stderr
    finally:
        ingesters.close()


def test_edges_of_a_fleet_share_no_certificate_and_want_a_broker(tmp_path):
    runner, environment = CliRunner(), {"EMBRIDGE_MQTT__PORT": "1"}
    alone = runner.invoke(app, ["simulate"], env=environment)
    assert isinstance(alone.exception, NetworkError)
    assert alone.exception.reason is Reason.UNREACHABLE
    shared = runner.invoke(app, ["simulate"], env=environment | {"EMBRIDGE_MQTT__CERT_FILE": str(tmp_path / "a.pem")})
    assert isinstance(shared.exception, ConfigError)
    assert "--identities" in shared.exception.hint
