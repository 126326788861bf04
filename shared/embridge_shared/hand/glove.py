"""From the 22 sensors of a CyberGlove II to the 20 joint angles.

| sensor | goes to | counts rise with |
|---|---|---|
| `thumb_roll` | `thumb_cmc_fe` | the thumb crossing the palm |
| `thumb_mcp`, `thumb_ip` | `thumb_mcp_fe`, `thumb_ip_fe` | flexion |
| `thumb_abduction` | `thumb_cmc_aa`, negated | the angle between thumb and index finger |
| `{finger}_mcp`, `_pip`, `_dip` | `{finger}_mcp_fe`, `_pip_fe`, `_dip_fe` | flexion |
| `middle_index_abduction` | `index_mcp_aa` | the angle between the two fingers |
| `ring_middle_abduction` | `ring_mcp_aa` and `pinky_mcp_aa`, negated | the angle between the two fingers |
| `pinky_ring_abduction` | `pinky_mcp_aa`, negated | the angle between the two fingers |
| `palm_arch`, `wrist_flexion`, `wrist_abduction` | dropped: no joint of ours | – |

The three abduction sensors measure angles between neighbours, so they fix four fingers up to a common tilt: the
middle finger is the datum and `middle_mcp_aa` has no sensor (it stays at rest). They also answer to the difference of
flexion of the two fingers, which nothing here undoes. DIP sensors sit badly on small hands; one that hardly moves is
not blown up, so its joint stays near rest.

The map is linear and is not clipped to the joint limits: an uncalibrated glove knows its joint angles only up to scale,
and what tells movements apart on real recordings is each count's distance from the wearer's own rest, over that
sensor's own spread.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from embridge_shared.errors import DataError, Reason
from embridge_shared.hand.joints import FINGERS, JOINTS, LIMITS, N_JOINTS, REST

CYBERGLOVE_SENSORS: tuple[str, ...] = (
    "thumb_roll",
    "thumb_mcp",
    "thumb_ip",
    "thumb_abduction",
    *("index_mcp", "index_pip", "index_dip"),
    *("middle_mcp", "middle_pip", "middle_dip", "middle_index_abduction"),
    *("ring_mcp", "ring_pip", "ring_dip", "ring_middle_abduction"),
    *("pinky_mcp", "pinky_pip", "pinky_dip", "pinky_ring_abduction"),
    *("palm_arch", "wrist_flexion", "wrist_abduction"),
)
"""Sensor names in the order a CyberGlove II sends them and NinaPro stores them."""

_N_SENSORS = len(CYBERGLOVE_SENSORS)
_DIRECT = {
    "thumb_roll": "thumb_cmc_fe",
    "thumb_mcp": "thumb_mcp_fe",
    "thumb_ip": "thumb_ip_fe",
    **{f"{finger}_{joint}": f"{finger}_{joint}_fe" for finger in FINGERS for joint in ("mcp", "pip", "dip")},
}
_RELATIVE = (
    ("thumb_abduction", "thumb_cmc_aa", -1.0),
    ("middle_index_abduction", "index_mcp_aa", 1.0),
    ("ring_middle_abduction", "ring_mcp_aa", -1.0),
    ("ring_middle_abduction", "pinky_mcp_aa", -1.0),
    ("pinky_ring_abduction", "pinky_mcp_aa", -1.0),
)
# Sensors that move less than this are taken to move this much, so that noise is not mistaken for a movement.
_MIN_RANGE_COUNTS = 30.0
_MIN_SAMPLES = 20
_RANGE = (1.0, 99.0)
# Fraction of a joint's limits that free movement covers.
_USED_SPAN = 0.75


def _matrix() -> NDArray[np.float64]:
    """Sensor angles to joint angles, (20, 22)."""
    out = np.zeros((N_JOINTS, _N_SENSORS))
    for sensor, joint in _DIRECT.items():
        out[JOINTS.index(joint), CYBERGLOVE_SENSORS.index(sensor)] = 1.0
    for sensor, joint, sign in _RELATIVE:
        out[JOINTS.index(joint), CYBERGLOVE_SENSORS.index(sensor)] = sign
    return out


def _spans() -> NDArray[np.float64]:
    """How far each sensor's angle moves in use, (22,), rad; 0 for dropped sensors."""
    out = np.zeros(_N_SENSORS)
    joints = {**_DIRECT, **{s: j for s, j, _ in reversed(_RELATIVE)}}
    for sensor, joint in joints.items():
        low, high = LIMITS[JOINTS.index(joint)]
        out[CYBERGLOVE_SENSORS.index(sensor)] = _USED_SPAN * (high - low)
    return out


_MATRIX = _matrix()
_SPANS = _spans()


class GloveCalibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One wearer's glove: `angle = (count - offset) * gain`, measured from rest.

    Attributes:
        offset: Counts at rest, one a sensor.
        gain: Radians a count, one a sensor; 0 for sensors that map to no joint, negative for inverted ones.
    """

    offset: tuple[float, ...]
    gain: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.offset) != _N_SENSORS or len(self.gain) != _N_SENSORS:
            raise DataError(
                f"a glove calibration has {_N_SENSORS} offsets and gains, not {len(self.offset)} and {len(self.gain)}",
                reason=Reason.WRONG_SHAPE,
            )


def _check(glove: ArrayLike) -> NDArray[Any]:
    array = np.asarray(glove)
    if array.ndim == 0 or array.shape[-1] != _N_SENSORS:
        raise DataError(
            f"a CyberGlove II has {_N_SENSORS} sensors, not the shape {array.shape}",
            reason=Reason.WRONG_SHAPE,
            hint="Gloves with 18 sensors have no DIP sensors; they need their own map.",
        )
    return array.astype(np.float64, copy=False)


def fit_glove_calibration(
    glove: ArrayLike,
    rest: ArrayLike,
    *,
    use: ArrayLike | None = None,
    inverted: Collection[str] = (),
) -> GloveCalibration:
    """Calibrate a glove from a recording of its wearer, without knowing what the wearer did.

    The median count at rest becomes the `REST` pose; the spread of each sensor between its 1st and 99th percentile
    becomes the range its joint uses.

    Args:
        glove: Counts, (T, 22).
        rest: bool (T,), True where the wearer rested.
        use: bool (T,), samples the fit may look at; all by default. Leave out what an evaluation must not see.
        inverted: Sensors of this glove whose counts fall where the table of this module says they rise.

    Returns:
        The calibration.

    Raises:
        DataError: Shapes do not match, counts are not finite, a sensor's name is unknown, or too few samples of rest
            or movement.
    """
    counts, resting = _check(glove), np.asarray(rest, bool)
    if counts.ndim != 2 or resting.shape != counts.shape[:1]:
        raise DataError(
            f"{counts.shape} counts and {resting.shape} rest flags do not belong together", reason=Reason.WRONG_SHAPE
        )
    if unknown := set(inverted) - set(CYBERGLOVE_SENSORS):
        raise DataError(f"no glove sensor is called {sorted(unknown)[0]!r}", reason=Reason.NOT_FOUND)
    if use is not None:
        allowed = np.asarray(use, bool)
        if allowed.shape != resting.shape:
            raise DataError(f"{allowed.shape} flags for {resting.shape} samples", reason=Reason.WRONG_SHAPE)
        counts, resting = counts[allowed], resting[allowed]
    if min(resting.sum(), (~resting).sum()) < _MIN_SAMPLES:
        raise DataError(
            f"{resting.sum()} samples of rest and {(~resting).sum()} of movement do not calibrate a glove",
            reason=Reason.TOO_LITTLE_DATA,
            hint=f"Give at least {_MIN_SAMPLES} of each.",
        )
    if not np.isfinite(counts).all():
        raise DataError("glove counts are not finite", hint="Drop the broken samples with `use`.")
    low, high = np.percentile(counts, _RANGE, axis=0)
    gain = _SPANS / np.maximum(high - low, _MIN_RANGE_COUNTS)
    gain[[CYBERGLOVE_SENSORS.index(name) for name in inverted]] *= -1.0
    offset = np.median(counts[resting], axis=0)
    return GloveCalibration(offset=tuple(offset.tolist()), gain=tuple(gain.tolist()))


def glove_to_joints(glove: ArrayLike, calibration: GloveCalibration) -> NDArray[np.float64]:
    """Joint angles of glove counts.

    Args:
        glove: Counts, (..., 22).
        calibration: Of the wearer and the glove.

    Returns:
        float64 (..., 20), rad; linear in the counts, so it may pass `LIMITS`.

    Raises:
        DataError: The last axis does not have 22 sensors.
    """
    angles = (_check(glove) - np.array(calibration.offset)) * np.array(calibration.gain)
    joints: NDArray[np.float64] = REST + angles @ _MATRIX.T
    return joints
