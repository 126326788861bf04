"""Rollouts as the cloud runs them: what edges are told, what is kept, kills at every point, pins, recalls."""

from __future__ import annotations

import re
import time

import msgspec
import pytest

from embridge_cloud.rollouts.roster import Roster
from embridge_cloud.rollouts.shelf import IN_FULL, Shelf
from embridge_shared.errors import DataError, OperatorError, Reason
from embridge_shared.fleet import RolloutRequest, RolloutState, UpdatePhase
from embridge_shared.wire.messages import Desired, unpack
from support.fleets import NEW, OLD, S, ScriptedEdge, policy, published, rollout_of
from support.rollouts import Killed, World

EIGHT = [f"edge-{n}" for n in range(8)]


def good(*names: str) -> dict[str, str]:
    return dict.fromkeys(names or EIGHT, "good")


async def world_of(tmp_path, fates=None, *versions) -> World:
    return await World(tmp_path, fates or good(), *versions).begin()


async def test_a_release_reaches_every_edge_in_two_waves(tmp_path):
    world = await world_of(tmp_path)
    rollout = await world.start()
    assert (rollout.id, rollout.state, rollout.started_by) == ("r-0001", RolloutState.RUNNING, "ana")
    assert len(world.retained) == 2
    desired = unpack(next(iter(world.retained.values())), Desired)
    assert (desired.release, desired.digest, desired.rollout) == (NEW, "sha-m-2", "r-0001")
    assert (desired.trial, desired.url) == (policy().trial, "http://cloud/updates")
    rollout = await world.play()
    assert rollout.state is RolloutState.DONE
    assert set(world.running().values()) == {NEW}
    assert world.sent == 8
    assert [row[0] for row in world.rows] == [
        "rollout.begin",
        "rollout.wave", "rollout.soak", "rollout.wave", "rollout.soak", "rollout.finish",
    ]  # fmt: skip
    assert {row[1] for row in world.rows} == {"rollout:r-0001"}
    told = [data for kind, _, data in world.events if kind == "rollout"]
    assert told[-1] == {
        "release": NEW, "state": "done", "wave": 1, "asked": 8, "committed": 8, "errors": 0, "reason": "",
    }  # fmt: skip
    assert {s for k, s, d in world.events if k == "edge.update" and d["phase"] == "committed"} == set(EIGHT)


@pytest.mark.parametrize("fate", ["refuses", "crashes", "sick"])
async def test_a_bad_release_stops_in_the_canary_and_goes_back(tmp_path, fate):
    world = await world_of(tmp_path, dict.fromkeys(EIGHT, fate))
    await world.start()
    rollout = await world.play()
    assert rollout.state is RolloutState.ABORTED
    assert len(world.retained) == 2, "the canary alone was asked"
    assert set(world.running().values()) == {OLD}
    assert world.registry.recalled == {NEW}
    assert all(unpack(p, Desired).release == OLD for p in world.retained.values())
    assert all(unpack(p, Desired).trial is None for p in world.retained.values())
    assert rollout.reason
    with pytest.raises(OperatorError) as caught:
        await world.start()
    assert caught.value.reason is Reason.RECALLED


async def test_edges_that_are_away_learn_of_it_later_and_of_its_recall_too(tmp_path):
    world = await world_of(tmp_path)
    await world.start()
    first = min(world.retained)
    for _ in range(3):
        await world.tick()
    world.connect(first, False)
    await world.rollouts.act("r-0001", "abort", reason="worse")
    rollout = await world.play()
    assert rollout.state is RolloutState.ABORTED
    world.connect(first, True)
    await world.tick()
    assert set(world.running().values()) == {OLD}
    assert all(p.phase is not UpdatePhase.COMMITTED for p in world.rollouts.shelf.get("r-0001").edges)


@pytest.mark.parametrize("fates", ["good", "crashes"])
async def test_a_process_that_is_killed_anywhere_goes_on_where_it_was(tmp_path, fates):
    whole = await World(tmp_path / "whole", dict.fromkeys(EIGHT[:4], fates)).begin()
    await whole.start()
    wanted = await whole.play()
    effects = list(whole.effects)
    assert {"rollout", "roster", "publish", "history"} <= set(effects)
    for point in range(len(effects)):
        world = await World(tmp_path / f"{point}", dict.fromkeys(EIGHT[:4], fates)).begin()
        world.kill_at = point
        try:
            await world.start()
            rollout = await world.play()
            pytest.fail(f"nothing was done at {point}: {rollout.state}")
        except Killed:
            await world.restart()
            await world.rollouts.round()
        if not world.rollouts.shelf.all():
            await world.start()
        rollout = await world.play()
        assert (rollout.state, world.running()) == (wanted.state, whole.running()), (point, effects[point])
        assert {p.edge for p in rollout.edges if p.asked_ns} == {p.edge for p in wanted.edges if p.asked_ns}
        assert {e: unpack(m, Desired).release for e, m in world.retained.items()} == {
            e: unpack(m, Desired).release for e, m in whole.retained.items()
        }
        actions = [row[0] for row in world.rows]
        # Killed right after the recall, the next process finds it, and its row says why.
        missing = {row[0] for row in whole.rows} - set(actions)
        assert not missing or (missing == {"rollout.error"} and "rollout.roll_back" in actions)


async def test_a_broker_that_lost_everything_is_told_again(tmp_path):
    world = await world_of(tmp_path)
    await world.start()
    world.connection = 0
    world.retained.clear()
    for _ in range(200):
        await world.tick()
    assert world.rollouts.shelf.get("r-0001").state is RolloutState.RUNNING, "nobody is blamed for a silence of ours"
    world.connection = 2
    rollout = await world.play()
    assert rollout.state is RolloutState.DONE
    assert set(world.retained) == set(EIGHT)


async def test_what_the_broker_does_not_take_is_told_again(tmp_path):
    world = await world_of(tmp_path)
    taken = world.publish_all

    async def refuse(messages) -> None:
        world.connection = 0
        await taken(messages)

    world.publish_all = refuse
    await world.start()
    assert not world.retained
    world.publish_all, world.connection = taken, 1
    await world.tick()
    assert len(world.retained) == 2


async def test_a_full_disk_stops_nothing_but_the_way_forward(tmp_path):
    world = await world_of(tmp_path)
    await world.start()
    shelf, write = world.rollouts.shelf, world.rollouts.shelf.write
    shelf.write = lambda _: (_ for _ in ()).throw(OSError(28, "no space left"))
    for _ in range(5):
        await world.tick()
    assert world.rollouts.failures > 0
    shelf.write = write
    assert (await world.play()).state is RolloutState.DONE


# pins and cohorts


async def test_a_pinned_edge_keeps_its_release_until_it_is_unpinned(tmp_path):
    world = await world_of(tmp_path)
    shadow = await world.rollouts.decide("edge-3", pinned=OLD, why="a study (ana)")
    assert (shadow.desired.pinned, shadow.desired.release) == (OLD, OLD)
    assert unpack(world.retained["edge-3"], Desired).trial is None
    await world.start()
    assert (await world.play()).state is RolloutState.DONE
    assert world.running()["edge-3"] == OLD
    assert sorted(world.running().values()).count(NEW) == 7
    await world.restart()
    await world.rollouts.round()
    assert unpack(world.retained["edge-3"], Desired).release == OLD
    await world.rollouts.decide("edge-3", pinned="")
    for _ in range(10):
        await world.tick()
    assert world.running()["edge-3"] == NEW, "it follows the latest rollout"
    assert world.rollouts.roster.get("edge-3").desired.rollout == "r-0001"


async def test_a_pin_to_what_is_not_there_or_recalled_is_refused(tmp_path):
    world = await world_of(tmp_path)
    for name, reason in (("m-9", Reason.NOT_FOUND), (NEW, Reason.RECALLED)):
        world.registry.recall(NEW, "bad")
        with pytest.raises(OperatorError) as caught:
            await world.rollouts.decide("edge-3", pinned=name, why="x")
        assert caught.value.reason is reason
    with pytest.raises(OperatorError) as caught:
        await world.rollouts.decide("nobody", cohort="x")
    assert caught.value.reason is Reason.NOT_FOUND


async def test_a_cohort_is_served_alone(tmp_path):
    world = await world_of(tmp_path)
    for name in EIGHT[:3]:
        await world.rollouts.decide(name, cohort="lab")
    await world.start(cohort="lab")
    assert (await world.play()).state is RolloutState.DONE
    assert {e for e, r in world.running().items() if r == NEW} == set(EIGHT[:3])
    with pytest.raises(OperatorError, match="no edge of cohort 'ward'"):
        await world.start(cohort="ward")


async def test_edges_named_by_hand_are_served_alone(tmp_path):
    world = await world_of(tmp_path)
    await world.start(edges=("edge-1", "edge-1", "edge-5"))
    assert (await world.play()).state is RolloutState.DONE
    assert {e for e, r in world.running().items() if r == NEW} == {"edge-1", "edge-5"}
    with pytest.raises(OperatorError) as caught:
        await world.start(edges=("edge-1", "edge-99"))
    assert caught.value.reason is Reason.NOT_FOUND
    await world.rollouts.decide("edge-2", pinned=OLD, why="x")
    with pytest.raises(OperatorError, match="edge-2 is pinned to m-1"):
        await world.start(edges=("edge-2",))


async def test_one_rollout_at_a_time_where_they_meet(tmp_path):
    world = await world_of(tmp_path)
    await world.start(edges=("edge-1",))
    with pytest.raises(OperatorError) as caught:
        await world.start()
    assert caught.value.reason is Reason.LOCKED
    assert "r-0001" in caught.value.message
    other = await world.start(edges=("edge-2",))
    assert other.id == "r-0002"
    with pytest.raises(OperatorError):
        await world.start(edges=("edge-2", "edge-3"))


async def test_a_dry_run_changes_nothing(tmp_path):
    world = await world_of(tmp_path)
    before = len(world.effects)
    rollout = await world.start(dry_run=True)
    assert (rollout.id, len(rollout.edges)) == ("", 8)
    assert len(world.effects) == before
    assert not world.rollouts.shelf.all()


async def test_an_edge_that_runs_something_newer_takes_no_part(tmp_path):
    world = World(tmp_path, good(), 1, 2, 3)
    world.edges["edge-0"].release = "m-3"
    await world.begin()
    rollout = await world.start()
    assert {p.edge: p.left for p in rollout.edges if p.left} == {"edge-0": "runs m-3, which is newer"}
    assert (await world.play()).state is RolloutState.DONE
    assert world.running()["edge-0"] == "m-3"


async def test_an_edge_that_appears_after_all_is_done_gets_it_too(tmp_path):
    world = await world_of(tmp_path)
    await world.start(policy(1.0, soak_s=0.0))
    assert (await world.play()).state is RolloutState.DONE
    world.edges["late"] = ScriptedEdge("late", release="")
    world.speak("late")
    for _ in range(8):
        await world.tick()
    assert world.running()["late"] == NEW
    await world.rollouts.recall(NEW, "worse")
    world.edges["later"] = ScriptedEdge("later", release="")
    world.speak("later")
    for _ in range(8):
        await world.tick()
    assert world.running()["later"] == ""


# recalls


async def test_a_recall_returns_edges_of_rollouts_that_are_over_and_of_pins(tmp_path):
    world = await world_of(tmp_path, good(), 1, 2, 3)
    await world.start(policy(1.0, soak_s=0.0), edges=("edge-0", "edge-1"))
    await world.play()
    await world.rollouts.decide("edge-2", pinned=NEW, why="x")
    await world.rollouts.decide("edge-1", pinned="m-3", why="y")
    for _ in range(8):
        await world.tick()
    await world.rollouts.recall(NEW, "it drifts")
    rollout = await world.play()
    assert (rollout.state, rollout.reason) == (RolloutState.ABORTED, "it drifts")
    wanted = {e: unpack(m, Desired).release for e, m in world.retained.items()}
    assert wanted == {"edge-0": OLD, "edge-1": "m-3", "edge-2": "m-3"}
    assert world.rollouts.roster.get("edge-2").desired.pinned == ""
    assert ("fleet.unpin", "fleet:edge-2") in [row[:2] for row in world.rows]


async def test_where_the_release_before_is_recalled_too_the_champion_is_asked_for(tmp_path):
    world = await world_of(tmp_path, good(), 0, 1, 2)
    await world.start(policy(1.0))
    for _ in range(5):
        await world.tick()
    world.registry.recall(OLD, "older sins")
    await world.rollouts.act("r-0001", "abort", reason="worse")
    assert {unpack(m, Desired).release for m in world.retained.values()} == {"m-0"}


async def test_an_abort_that_keeps_takes_back_only_what_does_not_run(tmp_path):
    fates = good() | {"edge-7": "deaf"}
    world = await world_of(tmp_path, fates)
    world.edges["edge-6"].release = world.edges["edge-6"].before = ""
    world.edges["edge-6"].fate = "deaf"
    world.speak("edge-6")
    await world.start(policy(1.0, soak_s=0.0))
    for _ in range(6):
        await world.tick()
    rollout = await world.rollouts.act("r-0001", "abort", reason="enough", keep=True)
    assert rollout.state is RolloutState.ABORTED
    assert not world.registry.recalled
    wanted = {e: unpack(m, Desired).release if m else "" for e, m in world.retained.items()}
    assert wanted == dict.fromkeys(EIGHT, NEW) | {"edge-7": OLD, "edge-6": ""}
    await world.restart()
    await world.rollouts.round()
    assert {e: unpack(m, Desired).release if m else "" for e, m in world.retained.items()} == wanted


async def test_a_recall_while_nobody_was_there_is_found_at_the_start(tmp_path):
    world = await world_of(tmp_path)
    await world.start(policy(1.0))
    for _ in range(6):
        await world.tick()
    world.registry.recall(NEW, "elsewhere")
    await world.restart()
    rollout = await world.play()
    assert (rollout.state, rollout.reason) == (RolloutState.ABORTED, "elsewhere")
    assert set(world.running().values()) == {OLD}


# on disk


def test_old_rollouts_are_kept_without_their_edges_and_read_when_asked(tmp_path):
    shelf = Shelf(tmp_path)
    for n in range(IN_FULL + 3):
        rollout = msgspec.structs.replace(
            rollout_of(3, policy()), id=f"r-{n + 1:04d}", state=RolloutState.DONE, ended_ns=S
        )
        shelf.write(rollout)
        shelf.put(rollout)
    for found in (shelf, Shelf(tmp_path)):
        assert [len(r.edges) for r in found.all()][:4] == [0, 0, 0, 3]
        assert [w.edges for w in found.all()[0].tally] == [1, 2]
        assert len(found.get("r-0001").edges) == 3
        assert found.next_id() == f"r-{IN_FULL + 4:04d}"
    with pytest.raises(OperatorError) as caught:
        shelf.get("r-9999")
    assert caught.value.reason is Reason.NOT_FOUND


def test_damaged_files_are_said_to_be(tmp_path):
    (tmp_path / "r-0001.json").write_text("{")
    with pytest.raises(DataError, match=re.escape("r-0001.json")):
        Shelf(tmp_path)
    (tmp_path / "fleet.json").write_text("[]")
    with pytest.raises(DataError, match=re.escape("fleet.json")):
        Roster(tmp_path / "fleet.json")


# size


async def test_messages_cost_what_they_cost_however_many_edges_there_are(tmp_path):
    """A round is one pass: 2 000 edges that all speak at once are one step, not 2 000."""
    names = [f"edge-{n:04d}" for n in range(2000)]
    world = await World(tmp_path, good(*names)).begin()
    began = time.perf_counter()
    await world.start(policy(1.0, soak_s=0.0, max_errors=1.0))
    rollout = await world.play()
    assert rollout.state is RolloutState.DONE
    assert time.perf_counter() - began < 20.0
    assert world.sent == 2000
    assert len(world.rows) == 4
    assert sum(1 for kind, _, _ in world.events if kind == "edge.update") < 1000


def test_published_is_what_the_support_says():
    assert published(2).name == NEW
    assert RolloutRequest(release=NEW).edges == ()
