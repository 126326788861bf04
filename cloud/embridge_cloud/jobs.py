"""Jobs: training in a child process, one at a time, with progress that can be watched and a run that can be stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path

import msgspec

from embridge_cloud.recipe import SUMMARY, Recipe, Summary
from embridge_shared.archive import write_atomically
from embridge_shared.clock import Clock
from embridge_shared.errors import DataError, OperatorError, Reason

logger = logging.getLogger(__name__)

_LAST_WORDS = 20  # lines of stderr kept
_LINE_LIMIT = 1 << 20
_TERM_S = 5.0


class JobState(StrEnum):
    """Where a job stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One run.

    Attributes:
        id: As in "realign-3".
        state: Where it stands.
        stage: What it is doing.
        step: Steps done of this stage.
        total: Steps of this stage.
        loss: Latest loss.
        started_ns: Unix time, ns.
        ended_ns: Unix time, ns; 0 while it runs.
        error: Why it failed.
        release: The release it made.
    """

    id: str
    state: JobState
    stage: str = ""
    step: int = 0
    total: int = 0
    loss: float = 0.0
    started_ns: int = 0
    ended_ns: int = 0
    error: str = ""
    release: str = ""


class ProgressLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a training child's standard output."""

    stage: str
    step: int
    total: int
    loss: float = 0.0


class Jobs:
    """Runs realignments.

    Args:
        folder: One folder a job: configuration, what it made, how it went.
        store: Folder of sealed sessions.
        clock: Dates jobs.
        on_done: Called with the folder and summary of each job that succeeded.
        on_change: Told of a job that starts or ends.
    """

    def __init__(
        self,
        folder: Path,
        store: Path,
        clock: Clock,
        on_done: Callable[[Path, Summary], Awaitable[None]],
        *,
        on_change: Callable[[Job], None] | None = None,
    ) -> None:
        self._folder = folder
        self._store = store
        self._clock = clock
        self._on_done = on_done
        self._on_change = on_change
        self._jobs: dict[str, Job] = {}
        self._task: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._load()

    def _load(self) -> None:
        for path in sorted(self._folder.glob("*/job.json")):
            try:
                job = msgspec.json.decode(path.read_bytes(), type=Job)
            except msgspec.DecodeError:
                logger.warning("%s is damaged and left out", path)
                continue
            if job.state is JobState.RUNNING:
                job = msgspec.structs.replace(job, state=JobState.FAILED, error="the cloud process ended meanwhile")
            self._jobs[job.id] = job

    def list(self) -> list[Job]:
        """All jobs, the oldest first."""
        return sorted(self._jobs.values(), key=lambda j: j.started_ns)

    def get(self, name: str) -> Job:
        """One job.

        Raises:
            OperatorError: There is none of that name.
        """
        if name not in self._jobs:
            raise OperatorError(f"there is no job {name!r}", reason=Reason.NOT_FOUND)
        return self._jobs[name]

    def summary(self, name: str) -> Summary:
        """What a finished job made.

        Raises:
            OperatorError: It has made nothing.
        """
        path = self._folder / self.get(name).id / SUMMARY
        if not path.is_file():
            raise OperatorError(f"job {name} has made nothing yet", reason=Reason.NOT_FOUND)
        return msgspec.json.decode(path.read_bytes(), type=Summary)

    def start(self, config: Recipe) -> Job:
        """Start a realignment.

        Raises:
            OperatorError: BUSY: one is running.
        """
        if self._task is not None and not self._task.done():
            raise OperatorError("a realignment is running", reason=Reason.LOCKED, hint="Wait for it, or cancel it.")
        job = Job(id=self._next_id(), state=JobState.RUNNING, stage="starting", started_ns=self._clock.wall_ns())
        folder = self._folder / job.id
        folder.mkdir(parents=True)
        write_atomically(folder / "config.json", msgspec.json.format(msgspec.json.encode(config)))
        self._keep(job)
        self._task = asyncio.create_task(self._run(job.id, folder), name=job.id)
        return job

    async def cancel(self, name: str) -> Job:
        """Stop a running job."""
        job = self.get(name)
        if job.state is JobState.RUNNING:
            self._change(name, state=JobState.CANCELLED, ended_ns=self._clock.wall_ns())
            await self._stop_child()
        return self.get(name)

    async def close(self) -> None:
        """Stop what runs; the job is marked as cancelled."""
        for job in self.list():
            await self.cancel(job.id)
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _stop_child(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_TERM_S):
                await process.wait()
        except TimeoutError:
            process.kill()

    async def _run(self, name: str, folder: Path) -> None:
        try:
            await self._train(name, folder)
            summary = self.summary(name)
            await self._on_done(folder, summary)
            self._change(name, state=JobState.DONE, release=summary.release, ended_ns=self._clock.wall_ns())
        except Exception as error:
            if self.get(name).state is JobState.CANCELLED:
                return
            logger.error("job %s failed: %s", name, error)
            self._change(name, state=JobState.FAILED, error=str(error), ended_ns=self._clock.wall_ns())

    async def _train(self, name: str, folder: Path) -> None:
        """Run the child to its end and follow its progress."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "embridge_cloud.realign_child",
            str(self._store),
            str(folder),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LINE_LIMIT,
        )
        words = asyncio.create_task(_last_words(self._process.stderr))
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            p = msgspec.json.decode(line, type=ProgressLine)
            if self.get(name).state is JobState.RUNNING:
                self._jobs[name] = msgspec.structs.replace(
                    self._jobs[name], stage=p.stage, step=p.step, total=p.total, loss=p.loss
                )
        code = await self._process.wait()
        said = await words
        if code != 0:
            raise DataError(said or f"the training process ended with {code}")

    def _next_id(self) -> str:
        taken = [int(j.rpartition("-")[2]) for j in self._jobs]
        return f"realign-{max(taken, default=0) + 1}"

    def _change(self, name: str, **changes: object) -> None:
        self._keep(msgspec.structs.replace(self._jobs[name], **changes))

    def _keep(self, job: Job) -> None:
        self._jobs[job.id] = job
        write_atomically(self._folder / job.id / "job.json", msgspec.json.encode(job))
        if self._on_change is not None:
            self._on_change(job)


async def _last_words(stream: asyncio.StreamReader | None) -> str:
    """The error line a child ended with, or its last lines."""
    assert stream is not None
    lines: deque[str] = deque(maxlen=_LAST_WORDS)
    async for line in stream:
        lines.append(line.decode(errors="replace").rstrip())
    errors = [line.partition("error: ")[2] for line in lines if line.startswith("embridge: error: ")]
    return errors[-1] if errors else "\n".join(lines)
