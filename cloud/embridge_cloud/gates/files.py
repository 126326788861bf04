"""What a gate leaves beside a job: its decision and its card; read without anything that learns."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from embridge_shared.archive import write_atomically
from embridge_shared.errors import DataError, Reason
from embridge_shared.fleet import GateReport

GATE: Final = "gate.json"
GUARD: Final = "guard.json"
CARD_PAGE: Final = "card.html"
CARD_TEXT: Final = "card.md"


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What decoders make of one session; balanced accuracies, None where one cannot say.

    Attributes:
        session: Its id.
        participant: Whose.
        trusted: Whether an earlier release was made of it.
        chance: What guessing reaches.
        own: By its other repetitions.
        pose: By other people's poses.
        others: By other people's EMG.
        suspicious: Why it is; empty when it is not.
    """

    session: str
    participant: str
    trusted: bool
    chance: float
    own: float | None = None
    pose: float | None = None
    others: float | None = None
    suspicious: str = ""


def write_guard(folder: Path, seen: tuple[Seen, ...]) -> None:
    """Keep what was found beside a job."""
    write_atomically(folder / GUARD, msgspec.json.format(msgspec.json.encode(seen)))


def read_guard(folder: Path) -> tuple[Seen, ...]:
    """What was found beside a job; nothing where nobody looked.

    Raises:
        DataError: MALFORMED.
    """
    path = folder / GUARD
    if not path.is_file():
        return ()
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[Seen, ...])
    except msgspec.DecodeError as error:
        raise DataError(f"{path} is damaged: {error}", reason=Reason.MALFORMED) from error


def keep_report(job_folder: Path, report: GateReport) -> None:
    """Write a decision beside its job, atomically."""
    write_atomically(job_folder / GATE, msgspec.json.format(msgspec.json.encode(report)))


def read_report(job_folder: Path) -> GateReport | None:
    """What was decided about a job; None before.

    Raises:
        DataError: MALFORMED.
    """
    path = job_folder / GATE
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=GateReport)
    except msgspec.DecodeError as error:
        raise DataError(f"{path} is damaged: {error}", reason=Reason.MALFORMED) from error
