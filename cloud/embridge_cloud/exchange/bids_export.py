"""Sessions as an EMG-BIDS dataset: EDF or BDF, motion, events, sidecars; in sourcedata what BIDS has no place for."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.exchange import edf
from embridge_cloud.exchange.bids_names import (
    BIDS_VERSION,
    GAP,
    SOURCE,
    ClockMap,
    Names,
    StreamNote,
    distinct,
    document,
    emg_channels,
    emg_sidecar,
    motion_channels,
    motion_sidecar,
    table,
)
from embridge_cloud.exchange.knots import knots
from embridge_cloud.exchange.recording import Recording, StreamData, of_sealed
from embridge_cloud.store.manifest import MANIFEST
from embridge_cloud.store.sealed import SealedSession
from embridge_shared.errors import OperatorError, Reason
from embridge_shared.session import CueShown, Event, Marker, Repetition, RepetitionStatus, Session
from embridge_shared.signal import Modality, SampleType, StreamSpec

MAP: Final = "bids.json"
_EDF_YEARS: Final = range(1985, 2085)
_MOTION: Final = (Modality.POSE, Modality.GLOVE, Modality.IMU)
_EVENTS: Final = {
    "trial_type": {"Description": "gesture that was asked for or made, text of a marker, or BAD_gap for lost samples"},
    "kind": {
        "Description": "what the row is",
        "Levels": {
            "cue": "the prompt was shown",
            "repetition": "the movement itself",
            "marker": "a note",
            "gap": "samples that were lost; the file holds 0 there",
        },
    },
    "repetition": {"Description": "counted from 1 within the gesture"},
    "status": {"Description": "whether a repetition was accepted"},
    "reason": {"Description": "why it was rejected; of a gap whether its length is counted or an estimate"},
    "recording": {"Description": "stream a gap is in"},
    "sample": {"Description": "first sample, counted from 0 in the first EMG file"},
}


def check(sessions: Sequence[SealedSession]) -> None:
    """Check that sessions make a dataset.

    Raises:
        OperatorError: A session has no EMG, or two would have the same labels.
    """
    distinct(s.session for s in sessions)
    for sealed in sessions:
        if not any(s.modality is Modality.EMG for s in sealed.session.streams):
            raise OperatorError(
                f"session {sealed.id} has no EMG",
                reason=Reason.INCOMPATIBLE,
                hint="Export it as parquet, or leave it out.",
            )


def export(sessions: Sequence[SealedSession], folder: Path, *, title: str = "EMBridge sessions") -> None:
    """Write a dataset.

    Args:
        sessions: What it holds, verified.
        folder: An empty folder.
        title: Its name.

    Raises:
        OperatorError: They make no dataset, see `check`.
        DataError: A session is damaged.
    """
    check(sessions)
    _describe(folder, sessions, title)
    for sealed in sessions:
        _session(folder, sealed)


def _describe(folder: Path, sessions: Sequence[SealedSession], title: str) -> None:
    """What stands at the top of a dataset."""
    body = {
        "Name": title,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "raw",
        "GeneratedBy": [{"Name": "EMBridge", "Version": version("embridge")}],
    }
    (folder / "dataset_description.json").write_text(document(body), encoding="utf-8")
    (folder / "README.md").write_text(_readme(title, sessions), encoding="utf-8")
    people = {Names.of(s.session).subject: s.session for s in sessions}
    rows = [(name, s.participant.id, s.participant.consent_version) for name, s in sorted(people.items())]
    (folder / "participants.tsv").write_text(
        table(["participant_id", "pseudonym", "consent_version"], rows), encoding="utf-8"
    )
    described = {
        "pseudonym": {"Description": "the participant's code in the store the session comes from; never a name"},
        "consent_version": {"Description": "version of the consent text the participant signed"},
    }
    (folder / "participants.json").write_text(document(described), encoding="utf-8")


def _readme(title: str, sessions: Sequence[SealedSession]) -> str:
    return (
        f"# {title}\n\n{len(sessions)} sessions of surface EMG, written by EMBridge {version('embridge')}.\n\n"
        "EMG is in EDF or BDF with the digital values of the device. Lost samples are 0 there, marked as BAD_gap and\n"
        'listed in the events and in the sidecar under "EMBridge", beside the map from samples to time. Hand pose is\n'
        "motion data; its latency is on the time axis of the first EMG file. What BIDS has no place for (every event,\n"
        "packet arrivals, signal quality as it was seen, streams that no BIDS file holds exactly) is in sourcedata.\n\n"
        "Participants are pseudonyms. Whoever holds a copy must delete it when a participant withdraws.\n"
    )


def _session(folder: Path, sealed: SealedSession) -> None:
    recording = of_sealed(sealed)
    session, names = recording.session, Names.of(recording.session)
    emg = [i for i, s in enumerate(session.streams) if s.modality is Modality.EMG]
    axis = _Axis(session.streams[emg[0]], recording.streams[emg[0]])
    kept = folder / SOURCE / str(session.id)
    kept.mkdir(parents=True)
    for name in (MANIFEST, sealed.manifest.events.file, *(s.arrivals.file for s in sealed.manifest.streams)):
        shutil.copyfile(sealed.directory / name, kept / name)
    if sealed.manifest.quality is not None:
        shutil.copyfile(sealed.directory / sealed.manifest.quality.file, kept / sealed.manifest.quality.file)
    files: dict[str, str] = {}
    for i, (spec, data) in enumerate(zip(session.streams, recording.streams, strict=True)):
        exact = False
        if i in emg or spec.modality in _MOTION:
            path = folder / names.stream_file(spec, alone=len(emg) == 1)
            path.parent.mkdir(parents=True, exist_ok=True)
            write = _write_emg if i in emg else _write_motion
            written, exact = write(path, session, spec, data, axis)
            files[spec.name] = written.relative_to(folder).as_posix()
        if not exact:
            entry = sealed.manifest.streams[i]
            shutil.copyfile(sealed.directory / entry.file, kept / entry.file)
    (kept / MAP).write_text(document(files), encoding="utf-8")
    _write_events(folder, names, recording, axis)
    when = _moment(axis.origin_ns).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    base = Path(names.subject) / names.session
    rows = [(Path(f).relative_to(base).as_posix(), when) for f in sorted(files.values())]
    (folder / base / f"{names.stem()}_scans.tsv").write_text(table(["filename", "acq_time"], rows), encoding="utf-8")


class _Axis:
    """The time axis of a session's first EMG file: seconds at the nominal rate."""

    def __init__(self, spec: StreamSpec, data: StreamData) -> None:
        self._rate_hz = spec.rate_hz
        self._index, self._t_ns = data.index.astype(np.float64), data.t_ns
        first = data.index[0] if len(data.index) else 0
        start = int(data.t_ns[0]) if len(data.t_ns) else 0
        self.origin_ns = start - round(int(first) / spec.rate_hz * 1e9)

    def samples(self, t_ns: NDArray[np.int64]) -> NDArray[np.float64]:
        """Place of moments among the samples, at the nominal rate before the first and after the last."""
        if not len(self._t_ns):
            return np.asarray((t_ns - self.origin_ns) * (1e-9 * self._rate_hz), np.float64)
        since = (self._t_ns - self._t_ns[0]).astype(np.float64)
        at = (t_ns - self._t_ns[0]).astype(np.float64)
        inside = np.interp(at, since, self._index)
        before, after = np.minimum(at, 0), np.maximum(at - since[-1], 0)
        return np.asarray(inside + (before + after) * 1e-9 * self._rate_hz, np.float64)

    def seconds(self, t_ns: NDArray[np.int64]) -> NDArray[np.float64]:
        """Moments on the axis, s."""
        return np.asarray(self.samples(t_ns) / self._rate_hz, np.float64)


def _note(
    session: Session, spec: StreamSpec, data: StreamData, *, exact: bool, error: float, scale: float
) -> StreamNote:
    cuts = knots(data.index, data.t_ns, spec.rate_hz)
    return StreamNote(
        session=str(session.id),
        stream=spec,
        total=data.total,
        gaps=data.gaps,
        inferred=data.inferred,
        exact=exact,
        max_error=error,
        scale=scale,
        started_ns=str(session.started_ns),
        clock=ClockMap(
            index=tuple(data.index[cuts].tolist()), ns=tuple((data.t_ns[cuts] - session.started_ns).tolist())
        ),
    )


def _write_emg(path: Path, session: Session, spec: StreamSpec, data: StreamData, axis: _Axis) -> tuple[Path, bool]:
    digital = edf.digitise(spec, data.values)
    error = 0.0
    if not digital.exact:
        finite = np.nan_to_num(data.values.astype(np.float64) * spec.scale, posinf=0.0, neginf=0.0)
        error = float(np.abs(digital.values * digital.scale - finite).max(initial=0.0))
    note = _note(session, spec, data, exact=digital.exact, error=error, scale=digital.scale)
    name = path.name
    target = path.with_name(f"{name}_emg{digital.suffix}")
    started = _moment(axis.origin_ns)
    length = edf.write(target, spec, digital, index=data.index, gaps=data.gaps, started=started)
    path.with_name(f"{name}_emg.json").write_text(document(emg_sidecar(session, spec, note, length)), encoding="utf-8")
    path.with_name(f"{name}_channels.tsv").write_text(emg_channels(spec), encoding="utf-8")
    return target, digital.exact


def _write_motion(path: Path, session: Session, spec: StreamSpec, data: StreamData, axis: _Axis) -> tuple[Path, bool]:
    import polars as pl

    exact = spec.dtype is not SampleType.FLOAT32 or bool(np.isfinite(data.values).all())
    note = _note(session, spec, data, exact=exact, error=0.0, scale=0.0)
    every = np.arange(data.total)
    t_ns = np.interp(every, data.index, (data.t_ns - axis.origin_ns).astype(np.float64)) if data.total else every
    seconds = axis.seconds(np.rint(t_ns).astype(np.int64) + axis.origin_ns)
    columns: dict[str, Any] = {"latency": pl.Series([f"{s:.6f}" for s in seconds], dtype=pl.String)}
    held = np.zeros(data.total, bool)
    held[data.index] = True
    for i in range(spec.n_channels):
        dense = np.zeros(data.total, spec.dtype.value)
        dense[data.index] = data.values[:, i]
        series = pl.Series(dense)
        fine = pl.Series(held & np.isfinite(dense))
        columns[f"c{i}"] = pl.select(pl.when(fine).then(series)).to_series()
    target = path.with_name(f"{path.name}_motion.tsv")
    pl.DataFrame(columns).write_csv(target, include_header=False, separator="\t", null_value="n/a", quote_style="never")
    path.with_name(f"{path.name}_motion.json").write_text(
        document(motion_sidecar(session, spec, note, _effective_hz(spec, data))), encoding="utf-8"
    )
    path.with_name(f"{path.name}_channels.tsv").write_text(motion_channels(spec), encoding="utf-8")
    return target, exact


def _effective_hz(spec: StreamSpec, data: StreamData) -> float:
    """Samples a second by the stream's clock."""
    span_ns = int(data.t_ns[-1] - data.t_ns[0]) if len(data.t_ns) > 1 else 0
    return (int(data.index[-1]) - int(data.index[0])) / span_ns * 1e9 if span_ns else spec.rate_hz


def _write_events(folder: Path, names: Names, recording: Recording, axis: _Axis) -> None:
    rows = [row for event in recording.events if (row := _row(event, axis)) is not None]
    for spec, data in zip(recording.session.streams, recording.streams, strict=True):
        for a, b in data.gaps if spec.modality is Modality.EMG else ():
            how = "estimate" if (a, b) in data.inferred else "counted"
            rows.append((a / spec.rate_hz, (b - a) / spec.rate_hz, GAP, "gap", None, None, how, spec.name, a))
    rows.sort(key=lambda row: (row[0], row[3]))
    columns = ["onset", "duration", "trial_type", "kind", "repetition", "status", "reason", "recording", "sample"]
    stem = folder / names.folder("emg") / names.stem(names.task)
    stem.with_name(f"{stem.name}_events.tsv").write_text(table(columns, rows), encoding="utf-8")
    stem.with_name(f"{stem.name}_events.json").write_text(document(_EVENTS), encoding="utf-8")


def _row(event: Event, axis: _Axis) -> tuple[Any, ...] | None:
    if isinstance(event, Marker):
        (onset,) = axis.seconds(np.array([event.t_ns]))
        (sample,) = axis.samples(np.array([event.t_ns]))
        return onset, 0.0, event.text, "marker", None, None, None, None, round(sample)
    if not isinstance(event, CueShown | Repetition):
        return None
    start, end = axis.seconds(np.array([event.start_ns, event.end_ns]))
    sample = round(axis.samples(np.array([event.start_ns]))[0])
    made = isinstance(event, Repetition)
    status = event.status if isinstance(event, Repetition) else None
    reason = event.reason if isinstance(event, Repetition) and status is RepetitionStatus.REJECTED else None
    kind = "repetition" if made else "cue"
    number = event.repetition or None
    return start, max(0.0, end - start), event.gesture, kind, number, status and status.value, reason, None, sample


def _moment(t_ns: int) -> dt.datetime:
    """A moment for a header; the first day EDF knows for one before it."""
    moment = dt.datetime.fromtimestamp(t_ns // 1000 * 1e-6, dt.UTC)
    return moment if moment.year in _EDF_YEARS else moment.replace(year=_EDF_YEARS[0])
