"""Inverse kinematics by geometry: from 21 landmarks, in any frame and of any size of hand, to 20 joint angles.

The palm (wrist and four knuckles) is laid on that of the model; only directions are used after that, so bones may have
any length. A digit bends in one plane, which its three segments fix together: the knuckle's sideways angle is that of
the plane, the bends are the angles between segments in it. The inverse of `landmarks`, exact on the model's own hand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embridge_shared.errors import DataError, Reason
from embridge_shared.hand.joints import N_JOINTS
from embridge_shared.hand.kinematics import BASES, FRAMES, LANDMARKS
from embridge_shared.session import Side

_PALM = (0, 5, 9, 13, 17)
_MODEL_PALM = np.concatenate([np.zeros((1, 3)), BASES[1:]])
_SMALLEST_M = 1e-6


def joint_angles(points: ArrayLike, side: Side = Side.RIGHT) -> NDArray[np.float64]:
    """Joint angles of a hand whose landmarks are known.

    Args:
        points: (..., 21, 3), in the order of `LANDMARKS`, in a right-handed frame; any unit, origin and direction.
        side: Which hand.

    Returns:
        float64 (..., 20), rad, in the order of `JOINTS`; all 0, as for a failed pose, where the landmarks are not
        finite or the palm has no size.

    Raises:
        DataError: The last axes are not 21 landmarks of 3 coordinates.
    """
    array = np.asarray(points, np.float64)
    if array.shape[-2:] != (len(LANDMARKS), 3):
        raise DataError(
            f"a hand has {len(LANDMARKS)} landmarks of 3 coordinates, not the shape {array.shape}",
            reason=Reason.WRONG_SHAPE,
        )
    flat = array.reshape(-1, len(LANDMARKS), 3)
    usable = np.asarray(np.isfinite(flat.reshape(len(flat), -1)).all(axis=1))
    flat = np.where(usable[:, None, None], flat, 0.0)
    if side is Side.LEFT:
        flat = flat * np.array([-1.0, 1.0, 1.0])
    palm = flat[:, _PALM] - flat[:, _PALM].mean(axis=1, keepdims=True)
    usable &= np.linalg.matrix_rank(palm, tol=_SMALLEST_M) >= 2
    wrist = flat @ _rotation(palm)
    out = np.zeros((len(flat), N_JOINTS))
    for digit in range(5):
        joints = wrist[:, 1 + 4 * digit : 5 + 4 * digit]
        sideways, bends = _digit(np.diff(joints, axis=1) @ FRAMES[digit])
        first = 4 * digit
        if digit == 0:
            out[:, 1], out[:, [0, 2, 3]] = sideways, bends
        else:
            out[:, first], out[:, first + 1 : first + 4] = -sideways, bends
    out[~usable] = 0.0
    return out.reshape(*array.shape[:-2], N_JOINTS)


def _rotation(palm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotations R (n, 3, 3) so that `points @ R` lies as in the wrist frame of the model."""
    model = _MODEL_PALM - _MODEL_PALM.mean(axis=0)
    u, _, vt = np.linalg.svd(np.swapaxes(palm, 1, 2) @ model)
    flip = np.ones((len(palm), 3))
    flip[:, 2] = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    rotation: NDArray[np.float64] = (u * flip[:, None, :]) @ vt
    return rotation


def _digit(segments: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sideways angle (n,) and three bends (n, 3) of a digit's segments (n, 3, 3) in its own frame."""
    x, y, z = segments[..., 0], segments[..., 1], segments[..., 2]
    # The plane holds the palmar axis; its trace is the axis along which x and y spread most.
    sideways = 0.5 * np.arctan2(-2 * (x * y).sum(axis=1), (y * y - x * x).sum(axis=1))
    along = -x * np.sin(sideways)[:, None] + y * np.cos(sideways)[:, None]
    pitch = np.arctan2(z, along)
    bends = np.concatenate([pitch[:, :1], np.diff(pitch, axis=1)], axis=1)
    return sideways, (bends + np.pi) % (2 * np.pi) - np.pi
