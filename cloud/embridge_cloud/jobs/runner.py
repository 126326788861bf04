"""Jobs: training in a child process, one at a time, resumed after every kind of death, and never published unjudged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

import msgspec

from embridge_cloud.continual import Champion
from embridge_cloud.frozen import write_frozen
from embridge_cloud.gates.files import GATE, keep_report, read_report
from embridge_cloud.jobs.attempts import Attempts, Book, EndedError, pretty
from embridge_cloud.jobs.child import Child
from embridge_cloud.jobs.model import (
    CONFIG,
    OPEN,
    ORDER,
    Job,
    JobRequest,
    JobState,
    Limits,
)
from embridge_cloud.jobs.office import Ears, Office, Order
from embridge_cloud.jobs.shelf import Shelf
from embridge_cloud.learn.config import DEEP
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
        self._book = Book(shelf, ears)
        self._attempts = Attempts(self._book, office, clock, limits=limits, child=child)
        self._task: asyncio.Task[None] | None = None
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
            write_atomically(folder / ORDER, pretty(request))
            if order is not None:
                job = await asyncio.to_thread(self._take, job, order)
            self._book.keep(job)
            self._go_on()
        return self.shelf.get(job.id)

    async def recover(self) -> None:
        """Go on with what an earlier process left unfinished."""
        for job in self.shelf.open():
            logger.info("%s goes on: the process ended meanwhile", job.id)
            self._book.keep(replace(job, state=JobState.QUEUED))
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
            self._book.change(name, state=JobState.CANCELLED, ended_ns=self._clock.wall_ns(), eta_s=None)
            if running:
                await self._attempts.stop()
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
            self._book.change(name, state=JobState.QUEUED, ended_ns=0, attempts=0, error="")
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
        self._attempts.closing = True
        await self._attempts.stop()
        if self._task is not None:
            await asyncio.wait([self._task])

    def _go_on(self) -> None:
        """See to it that somebody works, where there is work."""
        if self._attempts.closing or (self._task is not None and not self._task.done()):
            return
        if self.shelf.open():
            self._task = asyncio.create_task(self._work(), name="jobs")

    async def _work(self) -> None:
        while not self._attempts.closing and (waiting := self.shelf.open()):
            await self._run(waiting[0].id)

    async def _run(self, name: str) -> None:
        try:
            await self._begin(name)
            await self._finish(name)
        except EndedError:
            return
        except EmbridgeError as error:
            self._fail(name, error)
        except Exception as error:
            logger.exception("%s failed", name)
            self._fail(name, error)

    def _fail(self, name: str, error: Exception) -> None:
        if self.shelf.get(name).state in OPEN:
            logger.error("job %s failed: %s", name, error)
            self._book.change(name, state=JobState.FAILED, error=str(error), ended_ns=self._clock.wall_ns(), eta_s=None)

    async def _begin(self, name: str) -> None:
        """Freeze the data of a job that waited."""
        if (self.shelf.folder(name) / CONFIG).is_file():
            return
        order = await asyncio.to_thread(lambda: self.office.order(self.shelf.order(name), self.shelf))
        self._attempts.stay(name)
        self._book.keep(await asyncio.to_thread(self._take, self.shelf.get(name), order))

    def _take(self, job: Job, order: Order) -> Job:
        """Write down what a job makes and of what; it is what the child reads, today and after every kill."""
        folder, recipe, champion = self.shelf.root / job.id, order.recipe, order.champion
        write_frozen(folder, order.frozen)
        write_atomically(folder / CONFIG, pretty(recipe))
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
            await self._attempts.run(name, champion)
            report = await asyncio.to_thread(read_report, self.shelf.folder(name))
            now = await asyncio.to_thread(self._champion, name)
            if _digest(now) == _digest(champion):
                break
            logger.warning("%s is judged again: the release in force changed", name)
            (self.shelf.folder(name) / GATE).unlink(missing_ok=True)
        else:
            raise OperatorError("the release in force changes faster than a candidate is judged")
        self._attempts.stay(name)
        if report is None:
            raise DataError(f"{name} was not judged", reason=Reason.NOT_FOUND)
        summary = self.shelf.summary(name)
        found: dict[str, Any] = {"accepted": report.accepted, "left_out": dict(summary.left_out)}
        found |= {"sessions": len(summary.sessions), "snapshot": summary.snapshot, "warm": bool(summary.warm)}
        self._book.change(name, **found)
        if report.accepted:
            await self._ship(name, champion, report)
            return
        now_ns = self._clock.wall_ns()
        self._book.change(name, state=JobState.REFUSED, error=report.reason, ended_ns=now_ns, eta_s=None)

    def _champion(self, name: str) -> Champion | None:
        return self.office.champion(self.shelf.get(name).line, self.shelf.root)

    async def _ship(self, name: str, champion: Champion | None, report: GateReport) -> None:
        """Publish; from here on a job cannot be cancelled."""
        before = self.shelf.get(name)
        folder, summary = self.shelf.folder(name), self.shelf.summary(name)
        self._book.change(name, stage=_SHIPPING, step=0, total=1, eta_s=None)
        try:
            if report.forced_by:
                await asyncio.to_thread(keep_report, folder, report)
            release = await asyncio.to_thread(self.office.publish, folder, summary, champion)
        except BaseException:
            self._book.change(name, stage=before.stage)
            raise
        done = {"state": JobState.DONE, "release": release.name, "ended_ns": self._clock.wall_ns(), "error": ""}
        self._book.change(name, **done, step=1, forced_by=report.forced_by)
        try:
            await self._book.ears.published(self.shelf.get(name), release)
        except EmbridgeError as error:
            logger.error("%s is published, and what was to follow did not: %s", release.name, error)


def _digest(champion: Champion | None) -> str:
    return "" if champion is None else champion.published.digest
