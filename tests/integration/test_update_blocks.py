"""Releases over the broker alone: a real broker, a real ingester's connection, a real agent, no HTTP."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

from embridge_cloud.blocks import add_blocks
from embridge_cloud.registry import Registry
from embridge_cloud.server import serve
from embridge_edge.agent import Agent
from embridge_shared.clock import SystemClock
from embridge_shared.fleet import UpdatePhase
from embridge_shared.settings import CloudSettings, EdgeSettings, MqttSettings, Settings
from embridge_shared.wire import topics
from embridge_shared.wire.blocks import BlockRequest, pack_block
from embridge_shared.wire.messages import Desired, pack
from support.bundles import make_bundle

CLOCK = SystemClock()


async def until(condition, what: str, timeout_s: float = 20.0) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(what) from None


@asynccontextmanager
async def agent_at(settings: Settings):
    agent = Agent(settings, CLOCK)
    task = asyncio.create_task(agent.run())
    try:
        yield agent
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_release_comes_over_the_broker(tmp_path: Path, own_mosquitto):
    registry = Registry(tmp_path / "cloud" / "registry", CLOCK)
    published = registry.publish(make_bundle(tmp_path))
    (tmp_path / "root.json").write_bytes(registry.root_bytes())
    settings = Settings(
        mqtt=MqttSettings(port=own_mosquitto.port),
        cloud=CloudSettings(state_dir=tmp_path / "cloud", http_port=0, commit_s=0.05),
        edge=EdgeSettings(
            name="edge-1", state_dir=tmp_path / "edge", update_root=tmp_path / "root.json", update_route="auto"
        ),
    )
    async with serve(settings, extensions=[add_blocks]) as cloud, agent_at(settings) as agent:
        await until(lambda: cloud.ingester.status.connected, "the cloud connects")
        await until(lambda: agent.link.value == "online", "the edge connects")
        # What nobody could have asked for changes nothing.
        for bad in (b"", b"\xc1", pack_block(BlockRequest(1, "../keys/targets.pem", 0, 100))):
            await cloud.ingester.publish(topics.ask_topic("edge-1"), bad)
        desired = Desired(release=published.name, digest=published.digest, url="http://127.0.0.1:9/updates")
        await cloud.ingester.publish(topics.desired_topic("edge-1"), pack(desired), retain=True)
        await until(lambda: agent.state().release == "embridge-1", "the release runs")
        assert agent.state().update.phase in (UpdatePhase.COMMITTED, UpdatePhase.PROBATION, UpdatePhase.IDLE)
        second = registry.publish(make_bundle(tmp_path, version=2))
        by_broker = Desired(release=second.name, digest=second.digest, url="mqtt:updates")
        await cloud.ingester.publish(topics.desired_topic("edge-1"), pack(by_broker), retain=True)
        await until(lambda: agent.state().release == "embridge-2", "the release of a mqtt: URL runs")
        assert cloud.ingester.counters.foreign == 0
