"""Pairing: one sealed session's EMG and hand pose on one grid of time, and windows cut from it.

The two devices have two clocks; both streams get Unix time rebuilt from when their own packets arrived, with all of the
session at hand, so each EMG feature takes the pose sample nearest to it in time (ASOF), or none where none is near.
Windows are cut inside repetitions only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from embridge_cloud import clockfit
from embridge_cloud.learn.data import Windows
from embridge_cloud.recipe import PairingConfig
from embridge_cloud.store.sealed import SealedSession
from embridge_shared.errors import DataError, Reason
from embridge_shared.hand import fit_glove_calibration, glove_to_joints, ik_failures
from embridge_shared.preprocess import (
    Features,
    FrontEnd,
    Montage,
    PreprocessConfig,
    Ring,
    WearerScale,
    fit_scale,
    montage_for,
    run_chunks,
)
from embridge_shared.session import Event, Repetition, RepetitionStatus, WearingChanged
from embridge_shared.signal import Modality, StreamSpec
from embridge_shared.wearer.donning import turn


@dataclass(frozen=True, slots=True)
class PairedRun:
    """A stretch without gaps, on the feature grid.

    Attributes:
        features: Unscaled features.
        t_ns: Unix time of each feature, ns (m,).
        pose: Joint angles at that time, rad, float32 (m, 20); NaN where there is none. None in a session without pose.
    """

    features: Features
    t_ns: NDArray[np.int64]
    pose: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class PairedSession:
    """A session ready to be cut into windows.

    Attributes:
        session: Its id.
        participant: Whose.
        started_ns: Unix time, ns.
        runs: In order of time.
        repetitions: Accepted ones.
        montage: From the band's channels to the release's; None where they are the same.
    """

    session: str
    participant: str
    started_ns: int
    runs: tuple[PairedRun, ...]
    repetitions: tuple[Repetition, ...]
    montage: Montage | None = None

    def during(self, t_ns: NDArray[np.int64], gestures: Collection[str] | None = None) -> NDArray[np.bool_]:
        """Which moments lie in a repetition (of one of `gestures`), bool, like `t_ns`."""
        inside = np.zeros(len(t_ns), bool)
        for r in self.repetitions:
            if gestures is None or r.gesture in gestures:
                inside |= (t_ns >= r.start_ns) & (t_ns < r.end_ns)
        return inside


def pair(
    sealed: SealedSession,
    preprocess: PreprocessConfig,
    config: PairingConfig,
    *,
    hidden: Collection[str] = (),
    ring: Ring | None = None,
) -> PairedSession:
    """Bring a session onto one grid.

    Args:
        sealed: The session.
        preprocess: Front end that makes the features.
        config: Tolerance.
        hidden: Gestures whose moments no fit may look at: a glove is calibrated without them.
        ring: Of the windows, for bands of other electrodes; None leaves channels as they are.

    Raises:
        DataError: It has no EMG.
        ModelError: INCOMPATIBLE: windows of this ring cannot be made of this band.
    """
    streams = sealed.session.streams
    emg = next((s for s in streams if s.modality is Modality.EMG), None)
    if emg is None:
        raise DataError(f"session {sealed.id} has no EMG", reason=Reason.TOO_LITTLE_DATA)
    repetitions = tuple(r for r in sealed.repetitions() if r.status is RepetitionStatus.ACCEPTED)
    samples = sealed.samples(emg.name)
    t_ns = clockfit.times_ns(sealed, emg.name, samples)
    front_end = FrontEnd(preprocess.front_end, emg)
    sits = worn([e.event for e in sealed.events()])
    pose = recorded_poses(sealed, repetitions, hidden)
    runs = []
    for features in run_chunks(preprocess.front_end, emg, _stretches(samples.index, samples.values)):
        at = np.array([front_end.input_index(j) for j in range(features.first, features.end)], np.int64)
        when = t_ns[np.searchsorted(samples.index, at, side="right") - 1]
        known = None if pose is None else nearest(when, *pose, config.tolerance_s)
        runs.append(PairedRun(turned_back(features, sits, preprocess), when, known))
    return PairedSession(
        session=str(sealed.id),
        participant=sealed.session.participant.id,
        started_ns=sealed.session.started_ns,
        runs=tuple(runs),
        repetitions=repetitions,
        montage=None if ring is None else _montage(sealed, emg, preprocess, ring),
    )


def _montage(sealed: SealedSession, emg: StreamSpec, preprocess: PreprocessConfig, ring: Ring) -> Montage | None:
    band = Ring.even(emg.n_channels, sealed.session.placement.rotation_deg)
    return montage_for(preprocess.front_end, band, ring)


def worn(events: Iterable[Event]) -> WearingChanged | None:
    """The last turn of the band that the edge undid in a session; it sat so from the start."""
    applied = [e for e in events if isinstance(e, WearingChanged) and e.applied is not None and e.ring]
    return applied[-1] if applied else None


def turned_back(features: Features, sits: WearingChanged | None, preprocess: PreprocessConfig) -> Features:
    """Features as the decoder saw them: turned as in the wearer's calibration. Strength is left to the session's scale.

    Raises:
        DataError: WRONG_SHAPE: the event names channels the band does not have.
    """
    if sits is None or not sits.applied:
        return features
    if not 0 <= min(sits.ring) <= max(sits.ring) < features.values.shape[1]:
        raise DataError(f"a band of {features.values.shape[1]} channels has no {sits.ring}", reason=Reason.WRONG_SHAPE)
    rectified = preprocess.front_end.mode != "waveform"
    return replace(features, values=turn(features.values, sits.applied, sits.ring, rectified=rectified))


def wearer_scale(paired: PairedSession, preprocess: PreprocessConfig, *, hidden: Collection[str] = ()) -> WearerScale:
    """Fit a wearer's scale to a session, from every settled feature outside the moments of `hidden` gestures.

    Raises:
        DataError: Too little is left.
    """
    kept = [r.features.values[~r.features.flawed & ~paired.during(r.t_ns, hidden)] for r in paired.runs]
    return fit_scale(preprocess.scale, np.concatenate(kept))


def cut(
    paired: PairedSession,
    scale: WearerScale,
    preprocess: PreprocessConfig,
    config: PairingConfig,
    gestures: tuple[str, ...],
) -> Windows | None:
    """Windows that lie whole inside repetitions of `gestures`; None when there is none.

    A session without pose gives EMG-only windows; in one with pose, windows that miss a pose are left out.
    """
    length, rate_hz = preprocess.window.length, preprocess.front_end.rate_hz
    stride = max(1, round(config.stride_s * rate_hz))
    emg, pose, rows = [], [], []
    for r in paired.repetitions:
        if r.gesture not in gestures:
            continue
        begin_ns = r.start_ns + round(config.settle_s * 1e9)
        for run in paired.runs:
            a, b = np.searchsorted(run.t_ns, [begin_ns, r.end_ns])
            for start in range(int(a), int(b) - length + 1, stride):
                part = slice(start, start + length)
                if run.features.flawed[part].any() or (run.pose is not None and np.isnan(run.pose[part]).any()):
                    continue
                emg.append(run.features.values[part])
                if run.pose is not None:
                    pose.append(run.pose[part])
                rows.append((gestures.index(r.gesture), r.repetition, (run.t_ns[start] - paired.started_ns) * 1e-9))
    if not rows:
        return None
    label, repetition, start_s = zip(*rows, strict=True)
    zeros = np.zeros(len(rows), np.int64)
    scaled = scale.apply(np.stack(emg))
    return Windows(
        emg=scaled if paired.montage is None else paired.montage.apply(scaled),
        pose=np.stack(pose) if pose else None,
        label=np.array(label, np.int64),
        participant=zeros,
        session=zeros,
        repetition=np.array(repetition, np.int64),
        start_s=np.array(start_s, np.float64),
        gestures=gestures,
        participants=(paired.participant,),
        sessions=(paired.session,),
    )


def _stretches(index: NDArray[np.int64], raw: NDArray[Any]) -> list[tuple[int, NDArray[Any]]]:
    cuts = np.flatnonzero(np.diff(index) != 1) + 1
    return [(int(i[0]), x) for i, x in zip(np.split(index, cuts), np.split(raw, cuts), strict=True) if len(i)]


def recorded_poses(
    sealed: SealedSession, repetitions: tuple[Repetition, ...], hidden: Collection[str] = ()
) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
    """Time and joint angles of the session's pose or glove stream; failed frames left out."""
    spec = next((s for s in sealed.session.streams if s.modality in (Modality.POSE, Modality.GLOVE)), None)
    if spec is None:
        return None
    samples = sealed.samples(spec.name)
    t_ns = clockfit.times_ns(sealed, spec.name, samples)
    values = samples.values.astype(np.float64) * spec.scale
    if spec.modality is Modality.POSE:
        good = ~ik_failures(values)
        return t_ns[good], values[good].astype(np.float32)
    active, secret = np.zeros(len(t_ns), bool), np.zeros(len(t_ns), bool)
    for r in repetitions:
        inside = (t_ns >= r.start_ns) & (t_ns < r.end_ns)
        active |= inside
        if r.gesture in hidden:
            secret |= inside
    calibration = fit_glove_calibration(values, ~active, use=~secret)
    return t_ns, glove_to_joints(values, calibration).astype(np.float32)


def nearest(
    when: NDArray[np.int64], t_ns: NDArray[np.int64], pose: NDArray[np.float32], tolerance_s: float
) -> NDArray[np.float32]:
    """The pose sample nearest in time to each moment, NaN where none is near (m, J)."""
    left = pl.DataFrame({"t": when})
    right = pl.DataFrame({"t": t_ns, "row": np.arange(len(t_ns))})
    joined = left.join_asof(right, on="t", strategy="nearest", tolerance=round(tolerance_s * 1e9))
    row = joined["row"].fill_null(-1).to_numpy()
    return np.where(row[:, None] < 0, np.float32(np.nan), pose[row])
