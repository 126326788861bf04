"""A rollout rehearsed with many edges against a real broker and cloud: it completes, or stops where it must."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from embridge_cloud.fleet import add_fleet
from embridge_cloud.registry import Registry
from embridge_cloud.server import serve
from embridge_edge.fleet.rehearse import Rehearsal, Rehearsed, rehearse, settings_in
from embridge_edge.fleet.troubles import Trouble, assign, parse
from embridge_shared.clock import SystemClock
from embridge_shared.cloud_client import connect
from embridge_shared.errors import ConfigError
from embridge_shared.fleet import RolloutPolicy, Trial, Wave
from embridge_shared.settings import CloudSettings, EdgeSettings, MqttSettings, Settings
from support.bundles import make_bundle

WAVES = (
    Wave(name="canary", share=0.1, soak_s=0.5),
    Wave(name="early", share=0.4, soak_s=0.2),
    Wave(name="all", share=1.0, soak_s=0.0),
)


def policy(**changes) -> RolloutPolicy:
    given = {"waves": WAVES, "max_errors": 0.02, "patience_s": 30.0, "trial": Trial(probation_s=20.0, min_windows=10)}
    return RolloutPolicy(**(given | changes))


@asynccontextmanager
async def cloud_with(folder: Path, port: int, bundles: list[Path]):
    settings = Settings(
        mqtt=MqttSettings(port=port),
        cloud=CloudSettings(state_dir=folder / "cloud", http_port=0, commit_s=0.05),
        edge=EdgeSettings(backoff_max_s=2.0, update_root=folder / "cloud/registry/repository/metadata/1.root.json"),
    )
    registry = Registry(folder / "cloud" / "registry", SystemClock())
    for bundle in bundles:
        registry.publish(bundle)
    async with serve(settings, extensions=[add_fleet]) as context:
        yield context, settings


async def rehearsed(folder: Path, port: int, edges: int, asked: Rehearsal, *, speed: float = 20.0) -> Rehearsed:
    bundles = [make_bundle(folder, version, seed=version) for version in (1, 2)]
    async with cloud_with(folder, port, bundles) as (cloud, settings):
        api = connect(cloud.url, settings=settings)
        fleet = settings_in(settings, [f"sim-{i:04d}" for i in range(edges)], folder / "edges")
        return await rehearse(fleet, api, asked, speed=speed)


async def test_a_rollout_completes_and_names_the_edges_in_trouble(tmp_path, own_mosquitto):
    troubles = dict.fromkeys((Trouble.SLOW, Trouble.FLAPPING, Trouble.CORRUPT_DISK, Trouble.MIRROR), 0.05)
    asked = Rehearsal(
        "embridge-2", policy(max_errors=0.2, success=0.9), before="embridge-1", troubles=troubles, patience_s=90
    )
    found = await rehearsed(tmp_path, own_mosquitto.port, 40, asked)
    assert (found.state, found.faults) == ("done", ()), found
    assert found.phases == {"committed": 38, "refused": 2}
    assert found.troubles["mirror"] == {"refused": 2}, "a tampered release runs nowhere"
    for harmless in ("slow", "flapping", "corrupt-disk"):
        assert found.troubles[harmless] == {"committed": 2}
    assert (found.ran, found.back) == (38, 0)
    assert [(w.name, w.edges, w.asked) for w in found.waves] == [("canary", 4, 4), ("early", 12, 12), ("all", 24, 24)]
    assert 0 < found.http_bytes < 1 << 20
    assert 0 < found.said < 30


@pytest.mark.parametrize("trouble", [Trouble.CRASHING, Trouble.SLUGGISH])
async def test_bad_health_stops_in_the_canary_wave_and_all_return(tmp_path, own_mosquitto, trouble):
    asked = Rehearsal("embridge-2", policy(), before="embridge-1", troubles={trouble: 1.0}, patience_s=90)
    found = await rehearsed(tmp_path, own_mosquitto.port, 40, asked)
    assert (found.state, found.faults) == ("aborted", ()), found
    assert 1 <= found.ran <= 4, "no more than the canary's share"
    assert found.back == found.ran
    assert found.phases["committed"] == 40 - found.phases["rolled_back"], "all others stay with what they had"
    assert found.waves[1].asked == found.waves[2].asked == 0
    assert found.settled


def test_troubles_are_shared_out_once_an_edge_and_the_same_for_a_seed():
    names = [f"e{i}" for i in range(100)]
    shares = {Trouble.SLOW: 0.1, Trouble.MIRROR: 0.05}
    found = assign(names, shares, 3)
    assert found == assign(names, shares, 3) != assign(names, shares, 4)
    assert [list(found.values()).count(t) for t in shares] == [10, 5]
    assert parse(["slow=0.1", "mirror=0.05"]) == shares
    for wrong in ("slow", "slow=x", "nap=0.1", "slow=1.1"):
        with pytest.raises(ConfigError):
            parse([wrong])
    with pytest.raises(ConfigError, match="add up"):
        parse(["slow=0.6", "mirror=0.6"])
