"""Rollouts with real processes: agents, a broker, a cloud that is killed on the way, commands of an operator."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import MosquittoBroker
from support.loop import Loop, until
from support.rollout_site import Fleet


@pytest.fixture
def loop(tmp_path: Path, own_mosquitto: MosquittoBroker) -> Iterator[Loop]:
    loop = Loop(tmp_path, own_mosquitto.port)
    yield loop
    loop.close()


def test_a_release_spreads_over_a_killed_cloud_and_is_taken_back(loop, own_mosquitto):
    fleet = Fleet(loop, own_mosquitto, 2)
    fleet.publish(1)
    fleet.publish(2)
    fleet.begin()
    plan = loop.api.post("/api/rollouts", {"release": "embridge-1", "dry_run": True})
    assert [w["edges"] for w in plan["tally"]] == [1, 1]
    assert loop.get("/api/rollouts") == []
    started = fleet.command("rollout", "start", "embridge-1")
    assert (started["id"], started["started_by"]) == ("r-0001", "local")
    until(lambda: loop.get("/api/rollouts/r-0001")["tally"][0]["asked"] == 1, 10)
    loop.kill("cloud")
    loop.start_cloud()
    assert fleet.over("r-0001")["state"] == "done"
    fleet.all_run("embridge-1")
    actions = [row["action"] for row in loop.get("/api/rollouts/r-0001/history")]
    assert actions.count("rollout.wave") == 2
    assert actions[-1] == "rollout.finish"

    pinned = loop.api.put("/api/fleet/edge-2", {"pinned": "embridge-1", "pinned_why": "a study"})
    assert pinned["pinned_why"] == "a study (local)"
    loop.api.post("/api/rollouts", {"release": "embridge-2"})
    fleet.over("r-0002")
    assert fleet.running() == {"edge-1": "embridge-2", "edge-2": "embridge-1"}
    recalled = loop.api.post("/api/releases/embridge-2/recall", {"reason": "it drifts"})
    assert recalled["recalled"] == "it drifts"
    assert fleet.over("r-0002")["state"] == "aborted"
    fleet.all_run("embridge-1")
    for name in (*fleet.edges, "cloud"):
        assert "Traceback" not in loop.log(name), loop.log(name)


@pytest.mark.faults
@pytest.mark.timeout(300)
@pytest.mark.parametrize("victims", [("cloud",), ("broker",), ("cloud", "broker")], ids="+".join)
def test_kills_again_and_again_change_nothing(loop, own_mosquitto, victims):
    fleet = Fleet(loop, own_mosquitto, 6)
    for version in (1, 2):
        fleet.publish(version)
    fleet.begin()
    rng = random.Random(7)
    for number, release in enumerate(("embridge-1", "embridge-2"), 1):
        loop.api.post("/api/rollouts", {"release": release})
        for _ in range(4):
            time.sleep(rng.uniform(0.1, 1.0))
            for victim in victims:
                own_mosquitto.kill() if victim == "broker" else loop.kill("cloud")
            for victim in reversed(victims):
                own_mosquitto.start() if victim == "broker" else loop.start_cloud()
        assert fleet.over(f"r-000{number}")["state"] == "done"
        fleet.all_run(release)
    loop.api.post("/api/releases/embridge-2/recall", {"reason": "worse"})
    for victim in victims:
        own_mosquitto.kill() if victim == "broker" else loop.kill("cloud")
    for victim in reversed(victims):
        own_mosquitto.start() if victim == "broker" else loop.start_cloud()
    assert fleet.over("r-0002")["state"] == "aborted"
    fleet.all_run("embridge-1")
