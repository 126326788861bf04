"""XDF, as LabRecorder writes it: read by pyxdf, its clocks brought to one, its losses estimated by time."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.exchange.recording import IMPORT_EDGE, Provenance, Recording, StreamData, session_id
from embridge_cloud.store.manifest import file_sha256
from embridge_cloud.store.ranges import Range
from embridge_shared.errors import DataError, Reason
from embridge_shared.hand import JOINTS, N_JOINTS
from embridge_shared.session import Event, Marker, Participant, Placement, Session, SessionClosed, SessionOpened
from embridge_shared.signal import Modality, SampleType, StreamSpec

_KINDS: Final = (
    (re.compile(r"emg", re.IGNORECASE), Modality.EMG),
    (re.compile(r"glove", re.IGNORECASE), Modality.GLOVE),
    (re.compile(r"pose|mocap|joint|hand", re.IGNORECASE), Modality.POSE),
    (re.compile(r"imu|accel|gyro|magnet|quat|orient", re.IGNORECASE), Modality.IMU),
)
_MICROVOLT: Final = re.compile(r"(µ|μ|u|micro)v(olts?)?", re.IGNORECASE)
_TYPES: Final = {
    "int8": SampleType.INT16,
    "int16": SampleType.INT16,
    "int32": SampleType.INT32,
    "float32": SampleType.FLOAT32,
    "double64": SampleType.FLOAT32,
    "int64": SampleType.INT32,
}
_MAGIC: Final = b"XDF:"
_GZIP: Final = b"\x1f\x8b"
_TOLERANCE_NS: Final = 1_000.0
_IRREGULAR_NS: Final = 1_000_000.0
_BREAK: Final = 1.5
"""Nominal intervals without a sample that are a loss."""


def read(path: Path, format: str = "xdf") -> Iterator[Recording]:
    """Sessions of a file or of all files under a folder, one in memory at a time.

    Args:
        path: An `.xdf` file, or a folder as LabRecorder fills one.
        format: What provenance calls it.

    Raises:
        DataError: There is none, or one is damaged or holds no signal.
    """
    files = sorted(p for p in path.rglob("*") if p.suffix in (".xdf", ".xdfz")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"there is no .xdf file under {path}", reason=Reason.NOT_FOUND)
    yield from (_session(file, format) for file in files)


def _session(path: Path, format: str) -> Recording:
    streams, header = _load(path)
    signals = [s for s in streams if _modality(s) is not None and len(s["time_stamps"])]
    if not signals:
        raise DataError(
            f"{path.name} holds no EMG, pose, glove or inertial signal",
            reason=Reason.TOO_LITTLE_DATA,
            hint="Signals are known by the type LSL gives them, as EMG or MoCap.",
        )
    base_s = min(float(s["time_stamps"][0]) for s in streams if len(s["time_stamps"]))
    notes = ["clocks were brought to one and jitter was taken out by pyxdf"]
    started = _started(header, notes)
    short = [_text(s, "name") for s in signals if _announced(s) != len(s["time_stamps"])]
    if short:
        notes.append(f"the recorder did not end in good order; samples may be missing at the end of {', '.join(short)}")
    left_out = [_text(s, "name") for s in streams if s not in signals and not _is_text(s)]
    if left_out:
        notes.append(f"left out: {', '.join(left_out)}")
    specs: list[StreamSpec] = []
    data: list[StreamData] = []
    for stream in signals:
        spec, found = _signal(stream, {s.name for s in specs}, started, base_s, notes)
        specs.append(spec)
        data.append(found)
    digest = file_sha256(path)
    entities = dict(part.partition("-")[::2] for part in path.stem.split("_") if "-" in part)
    session = Session(
        id=session_id("xdf", digest),
        edge=IMPORT_EDGE,
        participant=Participant(id=entities.get("sub", "unnamed"), consent_version="unstated"),
        placement=Placement(position="unstated"),
        protocol=entities.get("task", ""),
        streams=tuple(specs),
        started_ns=started,
        host_ns=0,
        source=f"import:{format}:{path.name}",
    )
    origin = Provenance(format=format, file=path.name, sha256=digest, notes=tuple(notes))
    marks = sorted((m for s in streams if _is_text(s) for m in _markers(s, started, base_s)), key=lambda m: m.t_ns)
    end = max(int(d.t_ns[-1]) for d in data)
    events: list[Event] = [SessionOpened(session=session), origin.marker(started), *marks]
    events.append(SessionClosed(t_ns=end, totals=tuple(d.total for d in data)))
    return Recording(session, tuple(data), tuple(events))


def _load(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    import pyxdf

    foreign = DataError(f"{path.name} is no XDF file", reason=Reason.FOREIGN, hint="LabRecorder writes .xdf.")
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        # pyxdf leaves a foreign file open.
        if magic != _MAGIC and not (magic[:2] == _GZIP and path.suffix == ".xdfz"):
            raise foreign
        streams, header = pyxdf.load_xdf(path, synchronize_clocks=True, dejitter_timestamps=True)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"there is no file {path}", reason=Reason.NOT_FOUND) from None
    except Exception as error:
        # pyxdf tells a damaged file by whatever its parts raise.
        raise DataError(f"{path.name} is damaged: {error}", reason=Reason.MALFORMED) from error
    if header is None or any("time_stamps" not in s or "time_series" not in s for s in streams):
        raise foreign
    return list(streams), dict(header)


def _text(stream: dict[str, Any], key: str) -> str:
    found = stream["info"].get(key) or [""]
    return str(found[0] or "")


def _announced(stream: dict[str, Any]) -> int:
    """Samples the recorder says it wrote; -1 where it never came to say so."""
    try:
        return int(stream["footer"]["info"]["sample_count"][0])
    except (KeyError, IndexError, TypeError, ValueError):
        return -1


def _is_text(stream: dict[str, Any]) -> bool:
    return _text(stream, "channel_format") == "string"


def _modality(stream: dict[str, Any]) -> Modality | None:
    if _is_text(stream) or _text(stream, "channel_format") not in _TYPES:
        return None
    for word in (_text(stream, "type"), _text(stream, "name")):
        for pattern, modality in _KINDS:
            if pattern.search(word):
                channels = int(_text(stream, "channel_count") or 0)
                # Joint angles are 20; other hand data are kept as what they are not known to be more than.
                return Modality.GLOVE if modality is Modality.POSE and channels != N_JOINTS else modality
    return None


def _started(header: dict[str, Any], notes: list[str]) -> int:
    """Unix time of the first sample, ns: when the recorder started, to some seconds; 0 where it is not stated."""
    text = str((header.get("info", {}).get("datetime") or [""])[0] or "")
    try:
        moment = dt.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z")
    except ValueError:
        try:
            moment = dt.datetime.fromisoformat(text)
        except ValueError:
            notes.append("the date is not stated: times count from 1970")
            return 0
    aware = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    return max(0, round(aware.timestamp() * 1e6) * 1000)


def _signal(
    stream: dict[str, Any], taken: set[str], started: int, base_s: float, notes: list[str]
) -> tuple[StreamSpec, StreamData]:
    name = _name(_text(stream, "name"), taken)
    stamps = np.asarray(stream["time_stamps"], np.float64)
    values = np.asarray(stream["time_series"])
    n, channels = values.shape if values.ndim == 2 else (len(values), 0)
    if not channels or n != len(stamps) or not np.isfinite(stamps).all():
        raise DataError(f"stream {name} has {values.shape} samples at {len(stamps)} times", reason=Reason.WRONG_SHAPE)
    nominal = float(_text(stream, "nominal_srate") or 0)
    span = float(stamps[-1] - stamps[0])
    rate = nominal if nominal > 0 else ((n - 1) / span if n > 1 and span > 0 else 1.0)
    t_ns = started + np.maximum.accumulate(np.rint((stamps - base_s) * 1e9).astype(np.int64))
    index, inferred = _indices(stamps, rate) if nominal > 0 else (np.arange(n, dtype=np.int64), ())
    if nominal <= 0:
        notes.append(f"{name} has no nominal rate: its mean is given, and its times are within 1 ms")
    dtype = _TYPES[_text(stream, "channel_format")]
    if values.dtype == np.float64:
        notes.append(f"{name} was float64 and is stored as float32")
    if values.dtype == np.int64 and (np.abs(values) >= 2**31).any():
        dtype = SampleType.FLOAT32
        notes.append(f"{name} was int64 beyond 32 bits and is stored as float32")
    labels, unit = _channels(stream, channels)
    modality = _modality(stream) or Modality.EMG
    spec = StreamSpec(
        name=name,
        modality=modality,
        channels=JOINTS if modality is Modality.POSE else labels,
        rate_hz=rate,
        dtype=dtype,
        unit="rad" if modality is Modality.POSE and not unit else unit or "a.u.",
        calibrated=bool(unit),
        device=f"lsl:{_text(stream, 'name')}"[:64],
    )
    tolerance = _TOLERANCE_NS if nominal > 0 else _IRREGULAR_NS
    samples = np.ascontiguousarray(values.astype(dtype.numpy))
    return spec, StreamData(index, t_ns, samples, inferred=inferred, tolerance_ns=tolerance)


def _indices(stamps: NDArray[np.float64], rate_hz: float) -> tuple[NDArray[np.int64], tuple[Range, ...]]:
    """Indices of samples with what was lost between them, as time tells, and the gaps."""
    steps = np.diff(stamps) * rate_hz
    ahead = np.where(steps > _BREAK, np.maximum(1, np.rint(steps)), 1).astype(np.int64)
    index = np.concatenate([[0], np.cumsum(ahead)]).astype(np.int64)
    gaps = tuple((int(index[i]) + 1, int(index[i + 1])) for i in np.flatnonzero(ahead > 1))
    return index, gaps


def _channels(stream: dict[str, Any], count: int) -> tuple[tuple[str, ...], str]:
    """Labels of the channels, numbered where they are not told, and their unit where they share one."""
    try:
        found = stream["info"]["desc"][0]["channels"][0]["channel"]
        labels = [str((c.get("label") or [""])[0] or "") for c in found]
        units = {str((c.get("unit") or [""])[0] or "") for c in found}
    except (KeyError, IndexError, TypeError, AttributeError):
        labels, units = [], {""}
    if len(labels) != count or not all(labels) or len(set(labels)) != count:
        labels = [f"c{i}" for i in range(count)]
    unit = units.pop() if len(units) == 1 else ""
    return tuple(labels), "µV" if _MICROVOLT.fullmatch(unit) else unit


def _name(text: str, taken: set[str]) -> str:
    name = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:32] or "stream"
    number = 2
    unique = name
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    return unique


def _markers(stream: dict[str, Any], started: int, base_s: float) -> Iterator[Marker]:
    for row, stamp in zip(stream["time_series"], stream["time_stamps"], strict=True):
        text = "; ".join(str(cell) for cell in row)
        yield Marker(text=text, t_ns=max(0, started + round((float(stamp) - base_s) * 1e9)))
