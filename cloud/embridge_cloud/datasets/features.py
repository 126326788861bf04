"""EMG features of a recording, and those of them that a fit may look at.

Where a front end filters, it starts anew after each hidden stretch when it serves a fit, so that not even a filter's
memory of hidden samples gets in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.datasets.base import PairedRecording
from embridge_cloud.datasets.config import CutConfig
from embridge_cloud.datasets.poses import on_grid
from embridge_cloud.datasets.prepared import Prepared, newest
from embridge_shared.errors import DataError, Reason
from embridge_shared.preprocess import Features, FrontEndConfig, WearerScale, fit_scale, run_chunks
from embridge_shared.signal import Modality, SampleType, StreamSpec

_PIECE_S: Final = 60.0
_Flags = NDArray[np.bool_]


def prepare(recording: PairedRecording, config: CutConfig, hidden: frozenset[str]) -> Prepared:
    """Run the front end over a recording and put its pose on the grid.

    Raises:
        DataError: It is too short for a feature, or holds samples that are not finite.
    """
    front_end, spec = config.front_end(recording), _spec(recording)
    runs = run_chunks(front_end, spec, _pieces(recording.emg, 0, len(recording.emg), spec.rate_hz))
    if len(runs) != 1:
        raise DataError(f"{recording.session} is too short for a feature", reason=Reason.TOO_LITTLE_DATA)
    features, secret = _flagged(runs[0], recording, config), recording.during(hidden)
    if config.emg_scale is None or not recording.calibration:
        fit = features.values[:0]
    elif front_end.mode == "identity" or not secret.any():
        at = newest(len(features), recording.emg_rate_hz, config.rate_hz)
        fit = features.values[~features.flawed & ~secret[at]]
    else:
        fit = _open_features(front_end, spec, recording.emg, ~secret)
    pose = None if config.pose is None else on_grid(recording, config, secret)
    return Prepared(
        recording.participant,
        recording.session,
        recording.emg_rate_hz,
        recording.start_s,
        recording.segments,
        features,
        fit,
        pose,
    )


def fit_wearer(prepared: Sequence[Prepared], config: CutConfig) -> WearerScale | None:
    """The scale of a wearer, from every recording of one donning; None where none is asked for.

    A waveform swings about 0 already: its channels get a gain, from their magnitudes, and no offset.

    Raises:
        DataError: There is too little to go by.
    """
    if config.emg_scale is None:
        return None
    features = np.concatenate([p.fit for p in prepared])
    if config.emg != "waveform":
        return fit_scale(config.scale, features)
    fitted = fit_scale(config.scale, np.abs(features))
    return WearerScale(offset=(0.0,) * len(fitted.gain), gain=fitted.gain, clip=fitted.clip)


def stretches(flags: _Flags) -> list[tuple[int, int]]:
    """Where flags are up: [a, b) of each run."""
    edges = np.flatnonzero(np.diff(np.r_[False, flags, False].astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _flagged(features: Features, recording: PairedRecording, config: CutConfig) -> Features:
    """Features flawed also where a sample since the one before was lost."""
    if recording.emg_valid is None:
        return features
    at = newest(len(features), recording.emg_rate_hz, config.rate_hz)
    lost = np.r_[0, np.cumsum(~recording.emg_valid)]
    since = np.r_[0, at[:-1] + 1]
    return Features(features.first, features.values, features.flawed | (lost[at + 1] != lost[since]))


def _open_features(
    config: FrontEndConfig, spec: StreamSpec, emg: NDArray[np.float32], allowed: _Flags
) -> NDArray[np.float32]:
    """Settled features of the allowed stretches, each with filters of its own."""
    found = [np.zeros((0, spec.n_channels), np.float32)]
    for a, b in stretches(allowed):
        for part in run_chunks(config, spec, _pieces(emg, a, b, spec.rate_hz)):
            found.append(part.values[~part.flawed])
    return np.concatenate(found)


def _pieces(
    emg: NDArray[np.float32], start: int, stop: int, rate_hz: float
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """A stretch in pieces of a minute, so that filters need little memory."""
    step = round(_PIECE_S * rate_hz)
    for a in range(start, stop, step):
        yield a, emg[a : min(stop, a + step)]


def _spec(recording: PairedRecording) -> StreamSpec:
    return StreamSpec(
        name="emg",
        modality=Modality.EMG,
        channels=tuple(f"emg_{i}" for i in range(recording.emg.shape[1])),
        rate_hz=recording.emg_rate_hz,
        dtype=SampleType.FLOAT32,
    )
