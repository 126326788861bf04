"""What an edge would have seen: the windows inside repetitions, cut from sealed sessions with the same code.

Used to compare a release's live scores with the cloud's own, and to judge models that never ran on an edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.pairing import pair, wearer_scale
from embridge_cloud.recipe import PairingConfig
from embridge_cloud.store.sealed import SealedSession
from embridge_cloud.verdict import within
from embridge_shared.errors import DataError, Reason
from embridge_shared.preprocess import PreprocessConfig, windows
from embridge_shared.session import Purpose, Repetition


@dataclass(frozen=True, slots=True)
class SessionWindows:
    """Windows of one evaluation session that lie whole inside repetitions, on the decoder's grid.

    Attributes:
        participant: Whose.
        number: Place of each window on the grid: its index in the stream of live scores (N,).
        windows: Scaled features, float32 (N, T, C).
        t_ns: Unix time of each window's last feature, ns (N,).
        repetitions: What the participant did.
    """

    participant: str
    number: NDArray[np.int64]
    windows: NDArray[np.float32]
    t_ns: NDArray[np.int64]
    repetitions: Sequence[Repetition]


def evaluation_windows(sessions: Sequence[SealedSession], preprocess: PreprocessConfig) -> list[SessionWindows]:
    """Windows of every evaluation session, scaled by the same participant's calibration session.

    Raises:
        DataError: A participant has no calibration session.
    """
    config = PairingConfig()
    calibrations = {s.session.participant.id: s for s in sessions if s.session.purpose is Purpose.CALIBRATION}
    out = []
    for sealed in sessions:
        if sealed.session.purpose is not Purpose.EVALUATION:
            continue
        participant = sealed.session.participant.id
        if participant not in calibrations:
            raise DataError(
                f"{participant} has no calibration session",
                reason=Reason.TOO_LITTLE_DATA,
                hint='Record one of purpose "calibration".',
            )
        scale = wearer_scale(pair(calibrations[participant], preprocess, config), preprocess)
        repetitions = sealed.repetitions()
        parts, times, numbers = [], [], []
        for run in pair(sealed, preprocess, config).runs:
            view, ends = windows(run.features.values, preprocess.window, first=run.features.first)
            t_ns = run.t_ns[ends - 1 - run.features.first]
            inside = np.zeros(len(ends), bool)
            for repetition in repetitions:
                inside |= within(t_ns, repetition, preprocess.window_s)
            parts.append(scale.apply(view[inside]))
            times.append(t_ns[inside])
            numbers.append((ends[inside] - preprocess.window.length) // preprocess.window.hop)
        out.append(
            SessionWindows(
                participant, np.concatenate(numbers), np.concatenate(parts), np.concatenate(times), repetitions
            )
        )
    return out
