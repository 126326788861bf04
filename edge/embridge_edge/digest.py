"""What became of a session, in figures."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_edge.live import LiveDecoding
from embridge_edge.quality import QualityWatch
from embridge_shared.quality import ChannelSummary, Grade
from embridge_shared.session import BandChanged, WearingChanged


class StreamDigest(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one stream: samples delivered, samples lost before they came, chunks spooled."""

    name: str
    samples: int
    lost: int
    chunks: int


class QualityDigest(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream's channels were worth while it was recorded."""

    name: str
    grade: Grade
    windows: int
    channels: tuple[ChannelSummary, ...]


class DecodeDigest(msgspec.Struct, frozen=True, kw_only=True):
    """How live decoding went; latency is the time from the packet that completes a window to its scores, ms."""

    release: str
    decodes: int
    latency_ms_p50: float
    latency_ms_p99: float
    latency_ms: tuple[float, ...]


class Digest(msgspec.Struct, frozen=True, kw_only=True):
    """One session in figures, written beside the spool when it ends."""

    name: str
    session: uuid.UUID
    participant: str
    purpose: str
    reason: str
    events: int
    streams: tuple[StreamDigest, ...]
    decode: DecodeDigest | None = None
    quality: tuple[QualityDigest, ...] = ()
    bands: tuple[BandChanged, ...] = ()
    wearing: WearingChanged | None = None
    wall_s: float = 0.0


def quality_digest(watch: QualityWatch) -> QualityDigest:
    """What a watch saw."""
    summary = watch.summary
    return QualityDigest(
        name=summary.spec.name, grade=summary.grade, windows=summary.windows, channels=summary.channels()
    )


def decode_digest(live: LiveDecoding | None) -> DecodeDigest | None:
    """How live decoding went; None where nothing was decoded."""
    if live is None or not live.latencies_s:
        return None
    latency_ms: NDArray[Any] = np.array(live.latencies_s) * 1e3
    p50, p99 = np.percentile(latency_ms, [50, 99])
    return DecodeDigest(
        release=live.release,
        decodes=len(latency_ms),
        latency_ms_p50=float(p50),
        latency_ms_p99=float(p99),
        latency_ms=tuple(np.round(latency_ms, 3).tolist()),
    )


def write_digest(state_dir: Path, digest: Digest) -> None:
    """Leave a session's figures beside the spool."""
    folder = state_dir / "digests"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{digest.name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(digest)))
