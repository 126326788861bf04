"""One run's data, parted so that nothing leaks: who trains, what the gallery shows, what is tested."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.learn import leakage
from embridge_cloud.learn.data import Windows
from embridge_cloud.learn.leakage import PoseRegime
from embridge_cloud.study.protocol import CALIBRATION_REPETITIONS, LATE_REPETITIONS, Regime, Run
from embridge_shared.errors import DataError, LeakageError, Reason


@dataclass(frozen=True, slots=True)
class Split:
    """The data of one run; it is checked against every leakage rule before anything trains on it.

    Attributes:
        run: Fold, held-out participants and seed.
        regime: What training has of the wearers under test.
        pose_regime: Whether poses of unseen gestures train the pose side.
        seen: Gestures whose EMG is learnt.
        window_s: Length of a window, s.
        train: EMG and pose of train participants, seen gestures.
        gallery: Poses of train participants, every gesture.
        probe: EMG of train participants, every gesture; for reference probes alone.
        tested: EMG of the held-out participants.
        tested_pose: Pose of the same windows, in the same order; for pose ceilings alone.
        calibration: EMG of the held-out participants' first repetitions of seen gestures; None for new wearers.
        share: Share of the train participants whose pairs are used.

    Raises:
        LeakageError: A rule is broken.
        DataError: A part is empty.
    """

    run: Run
    regime: Regime
    pose_regime: PoseRegime
    seen: tuple[str, ...]
    window_s: float
    train: Windows
    gallery: Windows
    probe: Windows
    tested: Windows
    tested_pose: Windows
    calibration: Windows | None = None
    share: float = 1.0

    def __post_init__(self) -> None:
        tested = self.tested.present("participants")
        for part, what in ((self.train, "train"), (self.gallery, "gallery"), (self.probe, "probe")):
            leakage.check_participants(part.present("participants"), tested)
            leakage.check_sessions(part.present("sessions"), self.tested.present("sessions"))
            if len(part) == 0:
                raise DataError(f"the {what} part of {self.run.name} is empty", reason=Reason.TOO_LITTLE_DATA)
        leakage.check_unseen(self.train, self.unseen)
        leakage.check_gallery(self.gallery, self.tested, self.window_s)
        if (self.calibration is not None) != (self.regime is Regime.CALIBRATED):
            raise LeakageError(f"a {self.regime} run must {'' if self.calibration is None else 'not '}calibrate")
        if self.calibration is not None:
            leakage.check_calibration(self.calibration, self.tested, self.unseen, self.window_s)
        missing = self.tested.present("gestures") - self.gallery.present("gestures")
        if missing or len(self.tested) == 0:
            raise DataError(
                f"no pose of {sorted(missing)} in the gallery" if missing else f"{self.run.name} tests nothing",
                reason=Reason.TOO_LITTLE_DATA,
                hint="Choose train participants who recorded every gesture.",
            )

    @property
    def unseen(self) -> tuple[str, ...]:
        """Gestures whose EMG is not learnt."""
        return self.run.fold.unseen

    @property
    def unseen_poses(self) -> Windows:
        """Poses of the unseen gestures by train participants: what a pose-enrolled run may also look at."""
        return self.gallery.of_gestures(self.unseen)


def make_split(
    windows: Windows,
    run: Run,
    window_s: float,
    *,
    regime: Regime = Regime.NEW_WEARER,
    pose_regime: PoseRegime = PoseRegime.STRICT,
    share: float = 1.0,
) -> Split:
    """Part a data set for one run.

    Args:
        windows: EMG and pose of everybody; scaled with the unseen gestures of this run hidden.
        run: Whom to hold out, what to keep unseen.
        window_s: Length of a window, s.
        regime: A calibrated wearer's first repetitions of seen gestures join the training, later ones are tested.
        pose_regime: For the record; it decides what the pose side is pre-trained on.
        share: Share of the train participants whose pairs are used; gallery and probe keep everybody.

    Raises:
        LeakageError: A rule is broken.
        DataError: A part is empty, or there is no pose.
    """
    if windows.pose is None or windows.emg is None:
        raise DataError("a study needs windows with EMG and pose", reason=Reason.WRONG_SHAPE)
    windows = windows.select(windows.label >= 0)
    others = [p for p in windows.participants if p not in set(run.held_out)]
    seen = tuple(g for g in windows.gestures if g in windows.present("gestures") - set(run.fold.unseen))
    mine, theirs = windows.of_participants(run.held_out), windows.of_participants(others)
    calibration = None
    if regime is Regime.CALIBRATED:
        early = mine.select(np.isin(mine.repetition, CALIBRATION_REPETITIONS))
        calibration = early.of_gestures(seen).without_pose()
        mine = mine.select(np.isin(mine.repetition, LATE_REPETITIONS))
    chosen = thinned(others, share, run.seed)
    return Split(
        run=run,
        regime=regime,
        pose_regime=pose_regime,
        seen=seen,
        window_s=window_s,
        train=theirs.of_gestures(seen) if share == 1 else theirs.of_participants(chosen).of_gestures(seen),
        gallery=theirs.without_emg(),
        probe=theirs.without_pose(),
        tested=mine.without_pose(),
        tested_pose=mine.without_emg(),
        calibration=calibration,
        share=share,
    )


def thinned(participants: Sequence[str], share: float, seed: int) -> tuple[str, ...]:
    """A share of the people, one or more; a larger share holds every smaller one of the same seed."""
    if not 0 < share <= 1:
        raise DataError(f"a share of {share} of the participants is none", hint="Use a number above 0, up to 1.")
    order = np.random.default_rng([seed, 6]).permutation(len(participants))
    return tuple(participants[i] for i in order[: max(1, math.ceil(share * len(participants) - 1e-9))])


def trials_of(windows: Windows) -> NDArray[np.int64]:
    """Which trial, a participant's repetition of a gesture in a session, each window belongs to."""
    keys = np.stack([windows.participant, windows.session, windows.label, windows.repetition], axis=1)
    _, place = np.unique(keys, axis=0, return_inverse=True)
    return np.asarray(place, np.int64).reshape(-1)
