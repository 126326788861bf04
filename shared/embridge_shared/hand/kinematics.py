"""Forward kinematics: where 20 joint angles put the landmarks of a hand.

Wrist frame of the right hand, right-handed, metres: +x towards the thumb (radial), +y towards the fingertips (distal),
+z out of the palm (palmar). The left hand is its mirror image in x. Segment lengths are those of a 190 mm hand by the
coefficients of Buchholz, Armstrong and Goldstein (Ergonomics 35, 1992, 261-273); a finger is fanned and rolled at its
knuckle so that the flexed fingers converge on the scaphoid.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embridge_shared.hand.joints import FINGERS, check_pose
from embridge_shared.session import Side

LANDMARKS: tuple[str, ...] = (
    "wrist",
    *(f"thumb_{part}" for part in ("cmc", "mcp", "ip", "tip")),
    *(f"{finger}_{part}" for finger in FINGERS for part in ("mcp", "pip", "dip", "tip")),
)
"""Landmark names: the wrist, then four a digit from the knuckle to the tip."""

BONES: tuple[tuple[int, int], ...] = tuple(
    (0 if joint == 0 else 1 + 4 * digit + joint - 1, 1 + 4 * digit + joint) for digit in range(5) for joint in range(4)
)
"""Pairs of landmarks to join when drawing."""

_HAND_LENGTH = 0.190
# Fractions of the hand's length: proximal, middle and distal phalanx; the thumb begins with its metacarpal.
_SEGMENTS = _HAND_LENGTH * np.array(
    [
        (0.251, 0.196, 0.158),
        (0.245, 0.143, 0.097),
        (0.266, 0.170, 0.108),
        (0.244, 0.165, 0.107),
        (0.204, 0.117, 0.093),
    ]
)
BASES: NDArray[np.float64] = np.array(
    [
        (0.022, 0.020, 0.010),
        (0.024, 0.0845, 0.002),
        (0.003, 0.0850, -0.001),
        (-0.016, 0.0785, 0.001),
        (-0.033, 0.0705, 0.006),
    ]
)
"""Where each digit begins, (5, 3), m, wrist frame of the right hand: the thumb's carpal joint, then the knuckles."""
_FAN_RAD = np.deg2rad([3.0, 0.0, -3.0, -7.0])
_ROLL_RAD = np.deg2rad([-6.0, 0.0, 8.0, 16.0])
_THUMB_ALONG = np.array([0.62, 0.68, 0.36])
_THUMB_FLEXES = np.array([-0.78, 0.05, 0.50])


def _about(axis: int, angle: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Rotation matrices (..., 3, 3) about a coordinate axis."""
    cos, sin = np.cos(angle), np.sin(angle)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    out = np.zeros((*np.shape(angle), 3, 3))
    out[..., axis, axis] = 1.0
    out[..., i, i], out[..., i, j] = cos, -sin
    out[..., j, i], out[..., j, j] = sin, cos
    return out


def _frames() -> NDArray[np.float64]:
    """Each digit's own frame when straight, (5, 3, 3): columns sideways, along, towards the palm."""
    along = _THUMB_ALONG / np.linalg.norm(_THUMB_ALONG)
    palmar = _THUMB_FLEXES - along * (_THUMB_FLEXES @ along)
    palmar /= np.linalg.norm(palmar)
    thumb = np.stack([np.cross(along, palmar), along, palmar], axis=1)
    fingers = _about(2, -_FAN_RAD) @ _about(1, _ROLL_RAD)
    return np.concatenate([thumb[None], fingers])


FRAMES: NDArray[np.float64] = _frames()
"""Each digit's own frame when straight, (5, 3, 3): columns sideways, along, towards the palm."""


def _digit(digit: int, sideways: NDArray[Any], bends: NDArray[Any]) -> NDArray[np.float64]:
    """Landmarks of one digit, (..., 4, 3), from its sideways angle (...) and three bends (..., 3)."""
    turn = FRAMES[digit] @ _about(2, sideways)
    points = [np.broadcast_to(BASES[digit], (*np.shape(sideways), 3))]
    for segment in range(3):
        turn = turn @ _about(0, bends[..., segment])
        points.append(points[-1] + turn[..., 1] * _SEGMENTS[digit, segment])
    return np.stack(points, axis=-2)


def landmarks(angles: ArrayLike, side: Side = Side.RIGHT) -> NDArray[np.float64]:
    """Positions of the 21 landmarks.

    Args:
        angles: (..., 20), rad, in the order of `JOINTS`.
        side: Which hand; the left is the mirror image of the right.

    Returns:
        float64 (..., 21, 3), m, in the wrist frame, in the order of `LANDMARKS`.

    Raises:
        DataError: The last axis does not have 20 joints.
    """
    pose = check_pose(angles)
    digits = [np.zeros((*pose.shape[:-1], 1, 3))]
    # The thumb's frame has its palmar-abduction axis where the fingers have radial, hence the opposite sign.
    digits.append(_digit(0, pose[..., 1], pose[..., [0, 2, 3]]))
    for digit in range(1, 5):
        first = 4 * digit
        digits.append(_digit(digit, -pose[..., first], pose[..., first + 1 : first + 4]))
    points: NDArray[np.float64] = np.concatenate(digits, axis=-2)
    return points * np.array([-1.0, 1.0, 1.0]) if side is Side.LEFT else points
