"""The registry: releases in a TUF repository that any web server can hand out.

    keys/                      one ed25519 key a role, PKCS#8 PEM, 0600 in a 0700 folder; never served
    repository/metadata/       N.root.json, N.targets.json, N.snapshot.json, timestamp.json
    repository/targets/        <sha256>.<release>

A publication writes the bundle, then targets, then snapshot, and replaces `timestamp.json` last: until then no client
looks at the new files, so a crash in between leaves the repository as it was and the next publication starts over.
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

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from embridge_shared.archive import write_atomically
from embridge_shared.clock import Clock
from embridge_shared.errors import ModelError, OperatorError, Reason
from embridge_shared.manifest import Published
from embridge_shared.release import read_bundle

logger = logging.getLogger(__name__)

_RESTORE: Final = "Restore the registry's folder from a backup."
ROLES: Final = ("root", "targets", "snapshot", "timestamp")
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


class Registry:
    """Publishes releases.

    The first use makes keys and an empty repository. All four keys lie here, one signature a role: fit for one
    machine whose folder only the service may read.

    Args:
        root_dir: Holds `keys/` and `repository/`.
        clock: Dates the signatures.
        expiry: How long they hold.

    Raises:
        ModelError: SIGNATURE: the repository was not signed with the keys beside it; NOT_FOUND: files are missing.
    """

    def __init__(self, root_dir: Path, clock: Clock, expiry: Expiry | None = None) -> None:
        self._keys = root_dir / "keys"
        self._lock_file = root_dir / "lock"
        self._clock = clock
        self._expiry = expiry or Expiry()
        self.repository = root_dir / "repository"
        self._metadata = self.repository / "metadata"
        self._targets = self.repository / "targets"
        root_dir.mkdir(parents=True, exist_ok=True)
        with self._locked():
            self._signers = {role: self._signer(role) for role in ROLES}
            if not (self._metadata / "timestamp.json").exists():
                self._create()
            self._load()

    def publish(self, bundle_path: Path) -> Published:
        """Add a release; the same bundle again changes nothing.

        Args:
            bundle_path: A bundle file.

        Raises:
            ModelError: The bundle is refused (`read_bundle`), or the repository is damaged.
            OperatorError: Another bundle has its name already, or its version does not grow.
        """
        bundle = read_bundle(bundle_path)
        with self._locked():
            targets, snapshot, timestamp = self._load()
            entry = Published.of(bundle.manifest, bundle.digest, bundle.size)
            known = {p.name: p for p in map(_published, targets.signed.targets.values())}
            file = self._targets / f"{entry.digest}.{entry.name}"
            held = known.get(entry.name)
            if held is not None and msgspec.structs.replace(held, recalled="") == entry and file.exists():
                return held
            _check_new(entry, known)
            data = bundle_path.read_bytes()
            target = TargetFile.from_data(entry.name, data, ["sha256"])
            if target.hashes["sha256"] != entry.digest:
                raise ModelError(f"{bundle_path.name} changed while it was read", reason=Reason.HASH_MISMATCH)
            target.unrecognized_fields["custom"] = msgspec.to_builtins(entry)
            targets.signed.targets[entry.name] = target
            write_atomically(file, data)
            self._commit(targets, snapshot, timestamp)
        logger.info("published %s, %s", entry.name, entry.digest[:12])
        return entry

    def recall(self, name: str, why: str) -> Published:
        """Sign that a release is withdrawn, for good: edges that run it return to the one they ran before.

        Args:
            name: A release.
            why: A sentence, shown wherever the release is; a release that is recalled already keeps its own.

        Raises:
            OperatorError: NOT_FOUND: there is none of that name; or no reason is given.
            ModelError: The repository is damaged.
        """
        why = why.strip()
        if not why:
            raise OperatorError("a recall needs a reason.", hint="Say what is wrong with the release.")
        with self._locked():
            targets, snapshot, timestamp = self._load()
            target = targets.signed.targets.get(name)
            if target is None:
                raise OperatorError(
                    f"there is no release {name!r}.",
                    reason=Reason.NOT_FOUND,
                    hint="`embridge release list` shows them.",
                )
            held = _published(target)
            if held.recalled:
                return held
            entry = msgspec.structs.replace(held, recalled=why)
            target.unrecognized_fields["custom"] = msgspec.to_builtins(entry)
            self._commit(targets, snapshot, timestamp)
        logger.warning("recalled %s: %s", name, why)
        return entry

    def champion(self, line: str) -> Published | None:
        """The newest release of a line that is not recalled; None where there is none.

        Raises:
            ModelError: The repository is damaged.
        """
        fit = [p for p in self.releases() if p.line == line and not p.recalled]
        return fit[-1] if fit else None

    def refresh_timestamp(self) -> None:
        """Sign the timestamp anew, and every role that is past half of its term.

        Raises:
            ModelError: The repository is damaged.
        """
        with self._locked():
            targets, snapshot, timestamp = self._load()
            root: Metadata[Root] = Metadata.from_bytes(self.root_bytes())
            if self._ageing(root.signed):
                root.signed.version += 1
                self._write(root, f"{root.signed.version}.root.json")
            if self._ageing(targets.signed) or self._ageing(snapshot.signed):
                self._commit(targets, snapshot, timestamp)
            else:
                timestamp.signed.version += 1
                self._write(timestamp, "timestamp.json")

    def releases(self) -> tuple[Published, ...]:
        """Every release published, oldest version first.

        Raises:
            ModelError: The repository is damaged.
        """
        targets, _, _ = self._load()
        return tuple(sorted(map(_published, targets.signed.targets.values()), key=lambda p: (p.line, p.version)))

    def vouch(self, body: bytes) -> dict[str, bytes]:
        """Sign an order to edges as role `targets`; signature by id of the key.

        What is signed must begin with something that no metadata begins with.
        """
        signer = self._signers["targets"]
        return {signer.public_key.keyid: bytes.fromhex(signer.sign(body).signature)}

    def root_bytes(self) -> bytes:
        """The newest root metadata: what an edge is given when it is provisioned, and trusts from then on."""
        newest = max(
            (path for path in self._metadata.glob("*.root.json")),
            key=lambda path: int(path.name.split(".")[0]),
            default=None,
        )
        if newest is None:
            raise ModelError("the registry has no root metadata", reason=Reason.NOT_FOUND, hint=_RESTORE)
        return newest.read_bytes()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock_file.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _signer(self, role: str) -> CryptoSigner:
        path = self._keys / f"{role}.pem"
        if path.exists():
            key = load_pem_private_key(path.read_bytes(), password=None)
            if not isinstance(key, Ed25519PrivateKey):
                raise ModelError(f"the registry's {role} key is no ed25519 key", reason=Reason.SIGNATURE, hint=_RESTORE)
            return CryptoSigner(key)
        if self._metadata.exists():
            raise ModelError(f"the registry's {role} key is missing", reason=Reason.NOT_FOUND, hint=_RESTORE)
        self._keys.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._keys.chmod(0o700)
        signer = CryptoSigner.generate_ed25519()
        write_atomically(path, signer.private_bytes, mode=0o600)
        return signer

    def _create(self) -> None:
        root = Root(version=1, consistent_snapshot=True)
        for role, signer in self._signers.items():
            root.add_key(signer.public_key, role)
        self._targets.mkdir(parents=True, exist_ok=True)
        self._write(Metadata(root), "1.root.json")
        self._sign(Metadata(Targets()), Metadata(Snapshot()), Metadata(Timestamp()))

    def _commit(self, targets: Metadata[Targets], snapshot: Metadata[Snapshot], timestamp: Metadata[Timestamp]) -> None:
        for metadata in (targets, snapshot, timestamp):
            metadata.signed.version += 1
        self._sign(targets, snapshot, timestamp)

    def _sign(self, targets: Metadata[Targets], snapshot: Metadata[Snapshot], timestamp: Metadata[Timestamp]) -> None:
        data = self._write(targets, f"{targets.signed.version}.targets.json")
        snapshot.signed.meta["targets.json"] = MetaFile.from_data(targets.signed.version, data, ["sha256"])
        data = self._write(snapshot, f"{snapshot.signed.version}.snapshot.json")
        timestamp.signed.snapshot_meta = MetaFile.from_data(snapshot.signed.version, data, ["sha256"])
        self._write(timestamp, "timestamp.json")

    def _write(self, metadata: Metadata[S], name: str) -> bytes:
        role = metadata.signed.type
        metadata.signed.expires = self._now() + self._expiry.of(role)
        metadata.sign(self._signers[role])
        data = metadata.to_bytes()
        write_atomically(self._metadata / name, data)
        return data

    def _load(self) -> tuple[Metadata[Targets], Metadata[Snapshot], Metadata[Timestamp]]:
        root: Metadata[Root] = Metadata.from_bytes(self.root_bytes())

        def read(name: str, kind: type[S]) -> Metadata[S]:
            metadata: Metadata[Any] = Metadata.from_bytes((self._metadata / name).read_bytes())
            root.verify_delegate(kind.type, metadata)
            return metadata

        try:
            for role, signer in self._signers.items():
                if signer.public_key.keyid not in root.signed.roles[role].keyids:
                    raise RepositoryError(f"the {role} key is not one the root names")
            timestamp = read("timestamp.json", Timestamp)
            snapshot = read(f"{timestamp.signed.snapshot_meta.version}.snapshot.json", Snapshot)
            targets = read(f"{snapshot.signed.meta['targets.json'].version}.targets.json", Targets)
        except FileNotFoundError as error:
            raise ModelError(f"the registry misses {error.filename}", reason=Reason.NOT_FOUND, hint=_RESTORE) from error
        except (RepositoryError, ValueError) as error:
            raise ModelError(f"the registry is damaged: {error}", reason=Reason.SIGNATURE, hint=_RESTORE) from error
        return targets, snapshot, timestamp

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.wall_ns() // 1_000_000_000, UTC)

    def _ageing(self, signed: Root | Targets | Snapshot) -> bool:
        return self._now() > signed.expires - self._expiry.of(signed.type) / 2


def _published(target: TargetFile) -> Published:
    return msgspec.convert(target.unrecognized_fields["custom"], Published)


def _check_new(entry: Published, known: dict[str, Published]) -> None:
    other = known.get(entry.name)
    if other is not None and other.digest != entry.digest:
        raise OperatorError(
            f"{entry.name} is published already, as {other.digest[:12]}.",
            hint="A published release never changes: give the new one a new version.",
        )
    newest = max((p.version for p in known.values() if p.line == entry.line), default=0)
    if other is None and entry.version <= newest:
        raise OperatorError(
            f"{entry.name} does not come after version {newest} of {entry.line!r}.",
            hint=f"Publish it as version {newest + 1}.",
        )
