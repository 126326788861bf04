"""What EMG-BIDS asks for: labels, tables and sidecars."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from embridge_cloud.exchange.edf import UNITS, labels
from embridge_cloud.store.ranges import Range
from embridge_shared.errors import DataError, OperatorError, Reason
from embridge_shared.session import Session
from embridge_shared.signal import Modality, StreamSpec

BIDS_VERSION: Final = "1.11.1"
SOURCE: Final = Path("sourcedata") / "embridge"
OURS: Final = "EMBridge"
GAP: Final = "BAD_gap"
_UNKNOWN: Final = "n/a"
_ID_CHARACTERS: Final = 12
_BIDS_UNITS: Final = UNITS | {"rad": "rad", "deg": "deg", "g": "g", "m/s²": "m/s^2", "°/s": "deg/s"}


class ClockMap(msgspec.Struct, frozen=True, kw_only=True):
    """The clock of a stream: lines between these samples, the nominal rate after the last.

    Attributes:
        index: Samples, rising.
        ns: Time of each since `Session.started_ns`, ns.
    """

    index: tuple[int, ...]
    ns: tuple[int, ...]


class StreamNote(msgspec.Struct, frozen=True, kw_only=True):
    """What a sidecar says of a stream under the key "EMBridge", so that it comes back as it was.

    Attributes:
        session: Id of its session.
        stream: The stream.
        total: Samples, lost ones included; what the file holds beyond is padding.
        gaps: Ranges of samples that were lost; the file holds 0 or n/a there.
        inferred: Those of `gaps` whose length is an estimate.
        exact: The file gives the samples bit by bit; else they lie in sourcedata as well.
        max_error: Largest deviation of the file's values, in the stream's unit.
        scale: The file's digital value times this is the stream's unit; 0 where the file holds no digital values.
        started_ns: Unix time the clock counts from, ns, as text: JSON readers round integers that long.
        clock: Its clock.
    """

    session: str
    stream: StreamSpec
    total: int
    gaps: tuple[Range, ...]
    inferred: tuple[Range, ...]
    exact: bool
    max_error: float
    scale: float
    started_ns: str
    clock: ClockMap


@dataclass(frozen=True, slots=True)
class Names:
    """Labels of one session in a dataset.

    Attributes:
        subject: As in "sub-p01".
        session: As in "ses-0f3a…".
        task: As in "task-fingers121".
    """

    subject: str
    session: str
    task: str

    @classmethod
    def of(cls, session: Session) -> Names:
        """Labels of a session; two participants may get the same, see `distinct`."""
        person = label(session.participant.id) or "unnamed"
        task = label(session.protocol) or session.purpose.value
        return cls(f"sub-{person}", f"ses-{session.id.hex[-_ID_CHARACTERS:]}", f"task-{task}")

    def folder(self, datatype: str) -> Path:
        """Folder of a datatype."""
        return Path(self.subject) / self.session / datatype

    def stem(self, *entities: str) -> str:
        """Name of a file, without its suffix."""
        return "_".join([self.subject, self.session, *entities])

    def stream_file(self, spec: StreamSpec, *, alone: bool) -> Path:
        """Path of a stream's files, without suffix; `alone` says that the session has no other EMG."""
        if spec.modality is Modality.EMG:
            entities = [self.task] if alone else [self.task, f"recording-{label(spec.name)}"]
            return self.folder("emg") / self.stem(*entities)
        return self.folder("motion") / self.stem(f"{self.task}", f"tracksys-{label(spec.name)}")


def label(text: str) -> str:
    """The letters and digits of a text, as a BIDS label may have."""
    return "".join(c for c in text if c.isascii() and c.isalnum())


def distinct(sessions: Iterable[Session]) -> None:
    """Check that no two participants, and no two sessions, get the same labels.

    Raises:
        OperatorError: Two do.
    """
    people: dict[str, str] = {}
    taken: dict[tuple[str, str], Session] = {}
    for s in sessions:
        names = Names.of(s)
        if people.setdefault(names.subject, s.participant.id) != s.participant.id:
            raise OperatorError(
                f"participants {people[names.subject]} and {s.participant.id} would both be {names.subject}",
                hint="Export them into two datasets.",
            )
        if taken.setdefault((names.subject, names.session), s).id != s.id:
            raise OperatorError(f"two sessions would be {names.session}", hint="Export them into two datasets.")


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A tab-separated table; None is n/a."""
    out = io.StringIO()
    write = csv.writer(out, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, escapechar="\\").writerow
    write(columns)
    for row in rows:
        write([_UNKNOWN if v is None or v == "" else _cell(v) for v in row])
    return out.getvalue()


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a tab-separated table; n/a is empty.

    Raises:
        DataError: It is missing or no table.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except FileNotFoundError:
        raise DataError(f"there is no {path}", reason=Reason.NOT_FOUND) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no table: {error}", reason=Reason.MALFORMED) from error
    return [{k: "" if v in (None, _UNKNOWN) else v for k, v in row.items() if k is not None} for row in rows]


def _cell(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return f"{value:.6f}"
    return str(value).replace("\t", " ").replace("\r", " ").replace("\n", " ").replace("\\", "/")


def document(body: Any) -> str:
    """JSON for people."""
    return json.dumps(msgspec.to_builtins(body), indent=2, ensure_ascii=False) + "\n"


def unit(text: str) -> str:
    """A unit as BIDS writes it; n/a for counts and arbitrary units."""
    return _BIDS_UNITS.get(text, _UNKNOWN)


def emg_sidecar(session: Session, spec: StreamSpec, note: StreamNote, length: int) -> dict[str, Any]:
    """Content of `_emg.json`."""
    place = session.placement
    turned = "" if place.rotation_deg is None else f", electrode 0 at {place.rotation_deg:g}° from the ulna"
    return {
        "TaskName": session.protocol or session.purpose.value,
        "TaskDescription": f"recorded for {session.purpose.value}",
        "ManufacturersModelName": spec.device or _UNKNOWN,
        "EMGPlacementScheme": "Other",
        "EMGPlacementSchemeDescription": f"armband, {place.side.value} arm, {place.position}{turned}",
        "EMGReference": _UNKNOWN,
        "SamplingFrequency": spec.rate_hz,
        "PowerLineFrequency": _UNKNOWN,
        "SoftwareFilters": _UNKNOWN,
        "HardwareFilters": _UNKNOWN,
        "RecordingType": "discontinuous" if note.gaps else "continuous",
        "RecordingDuration": length / spec.rate_hz,
        "EMGChannelCount": spec.n_channels,
        OURS: msgspec.to_builtins(note),
    }


def emg_channels(spec: StreamSpec) -> str:
    """Content of `_channels.tsv` beside EMG."""
    rows = [
        (name, "EMG", unit(spec.unit), original, spec.rate_hz)
        for name, original in zip(labels(spec), spec.channels, strict=True)
    ]
    return table(["name", "type", "units", "description", "sampling_frequency"], rows)


def motion_type(spec: StreamSpec) -> str:
    """Type of a stream's channels in motion-BIDS."""
    return "JNTANG" if spec.modality is Modality.POSE and spec.unit in ("rad", "deg") else "MISC"


def motion_sidecar(session: Session, spec: StreamSpec, note: StreamNote, effective_hz: float) -> dict[str, Any]:
    """Content of `_motion.json`."""
    angles = motion_type(spec) == "JNTANG"
    return {
        "TaskName": session.protocol or session.purpose.value,
        "TaskDescription": f"recorded for {session.purpose.value}",
        "TrackingSystemName": spec.name,
        "ManufacturersModelName": spec.device or _UNKNOWN,
        "SamplingFrequency": spec.rate_hz,
        "SamplingFrequencyEffective": effective_hz,
        "MissingValues": _UNKNOWN,
        "MotionChannelCount": spec.n_channels + 1,
        "JNTANGChannelCount": spec.n_channels if angles else 0,
        "MiscChannelCount": 0 if angles else spec.n_channels,
        "LATENCYChannelCount": 1,
        **dict.fromkeys([f"{k}ChannelCount" for k in ("ACCEL", "ANGACCEL", "GYRO", "MAGN", "ORNT", "POS", "VEL")], 0),
        "SubjectArtefactDescription": _UNKNOWN,
        "TrackedPointsCount": spec.n_channels if angles else 0,
        OURS: msgspec.to_builtins(note),
    }


def motion_channels(spec: StreamSpec) -> str:
    """Content of `_channels.tsv` beside motion."""
    kind = motion_type(spec)
    rows: list[Sequence[Any]] = [("latency", None, "LATENCY", None, "s", spec.rate_hz)]
    rows += [(name, None, kind, name, unit(spec.unit), spec.rate_hz) for name in spec.channels]
    return table(["name", "component", "type", "tracked_point", "units", "sampling_frequency"], rows)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        DataError: It is missing or holds something else.
    """
    try:
        body = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"there is no {path}", reason=Reason.NOT_FOUND) from None
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no JSON: {error}", reason=Reason.MALFORMED) from error
    if not isinstance(body, dict):
        raise DataError(f"{path} is no JSON object", reason=Reason.MALFORMED)
    return body
