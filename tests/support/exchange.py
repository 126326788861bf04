"""Sealed sessions to export, and clouds to import into."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from embridge_cloud.context import CloudPaths
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.rows import Batch, ChunkRow, EventRow
from embridge_cloud.store.sealed import SealedSession
from embridge_cloud.store.sealing import Sealer
from embridge_shared import settings as shared_settings
from embridge_shared.hand import JOINTS
from embridge_shared.quality.grades import Grade, Metric
from embridge_shared.session import Participant, QualityFinding, QualitySeen, Session
from embridge_shared.settings import Settings
from embridge_shared.signal import Modality, SampleType, StreamSpec
from embridge_shared.wire import codec
from support.sessions import T0, Recording, emg_spec, record, session_of


def cloud_settings(folder: Path) -> Settings:
    """A cloud whose state lies under a folder."""
    return shared_settings.load(cloud={"state_dir": folder})


def joint_spec(rate_hz: float = 50.0) -> StreamSpec:
    return StreamSpec(
        name="pose",
        modality=Modality.POSE,
        channels=JOINTS,
        rate_hz=rate_hz,
        dtype=SampleType.FLOAT32,
        unit="rad",
        calibrated=True,
        device="synthetic",
    )


def wrist_spec(rate_hz: float = 2000.0) -> StreamSpec:
    """A band of emg2pose's make: 16 × 2 kHz."""
    return msgspec.structs.replace(emg_spec(16, rate_hz), unit="µV", scale=0.195, calibrated=True, device="wristband")


def seal(settings: Settings, recording: Recording) -> SealedSession:
    """Put a recording into a cloud's store as its ingester would."""
    paths = CloudPaths.of(settings)
    session = recording.session.id
    with HotStore(paths.hot) as store:
        store.commit(
            Batch(
                chunks=[ChunkRow.of(c, codec.encode(c), T0) for run in recording.chunks for c in run],
                events=[EventRow(session, i, e, T0) for i, e in enumerate(recording.events)],
            )
        )
        sealer = Sealer(store, paths.sealed, wall_ns=lambda: T0)
        sealer.prepare()
        return sealer.seal(session)


def rich_recording(
    *specs: StreamSpec, number: int = 1, seed: int = 3, participant: str = "p-01", n_chunks: int = 8, gaps: bool = True
) -> Recording:
    """A session with counted and estimated gaps, and with what was seen of its quality."""
    session: Session = session_of(*(specs or (emg_spec(), joint_spec())), number=number)
    session = msgspec.structs.replace(
        session, participant=Participant(id=participant, consent_version="v2"), protocol="fingers-12/1", source=""
    )
    recording = record(session, seed, n_chunks=n_chunks, gaps=gaps)
    lost = [c.first for c in recording.chunks[0] if c.gap_before]
    recording.chunks[0] = [replace(c, gap_inferred=c.first in lost[::2]) for c in recording.chunks[0]]
    quality = QualitySeen(
        stream=0,
        first=0,
        n=50,
        t_ns=session.started_ns,
        values={Metric.LOSS: (0.0, 0.5, None, 0.25), Metric.SNR: (1.5, None, None, np.pi)},
        findings=(
            QualityFinding(channel=1, metric=Metric.LOSS, grade=Grade.BAD, reason="half of it is lost"),
            QualityFinding(channel=1, metric=Metric.SNR, grade=Grade.WARN, reason="weak"),
        ),
    )
    recording.events.insert(2, quality)
    return recording
