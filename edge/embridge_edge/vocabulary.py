"""Adding gestures to what this edge decodes, and taking them away: for everyone who wears a band here, or for one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from embridge_edge.decode.added import added_gestures
from embridge_edge.decode.alike import Alike, Pair, alike_by_release, alike_by_shape
from embridge_edge.enrol.store import WearerStore
from embridge_shared.clock import Clock
from embridge_shared.enrolment import Verb
from embridge_shared.errors import ModelError, OperatorError, Reason
from embridge_shared.gesture_spec import GestureFolder, GestureSpec
from embridge_shared.gestures import Gesture, vocabulary
from embridge_shared.release import POSE, Bundle

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Added:
    """What adding a gesture came to.

    Attributes:
        label: The gesture.
        participant: Whose it is; None for everyone's.
        release: Release it was compared under, or empty.
        nearest: The gestures most like it, the worst first.
    """

    label: str
    participant: str | None
    release: str
    nearest: tuple[Pair, ...]

    @property
    def doubtful(self) -> tuple[Pair, ...]:
        """Those that it may be taken for."""
        return tuple(p for p in self.nearest if p.doubtful)


class Vocabulary:
    """The gestures of one edge.

    Args:
        state_dir: The edge's state folder.
        edge: Its name.
        clock: Dates what is added.
        bundle: The release to compare under; None compares joint angles.
    """

    def __init__(self, state_dir: Path, *, edge: str, clock: Clock, bundle: Bundle | None) -> None:
        self._state_dir = state_dir
        self._edge = edge
        self._clock = clock
        self.bundle = bundle

    def add(self, spec: GestureSpec, *, participant: str | None = None, force: bool = False) -> Added:
        """Keep a gesture; sessions that begin from now on decode it.

        Args:
            spec: The gesture.
            participant: Whose it is; None for everyone's.
            force: Replace one of the same name, and keep one that is too near another.

        Raises:
            OperatorError: INVALID: the release has it already, or it is there, or it cannot be told from another.
            DataError: The wearer's journal is damaged.
        """
        there = added_gestures(self._state_dir, participant)
        shipped = {g.label for g in self.bundle.manifest.gestures} if self.bundle is not None else set()
        if self.bundle is not None and spec.label in shipped:
            raise OperatorError(
                f"{self.bundle.manifest.release} decodes {spec.label!r} already.",
                hint="Choose another name for another shape of the hand.",
            )
        if spec.label in there and not force:
            raise OperatorError(
                f"{spec.label!r} was added before, from {there[spec.label].source}.",
                hint="--force replaces it; `embridge gesture remove` takes it away.",
            )
        others = {label: other.gesture() for label, other in there.items() if label != spec.label}
        nearest = tuple(self._alike({**others, spec.label: spec.gesture()}).nearest(spec.label, _SHOWN))
        same = next((p for p in nearest if not p.apart), None)
        if same is not None and not force:
            raise OperatorError(
                f"{spec.label!r} cannot be told from {same.b!r} ({same}).",
                hint="Choose a more different shape, or keep it all the same with --force.",
            )
        self._keep(spec, participant)
        release = self.bundle.manifest.release if self.bundle is not None else ""
        return Added(spec.label, participant, release, nearest)

    def remove(self, label: str, *, participant: str | None = None) -> None:
        """Take an added gesture away, with a participant's repetitions of it.

        Raises:
            OperatorError: NOT_FOUND.
            DataError: The wearer's journal is damaged.
        """
        if participant is None:
            GestureFolder(self._state_dir).remove(label)
        else:
            self._wearer(participant).remove(label)

    def compare(self, labels: tuple[str, ...] = (), *, participant: str | None = None) -> Alike:
        """How alike gestures are, by default all that are decoded; templates of the vocabulary can be asked for.

        Raises:
            OperatorError: NOT_FOUND: nobody knows a label, or there is nothing to compare.
            ModelError: The release places no postures, and a label is none of its own.
        """
        added = {n: spec.gesture() for n, spec in added_gestures(self._state_dir, participant).items()}
        if not labels:
            found = self._alike(added or (vocabulary() if self.bundle is None else {}))
        elif self.bundle is not None:
            found = alike_by_release(self.bundle, {**vocabulary(), **added}, labels)
        else:
            found = alike_by_shape([_named(n, {**vocabulary(), **added}) for n in dict.fromkeys(labels)])
        if len(found.labels) < 2:
            raise OperatorError("comparing takes two gestures.", hint="Name them, or install a release.")
        return found

    def _alike(self, others: dict[str, Gesture]) -> Alike:
        if self.bundle is None:
            return alike_by_shape(list(others.values()))
        if others and POSE not in self.bundle.files:
            raise ModelError(
                f"{self.bundle.manifest.release} cannot decode gestures by their pose.",
                reason=Reason.INCOMPATIBLE,
                hint="Roll out a release that was trained with this version or a later one.",
            )
        return alike_by_release(self.bundle, others)

    def _keep(self, spec: GestureSpec, participant: str | None) -> None:
        if participant is None:
            GestureFolder(self._state_dir).write(spec)
        else:
            self._wearer(participant).commit((), verb=Verb.DEFINE, define=(spec.note(),))

    def _wearer(self, participant: str) -> WearerStore:
        return WearerStore(self._state_dir, participant, edge=self._edge, clock=self._clock)


def _named(label: str, known: dict[str, Gesture]) -> Gesture:
    if label not in known:
        raise OperatorError(
            f"there is no gesture called {label!r}.",
            reason=Reason.NOT_FOUND,
            hint="`embridge gesture list` shows them all.",
        )
    return known[label]
