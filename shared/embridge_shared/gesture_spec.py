"""Gestures people add: a name and a hand posture, kept one file a gesture; no EMG of them is needed.

    STATE_DIR/gestures/NAME.json     for everyone on this edge

A wearer's own lie in the wearer's journal (`embridge_shared.enrolment`), where they can be undone and merged.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from embridge_shared.archive import write_atomically
from embridge_shared.enrolment import GestureNote
from embridge_shared.errors import DataError, OperatorError, Reason
from embridge_shared.gestures import REST_LABEL, Family, Gesture, is_name, outside, vocabulary
from embridge_shared.hand import N_JOINTS

logger = logging.getLogger(__name__)

FOLDER: Final = "gestures"
UNKNOWN: Final = "unknown"
_SUFFIX: Final = ".json"
_MODE: Final = 0o600


class GestureSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A gesture somebody added.

    Attributes:
        label: Its name in recordings, decisions and events.
        posture: Joint angles, rad, in the order of `embridge_shared.hand.JOINTS`.
        source: Where the posture is from: "template NAME", "pose FILE" or "recording SESSION".
        title: For people.
        hint: How to make it, in one sentence.
        spread: How much each joint moved while the posture was taken, rad; None where it is one posture.
        created_ns: Unix time, ns.

    Raises:
        DataError: The name is none, or the posture is no hand's.
    """

    label: str
    posture: tuple[float, ...]
    source: str
    title: str = ""
    hint: str = ""
    spread: tuple[float, ...] | None = None
    created_ns: int = 0

    def __post_init__(self) -> None:
        check_label(self.label)
        check_posture(self.posture, self.source or self.label)
        if self.spread is not None and (len(self.spread) != N_JOINTS or not np.isfinite(self.spread).all()):
            raise DataError(f"{self.label}: a spread of {len(self.spread)} joints", reason=Reason.WRONG_SHAPE)

    @classmethod
    def of(cls, note: GestureNote) -> GestureSpec:
        """What a wearer's journal says of a gesture that has a posture.

        Raises:
            DataError: It has none, or not a hand's.
        """
        if note.posture is None:
            raise DataError(f"nobody said what the hand does in {note.label!r}", reason=Reason.TOO_LITTLE_DATA)
        return cls(label=note.label, title=note.title, hint=note.hint, posture=note.posture, source=note.source)

    def note(self) -> GestureNote:
        """As a wearer's journal keeps it."""
        return GestureNote(label=self.label, title=self.title, hint=self.hint, posture=self.posture, source=self.source)

    def gesture(self) -> Gesture:
        """As the vocabulary holds gestures."""
        pose = np.array(self.posture, np.float64)
        pose.flags.writeable = False
        return Gesture(name=self.label, title=self.title or self.label, family=Family.OWN, pose=pose, hint=self.hint)


def check_label(label: str) -> None:
    """Refuse what cannot name a gesture.

    Raises:
        DataError: It holds other characters, is too long, or means something already.
    """
    if not is_name(label) or len(label) > 48:
        raise DataError(
            f"{label!r} cannot be a gesture's name.",
            hint="Use lower-case letters, digits and underscores, at most 48.",
        )
    if label in (REST_LABEL, UNKNOWN):
        raise DataError(f"{label!r} is what the decoder says when no gesture is made.", hint="Choose another name.")


def check_posture(posture: ArrayLike, source: str) -> NDArray[np.float64]:
    """Joint angles of a hand, (20,), rad.

    Raises:
        DataError: WRONG_SHAPE: not 20 of them; or one is no number, or further than a hand reaches.
    """
    pose = np.asarray(posture, np.float64)
    if pose.shape != (N_JOINTS,):
        raise DataError(
            f"{source}: a hand has {N_JOINTS} joint angles, not {pose.shape}.",
            reason=Reason.WRONG_SHAPE,
            hint="docs/gestures.md lists the joints in their order.",
        )
    if not np.isfinite(pose).all():
        raise DataError(f"{source}: an angle is no number.", reason=Reason.MALFORMED)
    if not pose.any():
        raise DataError(
            f"{source}: all angles are 0, which is how a tracker marks a pose it lost.",
            hint="Take another moment; for the straight hand use the template `flat`.",
        )
    if (fault := outside(pose)) is not None:
        joint, found, low, high = fault
        units = " Are these degrees called radians?" if np.abs(pose).max() > 2 * np.pi else ""
        raise DataError(
            f"{source}: {joint} is {found:.0f}°.", hint=f"A hand reaches {low:.0f}° to {high:.0f}° there.{units}"
        )
    return pose


class GestureFolder:
    """Gestures added for everyone on this edge.

    Args:
        state_dir: The edge's state folder.
    """

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / FOLDER

    def all(self) -> dict[str, GestureSpec]:
        """What is there, by name; a damaged file is left out with a word in the log."""
        out = {}
        for path in sorted(self.path.glob(f"*{_SUFFIX}")):
            try:
                out[path.stem] = self._read(path)
            except DataError as error:
                logger.warning("gesture %s is left out: %s", path.stem, error)
        return out

    def read(self, label: str) -> GestureSpec:
        """One of them.

        Raises:
            OperatorError: NOT_FOUND.
            DataError: MALFORMED.
        """
        check_label(label)
        path = self._path(label)
        if not path.is_file():
            raise OperatorError(
                f"no gesture {label!r} was added here.", reason=Reason.NOT_FOUND, hint="`embridge gesture list` shows."
            )
        return self._read(path)

    def write(self, spec: GestureSpec) -> Path:
        """Keep a gesture, atomically; it replaces one of the same name."""
        path = self._path(spec.label)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, msgspec.json.format(msgspec.json.encode(spec)), mode=_MODE)
        return path

    def remove(self, label: str) -> None:
        """Take a gesture away; raises as `read`, but not for a damaged file."""
        check_label(label)
        try:
            self._path(label).unlink()
        except FileNotFoundError:
            self.read(label)

    def _path(self, label: str) -> Path:
        return self.path / f"{label}{_SUFFIX}"

    @staticmethod
    def _read(path: Path) -> GestureSpec:
        try:
            found = msgspec.json.decode(path.read_bytes(), type=GestureSpec, strict=True)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DataError(
                f"{path.name}: {error}.", reason=Reason.MALFORMED, hint="Add the gesture again with --force."
            ) from error
        if found.label != path.stem:
            raise DataError(f"{path.name} holds {found.label!r}.", reason=Reason.MALFORMED)
        return found


def known(state_dir: Path | None = None) -> dict[str, Gesture]:
    """The vocabulary, and what was added for everyone on this edge; of two of a name the vocabulary's counts."""
    added = GestureFolder(state_dir).all() if state_dir is not None else {}
    shipped = vocabulary()
    return {**shipped, **{label: spec.gesture() for label, spec in added.items() if label not in shipped}}
