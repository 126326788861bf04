"""Pose on a grid of its own: joint angles as recorded, a glove calibrated to joints, or its sensors standardised.

A glove is measured from its wearer's own rest; nothing of a hidden gesture enters the measure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.datasets.base import PairedRecording, PoseKind
from embridge_cloud.datasets.config import CutConfig
from embridge_cloud.datasets.features import newest
from embridge_shared.errors import ConfigError, DataError, Reason
from embridge_shared.hand import CYBERGLOVE_SENSORS, N_JOINTS, fit_glove_calibration, glove_to_joints

_SPREAD_FLOOR_COUNTS: Final = 2.0
_MIN_SAMPLES: Final = 20
_WITHOUT_DIP: Final = [i for i, name in enumerate(CYBERGLOVE_SENSORS) if not name.endswith("_dip")]
_Array = NDArray[np.float64]
_Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Pose:
    """Pose of a recording at `CutConfig.pose_rate_hz`.

    Attributes:
        values: float32 (n, J).
        valid: bool (n,): every recorded sample up to the next one of this grid was a pose.
    """

    values: NDArray[np.float32]
    valid: _Flags


def fit_poses(worn: Sequence[PairedRecording], config: CutConfig, hidden: frozenset[str]) -> list[Pose]:
    """Poses of all recordings of one donning.

    Raises:
        DataError: A recording has no pose, or rest and movement are too few to measure a glove by.
        ConfigError: Sensors are asked of a set that has joint angles.
    """
    lacking = next((r.session for r in worn if r.pose is None), None)
    if lacking is not None:
        raise DataError(
            f"{lacking} has no pose", reason=Reason.TOO_LITTLE_DATA, hint="Cut it with pose = None for EMG alone."
        )
    kinds = {r.pose_kind for r in worn}
    if kinds == {PoseKind.JOINTS}:
        if config.pose == "sensors":
            raise ConfigError(f"{worn[0].session} has joint angles, not sensors", hint='Cut it with pose = "joints".')
        return [_on_grid(r, _joints(r), config) for r in worn]
    if kinds != {PoseKind.GLOVE}:
        raise DataError(f"{worn[0].session}: one donning has both a glove and joint angles")
    convert = _fit_sensors(worn, hidden) if config.pose == "sensors" else _fit_joints(worn, hidden)
    return [_on_grid(r, convert(_counts(r)), config) for r in worn]


def _joints(recording: PairedRecording) -> NDArray[np.float32]:
    pose = _given(recording)
    if pose.shape[1] != N_JOINTS:
        raise DataError(f"{recording.session}: {pose.shape[1]} joint angles", reason=Reason.WRONG_SHAPE)
    return pose


def _given(recording: PairedRecording) -> NDArray[np.float32]:
    if recording.pose is None:
        raise DataError(f"{recording.session} has no pose", reason=Reason.TOO_LITTLE_DATA)
    return recording.pose


def _counts(recording: PairedRecording) -> _Array:
    return _given(recording).astype(np.float64)


def _valid(recording: PairedRecording) -> _Flags:
    return np.ones(len(_given(recording)), bool) if recording.pose_valid is None else recording.pose_valid


def _at_pose(recording: PairedRecording, flags: _Flags) -> _Flags:
    """Flags of EMG samples, read at the pose samples."""
    at = newest(len(_given(recording)), recording.emg_rate_hz, recording.pose_rate_hz)
    return flags[np.minimum(at, len(flags) - 1)]


def _measured(worn: Sequence[PairedRecording], hidden: frozenset[str]) -> tuple[_Array, _Flags, _Flags]:
    """Counts of one donning, where they are rest, and which of them a fit may look at."""
    counts, rest, use = [], [], []
    for r in worn:
        counts.append(_counts(r))
        rest.append(_at_pose(r, ~r.during()) & r.rests)
        use.append(_valid(r) & ~_at_pose(r, r.during(hidden)) & r.calibration)
    return np.concatenate(counts), np.concatenate(rest), np.concatenate(use)


def _fit_joints(worn: Sequence[PairedRecording], hidden: frozenset[str]) -> Callable[[_Array], NDArray[np.float32]]:
    counts, rest, use = _measured(worn, hidden)
    calibration = fit_glove_calibration(_all_sensors(counts), rest, use=use)
    return lambda c: glove_to_joints(_all_sensors(c), calibration).astype(np.float32)


def _all_sensors(counts: _Array) -> _Array:
    """A glove of 18 sensors has none at the fingertips' joints: those stay at rest."""
    if counts.shape[1] != len(_WITHOUT_DIP):
        return counts
    out = np.zeros((len(counts), len(CYBERGLOVE_SENSORS)))
    out[:, _WITHOUT_DIP] = counts
    return out


def _fit_sensors(worn: Sequence[PairedRecording], hidden: frozenset[str]) -> Callable[[_Array], NDArray[np.float32]]:
    counts, rest, use = _measured(worn, hidden)
    resting, moving = counts[use & rest], counts[use & ~rest]
    if min(len(resting), len(moving)) < _MIN_SAMPLES:
        raise DataError(
            f"{worn[0].participant}: {len(resting)} samples of rest and {len(moving)} of movement measure no glove",
            reason=Reason.TOO_LITTLE_DATA,
            hint="Hide fewer gestures, or take recordings with rest between them.",
        )
    centre, spread = resting.mean(axis=0), moving.std(axis=0) + _SPREAD_FLOOR_COUNTS
    return lambda c: ((c - centre) / spread).astype(np.float32)


def _on_grid(recording: PairedRecording, values: NDArray[np.float32], config: CutConfig) -> Pose:
    """The newest sample at each moment of the grid."""
    valid = _valid(recording)
    if not valid.all():
        values = np.where(valid[:, None], values, np.float32(0))
    if recording.pose_rate_hz == config.pose_rate_hz:
        return Pose(values, valid)
    n = math.ceil(len(values) * config.pose_rate_hz / recording.pose_rate_hz - 1e-6)
    at = newest(n, recording.pose_rate_hz, config.pose_rate_hz)
    return Pose(values[at], _all_valid(valid, at))


def _all_valid(valid: _Flags, at: NDArray[np.int64]) -> _Flags:
    """Whether every sample from one moment of the grid up to the next is valid."""
    bad = np.r_[0, np.cumsum(~valid)]
    after = np.maximum(np.r_[at[1:], len(valid)], at + 1)
    return np.asarray(bad[after] == bad[at])
