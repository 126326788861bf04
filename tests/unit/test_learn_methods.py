from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from embridge_cloud.learn import checkpoint, evaluate, leakage
from embridge_cloud.learn.config import LearnConfig, WearerConfig
from embridge_cloud.learn.data import Windows
from embridge_cloud.learn.ensemble import blend
from embridge_cloud.learn.fitting import first_stage_of
from embridge_cloud.learn.methods import METHODS, SWITCHES, fit_method, method, pose_as_emg
from embridge_cloud.learn.pipeline import pretrain_encoders
from embridge_cloud.learn.presets import envelope, preset, quick
from embridge_cloud.learn.pretrain import Pretrained
from embridge_cloud.learn.spaces import EmbeddingSpace, PostureSpace
from embridge_cloud.learn.speakers import Adaptable
from embridge_cloud.learn.supervised import Outspoken
from embridge_cloud.learn.trained import Trained
from embridge_cloud.learn.wearer import Moments, adapt, borrow_poses, moments, with_calibration
from embridge_cloud.learn.zeroshot import evaluate_zero_shot
from embridge_shared.errors import ConfigError, DataError, LeakageError, OperatorError
from support.learn_world import paired

change = msgspec.structs.replace
UNSEEN = ("g6", "g7")
SEEN = tuple(f"g{i}" for i in range(6))
ALIGNED = (
    "cpep",
    "cpep+cascle",
    "qformer",
    "qformer+mprl",
    "qformer+cascle",
    "label-smoothing",
    "softclip",
    "embridge",
)


def tiny(*, steps: int = 2, patch: int = 40) -> LearnConfig:
    """A run of a moment."""
    config = quick(channels=6, patch=patch)
    return change(
        config,
        threads=1,
        encoder=change(config.encoder, width=32),
        emg_mae=change(config.emg_mae, steps=steps, decoder_width=32, batch=32),
        pose_mae=change(config.pose_mae, steps=steps, decoder_width=32, batch=32),
        qformer=change(config.qformer, queries=4),
        align=change(config.align, steps=steps, batch=32),
        evaluate=change(config.evaluate, bootstrap=20),
    )


@pytest.fixture(scope="module")
def seen() -> Windows:
    return paired(windows=128).of_gestures(SEEN)


@pytest.fixture(scope="module")
def first(seen: Windows) -> Pretrained:
    return pretrain_encoders(seen, tiny(), seed=0)


@pytest.fixture(scope="module")
def full(seen: Windows, first: Pretrained) -> Trained:
    found = fit_method("embridge", seen, seed=0, config=tiny(), pretrained=first, unseen=UNSEEN)
    assert isinstance(found, Trained)
    return found


def test_every_method_of_the_paper_is_there() -> None:
    wanted = {"emg-mae", "supervised", "regression-net", "pose-ceiling", "shuffled-pairs", *ALIGNED}
    assert set(METHODS) == wanted
    assert not set(METHODS) & set(SWITCHES)
    assert all(name == spec.name and spec.description for name, spec in (METHODS | SWITCHES).items())
    assert [n for n, s in METHODS.items() if s.leaky] == ["pose-ceiling"]
    assert [n for n, s in METHODS.items() if s.control] == ["shuffled-pairs"]
    with pytest.raises(ConfigError, match="no method"):
        method("nothing")


def test_the_envelope_preset_is_quick_with_a_clean_path() -> None:
    made = preset("envelope")
    assert made.linear.clean
    assert change(made, name="quick", linear=quick().linear) == quick(channels=10)
    assert envelope(sensors=22).pose.channels == 22


def test_methods_differ_in_what_they_say() -> None:
    base = tiny()
    loss = {name: METHODS[name].configure(base).loss for name in ALIGNED}
    assert {n for n in ALIGNED if loss[n].lam > 0} == {"qformer+mprl", "label-smoothing", "softclip", "embridge"}
    assert {n for n in ALIGNED if loss[n].alpha == 0} == {"cpep", "qformer", "qformer+mprl"}
    assert {n for n in ALIGNED if METHODS[n].configure(base).qformer.reader == "summary"} == {"cpep", "cpep+cascle"}
    assert loss["label-smoothing"].alpha / (1 + loss["label-smoothing"].alpha) == pytest.approx(0.1)
    assert loss["softclip"].cascle.targets == "instances"
    # a base that switched parts off still has them in the full method
    bare = change(base, loss=change(base.loss, alpha=0.0, lam=0.0))
    assert METHODS["embridge"].configure(bare).loss.alpha > 0
    assert METHODS["embridge"].configure(bare).loss.lam > 0
    same = [n for n in (*METHODS, *SWITCHES) if first_stage_of(method(n).configure(base)) == first_stage_of(base)]
    assert set(METHODS) <= set(same)
    assert "embridge:spectral" not in same


@pytest.mark.parametrize("name", [n for n in (*METHODS, *SWITCHES) if n != "embridge"])
def test_every_method_fits_and_obeys_the_rules(name: str, seen: Windows, first: Pretrained) -> None:
    extra = paired(windows=32, first_person=50).of_gestures(UNSEEN).without_emg()
    found = fit_method(name, seen, seed=0, config=tiny(), pretrained=first, unseen=UNSEEN, poses=extra)
    spec = method(name)
    strangers = paired(windows=48, first_person=40)
    emg = pose_as_emg(strangers.without_emg()).emg if spec.leaky else strangers.emg
    features = found.features(emg)
    assert features.ndim == 2
    assert len(features) == 48
    assert np.isfinite(features).all()
    leakage.check_statistics(found.lineage.statistics, found.statistics())
    assert found.lineage.shuffled == spec.control
    assert found.lineage.emg_gestures == SEEN
    assert (set(found.lineage.pose_gestures) > set(SEEN)) == spec.pose_enrolled
    if not spec.zero_shot:
        with pytest.raises(DataError):
            found.embed_emg(emg)
        return
    queries = found.embed_emg(emg)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=2), 1, atol=1e-5)
    gallery = paired(windows=48, first_person=60).without_emg()
    tested = pose_as_emg(strangers.without_emg()) if spec.leaky else strangers.without_pose()
    score = evaluate_zero_shot(found, tested, gallery)
    assert score.unseen == UNSEEN
    assert (score.regime == "pose-enrolled") == spec.pose_enrolled


def test_the_same_seed_gives_the_same_method(seen: Windows, first: Pretrained) -> None:
    for name in ("supervised", "regression-net", "cpep"):
        one, two = (fit_method(name, seen, seed=1, config=tiny(), pretrained=first) for _ in range(2))
        assert np.array_equal(one.embed_emg(seen.emg), two.embed_emg(seen.emg))
        assert one.lineage == two.lineage


def test_a_method_refuses_other_encoders_and_unseen_gestures(seen: Windows, first: Pretrained) -> None:
    other = paired(windows=96, seed=3).of_gestures(SEEN)
    for name in ("embridge", "supervised", "emg-mae"):
        with pytest.raises(OperatorError, match="other windows"):
            fit_method(name, other, seed=0, config=tiny(), pretrained=first)
        with pytest.raises(LeakageError):
            fit_method(name, paired(windows=64), seed=0, config=tiny(), unseen=UNSEEN)
    with pytest.raises(ConfigError, match="poses"):
        fit_method("embridge:unpaired-pose", seen, seed=0, config=tiny())
    calibration = paired(windows=32, first_person=9).without_pose()
    with pytest.raises(LeakageError, match="calibration"):
        fit_method("cpep", seen, seed=0, config=tiny(), pretrained=first, calibration=calibration, unseen=UNSEEN)


def test_the_classifier_learns_its_gestures() -> None:
    world = paired(windows=512, people=8).of_gestures(SEEN)
    config = tiny(steps=40)
    found = fit_method("supervised", world, seed=0, config=config)
    assert isinstance(found, Outspoken)
    assert found.gestures == SEEN
    strangers = paired(windows=256, people=4, first_person=40).of_gestures(SEEN)
    scores = found.classify(strangers.emg)
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1, atol=1e-5)
    assert evaluate.balanced_accuracy(strangers.label, scores.argmax(axis=1).astype(np.int64)) > 2 / 6
    with pytest.raises(DataError):
        fit_method("regression-net", world, seed=0, config=tiny()).classify(strangers.emg)  # type: ignore[attr-defined]
    with pytest.raises(DataError):
        found.classify(np.zeros((2, 100, 6), np.float32))


@pytest.mark.parametrize("target", ["posture", "embedding"])
def test_the_regression_finds_poses(target: str) -> None:
    world = paired(windows=512, people=8).of_gestures(SEEN)
    config = tiny(steps=40)
    config = change(config, regression=change(config.regression, target=target))
    found = fit_method("regression-net", world, seed=0, config=config)
    assert isinstance(found, Outspoken)
    assert isinstance(found.space, EmbeddingSpace if target == "embedding" else PostureSpace)
    strangers = paired(windows=256, people=4, first_person=40).without_pose()
    gallery = paired(windows=256, people=4, first_person=60).without_emg()
    score = evaluate_zero_shot(found, strangers.of_gestures(SEEN), gallery.of_gestures(SEEN))
    assert score.knn.balanced_accuracy > 2 / 6


def test_a_ceiling_cannot_be_taken_for_a_method(seen: Windows) -> None:
    with pytest.raises(LeakageError):
        pose_as_emg(seen)
    with pytest.raises(DataError):
        pose_as_emg(seen.without_pose())


def test_calibration_borrows_poses_of_the_same_gesture(seen: Windows) -> None:
    calibration = paired(windows=48, first_person=30).of_gestures(("g1", "g2")).without_pose()
    rng = np.random.default_rng(0)
    lent = borrow_poses(calibration, seen, rng)
    assert seen.pose is not None
    assert lent.pose is not None
    for i in range(len(lent)):
        owner = np.flatnonzero((seen.pose == lent.pose[i]).all(axis=(1, 2)))
        assert [seen.gestures[seen.label[j]] for j in owner] == [lent.gestures[lent.label[i]]]
    joined = with_calibration(seen, calibration, 0.5, rng)
    own = joined.of_participants(["p30", "p31", "p32", "p33"])
    assert len(own) / len(joined) == pytest.approx(0.5, abs=0.08)
    assert own.present("gestures") == {"g1", "g2"}
    with pytest.raises(DataError, match="g7"):
        borrow_poses(paired(windows=48, first_person=30).without_pose(), seen, rng)


def test_calibrated_wearers_are_learnt_from_and_named(seen: Windows, first: Pretrained) -> None:
    calibration = paired(windows=48, first_person=30).of_gestures(("g1", "g2")).without_pose()
    for name in ("embridge", "supervised", "regression-net"):
        found = fit_method(name, seen, seed=0, config=tiny(), pretrained=first, calibration=calibration, unseen=UNSEEN)
        assert set(found.lineage.participants) > {"p30", "p31"}
        assert seen.digest() in found.lineage.data
        plain = fit_method(name, seen, seed=0, config=tiny(), pretrained=first, unseen=UNSEEN)
        assert not np.allclose(found.embed_emg(seen.emg), plain.embed_emg(seen.emg))


def test_adaptation_moves_a_wearer_onto_the_training_people(full: Trained, seen: Windows) -> None:
    stranger = paired(windows=96, first_person=40, people=1).of_gestures(SEEN)
    reference = moments(full, seen.emg)
    own = moments(full, stranger.emg)
    assert adapt(full, reference, own, WearerConfig()) is full
    queries = full.embed_emg(stranger.emg).mean(axis=1)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    for how in ("mean", "coral"):
        moved = adapt(full, reference, own, WearerConfig(adapt=how, shrink=0.0))
        shifted = (queries - moved.source) @ moved.matrix.T + moved.target  # type: ignore[attr-defined]
        np.testing.assert_allclose(shifted.mean(axis=0), reference.mean, atol=1e-4)
        assert moved.embed_emg(stranger.emg).shape == full.embed_emg(stranger.emg).shape
        assert moved.lineage == full.lineage
    plain = Moments(np.zeros(3), np.diag([4.0, 1.0, 0.25]))
    wide = Moments(np.zeros(3), np.eye(3))
    matrix = adapt(full, wide, plain, WearerConfig(adapt="coral", shrink=0.0)).matrix  # type: ignore[attr-defined]
    np.testing.assert_allclose(matrix, np.diag([0.5, 1.0, 2.0]), atol=1e-6)
    with pytest.raises(DataError):
        moments(full, stranger.emg[:3] if stranger.emg is not None else None)


def test_an_adapting_method_serves_each_wearer(seen: Windows, first: Pretrained) -> None:
    found = fit_method("embridge:adapt-mean", seen, seed=0, config=tiny(), pretrained=first)
    assert isinstance(found, Adaptable)
    stranger = paired(windows=96, first_person=40, people=1)
    moved = found.for_wearer(stranger.of_gestures(SEEN).emg)
    assert not np.allclose(moved.embed_emg(stranger.emg), found.embed_emg(stranger.emg))


def test_an_ensemble_says_the_weighted_mean(full: Trained, seen: Windows, first: Pretrained) -> None:
    other = fit_method("regression-net", seen, seed=0, config=tiny(), pretrained=first)
    mixed = blend([full, other], [3.0, 1.0])
    queries, vectors = mixed.embed_emg(seen.emg), mixed.embed_pose(seen.pose)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=2), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    each = [evaluate.gallery_similarity(m.embed_emg(seen.emg), m.embed_pose(seen.pose)) for m in (full, other)]
    found = evaluate.gallery_similarity(queries, vectors)
    np.testing.assert_allclose(found, 0.75 * each[0] + 0.25 * each[1], atol=1e-5)
    # several queries on both sides: the nearest of one and the nearest of the other
    twice = blend([full, full])
    np.testing.assert_allclose(
        evaluate.gallery_similarity(twice.embed_emg(seen.emg), twice.embed_pose(seen.pose)), each[0], atol=1e-5
    )
    stranger = fit_method("regression-net", paired(windows=96, seed=3, people=3), seed=0, config=tiny())
    with pytest.raises(OperatorError, match="different people"):
        blend([full, stranger])
    with pytest.raises(OperatorError):
        blend([full], [0.0])


@pytest.mark.parametrize("name", ["cpep", "embridge:gmm", "embridge:electrodes", "embridge:spectral"])
def test_methods_survive_a_checkpoint(name: str, seen: Windows, first: Pretrained, tmp_path: Path) -> None:
    found = fit_method(name, seen, seed=0, config=tiny(), pretrained=first)
    assert isinstance(found, Trained)
    checkpoint.save_checkpoint(found, tmp_path)
    loaded = checkpoint.load_checkpoint(tmp_path)
    assert np.array_equal(loaded.embed_emg(seen.emg), found.embed_emg(seen.emg))
    assert loaded.config == found.config
    vectors = torch.from_numpy(found.embed_pose(seen.pose)[:20])
    assert torch.equal(loaded.model.soft_targets(vectors), found.model.soft_targets(vectors))


@pytest.mark.learning
def test_unseen_gestures_are_decoded_and_broken_pairs_are_not() -> None:
    # a control of two gestures strays far from chance by luck; eight of them do not
    known, new = (tuple(f"g{i}" for i in r) for r in (range(12), range(12, 20)))
    world = paired(windows=1280, people=16, gestures=20).of_gestures(known)
    config = quick(channels=6)
    config = change(config, threads=1, encoder=change(config.encoder, width=32))
    strangers = paired(windows=960, people=24, first_person=40, gestures=20).without_pose()
    gallery = paired(windows=960, people=24, first_person=80, gestures=20).without_emg()
    first = pretrain_encoders(world, config, seed=0)

    def decoded(name: str, seed: int) -> list[float]:
        found = fit_method(name, world, seed=seed, config=config, pretrained=first, unseen=new)
        parts = [(strangers.of_gestures(g), gallery.of_gestures(g)) for g in (known, new)]
        return [evaluate_zero_shot(found, *part).knn.balanced_accuracy for part in parts]

    for name in ("embridge", "cpep", "regression-net"):
        assert min(np.array(decoded(name, 0)) * (12, 8)) >= 1.5, name
    control = np.mean([decoded("shuffled-pairs", seed) for seed in range(4)], axis=0)
    assert control == pytest.approx([1 / 12, 1 / 8], abs=0.03)
