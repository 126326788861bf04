"""The files of a repository: read and verified whole, written in an order that survives a crash.

A change writes targets, then snapshot, and replaces `timestamp.json` last: until then no client looks at the new
files, so a crash in between leaves the repository as it was and the next change starts over. A new root comes last of
all; before it, everything is signed with the keys of both roots, so that there is no moment at which an edge finds
metadata that its root does not name.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from embridge_cloud.registry.keys import ONLINE, ROOT, KeyRing
from embridge_shared.archive import write_atomically
from embridge_shared.clock import Clock
from embridge_shared.errors import ModelError, Reason

logger = logging.getLogger(__name__)

ROOT_KEYS: Final = 3
THRESHOLD: Final = 2
_RESTORE: Final = "Restore the registry's folder from a backup."
_DRAFT: Final = "next.root.json"
S = TypeVar("S", Root, Targets, Snapshot, Timestamp)


@dataclass(frozen=True, slots=True)
class Expiry:
    """How long each role's signature holds, days.

    The timestamp must be refreshed within its term; the other roles are signed anew by any refresh past half of
    theirs.
    """

    root_days: float = 730.0
    targets_days: float = 180.0
    snapshot_days: float = 180.0
    timestamp_days: float = 7.0

    def of(self, role: str) -> timedelta:
        """The term of a role."""
        return timedelta(days=float(getattr(self, f"{role}_days")))


@dataclass(frozen=True, slots=True)
class Loaded:
    """The newest metadata, verified."""

    root: Metadata[Root]
    targets: Metadata[Targets]
    snapshot: Metadata[Snapshot]
    timestamp: Metadata[Timestamp]


class Repository:
    """The files and the keys beside them; the first use makes both.

    Args:
        root_dir: Holds `keys/` and `repository/`.
        clock: Dates the signatures.
        expiry: How long they hold.

    Raises:
        ModelError: SIGNATURE: the repository was not signed with the keys beside it; NOT_FOUND: files are missing.
    """

    def __init__(self, root_dir: Path, clock: Clock, expiry: Expiry | None = None) -> None:
        self.keys = KeyRing(root_dir / "keys")
        self.expiry = expiry or Expiry()
        self.folder = root_dir / "repository"
        self.draft_file = root_dir / _DRAFT
        self._lock_file = root_dir / "lock"
        self._clock = clock
        self._metadata = self.folder / "metadata"
        root_dir.mkdir(parents=True, exist_ok=True)
        with self.locked():
            if not (self._metadata / "timestamp.json").exists():
                self._create()
            self.settle()
            self.load()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else changes the repository inside."""
        with self._lock_file.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def now(self) -> datetime:
        """The time, whole seconds, UTC."""
        return datetime.fromtimestamp(self._clock.wall_ns() // 1_000_000_000, UTC)

    def ageing(self, signed: Root | Targets | Snapshot) -> bool:
        """Whether a signature is past half of its term."""
        return self.now() > signed.expires - self.expiry.of(signed.type) / 2

    def load(self) -> Loaded:
        """Read and verify the newest metadata.

        Raises:
            ModelError: SIGNATURE or NOT_FOUND.
        """
        root: Metadata[Root] = Metadata.from_bytes(self.root_bytes())

        def read(name: str, kind: type[S]) -> Metadata[S]:
            metadata: Metadata[Any] = Metadata.from_bytes((self._metadata / name).read_bytes())
            root.verify_delegate(kind.type, metadata)
            return metadata

        try:
            for role in ONLINE:
                if self.keys.online(role)[0].public_key.keyid not in root.signed.roles[role].keyids:
                    raise RepositoryError(f"the {role} key is not one the root names")
            timestamp = read("timestamp.json", Timestamp)
            snapshot = read(f"{timestamp.signed.snapshot_meta.version}.snapshot.json", Snapshot)
            targets = read(f"{snapshot.signed.meta['targets.json'].version}.targets.json", Targets)
        except FileNotFoundError as error:
            raise ModelError(f"the registry misses {error.filename}", reason=Reason.NOT_FOUND, hint=_RESTORE) from error
        except (RepositoryError, ValueError) as error:
            raise ModelError(f"the registry is damaged: {error}", reason=Reason.SIGNATURE, hint=_RESTORE) from error
        return Loaded(root, targets, snapshot, timestamp)

    def roots(self) -> list[bytes]:
        """Every root, oldest first."""
        found = {int(path.name.split(".")[0]): path for path in self._metadata.glob("*.root.json")}
        return [found[version].read_bytes() for version in sorted(found)]

    def root_bytes(self) -> bytes:
        """The newest root.

        Raises:
            ModelError: NOT_FOUND.
        """
        found = self.roots()
        if not found:
            raise ModelError("the registry has no root metadata", reason=Reason.NOT_FOUND, hint=_RESTORE)
        return found[-1]

    def commit(self, loaded: Loaded) -> None:
        """Sign targets, snapshot and timestamp as new versions."""
        for metadata in (loaded.targets, loaded.snapshot, loaded.timestamp):
            metadata.signed.version += 1
        self._sign(loaded.targets, loaded.snapshot, loaded.timestamp)

    def commit_timestamp(self, loaded: Loaded) -> None:
        """Sign the timestamp anew."""
        loaded.timestamp.signed.version += 1
        self._write_online(loaded.timestamp, "timestamp.json")

    def enact(self, root: Metadata[Root]) -> None:
        """Let a root that enough keys have signed take effect; the lock is held."""
        if any(len(self.keys.online(role)) > 1 for role in ONLINE):
            self.commit(self.load())
        self.write(self._metadata / f"{root.signed.version}.root.json", root.to_bytes())
        self.settle()
        self.load()

    def settle(self) -> None:
        """Finish what the newest root asks for; the lock is held."""
        root: Metadata[Root] = Metadata.from_bytes(self.root_bytes())
        for role in ONLINE:
            signers = self.keys.online(role)
            if signers[-1].public_key.keyid in root.signed.roles[role].keyids and len(signers) > 1:
                self.keys.promote(role)
                logger.info("the %s key was replaced", role)
        with contextlib.suppress(FileNotFoundError, RepositoryError, ValueError):
            draft: Metadata[Root] = Metadata.from_bytes(self.draft_file.read_bytes())
            if draft.signed.version <= root.signed.version:
                self.draft_file.unlink()

    def write(self, path: Path, data: bytes) -> None:
        """Write one of the repository's files, atomically."""
        write_atomically(path, data)

    def _create(self) -> None:
        # A first start that was cut off is done again; a repository that was in use is not made anew.
        used = any(not path.name.startswith("1.") for path in self._metadata.glob("*.json"))
        keys = [self.keys.folder / f"{role}.pem" for role in ONLINE]
        if self._metadata.exists() and (used or not self.keys.roots() or not all(key.exists() for key in keys)):
            raise ModelError("the registry has no timestamp", reason=Reason.NOT_FOUND, hint=_RESTORE)
        root = Root(version=1, consistent_snapshot=True)
        held = list(self.keys.roots().values())
        for number in range(len(held), ROOT_KEYS):
            held.append(self.keys.make(f"{ROOT}-{number + 1}"))
        for signer in held:
            root.add_key(signer.public_key, ROOT)
        root.roles[ROOT].threshold = min(THRESHOLD, len(held))
        for role in ONLINE:
            exists = (self.keys.folder / f"{role}.pem").exists()
            signer = self.keys.online(role)[0] if exists else self.keys.make(role)
            root.add_key(signer.public_key, role)
        (self.folder / "targets").mkdir(parents=True, exist_ok=True)
        root.expires = self.now() + self.expiry.of(ROOT)
        metadata = Metadata(root)
        for signer in held:
            metadata.sign(signer, append=True)
        self.write(self._metadata / "1.root.json", metadata.to_bytes())
        self._sign(Metadata(Targets()), Metadata(Snapshot()), Metadata(Timestamp()))

    def _sign(self, targets: Metadata[Targets], snapshot: Metadata[Snapshot], timestamp: Metadata[Timestamp]) -> None:
        data = self._write_online(targets, f"{targets.signed.version}.targets.json")
        snapshot.signed.meta["targets.json"] = MetaFile.from_data(targets.signed.version, data, ["sha256"])
        data = self._write_online(snapshot, f"{snapshot.signed.version}.snapshot.json")
        timestamp.signed.snapshot_meta = MetaFile.from_data(snapshot.signed.version, data, ["sha256"])
        self._write_online(timestamp, "timestamp.json")

    def _write_online(self, metadata: Metadata[S], name: str) -> bytes:
        role = metadata.signed.type
        metadata.signed.expires = self.now() + self.expiry.of(role)
        metadata.signatures.clear()
        for signer in self.keys.online(role):
            metadata.sign(signer, append=True)
        data = metadata.to_bytes()
        self.write(self._metadata / name, data)
        return data
