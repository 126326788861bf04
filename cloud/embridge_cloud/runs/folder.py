"""The folder of a run: what it was told, how far it is, how it went, what it made and on which machine."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from embridge_cloud.runs.spec import RunSpec, parse_spec, to_toml
from embridge_shared.archive import write_atomically
from embridge_shared.errors import ConfigError, OperatorError, Reason

CONFIG = "config.toml"
METRICS = "metrics.jsonl"
ENVIRONMENT = "environment.json"
RESULT = "result.json"
CHECKPOINTS = "checkpoints"
_PACKAGES = ("embridge", "torch", "numpy", "scipy", "safetensors", "msgspec")


class RunFolder:
    """One run.

    Args:
        path: Its folder.
        writes: False where another process of the same run does.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path = path
        self._writes = writes
        self._begun: set[str] = set()

    @property
    def checkpoints(self) -> Path:
        """Where points are kept."""
        return self.path / CHECKPOINTS

    def check(self, spec: RunSpec, *, resume: bool) -> None:
        """See whether a run may begin here, or go on.

        Raises:
            OperatorError: There is a run already and none is to be resumed, or it was told something else.
        """
        if (self.path / CONFIG).exists():
            self._check_same(spec, resume)

    def begin(self, spec: RunSpec) -> None:
        """Write down what the run is told."""
        if self._writes:
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path / CONFIG, to_toml(spec, comments=False).encode())

    def _check_same(self, spec: RunSpec, resume: bool) -> None:
        if not resume:
            raise OperatorError(f"{self.path} holds a run", hint="Go on with --resume, or choose another --out.")
        if (found := read_run(self.path)) != spec:
            old, new = (to_toml(s, comments=False).splitlines() for s in (found, spec))
            changed = next((n for o, n in zip(old, new, strict=False) if o != n), "its length")
            raise OperatorError(
                f"the run in {self.path} was told something else: {changed}",
                reason=Reason.INCOMPATIBLE,
                hint="Resume with --out and --resume alone.",
            )

    def record(self, stage: str, step: int, figures: Mapping[str, float]) -> None:
        """Append the figures of a step; what a killed run wrote beyond its last point is dropped first."""
        if not self._writes:
            return
        path = self.path / METRICS
        if stage not in self._begun:
            self._begun.add(stage)
            _forget(path, stage, step)
        named = {k: v if math.isfinite(v) else None for k, v in figures.items()}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"stage": stage, "step": step, **named}) + "\n")

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file."""
        if self._writes:
            write_atomically(self.path / name, json.dumps(content, indent=1).encode() + b"\n")


def _forget(path: Path, stage: str, step: int) -> None:
    """Drop the lines of `stage` from `step` on."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:  # the line a kill cut short
            continue
        if row["stage"] != stage or row["step"] < step:
            kept.append(line + "\n")
    write_atomically(path, "".join(kept).encode())


def read_run(folder: Path) -> RunSpec:
    """What the run in a folder was told.

    Raises:
        ConfigError: There is none, or it cannot be read.
    """
    try:
        return parse_spec((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{folder} holds no run",
            reason=Reason.NOT_FOUND,
            hint="Make one with `embridge learn align --data NAME:PATH --out FOLDER`.",
        ) from None
    except (ConfigError, UnicodeDecodeError) as error:
        raise ConfigError(f"{folder / CONFIG}: {error}") from None


def environment(device: str, threads: int, processes: int) -> dict[str, Any]:
    """Versions, code and machine, for whoever wants the same numbers again."""
    return {
        "packages": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "commit": _commit(),
        "device": device,
        "threads": threads,
        "processes": processes,
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _commit() -> str:
    """The commit of a checkout, with a mark where files differ from it; empty outside of one."""
    here = Path(__file__).parent
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", here.parent], cwd=here, check=False)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + ("-dirty" if changed.returncode else "")
