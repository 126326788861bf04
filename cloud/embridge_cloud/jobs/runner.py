"""Jobs: training in a child process, one at a time, resumed after every kind of death, and never published unjudged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from embridge_cloud.continual import Champion
from embridge_cloud.frozen import write_frozen
from embridge_cloud.gates.files import GATE, keep_report, read_report
from embridge_cloud.jobs.child import Child, LostError, TakenError
from embridge_cloud.jobs.model import (
    ANEW,
    CONFIG,
    OPEN,
    ORDER,
    TASK,
    Job,
    JobRequest,
    JobState,
    Limits,
    ProgressLine,
    Task,
)
from embridge_cloud.jobs.office import Ears, Office, Order
from embridge_cloud.jobs.shelf import Shelf
from embridge_cloud.learn.config import DEEP
from embridge_cloud.recipe import SUMMARY
from embridge_shared.archive import write_atomically
from embridge_shared.clock import Clock
from embridge_shared.errors import DataError, EmbridgeError, OperatorError, Reason
from embridge_shared.fleet import GateReport

logger = logging.getLogger(__name__)

DEFAULT_LIMITS: Final = Limits()
_TOLD_EVERY_NS: Final = 1_000_000_000
_AGAIN_S: Final = 1.0
_ROUNDS: Final = 3
_SHIPPING: Final = "publishing"

replace = msgspec.structs.replace


@dataclass(slots=True)
class _Pace:
    """Since when a stage runs, and when it was last told of."""

    stage: str = ""
    began_ns: int = 0
    first: int = 0
    told_ns: int = 0


class Jobs:
    """Runs realignments: one at a time, and one more may wait.

    Args:
        shelf: Where they are kept.
        office: Champions, data and the registry.
        clock: Time.
        ears: Who hears of them.
        limits: What one may take.
        child: Makes the child of an attempt; another one for tests.
    """

    def __init__(
        self,
        shelf: Shelf,
        office: Office,
        clock: Clock,
        *,
        ears: Ears,
        limits: Limits = DEFAULT_LIMITS,
        child: Callable[..., Child] = Child,
    ) -> None:
        self.shelf = shelf
        self.office = office
        self._clock = clock
        self._ears = ears
        self._limits = limits
        self._make = child
        self._task: asyncio.Task[None] | None = None
        self._child: Child | None = None
        self._pace = _Pace()
        self._closing = False
        self._gate = asyncio.Lock()

    async def start(self, request: JobRequest, by: str = "") -> Job:
        """Begin a realignment, or let it wait for the one that runs.

        Raises:
            OperatorError: LOCKED: one runs and one waits already; or as `Office.order`.
            DataError: TOO_LITTLE_DATA: nothing may be learnt from.
        """
        async with self._gate:
            open_ = self.shelf.open()
            if len(open_) >= 2:
                raise OperatorError(
                    f"{open_[0].id} runs and {open_[1].id} waits",
                    reason=Reason.LOCKED,
                    hint="Wait for them, or cancel one: `embridge job cancel`.",
                )
            order = None if open_ else await asyncio.to_thread(self.office.order, request, self.shelf)
            line = request.line if request.recipe is None else request.recipe.line
            why = request.why or ("a recipe was given" if request.recipe is not None else "asked for")
            job = Job(
                id=self.shelf.next_id(),
                state=JobState.QUEUED,
                asked_ns=self._clock.wall_ns(),
                by=by,
                why=why,
                line=line,
            )
            folder = self.shelf.root / job.id
            folder.mkdir(parents=True)
            write_atomically(folder / ORDER, _pretty(request))
            if order is not None:
                job = await asyncio.to_thread(self._take, job, order)
            self._keep(job)
            self._go_on()
        return self.shelf.get(job.id)

    async def recover(self) -> None:
        """Go on with what an earlier process left unfinished."""
        for job in self.shelf.open():
            logger.info("%s goes on: the process ended meanwhile", job.id)
            self._keep(replace(job, state=JobState.QUEUED))
        self._go_on()

    async def cancel(self, name: str) -> Job:
        """Stop a job for good.

        Raises:
            OperatorError: NOT_FOUND; LOCKED: its candidate is being published.
        """
        job = self.shelf.get(name)
        if job.stage == _SHIPPING and job.state is JobState.RUNNING:
            raise OperatorError(
                f"{name} is being published",
                reason=Reason.LOCKED,
                hint="Recall the release: `embridge release recall`.",
            )
        if job.state in OPEN:
            running = job.state is JobState.RUNNING
            self._change(name, state=JobState.CANCELLED, ended_ns=self._clock.wall_ns(), eta_s=None)
            if running and self._child is not None:
                await self._child.stop()
        return self.shelf.get(name)

    async def resume(self, name: str) -> Job:
        """Go on with a job that failed or was cancelled, from its latest checkpoint and on the same data.

        Raises:
            OperatorError: NOT_FOUND; INVALID: it has done all it was to do; LOCKED: another one runs and one waits.
        """
        async with self._gate:
            job = self.shelf.get(name)
            if job.state not in (JobState.FAILED, JobState.CANCELLED):
                raise OperatorError(f"{name} is {job.state}", hint="Only what failed or was cancelled is resumed.")
            if len(self.shelf.open()) >= 2:
                raise OperatorError("one job runs and one waits", reason=Reason.LOCKED, hint="Wait for them.")
            self._change(name, state=JobState.QUEUED, ended_ns=0, attempts=0, error="")
            self._go_on()
        return self.shelf.get(name)

    async def publish(self, name: str, *, reason: str, by: str) -> Job:
        """Publish a candidate that the gates refused.

        Raises:
            OperatorError: NOT_FOUND; INVALID: no reason is given, or nothing was refused; as `Office.publish`.
            ModelError: As `Office.publish`.
        """
        if not reason.strip():
            raise OperatorError("no reason to overrule the gates", hint="Say why: it is kept with the release.")
        async with self._gate:
            job = self.shelf.get(name)
            if job.state is not JobState.REFUSED:
                raise OperatorError(f"{name} is {job.state}, not refused", hint="There is nothing to overrule.")
            folder = self.shelf.folder(name)
            report = await asyncio.to_thread(read_report, folder)
            if report is None:
                raise DataError(f"{folder / GATE} is missing", reason=Reason.NOT_FOUND)
            forced = replace(report, forced_by=by or "somebody", forced_why=reason.strip())
            champion = await asyncio.to_thread(self.office.champion, job.line, self.shelf.root)
            await self._ship(name, champion, forced)
        return self.shelf.get(name)

    async def close(self) -> None:
        """Stop what runs; the next process goes on with it."""
        self._closing = True
        if self._child is not None:
            await self._child.stop()
        if self._task is not None:
            await asyncio.wait([self._task])

    def _go_on(self) -> None:
        """See to it that somebody works, where there is work."""
        if self._closing or (self._task is not None and not self._task.done()):
            return
        if self.shelf.open():
            self._task = asyncio.create_task(self._work(), name="jobs")

    async def _work(self) -> None:
        while not self._closing and (waiting := self.shelf.open()):
            await self._run(waiting[0].id)

    async def _run(self, name: str) -> None:
        try:
            await self._begin(name)
            await self._finish(name)
        except _EndedError:
            return
        except EmbridgeError as error:
            self._fail(name, error)
        except Exception as error:
            logger.exception("%s failed", name)
            self._fail(name, error)

    def _fail(self, name: str, error: Exception) -> None:
        if self.shelf.get(name).state in OPEN:
            logger.error("job %s failed: %s", name, error)
            self._change(name, state=JobState.FAILED, error=str(error), ended_ns=self._clock.wall_ns(), eta_s=None)

    async def _begin(self, name: str) -> None:
        """Freeze the data of a job that waited."""
        if (self.shelf.folder(name) / CONFIG).is_file():
            return
        order = await asyncio.to_thread(lambda: self.office.order(self.shelf.order(name), self.shelf))
        self._stay(name)
        self._keep(await asyncio.to_thread(self._take, self.shelf.get(name), order))

    def _take(self, job: Job, order: Order) -> Job:
        """Write down what a job makes and of what; it is what the child reads, today and after every kill."""
        folder, recipe, champion = self.shelf.root / job.id, order.recipe, order.champion
        write_frozen(folder, order.frozen)
        write_atomically(folder / CONFIG, _pretty(recipe))
        trusted = set(() if champion is None else champion.trusted)
        kept = recipe.continues
        return replace(
            job,
            line=recipe.line,
            version=recipe.version,
            champion="" if champion is None else champion.published.name,
            generation=recipe.generation,
            warm=kept is not None and kept.head in DEEP,
            snapshot=order.frozen.digest,
            sessions=len(order.frozen.sessions),
            new_sessions=sum(s.session not in trusted for s in order.frozen.sessions),
            left_out=dict(order.frozen.left_out),
        )

    async def _finish(self, name: str) -> None:
        """Train, judge, publish; judge again where the champion changed meanwhile."""
        for _ in range(_ROUNDS):
            champion = await asyncio.to_thread(self._champion, name)
            await self._attempts(name, champion)
            report = await asyncio.to_thread(read_report, self.shelf.folder(name))
            now = await asyncio.to_thread(self._champion, name)
            if _digest(now) == _digest(champion):
                break
            logger.warning("%s is judged again: the release in force changed", name)
            (self.shelf.folder(name) / GATE).unlink(missing_ok=True)
        else:
            raise OperatorError("the release in force changes faster than a candidate is judged")
        self._stay(name)
        if report is None:
            raise DataError(f"{name} was not judged", reason=Reason.NOT_FOUND)
        summary = self.shelf.summary(name)
        found: dict[str, Any] = {"accepted": report.accepted, "left_out": dict(summary.left_out)}
        found |= {"sessions": len(summary.sessions), "snapshot": summary.snapshot, "warm": bool(summary.warm)}
        self._change(name, **found)
        if report.accepted:
            await self._ship(name, champion, report)
            return
        now_ns = self._clock.wall_ns()
        self._change(name, state=JobState.REFUSED, error=report.reason, ended_ns=now_ns, eta_s=None)

    def _champion(self, name: str) -> Champion | None:
        return self.office.champion(self.shelf.get(name).line, self.shelf.root)

    async def _ship(self, name: str, champion: Champion | None, report: GateReport) -> None:
        """Publish; from here on a job cannot be cancelled."""
        before = self.shelf.get(name)
        folder, summary = self.shelf.folder(name), self.shelf.summary(name)
        self._change(name, stage=_SHIPPING, step=0, total=1, eta_s=None)
        try:
            if report.forced_by:
                await asyncio.to_thread(keep_report, folder, report)
            release = await asyncio.to_thread(self.office.publish, folder, summary, champion)
        except BaseException:
            self._change(name, stage=before.stage)
            raise
        done = {"state": JobState.DONE, "release": release.name, "ended_ns": self._clock.wall_ns(), "error": ""}
        self._change(name, **done, step=1, forced_by=report.forced_by)
        try:
            await self._ears.published(self.shelf.get(name), release)
        except EmbridgeError as error:
            logger.error("%s is published, and what was to follow did not: %s", release.name, error)

    async def _attempts(self, name: str, champion: Champion | None) -> None:
        """Run the child until it ends of its own accord, as often as it may be tried."""
        while True:
            self._stay(name)
            folder, job = self.shelf.folder(name), self.shelf.get(name)
            if job.attempts >= self._limits.attempts:
                raise _tried(f"the training process was started {job.attempts} times and never came to an end")
            if (folder / ANEW).exists():
                await asyncio.to_thread(_begin_anew, folder)
            write_atomically(folder / TASK, _pretty(self._told(name, champion)))
            now_ns = self._clock.wall_ns()
            self._change(
                name,
                state=JobState.RUNNING,
                stage="starting",
                attempts=job.attempts + 1,
                started_ns=job.started_ns or now_ns,
            )
            self._pace = _Pace()
            self._child = self._make(
                (str(self.office.catalogue.directory), str(folder)), folder, self._limits, clock=self._clock
            )
            try:
                await self._child.run(lambda line: self._tell(name, line))
                return
            except TakenError:
                logger.warning("%s begins again without the data that was taken away", name)
                self.shelf.reload(name)
                self._change(name, attempts=job.attempts)
            except LostError as error:
                await self._lost(name, error)
            except EmbridgeError:
                self._stay(name)
                raise
            finally:
                self._child = None

    async def _lost(self, name: str, error: LostError) -> None:
        """A child that was killed: by us, or by something that may not happen again."""
        self._stay(name)
        tried = self.shelf.get(name).attempts
        if tried >= self._limits.attempts:
            raise _tried(f"{error.message}, the last of {tried} attempts")
        logger.warning("%s: %s; it is tried again", name, error.message)
        await self._clock.sleep(_AGAIN_S * tried)

    def _stay(self, name: str) -> None:
        """Go no further with a job that was cancelled, or when the process ends."""
        job = self.shelf.get(name)
        if job.state not in OPEN:
            raise _EndedError
        if self._closing:
            tried = max(0, job.attempts - 1) if job.state is JobState.RUNNING else job.attempts
            self._change(name, state=JobState.QUEUED, attempts=tried, eta_s=None)
            raise _EndedError

    def _told(self, name: str, champion: Champion | None) -> Task:
        task = Task(policy=self.office.policy, every=self._limits.every, nice=self._limits.nice)
        if champion is None:
            return task
        recipe = self.shelf.recipe(name)
        same = recipe.parent == champion.published.digest and champion.model is not None
        return replace(
            task,
            champion=str(champion.bundle),
            champion_digest=champion.published.digest,
            model=str(champion.model) if same else "",
            trusted=champion.trusted,
        )

    def _tell(self, name: str, line: ProgressLine) -> None:
        """Note how far a child is; tell of it once a second, and of every new stage."""
        job, now_ns, pace = self.shelf.get(name), self._clock.monotonic_ns(), self._pace
        if job.state is not JobState.RUNNING:
            return
        if line.stage != pace.stage or line.step < job.step:
            self._pace = pace = _Pace(line.stage, now_ns, line.step)
        done, left = line.step - pace.first, line.total - line.step
        eta_s = left * (now_ns - pace.began_ns) * 1e-9 / done if done > 0 else None
        job = replace(job, stage=line.stage, step=line.step, total=line.total, loss=line.loss, eta_s=eta_s)
        self.shelf.show(job)
        if not pace.told_ns or now_ns - pace.told_ns >= _TOLD_EVERY_NS or left <= 0:
            pace.told_ns = now_ns
            self._ears.progressed(job)

    def _change(self, name: str, **changes: Any) -> None:
        self._keep(replace(self.shelf.get(name), **changes))

    def _keep(self, job: Job) -> None:
        self.shelf.write(job)
        self._ears.changed(job)


class _EndedError(Exception):
    """A job is over, or its turn."""


def _digest(champion: Champion | None) -> str:
    return "" if champion is None else champion.published.digest


def _tried(message: str) -> OperatorError:
    hint = "See `embridge job log`, free memory, then `embridge job resume`."
    return OperatorError(message, reason=Reason.CRASHED, hint=hint)


def _begin_anew(folder: Path) -> None:
    """What was made of data that was taken away since goes."""
    for name in (SUMMARY, GATE):
        (folder / name).unlink(missing_ok=True)
    (folder / ANEW).unlink()


def _pretty(value: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value))
