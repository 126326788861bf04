from __future__ import annotations

import itertools
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_cloud.learn.leakage import PoseRegime
from embridge_cloud.study.controls import leak_attempts, leaks_raise
from embridge_cloud.study.protocol import (
    CALIBRATION_REPETITIONS,
    LATE_REPETITIONS,
    Fold,
    Regime,
    db1_fold,
    fold_by_hand,
    folds_of,
    groups_of,
    plan,
)
from embridge_cloud.study.splits import Split, make_split, thinned, trials_of
from embridge_shared.errors import ConfigError, DataError, LeakageError
from embridge_shared.gestures import NINAPRO_DB1_E1
from support.study_world import WINDOW_S, run, windows

DB1 = tuple(NINAPRO_DB1_E1.values())


@pytest.fixture(scope="module")
def split() -> Split:
    return make_split(windows(), run(), WINDOW_S)


# plan


def test_reported_folds_cover_every_gesture_once():
    folds = folds_of(DB1)
    assert [f.name for f in folds] == ["A", "B", "C"]
    assert sorted(g for f in folds for g in f.unseen) == sorted(DB1)
    assert folds[0].unseen == tuple(NINAPRO_DB1_E1[n] for n in (1, 4, 7, 11))


def test_development_never_meets_a_reported_fold():
    reported = {frozenset(f.unseen) for f in folds_of(DB1)}
    assert not reported & {frozenset(db1_fold(n).unseen) for n in "PQR"}


@given(st.sets(st.text("abcdefgh", min_size=1, max_size=4), min_size=4, max_size=40))
@settings(max_examples=50, deadline=None)
def test_any_vocabulary_has_disjoint_folds(names):
    folds = folds_of(sorted(names))
    dealt = [g for f in folds for g in f.unseen]
    assert len(dealt) == len(set(dealt))
    assert set(dealt) <= names
    for fold in folds:
        assert 2 <= len(fold.unseen) <= len(names) - 2
    assert folds == folds_of(sorted(names, reverse=True))


def test_too_few_gestures_and_unknown_folds_are_refused():
    with pytest.raises(ConfigError, match="cannot be parted"):
        folds_of(["a", "b", "c"])
    with pytest.raises(ConfigError, match="no fold"):
        folds_of(DB1, ["Z"])
    with pytest.raises(ConfigError, match="no fold"):
        folds_of([*"abcdefgh"], ["Z"])


def test_unseen_gestures_by_name_or_number():
    assert fold_by_hand(DB1, ["1", "thumb_flexion"]).unseen == ("index_flexion", "thumb_flexion")
    for wrong in (["1", "1"], ["13", "1"], ["nothing", "1"], list(DB1), ["1"]):
        with pytest.raises(ConfigError):
            fold_by_hand(DB1, wrong)


@given(st.integers(2, 60))
@settings(max_examples=40, deadline=None)
def test_everybody_is_held_out_once(count):
    people = [f"s{i}" for i in range(count)]
    groups = groups_of(people)
    assert sorted(p for g in groups for p in g) == sorted(people)
    assert len(groups) >= 2
    assert max(map(len, groups)) <= 3
    assert groups == groups_of(people[::-1])


def test_one_person_cannot_be_parted():
    with pytest.raises(ConfigError, match="cannot be parted"):
        groups_of(["s1"])


def test_a_full_plan_tests_everybody_once_a_fold_with_three_seeds():
    groups = groups_of([f"s{i}" for i in range(18)])
    runs = plan(folds_of(DB1), groups, seeds=3)
    assert len(runs) == 18
    assert len({r.name for r in runs}) == 18
    for fold in "ABC":
        mine = [r for r in runs if r.fold.name == fold]
        assert [r.seed for r in mine] == [0, 0, 1, 1, 2, 2]
        assert len({p for r in mine for p in r.held_out}) == 18


def test_a_quick_plan_takes_another_group_for_each_fold():
    runs = plan(folds_of(DB1), groups_of([f"s{i}" for i in range(18)]), seeds=1, sampled=True)
    assert len(runs) == 3
    assert len({r.held_out for r in runs}) == 3


def test_participants_by_hand_meet_every_seed():
    runs = plan(folds_of(DB1), [("s3",)], seeds=3)
    assert [(r.fold.name, r.seed) for r in runs] == [(f, s) for f in "ABC" for s in range(3)]


# splits


def test_new_wearers_leave_nothing_in_the_training(split):
    assert split.train.present("participants") == {"p2", "p3", "p4"}
    assert split.train.present("gestures") == set(split.seen)
    assert split.tested.present("gestures") == {*split.seen, *split.unseen}
    assert split.tested.pose is None
    assert split.gallery.emg is None
    assert split.calibration is None
    assert np.array_equal(split.tested.start_s, split.tested_pose.start_s)


def test_calibrated_wearers_are_parted_by_repetition():
    made = make_split(windows(), run(), WINDOW_S, regime=Regime.CALIBRATED)
    assert made.calibration is not None
    assert made.calibration.pose is None
    assert set(made.calibration.repetition) == set(CALIBRATION_REPETITIONS)
    assert made.calibration.present("gestures") == set(made.seen)
    assert set(made.tested.repetition) == set(LATE_REPETITIONS)
    assert made.tested.present("gestures") == {*made.seen, *made.unseen}


def test_a_share_thins_the_pairs_alone(split):
    made = make_split(windows(), run(), WINDOW_S, share=0.5)
    assert len(made.train.present("participants")) == 2
    assert made.gallery.present("participants") == split.gallery.present("participants")


def test_a_larger_share_holds_every_smaller_one():
    people = [f"s{i}" for i in range(15)]
    shares = [thinned(people, s, seed=1) for s in (0.1, 0.2, 0.4, 0.8, 1.0)]
    assert [len(s) for s in shares] == [2, 3, 6, 12, 15]
    assert all(set(a) < set(b) for a, b in itertools.pairwise(shares))
    assert thinned(people, 0.01, seed=0)
    with pytest.raises(DataError):
        thinned(people, 0.0, seed=0)


def test_trials_are_a_persons_repetitions():
    made = windows(people=2, repetitions=3)
    doubled = made.select(np.repeat(np.arange(len(made)), 2))
    found = trials_of(doubled)
    assert len(np.unique(found)) == len(made)
    assert (np.bincount(found) == 2).all()


# leaks


@pytest.mark.parametrize("how", list(leak_attempts(make_split(windows(), run(), WINDOW_S))))
def test_every_leak_raises(split, how):
    with pytest.raises(LeakageError):
        leak_attempts(split)[how]()


def test_leaks_are_reported_as_controls(split):
    found = leaks_raise(split)
    assert len(found) == len(leak_attempts(split))
    assert all(c.passed and c.note.startswith("Refused") for c in found)


def test_a_leak_that_does_not_raise_fails_its_control(split, monkeypatch):
    monkeypatch.setattr("embridge_cloud.learn.leakage.check_gallery", lambda *a: None)
    monkeypatch.setattr("embridge_cloud.learn.leakage.check_participants", lambda *a, **k: None)
    monkeypatch.setattr("embridge_cloud.learn.leakage.check_sessions", lambda *a, **k: None)
    found = {c.name: c for c in leaks_raise(split)}
    assert not found["a gallery with the tested wearer's poses"].passed
    assert found["a strict run that saw unseen poses"].passed


def test_a_calibration_in_the_wrong_regime_is_refused(split):
    calibrated = make_split(windows(), run(), WINDOW_S, regime=Regime.CALIBRATED)
    with pytest.raises(LeakageError, match="must not calibrate"):
        replace(split, calibration=calibrated.calibration)
    with pytest.raises(LeakageError, match="must calibrate"):
        replace(calibrated, calibration=None)


def test_a_calibration_of_strangers_or_with_pose_is_refused():
    made = make_split(windows(), run(), WINDOW_S, regime=Regime.CALIBRATED)
    assert made.calibration is not None
    early = windows().of_participants(["p0", "p1"]).of_gestures(made.seen)
    early = early.select(np.isin(early.repetition, CALIBRATION_REPETITIONS))
    with pytest.raises(LeakageError, match="own pose"):
        replace(made, calibration=early)
    with pytest.raises(LeakageError, match="not tested"):
        replace(made, tested=made.tested.of_participants(["p0"]), tested_pose=made.tested_pose.of_participants(["p0"]))


def test_an_empty_side_is_refused():
    with pytest.raises(DataError):
        make_split(windows(), run(held_out=("nobody",)), WINDOW_S)
    with pytest.raises(DataError, match="EMG and pose"):
        make_split(windows().without_pose(), run(), WINDOW_S)


def test_unseen_poses_are_those_of_train_participants(split):
    assert split.unseen_poses.present("gestures") == set(split.unseen)
    assert not split.unseen_poses.present("participants") & set(split.run.held_out)
    assert split.pose_regime is PoseRegime.STRICT


def test_a_fold_without_unseen_gestures_tests_seen_ones_alone():
    made = make_split(windows(), replace_fold(Fold("none", ())), WINDOW_S)
    assert set(made.seen) == set(windows().gestures)


def replace_fold(fold: Fold):
    return msgspec.structs.replace(run(), fold=fold)
