"""Putting a backup back: into an empty state folder, or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

from embridge_cloud.store import rewrite
from embridge_cloud.store.backup import BackupHead, sync_tree, verify_backup
from embridge_cloud.store.manifest import file_sha256
from embridge_cloud.store.schema import attach
from embridge_shared.errors import DataError, OperatorError, Reason


def restore(path: Path, state_dir: Path) -> BackupHead:
    """Put a backup into an empty state folder.

    A restore that was broken off leaves `restoring` in the state folder; the next one starts over.

    Raises:
        OperatorError: The state folder is in use.
        DataError: The backup is damaged.
    """
    head = verify_backup(path)
    state_dir = state_dir.expanduser().absolute()
    work = state_dir / "restoring"
    # A restore that was broken off began with an empty folder: what is there of sealed sessions is its own.
    parts = ("hot",) if work.is_dir() else ("hot", "sealed")
    taken = [name for name in parts if (state_dir / name).is_dir() and any((state_dir / name).iterdir())]
    if taken:
        raise OperatorError(
            f"{state_dir} holds {' and '.join(taken)} already.",
            reason=Reason.LOCKED,
            hint="Restore into an empty folder, or move these aside first; nothing is overwritten.",
        )
    if work.exists():
        shutil.rmtree(work)
    state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
    for name, entry in head.files.items():
        target = work / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path / name, target)
        target.chmod(0o600 if name.startswith(("registry/keys", "hot/")) else 0o644)
        if file_sha256(target) != entry.sha256:
            raise DataError(f"{name} changed while it was copied.", reason=Reason.HASH_MISMATCH, hint="Try again.")
    _move_paths(work / "hot" / head.hot, state_dir / "sealed")
    if (work / "registry" / "keys").is_dir():
        (work / "registry" / "keys").chmod(0o700)
    sync_tree(work)
    # The hot file comes last: until it is there, the folder is one that nothing was restored to.
    for part in ("registry", "sealed", "hot"):
        if (work / part).is_dir():
            _settle(work / part, state_dir / part)
    rewrite.sync(state_dir)
    work.rmdir()
    return head


def _move_paths(hot: Path, sealed: Path) -> None:
    """Say in a restored hot file where the sealed sessions are now."""
    connection = attach(hot)
    try:
        for table, tail in (("sealed_sessions", 1), ("sealed", 2)):
            rows = connection.execute(f"SELECT DISTINCT path FROM {table}").fetchall()  # noqa: S608
            for (path,) in rows:
                moved = sealed.joinpath(*Path(path).parts[-tail:])
                connection.execute(f"UPDATE {table} SET path = ? WHERE path = ?", [str(moved), path])  # noqa: S608
    finally:
        connection.close()


def _settle(source: Path, target: Path) -> None:
    """Move a restored part to its place."""
    if target.is_dir() and not any(target.iterdir()):
        target.rmdir()
    if target.exists():
        for path in sorted(source.iterdir()):
            place = target / path.name
            if place.is_dir():
                shutil.rmtree(place)
            path.replace(place)
        source.rmdir()
        return
    source.replace(target)
