"""EMG-BIDS datasets: those EMBridge wrote come back as they were, others as far as BIDS tells."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_cloud.exchange import edf
from embridge_cloud.exchange.bids_export import MAP
from embridge_cloud.exchange.bids_names import GAP, OURS, SOURCE, StreamNote, read_table
from embridge_cloud.exchange.recording import IMPORT_EDGE, Provenance, Recording, StreamData, numbered, session_id
from embridge_cloud.store.manifest import Manifest, file_sha256, read_manifest
from embridge_cloud.store.ranges import RangeSet
from embridge_cloud.store.reader import Anchor
from embridge_cloud.store.sealed import SealedSession
from embridge_cloud.store.sealing import timeline
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


def read(root: Path) -> Iterator[Recording]:
    """Sessions of a dataset, one in memory at a time.

    Raises:
        DataError: It is no dataset with EMG, or damaged.
    """
    ours = sorted(p for p in (root / SOURCE).glob("*") if (p / MAP).is_file())
    if ours:
        yield from (_own(root, kept) for kept in ours)
        return
    files = sorted(p for p in root.rglob("*_emg.*") if p.suffix.lower() in edf.RANGES and not _aside(root, p))
    if not files:
        raise DataError(
            f"{root} is no EMG-BIDS dataset: no file is named like *_emg.edf",
            reason=Reason.NOT_FOUND,
            hint="Give the folder of dataset_description.json.",
        )
    yield from (_foreign(root, path) for path in files)


def _aside(root: Path, path: Path) -> bool:
    return path.relative_to(root).parts[0] in ("sourcedata", "derivatives", "code")


# written by EMBridge


def _own(root: Path, kept: Path) -> Recording:
    manifest = read_manifest(kept)
    sealed = SealedSession(kept)
    files = _json(kept / MAP)
    streams = []
    for entry in manifest.streams:
        whole, arrivals = (kept / entry.file).is_file(), sealed.arrivals(entry.name)
        if whole:
            samples = sealed.samples(entry.name)
            index, t_ns, values = samples.index, samples.t_ns, samples.values
        else:
            index, t_ns, values = _from_bids(root, str(files.get(entry.name, "")), manifest, entry.stream)
        streams.append(StreamData(index, t_ns, values, arrivals, tuple(entry.inferred)))
    frame = sealed.quality()
    rows = [] if frame is None else frame.collect().to_dicts()
    events = numbered(manifest.session, sealed.events(), rows)
    return Recording(manifest.session, tuple(streams), events, manifest.content_hash)


def _from_bids(
    root: Path, name: str, manifest: Manifest, stream: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]:
    """Indices, times and samples of a stream that a BIDS file holds exactly."""
    spec = manifest.session.streams[stream]
    path = (root / name).resolve()
    if not name or not path.is_relative_to(root.resolve()):
        raise DataError(f"stream {spec.name} of session {manifest.session.id} is in no file of {root}")
    note = _note(path.with_suffix(".json"))
    if note.stream != spec or note.session != str(manifest.session.id):
        raise DataError(f"{path.name} is not stream {spec.name} of its session", reason=Reason.FOREIGN)
    index = _held(note)
    if spec.modality is Modality.EMG:
        dense = edf.stack(edf.read(path), edf.labels(spec))
    else:
        dense = _motion_values(path)[1].to_numpy()
    if len(dense) < note.total:
        raise DataError(f"{path.name} holds {len(dense)} of {note.total} samples", reason=Reason.TRUNCATED)
    values = np.ascontiguousarray(dense[index].astype(spec.dtype.numpy))
    return index, _times(note, index, spec.rate_hz), values


def _note(path: Path) -> StreamNote:
    try:
        return msgspec.convert(_json(path).get(OURS), StreamNote)
    except msgspec.ValidationError as error:
        raise DataError(f'{path.name} has no sound "{OURS}": {error}', reason=Reason.MALFORMED) from error


def _held(note: StreamNote) -> NDArray[np.int64]:
    parts = [np.arange(a, b, dtype=np.int64) for a, b in RangeSet(note.gaps).missing(0, note.total)]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _times(note: StreamNote, index: NDArray[np.int64], rate_hz: float) -> NDArray[np.int64]:
    """Times drawn from the clock map."""
    firsts, started = note.clock.index, int(note.started_ns)
    if not len(index):
        return np.zeros(0, np.int64)
    if not firsts or len(firsts) != len(note.clock.ns) or firsts[0] != index[0]:
        raise DataError("the clock in the sidecar does not begin with the stream", reason=Reason.MALFORMED)
    anchors = [Anchor(a, 1, 0, started + ns) for a, ns in zip(firsts, note.clock.ns, strict=True)]
    anchors[-1] = anchors[-1]._replace(n=note.total - anchors[-1].first)
    return timeline(anchors, index, rate_hz)


def _motion_values(path: Path) -> tuple[list[dict[str, str]], Any]:
    """Channels of a motion file and its values as a frame, without its latency."""
    import polars as pl

    channels = read_table(_beside(path, "channels.tsv"))
    try:
        frame = pl.read_csv(path, separator="\t", has_header=False, null_values=["n/a"], infer_schema_length=None)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path.name} is no table: {error}", reason=Reason.MALFORMED) from error
    if frame.width != len(channels):
        raise DataError(f"{path.name} has {frame.width} columns, not {len(channels)}", reason=Reason.WRONG_SHAPE)
    wanted = [i for i, c in enumerate(channels) if c.get("type") != "LATENCY"]
    values = frame.select([frame.columns[i] for i in wanted])
    whole = all(d.is_integer() for d in values.dtypes)
    return [channels[i] for i in wanted], values.fill_null(0 if whole else float("nan"))


def _beside(path: Path, suffix: str) -> Path:
    """The file of the same stem with another suffix, as in `_channels.tsv`."""
    return path.with_name(f"{path.stem.rpartition('_')[0]}_{suffix}")


# written by others


def _foreign(root: Path, path: Path) -> Recording:
    """One EMG file as a session; what BIDS leaves open is said in its provenance."""
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
    description = _json(root / "dataset_description.json") if (root / "dataset_description.json").is_file() else {}
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
        merged |= _json(found)
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


def _json(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"there is no {path}", reason=Reason.NOT_FOUND) from None
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no JSON: {error}", reason=Reason.MALFORMED) from error
    if not isinstance(body, dict):
        raise DataError(f"{path} is no JSON object", reason=Reason.MALFORMED)
    return body
