"""Traces of a participant in files: where they can be, and clearing them."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from embridge_cloud.store.exports import ExportIndex
from embridge_cloud.store.hot import HotStore
from embridge_shared.errors import EmbridgeError
from embridge_shared.manifest import in_lineage
from embridge_shared.release import SUFFIX, read_bundle

logger = logging.getLogger(__name__)

_TEXT = {".json", ".jsonl", ".md", ".csv", ".toml", ".txt", ".html", ".log", ".tsv"}


@dataclass(slots=True)
class Found:
    """What was cleared.

    Attributes:
        folders: How many folders and files.
        unreachable: Paths on record where nothing was.
        releases: Release → whether its manifest spells the participant's name.
    """

    folders: int = 0
    unreachable: list[str] = field(default_factory=list)
    releases: dict[str, bool] = field(default_factory=dict)


def clear(store: HotStore, state_dir: Path, participant: str, sessions: Sequence[UUID]) -> Found:
    """Clear files of a participant; doing it again does no harm."""
    found = Found(releases=releases(state_dir, participant, sessions))
    sealed = state_dir / "sealed"
    for session in sessions:
        for path in [*sealed.glob(f"{session}*"), *sealed.glob(f".*{session}*")]:
            found.folders += _remove(path)
    _clear_learning(state_dir, [participant, *map(str, sessions)], found)
    for export in ExportIndex(store).of(participant):
        if export.path.exists():
            found.folders += _remove(export.path)
        else:
            found.unreachable.append(str(export.path))
    _clear_backups(store, participant, sessions, found)
    _leave_ledger(store, sessions)
    return found


def releases(state_dir: Path, participant: str, sessions: Sequence[UUID]) -> dict[str, bool]:
    """Published releases trained on the participant, and whether they spell the name."""
    found = {}
    targets = state_dir / "registry" / "repository" / "targets"
    for path in sorted(targets.glob("*")) if targets.is_dir() else ():
        try:
            manifest = read_bundle(path).manifest
        except EmbridgeError as error:
            logger.warning("%s cannot be read: %s", path.name, error)
            continue
        lineage = manifest.lineage
        if in_lineage(lineage, participant) or {str(s) for s in sessions} & set(lineage.sessions):
            found[manifest.release] = participant in lineage.participants
    return found


def _clear_learning(state_dir: Path, names: Sequence[str], found: Found) -> None:
    """Jobs, runs and windows that speak of somebody; a job that can go on without them does."""
    from embridge_cloud.jobs.forget import forget

    for folder in (state_dir / "jobs", state_dir / "runs", state_dir / "windows"):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if not any(_speaks(file, names) for file in _files(path)):
                continue
            if folder.name == "jobs" and forget(path, names[0], names[1:]):
                found.folders += 1
            else:
                found.folders += _remove(path)


def _clear_backups(store: HotStore, participant: str, sessions: Sequence[UUID], found: Found) -> None:
    from embridge_cloud.store.backup import clear_backup

    for (path,) in store.read.rows("SELECT DISTINCT path FROM backups ORDER BY path"):
        if Path(path).is_dir():
            found.folders += clear_backup(Path(path), participant, sessions)
        else:
            found.unreachable.append(path)


def _leave_ledger(store: HotStore, sessions: Sequence[UUID]) -> None:
    """Take sessions out of the ledger of what was acknowledged, and their lines with them."""
    accounts = store.ledger.read()
    for session in sessions:
        accounts.pop(session, None)
    store.ledger.rewrite(accounts)


def _files(path: Path) -> Iterator[Path]:
    yield from (p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def _speaks(path: Path, names: Sequence[str]) -> bool:
    """Whether a file speaks of the participant or of one of the sessions."""
    if path.suffix == SUFFIX:
        try:
            lineage = read_bundle(path).manifest.lineage
        except EmbridgeError:
            return False
        return in_lineage(lineage, names[0]) or bool(set(names) & {*lineage.sessions, *lineage.participants})
    if path.suffix not in _TEXT:
        return False
    pattern = "|".join(re.escape(n) for n in names)
    return re.search(rf"(?<!\w)(?:{pattern})(?!\w)".encode(), path.read_bytes()) is not None


def _remove(path: Path) -> int:
    """Remove a file or folder; how many were there."""
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()
    else:
        return 0
    return 1
