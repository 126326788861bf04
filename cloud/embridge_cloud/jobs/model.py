"""What a job is, what it is asked with, and what its child is told."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from embridge_cloud.gates.policy import GatePolicy
from embridge_cloud.recipe import Recipe

CONFIG: Final = "config.json"
JOB: Final = "job.json"
ORDER: Final = "order.json"
TASK: Final = "task.json"
LOG: Final = "log.txt"
ANEW: Final = "begin-again"
"""Lies in a job's folder when data was taken from it: whatever its child does now must not count."""


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    """It waits for the one before it, or for the cloud process to start again."""
    RUNNING = "running"
    DONE = "done"
    """Its candidate was published."""
    REFUSED = "refused"
    """Its candidate was made and the gates did not take it."""
    FAILED = "failed"
    CANCELLED = "cancelled"


OPEN: Final = (JobState.QUEUED, JobState.RUNNING)


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One run.

    Attributes:
        id: As in "realign-3".
        kind: What is done: "realign".
        state: Where it stands.
        stage: What it is doing.
        step: Steps done of this stage.
        total: Steps of this stage.
        loss: Latest loss.
        eta_s: Until the end of this stage, s; None while nobody can tell.
        asked_ns: Unix time it was asked for, ns.
        started_ns: Unix time, ns; 0 while it waits.
        ended_ns: Unix time, ns; 0 while it runs.
        attempts: How often its child was started.
        by: Who asked for it.
        why: What for.
        line: Line of releases.
        version: Of the candidate; 0 before it is known.
        champion: The release it continues, or is held against; empty for the first.
        generation: Of the pose space.
        warm: It goes on from the champion's weights.
        snapshot: Hash of its data.
        sessions: How many sessions it learns from.
        new_sessions: Of these, not in the champion.
        left_out: Why sessions were left out, by id.
        accepted: What the gates said; None before.
        error: Why it failed, or was refused.
        forced_by: Who published it all the same.
        release: The release it made, once it is published.
    """

    id: str
    kind: str = "realign"
    state: JobState
    stage: str = ""
    step: int = 0
    total: int = 0
    loss: float = 0.0
    eta_s: float | None = None
    asked_ns: int = 0
    started_ns: int = 0
    ended_ns: int = 0
    attempts: int = 0
    by: str = ""
    why: str = ""
    line: str = ""
    version: int = 0
    champion: str = ""
    generation: int = 1
    warm: bool = False
    snapshot: str = ""
    sessions: int = 0
    new_sessions: int = 0
    left_out: dict[str, str] = {}
    accepted: bool | None = None
    error: str = ""
    forced_by: str = ""
    release: str = ""

    @property
    def candidate(self) -> str:
        """Name of what it makes; empty before it is known."""
        return f"{self.line}-{self.version}" if self.version else ""


class JobRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A wish for a realignment.

    Attributes:
        recipe: What to make; None continues the champion of `line`.
        line: Line of releases to continue.
        major: Begin anew, in a pose space of its own.
        include: Suspicious sessions of refused jobs to use all the same; "*" is all of them.
        replay: Windows of old sessions; None takes the cloud's setting.
        distil: Weight of staying near the champion's embeddings; None takes the cloud's setting.
        why: What for.
    """

    recipe: Recipe | None = None
    line: str = "embridge"
    major: bool = False
    include: tuple[str, ...] = ()
    replay: int | None = None
    distil: float | None = None
    why: str = ""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What a child is told beside the recipe.

    Attributes:
        champion: Bundle it is held against; empty for the first of a line.
        champion_digest: Of that bundle.
        model: Folder with the champion's model; empty where it is not here.
        trusted: Sessions the champion was made of.
        policy: Of the gates.
        every: Steps between two checkpoints.
        nice: How far it stands back behind everything else.
    """

    champion: str = ""
    champion_digest: str = ""
    model: str = ""
    trusted: tuple[str, ...] = ()
    policy: GatePolicy = GatePolicy()
    every: int = 50
    nice: int = 5


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a job may take.

    Attributes:
        nice: How far it stands back behind everything else, 0 to 19.
        memory_bytes: Resident memory at most; 0 for no limit.
        threads: CPU threads at most; 0 leaves that to the environment.
        wall_s: An attempt may take so long, s.
        attempts: How often its child is started when it ends without a word.
        every: Steps between two checkpoints.
    """

    nice: int = 5
    memory_bytes: int = 0
    threads: int = 0
    wall_s: float = 86_400.0
    attempts: int = 3
    every: int = 50


class ProgressLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a training child's standard output."""

    stage: str
    step: int
    total: int
    loss: float = 0.0
