"""Twenty joint angles: names, limits, the relaxed posture.

Signs, in radians:

- `_fe` is flexion (towards the palm) when positive, extension when negative.
- `_mcp_aa` of the four fingers tilts the finger towards the thumb's side (radial) when positive, away from it (ulnar)
  when negative, for every finger alike; spreading a hand is index positive and pinky negative.
- `thumb_cmc_fe` sweeps the thumb across the palm when positive; `thumb_cmc_aa` brings it into the palm's plane
  (adduction) when positive and out in front of it (palmar abduction) when negative.
- All zero is the flat, straight hand. A recording marks a failed pose solution the same way: see `ik_failures`.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embridge_shared.errors import DataError, Reason

Float = TypeVar("Float", np.float32, np.float64)

FINGERS = ("index", "middle", "ring", "pinky")

JOINTS: tuple[str, ...] = (
    "thumb_cmc_fe",
    "thumb_cmc_aa",
    "thumb_mcp_fe",
    "thumb_ip_fe",
    *(f"{finger}_{joint}" for finger in FINGERS for joint in ("mcp_aa", "mcp_fe", "pip_fe", "dip_fe")),
)
"""Joint names in the order of every pose vector."""

N_JOINTS = len(JOINTS)

_LIMITS_DEG = (
    *((-40, 55), (-40, 40), (-20, 70), (-30, 85)),
    *((-28, 28), (-35, 95), (-10, 118), (-12, 92)),
    *((-38, 28), (-35, 98), (-10, 118), (-12, 94)),
    *((-28, 28), (-35, 98), (-10, 118), (-12, 94)),
    *((-50, 32), (-38, 105), (-10, 115), (-12, 94)),
)

LIMITS: NDArray[np.float64] = np.deg2rad(np.array(_LIMITS_DEG, float))
"""Lower and upper limit of each joint, (20, 2), rad: active range of healthy adults, and what optical hand tracking
reports of them."""
LIMITS.flags.writeable = False

_REST_DEG = (8, 0, 8, 10, 2, 22, 28, 10, 0, 26, 32, 12, -1, 28, 34, 13, -5, 30, 32, 12)

REST: NDArray[np.float64] = np.deg2rad(np.array(_REST_DEG, float))
"""The relaxed hand, (20,), rad: where passive tissue holds the fingers when no muscle works."""
REST.flags.writeable = False


def check_pose(angles: ArrayLike) -> NDArray[Any]:
    """The array, if its last axis is a pose.

    Args:
        angles: (..., 20), rad.

    Returns:
        The same values as an array of floats.

    Raises:
        DataError: The last axis does not have 20 joints.
    """
    array = np.asarray(angles)
    if array.ndim == 0 or array.shape[-1] != N_JOINTS:
        raise DataError(
            f"a pose has {N_JOINTS} joint angles, not the shape {array.shape}",
            reason=Reason.WRONG_SHAPE,
            hint="Give the angles in the order of embridge_shared.hand.JOINTS on the last axis.",
        )
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float64)


def clamp(angles: NDArray[Float]) -> NDArray[Float]:
    """Angles brought back within `LIMITS`.

    Args:
        angles: (..., 20), rad.

    Returns:
        The same shape and dtype.

    Raises:
        DataError: The last axis does not have 20 joints.
    """
    array = check_pose(angles)
    low, high = LIMITS.T.astype(array.dtype)
    inside: NDArray[Float] = np.clip(array, low, high)
    return inside


def ik_failures(angles: ArrayLike) -> NDArray[np.bool_]:
    """Samples at which the pose solution failed: all 20 angles exactly 0.

    Args:
        angles: (T, 20), rad.

    Returns:
        bool (T,), True where the pose is not one.

    Raises:
        DataError: The last axis does not have 20 joints.
    """
    failed: NDArray[np.bool_] = (check_pose(angles) == 0).all(axis=-1)
    return failed
