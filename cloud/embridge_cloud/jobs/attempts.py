"""The attempts of a job: its child is started, followed, and started again when it was killed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from embridge_cloud.continual import Champion
from embridge_cloud.gates.files import GATE
from embridge_cloud.jobs.child import Child, LostError, TakenError
from embridge_cloud.jobs.model import ANEW, OPEN, TASK, Job, JobState, Limits, ProgressLine, Task
from embridge_cloud.jobs.office import Ears, Office
from embridge_cloud.jobs.shelf import Shelf
from embridge_cloud.recipe import SUMMARY
from embridge_shared.archive import write_atomically
from embridge_shared.clock import Clock
from embridge_shared.errors import EmbridgeError, OperatorError, Reason

logger = logging.getLogger(__name__)

_TOLD_EVERY_NS: Final = 1_000_000_000
_AGAIN_S: Final = 1.0

replace = msgspec.structs.replace


class EndedError(Exception):
    """A job is over, or its turn."""


class Book:
    """Jobs, and whoever hears of their changes.

    Args:
        shelf: Where they are kept.
        ears: Who hears.
    """

    def __init__(self, shelf: Shelf, ears: Ears) -> None:
        self.shelf = shelf
        self.ears = ears

    def change(self, name: str, **changes: Any) -> None:
        """Change fields of a job."""
        self.keep(replace(self.shelf.get(name), **changes))

    def keep(self, job: Job) -> None:
        """Put a job on disk, and tell of it."""
        self.shelf.write(job)
        self.ears.changed(job)


@dataclass(slots=True)
class _Pace:
    """Since when a stage runs, and when it was last told of."""

    stage: str = ""
    began_ns: int = 0
    first: int = 0
    told_ns: int = 0


class Attempts:
    """Runs the child of one job at a time.

    Args:
        book: The jobs.
        office: Champions and the policy of the gates.
        clock: Time.
        limits: What a child may take.
        child: Makes the child of an attempt.
    """

    def __init__(
        self, book: Book, office: Office, clock: Clock, *, limits: Limits, child: Callable[..., Child]
    ) -> None:
        self._book = book
        self._shelf = book.shelf
        self._office = office
        self._clock = clock
        self._limits = limits
        self._make = child
        self._child: Child | None = None
        self._pace = _Pace()
        self.closing = False

    async def stop(self) -> None:
        """End the child at work, if any."""
        if self._child is not None:
            await self._child.stop()

    async def run(self, name: str, champion: Champion | None) -> None:
        """Run the child until it ends of its own accord, as often as it may be tried.

        Raises:
            EndedError: The job was cancelled, or the process ends.
            OperatorError: CRASHED, TOO_LARGE, TIMEOUT: it met a limit.
            DataError: It failed; its last words.
        """
        while True:
            self.stay(name)
            folder, job = self._shelf.folder(name), self._shelf.get(name)
            if job.attempts >= self._limits.attempts:
                raise _tried(f"the training process was started {job.attempts} times and never came to an end")
            if (folder / ANEW).exists():
                await asyncio.to_thread(_begin_anew, folder)
            write_atomically(folder / TASK, pretty(self._told(name, champion)))
            now_ns = self._clock.wall_ns()
            self._book.change(
                name,
                state=JobState.RUNNING,
                stage="starting",
                attempts=job.attempts + 1,
                started_ns=job.started_ns or now_ns,
            )
            self._pace = _Pace()
            self._child = self._make(
                (str(self._office.catalogue.directory), str(folder)), folder, self._limits, clock=self._clock
            )
            try:
                await self._child.run(lambda line: self._tell(name, line))
                return
            except TakenError:
                logger.warning("%s begins again without the data that was taken away", name)
                self._shelf.reload(name)
                self._book.change(name, attempts=job.attempts)
            except LostError as error:
                await self._lost(name, error)
            except EmbridgeError:
                self.stay(name)
                raise
            finally:
                self._child = None

    async def _lost(self, name: str, error: LostError) -> None:
        """A child that was killed: by us, or by something that may not happen again."""
        self.stay(name)
        tried = self._shelf.get(name).attempts
        if tried >= self._limits.attempts:
            raise _tried(f"{error.message}, the last of {tried} attempts")
        logger.warning("%s: %s; it is tried again", name, error.message)
        await self._clock.sleep(_AGAIN_S * tried)

    def stay(self, name: str) -> None:
        """Go no further with a job that was cancelled, or when the process ends.

        Raises:
            EndedError: It was, or it does.
        """
        job = self._shelf.get(name)
        if job.state not in OPEN:
            raise EndedError
        if self.closing:
            tried = max(0, job.attempts - 1) if job.state is JobState.RUNNING else job.attempts
            self._book.change(name, state=JobState.QUEUED, attempts=tried, eta_s=None)
            raise EndedError

    def _told(self, name: str, champion: Champion | None) -> Task:
        task = Task(policy=self._office.policy, every=self._limits.every, nice=self._limits.nice)
        if champion is None:
            return task
        # the release it continues may have been recalled meanwhile: it is gone on from all the same
        model = self._office.model(self._shelf.recipe(name).parent, self._shelf.root)
        return replace(
            task,
            champion=str(champion.bundle),
            champion_digest=champion.published.digest,
            model="" if model is None else str(model),
            trusted=champion.trusted,
        )

    def _tell(self, name: str, line: ProgressLine) -> None:
        """Note how far a child is; tell of it once a second, and of every new stage."""
        job, now_ns, pace = self._shelf.get(name), self._clock.monotonic_ns(), self._pace
        if job.state is not JobState.RUNNING:
            return
        if line.stage != pace.stage or line.step < job.step:
            self._pace = pace = _Pace(line.stage, now_ns, line.step)
        done, left = line.step - pace.first, line.total - line.step
        eta_s = left * (now_ns - pace.began_ns) * 1e-9 / done if done > 0 else None
        job = replace(job, stage=line.stage, step=line.step, total=line.total, loss=line.loss, eta_s=eta_s)
        self._shelf.show(job)
        if not pace.told_ns or now_ns - pace.told_ns >= _TOLD_EVERY_NS or left <= 0:
            pace.told_ns = now_ns
            self._book.ears.progressed(job)


def _tried(message: str) -> OperatorError:
    hint = "See `embridge job log`, free memory, then `embridge job resume`."
    return OperatorError(message, reason=Reason.CRASHED, hint=hint)


def _begin_anew(folder: Path) -> None:
    """What was made of data that was taken away since goes."""
    for name in (SUMMARY, GATE):
        (folder / name).unlink(missing_ok=True)
    (folder / ANEW).unlink()


def pretty(value: msgspec.Struct) -> bytes:
    """JSON for people and programs."""
    return msgspec.json.format(msgspec.json.encode(value))
