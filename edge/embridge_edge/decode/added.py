"""Gestures added on this edge: from a posture to what the release's decoder and the wearer's model recognise them by.

The release's pose encoder places clips of the posture, performed as its training participants perform; the few that
stand for them are chosen as the cloud chooses. So a gesture added here decodes as one that the release shipped.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from embridge_edge.decode.runtime import Decoder
from embridge_edge.decode.session import open_session
from embridge_edge.enrol.store import WearerStore
from embridge_shared.clock import SystemClock
from embridge_shared.errors import DataError, EmbridgeError, ModelError, Reason
from embridge_shared.gesture_spec import GestureFolder, GestureSpec
from embridge_shared.medoids import medoids
from embridge_shared.release import POSE, Bundle
from embridge_shared.wearer import KnownGesture

logger = logging.getLogger(__name__)

_INPUT: Final = "poses"
_OUTPUT: Final = "vectors"
_BATCH: Final = 32


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """An added gesture in a release's space.

    Attributes:
        label: Its name.
        vectors: Prototypes, L2-normalised, float32 (P, d).
        posture: Mean joint angles over its clips, (J,), rad: what the wearer's model knows it by.
    """

    label: str
    vectors: NDArray[np.float32]
    posture: NDArray[np.float64]

    def known(self) -> KnownGesture:
        """For the model of a wearer."""
        return KnownGesture(self.label, self.posture)


class PoseEncoder:
    """Postures into a release's space.

    Args:
        bundle: A verified release.

    Raises:
        ModelError: NOT_FOUND: the release places no postures; MALFORMED or INCOMPATIBLE: its graph is damaged, or of
            other joints than its statistics.
    """

    def __init__(self, bundle: Bundle) -> None:
        release = bundle.manifest.release
        if POSE not in bundle.files:
            raise ModelError(
                f"{release} cannot place gestures by their pose.",
                reason=Reason.NOT_FOUND,
                hint="Roll out a release that was trained with this version or a later one.",
            )
        self.performances = bundle.performances()
        self._release, self._dim = release, bundle.manifest.dim
        self._session = open_session(bundle.files[POSE], f"the pose encoder of {release}")
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        due = [self.performances.frames, self.performances.joints]
        if [i.name for i in inputs] != [_INPUT] or [o.name for o in outputs] != [_OUTPUT] or inputs[0].shape[1:] != due:
            raise ModelError(
                f"the pose encoder of {release} takes {[(i.name, i.shape) for i in inputs]}, not {_INPUT} {due}",
                reason=Reason.INCOMPATIBLE,
            )

    def embed(self, poses: NDArray[np.float32]) -> NDArray[np.float32]:
        """Clips, float32 (N, Tp, J), rad, to unit vectors (N, d).

        Raises:
            ModelError: SELF_TEST: what comes out is not that.
        """
        parts = [
            self._session.run([_OUTPUT], {_INPUT: np.ascontiguousarray(poses[i : i + _BATCH], np.float32)})[0]
            for i in range(0, len(poses), _BATCH)
        ]
        found = np.concatenate(parts).astype(np.float32)
        if found.shape != (len(poses), self._dim) or np.abs(np.linalg.norm(found, axis=1) - 1).max() > 1e-3:
            raise ModelError(f"the pose encoder of {self._release} gave no unit vectors", reason=Reason.SELF_TEST)
        return found

    def place(self, label: str, posture: Sequence[float] | NDArray[np.floating]) -> Placed:
        """A gesture of this posture, (J,), rad.

        Raises:
            DataError: WRONG_SHAPE: this release was trained with other joints.
            ModelError: As `embed`.
        """
        clips = self.performances.clips(label, np.asarray(posture, np.float64))
        vectors = self.embed(clips)
        chosen = vectors[medoids(vectors, self.performances.prototypes)]
        return Placed(label, np.ascontiguousarray(chosen), np.asarray(clips.mean(axis=(0, 1), dtype=np.float64)))

    def fresh(self, label: str, posture: Sequence[float] | NDArray[np.floating]) -> NDArray[np.float32]:
        """Unit vectors (N, d) of other clips of a gesture than those `place` chooses among; raises as `place`."""
        return self.embed(self.performances.clips(f"{label}~", np.asarray(posture, np.float64)))


def added_gestures(state_dir: Path, participant: str | None) -> dict[str, GestureSpec]:
    """What was added on this edge for everyone, and for one participant; of two of a name the participant's counts.

    One whose file is damaged is left out, with a word in the log.
    """
    out = GestureFolder(state_dir).all()
    if participant is None:
        return out
    try:
        held = WearerStore(state_dir, participant, edge="", clock=SystemClock()).held()
    except DataError as error:
        logger.warning("a wearer's gestures are left out: %s", error)
        return out
    for label, note in held.gestures.items():
        if note.posture is not None:
            try:
                out[label] = GestureSpec.of(note)
            except DataError as error:
                logger.warning("gesture %s is left out: %s", label, error)
    return out


def place_all(bundle: Bundle, specs: Mapping[str, GestureSpec]) -> list[Placed]:
    """Place gestures under a release; those it has itself, and those it cannot place, are left out with a word."""
    shipped = {g.label for g in bundle.manifest.gestures}
    wanted = {label: spec for label, spec in specs.items() if label not in shipped}
    if not wanted:
        return []
    out = []
    try:
        encoder = PoseEncoder(bundle)
        for label, spec in wanted.items():
            out.append(encoder.place(label, spec.posture))
    except EmbridgeError as error:
        logger.warning("added gestures are not decoded: %s", error)
        return []
    return out


def with_added(decoder: Decoder, state_dir: Path, participant: str | None) -> Decoder:
    """The decoder with every gesture that was added for this participant; read anew for every session.

    Args:
        decoder: Of the release in force.
        state_dir: The edge's state folder.
        participant: Who wears the band.
    """
    placed = place_all(decoder.bundle, added_gestures(state_dir, participant))
    if placed:
        logger.info("%d added gestures are decoded: %s", len(placed), ", ".join(p.label for p in placed))
    return decoder.extended([p.label for p in placed], [p.vectors for p in placed])
