"""What training participants say of a wearer nobody has met: means, how far people differ, how far repetitions do."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from embridge_shared import archive
from embridge_shared.arrays import pack_array, unpack_array
from embridge_shared.errors import DataError, EmbridgeError, ModelError, Reason
from embridge_shared.hand import N_JOINTS, REST
from embridge_shared.wearer.levels import PARTS, View, describe, levels

Wide = NDArray[np.float64]

_ABOUT: Final = "prior.json"
_WIDE: Final = "<f8"
_HINT: Final = "The running release stays; report this release to who trained it."


class Kernel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How alike a person's deviations are for two gestures: `shared + alike * exp(-d² / 2 length²) + own * [same]`.

    Attributes:
        shared: Part a person has in every gesture.
        alike: Part that is alike for postures that are alike.
        own: Part each gesture has of its own.
        length: Distance of postures, in bends, at which alikeness fades.
    """

    shared: float
    alike: float
    own: float
    length: float

    def __post_init__(self) -> None:
        parts = (self.shared, self.alike, self.own)
        if not (all(math.isfinite(p) and p >= 0 for p in parts) and sum(parts) > 0 and 0 < self.length < math.inf):
            raise DataError(f"no kernel: {self}")

    def __call__(self, bent: Wide) -> Wide:
        """Postures in bends, (G, B), to (G, G)."""
        square = np.square(bent[:, None] - bent[None]).sum(axis=-1)
        near = np.exp(-square / (2 * self.length**2))
        return np.asarray(self.shared + self.alike * near + self.own * np.eye(len(bent)))


class _About(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    gestures: tuple[str, ...]
    performed: tuple[str, ...]
    kernel: Kernel
    within_windows: float
    participants: int


def bends(poses: ArrayLike, joint: NDArray[np.floating]) -> Wide:
    """Flexion and extension of each joint from where it rests, both positive.

    Muscles pull one way only, so either way counts on its own.

    Args:
        poses: Postures (..., J): joint angles, rad, or sensors of a glove.
        joint: Origin and scale of each joint, (2, J).

    Returns:
        float64 (..., 2 J).

    Raises:
        DataError: WRONG_SHAPE.
    """
    pose = np.asarray(poses, np.float64)
    if pose.ndim < 1 or pose.shape[-1] != joint.shape[1]:
        raise DataError(f"a posture of {joint.shape[1]} joints is due, not {pose.shape}", reason=Reason.WRONG_SHAPE)
    y = (pose - joint[0]) / joint[1]
    return np.concatenate([np.maximum(y, 0), np.maximum(-y, 0)], axis=-1)


def joint_scale(poses: ArrayLike) -> Wide:
    """Where each joint rests and how far it moves over postures (N, J); one that never moves stays small: (2, J)."""
    means = np.asarray(poses, np.float64)
    sd = means.std(axis=0)
    # sensors are measured from rest already
    origin = REST if means.shape[1] == N_JOINTS else np.zeros(means.shape[1])
    return np.stack([origin, sd + max(1e-6, 0.05 * float(np.median(sd)))])


@dataclass(frozen=True, slots=True)
class WearerPrior:
    """A wearer nobody has met, in a space whose axes are independent and where windows of one gesture are about round.

    Attributes:
        gestures: Gestures whose posture is known (G).
        performed: Those whose EMG training participants gave (K).
        kernel: How a person's deviations go together over gestures.
        within_windows: Windows that `within` counts for beside a wearer's own.
        participants: Number of people it was learnt from.
        view_mean: Mean root level, (C,).
        view_matrix: Whitens root levels, (C, C).
        feature: Mean and deviation of the features, (2, F).
        axes: Standardised features to the space, (F, F).
        postures: Mean posture of each of `gestures`, (G, J).
        means: Mean of each gesture in `performed`, (K, F).
        joint: Origin and scale of each joint, (2, J).
        bend: Mean of the bends, (2 J,).
        encode: Bends to the space, (2 J, F): where a gesture nobody performed would lie.
        people: Variance between people, per axis, (F,).
        unseen: Variance of what `encode` misses, per axis, (F,).
        repeats: Variance between repetitions, per axis, (F,).
        within: Variance of windows of one gesture of one person, per axis, (F,).

    Raises:
        DataError: WRONG_SHAPE: arrays that do not fit, or numbers that are none.
    """

    gestures: tuple[str, ...]
    performed: tuple[str, ...]
    kernel: Kernel
    within_windows: float
    participants: int
    view_mean: Wide
    view_matrix: Wide
    feature: Wide
    axes: Wide
    postures: Wide
    means: Wide
    joint: Wide
    bend: Wide
    encode: Wide
    people: Wide
    unseen: Wide
    repeats: Wide
    within: Wide

    def __post_init__(self) -> None:
        c, f, bent = len(self.view_mean), PARTS * len(self.view_mean), 2 * self.joint.shape[-1]
        due = {
            **{"view_mean": (c,), "view_matrix": (c, c), "feature": (2, f), "axes": (f, f)},
            **{"postures": (len(self.gestures), bent // 2), "means": (len(self.performed), f)},
            **{"joint": (2, bent // 2), "bend": (bent,), "encode": (bent, f)},
            **{"people": (f,), "unseen": (f,), "repeats": (f,), "within": (f,)},
        }
        wrong = [n for n, shape in due.items() if getattr(self, n).shape != shape]
        wrong += [n for n in due if not np.isfinite(getattr(self, n)).all()]
        wrong += [n for n in ("people", "unseen", "repeats") if (getattr(self, n) < 0).any()]
        wrong += ["performed"] * (not set(self.performed) <= set(self.gestures))
        if wrong or (self.within <= 0).any() or not self.within_windows > 0:
            raise DataError(f"no prior of wearers: {wrong or 'within'} is not right", reason=Reason.WRONG_SHAPE)

    @property
    def channels(self) -> int:
        """EMG channels (C)."""
        return len(self.view_mean)

    @property
    def joints(self) -> int:
        """Joints of a posture (J)."""
        return int(self.joint.shape[1])

    @property
    def size(self) -> int:
        """Axes of the space (F)."""
        return len(self.people)

    def describe(self, windows: NDArray[np.float32]) -> Wide:
        """Place windows of scaled features, float32 (N, T, C), in the space: float64 (N, F).

        Raises:
            DataError: WRONG_SHAPE.
        """
        level = levels(windows)
        if level.shape[2] != self.channels:
            raise DataError(f"{self.channels} channels are due, not {level.shape[2]}", reason=Reason.WRONG_SHAPE)
        x = describe(level, View(self.view_mean, self.view_matrix))
        return np.asarray((x - self.feature[0]) / self.feature[1] @ self.axes)

    def predict(self, poses: ArrayLike) -> Wide:
        """Where gestures of these postures (G, J) would lie if nobody performed them: (G, F)."""
        return np.asarray((bends(poses, self.joint) - self.bend) @ self.encode)

    def pack(self) -> bytes:
        """As a canonical archive; equal priors give equal bytes."""
        about = _About(
            gestures=self.gestures,
            performed=self.performed,
            kernel=self.kernel,
            within_windows=self.within_windows,
            participants=self.participants,
        )
        return archive.pack(
            {
                _ABOUT: msgspec.json.encode(about, order="deterministic"),
                **{f"{name}.npy": pack_array(getattr(self, name), _WIDE) for name in _ARRAYS},
            }
        )

    @classmethod
    def unpack(cls, data: bytes) -> WearerPrior:
        """Read `pack` back.

        Raises:
            ModelError: MALFORMED.
        """
        try:
            parts = archive.unpack(data)
            about = msgspec.json.decode(parts[_ABOUT], type=_About)
            found: dict[str, Any] = {name: unpack_array(parts[f"{name}.npy"], dtype=_WIDE) for name in _ARRAYS}
            return cls(**{name: getattr(about, name) for name in about.__struct_fields__}, **found)
        except (KeyError, ValueError, IndexError, msgspec.DecodeError, EmbridgeError) as error:
            raise ModelError(f"the prior of wearers: {error}", reason=Reason.MALFORMED, hint=_HINT) from error


_ARRAYS: Final = tuple(f.name for f in fields(WearerPrior) if f.name not in _About.__struct_fields__)
