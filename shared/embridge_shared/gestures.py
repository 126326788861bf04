"""The gesture vocabulary: named hand shapes as poses, and the clips that stand for them.

A gesture is defined by its pose alone, so it can be decoded before anybody recorded its EMG. The shapes live in
`gestures.toml` beside this module.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from importlib.resources import files

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_shared.errors import DataError, OperatorError, Reason
from embridge_shared.hand import JOINTS, LIMITS, N_JOINTS, REST, clamp

REST_LABEL = "rest"
"""Label of the relaxed hand, the state between gestures."""

NINAPRO_DB1_E1: dict[int, str] = {
    1 + 2 * i + j: f"{finger}_{direction}"
    for i, finger in enumerate(("index", "middle", "ring", "pinky"))
    for j, direction in enumerate(("flexion", "extension"))
} | {9: "thumb_adduction", 10: "thumb_abduction", 11: "thumb_flexion", 12: "thumb_extension"}
"""Labels 1..12 of NinaPro DB1, exercise 1; label 0 is rest."""

COUNTS: dict[int, str] = {
    **{1: "point", 2: "peace", 3: "three", 4: "four", 5: "open"},
    **{6: "six", 7: "seven", 8: "eight", 9: "ok", 10: "thumbs_up"},
}
"""Which gesture shows a number, on one hand, as in American Sign Language."""

FINGERSPELLING: dict[str, str] = {
    **{"A": "letter_a", "D": "letter_d", "E": "letter_e", "F": "ok", "I": "pinky_up", "K": "letter_k", "L": "gun"},
    **{"O": "pinch_all", "R": "letter_r", "S": "fist", "U": "letter_u", "V": "peace", "W": "three", "X": "letter_x"},
    "Y": "shaka",
}
"""Which gesture spells a letter by the shape of the hand alone, as in American Sign Language; the others need the wrist
or a movement, or differ from one of these in less than a decoder sees."""

ALIKE = 0.75
"""Least `similarity` of two shapes that are hard to tell apart for any decoder."""

_Degrees = tuple[float, float, float, float]


class Family(StrEnum):
    """What kind of shape a gesture is."""

    REST = "rest"
    HAND = "hand"
    SIGN = "sign"
    PINCH = "pinch"
    GRASP = "grasp"
    FINGER = "finger"
    OWN = "own"


@dataclass(frozen=True, slots=True, eq=False)
class Gesture:
    """A hand shape with a name.

    Attributes:
        name: Label in recordings and releases.
        title: For people.
        family: Kind of shape.
        pose: Joint angles, read-only float64 (20,), rad.
        hint: How to make it, in one sentence.
    """

    name: str
    title: str
    family: Family
    pose: NDArray[np.float64] = field(repr=False)
    hint: str = ""


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    title: str
    family: Family
    hint: str
    thumb: _Degrees
    index: _Degrees
    middle: _Degrees
    ring: _Degrees
    pinky: _Degrees

    def pose(self) -> NDArray[np.float64]:
        """Joint angles, (20,), rad."""
        degrees = np.array((*self.thumb, *self.index, *self.middle, *self.ring, *self.pinky), np.float64)
        return degrees * (np.pi / 180.0)


def is_name(name: str) -> bool:
    """Whether a gesture may be called so: lower-case letters, digits and underscores."""
    return name.replace("_", "").isalnum() and name.isascii() and name == name.lower()


def outside(pose: NDArray[np.float64]) -> tuple[str, float, float, float] | None:
    """The joint of a pose (20,), rad, that is furthest past what a hand reaches.

    Returns:
        Its name, its angle, and the lower and upper limit, degrees; None where all are within.
    """
    past = np.maximum(LIMITS[:, 0] - pose, pose - LIMITS[:, 1])
    joint = int(past.argmax())
    if past[joint] <= 1e-9:
        return None
    low, high = np.rad2deg(LIMITS[joint])
    return JOINTS[joint], float(np.rad2deg(pose[joint])), float(low), float(high)


def _gesture(name: str, entry: _Entry, source: str) -> Gesture:
    if not is_name(name):
        raise DataError(
            f"{source}: {name!r} cannot be a gesture's name", hint="Use lower-case letters, digits and underscores."
        )
    pose = entry.pose()
    if (fault := outside(pose)) is not None:
        joint, found, low, high = fault
        raise DataError(
            f"{source}: {name}: {joint} is {found:.0f}°", hint=f"A hand reaches {low:.0f}° to {high:.0f}° there."
        )
    pose.flags.writeable = False
    return Gesture(name=name, title=entry.title, family=entry.family, pose=pose, hint=entry.hint)


def parse_gestures(text: str, source: str = "gestures") -> dict[str, Gesture]:
    """Read gestures from TOML: one table a gesture, angles in degrees.

    Args:
        text: The document.
        source: Where it came from, for messages.

    Returns:
        Gestures by name, in the document's order.

    Raises:
        DataError: Not TOML, an unknown or missing key, or an angle no hand reaches.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{source} is not TOML: {error}", reason=Reason.MALFORMED) from error
    out = {}
    for name, table in tables.items():
        try:
            entry = msgspec.convert(table, _Entry)
        except msgspec.ValidationError as error:
            raise DataError(f"{source}: {name}: {error}", reason=Reason.MALFORMED) from error
        out[name] = _gesture(name, entry, source)
    return out


@cache
def _shipped() -> dict[str, Gesture]:
    text = files("embridge_shared").joinpath("gestures.toml").read_text(encoding="utf-8")
    return parse_gestures(text, "gestures.toml")


def vocabulary() -> dict[str, Gesture]:
    """The gestures that ship with EMBridge, by name; the dict is the caller's own."""
    return dict(_shipped())


def find(names: Iterable[str]) -> list[Gesture]:
    """Gestures of the vocabulary by name.

    Args:
        names: Labels.

    Returns:
        The gestures, in the order asked for.

    Raises:
        OperatorError: A name is not in the vocabulary.
    """
    known = _shipped()
    out = []
    for name in names:
        if name not in known:
            raise OperatorError(
                f"There is no gesture called {name!r}.",
                reason=Reason.NOT_FOUND,
                hint="`embridge gesture list` shows them all.",
            )
        out.append(known[name])
    return out


def _smooth_step(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Minimum-jerk course from 0 to 1 over u in 0..1."""
    u = np.clip(u, 0.0, 1.0)
    course: NDArray[np.float64] = u**3 * (10.0 - 15.0 * u + 6.0 * u**2)
    return course


def _wander(rng: np.random.Generator, shape: tuple[int, ...], t_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slow unit-variance movement of every joint, (n, frames, J)."""
    hz = rng.uniform(0.2, 1.5, (shape[0], 1, shape[2]))
    phase = rng.uniform(0.0, 2.0 * np.pi, hz.shape)
    wave: NDArray[np.float64] = np.sqrt(2.0) * np.sin(2.0 * np.pi * hz * t_s[None, :, None] + phase)
    return wave


def pose_clips(
    gesture: Gesture,
    n: int,
    *,
    rate_hz: float,
    seconds: float,
    rng: np.random.Generator,
    jitter_deg: float = 10.0,
    warp: float = 0.2,
) -> NDArray[np.float32]:
    """Clips of a gesture as hands perform it: from rest into the shape, then mostly holding it.

    Each clip misses the template by its own offset a joint, drifts a little while it holds, and moves at its own pace.

    Args:
        gesture: What to perform.
        n: Number of clips.
        rate_hz: Frames a second.
        seconds: Length of a clip.
        rng: Source of every difference between clips.
        jitter_deg: 95 % of the joint offsets stay within plus or minus this.
        warp: Relative spread of onset and speed, 0 to below 1.

    Returns:
        float32 (n, frames, 20), rad, within the joint limits.

    Raises:
        DataError: A count, rate, length, jitter or warp that makes no clip.
    """
    frames = round(rate_hz * seconds)
    if n < 1 or frames < 2 or jitter_deg < 0 or not 0 <= warp < 1:
        raise DataError(
            f"cannot make {n} clips of {seconds} s at {rate_hz} Hz with jitter {jitter_deg}° and warp {warp}",
            hint="Ask for one clip or more, two frames or more, jitter from 0, warp from 0 to below 1.",
        )
    sd_rad = np.deg2rad(jitter_deg) / 2.0
    target = gesture.pose + rng.normal(0.0, sd_rad, (n, N_JOINTS))
    start = REST + rng.normal(0.0, sd_rad / 2.0, (n, N_JOINTS))
    clips = move_into(start, target, rate_hz=rate_hz, frames=frames, drift_rad=sd_rad / 6.0, rng=rng, warp=warp)
    return clamp(clips).astype(np.float32)


def move_into(
    start: NDArray[np.float64],
    target: NDArray[np.float64],
    *,
    rate_hz: float,
    frames: int,
    drift_rad: float,
    rng: np.random.Generator,
    warp: float = 0.2,
) -> NDArray[np.float64]:
    """Movements from postures into others, then holding these, each at its own pace and with a slow drift.

    Args:
        start: Where each begins, (n, J), rad.
        target: Where each goes, (n, J), rad.
        rate_hz: Frames a second.
        frames: Of a movement.
        drift_rad: Deviation of the drift of each joint, rad.
        rng: Source of every difference.
        warp: Relative spread of onset and speed, 0 to below 1.

    Returns:
        (n, frames, J), rad.
    """
    t_s, seconds, n = np.arange(frames) / rate_hz, frames / rate_hz, len(start)
    pace = 1.0 + warp * rng.uniform(-1.0, 1.0, (n, 1))
    onset_s = seconds * 0.05 * (1.0 + warp * rng.uniform(-1.0, 1.0, (n, 1)))
    move_s = min(0.35, 0.25 * seconds)
    progress = _smooth_step((t_s[None, :] - onset_s) / (move_s * pace))[..., None]
    moved = start[:, None] + (target - start)[:, None] * progress
    drifted: NDArray[np.float64] = moved + drift_rad * _wander(rng, moved.shape, t_s)
    return drifted


def similarity(gestures: Iterable[Gesture]) -> NDArray[np.float64]:
    """How alike hand shapes are.

    Args:
        gestures: N shapes.

    Returns:
        (N, N): 1 for the same shape, falling as a Gaussian of the RMS joint difference with a scale of 10°; pairs
        above 0.75 (7.6°) are hard to tell apart for any decoder.
    """
    poses = np.array([gesture.pose for gesture in gestures])
    rms_deg = np.rad2deg(np.sqrt(((poses[:, None] - poses[None]) ** 2).mean(axis=-1)))
    kernel: NDArray[np.float64] = np.exp(-0.5 * (rms_deg / 10.0) ** 2)
    return kernel


def confusable(gestures: Iterable[Gesture], above: float = ALIKE) -> list[tuple[str, str, float]]:
    """Pairs too alike to be told apart, the worst first.

    Args:
        gestures: The shapes to compare.
        above: Least `similarity` of a pair to report.

    Returns:
        (name, name, similarity) triples.
    """
    shapes = list(gestures)
    kernel = similarity(shapes)
    rows, columns = np.triu_indices(len(shapes), k=1)
    pairs = [(shapes[i].name, shapes[j].name, float(kernel[i, j])) for i, j in zip(rows, columns, strict=True)]
    return sorted((pair for pair in pairs if pair[2] >= above), key=lambda pair: -pair[2])
