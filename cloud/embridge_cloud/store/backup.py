"""Backups of a running store.

A backup is one folder: the hot file as of one moment, the sealed sessions, the audit log's head, the update repository
without its private keys unless they are asked for, and `backup.json` with the digest of every file. The hot file is
copied first: what is sealed meanwhile is then in the copy as chunks, in a sealed folder, or in both, and never in none.

A later backup into the same place links the files that have not changed; a folder gets its name only when everything in
it is on the disk and was read back.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import msgspec

from embridge_cloud.store import rewrite
from embridge_cloud.store.audit import AuditLog
from embridge_cloud.store.consent import FILE as CONSENTS
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.manifest import MANIFEST, file_sha256
from embridge_cloud.store.rows import session_digest
from embridge_cloud.store.schema import attach, migrate
from embridge_shared.archive import write_atomically
from embridge_shared.errors import DataError, OperatorError, Reason

logger = logging.getLogger(__name__)

HEAD = "backup.json"
FORMAT = 1
_PARTIAL = ".partial-"


class BackupFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of a backup: its digest and size."""

    sha256: str
    bytes: int


class BackupHead(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a backup says of itself.

    Attributes:
        id: Its number.
        wall_ns: Unix time of the hot file's copy, ns.
        hot: Name of the hot file.
        sessions: Sealed sessions in it, with their content hash.
        audit_seq: Where the audit log ended.
        audit_digest: That row's digest.
        keys: Whether the private keys are in it.
        files: Every other file by its path.
        format: Version of this file.
    """

    id: UUID
    wall_ns: int
    hot: str
    sessions: dict[str, str]
    audit_seq: int
    audit_digest: str
    keys: bool
    files: dict[str, BackupFile]
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was made: its folder, what it says of itself, and how many bytes were copied rather than linked."""

    path: Path
    head: BackupHead
    copied: int


def back_up(
    store: HotStore,
    state_dir: Path,
    target: Path,
    *,
    wall_ns: Callable[[], int],
    keys: bool = False,
    actor: str = "cli",
) -> Backup:
    """Make a backup while the store is in use.

    Args:
        store: The open store.
        state_dir: The cloud's state folder.
        target: Folder of backups; each becomes a folder in it.
        wall_ns: Unix time, ns.
        keys: Take the registry's private keys along.
        actor: Who asked for it.

    Raises:
        OperatorError: The place cannot be written or lies within the state folder.
        DataError: Something that was copied is not what it was.
        StoreError: The database refused.
    """
    target = target.expanduser().absolute()
    if target.is_relative_to(state_dir):
        raise OperatorError(f"{target} lies within the state folder.", hint="Back up to another place, or disk.")
    now = wall_ns()
    name = datetime.fromtimestamp(now * 1e-9, UTC).strftime("%Y%m%dT%H%M%S.%f")
    target.mkdir(parents=True, exist_ok=True)
    for left in target.glob(_PARTIAL + "*"):
        shutil.rmtree(left)
    folder = target / f"{_PARTIAL}{name}"
    (folder / "hot").mkdir(parents=True)
    folder.chmod(0o700)
    head = AuditLog(store).head()
    with store.read.snapshot() as connection:
        rewrite.copy(connection, folder / "hot" / store.path.name)
    copier = _Copier(_latest(target))
    copier.known(folder, f"hot/{store.path.name}")
    write_atomically(
        folder / "hot" / f"{store.path.name}.audit", json.dumps({"seq": head.seq, "digest": head.digest}).encode()
    )
    copier.known(folder, f"hot/{store.path.name}.audit")
    sessions = _copy_sealed(state_dir / "sealed", folder, copier)
    for part in ("repository", *(("keys",) if keys else ())):
        copier.tree(state_dir / "registry" / part, folder, f"registry/{part}")
    body = BackupHead(
        id=uuid4(), wall_ns=now, hot=store.path.name, sessions=sessions, audit_seq=head.seq, audit_digest=head.digest,
        keys=keys, files=dict(sorted(copier.files.items())),
    )  # fmt: skip
    _write_head(folder, body)
    verify_backup(folder)
    sync_tree(folder)
    final = target / name
    folder.replace(final)
    rewrite.sync(target)
    _note(store, final, body)
    AuditLog(store).record(
        actor, "store.backup", f"backup:{name}", {"sessions": len(sessions), "files": len(body.files)}, wall_ns()
    )
    return Backup(final, body, copier.copied)


def read_head(path: Path) -> BackupHead:
    """What a backup says of itself.

    Raises:
        DataError: There is none, or it is damaged.
    """
    try:
        head = msgspec.json.decode((path / HEAD).read_bytes(), type=BackupHead)
    except FileNotFoundError:
        raise DataError(
            f"{path} is no backup: {HEAD} is missing.", reason=Reason.NOT_FOUND, hint="Name one folder, not the place."
        ) from None
    except msgspec.DecodeError as error:
        raise DataError(f"{path / HEAD} is damaged: {error}.", reason=Reason.MALFORMED) from error
    if head.format != FORMAT:
        raise DataError(f"{path} has format {head.format}.", reason=Reason.UNSUPPORTED_VERSION, hint="Update EMBridge.")
    return head


def verify_backup(path: Path) -> BackupHead:
    """Read everything of a backup and compare it with its digests.

    Raises:
        DataError: Something is missing or is not what was backed up.
    """
    head = read_head(path)
    faults = []
    for name, entry in head.files.items():
        file = path / name
        if not file.is_file():
            faults.append(f"{name} is missing")
        elif file.stat().st_size != entry.bytes or file_sha256(file) != entry.sha256:
            faults.append(f"{name} is not the file that was backed up")
    if faults:
        raise DataError(
            f"backup {path.name}: {'; '.join(faults[:5])}.", reason=Reason.HASH_MISMATCH, hint="Use another backup."
        )
    return head


def list_backups(target: Path) -> list[Path]:
    """The finished backups in a folder, the oldest first."""
    return sorted(p for p in target.iterdir() if (p / HEAD).is_file()) if target.is_dir() else []


def clear_backup(path: Path, participant: str, sessions: Sequence[UUID]) -> int:
    """Take a participant out of a backup; how many folders that were there. Doing it again does no harm."""
    from embridge_cloud.store.erase import delete_rows

    head = read_head(path)
    gone = {str(s) for s in sessions}
    cleared = 0
    for name in gone & set(head.sessions):
        if (path / "sealed" / name).is_dir():
            shutil.rmtree(path / "sealed" / name)
            cleared += 1
    hot = path / "hot" / head.hot
    rewrite.clear(hot)
    connection = attach(hot)
    try:
        migrate(connection)
        connection.begin()
        delete_rows(connection, participant, sessions)
        for session in sessions:
            sql = "INSERT OR IGNORE INTO erased_sessions VALUES (?, ?)"
            connection.execute(sql, [session_digest(session), UUID(int=0)])
        connection.commit()
        rewrite.copy(connection, rewrite.fresh_path(hot))
    finally:
        connection.close()
    rewrite.swap(hot)
    files = {n: f for n, f in head.files.items() if not any(n.startswith(f"sealed/{s}/") for s in gone)}
    consents = path / "sealed" / CONSENTS
    if consents.is_file():
        body = json.loads(consents.read_bytes())
        body["participants"].pop(participant, None)
        write_atomically(consents, json.dumps(body, indent=1).encode(), mode=0o600)
        files[f"sealed/{CONSENTS}"] = _entry(consents)
    files[f"hot/{head.hot}"] = _entry(hot)
    kept = {s: h for s, h in head.sessions.items() if s not in gone}
    _write_head(path, msgspec.structs.replace(head, sessions=kept, files=files))
    return cleared


class _Copier:
    """Copies files into a backup, or links them where the last one has the same."""

    def __init__(self, last: Path | None) -> None:
        self._last = last
        self._before = read_head(last).files if last is not None else {}
        self.files: dict[str, BackupFile] = {}
        self.copied = 0

    def file(self, source: Path, folder: Path, name: str, *, immutable: bool = False) -> None:
        """Bring one file over; an immutable one of the same name and size is the same file."""
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        before = self._before.get(name)
        same = before is not None and before.bytes == source.stat().st_size
        if same and not immutable:
            assert before is not None
            same = file_sha256(source) == before.sha256
        if same and self._last is not None:
            assert before is not None
            try:
                os.link(self._last / name, target)
            except OSError as error:
                logger.debug("%s is copied: %s", name, error)
            else:
                self.files[name] = before
                return
        digest, size = _copy(source, target)
        self.copied += size
        self.files[name] = BackupFile(digest, size)

    def tree(self, source: Path, folder: Path, name: str, *, immutable: bool = False) -> None:
        """Bring a folder over."""
        for path in sorted(source.rglob("*")) if source.is_dir() else ():
            relative = path.relative_to(source)
            if path.is_file() and not any(p.startswith(".") for p in relative.parts):
                self.file(path, folder, f"{name}/{relative.as_posix()}", immutable=immutable)

    def known(self, folder: Path, name: str) -> None:
        """Note a file that is there already."""
        self.files[name] = _entry(folder / name)
        self.copied += self.files[name].bytes


def _copy_sealed(sealed: Path, folder: Path, copier: _Copier) -> dict[str, str]:
    """Copy the sealed sessions; their content hashes."""
    found = {}
    for path in sorted(sealed.iterdir()) if sealed.is_dir() else ():
        if path.name.startswith(".") or not (path / MANIFEST).is_file():
            continue
        copier.tree(path, folder, f"sealed/{path.name}", immutable=True)
        found[path.name] = str(json.loads((folder / "sealed" / path.name / MANIFEST).read_bytes())["content_hash"])
    if (sealed / CONSENTS).is_file():
        copier.file(sealed / CONSENTS, folder, f"sealed/{CONSENTS}")
    return found


def _note(store: HotStore, path: Path, head: BackupHead) -> None:
    with store.transaction() as connection:
        connection.execute("INSERT INTO backups VALUES (?, ?, ?)", [head.id, str(path), head.wall_ns])
        for session, content in head.sessions.items():
            connection.execute("INSERT INTO backup_sessions VALUES (?, ?, ?)", [head.id, UUID(session), content])


def _latest(target: Path) -> Path | None:
    found = list_backups(target)
    return found[-1] if found else None


def _entry(path: Path) -> BackupFile:
    return BackupFile(file_sha256(path), path.stat().st_size)


def _copy(source: Path, target: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as read, target.open("wb") as write:
        while block := read.read(1 << 20):
            digest.update(block)
            write.write(block)
            size += len(block)
    return digest.hexdigest(), size


def _write_head(folder: Path, head: BackupHead) -> None:
    write_atomically(folder / HEAD, msgspec.json.format(msgspec.json.encode(head), indent=1))


def sync_tree(folder: Path) -> None:
    """Wait until everything under a folder is on the disk."""
    for path in [*_walk(folder), folder]:
        rewrite.sync(path)


def _walk(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.rglob("*"), reverse=True)
