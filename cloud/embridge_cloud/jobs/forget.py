"""An erasure in the folders of jobs: what speaks of somebody goes, what a line needs to go on stays."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

import msgspec

from embridge_cloud.frozen import SNAPSHOT, Frozen, read_frozen, write_frozen
from embridge_cloud.jobs.model import ANEW, CONFIG, JOB, OPEN, ORDER, Job, JobRequest
from embridge_cloud.recipe import Recipe
from embridge_shared.archive import write_atomically
from embridge_shared.errors import DataError

logger = logging.getLogger(__name__)

_WHY: Final = "erased"


def forget(folder: Path, participant: str, sessions: Collection[str]) -> bool:
    """Clear a job's folder of somebody.

    The job, its recipe and its order stay, without them; so does the snapshot of one that is not over, which begins
    again on what is left. Model, candidate, checkpoints, decisions and words go: they were made of the erased.

    Args:
        folder: Of one job.
        participant: Who is erased.
        sessions: Ids of their sessions.

    Returns:
        False where the folder is no job that can be read: whoever erases removes it whole.
    """
    try:
        job = msgspec.json.decode((folder / JOB).read_bytes(), type=Job)
        recipe = _optional(folder / CONFIG, Recipe)
        order = _optional(folder / ORDER, JobRequest)
        frozen = read_frozen(folder) if (folder / SNAPSHOT).is_file() else None
    except (OSError, msgspec.DecodeError, DataError) as error:
        logger.warning("%s is removed whole: %s", folder.name, type(error).__name__)
        return False
    if job.state in OPEN:
        # before anything goes: a child that is at work must not come to an end with what it holds
        (folder / ANEW).touch()
    kept = {JOB, CONFIG, ORDER, ANEW} | ({SNAPSHOT} if job.state in OPEN else set())
    for path in folder.iterdir():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    gone = set(sessions)
    if frozen is not None and job.state in OPEN:
        write_frozen(folder, _without(frozen, participant, gone))
    if recipe is not None:
        _write(folder / CONFIG, _unnamed(recipe, participant, gone))
    if order is not None:
        _write(folder / ORDER, _unasked(order, participant, gone))
    left_out = {session: why for session, why in job.left_out.items() if session not in gone}
    _write(folder / JOB, msgspec.structs.replace(job, left_out=left_out, error=_said(job, participant, gone)))
    return True


def _without(frozen: Frozen, participant: str, gone: Collection[str]) -> Frozen:
    sessions = tuple(s for s in frozen.sessions if s.participant != participant and s.session not in gone)
    left_out = {session: why for session, why in frozen.left_out.items() if session not in gone}
    return msgspec.structs.replace(frozen, sessions=sessions, left_out=left_out)


def _unnamed(recipe: Recipe, participant: str, gone: Collection[str]) -> Recipe:
    return msgspec.structs.replace(
        recipe,
        held_out=tuple(p for p in recipe.held_out if p != participant),
        validation=tuple(p for p in recipe.validation if p != participant),
        excluded=tuple(s for s in recipe.excluded if s not in gone),
    )


def _unasked(order: JobRequest, participant: str, gone: Collection[str]) -> JobRequest:
    recipe = None if order.recipe is None else _unnamed(order.recipe, participant, gone)
    include = tuple(s for s in order.include if s not in gone)
    why = "" if participant in order.why else order.why
    return msgspec.structs.replace(order, recipe=recipe, include=include, why=why)


def _said(job: Job, participant: str, gone: Collection[str]) -> str:
    """Why it failed or was refused; not where that names somebody who is erased."""
    return _WHY if any(name in job.error for name in (participant, *gone)) else job.error


def _optional(path: Path, kind: type[msgspec.Struct]) -> Any:
    return msgspec.json.decode(path.read_bytes(), type=kind) if path.is_file() else None


def _write(path: Path, value: msgspec.Struct) -> None:
    write_atomically(path, msgspec.json.encode(value))
