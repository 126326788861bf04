"""Sessions on their way in: read in their format, named for the store, brought to its door."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

import msgspec

from embridge_cloud.exchange.recording import IMPORT_EDGE, Recording
from embridge_shared.errors import OperatorError, Reason
from embridge_shared.session import Participant, Purpose, SessionOpened


class ImportFormat(StrEnum):
    """What sessions can be read from."""

    BIDS = "bids"
    EMG2POSE = "emg2pose"
    NINAPRO = "ninapro"
    PARQUET = "parquet"
    XDF = "xdf"
    LSL_RECORDER = "lsl-recorder"


def read(path: Path, format: ImportFormat, *, base: str = "") -> Iterator[Recording]:
    """Sessions of a file or folder, one in memory at a time.

    Args:
        path: Where they lie.
        format: What they are.
        base: Which NinaPro base, where the files do not tell.

    Raises:
        OperatorError: There is no such path.
        DataError: It holds none, or one is damaged.
    """
    if not path.exists():
        raise OperatorError(f"there is no {path}.", reason=Reason.NOT_FOUND)
    if format in (ImportFormat.XDF, ImportFormat.LSL_RECORDER):
        from embridge_cloud.exchange import xdf

        return xdf.read(path, format.value)
    if not path.is_dir():
        raise OperatorError(f"{path} is no folder.", hint=f"Give the folder of the {format.value} files.")
    if format is ImportFormat.BIDS:
        from embridge_cloud.exchange import bids_import

        return bids_import.read(path)
    if format is ImportFormat.EMG2POSE:
        from embridge_cloud.exchange import emg2pose

        return emg2pose.read(path)
    if format is ImportFormat.PARQUET:
        from embridge_cloud.exchange import parquet

        return parquet.read(path)
    from embridge_cloud.exchange.paired import ninapro_sessions

    return ninapro_sessions(path, base)


def named(
    recording: Recording,
    *,
    participant: str = "",
    consent_version: str = "",
    purpose: Purpose | None = None,
) -> Recording:
    """A session from elsewhere under a participant's code of this store, with the consent that covers it.

    Raises:
        OperatorError: It was exported from a store and keeps what it says of itself.
    """
    if not (participant or consent_version or purpose):
        return recording
    session = recording.session
    if session.edge != IMPORT_EDGE:
        raise OperatorError(
            f"session {session.id} was recorded by edge {session.edge} and keeps its participant and purpose.",
            hint="Import it without --participant, --consent and --purpose.",
        )
    person = Participant(
        id=participant or session.participant.id,
        consent_version=consent_version or session.participant.consent_version,
    )
    session = msgspec.structs.replace(session, participant=person, purpose=purpose or session.purpose)
    return replace(recording, session=session, events=(SessionOpened(session=session), *recording.events[1:]))
