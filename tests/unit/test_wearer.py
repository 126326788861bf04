"""A wearer's model: pose alone decodes, repetitions take over as far as they should, nothing invalid gets in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from embridge_cloud.learn.data import Windows
from embridge_cloud.learn.wearer_prior import PriorSettings, fit_wearer_prior
from embridge_edge.decode.drift import SPEAK_AT, log_distance, usual_distance
from embridge_shared.errors import DataError, LeakageError, ModelError, Reason
from embridge_shared.wearer import KnownGesture, Repetition, WearerModel, WearerPrior, bends

GESTURES = tuple(f"g{i}" for i in range(6))
UNSEEN = ("g4", "g5")
C, J, T, PEOPLE, REPEATS = 6, 4, 32, 8, 3


@dataclass(frozen=True)
class World:
    """Gestures whose levels follow their postures, with a deviation of each person's own."""

    postures: NDArray[np.float64]
    muscles: NDArray[np.float64]
    rng: np.random.Generator

    def person(self, spread: float) -> NDArray[np.float64]:
        """Mean level of each gesture, (G, C)."""
        bent = np.concatenate([np.maximum(self.postures, 0), np.maximum(-self.postures, 0)], axis=1)
        off = self.rng.normal(0, spread, (len(bent), C)) + self.rng.normal(0, spread, C)
        return np.square(0.5 + 0.25 * bent @ self.muscles + off)

    def windows(self, levels: NDArray[np.float64], gesture: int) -> NDArray[np.float32]:
        """Three windows of one repetition."""
        level = levels[gesture] * np.exp(self.rng.normal(0, 0.1, C))
        return (level * np.abs(self.rng.normal(1, 0.3, (3, T, C)))).astype(np.float32)


@pytest.fixture
def world() -> World:
    rng = np.random.default_rng(3)
    postures = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0], [0, 0, 1, 1.0]])
    return World(postures, np.abs(rng.normal(0, 1, (2 * J, C))), rng)


def recorded(world: World, gestures: tuple[int, ...], *, spread: float) -> Windows:
    emg, label, person, repetition = [], [], [], []
    for p in range(PEOPLE):
        levels = world.person(spread)
        for g in gestures:
            for r in range(1, REPEATS + 1):
                emg.append(world.windows(levels, g))
                label += [g] * 3
                person += [p] * 3
                repetition += [r] * 3
    pose = world.postures[label][:, None, :] + world.rng.normal(0, 0.02, (len(label), 8, J))
    return Windows(
        emg=np.concatenate(emg),
        pose=pose.astype(np.float32),
        label=np.array(label),
        participant=np.array(person),
        session=np.array(person),
        repetition=np.array(repetition),
        start_s=np.arange(len(label), dtype=float),
        gestures=GESTURES,
        participants=tuple(f"p{p}" for p in range(PEOPLE)),
        sessions=tuple(f"s{p}" for p in range(PEOPLE)),
    )


def fitted(world: World, *, spread: float = 0.05, settings: PriorSettings | None = None) -> WearerPrior:
    train = recorded(world, (0, 1, 2, 3), spread=spread)
    gallery = recorded(world, tuple(range(6)), spread=spread).without_emg()
    return fit_wearer_prior(train, gallery, GESTURES, unseen=UNSEEN, settings=settings)


def known(prior: WearerPrior) -> list[KnownGesture]:
    return [KnownGesture(g, p) for g, p in zip(prior.gestures, prior.postures, strict=True)]


def accuracy(model: WearerModel, world: World, levels: NDArray[np.float64], among: tuple[int, ...]) -> float:
    right = []
    for g in among:
        points = np.concatenate([model.prior.describe(world.windows(levels, g)) for _ in range(10)])
        right += list(np.array(among)[model.log_likelihood(points)[:, among].argmax(axis=1)] == g)
    return float(np.mean(right))


def performed(
    prior: WearerPrior, world: World, levels: NDArray[np.float64], among: tuple[int, ...]
) -> list[Repetition]:
    return [
        Repetition.of(GESTURES[g], prior.describe(world.windows(levels, g)), length=T, hop=T)
        for g in among
        for _ in range(REPEATS)
    ]


def test_a_gesture_nobody_performed_decodes_from_its_pose(world: World) -> None:
    prior = fitted(world)
    assert prior.performed == GESTURES[:4]
    found = np.mean([accuracy(WearerModel(prior, known(prior)), world, world.person(0.05), (4, 5)) for _ in range(5)])
    assert found > 0.85


def test_repetitions_of_a_wearer_unlike_others_take_over(world: World) -> None:
    prior = fitted(world, spread=0.15)
    before, after = [], []
    for _ in range(5):
        levels = world.person(0.25)
        before.append(accuracy(WearerModel(prior, known(prior)), world, levels, tuple(range(6))))
        model = WearerModel(prior, known(prior), performed(prior, world, levels, tuple(range(6))))
        after.append(accuracy(model, world, levels, tuple(range(6))))
    assert np.mean(after) > np.mean(before) + 0.1


def test_calibration_moves_gestures_the_wearer_never_made(world: World) -> None:
    prior = fitted(world)
    model = WearerModel(prior, known(prior))
    levels = world.person(0.2)
    calibrated = WearerModel(prior, known(prior), performed(prior, world, levels, (0, 1, 2, 3)))
    assert np.abs(calibrated.mean[4:] - model.mean[4:]).max() > 0.1
    assert calibrated.variance[4:].sum() < model.variance[4:].sum()
    assert not calibrated.weight[4:].any()


def test_own_repetitions_count_more_the_more_there_are_and_the_more_people_differ(world: World) -> None:
    alike, apart = fitted(world, spread=0.01), fitted(world, spread=0.2)
    levels = world.person(0.1)
    weights = {}
    for name, prior in (("alike", alike), ("apart", apart)):
        all_three = performed(prior, world, levels, (0,))
        weights[name] = [WearerModel(prior, known(prior), all_three[:n]).weight[0] for n in (1, 2, 3)]
    assert weights["apart"] == sorted(weights["apart"])
    assert 0 < weights["alike"][0] < weights["apart"][0] < 1


def test_without_deviation_between_people_repetitions_change_nothing(world: World) -> None:
    prior = fitted(world)
    arrays = {f: getattr(prior, f) for f in prior.__dataclass_fields__}
    certain = WearerPrior(**{**arrays, "people": np.zeros(prior.size), "unseen": np.zeros(prior.size)})
    reps = performed(prior, world, world.person(0.3), (0, 1))
    moved, still = WearerModel(certain, known(prior), reps), WearerModel(certain, known(prior))
    assert np.array_equal(moved.mean, still.mean)


def test_a_gesture_without_a_pose_may_lie_anywhere_until_it_is_performed(world: World) -> None:
    prior = fitted(world)
    levels = world.person(0.05)
    gestures = [*known(prior)[:4], KnownGesture("g4", None), KnownGesture("g5", None)]
    before = WearerModel(prior, gestures)
    assert (before.variance[4] > before.variance[:4].max(axis=0)).all()
    assert np.allclose(before.mean[4], before.mean[5])
    assert np.isfinite(before.log_likelihood(prior.describe(world.windows(levels, 4)))).all()
    after = WearerModel(prior, gestures, performed(prior, world, levels, (4, 5)))
    assert accuracy(after, world, levels, (4, 5)) > 0.95
    assert accuracy(after, world, levels, tuple(range(6))) > 0.9
    assert after.weight[4] > 0.5
    # what a person has in all gestures is learnt from one nobody posed, and nothing else is
    alone = WearerModel(prior, gestures, performed(prior, world, world.person(0.5), (4,)))
    moved = np.abs(alone.mean[:4] - before.mean[:4])
    assert np.allclose(moved, moved[0])


def test_likelihood_is_the_gaussian_density(world: World) -> None:
    prior = fitted(world)
    model = WearerModel(prior, known(prior))
    point = prior.describe(world.windows(world.person(0.05), 0))[:1]
    cov = np.diag(prior.within + model.variance[2])
    rest = point[0] - model.mean[2]
    by_hand = -0.5 * (rest @ np.linalg.solve(cov, rest) + np.linalg.slogdet(cov)[1])
    assert model.log_likelihood(point)[0, 2] == pytest.approx(by_hand, rel=1e-9)


def test_distances_of_what_belongs_are_about_as_many_as_there_are_axes(world: World) -> None:
    prior = fitted(world)
    levels = world.person(0.05)
    model = WearerModel(prior, known(prior), performed(prior, world, levels, (0, 1, 2, 3)))
    points = np.concatenate([prior.describe(world.windows(levels, 1)) for _ in range(30)])
    assert 0.5 < model.distances(points)[:, 1].mean() / prior.size < 1.6


def test_a_prior_reads_back_as_it_was_and_damage_is_refused(world: World) -> None:
    prior = fitted(world)
    packed = prior.pack()
    again = WearerPrior.unpack(packed)
    assert again.pack() == packed
    assert np.array_equal(again.encode, prior.encode)
    assert again.kernel == prior.kernel
    for damaged in (b"", packed[:-1], packed[:200] + b"\x00" + packed[201:]):
        with pytest.raises(ModelError) as caught:
            WearerPrior.unpack(damaged)
        assert caught.value.reason is Reason.MALFORMED


def test_emg_of_unseen_gestures_is_refused(world: World) -> None:
    everything = recorded(world, tuple(range(6)), spread=0.05)
    with pytest.raises(LeakageError):
        fit_wearer_prior(everything, everything.without_emg(), GESTURES, unseen=UNSEEN)


def test_what_does_not_fit_is_refused(world: World) -> None:
    prior = fitted(world)
    gestures = known(prior)
    with pytest.raises(DataError):
        WearerModel(prior, [])
    with pytest.raises(DataError):
        WearerModel(prior, [*gestures, gestures[0]])
    with pytest.raises(DataError):
        WearerModel(prior, gestures, [Repetition("g0", np.zeros((2, prior.size + 1)), 1.0)])
    with pytest.raises(DataError):
        WearerModel(prior, gestures, [Repetition("other", np.zeros((2, prior.size)), 1.0)])
    with pytest.raises(DataError):
        prior.describe(np.zeros((1, T, C + 1), np.float32))
    with pytest.raises(DataError):
        prior.predict(np.zeros((1, J + 1)))


def test_bends_part_flexion_from_extension() -> None:
    joint = np.array([[1.0, 0.0], [2.0, 1.0]])
    assert bends([[3.0, -1.0]], joint).tolist() == [[1.0, 0.0, 0.0, 1.0]]


def test_overlapping_windows_count_for_less() -> None:
    points = np.zeros((5, 3))
    assert Repetition.of("a", points, length=100, hop=100).windows == 5
    assert Repetition.of("a", points, length=100, hop=25).windows == 2
    assert Repetition.of("a", points[:1], length=100, hop=25).windows == 1


def test_without_poses_a_prior_knows_what_others_performed(world: World) -> None:
    train = recorded(world, (0, 1, 2, 3), spread=0.1).without_pose()
    prior = fit_wearer_prior(train, None, GESTURES[:4])
    assert prior.joints == 0
    assert prior.kernel.alike == 0
    assert WearerPrior.unpack(prior.pack()).pack() == prior.pack()
    gestures = [KnownGesture(g, None) for g in GESTURES[:4]]
    found = []
    for _ in range(5):
        levels = world.person(0.1)
        before = accuracy(WearerModel(prior, gestures), world, levels, (0, 1, 2, 3))
        own = performed(prior, world, levels, (0, 1, 2, 3))
        found.append((before, accuracy(WearerModel(prior, gestures, own), world, levels, (0, 1, 2, 3))))
    before, after = np.mean(found, axis=0)
    assert before > 0.5
    assert after > before


def test_without_poses_nobody_knows_a_gesture_nobody_performed(world: World) -> None:
    train = recorded(world, (0, 1, 2, 3), spread=0.1).without_pose()
    with pytest.raises(DataError, match="neither pose nor EMG of g4, g5") as caught:
        fit_wearer_prior(train, None, GESTURES)
    assert caught.value.reason is Reason.TOO_LITTLE_DATA
    with pytest.raises(DataError, match="EMG and pose"):
        fit_wearer_prior(train, train, GESTURES[:4])
    with pytest.raises(LeakageError):
        fit_wearer_prior(train, None, GESTURES[:3], unseen=("g3",))


def test_drift_is_told_against_repetitions_the_model_has_not_seen(world: World) -> None:
    prior = fitted(world)
    levels, gestures = world.person(0.05), known(prior)
    own = performed(prior, world, levels, (0, 1, 2, 3))
    model = WearerModel(prior, gestures, own)
    usual = usual_distance(model, own)
    assert usual is not None
    fresh, strange = (
        np.concatenate([log_distance(model, prior.describe(world.windows(at, 1))) for _ in range(20)]).mean() - usual
        for at in (levels, world.person(0.05) * np.array([4, 1, 4, 1, 4, 1]))
    )
    assert abs(fresh) < SPEAK_AT
    assert strange > SPEAK_AT
    assert usual_distance(model, own[:1]) is None
