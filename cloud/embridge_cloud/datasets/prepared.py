"""A recording reduced to what windows are cut from: features and pose on their grids, without the raw samples."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.datasets.base import PoseKind, Segment
from embridge_shared.preprocess import Features


@dataclass(frozen=True, slots=True, eq=False)
class GridPose:
    """Pose at `CutConfig.pose_rate_hz`.

    Attributes:
        kind: What `values` are.
        values: float32 (n, J).
        valid: bool (n,): every recorded sample up to the next one of this grid was a pose.
        rest: bool (n,): the participant rested.
        use: bool (n,): a fit may look at it.
    """

    kind: PoseKind
    values: NDArray[np.float32]
    valid: NDArray[np.bool_]
    rest: NDArray[np.bool_]
    use: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A recording's features and pose.

    Attributes:
        participant: Pseudonym.
        session: Name of the recording.
        emg_rate_hz: Rate that `segments` count in.
        start_s: Time of the first sample in its session, s.
        segments: What was done when.
        features: Of the whole recording, unscaled.
        fit: Features that a fit may look at, float32 (m, C), in no order that matters.
        pose: On the grid; None where none is asked for or there is none.
    """

    participant: str
    session: str
    emg_rate_hz: float
    start_s: float
    segments: tuple[Segment, ...]
    features: Features
    fit: NDArray[np.float32]
    pose: GridPose | None


def newest(n: int, rate_hz: float, grid_hz: float) -> NDArray[np.int64]:
    """Newest sample at each of the first n moments of a grid, as the front end takes it (n,)."""
    ratio = Fraction(rate_hz).limit_denominator(10**6) / Fraction(grid_hz).limit_denominator(10**6)
    return np.arange(n, dtype=np.int64) * ratio.numerator // ratio.denominator
