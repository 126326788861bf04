"""Jobs on disk: one folder each, whose `job.json` is replaced atomically."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from embridge_cloud.jobs.model import CONFIG, JOB, LOG, OPEN, ORDER, Job, JobRequest
from embridge_cloud.recipe import SUMMARY, Recipe, Summary
from embridge_shared.archive import write_atomically
from embridge_shared.errors import DataError, OperatorError, Reason

logger = logging.getLogger(__name__)

_NAME: Final = re.compile(r"realign-([1-9]\d{0,8})")
T = TypeVar("T")


class Shelf:
    """All jobs.

    Args:
        folder: One folder a job.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self._jobs: dict[str, Job] = {}
        for path in sorted(folder.glob(f"*/{JOB}")):
            try:
                job = msgspec.json.decode(path.read_bytes(), type=Job)
            except (OSError, msgspec.DecodeError) as error:
                logger.warning("%s is damaged and left out: %s", path, error)
                continue
            if _NAME.fullmatch(job.id) and job.id == path.parent.name:
                self._jobs[job.id] = job

    def all(self) -> list[Job]:
        """Every job, the oldest first."""
        return [self._jobs[name] for name in sorted(self._jobs, key=number)]

    def open(self) -> list[Job]:
        """Those that are not over, the oldest first."""
        return [j for j in self.all() if j.state in OPEN]

    def get(self, name: str) -> Job:
        """One job.

        Raises:
            OperatorError: NOT_FOUND: there is none of that name.
        """
        if name not in self._jobs:
            raise OperatorError(
                f"there is no job {name!r}", reason=Reason.NOT_FOUND, hint="`embridge job list` shows them."
            )
        return self._jobs[name]

    def folder(self, name: str) -> Path:
        """Its folder; raises as `get`."""
        return self.root / self.get(name).id

    def next_id(self) -> str:
        """The id of the next job; a folder whose job is damaged keeps its own."""
        taken = [*self._jobs, *(path.name for path in self.root.glob("realign-*"))]
        return f"realign-{max(map(number, taken), default=0) + 1}"

    def reload(self, name: str = "") -> None:
        """Read jobs that are over anew, or one whatever its state: an erasure clears what they say."""
        for job in [self.get(name)] if name else [j for j in self.all() if j.state not in OPEN]:
            try:
                self._jobs[job.id] = msgspec.json.decode((self.root / job.id / JOB).read_bytes(), type=Job)
            except FileNotFoundError:
                del self._jobs[job.id]
            except (OSError, msgspec.DecodeError) as error:
                logger.warning("%s cannot be read anew: %s", job.id, error)

    def show(self, job: Job) -> None:
        """Keep a job in memory alone: progress is not worth the disk."""
        self._jobs[job.id] = job

    def write(self, job: Job) -> None:
        """Put a job on disk; atomic."""
        self.show(job)
        write_atomically(self.root / job.id / JOB, msgspec.json.encode(job))

    def recipe(self, name: str) -> Recipe:
        """What a job makes; raises as `summary`."""
        return self._read(name, CONFIG, Recipe, "has not begun yet")

    def order(self, name: str) -> JobRequest:
        """What a job was asked with; raises as `summary`."""
        return self._read(name, ORDER, JobRequest, "was asked for by an older version")

    def summary(self, name: str) -> Summary:
        """What a finished job made.

        Raises:
            OperatorError: NOT_FOUND: it has made nothing.
            DataError: What it made is damaged.
        """
        return self._read(name, SUMMARY, Summary, "has made nothing yet")

    def log(self, name: str, *, tail_bytes: int = 1 << 18) -> str:
        """The latest words of a job's child; empty before it said any."""
        path = self.folder(name) / LOG
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(max(0, size - tail_bytes))
                data = file.read()
        except FileNotFoundError:
            return ""
        if size > tail_bytes:
            data = data.partition(b"\n")[2]
        return data.decode("utf-8", "replace")

    def _read(self, name: str, file: str, kind: type[T], lacking: str) -> T:
        path = self.folder(name) / file
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except FileNotFoundError:
            raise OperatorError(f"job {name} {lacking}", reason=Reason.NOT_FOUND) from None
        except msgspec.DecodeError as error:
            raise DataError(f"{path} is damaged: {error}", reason=Reason.DAMAGED) from error


def number(name: str) -> int:
    """The number of a job, from 1; 0 for what is no job's id."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else 0
