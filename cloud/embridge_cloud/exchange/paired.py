"""Public data sets as sessions, through the readers of `embridge_cloud.datasets`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.datasets.base import Facts, PairedRecording, Segment
from embridge_cloud.datasets.ninapro import NinaproDataset, detect, to_recording
from embridge_cloud.exchange.recording import IMPORT_EDGE, Provenance, Recording, StreamData, session_id
from embridge_cloud.store.manifest import file_sha256
from embridge_shared import ninapro
from embridge_shared.errors import ConfigError
from embridge_shared.session import (
    CueShown,
    Event,
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


def repetitions(segments: Sequence[Segment], t_ns: NDArray[np.int64]) -> list[Repetition]:
    """Segments as repetitions; one that belongs to no trial is rejected and says so."""
    found = []
    for s in segments:
        trial = s.repetition > 0
        found.append(
            Repetition(
                gesture=s.gesture,
                repetition=s.repetition,
                start_ns=int(t_ns[s.start]),
                end_ns=int(t_ns[min(s.stop, len(t_ns) - 1)]),
                status=RepetitionStatus.ACCEPTED if trial else RepetitionStatus.REJECTED,
                reason="" if trial else "belongs to no trial",
            )
        )
    return found


def ninapro_sessions(root: Path, base: str = "") -> Iterator[Recording]:
    """Files of a NinaPro base as sessions, one in memory at a time.

    Args:
        root: Folder of `.mat` files, as the publisher names them.
        base: As in "db1"; by default the files tell.

    Raises:
        DataError: The folder holds none, they do not tell, or one is damaged.
        ConfigError: There is no such base.
    """
    if base and base not in ninapro.BASES:
        raise ConfigError(f"no NinaPro base {base!r}", hint=f"There are {', '.join(ninapro.BASES)}.")
    dataset = NinaproDataset(root, ninapro.BASES[base] if base else detect(root))
    for participant in dataset.participants():
        for path in dataset.files(participant):
            file = ninapro.read(path)
            yield _session(dataset, path, file, to_recording(file, dataset.base))


def _session(dataset: NinaproDataset, path: Path, file: ninapro.NinaproFile, paired: PairedRecording) -> Recording:
    facts, digest = dataset.facts, file_sha256(path)
    t_ns = np.rint(np.arange(len(paired.emg)) * (1e9 / paired.emg_rate_hz)).astype(np.int64)
    index = np.arange(len(t_ns), dtype=np.int64)
    specs = [_emg_spec(dataset, paired)]
    values = [paired.emg]
    if paired.pose is not None:
        specs.append(_glove_spec(dataset, paired))
        values.append(paired.pose)
    session = Session(
        id=session_id("ninapro", dataset.base.name, digest),
        edge=IMPORT_EDGE,
        participant=Participant(id=paired.participant, consent_version="publisher's"),
        placement=Placement(side=Side.LEFT if paired.side == "left" else Side.RIGHT, position="forearm"),
        protocol=f"{dataset.name}/{paired.stage}",
        streams=tuple(specs),
        started_ns=0,
        host_ns=0,
        source=f"import:{dataset.name}:{path.name}",
    )
    events: list[Event] = [SessionOpened(session=session), _origin(dataset, facts, path, digest)]
    made: list[CueShown | Repetition] = [*_cues(dataset, file, t_ns), *repetitions(paired.segments, t_ns)]
    made.sort(key=lambda e: (e.start_ns, isinstance(e, Repetition)))
    events += made
    events.append(SessionClosed(t_ns=int(t_ns[-1]), totals=(len(index),) * len(specs)))
    return Recording(session, tuple(StreamData(index, t_ns, v) for v in values), tuple(events))


def _origin(dataset: NinaproDataset, facts: Facts, path: Path, digest: str) -> Event:
    notes = ["the date is not stated: times count from 1970", "samples were float64 and are stored as float32"]
    return Provenance(
        format=dataset.name,
        file=path.name,
        sha256=digest,
        licence=facts.licence,
        citation=facts.citation,
        url=facts.url,
        notes=tuple(notes),
    ).marker(0)


def _cues(dataset: NinaproDataset, file: ninapro.NinaproFile, t_ns: NDArray[np.int64]) -> list[CueShown]:
    names = dataset.base.names(file.exercise, file.cue)
    later = (file.acquisition - 1) * dataset.base.repetitions
    return [
        CueShown(
            gesture=names[label],
            repetition=later + repetition if repetition > 0 else 0,
            start_ns=int(t_ns[a]),
            end_ns=int(t_ns[min(b, len(t_ns) - 1)]),
        )
        for label, repetition, a, b in ninapro.runs(file.cue, file.cue_repetition)
    ]


def _emg_spec(dataset: NinaproDataset, paired: PairedRecording) -> StreamSpec:
    # Readers of the store tell an envelope from raw EMG by the end of the device's name.
    device = f"{dataset.name}-envelope" if dataset.base.envelope else dataset.name
    return StreamSpec(
        name="emg",
        modality=Modality.EMG,
        channels=tuple(f"e{i}" for i in range(paired.emg.shape[1])),
        rate_hz=paired.emg_rate_hz,
        dtype=SampleType.FLOAT32,
        unit="a.u.",
        device=device,
    )


def _glove_spec(dataset: NinaproDataset, paired: PairedRecording) -> StreamSpec:
    sensors = 0 if paired.pose is None else paired.pose.shape[1]
    return StreamSpec(
        name="glove",
        modality=Modality.GLOVE,
        channels=tuple(f"g{i}" for i in range(sensors)),
        rate_hz=paired.pose_rate_hz,
        dtype=SampleType.FLOAT32,
        unit="count",
        device=dataset.name,
    )
