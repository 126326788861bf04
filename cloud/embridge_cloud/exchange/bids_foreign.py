"""EMG-BIDS datasets of others: an EMG file is a session, as far as BIDS tells."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.exchange import edf
from embridge_cloud.exchange.bids_names import GAP, read_json, read_table
from embridge_cloud.exchange.recording import IMPORT_EDGE, Provenance, Recording, StreamData, session_id
from embridge_cloud.store.manifest import file_sha256
from embridge_shared.errors import DataError, Reason
from embridge_shared.session import (
    CueShown,
    Event,
    Marker,
    Participant,
    Placement,
    Repetition,
    RepetitionStatus,
    Session,
    SessionClosed,
    SessionOpened,
    Side,
)
from embridge_shared.signal import Modality, SampleType, StreamSpec

_UNITS: Final = {"uV": "µV", "µV": "µV", "μV": "µV", "mV": "mV", "V": "V"}
_GAIN_SPREAD: Final = 1e-6


def read_foreign(root: Path, path: Path) -> Recording:
    """One EMG file as a session; what BIDS leaves open is said in its provenance.

    Raises:
        DataError: It is damaged or holds no EMG.
    """
    notes: list[str] = []
    sidecar = _inherited(root, path, "emg.json")
    file = edf.read(path)
    listed = _nearest(root, path, "channels.tsv")
    wanted = [c["name"] for c in read_table(listed) if c.get("type") == "EMG"] if listed else list(file.labels)
    signals = {s.label: s for s in file.signals}
    wanted = [w for w in wanted if w in signals]
    if not wanted:
        raise DataError(f"{path.name} holds no EMG channel", reason=Reason.TOO_LITTLE_DATA)
    rate_hz = float(sidecar.get("SamplingFrequency") or signals[wanted[0]].sampling_frequency)
    spec, values = _physical(path, file, wanted, rate_hz, notes)
    digest = file_sha256(path)
    started = _started(file, notes)
    entities = dict(part.partition("-")[::2] for part in path.stem.split("_")[:-1])
    index = np.arange(len(values), dtype=np.int64)
    t_ns = started + np.rint(index * (1e9 / rate_hz)).astype(np.int64)
    description = read_json(root / "dataset_description.json") if (root / "dataset_description.json").is_file() else {}
    session = Session(
        id=session_id("bids", digest),
        edge=IMPORT_EDGE,
        participant=Participant(id=entities.get("sub", "unnamed"), consent_version="unstated"),
        placement=_placement(sidecar),
        protocol=str(sidecar.get("TaskName", entities.get("task", ""))),
        streams=(spec,),
        started_ns=started,
        host_ns=0,
        source=f"import:bids:{path.name}",
    )
    origin = Provenance(
        format="bids",
        file=path.name,
        sha256=digest,
        licence=str(description.get("License") or "unstated"),
        citation=str(description.get("HowToAcknowledge") or ""),
        url=str(description.get("DatasetDOI") or ""),
        notes=tuple(notes),
    )
    events: list[Event] = [SessionOpened(session=session), origin.marker(started)]
    events += _events(_nearest(root, path, "events.tsv"), started)
    end = int(t_ns[-1]) if len(t_ns) else started
    events.append(SessionClosed(t_ns=end, totals=(len(values),)))
    return Recording(session, (StreamData(index, t_ns, values),), tuple(events))


def _physical(
    path: Path, file: Any, wanted: list[str], rate_hz: float, notes: list[str]
) -> tuple[StreamSpec, NDArray[Any]]:
    """Digital values where one scale holds for all channels, else physical ones as float32."""
    signals = {s.label: s for s in file.signals}
    chosen = [signals[w] for w in wanted]
    gains, offsets = zip(*(_gain(s) for s in chosen), strict=True)
    units = {s.physical_dimension for s in chosen}
    if len(units) > 1:
        raise DataError(f"{path.name}: channels in {', '.join(sorted(units))}", hint="Bring them to one unit.")
    unit = _UNITS.get(units.pop(), "a.u.")
    one = max(gains) - min(gains) <= _GAIN_SPREAD * max(gains) and all(abs(o) < 1.0 for o in offsets)
    if one:
        values = edf.stack(file, wanted)
        dtype = SampleType.INT16 if values.dtype == np.int16 else SampleType.INT32
        if any(offsets):
            notes.append(f"a constant offset of up to {max(abs(o) for o in offsets):.2f} steps was left out")
        scale = float(gains[0])
    else:
        values = np.stack([s.data for s in chosen], axis=1).astype(np.float32)
        dtype, scale = SampleType.FLOAT32, 1.0
        notes.append("channels have scales of their own: stored as float32 in their unit")
    spec = StreamSpec(
        name="emg",
        modality=Modality.EMG,
        channels=tuple(wanted),
        rate_hz=rate_hz,
        dtype=dtype,
        unit=unit,
        scale=scale,
        calibrated=unit != "a.u.",
        device="bids",
    )
    return spec, np.ascontiguousarray(values.astype(dtype.numpy))


def _gain(signal: Any) -> tuple[float, float]:
    """Unit a step, and where 0 lies in steps."""
    gain = (signal.physical_max - signal.physical_min) / (signal.digital_max - signal.digital_min)
    return gain, signal.physical_max / gain - signal.digital_max


def _started(file: Any, notes: list[str]) -> int:
    """Unix time of the first sample, ns; 0 where the file does not tell."""
    try:
        moment = dt.datetime.combine(file.startdate, file.starttime, dt.UTC)
    except ValueError:
        notes.append("the date is not stated: times count from 1970")
        return 0
    return round(moment.timestamp() * 1e6) * 1000


def _placement(sidecar: dict[str, Any]) -> Placement:
    text = str(sidecar.get("EMGPlacementSchemeDescription") or "unstated")
    return Placement(side=Side.LEFT if "left" in text.lower() else Side.RIGHT, position=text[:200])


def _events(path: Path | None, started: int) -> Iterator[Event]:
    counts: dict[str, int] = {}
    for row in [] if path is None else read_table(path):
        try:
            start = started + round(float(row["onset"]) * 1e9)
            length = round(float(row.get("duration") or 0) * 1e9)
        except (KeyError, ValueError):
            continue
        name = row.get("trial_type") or row.get("value") or "event"
        if length <= 0 or name == GAP:
            yield Marker(text=name, t_ns=max(0, start))
            continue
        begin = max(0, start)
        if row.get("kind") == "cue":
            yield CueShown(gesture=name, repetition=_count(row), start_ns=begin, end_ns=begin + length)
            continue
        counts[name] = counts.get(name, 0) + 1
        yield Repetition(
            gesture=name,
            repetition=_count(row) or counts[name],
            start_ns=begin,
            end_ns=begin + length,
            status=RepetitionStatus.REJECTED if row.get("status") == "rejected" else RepetitionStatus.ACCEPTED,
            reason=row.get("reason", ""),
        )


def _count(row: dict[str, str]) -> int:
    """The repetition a row names, 0 where it names none."""
    text = row.get("repetition", "")
    return int(text) if text.isdigit() else 0


def _inherited(root: Path, path: Path, suffix: str) -> dict[str, Any]:
    """Fields of a sidecar, those nearer to the file over those further up."""
    merged: dict[str, Any] = {}
    for found in _chain(root, path, suffix):
        merged |= read_json(found)
    return merged


def _nearest(root: Path, path: Path, suffix: str) -> Path | None:
    return next(reversed(_chain(root, path, suffix)), None)


def _chain(root: Path, path: Path, suffix: str) -> list[Path]:
    """Files of a kind that hold for a data file, from the top down: their entities are among its own."""
    own = set(path.stem.split("_")[:-1])
    folders = [path.parent, *(p for p in path.parents if p.is_relative_to(root) and p != path.parent)]
    found = []
    for folder in reversed(folders):
        fitting = [p for p in folder.glob(f"*{suffix}") if set(p.name.removesuffix(suffix).split("_")) - {""} <= own]
        found += sorted(fitting, key=lambda p: len(p.name))
    return found
