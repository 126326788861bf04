"""Pose on a grid of its own: joint angles as recorded, a glove calibrated to joints, or its sensors standardised.

A glove is measured from its wearer's own rest; nothing of a hidden gesture enters the measure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.datasets.base import PairedRecording, PoseKind
from embridge_cloud.datasets.config import CutConfig
from embridge_cloud.datasets.prepared import GridPose, Prepared, newest
from embridge_shared.errors import ConfigError, DataError, Reason
from embridge_shared.hand import CYBERGLOVE_SENSORS, N_JOINTS, fit_glove_calibration, glove_to_joints

_SPREAD_FLOOR_COUNTS: Final = 2.0
_MIN_SAMPLES: Final = 20
_WITHOUT_DIP: Final = [i for i, name in enumerate(CYBERGLOVE_SENSORS) if not name.endswith("_dip")]
_Array = NDArray[np.float64]
_Flags = NDArray[np.bool_]


def on_grid(recording: PairedRecording, config: CutConfig, secret: _Flags) -> GridPose | None:
    """The newest pose sample at each moment of the grid; None in a recording without pose.

    Args:
        recording: The recording.
        config: Rate of the grid.
        secret: EMG samples no fit may look at, bool (T,).
    """
    values = recording.pose
    if values is None:
        return None
    valid = np.ones(len(values), bool) if recording.pose_valid is None else recording.pose_valid
    if not valid.all():
        values = np.where(valid[:, None], values, np.float32(0))
    if recording.pose_rate_hz != config.pose_rate_hz:
        n = math.ceil(len(values) * config.pose_rate_hz / recording.pose_rate_hz - 1e-6)
        at = newest(n, recording.pose_rate_hz, config.pose_rate_hz)
        values, valid = values[at], _all_valid(valid, at)
    moment = np.minimum(newest(len(values), recording.emg_rate_hz, config.pose_rate_hz), len(secret) - 1)
    rest = ~recording.during()[moment] & recording.rests
    return GridPose(recording.pose_kind, values, valid, rest, valid & ~secret[moment] & recording.calibration)


def convert_poses(prepared: Sequence[Prepared], config: CutConfig) -> list[NDArray[np.float32]]:
    """Poses of all recordings of one donning, as the configuration wants them.

    Raises:
        DataError: A recording has no pose, or rest and movement are too few to measure a glove by.
        ConfigError: Sensors are asked of a set that has joint angles.
    """
    poses = [p.pose for p in prepared if p.pose is not None]
    if len(poses) < len(prepared):
        lacking = next(p.session for p in prepared if p.pose is None)
        raise DataError(
            f"{lacking} has no pose", reason=Reason.TOO_LITTLE_DATA, hint="Cut it with pose = None for EMG alone."
        )
    name, kinds = prepared[0].session, {p.kind for p in poses}
    if len(kinds) > 1:
        raise DataError(f"{name}: one donning has both a glove and joint angles")
    if PoseKind.GLOVE in kinds:
        convert = _to_sensors(poses, name) if config.pose == "sensors" else _to_joints(poses)
        return [convert(p.values.astype(np.float64)) for p in poses]
    if config.pose == "sensors":
        raise ConfigError(f"{name} has joint angles, not sensors", hint='Cut it with pose = "joints".')
    if any(p.values.shape[1] != N_JOINTS for p in poses):
        raise DataError(f"{name}: a pose has {N_JOINTS} joint angles", reason=Reason.WRONG_SHAPE)
    return [p.values for p in poses]


def _measured(poses: Sequence[GridPose]) -> tuple[_Array, _Flags, _Flags]:
    """Counts of one donning, where they are rest, and which of them a fit may look at."""
    counts = np.concatenate([p.values for p in poses]).astype(np.float64)
    return counts, np.concatenate([p.rest for p in poses]), np.concatenate([p.use for p in poses])


def _to_joints(poses: Sequence[GridPose]) -> Callable[[_Array], NDArray[np.float32]]:
    counts, rest, use = _measured(poses)
    calibration = fit_glove_calibration(_all_sensors(counts), rest, use=use)
    return lambda c: glove_to_joints(_all_sensors(c), calibration).astype(np.float32)


def _all_sensors(counts: _Array) -> _Array:
    """A glove of 18 sensors has none at the fingertips' joints: those stay at rest."""
    if counts.shape[1] != len(_WITHOUT_DIP):
        return counts
    out = np.zeros((len(counts), len(CYBERGLOVE_SENSORS)))
    out[:, _WITHOUT_DIP] = counts
    return out


def _to_sensors(poses: Sequence[GridPose], name: str) -> Callable[[_Array], NDArray[np.float32]]:
    counts, rest, use = _measured(poses)
    resting, moving = counts[use & rest], counts[use & ~rest]
    if min(len(resting), len(moving)) < _MIN_SAMPLES:
        raise DataError(
            f"{name}: {len(resting)} samples of rest and {len(moving)} of movement measure no glove",
            reason=Reason.TOO_LITTLE_DATA,
            hint="Hide fewer gestures, or take recordings with rest between them.",
        )
    centre, spread = resting.mean(axis=0), moving.std(axis=0) + _SPREAD_FLOOR_COUNTS
    return lambda c: ((c - centre) / spread).astype(np.float32)


def _all_valid(valid: _Flags, at: NDArray[np.int64]) -> _Flags:
    """Whether every sample from one moment of the grid up to the next is valid."""
    bad = np.r_[0, np.cumsum(~valid)]
    after = np.maximum(np.r_[at[1:], len(valid)], at + 1)
    return np.asarray(bad[after] == bad[at])
