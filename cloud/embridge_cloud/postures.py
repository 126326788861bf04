"""Hand poses of a sealed session, for whoever makes a gesture of a moment of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.pairing import recorded_poses
from embridge_cloud.store.sealed import SealedSession
from embridge_shared.session import RepetitionStatus


def poses_of(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Poses of a sealed session, failed frames left out.

    Args:
        folder: Of the session.

    Returns:
        Seconds since the session's start (n,), and joint angles, rad (n, 20); none where it has no pose.

    Raises:
        DataError: The folder holds no readable session, or a glove that cannot be calibrated.
    """
    sealed = SealedSession(folder)
    accepted = tuple(r for r in sealed.repetitions() if r.status is RepetitionStatus.ACCEPTED)
    found = recorded_poses(sealed, accepted)
    if found is None:
        return np.zeros(0), np.zeros((0, 20))
    t_ns, poses = found
    t_s: NDArray[np.float64] = (t_ns - sealed.session.started_ns).astype(np.float64) * 1e-9
    return t_s, poses.astype(np.float64)
