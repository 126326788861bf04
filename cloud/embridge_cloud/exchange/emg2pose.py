"""The HDF5 layout of emg2pose: sessions written in it, its files as sessions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.datasets.emg2pose import Emg2PoseDataset, to_recording
from embridge_cloud.datasets.emg2pose_files import CHANNELS, RATE_HZ, SUFFIX, read_take
from embridge_cloud.exchange.paired import repetitions
from embridge_cloud.exchange.recording import IMPORT_EDGE, Provenance, Recording, StreamData, of_sealed, session_id
from embridge_cloud.store.manifest import file_sha256
from embridge_cloud.store.sealed import SealedSession
from embridge_shared.errors import OperatorError, Reason
from embridge_shared.hand import JOINTS, N_JOINTS
from embridge_shared.session import Event, Participant, Placement, Session, SessionClosed, SessionOpened, Side
from embridge_shared.signal import Modality, SampleType, StreamSpec

_NEAR_NS: Final = 100_000_000
"""Pose further from a sample is none of its."""
_TIME_NS: Final = 500.0
"""What float64 seconds since 1970 can tell."""
_OFF_RATE: Final = 0.05


def check(sessions: Sequence[SealedSession]) -> None:
    """Check that sessions fit the layout.

    Raises:
        OperatorError: One does not.
    """
    for sealed in sessions:
        _streams(sealed.session)


def export(sessions: Sequence[SealedSession], folder: Path) -> None:
    """Write a file for each stretch without loss.

    EMG is in the stream's unit, float32; joint angles are drawn linearly to the EMG's samples, 0 where there is none.

    Args:
        sessions: Verified; each with 16 channels at 2 kHz.
        folder: An empty folder.

    Raises:
        OperatorError: A session does not fit the layout.
    """
    for sealed in sessions:
        recording = of_sealed(sealed)
        emg, pose = _streams(recording.session)
        spec, data = recording.session.streams[emg], recording.streams[emg]
        for number, (a, b) in enumerate(data.runs()):
            angles = None if pose is None else _angles(recording, pose, data.t_ns[a:b])
            name = f"{sealed.id}-{number:03d}{SUFFIX}"
            _write(folder / name, recording.session, spec, data, (a, b), angles)


def _streams(session: Session) -> tuple[int, int | None]:
    """Ordinals of the EMG and of the joint angles."""
    for i, s in enumerate(session.streams):
        if s.modality is Modality.EMG and s.n_channels == CHANNELS and s.rate_hz == RATE_HZ:
            angles = [j for j, p in enumerate(session.streams) if p.modality is Modality.POSE and p.channels == JOINTS]
            return i, angles[0] if angles else None
    shapes = ", ".join(f"{s.name} {s.n_channels} × {s.rate_hz:g} Hz" for s in session.streams)
    raise OperatorError(
        f"session {session.id} does not fit emg2pose, which is {CHANNELS} channels at {RATE_HZ:g} Hz: it has {shapes}",
        reason=Reason.INCOMPATIBLE,
        hint="Export it as bids or parquet.",
    )


def _angles(recording: Recording, pose: int, t_ns: NDArray[np.int64]) -> NDArray[np.float64]:
    """Joint angles at moments, rad (n, 20); 0 where no sample is near or the hand was not found."""
    spec, data = recording.session.streams[pose], recording.streams[pose]
    out = np.zeros((len(t_ns), N_JOINTS))
    values = data.values.astype(np.float64) * spec.scale
    good = np.isfinite(values).all(axis=1) & (values != 0).any(axis=1)
    times, values = data.t_ns[good], values[good]
    if len(times) < 2:
        return out
    since, at = (times - t_ns[0]).astype(np.float64), (t_ns - t_ns[0]).astype(np.float64)
    for j in range(N_JOINTS):
        out[:, j] = np.interp(at, since, values[:, j])
    right = np.clip(np.searchsorted(times, t_ns), 1, len(times) - 1)
    left_ns, right_ns = times[right - 1], times[right]
    inside = (t_ns >= left_ns) & (t_ns <= right_ns) & (right_ns - left_ns <= _NEAR_NS)
    out[~inside] = 0.0
    return out


def _write(
    path: Path,
    session: Session,
    spec: StreamSpec,
    data: StreamData,
    rows: tuple[int, int],
    angles: NDArray[np.float64] | None,
) -> None:
    import h5py

    a, b = rows
    kind = np.dtype([("time", "<f8"), ("joint_angles", "<f8", (N_JOINTS,)), ("emg", "<f4", (CHANNELS,))])
    series = np.zeros(b - a, kind)
    series["time"] = data.t_ns[a:b] * 1e-9
    series["emg"] = data.values[a:b].astype(np.float64) * spec.scale
    if angles is not None:
        series["joint_angles"] = angles
    attributes: dict[str, Any] = {
        "filename": path.stem,
        "session": str(session.id),
        "stage": session.protocol or session.purpose.value,
        "user": session.participant.id,
        "side": session.placement.side.value,
        "sample_rate": RATE_HZ,
        "num_channels": CHANNELS,
        "start": float(series["time"][0]),
        "end": float(series["time"][-1]),
        "embridge_first": int(data.index[a]),
        "embridge_scale": spec.scale,
        "embridge_unit": spec.unit,
        "embridge_dtype": spec.dtype.value,
    }
    with h5py.File(path, "w") as file:
        group = file.create_group("emg2pose")
        group.create_dataset("timeseries", data=series, compression="gzip", compression_opts=1, shuffle=True)
        group.attrs.update(attributes)


def read(root: Path) -> Iterator[Recording]:
    """Files of a folder as sessions, one in memory at a time.

    Raises:
        DataError: The folder holds none, or one is damaged.
    """
    dataset = Emg2PoseDataset(root)
    paths = {p.stem: p for p in root.rglob(f"*{SUFFIX}")}
    facts = dataset.facts
    for entry in dataset.entries:
        path = paths[entry.filename]
        take = read_take(path)
        paired = to_recording(take, entry, dataset.take_number(entry))
        values, emg, notes = _raw(take.emg, take.attributes)
        ours = bool(notes)
        digest = file_sha256(path)
        t_ns = _times(take.time_s, take.attributes)
        started = int(t_ns[0])
        pose = StreamSpec(
            name="pose", modality=Modality.POSE, channels=JOINTS, rate_hz=RATE_HZ, dtype=SampleType.FLOAT32,
            unit="rad", calibrated=True, device="embridge" if ours else "emg2pose",
        )  # fmt: skip
        session = Session(
            id=session_id("emg2pose", digest),
            edge=IMPORT_EDGE,
            participant=Participant(id=entry.user, consent_version="unstated" if ours else "publisher's"),
            placement=Placement(
                side=Side.LEFT if entry.side == "left" else Side.RIGHT, position="unstated" if ours else "wrist"
            ),
            protocol=entry.stage,
            streams=(emg, pose),
            started_ns=started,
            host_ns=0,
            source=f"import:emg2pose:{path.name}",
        )
        origin = Provenance(
            format="emg2pose",
            file=path.name,
            sha256=digest,
            licence="unstated" if ours else facts.licence,
            citation="" if ours else facts.citation,
            url="" if ours else facts.url,
            notes=(*notes, "joint angles were float64 and are stored as float32"),
        )
        index = np.arange(len(t_ns), dtype=np.int64)
        events: tuple[Event, ...] = (
            SessionOpened(session=session),
            origin.marker(started),
            *repetitions(paired.segments, t_ns),
            SessionClosed(t_ns=int(t_ns[-1]), totals=(len(index), len(index))),
        )
        streams = [StreamData(index, t_ns, v, tolerance_ns=_TIME_NS) for v in (values, take.angles)]
        yield Recording(session, tuple(streams), events)


def _times(time_s: NDArray[np.float64], attributes: Any) -> NDArray[np.int64]:
    """Unix times of samples; counted from the file's start at 2 kHz where its own do not run at that rate."""
    n = len(time_s)
    t_ns = np.rint(time_s * 1e9)
    if n > 1 and np.isfinite(t_ns).all() and t_ns[0] >= 0 and (np.diff(t_ns) >= 0).all():
        rate_hz = (n - 1) / max(float(time_s[-1] - time_s[0]), 1e-9)
        if abs(rate_hz / RATE_HZ - 1) <= _OFF_RATE:
            return np.asarray(t_ns, np.int64)
    start = max(0, round(float(attributes.get("start", 0.0)) * 1e9))
    return np.asarray(start + np.rint(np.arange(n) * (1e9 / RATE_HZ)), np.int64)


def _raw(emg: NDArray[np.float32], attributes: Any) -> tuple[NDArray[Any], StreamSpec, tuple[str, ...]]:
    """Samples as they were stored where EMBridge wrote the file and they come back exactly, else the file's own."""
    channels = tuple(f"e{i}" for i in range(CHANNELS))
    plain = StreamSpec(
        name="emg", modality=Modality.EMG, channels=channels, rate_hz=RATE_HZ, dtype=SampleType.FLOAT32,
        unit="a.u.", device="emg2pose",
    )  # fmt: skip
    scale, dtype = float(attributes.get("embridge_scale", 0.0)), str(attributes.get("embridge_dtype", ""))
    if scale <= 0 or dtype not in tuple(SampleType):
        return emg, plain, ()
    kind = SampleType(dtype)
    raw = emg.astype(np.float64) / scale
    values = (np.rint(raw) if kind is not SampleType.FLOAT32 else raw).astype(kind.numpy)
    if not np.array_equal((values.astype(np.float64) * scale).astype(np.float32), emg):
        return emg, plain, ("the samples are those of the file, not the device's",)
    spec = StreamSpec(
        name="emg", modality=Modality.EMG, channels=channels, rate_hz=RATE_HZ, dtype=kind,
        unit=str(attributes.get("embridge_unit", "a.u.")), scale=scale, device="embridge",
    )  # fmt: skip
    return values, spec, (f"stretch from sample {attributes.get('embridge_first', 0)} of {attributes['session']}",)
