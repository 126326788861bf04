"""Signal quality of what is stored: sealed sessions, and recording files beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.datasets import emg2pose_files
from embridge_cloud.store.manifest import INDEX, TIME
from embridge_cloud.store.sealed import SealedSession
from embridge_shared import ninapro
from embridge_shared.errors import ConfigError, DataError, Reason
from embridge_shared.quality import WINDOW_S, Judge, Summary, assess
from embridge_shared.signal import Modality, SampleType, StreamSpec

Piece = tuple[int, NDArray[Any]]

_KEYS = ("subject", "session", "gesture", "rep")


@dataclass(frozen=True, slots=True)
class Wearing:
    """What was recorded without taking the band off.

    Attributes:
        name: Of the session, as the file has it.
        spec: What the pieces are.
        pieces: Gapless recordings (T, channels), each by itself.
    """

    name: str
    spec: StreamSpec
    pieces: tuple[NDArray[Any], ...]


def session_quality(sealed: SealedSession) -> dict[str, Summary]:
    """Judge every EMG stream of a sealed session, by name.

    Raises:
        DataError: Its files cannot be read, or it has no EMG.
    """
    specs = [s for s in sealed.session.streams if s.modality is Modality.EMG]
    if not specs:
        raise DataError(f"session {sealed.id} has no EMG", reason=Reason.TOO_LITTLE_DATA)
    return {s.name: _summary(s, [list(_runs(sealed, s))]) for s in specs}


def wearing_quality(wearing: Wearing) -> Summary:
    """Judge what was recorded without taking the band off."""
    return _summary(wearing.spec, [[(0, piece)] for piece in wearing.pieces])


def recording(path: Path, *, rate_hz: float | None = None, device: str = "") -> list[Wearing]:
    """Read a recording file.

    Known: NinaPro `.mat`, emg2pose `.hdf5`, and `.parquet` with columns `emg_0`, `emg_1`, …; where it has columns
    `session`, `gesture` or `rep`, rows with other values there are recordings of their own; those too short for a
    window are put end to end.

    Args:
        path: The file.
        rate_hz: Samples a second, where the file does not tell.
        device: What recorded it, as in "myo", where that tells the range.

    Raises:
        DataError: The file is missing or damaged.
        ConfigError: The rate is needed.
    """
    if not path.is_file():
        raise DataError(f"there is no recording at {path}", reason=Reason.NOT_FOUND)
    if path.suffix == ".mat":
        return [_ninapro(path, rate_hz, device)]
    if path.suffix == ".parquet":
        return _parquet(path, rate_hz, device)
    if path.suffix == emg2pose_files.SUFFIX:
        emg = emg2pose_files.read_take(path).emg
        return [Wearing(path.stem, _spec(emg, emg2pose_files.RATE_HZ, device or "emg2pose"), (emg,))]
    raise DataError(
        f"{path.name} is of no known recording format", hint="Known: NinaPro .mat, emg2pose .hdf5 and .parquet."
    )


def _summary(spec: StreamSpec, pieces: list[list[Piece]]) -> Summary:
    summary, judge = Summary(spec), Judge(spec)
    for piece in pieces:
        for verdict in assess(spec, piece, judge):
            summary.add(verdict)
    return summary


def _runs(sealed: SealedSession, spec: StreamSpec) -> Iterator[Piece]:
    """The gapless runs of a stored stream."""
    samples = sealed.samples(spec.name)
    cuts = np.flatnonzero(np.diff(samples.index) != 1) + 1
    for a, b in pairwise([0, *cuts.tolist(), len(samples.index)]):
        if a < b:
            yield int(samples.index[a]), samples.values[a:b]


def _ninapro(path: Path, rate_hz: float | None, device: str) -> Wearing:
    file = ninapro.read(path)
    bases = file.bases()
    rates = {b.rate_hz for b in bases}
    rate = rate_hz or (rates.pop() if len(rates) == 1 else None)
    if rate is None:
        raise _rate_needed(path)
    envelope = bool(bases) and all(b.envelope for b in bases)
    name = device or ("ninapro-envelope" if envelope else "ninapro-raw")
    return Wearing(path.stem, _spec(file.emg, rate, name), (file.emg,))


def _parquet(path: Path, rate_hz: float | None, device: str) -> list[Wearing]:
    import polars as pl

    if rate_hz is None:
        raise _rate_needed(path)
    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path} cannot be read: {error}", reason=Reason.MALFORMED) from error
    columns = [c for c in frame.columns if c.startswith("emg_") and c not in (INDEX, TIME)]
    if not columns:
        raise DataError(f"{path.name} has no column emg_0", reason=Reason.MALFORMED)
    keys = [c for c in _KEYS if c in frame.columns]
    samples = frame.select(columns).to_numpy()
    changes = np.zeros(max(0, len(samples) - 1), bool)
    for key in keys:
        codes = frame[key].rank("dense").to_numpy()
        changes |= codes[1:] != codes[:-1]
    bounds = [0, *(np.flatnonzero(changes) + 1).tolist(), len(samples)]
    found: dict[str, list[NDArray[Any]]] = {}
    session = frame["session"].to_list() if "session" in keys else None
    for a, b in pairwise(bounds):
        found.setdefault(str(session[a]) if session else path.stem, []).append(samples[a:b])
    least = round(WINDOW_S * rate_hz)
    return [
        Wearing(name, _spec(parts[0], rate_hz, device), tuple(_joined(parts, least))) for name, parts in found.items()
    ]


def _joined(pieces: list[NDArray[Any]], least: int) -> Iterator[NDArray[Any]]:
    """Pieces, those in a row that are shorter than `least` put end to end."""
    for short, run in groupby(pieces, lambda piece: len(piece) < least):
        if short:
            yield np.concatenate(list(run))
        else:
            yield from run


def _spec(samples: NDArray[Any], rate_hz: float, device: str) -> StreamSpec:
    whole = samples.dtype.kind in "iu"
    return StreamSpec(
        name="emg",
        modality=Modality.EMG,
        channels=tuple(f"emg_{i}" for i in range(samples.shape[1])),
        rate_hz=rate_hz,
        dtype=(SampleType.INT16 if samples.dtype.itemsize <= 2 else SampleType.INT32) if whole else SampleType.FLOAT32,
        device=device,
    )


def _rate_needed(path: Path) -> ConfigError:
    return ConfigError(f"{path.name} does not state its rate", hint="Give --rate-hz.")
