"""Sessions on their way out: chosen, allowed, verified, noted, and only then written."""

from __future__ import annotations

import errno
import getpass
import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final
from uuid import UUID

from embridge_cloud.context import CloudPaths
from embridge_cloud.store.audit import AuditLog
from embridge_cloud.store.consent import Scope, read_consents
from embridge_cloud.store.exports import ExportIndex
from embridge_cloud.store.failures import StoreLockedError
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.sealed import Catalogue, SealedSession
from embridge_shared.cloud_client import connect
from embridge_shared.errors import OperatorError, Reason
from embridge_shared.settings import Settings

logger = logging.getLogger(__name__)

_PART: Final = ".part"
_MIN_PREFIX: Final = 4


class ExportFormat(StrEnum):
    """What sessions can be written as."""

    BIDS = "bids"
    EMG2POSE = "emg2pose"
    PARQUET = "parquet"


@dataclass(frozen=True, slots=True)
class Choice:
    """Which sessions.

    Attributes:
        sessions: Ids, or as much of their starts as is unique.
        participants: Whose; of all when empty. A journal, which holds no samples, is named by its id or protocol.
        protocols: Of which protocol; of all when empty. Without a version, of every version.
    """

    sessions: tuple[str, ...] = ()
    participants: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()

    def of(self, catalogue: Catalogue) -> list[SealedSession]:
        """The sessions it means, oldest first.

        Raises:
            OperatorError: It means none, or a start is not unique.
            DataError: One of them is damaged.
        """
        if not (self.sessions or self.participants or self.protocols):
            raise OperatorError("no session is named.", hint="Name sessions, or --participant or --protocol.")
        if self.sessions:
            chosen = [catalogue.get(_one(catalogue, text)) for text in dict.fromkeys(self.sessions)]
        else:
            chosen = [catalogue.get(i) for i in catalogue.ids()]
        found = {s.id: s for s in chosen if self._fits(s)}
        if not found:
            raise OperatorError(
                f"no sealed session of {catalogue.directory} is meant.",
                reason=Reason.NOT_FOUND,
                hint="`embridge session list` shows what is there.",
            )
        return sorted(found.values(), key=lambda s: (s.session.started_ns, s.id))

    def _fits(self, sealed: SealedSession) -> bool:
        protocol = sealed.session.protocol
        if not (sealed.session.streams or self.sessions or self.protocols):
            return False
        return (not self.participants or sealed.session.participant.id in self.participants) and (
            not self.protocols or protocol in self.protocols or protocol.rpartition("/")[0] in self.protocols
        )


def _one(catalogue: Catalogue, text: str) -> UUID:
    with suppress(ValueError):
        return UUID(text)
    found = [i for i in catalogue.ids() if str(i).startswith(text.lower())] if len(text) >= _MIN_PREFIX else []
    if len(found) != 1:
        raise OperatorError(
            f"{len(found)} sessions start with {text!r}.",
            reason=Reason.NOT_FOUND,
            hint=f"`embridge session list` shows them; give {_MIN_PREFIX} characters or more.",
        )
    return found[0]


def allowed(sessions: Sequence[SealedSession], catalogue: Catalogue) -> None:
    """Check that every participant agreed to be handed on.

    Raises:
        OperatorError: CONSENT: somebody did not; the message names all of them.
        DataError: The consents on record are damaged.
    """
    consents = read_consents(catalogue.directory)
    refused = {s.id: found for s in sessions if (found := consents.refusal(s.session, Scope.SHARE))}
    if refused:
        why = "; ".join(sorted(set(refused.values())))
        raise OperatorError(
            f"{len(refused)} of {len(sessions)} sessions may not be handed on: {why}.",
            reason=Reason.CONSENT,
            hint="Leave their participants out.",
        )


def export(
    sessions: Sequence[SealedSession],
    catalogue: Catalogue,
    *,
    format: ExportFormat,
    out: Path,
    note: Callable[[Sequence[SealedSession], str, Path], None],
    title: str = "EMBridge sessions",
) -> None:
    """Write sessions; nothing is written that was not noted before.

    Args:
        sessions: What to write.
        catalogue: Where they are sealed.
        format: As what.
        out: A folder that is new or empty.
        note: Puts the export on record; what it raises stops the export.
        title: Name of a dataset.

    Raises:
        OperatorError: Somebody did not agree to it, a session does not fit the format, or the folder is not empty.
        DataError: A session is damaged.
    """
    allowed(sessions, catalogue)
    _check(sessions, format)
    for sealed in sessions:
        sealed.verify()
    _prepare(out)
    note(sessions, format.value, out)
    part = out / _PART
    try:
        part.mkdir(parents=True)
        _write(sessions, part, format, title)
        for child in sorted(part.iterdir()):
            child.rename(out / child.name)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise OperatorError(
            f"{out} cannot be written: {error.strerror or error}.",
            reason=Reason.DISK_FULL if full else Reason.DENIED,
            hint="Make room there, or give another folder." if full else "Give another folder.",
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    logger.info("exported %d sessions as %s", len(sessions), format.value)


def _check(sessions: Sequence[SealedSession], format: ExportFormat) -> None:
    """Refuse what does not fit a format while nothing is noted yet."""
    if format is ExportFormat.BIDS:
        from embridge_cloud.exchange import bids_export

        bids_export.check(sessions)
    elif format is ExportFormat.EMG2POSE:
        from embridge_cloud.exchange import emg2pose

        emg2pose.check(sessions)


def _prepare(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(p.name != _PART for p in out.iterdir())):
        raise OperatorError(f"{out} is not empty.", hint="Give a new folder.")
    # An export that was killed leaves only this.
    shutil.rmtree(out / _PART, ignore_errors=True)


def _write(sessions: Sequence[SealedSession], folder: Path, format: ExportFormat, title: str) -> None:
    if format is ExportFormat.BIDS:
        from embridge_cloud.exchange import bids_export

        bids_export.export(sessions, folder, title=title)
    elif format is ExportFormat.EMG2POSE:
        from embridge_cloud.exchange import emg2pose

        emg2pose.export(sessions, folder)
    else:
        from embridge_cloud.exchange import parquet

        parquet.export(sessions, folder)


def noting(settings: Settings, wall_ns: Callable[[], int]) -> Callable[[Sequence[SealedSession], str, Path], None]:
    """Puts exports into the index of the cloud the settings name: its file where it is stopped, else its interface.

    Args:
        settings: The cloud.
        wall_ns: Unix time, ns.
    """

    def note(sessions: Sequence[SealedSession], format: str, out: Path) -> None:
        try:
            with HotStore(CloudPaths.of(settings).hot) as store:
                record(store, sessions, format=format, path=out, actor=f"cli:{_user()}", wall_ns=wall_ns())
        except StoreLockedError:
            ids = [str(s.id) for s in sessions]
            body = {"format": format, "path": str(out.expanduser().absolute()), "sessions": ids}
            connect(settings=settings).post("/api/exports", body)

    return note


def record(
    store: HotStore, sessions: Sequence[SealedSession], *, format: str, path: Path, actor: str, wall_ns: int
) -> UUID:
    """Put an export into the index and into the audit log.

    Raises:
        StoreError: The database refused.
    """
    whose = [(s.id, s.session.participant.id) for s in sessions]
    export = ExportIndex(store).record(whose, path=path, format=format, actor=actor, wall_ns=wall_ns)
    detail: dict[str, str | int | float] = {"format": format, "sessions": len(sessions)}
    AuditLog(store).record(actor, "session.export", f"export:{export.id}", detail, wall_ns)
    return export.id


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
