"""Rollouts on disk: one file each, replaced atomically."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec

from embridge_cloud.rollouts.engine import OPEN
from embridge_cloud.rollouts.tally import tally
from embridge_shared.archive import write_atomically
from embridge_shared.errors import DataError, OperatorError, Reason
from embridge_shared.fleet import Rollout

_NAME: Final = re.compile(r"r-(\d{4,9})")
IN_FULL: Final = 16
"""So many of the latest rollouts are kept in memory with their edges; the edges of older ones are read when asked."""

replace = msgspec.structs.replace


class Shelf:
    """All rollouts.

    Args:
        folder: One JSON file a rollout.

    Raises:
        DataError: DAMAGED: a file cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rollouts: dict[str, Rollout] = {}
        for path in sorted(folder.glob("r-*.json")):
            if _NAME.fullmatch(path.stem):
                self.put(_read(path))

    def __contains__(self, name: object) -> bool:
        return name in self._rollouts

    def all(self) -> list[Rollout]:
        """Every rollout, the oldest first; old ones without their edges."""
        return [self._rollouts[name] for name in sorted(self._rollouts, key=number)]

    def open(self) -> list[Rollout]:
        """Those that are not over."""
        return [r for r in self.all() if r.state in OPEN]

    def get(self, name: str) -> Rollout:
        """One, with its edges.

        Raises:
            OperatorError: NOT_FOUND.
        """
        found = self._rollouts.get(name)
        if found is None:
            raise OperatorError(
                f"there is no rollout {name!r}", reason=Reason.NOT_FOUND, hint="`embridge rollout list` shows them."
            )
        return found if found.edges else _read(self._path(name))

    def next_id(self) -> str:
        """The id of the next rollout."""
        return f"r-{max(map(number, self._rollouts), default=0) + 1:04d}"

    def put(self, rollout: Rollout) -> None:
        """Keep a rollout in memory; what is old goes without its edges."""
        self._rollouts[rollout.id] = rollout
        full = [name for name, r in self._rollouts.items() if r.edges and r.state not in OPEN]
        for name in sorted(full, key=number)[:-IN_FULL]:
            old = self._rollouts[name]
            self._rollouts[name] = replace(old, edges=(), tally=tally(old))

    def write(self, rollout: Rollout) -> None:
        """Put a rollout on disk; atomic."""
        write_atomically(self._path(rollout.id), msgspec.json.encode(rollout))

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def number(name: str) -> int:
    """The number of a rollout, from 1; 0 for what is no rollout's id."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else 0


def _read(path: Path) -> Rollout:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Rollout)
    except (OSError, msgspec.DecodeError) as error:
        raise DataError(
            f"{path} cannot be read: {error}", reason=Reason.DAMAGED, hint="Restore it from a backup."
        ) from error
