"""Jobs: begun, followed, killed, resumed, cancelled at every stage, bounded, queued, judged and overruled."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from embridge_cloud.frozen import Frozen, FrozenSession
from embridge_cloud.gates.files import read_report
from embridge_cloud.gates.policy import GatePolicy
from embridge_cloud.jobs.child import Child
from embridge_cloud.jobs.model import ANEW, Job, JobRequest, JobState, Limits, Task
from embridge_cloud.jobs.office import Order
from embridge_cloud.jobs.runner import Jobs
from embridge_cloud.jobs.shelf import Shelf
from embridge_shared.clock import SystemClock
from embridge_shared.errors import DataError, ModelError, OperatorError, Reason
from support.gate_world import recipe

RECIPE = recipe(1, line="line", heads=("closed",))
WISH = JobRequest(recipe=RECIPE, why="a test")


class Quick(SystemClock):
    """Waits for nothing, and can be put forward."""

    ahead_ns = 0

    def monotonic_ns(self) -> int:
        return super().monotonic_ns() + self.ahead_ns

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


@dataclass
class Office:
    """Champions, data and a registry that are what a test says."""

    catalogue: Any
    policy: GatePolicy = GatePolicy(resamples=100)  # noqa: RUF009
    held: list[str] = field(default_factory=list)
    refuses: bool = False
    slow: asyncio.Event | None = None
    changes: int = 0
    loop: Any = None

    def order(self, request: JobRequest, shelf: Shelf) -> Order:
        if self.refuses:
            raise DataError("nothing to learn from", reason=Reason.TOO_LITTLE_DATA)
        sessions = (FrozenSession(session="a", participant="p", content_hash="1"),)
        return Order(request.recipe or RECIPE, Frozen(taken_ns=1, sessions=sessions), None)

    def champion(self, line: str, jobs: Path) -> Any:
        if self.changes <= 0:
            return None
        self.changes -= 1
        published = SimpleNamespace(digest=str(self.changes), name=f"line-{self.changes}")
        return SimpleNamespace(published=published, trusted=(), bundle="b", model=None)

    def model(self, digest: str, jobs: Path) -> None:
        return None

    def publish(self, folder: Path, summary: Any, champion: Any) -> Any:
        if self.slow is not None:
            asyncio.run_coroutine_threadsafe(self.slow.wait(), self.loop).result(10)
        self.held.append(summary.release)
        return SimpleNamespace(name=summary.release, digest=summary.digest)


class Ears:
    def __init__(self) -> None:
        self.changes: list[Job] = []
        self.steps: list[Job] = []
        self.releases: list[str] = []

    def changed(self, job: Job) -> None:
        self.changes.append(job)

    def progressed(self, job: Job) -> None:
        self.steps.append(job)

    async def published(self, job: Job, release: Any) -> None:
        self.releases.append(release.name)


class Bench:
    """Jobs with a child that does what a script says."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        self.folder = folder / "jobs"
        self.folder.mkdir(exist_ok=True)
        self.limits = Limits(**({"attempts": 3, "nice": 0} | limits))
        self.office = Office(SimpleNamespace(directory=folder / "sealed"))
        self.ears = Ears()
        self.clock = Quick()

    def script(self, *attempts: list[str]) -> None:
        (self.folder / "script.json").write_text(json.dumps(attempts))

    def jobs(self) -> Jobs:
        self.office.loop = asyncio.get_running_loop()
        child = partial(Child, module="support.job_child")
        return Jobs(Shelf(self.folder), self.office, self.clock, ears=self.ears, limits=self.limits, child=child)

    @asynccontextmanager
    async def open(self):
        jobs = self.jobs()
        try:
            yield jobs
        finally:
            await jobs.close()

    def tried(self, name: str = "realign-1") -> list[dict[str, Any]]:
        return json.loads((self.folder / name / "attempts.json").read_text())


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    return Bench(tmp_path)


async def until(jobs: Jobs, name: str, reached) -> Job:
    async with asyncio.timeout(30):
        while not reached(job := jobs.shelf.get(name)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return job


async def over(jobs: Jobs, name: str = "realign-1") -> Job:
    return await until(jobs, name, lambda j: j.ended_ns)


async def stage(jobs: Jobs, wanted: str, name: str = "realign-1") -> Job:
    return await until(jobs, name, lambda j: j.stage == wanted)


async def test_a_job_is_followed_to_its_release(bench):
    bench.script(["step 10", "accept"])
    async with bench.open() as jobs:
        begun = await jobs.start(WISH, by="me")
        assert (begun.state, begun.by, begun.why, begun.candidate) == (JobState.QUEUED, "me", "a test", "line-1")
        job = await over(jobs)
        assert (job.state, job.release, job.accepted, job.attempts) == (JobState.DONE, "line-1", True, 1)
        assert bench.office.held == bench.ears.releases == ["line-1"]
        states = [j.state for j in bench.ears.changes]
        assert states[0] is JobState.QUEUED
        assert states[-1] is JobState.DONE
        # ten steps within a second are told of twice: the first and the last
        assert [j.step for j in bench.ears.steps] == [1, 10]
        assert jobs.shelf.log("realign-1") == "attempt 1\n"
    assert Shelf(bench.folder).get("realign-1") == job


async def test_a_refused_candidate_is_kept_and_can_be_published_with_a_reason(bench):
    bench.script(["refuse"])
    async with bench.open() as jobs:
        await jobs.start(WISH)
        job = await over(jobs)
        assert (job.state, job.error, job.accepted) == (JobState.REFUSED, "It was refused.", False)
        assert not bench.office.held
        with pytest.raises(OperatorError, match="no reason"):
            await jobs.publish("realign-1", reason=" ", by="me")
        forced = await jobs.publish("realign-1", reason="It is a demo.", by="me")
        assert (forced.state, forced.release, forced.forced_by) == (JobState.DONE, "line-1", "me")
        report = read_report(bench.folder / "realign-1")
        assert (report.accepted, report.forced_by, report.forced_why) == (False, "me", "It is a demo.")
        with pytest.raises(OperatorError, match="not refused"):
            await jobs.publish("realign-1", reason="again", by="me")


async def test_a_registry_that_refuses_leaves_a_refused_job_refused(bench):
    bench.script(["refuse"])
    async with bench.open() as jobs:
        await jobs.start(WISH)
        await over(jobs)

        def broken(*_: Any) -> None:
            raise ModelError("the pose space is another one")

        bench.office.publish = broken
        with pytest.raises(ModelError):
            await jobs.publish("realign-1", reason="because", by="me")
        assert jobs.shelf.get("realign-1").state is JobState.REFUSED


# death


async def test_a_child_that_is_killed_goes_on_from_its_checkpoint(bench):
    bench.script(["step 4", "die"], ["step 7", "die"], ["step 10", "accept"])
    async with bench.open() as jobs:
        await jobs.start(WISH)
        job = await over(jobs)
    assert (job.state, job.attempts) == (JobState.DONE, 3)
    assert [a["from"] for a in bench.tried()] == [0, 4, 7]


async def test_attempts_are_bounded_and_counted_anew_when_somebody_resumes(bench):
    bench.script(*[["step 2", "die"]] * 3, ["accept"])
    async with bench.open() as jobs:
        await jobs.start(WISH)
        job = await over(jobs)
        assert (job.state, job.attempts) == (JobState.FAILED, 3)
        assert "SIGKILL" in job.error
        await jobs.resume("realign-1")
        job = await until(jobs, "realign-1", lambda j: j.state is JobState.DONE)
        assert job.attempts == 1
        assert job.error == ""
        with pytest.raises(OperatorError, match="Only what failed or was cancelled"):
            await jobs.resume("realign-1")


async def test_an_error_is_no_accident_and_is_not_tried_again(bench):
    bench.script(["fail"])
    async with bench.open() as jobs:
        await jobs.start(WISH)
        job = await over(jobs)
    assert (job.state, job.error, job.attempts) == (JobState.FAILED, "training diverged", 1)


async def test_a_process_that_ends_leaves_its_job_to_the_next_one(bench):
    bench.script(["step 5", "sleep"], ["step 10", "accept"])
    async with bench.open() as jobs:
        await jobs.start(WISH)
        await stage(jobs, "sleeping")
    left = Shelf(bench.folder).get("realign-1")
    assert (left.state, left.attempts) == (JobState.QUEUED, 0)
    async with bench.open() as jobs:
        await jobs.recover()
        assert (await over(jobs)).state is JobState.DONE
    assert [a["from"] for a in bench.tried()] == [0, 5]


async def test_a_job_of_a_killed_process_goes_on_and_not_for_ever(bench):
    bench.script(["step 5", "accept"], ["step 10", "accept"])
    async with bench.open() as jobs:
        await jobs.start(WISH)
        await over(jobs)
    job = Shelf(bench.folder).get("realign-1")
    for attempts, state in ((2, JobState.DONE), (3, JobState.FAILED)):
        left = msgspec.structs.replace(job, state=JobState.RUNNING, ended_ns=0, release="", attempts=attempts)
        Shelf(bench.folder).write(left)
        async with bench.open() as jobs:
            await jobs.recover()
            assert (await over(jobs)).state is state


# cancelling


@pytest.mark.parametrize(
    ("moment", "words"),
    [("", ["stay"]), ("starting", ["stay"]), ("align", ["step 5", "stay"]), ("sleeping", ["step 5", "sleep"])],
)
async def test_a_job_is_cancelled_at_every_stage(bench, moment, words):
    bench.script(words)
    async with bench.open() as jobs:
        await jobs.start(WISH)
        if moment:
            await stage(jobs, moment)
        job = await jobs.cancel("realign-1")
        assert job.state is JobState.CANCELLED
        assert (await jobs.cancel("realign-1")).state is JobState.CANCELLED
    kept = Shelf(bench.folder).get("realign-1")
    assert kept.state is JobState.CANCELLED
    assert not bench.office.held


async def test_what_is_being_published_cannot_be_cancelled(bench):
    bench.script(["accept"])
    bench.office.slow = asyncio.Event()
    async with bench.open() as jobs:
        await jobs.start(WISH)
        await stage(jobs, "publishing")
        with pytest.raises(OperatorError, match="being published"):
            await jobs.cancel("realign-1")
        bench.office.slow.set()
        assert (await over(jobs)).state is JobState.DONE


async def test_one_runs_one_waits_and_a_third_is_refused(bench):
    bench.script(["sleep"], ["accept"])
    async with bench.open() as jobs:
        await jobs.start(WISH)
        await stage(jobs, "sleeping")
        waits = await jobs.start(WISH)
        assert (waits.id, waits.state, waits.version) == ("realign-2", JobState.QUEUED, 0)
        with pytest.raises(OperatorError, match="realign-1 runs and realign-2 waits"):
            await jobs.start(WISH)
        await jobs.cancel("realign-2")
        assert (await jobs.start(WISH)).id == "realign-3"
        await jobs.cancel("realign-1")
        # its data is frozen when its turn comes, not when it was asked for
        bench.office.refuses = True
        job = await over(jobs, "realign-3")
        assert (job.state, job.error) == (JobState.FAILED, "nothing to learn from")


async def test_a_job_that_cannot_begin_leaves_nothing_behind(bench):
    bench.office.refuses = True
    async with bench.open() as jobs:
        with pytest.raises(DataError):
            await jobs.start(WISH)
        assert not jobs.shelf.all()
        assert not list(bench.folder.glob("realign-*"))


# limits


async def test_a_child_that_takes_too_much_memory_is_ended(tmp_path, bench):
    bench = Bench(tmp_path, memory_bytes=120 << 20)
    bench.script(["grow"])
    async with bench.open() as jobs:
        await jobs.start(WISH)
        job = await over(jobs)
    assert (job.state, job.attempts) == (JobState.FAILED, 1)
    assert "120 MiB are allowed" in job.error
    assert "realign.memory_mb" in job.error


async def test_a_child_that_takes_too_long_is_ended_and_can_be_resumed(tmp_path, bench):
    bench = Bench(tmp_path, wall_s=600.0, threads=1)
    bench.script(["step 3", "sleep"], ["accept"])
    async with bench.open() as jobs:
        await jobs.start(WISH)
        await stage(jobs, "sleeping")
        bench.clock.ahead_ns = 601 * 10**9
        job = await over(jobs)
        assert job.state is JobState.FAILED
        assert "longer than 600 s" in job.error
        await jobs.resume("realign-1")
        await until(jobs, "realign-1", lambda j: j.state is JobState.DONE)
    assert [(a["from"], a["threads"]) for a in bench.tried()] == [(0, "1"), (3, "1")]


# what changes meanwhile


async def test_data_that_is_taken_away_meanwhile_begins_it_again(bench):
    bench.script(["step 5", "sleep"], ["accept"])
    async with bench.open() as jobs:
        await jobs.start(WISH)
        await stage(jobs, "sleeping")
        (bench.folder / "realign-1" / ANEW).touch()
        job = await over(jobs)
        assert (job.state, job.attempts) == (JobState.DONE, 1)
    assert not (bench.folder / "realign-1" / ANEW).exists()


async def test_another_champion_meanwhile_has_it_judged_again(bench):
    bench.script(["accept"], ["refuse"])
    bench.office.changes = 2  # another one after training; none from then on
    async with bench.open() as jobs:
        await jobs.start(WISH)
        job = await over(jobs)
    assert len(bench.tried()) == 2
    assert job.state is JobState.REFUSED
    task = msgspec.json.decode((bench.folder / "realign-1" / "task.json").read_bytes(), type=Task)
    assert task.champion == ""


async def test_damaged_jobs_are_left_out_and_their_names_not_used_again(bench):
    (bench.folder / "realign-4").mkdir()
    (bench.folder / "realign-4" / "job.json").write_text("{")
    shelf = Shelf(bench.folder)
    assert shelf.all() == []
    assert shelf.next_id() == "realign-5"
    with pytest.raises(OperatorError, match="no job 'realign-4'"):
        shelf.get("realign-4")
