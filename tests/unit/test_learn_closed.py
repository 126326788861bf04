"""The closed-form head on a planted arm: what it must find, what it must not, and that the edge says the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from embridge_cloud.learn.closed import ClosedHead, fit_closed
from embridge_cloud.learn.config import LearnConfig, SignalConfig
from embridge_cloud.learn.data import Windows, broken_pairs
from embridge_cloud.learn.evaluate import balanced_accuracy, gallery_similarity, knn
from embridge_cloud.learn.leakage import check_statistics
from embridge_shared.errors import DataError, LeakageError
from embridge_shared.hand import REST

CHANNELS, LENGTH = 8, 80
CONFIG = LearnConfig(
    emg=SignalConfig(rate_hz=100.0, channels=CHANNELS, window=LENGTH, patch=10),
    pose=SignalConfig(rate_hz=100.0, channels=20, window=LENGTH, patch=10),
)
# pairs of fingers bent (1) or stretched (-1): every finger both ways among the seen ones, no combination twice
GESTURES = {f"f{a}{b}{s}": (a, b, s) for s in (1, -1) for a in range(4) for b in range(a + 1, 4)}
UNSEEN = ("f021", "f131", "f02-1", "f13-1")
SEEN = tuple(g for g in GESTURES if g not in UNSEEN)


def arm(people: int, *, first: int = 0, seed: int = 0, wearer: float = 0.0, repetitions: int = 4) -> Windows:
    """EMG levels are a fixed non-negative map of the bends of four fingers; a wearer's own gains on top."""
    rng = np.random.default_rng([seed, first])
    muscles = np.random.default_rng(7).gamma(1.0, 1.0, (8, CHANNELS))
    emg, pose, rows = [], [], []
    for person in range(first, first + people):
        gain = np.exp(wearer * np.random.default_rng([5, person]).normal(size=CHANNELS))
        for label, (a, b, sign) in enumerate(GESTURES.values()):
            for repetition in range(1, repetitions + 1):
                bend = np.zeros(4)
                bend[[a, b]] = sign * rng.uniform(0.6, 1.2, 2)
                force = np.concatenate([np.maximum(bend, 0), np.maximum(-bend, 0)]) @ muscles + 0.1
                level = np.square(force) * gain * np.exp(0.1 * rng.normal(size=CHANNELS))
                emg.append(level * rng.normal(size=(LENGTH, CHANNELS)))
                joints = REST.copy()
                joints[4:].reshape(4, 4)[:, 1:] += bend[:, None]
                pose.append(joints + 0.05 * rng.normal(size=(LENGTH, 20)))
                rows.append((label, person - first, repetition))
    label, participant, repetition = np.array(rows, np.int64).T
    return Windows(
        emg=np.array(emg, np.float32),
        pose=np.array(pose, np.float32),
        label=label,
        participant=participant,
        session=participant,
        repetition=repetition,
        start_s=repetition * 10.0,
        gestures=tuple(GESTURES),
        participants=tuple(f"p{p}" for p in range(first, first + people)),
        sessions=tuple(f"s{p}" for p in range(first, first + people)),
    )


def decoded(head: ClosedHead, tested: Windows, gallery: Windows) -> float:
    """Balanced accuracy of nearest poses."""
    similarity = gallery_similarity(head.embed_emg(tested.emg), head.embed_pose(gallery.pose))
    found = knn(similarity, gallery.label, classes=len(GESTURES), k=5)
    return balanced_accuracy(tested.label, found)


@pytest.fixture(scope="module")
def train() -> Windows:
    return arm(8)


@pytest.fixture(scope="module")
def head(train: Windows) -> ClosedHead:
    return fit_closed(train.of_gestures(SEEN), CONFIG, unseen=UNSEEN)


def test_combinations_nobody_recorded_are_decoded(head: ClosedHead, train: Windows) -> None:
    strangers = arm(3, first=20)
    assert decoded(head, strangers.of_gestures(UNSEEN), train.of_gestures(UNSEEN)) > 0.8
    assert decoded(head, strangers.of_gestures(SEEN), train.of_gestures(SEEN)) > 0.8


def test_broken_pairs_sit_at_chance(train: Windows) -> None:
    pairs, found = train.of_gestures(SEEN), []
    assert pairs.pose is not None
    for seed in range(5):
        order = broken_pairs(pairs.label, np.random.default_rng(seed))
        broken = fit_closed(replace(pairs, pose=pairs.pose[order]), CONFIG)
        found.append(decoded(broken, arm(3, first=20).of_gestures(UNSEEN), train.of_gestures(UNSEEN)))
    assert abs(np.mean(found) - 1 / len(UNSEEN)) < 0.15


def test_unit_vectors_and_the_same_fit_twice(head: ClosedHead, train: Windows) -> None:
    queries, poses = head.embed_emg(train.emg), head.embed_pose(train.pose)
    assert queries.dtype == poses.dtype == np.float32
    assert queries.shape == (len(train), 1, poses.shape[1])
    np.testing.assert_allclose(np.linalg.norm(queries, axis=2), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(poses, axis=1), 1, atol=1e-5)
    again = fit_closed(train.of_gestures(SEEN), CONFIG, unseen=UNSEEN)
    assert again.lineage == head.lineage
    assert set(head.lineage.emg_gestures) == set(SEEN)
    check_statistics(head.lineage.statistics, head.statistics())


def test_knowing_the_wearer_helps(train: Windows) -> None:
    people = arm(8, wearer=0.8)
    pairs, gallery = people.of_gestures(SEEN), people.of_gestures(SEEN)
    plain = fit_closed(pairs, CONFIG)
    before, unlabelled, labelled = [], [], []
    for person in (30, 31, 32, 33):
        mine = arm(1, first=person, wearer=0.8, repetitions=6).of_gestures(SEEN)
        early = mine.select(mine.repetition <= 3).without_pose()
        late = mine.select(mine.repetition > 3)
        before.append(decoded(plain, late, gallery))
        moved = plain.for_wearer(early.emg)
        check_statistics(plain.lineage.statistics, moved.statistics())
        unlabelled.append(decoded(moved, late, gallery))
        labelled.append(decoded(fit_closed(pairs, CONFIG, calibration=early), late, gallery))
    assert np.mean(unlabelled) > np.mean(before) + 0.03
    assert np.mean(labelled) > np.mean(before) + 0.1


def test_what_must_not_be_there_raises(train: Windows) -> None:
    pairs, stranger = train.of_gestures(SEEN), arm(1, first=40).without_pose()
    with pytest.raises(LeakageError):
        fit_closed(train, CONFIG, unseen=UNSEEN)
    with pytest.raises(LeakageError):
        fit_closed(pairs, CONFIG, unseen=UNSEEN, calibration=stranger)
    with pytest.raises(LeakageError):
        fit_closed(pairs, CONFIG, calibration=pairs.of_participants(["p1"]).without_pose())
    with pytest.raises(LeakageError, match="one wearer"):
        fit_closed(pairs, CONFIG, calibration=arm(2, first=40).of_gestures(SEEN).without_pose())
    with pytest.raises(DataError, match="borrow"):
        fit_closed(pairs, CONFIG, calibration=stranger)
    with pytest.raises(DataError):
        fit_closed(pairs.without_pose(), CONFIG)


def test_windows_that_do_not_fit_raise(head: ClosedHead, train: Windows) -> None:
    assert train.emg is not None
    bad: tuple[NDArray[np.float32] | None, ...] = (None, train.emg[:, :4], train.emg[:, :, :5])
    for emg in bad:
        with pytest.raises(DataError):
            head.embed_emg(emg)
    with pytest.raises(DataError):
        head.embed_pose(None)
    with pytest.raises(DataError, match="needed"):
        head.for_wearer(train.emg[:5])


@pytest.mark.parametrize("length", [80, 83])
def test_the_graph_says_what_numpy_says(head: ClosedHead, train: Windows, length: int) -> None:
    emg = np.concatenate([train.emg, train.emg], axis=1)[:200, :length]
    emg[0, :, 3] = 0
    own = head.for_wearer(emg)
    for one in (head, own):
        with torch.no_grad():
            found = one.module()(torch.from_numpy(emg)).numpy()
        np.testing.assert_allclose(found, one.embed_emg(emg), atol=1e-5)


def test_other_channels_and_sensors_work() -> None:
    train = arm(4)
    assert train.emg is not None
    assert train.pose is not None
    wide = replace(
        train,
        emg=np.concatenate([train.emg, train.emg[:, :, :4]], axis=2),
        pose=np.concatenate([train.pose - REST.astype(np.float32), np.zeros((len(train), LENGTH, 2), np.float32)], 2),
    )
    head = fit_closed(wide.of_gestures(SEEN), CONFIG)
    assert decoded(head, wide.of_gestures(UNSEEN), wide.of_gestures(UNSEEN)) > 0.8
