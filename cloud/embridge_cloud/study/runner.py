"""Runs a study: one process a unit, several at a time, one file a finished job.

A killed study goes on where it was: jobs whose file is there, for the same data, configuration and `FIGURES`, are not
done again; a change of code that moves figures raises that number. The same study gives the same figures, whatever the
number of processes.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from queue import Empty
from typing import Any

import msgspec

from embridge_cloud.learn.config import LearnConfig
from embridge_cloud.study.outcome import Job, Outcome, digest_of, path_of, read_outcome, write_outcome
from embridge_cloud.study.protocol import Run
from embridge_cloud.study.source import Source
from embridge_cloud.study.suites import Unit

logger = logging.getLogger(__name__)

FIGURES = 2
"""Raised when figures of the same models change, so that older ones are not mixed in."""

_ELAPSED = "elapsed.json"
_POLL_S = 0.2
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Study:
    """What to run.

    Attributes:
        source: Where windows come from.
        config: Of every deep method.
        units: Runs with their jobs.
        folder: Where outcomes go.
        jobs: Processes at a time; 0 runs in this one.
        drawn: Methods whose pictures are kept, for the first run of each fold.
    """

    source: Source
    config: LearnConfig
    units: tuple[Unit, ...]
    folder: Path
    jobs: int = 2
    drawn: tuple[str, ...] = ("embridge", "cpep")


@dataclass(frozen=True, slots=True)
class Told:
    """Progress of a study.

    Attributes:
        run: Name of the run.
        job: What is done, or was.
        done: The job is finished.
        step: Steps done of the stage under way.
        total: Steps of it.
        error: Why the job failed, or empty.
    """

    run: str
    job: str
    done: bool = False
    step: int = 0
    total: int = 0
    error: str = ""


Tell = Callable[[Told], None]


def ignore(told: Told) -> None:
    """Take no notice."""


def basis_of(study: Study) -> str:
    """Digest of what decides the figures of every job: data, configuration, and how figures are made."""
    return digest_of(FIGURES, study.source.fingerprint(), study.config)


def digest(basis: str, run: Run, job: Job) -> str:
    """Digest of everything that decides a job's figures."""
    return digest_of(basis, run, job)


def pending(study: Study, basis: str) -> tuple[Unit, ...]:
    """Units with the jobs that are not done yet; failed ones are tried again."""
    left = []
    for unit in study.units:
        jobs = tuple(j for j in unit.jobs if not _finished(study, basis, unit.run, j))
        if jobs:
            left.append(Unit(unit.run, jobs))
    return tuple(left)


def _finished(study: Study, basis: str, run: Run, job: Job) -> bool:
    found = read_outcome(path_of(study.folder, run, job))
    return found is not None and not found.error and found.digest == digest(basis, run, job)


def collect(study: Study, basis: str) -> list[Outcome]:
    """Outcomes of the study's jobs, in the order of its units; those of other studies in the folder stay out."""
    found = []
    for unit in study.units:
        for job in unit.jobs:
            outcome = read_outcome(path_of(study.folder, unit.run, job))
            if outcome is not None and outcome.digest == digest(basis, unit.run, job):
                found.append(outcome)
    return found


def run_study(study: Study, *, tell: Tell = ignore) -> list[Outcome]:
    """Do what is left to do.

    Args:
        study: What to run.
        tell: Told of every finished job, and of steps within them.

    Returns:
        Outcomes of all jobs, those of earlier calls among them.
    """
    basis = basis_of(study)
    left = pending(study, basis)
    if study.jobs == 0:
        for unit in left:
            do_unit(study, basis, unit, tell)
    else:
        _in_processes(study, basis, left, tell)
    return collect(study, basis)


def do_unit(study: Study, basis: str, unit: Unit, tell: Tell) -> None:
    """Cut the windows of a unit and do its jobs one after the other."""
    from embridge_cloud.learn.optim import Progress
    from embridge_cloud.study.artefacts import write_artefacts
    from embridge_cloud.study.methods import Shared, method
    from embridge_cloud.study.pictures import artefacts_of
    from embridge_cloud.study.unit import do_job

    name = unit.run.name
    current = ""

    def step(progress: Progress) -> None:
        tell(Told(name, current, step=progress.step, total=progress.total))

    windows = study.source.windows(unit.run.fold.unseen)
    shared = Shared(study.config, progress=step)
    for job in unit.jobs:
        current = job.name
        tell(Told(name, current))
        done = do_job(windows, unit.run, job, method(job.method), shared, digest=digest(basis, unit.run, job))
        write_outcome(study.folder, done.outcome)
        if done.fitted is not None and done.split is not None and _is_drawn(study, unit, job):
            write_artefacts(study.folder, artefacts_of(done.outcome, done.fitted, done.split, shared))
        tell(Told(name, current, done=True, error=done.outcome.error))


def _is_drawn(study: Study, unit: Unit, job: Job) -> bool:
    """Pictures are kept of plain jobs in the first run of each fold."""
    first = next(u.run for u in study.units if u.run.fold == unit.run.fold)
    return unit.run == first and job == Job(method=job.method) and job.method in study.drawn


def _in_processes(study: Study, basis: str, units: Sequence[Unit], tell: Tell) -> None:
    """Several units at a time, each in a process of its own; one that dies fails its jobs alone."""
    context = multiprocessing.get_context("spawn")
    queue: Any = context.Queue()
    # the longest first, so that none is left to one process at the end
    waiting = sorted(units, key=lambda u: -len(u.jobs))
    running: list[tuple[SpawnProcess, Unit]] = []
    try:
        while waiting or running:
            while waiting and len(running) < study.jobs:
                unit = waiting.pop(0)
                running.append((_started(context, (study, basis, unit, queue)), unit))
            for told in _drained(queue):
                tell(told)
            for process, unit in [r for r in running if not r[0].is_alive()]:
                process.join()
                running.remove((process, unit))
                if process.exitcode != 0:
                    _give_up(study, basis, unit, process.exitcode, tell)
        for told in _drained(queue):
            tell(told)
    finally:
        for process, _ in running:
            process.terminate()
        for process, _ in running:
            process.join()


def _started(context: SpawnContext, arguments: tuple[Any, ...]) -> SpawnProcess:
    process = context.Process(target=_child, args=arguments, daemon=True)
    with _one_thread():
        process.start()
    return process


def _drained(queue: Any) -> Iterator[Told]:
    """What was told, waiting a moment for the first of it."""
    wait = _POLL_S
    while True:
        try:
            yield queue.get(timeout=wait)
        except Empty:
            return
        wait = 0.0


@contextmanager
def _one_thread() -> Iterator[None]:
    """Children inherit one thread each: units are what runs in parallel."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _child(study: Study, basis: str, unit: Unit, queue: Any) -> None:
    """A unit in a process of its own, which ends when its parent does."""
    import torch

    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    last = 0.0

    def tell(told: Told) -> None:
        nonlocal last
        if parent is not None and not parent.is_alive():
            raise SystemExit(1)
        now = time.monotonic()
        if told.done or told.step == 0 or now - last > _POLL_S:
            last = now
            queue.put(told)

    do_unit(study, basis, unit, tell)


def _give_up(study: Study, basis: str, unit: Unit, code: int | None, tell: Tell) -> None:
    """Jobs a dead process left undone have failed."""
    error = f"its process ended with code {code}"
    logger.error("%s: %s", unit.run.name, error)
    for job in unit.jobs:
        if not _finished(study, basis, unit.run, job):
            mine = digest(basis, unit.run, job)
            known = read_outcome(path_of(study.folder, unit.run, job))
            if known is None or known.digest != mine or not known.error:
                write_outcome(study.folder, Outcome(job=job, run=unit.run, digest=mine, error=error))
            tell(Told(unit.run.name, job.name, done=True, error=error))


def add_elapsed(folder: Path, seconds: float) -> float:
    """Add to the time a study took, which outlives a kill; the sum, s."""
    path = folder / _ELAPSED
    try:
        before = msgspec.json.decode(path.read_bytes(), type=float)
    except (FileNotFoundError, msgspec.DecodeError):
        before = 0.0
    folder.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part")
    scratch.write_bytes(msgspec.json.encode(before + seconds))
    scratch.replace(path)
    return before + seconds
