"""A thousand edges take a release: it completes, stops in the canary wave, and outlives broker and cloud."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from conftest import MosquittoBroker
from embridge_edge.fleet.rehearse import Rehearsal
from embridge_edge.fleet.troubles import Trouble
from embridge_shared.fleet import RolloutPolicy, Trial, Wave
from support.rehearsals import Rehearsing

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

EDGES = 1000
WAVES = (
    Wave(name="canary", share=0.05, soak_s=1.0),
    Wave(name="early", share=0.25, soak_s=1.0),
    Wave(name="all", share=1.0, soak_s=0.0),
)


def policy(**changes) -> RolloutPolicy:
    given = {"waves": WAVES, "patience_s": 120.0, "trial": Trial(probation_s=60.0, min_windows=20)}
    return RolloutPolicy(**(given | changes))


@pytest.fixture
def cloud(tmp_path, own_mosquitto: MosquittoBroker) -> Iterator[Rehearsing]:
    found = Rehearsing(tmp_path, own_mosquitto.port)
    yield found
    found.close()


async def test_a_rollout_to_a_thousand_edges_completes(cloud):
    shares = {Trouble.SLOW: 0.02, Trouble.FLAPPING: 0.02, Trouble.CORRUPT_DISK: 0.02, Trouble.MIRROR: 0.005}
    asked = Rehearsal("embridge-2", policy(), before="embridge-1", troubles=shares)
    found = await cloud.rehearse(EDGES, asked)
    print(found)
    assert (found.state, found.faults) == ("done", ())
    assert found.troubles["mirror"] == {"refused": 5}
    assert found.phases["refused"] == 5
    assert found.phases["committed"] >= 0.99 * EDGES - 5


@pytest.mark.parametrize("trouble", [Trouble.CRASHING, Trouble.SLUGGISH, Trouble.STARVED, Trouble.BROKEN])
async def test_a_bad_release_reaches_the_canaries_alone_and_all_of_them_return(cloud, trouble):
    asked = Rehearsal("embridge-2", policy(), before="embridge-1", troubles={trouble: 1.0})
    found = await cloud.rehearse(EDGES, asked)
    print(found)
    assert (found.state, found.faults) == ("aborted", ())
    assert 0 < found.ran <= 0.05 * EDGES
    assert found.back == found.ran
    assert found.waves[1].asked == found.waves[2].asked == 0


async def test_broker_and_cloud_die_in_the_middle_and_the_rollout_goes_on(cloud, own_mosquitto):
    killed = []

    async def kill() -> None:
        api = cloud.loop.api
        while len(killed) < 2:
            await asyncio.sleep(0.2)
            try:
                rollouts = await asyncio.to_thread(api.get, "/api/rollouts")
            except Exception:
                continue
            done = [w["committed"] for r in rollouts if r["release"] == "embridge-2" for w in r["tally"]]
            # Once amid the second wave, once amid the third.
            if sum(done) > (0.1, 0.5)[len(killed)] * EDGES:
                own_mosquitto.kill()
                cloud.loop.kill("cloud")
                await asyncio.sleep(1.0)
                own_mosquitto.start()
                await asyncio.to_thread(cloud.start)
                killed.append(sum(done))

    asked = Rehearsal("embridge-2", policy(), before="embridge-1")
    found = await cloud.rehearse(EDGES, asked, meanwhile=kill)
    print(found, killed)
    assert len(killed) == 2
    assert (found.state, found.faults) == ("done", ())
    assert found.phases == {"committed": EDGES}
    assert found.ran == EDGES
