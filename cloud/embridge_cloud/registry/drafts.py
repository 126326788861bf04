"""Roots on their way: what is signed on machines that hold nothing but a root key."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root

from embridge_cloud.registry.keys import ROOT
from embridge_shared.archive import write_atomically
from embridge_shared.errors import OperatorError, Reason

_LEAST_ID: Final = 6
_MAX_DRAFT: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Holder:
    """A key that may sign.

    Attributes:
        keyid: Its id.
        role: What it signs.
        at: The file of its private half beside the repository; empty for one that is elsewhere.
        locked: That file is protected by a passphrase.
    """

    keyid: str
    role: str
    at: str = ""
    locked: bool = False


@dataclass(frozen=True, slots=True)
class Draft:
    """A root on its way.

    Attributes:
        version: Its version.
        expires: When it would end.
        root: The metadata.
        missing: How many signatures it lacks.
        unsigned: Root keys, of it and of the root in force, that have not signed and may.
        done: It is in force.
    """

    version: int
    expires: datetime
    root: Metadata[Root]
    missing: int
    unsigned: tuple[str, ...] = ()
    done: bool = False


def sign_draft(path: Path, signers: Iterable[CryptoSigner]) -> list[str]:
    """Sign a copy of a draft, on whatever machine the keys are.

    Args:
        path: The copy; the signatures are added to it.
        signers: Root keys.

    Returns:
        Ids of the keys that signed.

    Raises:
        OperatorError: It is no draft.
    """
    try:
        draft = parse_draft(path.read_bytes())
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror}.", hint="Name the copy of the draft.") from error
    done = []
    for signer in signers:
        draft.sign(signer, append=True)
        done.append(signer.public_key.keyid)
    write_atomically(path, draft.to_bytes())
    return done


def parse_draft(data: bytes) -> Metadata[Root]:
    """Read a draft.

    Raises:
        OperatorError: It is none.
    """
    try:
        if len(data) > _MAX_DRAFT:
            raise ValueError("too long")
        found: Metadata[Any] = Metadata.from_bytes(data)
    except (RepositoryError, ValueError, RecursionError) as error:
        raise OperatorError(f"that is no root metadata: {error}.", hint="Copy next.root.json again.") from error
    if found.signed.type != ROOT:
        raise OperatorError(f"that is metadata of {found.signed.type}.", hint="Sign next.root.json.")
    return found


def check(root: Root) -> None:
    """Raise OperatorError where the keys of a root cannot reach its threshold."""
    role = root.roles[ROOT]
    if not 1 <= role.threshold <= len(role.keyids):
        raise OperatorError(
            f"{len(role.keyids)} root keys cannot give {role.threshold} signatures.",
            hint="Add a root key first, or ask for fewer signatures with `threshold`.",
        )


def named(root: Root, keyid: str) -> str:
    """The one root key whose id begins so; raises OperatorError."""
    found = [i for i in root.roles[ROOT].keyids if i.startswith(keyid)]
    if len(keyid) < _LEAST_ID or len(found) != 1:
        raise OperatorError(
            f"{keyid!r} names {len(found)} root keys.",
            reason=Reason.NOT_FOUND,
            hint=f"`embridge release key list` shows them; give at least {_LEAST_ID} digits.",
        )
    return found[0]
