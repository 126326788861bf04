"""All that enrolment of one wearer needs, for a command or a screen to drive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from embridge_edge.decode.calibration import FOLDER as CALIBRATIONS
from embridge_edge.decode.calibration import Calibration, CalibrationStore, calibration_key
from embridge_edge.decode.decision import decision_for
from embridge_edge.decode.runtime import Decoder
from embridge_edge.enrol.capture import Capture
from embridge_edge.enrol.choice import Baseline, Served, served
from embridge_edge.enrol.decoder import WearerDecoder
from embridge_edge.enrol.embed import donning_activity, features_of, fit_own_scale
from embridge_edge.enrol.events import Weighed
from embridge_edge.enrol.known import confusions
from embridge_edge.enrol.repetition import StoredRepetition
from embridge_edge.enrol.store import WearerStore
from embridge_edge.enrol.view import Release, WearerView, view_of
from embridge_edge.update.slots import FOLDER as UPDATES
from embridge_edge.update.slots import Slots
from embridge_shared.clock import Clock
from embridge_shared.decision import DecisionConfig
from embridge_shared.enrolment import Entry, GestureNote, Verb
from embridge_shared.errors import DataError, OperatorError, Reason
from embridge_shared.gesture_spec import GestureFolder
from embridge_shared.gestures import Gesture
from embridge_shared.preprocess import PreprocessConfig
from embridge_shared.release import POSE, Bundle, read_bundle
from embridge_shared.signal import StreamSpec
from embridge_shared.wearer import bends
from embridge_shared.wearer.donning import Activity
from embridge_shared.wearer.worn import ring_of

CALIBRATED: Final = 4
"""Gestures of a calibration by default: two repetitions of each take about a minute."""


def release_of(bundle: Bundle) -> Release:
    """What enrolment needs of a verified release.

    Raises:
        ModelError: Its prior of wearers is damaged.
    """
    m = bundle.manifest
    decision = decision_for(m, wearer=True) or DecisionConfig()
    people = bundle.performances() if POSE in bundle.files else None
    return Release(m.release, bundle.digest, m.preprocess, bundle.wearer_prior(), decision, people)


def bundle_here(state_dir: Path, path: Path | None = None) -> Bundle:
    """The release that runs on this edge, or the one in a file.

    Raises:
        OperatorError: NOT_FOUND: this edge has none.
        ModelError: It is damaged.
    """
    if path is not None:
        return read_bundle(path)
    bundle = Slots(state_dir / UPDATES).load() if (state_dir / UPDATES).is_dir() else None
    if bundle is None:
        raise OperatorError(
            "this edge has no release yet, and gestures are enrolled into one.",
            reason=Reason.NOT_FOUND,
            hint="Let `embridge edge run` fetch one, or name a file with --release.",
        )
    return bundle


def baseline_of(decoder: Decoder) -> Baseline:
    """What the release's own scores decide."""

    def decide(windows: NDArray[np.float32]) -> list[str]:
        return [decoder.labels[int(decoder.scores(w).argmax())] for w in windows]

    return decide


class Desk:
    """One wearer on one edge under one release.

    Args:
        state_dir: The edge's state folder.
        participant: Pseudonym.
        release: The release.
        edge: Name of this edge.
        clock: Dates what is kept.
        rings: Channels that are a ring of electrodes, by device, beside those known.
    """

    def __init__(
        self,
        state_dir: Path,
        participant: str,
        release: Release,
        *,
        edge: str,
        clock: Clock,
        rings: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        self._rings = rings
        self.release = release
        self.state_dir = state_dir
        self.clock = clock
        self.store = WearerStore(state_dir, participant, edge=edge, clock=clock)
        self.calibrations = CalibrationStore(state_dir / CALIBRATIONS)
        self._everyone = GestureFolder(state_dir)

    def view(self, spec: StreamSpec, *, uncalibrated: bool = False) -> WearerView:
        """The wearer as they are now; raises as `view_of`."""
        found = view_of(self.release, spec, self.store, self.calibrations, uncalibrated=uncalibrated)
        for_all = {label: added.note() for label, added in self._everyone.all().items()}
        return replace(found, added={**for_all, **found.added})

    def enrol(self, capture: Capture, define: Sequence[GestureNote] = ()) -> tuple[Entry, tuple[Weighed, ...]]:
        """Commit what a capture took, and make the model anew.

        Args:
            capture: Done, or stopped with something taken.
            define: Gestures that are new.

        Raises:
            OperatorError: Nothing was taken.
        """
        entry = self.store.commit(_taken(capture), verb=Verb.ENROL, define=define)
        labels = tuple(dict.fromkeys(t.repetition.about.label for t in capture.taken))
        return entry, weighed(self.view(capture.view.spec), labels)

    def calibrate(self, capture: Capture) -> tuple[Entry, Calibration]:
        """Fit the wearer's scale to what a capture took, and commit its repetitions.

        Raises:
            OperatorError: Nothing was taken.
            DataError: TOO_LITTLE_DATA: most channels do not move.
        """
        taken, spec = _taken(capture), capture.view.spec
        scale = fit_own_scale(taken, self.release.preprocess)
        sound = sum(int((~features_of(r, self.release.preprocess).flawed).sum()) for r in taken)
        entry = self.store.commit(taken, verb=Verb.CALIBRATE)
        calibration = Calibration(
            participant=self.store.participant,
            key=calibration_key(self.release.preprocess, spec),
            scale=scale,
            duration_s=sound / self.release.preprocess.front_end.rate_hz,
            created_ns=self.clock.wall_ns(),
            ring=(ring := self._ring(spec)),
            activity=_sat(taken, self.release.preprocess, ring),
        )
        self.calibrations.save(calibration)
        return entry, calibration

    def _ring(self, spec: StreamSpec) -> tuple[int, ...]:
        return ring_of(spec, self._rings)

    def served(self, spec: StreamSpec, decoder: Decoder | None = None) -> Served:
        """What decodes for this wearer; raises as `view`.

        Args:
            spec: The band.
            decoder: The release, whose own scores are then a candidate.
        """
        return served(self.store, self.view(spec), baseline=None if decoder is None else baseline_of(decoder))

    def evidence(self, spec: StreamSpec, decoder: Decoder | None = None) -> tuple[WearerDecoder | None, Served]:
        """The wearer's decoder where it serves, and why; None where the release's own scores decide."""
        found = self.served(spec, decoder)
        return (None if found.view is None else WearerDecoder(found.view)), found


def weighed(view: WearerView, labels: Sequence[str]) -> tuple[Weighed, ...]:
    """How much a wearer's repetitions decide, and what may be confused, for each of `labels`."""
    model = view.model()
    if model is None or not view.own:
        return ()
    pairs = confusions(model, view.own, view.release.decision.temperature)
    return tuple(
        Weighed(
            at=0,
            gesture=label,
            repetitions=sum(r.label == label for r in view.own),
            own=float(model.weight[model.labels.index(label)]),
            confusions=tuple(
                (c.performed, c.taken_for, c.probability) for c in pairs if label in (c.performed, c.taken_for)
            ),
        )
        for label in labels
        if label in model.labels
    )


def calibration_gestures(release: Release, count: int = CALIBRATED) -> tuple[str, ...]:
    """Gestures to calibrate with: those others performed, as unlike each other as there are.

    Raises:
        OperatorError: The release knows none.
    """
    prior = release.prior
    if prior is None:
        raise OperatorError(
            f"{release.name} does not say which gestures wearers performed.", hint="Name some with --gesture."
        )
    names = list(prior.performed)
    bent = bends(np.stack([prior.postures[prior.gestures.index(n)] for n in names]), prior.joint)
    chosen = [int(np.linalg.norm(bent, axis=1).argmax())]
    while len(chosen) < min(count, len(names)):
        far = np.linalg.norm(bent[:, None] - bent[chosen][None], axis=-1).min(axis=1)
        chosen.append(int(far.argmax()))
    return tuple(names[i] for i in sorted(chosen))


def note_of(label: str, known: Mapping[str, Gesture], release: Release, *, source: str = "") -> GestureNote | None:
    """What a journal says of a gesture that is new to the release; None for one the release knows."""
    if release.prior is not None and label in release.prior.gestures:
        return None
    if label not in known:
        return GestureNote(label=label, source=source or "none")
    shape = known[label]
    return GestureNote(
        label=label,
        title=shape.title,
        hint=shape.hint,
        posture=tuple(float(a) for a in shape.pose),
        source=source or f"template {label}",
    )


def _sat(taken: Sequence[StoredRepetition], preprocess: PreprocessConfig, ring: tuple[int, ...]) -> Activity | None:
    """How the band sat; None where it is no ring, or too little happened."""
    try:
        return donning_activity(taken, preprocess, ring) if ring else None
    except DataError:
        return None


def _taken(capture: Capture) -> list[StoredRepetition]:
    if not capture.taken:
        raise OperatorError("nothing was taken, so nothing is kept.", hint="Try again; each refusal says what to do.")
    return [t.repetition for t in capture.taken]
