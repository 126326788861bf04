"""What continues a champion: its recipe, its data, its pose space; what is replayed, and what an erasure leaves."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from embridge_cloud.context import CloudPaths
from embridge_cloud.continual import check_pose_space, find_champion, next_recipe
from embridge_cloud.frozen import SNAPSHOT, freeze, read_frozen, still_there, write_frozen
from embridge_cloud.gates.files import Seen, write_guard
from embridge_cloud.jobs.forget import forget
from embridge_cloud.jobs.model import ANEW, Job, JobRequest, JobState
from embridge_cloud.jobs.office import Office, suspicious
from embridge_cloud.jobs.runner import Jobs
from embridge_cloud.jobs.schedule import Schedule
from embridge_cloud.jobs.scheduler import Scheduler
from embridge_cloud.jobs.shelf import Shelf
from embridge_cloud.learn.data import Windows
from embridge_cloud.recipe import MODEL
from embridge_cloud.registry import Registry
from embridge_cloud.replay import replayed
from embridge_cloud.store.consent import Consent, Consents, read_consents
from embridge_cloud.store.sealed import Catalogue
from embridge_shared.clock import SystemClock
from embridge_shared.errors import DataError, ModelError, OperatorError, Reason
from embridge_shared.manifest import Lineage, PoseSpace
from embridge_shared.session import Purpose
from support.exchange import cloud_settings, seal
from support.gate_world import PEOPLE, job, performed, recipe, sealed_people

change = msgspec.structs.replace
SPACE = PoseSpace(digest="a" * 64, generation=2)
LEARNERS = ("ana", "ben", "cat")


@cache
def recorded() -> Path:
    """A cloud's state with a training session of each learner; made once, and copied."""
    folder = Path(tempfile.mkdtemp(prefix="continual-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    sealed_people(folder / "cloud", LEARNERS, repetitions=1, purpose=Purpose.TRAINING)
    return folder / "cloud"


class World:
    """A store of training sessions, and a champion that was made of the first two."""

    def __init__(self, folder: Path, *, head: str = "embridge", model: bool = True, space: PoseSpace | None = SPACE):
        self.folder = folder
        shutil.copytree(recorded(), folder / "cloud")
        self.settings = cloud_settings(folder / "cloud")
        self.catalogue = Catalogue(CloudPaths.of(self.settings).sealed)
        self.ids = {s.session.participant.id: str(s.id) for s in self.catalogue.sessions()}
        self.jobs = folder / "jobs"
        lineage = Lineage(snapshot="5" * 64, sessions=(self.ids["ana"], self.ids["ben"]))
        told = recipe(1, heads=("regression", "closed", "embridge"), generation=2, controls=3)
        extra = {} if space is None else {"pose_space": space}
        self.made, bundle = job(self.jobs, 1, lineage=lineage, head=head, told=told, **extra)
        if model:
            (self.made / MODEL).mkdir()
            (self.made / MODEL / "model.safetensors").touch()
        self.registry = Registry(folder / "registry", SystemClock())
        self.registry.publish(bundle)
        self.shelf = Shelf(self.jobs)
        self.shelf.write(Job(id="realign-1", state=JobState.DONE, line="embridge", version=1, release="embridge-1"))
        frozen = freeze(self.catalogue, told, now_ns=1)
        write_frozen(self.made, change(frozen, sessions=tuple(s for s in frozen.sessions if s.participant != "cat")))
        self.office = Office(self.registry, self.catalogue, SystemClock())

    @property
    def champion(self):
        found = find_champion(self.registry, self.jobs, "embridge")
        assert found is not None
        return found

    def refuse(self, name: str, *suspects: str) -> None:
        """A later job whose candidate was refused, and sessions that the guard named."""
        folder = self.jobs / name
        folder.mkdir()
        (folder / "config.json").write_bytes(msgspec.json.encode(recipe(2)))
        write_frozen(folder, freeze(self.catalogue, recipe(2), now_ns=2))
        seen = [Seen(session=s, participant="cat", trusted=False, chance=0.5, suspicious="odd") for s in suspects]
        write_guard(folder, tuple(seen))
        self.shelf.write(Job(id=name, state=JobState.REFUSED, line="embridge", version=2))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# the recipe


def test_a_champion_is_continued_in_its_own_space(world) -> None:
    champion = world.champion
    made = next_recipe(champion, version=4, excluded=("x",), replay=100, distil=0.5)
    assert (made.version, made.parent, made.generation) == (4, champion.published.digest, 2)
    assert made.continues is not None
    assert (made.continues.head, made.continues.anchor, made.continues.distil) == ("embridge", SPACE.digest, 0.5)
    assert (made.excluded, made.replay, made.controls) == (("x",), 100, 0)
    base = champion.recipe
    kept = ("line", "seen", "unseen", "held_out", "validation", "preprocess", "learn", "seed", "heads", "pairing")
    assert [getattr(made, name) for name in kept] == [getattr(base, name) for name in kept]
    # one continues the other: nothing is lost on the way, a major version chooses among all heads again
    again = next_recipe(replace(champion, recipe=made), version=5, major=True)
    assert again.heads == base.heads
    assert again.controls == 1


@pytest.mark.parametrize(("asked", "made"), [({"major": True}, {}), ({}, {"model": False}), ({}, {"space": None})])
def test_a_major_version_or_a_lost_model_begins_a_new_generation(tmp_path, asked, made) -> None:
    found = next_recipe(World(tmp_path, **made).champion, version=2, **asked)
    assert found.continues is None
    assert found.generation == 3


def test_a_closed_form_has_no_space_to_keep(tmp_path) -> None:
    found = next_recipe(World(tmp_path, head="closed", model=False, space=None).champion, version=2, distil=0.5)
    assert found.continues is not None
    assert (found.continues.head, found.continues.anchor, found.continues.distil) == ("closed", "", 0.0)


def test_a_recipe_that_is_lost_is_asked_for(world) -> None:
    shutil.rmtree(world.made)
    with pytest.raises(OperatorError, match="recipe of embridge-1 is not here"):
        next_recipe(world.champion, version=2)


def test_names_are_not_used_twice_and_named_sessions_wait(world) -> None:
    world.refuse("realign-2", world.ids["cat"])
    order = world.office.order(JobRequest(), world.shelf)
    assert order.recipe.version == 3  # embridge-2 was refused
    assert order.recipe.excluded == (world.ids["cat"],)
    assert {s.participant for s in order.frozen.sessions} == {"ana", "ben"}
    assert order.frozen.left_out == {world.ids["cat"]: "the recipe leaves it out"}
    vouched = world.office.order(JobRequest(include=(world.ids["cat"],)), world.shelf)
    assert {s.participant for s in vouched.frozen.sessions} == set(LEARNERS)
    assert not suspicious(world.shelf, "embridge", ("*",))
    assert not suspicious(world.shelf, "other")


def test_a_recipe_of_ones_own_is_of_the_next_generation_and_of_a_new_version(world) -> None:
    order = world.office.order(JobRequest(recipe=recipe(7)), world.shelf)
    assert (order.recipe.generation, order.recipe.parent) == (3, world.champion.published.digest)
    with pytest.raises(OperatorError, match="embridge-1 does not come after embridge-1"):
        world.office.order(JobRequest(recipe=recipe(1)), world.shelf)
    with pytest.raises(OperatorError, match="no release to continue"):
        world.office.order(JobRequest(line="other"), world.shelf)
    with pytest.raises(DataError) as caught:
        world.office.order(JobRequest(recipe=recipe(7, held_out=(*PEOPLE, *LEARNERS))), world.shelf)
    assert caught.value.reason is Reason.TOO_LITTLE_DATA


def test_within_a_generation_another_space_is_not_published(world) -> None:
    def manifest(space: PoseSpace | None):
        return SimpleNamespace(release="embridge-2", pose_space=space)

    same, other = manifest(SPACE), manifest(PoseSpace(digest="b" * 64, generation=2))
    for fine in (same, manifest(PoseSpace(digest="b" * 64, generation=3)), manifest(None)):
        check_pose_space(fine, same)
    check_pose_space(other, None)
    check_pose_space(other, manifest(None))
    with pytest.raises(ModelError, match="speaks in pose space bbbb"):
        check_pose_space(other, same)
    with pytest.raises(ModelError, match="of generation 1"):
        check_pose_space(manifest(PoseSpace(digest=SPACE.digest, generation=1)), same)


def test_the_registry_is_not_given_another_space(tmp_path) -> None:
    world = World(tmp_path)
    folder, _ = job(world.jobs, 2, pose_space=PoseSpace(digest="b" * 64, generation=2))
    summary = msgspec.json.decode((folder / "summary.json").read_bytes(), type=SummaryOf)
    with pytest.raises(ModelError, match="new generation"):
        world.office.publish(folder, summary, world.champion)
    assert [r.name for r in world.registry.releases()] == ["embridge-1"]


class SummaryOf(msgspec.Struct):
    bundle: str
    digest: str


# the data


def test_a_snapshot_does_not_change_when_more_is_sealed(world) -> None:
    before = freeze(world.catalogue, recipe(1), now_ns=1)
    seal(world.settings, performed("dan", number=9, repetitions=1, purpose=Purpose.TRAINING)[1])
    found, left_out = still_there(world.catalogue, before, Consents({}))
    assert {s.session.participant.id for s in found} == set(LEARNERS)
    assert not left_out
    assert freeze(world.catalogue, recipe(1), now_ns=1).digest != before.digest


def test_who_is_erased_or_withdraws_meanwhile_is_left_out_and_said(world) -> None:
    frozen = freeze(world.catalogue, recipe(1), now_ns=1)
    shutil.rmtree(world.catalogue.directory / world.ids["ben"])
    gone = Consent(version="v2", scopes=(), given_ns=2)
    found, left_out = still_there(world.catalogue, frozen, Consents({"ana": gone}))
    assert [s.session.participant.id for s in found] == ["cat"]
    assert left_out[world.ids["ben"]] == "it was removed after the job began"
    assert "that was said after the job began" in left_out[world.ids["ana"]]


def test_a_session_that_is_not_what_it_was_ends_the_training(world) -> None:
    frozen = freeze(world.catalogue, recipe(1), now_ns=1)
    swapped = change(frozen.sessions[0], content_hash="0" * 64)
    with pytest.raises(DataError, match="not what it was"):
        still_there(world.catalogue, change(frozen, sessions=(swapped,)), read_consents(world.catalogue.directory))


def windows(sizes: dict[tuple[int, int], int]) -> Windows:
    """Windows of sessions by (session, gesture)."""
    rows = [key for key, n in sizes.items() for _ in range(n)]
    session, label = (np.array(x, np.int64) for x in zip(*rows, strict=True))
    n = len(rows)
    return Windows(
        emg=np.arange(n, dtype=np.float32).reshape(n, 1, 1), pose=None, label=label, participant=session,
        session=session, repetition=np.zeros(n, np.int64), start_s=np.arange(n, dtype=np.float64),
        gestures=("g0", "g1"), participants=("p0", "p1", "p2"), sessions=("s0", "s1", "s2"),
    )  # fmt: skip


def test_replay_is_even_over_strata_bounded_and_keeps_all_that_is_new() -> None:
    whole = windows({(0, 0): 100, (0, 1): 5, (1, 0): 50, (1, 1): 50, (2, 0): 30})
    kept = replayed(whole, {"s0", "s1"}, 65, seed=0)
    counts = {(s, g): int(((kept.session == s) & (kept.label == g)).sum()) for s in range(3) for g in range(2)}
    assert counts == {(0, 0): 20, (0, 1): 5, (1, 0): 20, (1, 1): 20, (2, 0): 30, (2, 1): 0}
    assert replayed(whole, {"s0", "s1"}, 0, seed=0) is whole
    assert replayed(whole, {"s0", "s1"}, 205, seed=0) is whole


def test_a_smaller_reservoir_lies_within_a_larger_one_whatever_is_new() -> None:
    old = {(0, 0): 40, (1, 0): 40}
    few = replayed(windows(old), {"s0", "s1"}, 20, seed=0)
    more = replayed(windows(old | {(2, 0): 10}), {"s0", "s1"}, 30, seed=0)
    assert set(few.emg.ravel()) <= set(more.emg.ravel())
    assert len(few) == 20
    assert len(more) == 40


# what waits


def scheduler(world: World, **plan) -> Scheduler:
    ears = SimpleNamespace(changed=lambda job: None, progressed=lambda job: None)
    jobs = Jobs(world.shelf, world.office, SystemClock(), ears=ears)
    made = Schedule(enabled=True, settle_s=0, min_interval_s=0, sessions=1, **plan)
    return Scheduler(jobs, world.folder / "schedule.json", SystemClock(), made)


async def test_what_no_candidate_was_judged_on_waits(world) -> None:
    found = scheduler(world)
    begun = []
    found._jobs.start = lambda request, by: begun.append((request.line, by)) or done()

    async def done():
        return SimpleNamespace(id="realign-2")

    assert (await found.look()).begin
    waiting = found.standing().waiting
    assert (waiting.sessions, waiting.participants) == (1, 1)  # cat: nothing was made of her yet
    assert begun == [("embridge", "schedule")]
    world.refuse("realign-2")
    assert (await found.look()).why == "nothing new was sealed"


async def test_a_changed_schedule_outlives_the_process_and_can_be_returned(world) -> None:
    found = scheduler(world)
    await found.change({"enabled": False, "sessions": 12})
    with pytest.raises(OperatorError, match="no valid schedule"):
        await found.change({"timetable": "never"})
    again = scheduler(world)
    assert (again.schedule.enabled, again.schedule.sessions) == (False, 12)
    await again.change({"sessions": None})
    assert scheduler(world).schedule.sessions == 1
    (world.folder / "schedule.json").write_text("{")
    assert scheduler(world).schedule.enabled


async def test_a_schedule_that_cannot_begin_says_why(world) -> None:
    found = scheduler(world)
    shutil.rmtree(world.made / MODEL)
    (world.made / "config.json").unlink()
    assert not (await found.look()).begin  # without its recipe nobody knows what may be learnt from
    world.refuse("realign-2")
    seal(world.settings, performed("dan", number=9, repetitions=1, purpose=Purpose.TRAINING)[1])
    (world.jobs / "realign-2" / "config.json").write_bytes(msgspec.json.encode(recipe(2)))
    assert (await found.look()).begin
    assert "recipe of embridge-1 is not here" in found.standing().failed


# an erasure


def test_a_finished_job_keeps_its_recipe_and_forgets_the_rest(world) -> None:
    held = change(recipe(1), held_out=("ana", "eve"))
    (world.made / "config.json").write_bytes(msgspec.json.encode(held))
    assert forget(world.made, "ana", [world.ids["ana"]])
    left = sorted(p.name for p in world.made.iterdir())
    assert left == ["config.json", "job.json"]
    assert all(b"ana" not in p.read_bytes() for p in world.made.iterdir())
    champion = world.champion
    assert champion.recipe is not None
    assert champion.recipe.held_out == ("eve",)
    # the line goes on, anew: a model that learnt from the erased is gone
    assert next_recipe(champion, version=2).continues is None


def test_an_unfinished_job_goes_on_without_who_was_erased(world) -> None:
    world.refuse("realign-2")
    folder = world.jobs / "realign-2"
    (folder / "checkpoints").mkdir()
    (folder / "order.json").write_bytes(msgspec.json.encode(JobRequest(include=(world.ids["ben"],), why="for ben")))
    left_out = {world.ids["ben"]: "withdrawn", "other": "removed"}
    world.shelf.write(Job(id="realign-2", state=JobState.RUNNING, line="embridge", version=2, left_out=left_out))
    assert forget(folder, "ben", [world.ids["ben"]])
    assert (folder / ANEW).exists()
    assert {s.participant for s in read_frozen(folder).sessions} == {"ana", "cat"}
    assert sorted(p.name for p in folder.iterdir()) == [ANEW, "config.json", "job.json", "order.json", SNAPSHOT]
    names = (b"ben", world.ids["ben"].encode())
    assert not [p.name for p in folder.iterdir() if any(name in p.read_bytes() for name in names)]
    world.shelf.reload("realign-2")
    assert world.shelf.get("realign-2").left_out == {"other": "removed"}


def test_a_folder_that_is_no_job_is_left_to_be_removed(tmp_path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert not forget(tmp_path, "ana", [])
    assert cloud_settings(tmp_path).cloud.state_dir == tmp_path
