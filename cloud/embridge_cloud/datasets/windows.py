"""Windows cut from recordings, with the product's front end, wearer's scale and glove calibration.

Everything that is fitted is fitted a donning at a time, without labels other than rest or not, and without any sample
of a hidden gesture.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import groupby

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from embridge_cloud.datasets.base import PairedRecording, PoseKind, Segment
from embridge_cloud.datasets.config import CutConfig
from embridge_cloud.datasets.features import fit_wearer, prepare
from embridge_cloud.datasets.poses import convert_poses
from embridge_cloud.datasets.prepared import Prepared
from embridge_cloud.learn.data import Windows, concatenate
from embridge_shared.errors import DataError, Reason
from embridge_shared.preprocess import WearerScale

__all__ = ["CutConfig", "cut_each", "cut_windows"]

_Index = NDArray[np.int64]
_DEFAULT = CutConfig()


def cut_windows(
    recordings: Iterable[PairedRecording],
    config: CutConfig = _DEFAULT,
    *,
    hidden: Collection[str] = (),
    gestures: Sequence[str] | None = None,
) -> Windows:
    """Windows that lie whole inside repetitions, all in memory.

    Args:
        recordings: Those of one donning one after the other, as a data set gives them.
        config: How.
        hidden: Gestures of which no sample reaches a fit of scale or glove; they are cut like the others.
        gestures: Labels to cut, which become the windows' vocabulary; by default all, in order of appearance.

    Returns:
        Windows with EMG, and with pose unless `config.pose` is None.

    Raises:
        DataError: No window results, a recording lacks the pose asked for, or a fit has too little to go by.
        ConfigError: Recording and configuration do not fit together.
    """
    parts = list(cut_each(recordings, config, hidden=hidden, gestures=gestures))
    if not parts:
        raise DataError(
            f"no repetition is long enough for a window of {config.window_s} s",
            reason=Reason.TOO_LITTLE_DATA,
            hint="Shorten window_s, or look at the folder with `embridge data check`.",
        )
    return concatenate(parts)


def cut_each(
    recordings: Iterable[PairedRecording],
    config: CutConfig = _DEFAULT,
    *,
    hidden: Collection[str] = (),
    gestures: Sequence[str] | None = None,
) -> Iterator[Windows]:
    """As `cut_windows`, one recording after the other: what sets larger than memory are written with.

    Recordings without a window are passed over.
    """
    secret = frozenset(hidden)
    for _, group in groupby(recordings, key=lambda r: _fitted_together(r, config)):
        prepared = [prepare(r, config, secret) for r in group]
        scale = fit_wearer(prepared, config)
        poses = [None] * len(prepared) if config.pose is None else convert_poses(prepared, config)
        for one, pose in zip(prepared, poses, strict=True):
            part = _cut(one, scale, pose, config, gestures)
            if part is not None:
                yield part


def _fitted_together(recording: PairedRecording, config: CutConfig) -> tuple[str, str, float]:
    """Recordings with the same key are held in memory at once, because one fit serves them all."""
    glove = config.pose is not None and recording.pose_kind is PoseKind.GLOVE
    if config.emg_scale is not None or glove:
        return recording.participant, recording.donning, 0.0
    return recording.participant, recording.session, recording.start_s


def _cut(
    prepared: Prepared,
    scale: WearerScale | None,
    pose: NDArray[np.float32] | None,
    config: CutConfig,
    gestures: Sequence[str] | None,
) -> Windows | None:
    names = tuple(dict.fromkeys(s.gesture for s in prepared.segments) if gestures is None else gestures)
    chosen = [s for s in prepared.segments if s.repetition > 0 and s.gesture in names]
    start, of = _starts(prepared, chosen, config)
    keep = ~_any_in(prepared.features.flawed, start, config.length)
    pose_start = np.floor(start * (config.pose_rate_hz / config.rate_hz) + 1e-6).astype(np.int64)
    if pose is not None and prepared.pose is not None:
        keep &= ~_any_in(~prepared.pose.valid, pose_start, config.pose_length)
    start, of, pose_start = start[keep], of[keep], pose_start[keep]
    if not len(start):
        return None
    emg = _gather(prepared.features.values, start, config.length)
    zeros = np.zeros(len(start), np.int64)
    return Windows(
        emg=emg if scale is None else scale.apply(emg),
        pose=None if pose is None else _gather(pose, pose_start, config.pose_length),
        label=np.array([names.index(s.gesture) for s in chosen], np.int64)[of],
        participant=zeros,
        session=zeros,
        repetition=np.array([s.repetition for s in chosen], np.int64)[of],
        start_s=prepared.start_s + start / config.rate_hz,
        gestures=names,
        participants=(prepared.participant,),
        sessions=(prepared.session,),
    )


def _starts(prepared: Prepared, segments: Sequence[Segment], config: CutConfig) -> tuple[_Index, _Index]:
    """First feature of each window, and the place of its segment."""
    ratio = Fraction(config.rate_hz).limit_denominator(10**6) / Fraction(prepared.emg_rate_hz).limit_denominator(10**6)
    settle = round(config.settle_s * config.rate_hz)
    starts, of = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for place, s in enumerate(segments):
        first, end = (-(-sample * ratio.numerator // ratio.denominator) for sample in (s.start, s.stop))
        found = np.arange(first + settle, end - config.length + 1, config.stride, dtype=np.int64)
        starts.append(found)
        of.append(np.full(len(found), place, np.int64))
    return np.concatenate(starts), np.concatenate(of)


def _any_in(flags: NDArray[np.bool_], start: _Index, length: int) -> NDArray[np.bool_]:
    """Whether a window of flags holds one that is up, or leaves the recording."""
    count = np.r_[0, np.cumsum(flags)]
    inside = start + length <= len(flags)
    safe = np.where(inside, start, 0)
    return np.asarray(~inside | (count[np.minimum(safe + length, len(flags))] != count[safe]))


def _gather(values: NDArray[np.float32], start: _Index, length: int) -> NDArray[np.float32]:
    """Windows (N, length, C) that begin at `start`."""
    view = sliding_window_view(values, length, axis=0)
    return np.ascontiguousarray(view[start].transpose(0, 2, 1))
