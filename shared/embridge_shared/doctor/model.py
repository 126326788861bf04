"""What a check is, what it finds, and what it may look at."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from embridge_shared.clock import Clock
from embridge_shared.disk import FreeSpace, free_bytes
from embridge_shared.settings import Settings


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"

    @property
    def rank(self) -> int:
        """0 is good."""
        return list(Level).index(self)


class Part(StrEnum):
    """What of the product a check is about."""

    MACHINE = "machine"
    EDGE = "edge"
    CLOUD = "cloud"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found.

    Attributes:
        level: How bad it is.
        said: What is the case, in one sentence.
        step: What to do next; empty where nothing is.
    """

    level: Level
    said: str
    step: str = ""

    @classmethod
    def ok(cls, said: str) -> Finding:
        """Nothing is wrong."""
        return cls(Level.OK, said)

    @classmethod
    def warn(cls, said: str, step: str) -> Finding:
        """It works, but not for ever or not as it should."""
        return cls(Level.WARN, said, step)

    @classmethod
    def fail(cls, said: str, step: str) -> Finding:
        """It does not work."""
        return cls(Level.FAIL, said, step)


def run_tool(*command: str, timeout_s: float = 3.0) -> str | None:
    """What a program of the system prints; None where it is not installed, fails or takes too long."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


@dataclass(frozen=True, slots=True)
class Situation:
    """What checks look at; everything outside the process comes through here.

    Attributes:
        settings: The settings, or None where they cannot be read.
        fault: Why they cannot.
        parts: What this machine is for.
        clock: Time.
        environ: Environment of the process.
        timeout_s: How long one connection or program may take.
        system: Root of the file tree of the operating system.
        tool: Runs a program of the system.
        free: Tells how much of a disk is free.
    """

    settings: Settings | None
    fault: str
    parts: frozenset[Part]
    clock: Clock
    environ: Mapping[str, str]
    timeout_s: float = 3.0
    system: Path = Path("/")
    tool: Callable[..., str | None] = run_tool
    free: FreeSpace = free_bytes


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at.

    Attributes:
        name: One or two words.
        part: What it is about; it is run where the machine is for that.
        look: Looks; it may raise `EmbridgeError`, which is a failure with its hint as the next step.
        blind: It can do without settings.
    """

    name: str
    part: Part
    look: Callable[[Situation], Iterable[Finding]]
    blind: bool = False
