"""A wearer as one release sees them: scale, gestures, repetitions, and the model of it all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from embridge_edge.decode.calibration import CalibrationStore
from embridge_edge.enrol.embed import scale_for, scales_of, windows_of
from embridge_edge.enrol.known import embedded, gestures_of
from embridge_edge.enrol.repetition import StoredRepetition, same_band
from embridge_edge.enrol.store import WearerStore
from embridge_shared.decision import DecisionConfig
from embridge_shared.enrolment import GestureNote
from embridge_shared.errors import ModelError, OperatorError, Reason
from embridge_shared.gesture_spec import GestureFolder
from embridge_shared.performance import Performances
from embridge_shared.preprocess import PreprocessConfig, WearerScale
from embridge_shared.signal import StreamSpec
from embridge_shared.wearer import KnownGesture, Repetition, WearerModel, WearerPrior


@dataclass(frozen=True, slots=True, eq=False)
class Release:
    """What enrolment needs of a release.

    Attributes:
        name: Of the release.
        digest: Of its bundle.
        preprocess: Front end, scale, window.
        prior: What training participants say of a wearer; None where the release says nothing.
        decision: How evidence becomes a decision.
        performances: How its participants perform postures; None where it places none.
    """

    name: str
    digest: str
    preprocess: PreprocessConfig
    prior: WearerPrior | None
    decision: DecisionConfig = field(default_factory=DecisionConfig)
    performances: Performances | None = None


@dataclass(frozen=True, slots=True, eq=False)
class WearerView:
    """A wearer under a release and a band.

    Attributes:
        release: The release.
        spec: The band's stream.
        scale: The wearer's scale; None before the first calibration.
        added: Gestures the wearer added, by label.
        own: Their repetitions in the prior's space; none without a scale or a prior.
    """

    release: Release
    spec: StreamSpec
    scale: WearerScale | None
    added: Mapping[str, GestureNote] = field(default_factory=dict)
    own: tuple[Repetition, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """What can be decoded."""
        return tuple(g.label for g in self._gestures()) if self.release.prior is not None else ()

    def model(self, own: Sequence[Repetition] | None = None, *, also: Sequence[str] = ()) -> WearerModel | None:
        """The wearer's model, by default from all repetitions; None where the release has no prior.

        Args:
            own: Repetitions to use instead.
            also: Labels to decode beside those known.
        """
        if self.release.prior is None:
            return None
        used = self.own if own is None else own
        return WearerModel(self.release.prior, self._gestures((*(r.label for r in used), *also)), used)

    def see(self, repetition: StoredRepetition) -> Repetition | None:
        """A repetition in the prior's space; None where it holds no window, or nobody knows scale or prior."""
        if self.scale is None or self.release.prior is None:
            return None
        window = self.release.preprocess.window
        seen = windows_of(repetition, self.release.preprocess, self.scale)
        return next(iter(embedded(self.release.prior, [seen], length=window.length, hop=window.hop)), None)

    def over(self, repetitions: Sequence[StoredRepetition]) -> WearerView:
        """The same with these repetitions and no others, each seen by the scale of its own donning."""
        scaled = scales_of(repetitions, self.release.preprocess)
        own = [
            seen
            for r in repetitions
            if (seen := replace(self, scale=scaled.get(r.about.session, self.scale)).see(r)) is not None
        ]
        return replace(self, own=tuple(own))

    def with_own(self, repetitions: Sequence[Repetition]) -> WearerView:
        """The same with further repetitions."""
        return replace(self, own=(*self.own, *repetitions))

    def _gestures(self, labels: Sequence[str] = ()) -> list[KnownGesture]:
        assert self.release.prior is not None
        return gestures_of(self.release.prior, self.added, (*(r.label for r in self.own), *labels))


def added_for(release: Release, store: WearerStore) -> dict[str, GestureNote]:
    """Gestures added for a wearer and for everyone on this edge, each by the mean posture of its performances.

    So the wearer's model knows an added gesture by what it knows those by that the release ships.

    Raises:
        DataError: The journal is damaged.
    """
    everyone = {label: spec.note() for label, spec in GestureFolder(store.folder.parents[1]).all().items()}
    found = {**everyone, **store.held().gestures}
    people = release.performances
    if people is None:
        return found
    return {
        label: msgspec.structs.replace(note, posture=tuple(people.posture(label, np.array(note.posture)).tolist()))
        if note.posture is not None and len(note.posture) == people.joints
        else note
        for label, note in found.items()
    }


def view_of(
    release: Release,
    spec: StreamSpec,
    store: WearerStore,
    calibrations: CalibrationStore,
    *,
    uncalibrated: bool = False,
) -> WearerView:
    """What is known of a wearer, seen by a release.

    Args:
        release: The release.
        spec: The band.
        store: The wearer's.
        calibrations: Of this edge.
        uncalibrated: A wearer nobody calibrated is no error.

    Raises:
        OperatorError: NOT_FOUND: nobody calibrated the wearer with this band and release.
        ModelError: INCOMPATIBLE: the release is for a band with other channels.
        DataError: Something stored is damaged.
    """
    if release.prior is not None and release.prior.channels != spec.n_channels:
        raise ModelError(
            f"{release.name} is for a band of {release.prior.channels} channels, {spec.name!r} has {spec.n_channels}.",
            reason=Reason.INCOMPATIBLE,
            hint="Use a release made for this band.",
        )
    kept = [r for r in store.repetitions() if same_band(r.about.spec, spec)]
    try:
        scale = scale_for(calibrations, store.participant, release.preprocess, spec, kept)
    except OperatorError:
        if not uncalibrated:
            raise
        return WearerView(release, spec, None, added_for(release, store))
    return WearerView(release, spec, scale, added_for(release, store)).over(kept)
