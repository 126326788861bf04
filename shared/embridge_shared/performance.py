"""How people perform a posture: how far each hand misses it, how far each repetition does, how the hand gets there.

Training measures it, a release carries it, and cloud and edge alike draw from it the clips that stand for a gesture
nobody performed; so one added on an edge is placed exactly as if the release had shipped it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_shared import archive
from embridge_shared.arrays import pack_array, unpack_array
from embridge_shared.errors import DataError, EmbridgeError, ModelError, Reason
from embridge_shared.gestures import move_into
from embridge_shared.hand import LIMITS, N_JOINTS, REST

Wide = NDArray[np.float64]

CLIPS: Final = 120
"""Clips that stand for a gesture."""
_PEOPLE: Final = 12
_DRIFT_RAD: Final = float(np.deg2rad(5.0 / 6.0))
_LEAST_RAD: Final = float(np.deg2rad(1.0))
_USUAL_RAD: Final = float(np.deg2rad(5.0))
_DRAWN: Final = 0.2
_ABOUT: Final = "performance.json"
_WIDE: Final = "<f8"


class _About(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    rate_hz: float
    frames: int
    prototypes: int
    seed: int
    people: int


@dataclass(frozen=True, slots=True, eq=False)
class Performances:
    """How a posture is performed by people a release was made of.

    Attributes:
        rate_hz: Pose frames a second.
        frames: Of a clip (Tp).
        prototypes: Clips kept of each gesture.
        seed: Of the clips, together with the gesture's name.
        people: Participants it was measured on; 0 where it is a usual value.
        within: Covariance of one person's repetitions around their own posture, (J, J), rad².
        between: Covariance of people's postures around that of all, (J, J), rad².

    Raises:
        DataError: WRONG_SHAPE: arrays that do not fit, or numbers that are none.
    """

    rate_hz: float
    frames: int
    prototypes: int
    seed: int
    people: int
    within: Wide
    between: Wide

    def __post_init__(self) -> None:
        j = len(self.within)
        shaped = self.within.shape == self.between.shape == (j, j) and j > 0
        finite = np.isfinite(self.within).all() and np.isfinite(self.between).all()
        if not (shaped and finite and self.rate_hz > 0 and self.frames >= 2 and self.prototypes >= 1):
            raise DataError(f"no performances: {self.within.shape}, {self.between.shape}", reason=Reason.WRONG_SHAPE)

    @property
    def joints(self) -> int:
        """Joints of a posture (J)."""
        return len(self.within)

    @classmethod
    def usual(cls, *, rate_hz: float, frames: int, prototypes: int, seed: int, joints: int = N_JOINTS) -> Performances:
        """Where nothing was measured: five degrees a joint, each joint on its own."""
        part = np.eye(joints) * _USUAL_RAD**2 / 2.0
        return cls(rate_hz, frames, prototypes, seed, 0, part, part)

    def clips(self, label: str, posture: Wide) -> NDArray[np.float32]:
        """Clips of a gesture: from rest into the posture, then holding it; the same for the same label and posture.

        Args:
            label: The gesture's name.
            posture: Joint angles, (J,), rad.

        Returns:
            float32 (CLIPS, Tp, J), rad; hands stay within their joints' limits.

        Raises:
            DataError: WRONG_SHAPE: a posture of other joints.
        """
        if posture.shape != (self.joints,):
            raise DataError(f"a posture of {self.joints} joints is due, not {posture.shape}", reason=Reason.WRONG_SHAPE)
        rng = np.random.default_rng([self.seed, *label.encode()])
        person = _draw(rng, self.between, _PEOPLE)[np.arange(CLIPS) % _PEOPLE]
        target = posture + person + _draw(rng, self.within, CLIPS)
        origin = REST if self.joints == N_JOINTS else np.zeros(self.joints)
        start = origin + _draw(rng, self.within, CLIPS) / 2.0
        if self.joints == N_JOINTS:
            start, target = (np.clip(x, LIMITS[:, 0], LIMITS[:, 1]) for x in (start, target))
        moved = move_into(start, target, rate_hz=self.rate_hz, frames=self.frames, drift_rad=_DRIFT_RAD, rng=rng)
        if self.joints == N_JOINTS:
            moved = np.clip(moved, LIMITS[:, 0], LIMITS[:, 1])
        return moved.astype(np.float32)

    def posture(self, label: str, posture: Wide) -> Wide:
        """Mean joint angles over the clips of a gesture, (J,), rad: what a model of windows knows it by."""
        return np.asarray(self.clips(label, posture).mean(axis=(0, 1), dtype=np.float64))

    def pack(self) -> bytes:
        """As a canonical archive; equal ones give equal bytes."""
        about = _About(**{name: getattr(self, name) for name in _About.__struct_fields__})
        return archive.pack(
            {
                _ABOUT: msgspec.json.encode(about, order="deterministic"),
                "within.npy": pack_array(self.within, _WIDE),
                "between.npy": pack_array(self.between, _WIDE),
            }
        )

    @classmethod
    def unpack(cls, data: bytes) -> Performances:
        """Read `pack` back.

        Raises:
            ModelError: MALFORMED.
        """
        try:
            parts = archive.unpack(data)
            about = msgspec.json.decode(parts[_ABOUT], type=_About)
            within, between = (unpack_array(parts[f"{name}.npy"], dtype=_WIDE) for name in ("within", "between"))
            return cls(**msgspec.structs.asdict(about), within=np.array(within), between=np.array(between))
        except (KeyError, ValueError, IndexError, msgspec.DecodeError, EmbridgeError) as error:
            raise ModelError(f"how gestures are performed: {error}", reason=Reason.MALFORMED) from error


def measure(
    poses: NDArray[np.float32],
    keys: NDArray[np.int64],
    *,
    rate_hz: float,
    prototypes: int,
    seed: int,
) -> Performances:
    """Measure how people perform.

    Args:
        poses: Windows of labelled poses, float32 (N, Tp, J), rad; their later half counts as the posture held.
        keys: Participant, gesture and repetition of each, (3, N).
        rate_hz: Pose frames a second.
        prototypes: Clips a release keeps of each gesture.
        seed: Of the clips.

    Returns:
        What was measured; the usual values where nobody repeated a gesture, and no difference between people where
        no two made the same.

    Raises:
        DataError: WRONG_SHAPE: arrays that do not fit.
    """
    if poses.ndim != 3 or keys.shape != (3, len(poses)) or poses.shape[1] < 2:
        raise DataError(f"poses {poses.shape} and keys {keys.shape} do not fit", reason=Reason.WRONG_SHAPE)
    frames, joints = poses.shape[1:]
    held = poses[:, frames // 2 :].mean(axis=1, dtype=np.float64)
    repeated, named = _means(held, keys)
    own, owners = _means(repeated, named[:2])
    inner = repeated - own[_at(named[:2], owners)]
    free = len(repeated) - len(own)
    if free < joints // 2:
        return Performances.usual(rate_hz=rate_hz, frames=frames, prototypes=prototypes, seed=seed, joints=joints)
    within = inner.T @ inner / free
    typical, gestures = _means(own, owners[1:])
    outer = own - typical[_at(owners[1:], gestures)]
    free = len(own) - len(typical)
    each = len(repeated) / len(own)
    between = outer.T @ outer / free - within / each if free >= joints // 2 else np.zeros((joints, joints))
    people = len(np.unique(keys[0]))
    return Performances(rate_hz, frames, prototypes, seed, people, _sound(within, _LEAST_RAD), _sound(between, 0.0))


def _draw(rng: np.random.Generator, covariance: Wide, n: int) -> Wide:
    """Offsets (n, J), none further than two deviations along an axis: a template stands for the usual."""
    values, vectors = np.linalg.eigh(covariance)
    z = np.clip(rng.standard_normal((n, len(values))), -2.0, 2.0)
    return np.asarray(z * np.sqrt(np.maximum(values, 0.0)) @ vectors.T)


def _means(x: Wide, keys: NDArray[np.int64]) -> tuple[Wide, NDArray[np.int64]]:
    """Mean of each group, and the key of each, (keys, groups)."""
    named, place = np.unique(keys, axis=1, return_inverse=True)
    place = place.reshape(-1)
    sums = np.zeros((named.shape[1], x.shape[1]))
    np.add.at(sums, place, x)
    return sums / np.bincount(place)[:, None], named


def _at(keys: NDArray[np.int64], named: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which of the groups `named` each key is."""
    where = {tuple(column): i for i, column in enumerate(named.T.tolist())}
    return np.array([where[tuple(column)] for column in keys.T.tolist()], np.int64)


def _sound(covariance: Wide, least: float) -> Wide:
    """Drawn to its diagonal, and nowhere less than nothing or narrower than `least`."""
    drawn = (1 - _DRAWN) * covariance + _DRAWN * np.diag(np.diag(covariance))
    values, vectors = np.linalg.eigh((drawn + drawn.T) / 2.0)
    return np.asarray(vectors * np.maximum(values, least**2) @ vectors.T)
