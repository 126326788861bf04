"""Jobs with their real child: killed in the middle it gives the same model; a champion is continued in its space."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from embridge_cloud.gates.policy import Costs, GatePolicy
from embridge_cloud.jobs.model import JobRequest, JobState, Limits
from embridge_cloud.jobs.office import Office
from embridge_cloud.jobs.runner import Jobs
from embridge_cloud.jobs.shelf import Shelf
from embridge_cloud.registry import Registry
from embridge_cloud.store.sealed import Catalogue
from embridge_shared.clock import SystemClock
from embridge_shared.release import read_bundle
from support.exchange import seal
from support.job_world import performed, recipe, store

pytestmark = pytest.mark.learning
POLICY = GatePolicy(resamples=100, costs=Costs(windows=20))


class Ears:
    def __init__(self) -> None:
        self.stages: list[str] = []

    def changed(self, job) -> None: ...

    def progressed(self, job) -> None:
        if job.stage not in self.stages[-1:]:
            self.stages.append(job.stage)

    async def published(self, job, release) -> None: ...


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings, self.sealed = store(folder / "cloud", range(3))

    @asynccontextmanager
    async def jobs(self, name: str):
        registry = Registry(self.folder / name / "registry", SystemClock())
        office = Office(registry, Catalogue(self.sealed), SystemClock(), policy=POLICY)
        shelf = Shelf(self.folder / name / "jobs")
        jobs = Jobs(shelf, office, SystemClock(), ears=Ears(), limits=Limits(every=10, threads=1))
        try:
            yield jobs
        finally:
            await jobs.close()


async def over(jobs: Jobs, name: str):
    async with asyncio.timeout(280):
        while not (job := jobs.shelf.get(name)).ended_ns:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return job


async def until_step(jobs: Jobs, stage: str, step: int) -> None:
    async with asyncio.timeout(280):
        while not ((job := jobs.shelf.get("realign-1")).stage == stage and job.step >= step):
            assert not job.ended_ns, job.error
            await asyncio.sleep(0.002)


def model(world: World, name: str) -> bytes:
    return (world.folder / name / "jobs" / "realign-1" / "model" / "model.safetensors").read_bytes()


async def test_killed_child_and_killed_cloud_give_the_model_of_an_undisturbed_run(tmp_path) -> None:
    world = World(tmp_path)
    async with world.jobs("whole") as jobs:
        await jobs.start(JobRequest(recipe=recipe()))
        whole = await over(jobs, "realign-1")
        assert whole.state is JobState.DONE, whole.error

    async with world.jobs("killed") as jobs:
        await jobs.start(JobRequest(recipe=recipe()))
        await until_step(jobs, "pose_mae", 12)
        os.kill(jobs._attempts._child._process.pid, signal.SIGKILL)
        await until_step(jobs, "align", 25)
        assert jobs.shelf.get("realign-1").attempts == 2
        # what comes in meanwhile changes nothing
        seal(world.settings, performed(7, number=8))
    async with world.jobs("killed") as jobs:
        await jobs.recover()
        job = await over(jobs, "realign-1")
        assert job.state is JobState.DONE, job.error
        assert (job.sessions, job.snapshot) == (3, whole.snapshot)
        assert not (jobs.shelf.folder("realign-1") / "checkpoints").exists()
    assert model(world, "killed") == model(world, "whole")


async def test_a_champion_is_continued_in_its_space_and_a_refusal_can_be_overruled(tmp_path) -> None:
    world = World(tmp_path)
    async with world.jobs("cloud") as jobs:
        await jobs.start(JobRequest(recipe=recipe()))
        first = await over(jobs, "realign-1")
        assert first.state is JobState.DONE, first.error
        seal(world.settings, performed(7, number=8))
        await jobs.start(JobRequest(why="a new wearer"))
        second = await over(jobs, "realign-2")
        # nobody is held out and recorded, so nothing can be decided against a champion
        assert second.state is JobState.REFUSED
        assert "0 held-out people are recorded" in second.error
        assert (second.champion, second.candidate, second.warm) == ("embridge-1", "embridge-2", True)
        assert (second.sessions, second.new_sessions) == (4, 1)
        stages = jobs._book.ears.stages
        assert stages.count("emg_mae") == 1
        forced = await jobs.publish("realign-2", reason="a test", by="me")
        assert forced.state is JobState.DONE
        manifests = [
            read_bundle(jobs.shelf.folder(j.id) / jobs.shelf.summary(j.id).bundle).manifest for j in (first, second)
        ]
        spaces = [m.pose_space for m in manifests]
        assert spaces[0] == spaces[1]
        assert spaces[0].generation == 1
        summary = jobs.shelf.summary("realign-2")
        assert summary.warm == manifests[1].parent == jobs.shelf.summary("realign-1").digest
        third = await jobs.start(JobRequest(major=True))
        await jobs.cancel(third.id)
        told = jobs.shelf.recipe(third.id)
        assert (told.version, told.generation, told.continues) == (3, 2, None)
        assert msgspec.json.encode(told)
