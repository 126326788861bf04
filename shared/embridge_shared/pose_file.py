"""Hand postures in files: what `embridge gesture add --from` reads and `embridge gesture export` writes.

One JSON object with the joints by name, all of them or `"others": "rest"`:

    {"unit": "deg", "joints": {"index_mcp_fe": 5, "thumb_ip_fe": 30}, "others": "rest"}

or what a pose sender puts into a datagram: `{"pose": [20 angles]}`, radians unless `"unit": "deg"`; or
`{"landmarks": [21 points], "side": "left"}`; or `{"glove": [22 counts], "calibration": {...}}`. Frames one a line are
averaged.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_shared.errors import DataError, OperatorError, Reason
from embridge_shared.gesture_spec import check_posture
from embridge_shared.gestures import Gesture
from embridge_shared.hand import (
    JOINTS,
    N_JOINTS,
    REST,
    GloveCalibration,
    clamp,
    glove_to_joints,
    ik_failures,
    joint_angles,
)
from embridge_shared.session import Side

_MAX_BYTES: Final = 16 << 20
_KINDS: Final = ("joints", "pose", "landmarks", "glove")
_HINT: Final = "docs/gestures.md shows the formats; `embridge gesture export point` writes one."


class _Document(msgspec.Struct, frozen=True, kw_only=True):
    joints: dict[str, float] | None = None
    pose: tuple[float, ...] | None = None
    landmarks: tuple[tuple[float, float, float], ...] | None = None
    glove: tuple[float, ...] | None = None
    calibration: GloveCalibration | None = None
    unit: Literal["deg", "rad"] | None = None
    others: Literal["rest"] | None = None
    side: Side = Side.RIGHT
    title: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Posture:
    """A hand posture that was read or measured.

    Attributes:
        pose: Mean joint angles, (20,), rad, within a hand's limits.
        spread: Deviation of each joint over the frames, (20,), rad; None for one frame.
        frames: How many it rests on.
        title: Of the gesture, if the source has one.
        hint: How to make it, likewise.
    """

    pose: NDArray[np.float64]
    spread: NDArray[np.float64] | None = None
    frames: int = 1
    title: str = ""
    hint: str = ""


def read_pose(path: Path, *, glove: GloveCalibration | None = None) -> Posture:
    """Read a pose file.

    Args:
        path: The file.
        glove: Calibration for glove counts that come without one.

    Raises:
        OperatorError: NOT_FOUND.
        DataError: MALFORMED, WRONG_SHAPE, or an angle no hand reaches.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path.name} is larger than any pose.", reason=Reason.TOO_LARGE, hint=_HINT)
        data = path.read_bytes()
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror}.", reason=Reason.NOT_FOUND) from error
    documents = _documents(data, path.name)
    if not documents:
        raise DataError(f"{path.name} is empty.", reason=Reason.MALFORMED, hint=_HINT)
    frames = np.stack([_pose(each, path.name, glove) for each in documents])
    found = documents[0]
    if len(frames) == 1:
        return Posture(check_posture(frames[0], path.name), title=found.title, hint=found.hint)
    mean = average(frames, path.name)
    return Posture(mean.pose, mean.spread, mean.frames, found.title, found.hint)


def average(frames: NDArray[np.floating[Any]], source: str) -> Posture:
    """The mean posture of frames (T, 20), rad, without those that failed or were lost.

    A mean a little past a joint's limit, as trackers and gloves give, is brought back to it.

    Raises:
        DataError: TOO_LITTLE_DATA: no frame is left; or an angle no hand reaches by far.
    """
    sound = frames[np.isfinite(frames).all(axis=1)]
    sound = sound[~ik_failures(sound)].astype(np.float64)
    if not len(sound):
        raise DataError(f"{source} holds no pose then.", reason=Reason.TOO_LITTLE_DATA, hint="Choose another time.")
    mean, spread = sound.mean(axis=0), sound.std(axis=0)
    inside = clamp(mean)
    if np.abs(mean - inside).max() > np.deg2rad(15.0):
        check_posture(mean, source)
    return Posture(check_posture(inside, source), spread, len(sound))


def write_pose(gesture: Gesture) -> bytes:
    """A gesture as a pose file, in degrees."""
    degrees = np.rad2deg(gesture.pose)
    document = {
        "title": gesture.title,
        "hint": gesture.hint,
        "unit": "deg",
        "joints": {joint: round(float(a), 2) + 0.0 for joint, a in zip(JOINTS, degrees, strict=True)},
    }
    return msgspec.json.format(msgspec.json.encode(document)) + b"\n"


def _documents(data: bytes, source: str) -> list[_Document]:
    try:
        try:
            return [msgspec.json.decode(data, type=_Document)]
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            lines = [line for line in data.splitlines() if line.strip()]
            if len(lines) < 2:
                raise
            return [msgspec.json.decode(line, type=_Document) for line in lines]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, DataError) as error:
        raise DataError(f"{source} is no pose file: {error}.", reason=Reason.MALFORMED, hint=_HINT) from error


def _pose(found: _Document, source: str, glove: GloveCalibration | None) -> NDArray[np.float64]:
    """Joint angles (20,), rad; limits are not looked at."""
    held = [kind for kind in _KINDS if getattr(found, kind) is not None]
    if len(held) != 1:
        what = " and ".join(held) or "none of them"
        raise DataError(
            f"{source} needs one of {', '.join(_KINDS)}; it has {what}.", reason=Reason.MALFORMED, hint=_HINT
        )
    if found.joints is not None:
        return _named(found.joints, found, source)
    if found.pose is not None:
        if len(found.pose) != N_JOINTS:
            raise DataError(
                f"{source}: a pose has {N_JOINTS} angles, not {len(found.pose)}.",
                reason=Reason.WRONG_SHAPE,
                hint="Name them under `joints` to give fewer.",
            )
        pose = np.array(found.pose, np.float64)
        return np.deg2rad(pose) if found.unit == "deg" else pose
    if found.landmarks is not None:
        return joint_angles(np.array(found.landmarks), found.side)
    calibration = found.calibration or glove
    if calibration is None:
        raise DataError(
            f"{source}: counts of a glove need its calibration.",
            hint="`embridge pose calibrate` writes one; give it with --glove FILE.",
        )
    return glove_to_joints(np.array(found.glove), calibration)


def _named(joints: dict[str, float], found: _Document, source: str) -> NDArray[np.float64]:
    for name in joints:
        if name not in JOINTS:
            near = difflib.get_close_matches(name, JOINTS, 1)
            meant = f"Did you mean {near[0]}?" if near else f"Joints: {', '.join(JOINTS)}."
            raise DataError(f"{source}: no joint is called {name!r}.", reason=Reason.NOT_FOUND, hint=meant)
    missing = [joint for joint in JOINTS if joint not in joints]
    if missing and found.others is None:
        raise DataError(
            f"{source} leaves out {', '.join(missing[:3])}{' …' if len(missing) > 3 else ''}.",
            reason=Reason.MALFORMED,
            hint='Give all 20 joints, or say `"others": "rest"` to leave them relaxed.',
        )
    if found.unit is None:
        raise DataError(f"{source} does not say its unit.", reason=Reason.MALFORMED, hint='Add `"unit": "deg"`.')
    to_rad = np.pi / 180.0 if found.unit == "deg" else 1.0
    return np.array([joints[j] * to_rad if j in joints else REST[i] for i, j in enumerate(JOINTS)], np.float64)
