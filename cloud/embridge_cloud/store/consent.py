"""What participants agreed to, as training and exports ask it: a file beside the sealed sessions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

import msgspec

from embridge_shared.archive import write_atomically
from embridge_shared.errors import DataError, OperatorError, Reason
from embridge_shared.session import Session

FILE = "consents.json"
_OTHERS = "consents-*.json"


class Scope(StrEnum):
    """What somebody can agree to: being recorded, being learnt from, being handed on."""

    COLLECT = "collect"
    TRAIN = "train"
    SHARE = "share"


class Consent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What somebody agreed to.

    Attributes:
        version: Version of the text they signed.
        scopes: What they agreed to; nothing after a withdrawal.
        given_ns: Unix time, ns.
    """

    version: str
    scopes: tuple[Scope, ...]
    given_ns: int


class Consents:
    """Consents on record.

    Args:
        given: By participant.
        required: Whether somebody who is not on record agreed to nothing; otherwise they agreed to what their
            session says, as before there was a record.
    """

    def __init__(self, given: Mapping[str, Consent], *, required: bool = False) -> None:
        self._given = dict(given)
        self.required = required

    def refusal(self, session: Session, scope: Scope, *, named: bool = True) -> str:
        """Why a session must not be used for `scope`; empty when it may.

        Args:
            session: The session.
            scope: What it is wanted for.
            named: Say whose it is; a log, which outlives an erasure, must not.
        """
        who = f"participant {session.participant.id!r}" if named else "its participant"
        consent = self._given.get(session.participant.id)
        if consent is None:
            simulated = session.source.startswith("synthetic:")
            return f"no consent of {who} is on record" if self.required and not simulated else ""
        if scope in consent.scopes:
            return ""
        if not consent.scopes:
            return f"{who} has withdrawn"
        return f"{who} agreed to {', '.join(consent.scopes)} (version {consent.version}), not to {scope}"

    def check(self, session: Session, scope: Scope) -> None:
        """Raise unless a session may be used for `scope`.

        Raises:
            OperatorError: CONSENT: it may not; the message says why.
        """
        why = self.refusal(session, scope)
        if why:
            raise OperatorError(
                f"session {session.id} is refused: {why}.",
                reason=Reason.CONSENT,
                hint=f"Leave it out, or record their consent: embridge participant consent ID --scope {scope}.",
            )


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    participants: dict[str, Consent]
    required: bool = False


def read_consents(sealed: Path) -> Consents:
    """The consents beside a folder of sealed sessions; where several clouds share it the latest word counts.

    Raises:
        DataError: A file is damaged: nothing may be used until it is written anew.
    """
    given: dict[str, Consent] = {}
    required = False
    for path in [sealed / FILE, *sorted(sealed.glob(_OTHERS))]:
        try:
            found = msgspec.json.decode(path.read_bytes(), type=_File)
        except FileNotFoundError:
            continue
        except (ValueError, DataError) as error:
            raise DataError(
                f"{path} is damaged: {error}.",
                reason=Reason.MALFORMED,
                hint="Start the cloud process: it writes it anew.",
            ) from error
        required = required or found.required
        for name, consent in found.participants.items():
            known = given.get(name)
            if known is None or consent.given_ns >= known.given_ns:
                given[name] = consent
    return Consents(given, required=required)


def shared_name(state_dir: Path) -> str:
    """Name of one cloud's file in a folder that several share."""
    return _OTHERS.replace("*", hashlib.sha256(str(state_dir).encode()).hexdigest()[:8])


def write_consents(sealed: Path, given: Mapping[str, Consent], *, required: bool = False, name: str = FILE) -> None:
    """Write consents to a file beside sealed sessions, atomically."""
    body = msgspec.json.format(msgspec.json.encode(_File(dict(sorted(given.items())), required)))
    write_atomically(sealed / name, body, mode=0o600)
