"""Publishing releases, and taking them back."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from tuf.api.metadata import TargetFile, Targets

from embridge_cloud.registry.keys import ROOT
from embridge_cloud.registry.repository import Expiry, Loaded, Repository
from embridge_shared.clock import Clock
from embridge_shared.delta import DeltaTarget, delta_name, make_delta
from embridge_shared.erasure import SignedOrder
from embridge_shared.errors import EmbridgeError, ModelError, OperatorError, Reason
from embridge_shared.manifest import Published
from embridge_shared.release import read_bundle

logger = logging.getLogger(__name__)

_PAYS: Final = 0.5  # a delta is published when it is smaller than this share of the bundle
_ROOTS_SENT: Final = 16


class Registry:
    """Publishes releases.

    The first use makes keys and an empty repository: three root keys, two of which must sign a root, and a key each for
    targets, snapshot and timestamp. All lie here until `Ceremony.move_roots` takes the root keys away.

    Args:
        root_dir: Holds `keys/` and `repository/`.
        clock: Dates the signatures.
        expiry: How long they hold.

    Raises:
        ModelError: SIGNATURE: the repository was not signed with the keys beside it; NOT_FOUND: files are missing.
    """

    def __init__(self, root_dir: Path, clock: Clock, expiry: Expiry | None = None) -> None:
        self._files = Repository(root_dir, clock, expiry)
        self.repository = self._files.folder

    def publish(self, bundle_path: Path) -> Published:
        """Add a release, and deltas to it where they pay; the same bundle again changes nothing.

        Args:
            bundle_path: A bundle file.

        Raises:
            ModelError: The bundle is refused (`read_bundle`), or the repository is damaged.
            OperatorError: Another bundle has its name already, or its version does not grow.
        """
        bundle = read_bundle(bundle_path)
        entry = Published.of(bundle.manifest, bundle.digest, bundle.size)
        del bundle
        if (held := self._held(entry, self._files.load())) is not None:
            return held
        data = bundle_path.read_bytes()
        target = TargetFile.from_data(entry.name, data, ["sha256"])
        if target.hashes["sha256"] != entry.digest:
            raise ModelError(f"{bundle_path.name} changed while it was read", reason=Reason.HASH_MISMATCH)
        target.unrecognized_fields["custom"] = msgspec.to_builtins(entry)
        # Before the lock: the timestamp must not wait for the arithmetic.
        deltas = self._deltas(entry, data)
        with self._files.locked():
            loaded = self._files.load()
            if (held := self._held(entry, loaded)) is not None:
                return held
            self._files.write(self._bundle(entry), data)
            loaded.targets.signed.targets[entry.name] = target
            for about, delta in deltas.items():
                self._add_delta(loaded.targets.signed, about, delta)
            self._files.commit(loaded)
        logger.info("published %s, %s, and %d deltas to it", entry.name, entry.digest[:12], len(deltas))
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
        with self._files.locked():
            loaded = self._files.load()
            target = loaded.targets.signed.targets.get(name)
            if target is None or _is_delta(target):
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
            self._files.commit(loaded)
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

        A root is renewed while enough root keys lie here; else it is said in time that somebody must sign it.

        Raises:
            ModelError: The repository is damaged.
        """
        with self._files.locked():
            loaded = self._files.load()
            if self._files.ageing(loaded.root.signed):
                self._renew_root(loaded)
                loaded = self._files.load()
            if self._files.ageing(loaded.targets.signed) or self._files.ageing(loaded.snapshot.signed):
                self._files.commit(loaded)
            else:
                self._files.commit_timestamp(loaded)

    def releases(self) -> tuple[Published, ...]:
        """Every release published, oldest version first.

        Raises:
            ModelError: The repository is damaged.
        """
        return tuple(sorted(_known(self._files.load()).values(), key=lambda p: (p.line, p.version)))

    def deltas(self) -> tuple[DeltaTarget, ...]:
        """Every delta published.

        Raises:
            ModelError: The repository is damaged.
        """
        targets = self._files.load().targets.signed.targets.values()
        return tuple(msgspec.convert(_custom(t)["delta"], DeltaTarget) for t in targets if _is_delta(t))

    def vouch(self, body: bytes) -> dict[str, bytes]:
        """Sign an order to edges as role `targets`; signature by id of the key.

        What is signed must begin with something that no metadata begins with.
        """
        return {
            signer.public_key.keyid: bytes.fromhex(signer.sign(body).signature)
            for signer in self._files.keys.online("targets")
        }

    def signed(self, body: bytes) -> SignedOrder:
        """An order that edges take, those too that have not heard of the latest roots."""
        return SignedOrder(body=body, signatures=self.vouch(body), roots=self.roots()[1:][-_ROOTS_SENT:])

    def root_bytes(self) -> bytes:
        """The newest root metadata: what an edge is given when it is provisioned, and trusts from then on."""
        return self._files.root_bytes()

    def roots(self) -> tuple[bytes, ...]:
        """Every root, oldest first: by them whoever trusts one follows to the newest."""
        return tuple(self._files.roots())

    def _renew_root(self, loaded: Loaded) -> None:
        root, signers = loaded.root, self._files.keys.roots().values()
        able = [s for s in signers if s.public_key.keyid in root.signed.roles[ROOT].keyids]
        if len(able) < root.signed.roles[ROOT].threshold or self._files.draft_file.exists():
            logger.warning(
                "the root of trust ends on %s and its keys are elsewhere: `embridge release key renew`, sign, apply",
                f"{root.signed.expires:%Y-%m-%d}",
            )
            return
        root.signed.version += 1
        root.signed.expires = self._files.now() + self._files.expiry.of(ROOT)
        root.signatures.clear()
        for signer in able:
            root.sign(signer, append=True)
        self._files.enact(root)

    def _held(self, entry: Published, loaded: Loaded) -> Published | None:
        """The release as published, if it is there whole."""
        known = _known(loaded)
        held = known.get(entry.name)
        if held is not None and msgspec.structs.replace(held, recalled="") == entry and self._bundle(entry).exists():
            return held
        _check_new(entry, known)
        return None

    def _deltas(self, entry: Published, data: bytes) -> dict[DeltaTarget, bytes]:
        """Deltas that pay, from the champion and from the release before."""
        earlier = [p for p in self.releases() if p.line == entry.line and p.version < entry.version]
        champion = [p for p in earlier if not p.recalled][-1:]
        made = {}
        for base in {p.digest: p for p in (*champion, *earlier[-1:])}.values():
            try:
                delta = make_delta(self._bundle(base).read_bytes(), data)
            except (EmbridgeError, OSError) as error:
                logger.warning("no delta from %s to %s: %s", base.name, entry.name, error)
                continue
            if len(delta) < _PAYS * len(data):
                made[DeltaTarget(release=entry.name, digest=entry.digest, size=entry.size, base=base.digest)] = delta
            logger.info("%s from %s: %d of %d bytes", entry.name, base.name, len(delta), len(data))
        return made

    def _add_delta(self, targets: Targets, about: DeltaTarget, data: bytes) -> None:
        name = delta_name(about.release, about.base)
        target = TargetFile.from_data(name, data, ["sha256"])
        target.unrecognized_fields["custom"] = {"delta": msgspec.to_builtins(about)}
        folder, _, file = name.partition("/")
        self._files.write(self.repository / folder / f"{target.hashes['sha256']}.{file}", data)
        targets.targets[name] = target

    def _bundle(self, entry: Published) -> Path:
        return self.repository / "targets" / f"{entry.digest}.{entry.name}"


def _known(loaded: Loaded) -> dict[str, Published]:
    found = (_published(t) for t in loaded.targets.signed.targets.values() if not _is_delta(t))
    return {published.name: published for published in found}


def _custom(target: TargetFile) -> Mapping[str, Any]:
    found = target.unrecognized_fields.get("custom")
    return found if isinstance(found, dict) else {}


def _is_delta(target: TargetFile) -> bool:
    return "delta" in _custom(target)


def _published(target: TargetFile) -> Published:
    return msgspec.convert(_custom(target), Published)


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
