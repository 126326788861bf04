"""Who may sign: new roots are drafted here, signed wherever their keys are, and take effect once enough have signed.

A draft must be signed by enough keys of the root in force and by enough of its own. Root keys that lie beside the
repository sign at once; the others sign a copy of the draft on their own machine.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from securesystemslib.signer import Key
from tuf.api.metadata import Metadata, Root

from embridge_cloud.registry.drafts import Draft, Holder, check, named, parse_draft
from embridge_cloud.registry.keys import ONLINE, ROLES, ROOT, public_pem, read_private, shred, write_private
from embridge_cloud.registry.repository import Expiry, Repository
from embridge_shared.archive import sync_folder, write_atomically
from embridge_shared.clock import Clock
from embridge_shared.errors import OperatorError, Reason

logger = logging.getLogger(__name__)


class Ceremony:
    """Changes who may sign for a registry. May run beside the cloud process, which takes its keys anew at each use.

    Args:
        root_dir: The registry's folder.
        clock: Dates signatures.
        expiry: How long they hold.

    Raises:
        ModelError: As `Repository`.
        OperatorError: NOT_FOUND: there is no registry.
    """

    def __init__(self, root_dir: Path, clock: Clock, expiry: Expiry | None = None) -> None:
        if not (root_dir / "repository").is_dir():
            raise OperatorError(
                f"there is no registry in {root_dir}.",
                reason=Reason.NOT_FOUND,
                hint="The cloud process makes it at its first start; name its folder with --registry.",
            )
        self._repository = Repository(root_dir, clock, expiry)

    @property
    def draft_file(self) -> Path:
        """Where a root on its way lies."""
        return self._repository.draft_file

    def root(self) -> Root:
        """The root in force."""
        return self._repository.load().root.signed

    def holders(self) -> list[Holder]:
        """Every key the root in force names, and where its private half is."""
        root, keys = self.root(), self._repository.keys
        at = {signer.public_key.keyid: path.name for path, signer in keys.roots().items()}
        at |= {s.public_key.keyid: f"{role}.pem" for role in ONLINE for s in keys.online(role)[:1]}
        locked = {path.stem.rpartition("-")[2]: path.name for path in keys.root_files() if path.name not in at.values()}
        return [
            Holder(i, role, at.get(i, "") or locked.get(i[:8], ""), i not in at and i[:8] in locked)
            for role in ROLES
            for i in root.roles[role].keyids
        ]

    def draft(self) -> Draft | None:
        """The root on its way, if there is one."""
        found = self._draft()
        return self._state(found) if found is not None else None

    def add_root(self, key: Key, *, instead_of: str = "") -> Draft:
        """Let another key sign roots.

        Args:
            key: Its public half.
            instead_of: Id, or the beginning of one, of a root key that it replaces.

        Raises:
            OperatorError: It is one already, or the other is none.
        """

        def change(root: Root) -> None:
            if key.keyid in root.keys:
                raise OperatorError(f"{key.keyid[:12]} is a key of this registry already.", hint="Add another one.")
            if instead_of:
                root.revoke_key(named(root, instead_of), ROOT)
            root.add_key(key, ROOT)

        return self._edit(change)

    def retire_root(self, keyid: str) -> Draft:
        """Let a root key sign no more.

        Raises:
            OperatorError: It is none, or fewer than the threshold would be left.
        """
        return self._edit(lambda root: root.revoke_key(named(root, keyid), ROOT))

    def threshold(self, count: int) -> Draft:
        """Ask for so many signatures under roots from the next one on.

        Raises:
            OperatorError: There are not so many keys.
        """

        def change(root: Root) -> None:
            root.roles[ROOT].threshold = count

        return self._edit(change)

    def rotate(self, role: str) -> Draft:
        """Replace the key of targets, snapshot or timestamp by a new one, which is made here.

        Raises:
            OperatorError: `role` is none of them.
        """
        if role not in ONLINE:
            raise OperatorError(
                f"the key of {role!r} is not replaced here.",
                hint="Roles: targets, snapshot, timestamp. A root key is replaced by `add-root NEW --instead-of ID`.",
            )

        def change(root: Root) -> None:
            for old in list(root.roles[role].keyids):
                root.revoke_key(old, role)
            root.add_key(self._repository.keys.prepare(role).public_key, role)

        return self._edit(change)

    def renew(self) -> Draft:
        """Draft the same root with a new term."""
        return self._edit(lambda root: None)

    def apply(self, data: bytes) -> Draft:
        """Take signatures from a copy of the draft that was signed elsewhere; enough of them put it in force.

        Raises:
            OperatorError: It is not a copy of this draft.
        """
        signed = parse_draft(data)
        with self._repository.locked():
            draft = self._draft()
            if draft is None or draft.signed != signed.signed:
                raise OperatorError(
                    "that is not a copy of the draft here.", hint="Copy next.root.json again and have it signed anew."
                )
            draft.signatures.update(signed.signatures)
            return self._keep(draft)

    def discard(self) -> bool:
        """Drop the draft and the keys made for it; whether there was one."""
        with self._repository.locked():
            held = self._repository.draft_file.exists()
            self._repository.draft_file.unlink(missing_ok=True)
            self._repository.keys.give_up()
            return held

    def move_roots(self, folder: Path, passphrase: bytes | None, *, keep: int = 0) -> list[Path]:
        """Move private root keys to another medium, each checked there before it is removed here.

        Args:
            folder: Where to.
            passphrase: Protects them there.
            keep: So many stay.

        Returns:
            The new files; the public half of each lies beside it.

        Raises:
            OperatorError: There is such a file already, or nothing is here to move.
        """
        with self._repository.locked():
            here = list(self._repository.keys.roots().items())
            moving = here[: max(0, len(here) - keep)]
            if not moving:
                raise OperatorError("no private root key lies here.", hint="They were moved already.")
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            moved = []
            for path, signer in moving:
                target = folder / f"root-{signer.public_key.keyid[:8]}.pem"
                write_private(target, signer, passphrase)
                write_atomically(target.with_suffix(".pub"), public_pem(signer))
                if read_private(target, passphrase).public_key != signer.public_key:
                    raise OperatorError(f"{target} does not read back as it was written.", hint="Use another medium.")
                moved.append(target)
                shred(path)
            sync_folder(self._repository.keys.folder)
        logger.warning("%d root keys were moved to %s", len(moved), folder)
        return moved

    def _edit(self, change: Callable[[Root], None]) -> Draft:
        with self._repository.locked():
            draft = self._draft()
            if draft is None:
                draft = Metadata.from_bytes(self._repository.root_bytes())
                draft.signed.version += 1
            try:
                change(draft.signed)
            except ValueError as error:
                raise OperatorError(f"the root cannot be changed so: {error}.", hint="Nothing was changed.") from error
            check(draft.signed)
            draft.signed.expires = self._repository.now() + self._repository.expiry.of(ROOT)
            draft.signatures.clear()
            for signer in self._repository.keys.roots().values():
                draft.sign(signer, append=True)
            return self._keep(draft)

    def _keep(self, draft: Metadata[Root]) -> Draft:
        known = {*draft.signed.roles[ROOT].keyids, *self._repository.load().root.signed.roles[ROOT].keyids}
        for stranger in set(draft.signatures) - known:
            del draft.signatures[stranger]
        self._repository.write(self._repository.draft_file, draft.to_bytes())
        state = self._state(draft)
        if state.missing:
            return state
        self._repository.enact(draft)
        logger.warning("root %d is in force", draft.signed.version)
        return Draft(state.version, state.expires, draft, 0, (), done=True)

    def _draft(self) -> Metadata[Root] | None:
        with contextlib.suppress(FileNotFoundError):
            return parse_draft(self._repository.draft_file.read_bytes())
        return None

    def _state(self, draft: Metadata[Root]) -> Draft:
        found = draft.signed.get_root_verification_result(
            self._repository.load().root.signed, draft.signed_bytes, draft.signatures
        )
        halves = (found.first, found.second)
        missing = max(max(0, half.threshold - len(half.signed)) for half in halves)
        unsigned = tuple(sorted({i for half in halves if not half.verified for i in half.unsigned}))
        return Draft(draft.signed.version, draft.signed.expires, draft, missing, unsigned)
