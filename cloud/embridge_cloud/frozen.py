"""The data of a training, written down before it begins: which sessions, with which content."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec

from embridge_cloud.recipe import Recipe
from embridge_cloud.store.consent import Consents, Scope, read_consents
from embridge_cloud.store.sealed import Catalogue, SealedSession
from embridge_shared.archive import write_atomically
from embridge_shared.errors import DataError, Reason
from embridge_shared.session import Purpose
from embridge_shared.signal import Modality

logger = logging.getLogger(__name__)

SNAPSHOT: Final = "snapshot.json"
_POSES = (Modality.POSE, Modality.GLOVE)


class FrozenSession(msgspec.Struct, frozen=True, kw_only=True):
    """A session as it is to be trained on.

    Attributes:
        session: Its id.
        participant: Whose.
        content_hash: Digest over its samples.
        paired_s: Length of its EMG where it also has hand pose, s.
    """

    session: str
    participant: str
    content_hash: str
    paired_s: float = 0.0


class Frozen(msgspec.Struct, frozen=True, kw_only=True):
    """The sessions of a training.

    Attributes:
        taken_ns: Unix time, ns.
        sessions: In the order they are read, which does not depend on when they came.
        left_out: Why others are not among them, by id.
    """

    taken_ns: int
    sessions: tuple[FrozenSession, ...]
    left_out: dict[str, str] = {}

    @property
    def digest(self) -> str:
        """sha256 over the sessions' content hashes."""
        return digest_of(s.content_hash for s in self.sessions)


def digest_of(content_hashes: Iterable[str]) -> str:
    """sha256 over content hashes, in whatever order they come."""
    return hashlib.sha256("\n".join(sorted(content_hashes)).encode()).hexdigest()


def freeze(catalogue: Catalogue, recipe: Recipe, *, now_ns: int) -> Frozen:
    """Say which sealed sessions a recipe may learn from now.

    Args:
        catalogue: Sealed sessions.
        recipe: Whom and what it leaves out.
        now_ns: Unix time, ns.

    Raises:
        DataError: The record of consents is damaged.
    """
    consents = read_consents(catalogue.directory)
    taken, left_out = [], dict[str, str]()
    for sealed in catalogue.sessions():
        why = unwanted(sealed, recipe)
        if why is None:
            continue
        why = why or not_permitted(sealed, consents)
        if why:
            left_out[str(sealed.id)] = why
        else:
            taken.append(brief_of(sealed))
    return Frozen(taken_ns=now_ns, sessions=_in_order(taken), left_out=left_out)


def frozen_of(sessions: Iterable[SealedSession], *, now_ns: int) -> Frozen:
    """The same of sessions that somebody has chosen."""
    return Frozen(taken_ns=now_ns, sessions=_in_order(map(brief_of, sessions)))


def _in_order(sessions: Iterable[FrozenSession]) -> tuple[FrozenSession, ...]:
    # The order of arrival must not decide what is drawn: the same recordings give the same release.
    return tuple(sorted(sessions, key=lambda s: (s.participant, s.content_hash)))


def brief_of(sealed: SealedSession) -> FrozenSession:
    """What a snapshot says of a session."""
    return FrozenSession(
        session=str(sealed.id),
        participant=sealed.session.participant.id,
        content_hash=sealed.content_hash,
        paired_s=_paired_s(sealed),
    )


def _paired_s(sealed: SealedSession) -> float:
    held = {sealed.session.streams[e.stream].modality: e for e in sealed.manifest.streams}
    emg = held.get(Modality.EMG)
    if emg is None or not any(m in held for m in _POSES):
        return 0.0
    return emg.rows / sealed.session.streams[emg.stream].rate_hz


def unwanted(sealed: SealedSession, recipe: Recipe) -> str | None:
    """None for a session that is none of a recipe's business; else why it is left out, empty if it is not."""
    session = sealed.session
    if session.purpose is not Purpose.TRAINING or session.split.held_out:
        return None
    if session.participant.id in recipe.held_out:
        return None
    return "the recipe leaves it out" if str(sealed.id) in recipe.excluded else ""


def not_permitted(sealed: SealedSession, consents: Consents) -> str:
    """Why its participant does not want it learnt from; empty if they do."""
    return consents.refusal(sealed.session, Scope.TRAIN, named=False)


def write_frozen(folder: Path, frozen: Frozen) -> None:
    """Keep it beside a job; atomic."""
    write_atomically(folder / SNAPSHOT, msgspec.json.format(msgspec.json.encode(frozen)))


def read_frozen(folder: Path) -> Frozen:
    """Read it back.

    Raises:
        DataError: It is missing or damaged.
    """
    path = folder / SNAPSHOT
    try:
        return msgspec.json.decode(path.read_bytes(), type=Frozen)
    except FileNotFoundError:
        raise DataError(f"{path} is missing", reason=Reason.NOT_FOUND, hint="Start another job.") from None
    except msgspec.DecodeError as error:
        raise DataError(f"{path} is damaged: {error}", reason=Reason.DAMAGED, hint="Start another job.") from error


def still_there(catalogue: Catalogue, frozen: Frozen, consents: Consents) -> tuple[list[SealedSession], dict[str, str]]:
    """The sessions of a snapshot that may still be read, and why others may not, by id.

    Raises:
        DataError: HASH_MISMATCH: a session is no longer what it was.
    """
    found, left_out = list[SealedSession](), dict(frozen.left_out)
    for wanted in frozen.sessions:
        try:
            sealed = catalogue.get(UUID(wanted.session))
        except DataError as error:
            if error.reason is not Reason.NOT_FOUND:
                raise
            left_out[wanted.session] = "it was removed after the job began"
            continue
        if sealed.content_hash != wanted.content_hash:
            raise DataError(
                f"session {wanted.session} is not what it was when the job began",
                reason=Reason.HASH_MISMATCH,
                hint="`embridge store verify` tells which is right; then start another job.",
            )
        why = not_permitted(sealed, consents)
        if why:
            left_out[wanted.session] = f"{why}; that was said after the job began"
        else:
            found.append(sealed)
    return found, left_out
