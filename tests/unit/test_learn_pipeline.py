from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from embridge_cloud.learn import checkpoint, evaluate
from embridge_cloud.learn.baseline import fit_ridge
from embridge_cloud.learn.config import LearnConfig
from embridge_cloud.learn.data import Windows
from embridge_cloud.learn.leakage import PoseRegime
from embridge_cloud.learn.optim import Progress
from embridge_cloud.learn.pipeline import pretrain_encoders, train
from embridge_cloud.learn.presets import quick
from embridge_cloud.learn.trained import Trained, regime
from embridge_cloud.learn.zeroshot import evaluate_zero_shot, probe
from embridge_shared.errors import ConfigError, DataError, LeakageError, ModelError, OperatorError, Reason
from support.learn_world import paired

UNSEEN = ("g6", "g7")
SEEN = tuple(f"g{i}" for i in range(6))


def tiny(*, steps: int = 6, align: int = 30, patch: int = 40) -> LearnConfig:
    """A run of seconds."""
    config = quick(channels=6, patch=patch)
    change = msgspec.structs.replace
    return change(
        config,
        threads=1,
        encoder=change(config.encoder, width=32),
        emg_mae=change(config.emg_mae, steps=steps, decoder_width=32, batch=32),
        pose_mae=change(config.pose_mae, steps=steps, decoder_width=32, batch=32),
        qformer=change(config.qformer, queries=4),
        align=change(config.align, steps=align, batch=32),
        evaluate=change(config.evaluate, bootstrap=50),
    )


@pytest.fixture(scope="module")
def seen() -> Windows:
    return paired(windows=128).of_gestures(SEEN)


@pytest.fixture(scope="module")
def trained(seen: Windows) -> Trained:
    return train(seen, None, tiny(), seed=3, unseen=UNSEEN)


def test_the_same_seed_gives_the_same_run(seen: Windows, trained: Trained) -> None:
    torch.manual_seed(123)
    np.random.seed(123)
    again = train(seen, None, tiny(), seed=3, unseen=UNSEEN)
    assert again.history == trained.history
    assert again.lineage == trained.lineage
    assert np.array_equal(again.embed_emg(seen.emg), trained.embed_emg(seen.emg))
    other = train(seen, None, tiny(align=2), seed=4)
    assert other.history["emg_mae"] != trained.history["emg_mae"]


def test_training_leaves_the_callers_torch_alone(seen: Windows) -> None:
    threads = torch.get_num_threads()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    pretrain_encoders(seen, tiny(steps=1), seed=0)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


def test_a_run_tells_what_it_does(seen: Windows) -> None:
    heard: list[Progress] = []
    val = paired(windows=48, first_person=30).of_gestures(SEEN)
    config = tiny(steps=2, align=4)
    config = msgspec.structs.replace(config, align=msgspec.structs.replace(config.align, validate_every=2, keep="best"))
    result = train(seen, val, config, seed=0, progress=heard.append, unseen=UNSEEN)
    assert [p.stage for p in heard] == ["emg_mae"] * 2 + ["pose_mae"] * 2 + ["align"] * 4
    assert heard[-1].step == heard[-1].total == 4
    assert result.history["val_step"] == [2.0, 4.0]
    assert len(result.history["val_zs"]) == 2
    for name in ("align", "nce", "cascle", "mprl", "tau", "query_usage", "query_cosine", "target_entropy"):
        assert len(result.history[name]) == 4
    assert result.sanity.target_entropy > 0
    assert result.lineage.participants == ("p0", "p1", "p2", "p3")
    assert result.lineage.emg_gestures == SEEN
    assert regime(result, UNSEEN) is PoseRegime.STRICT


def test_embeddings_have_unit_length_and_the_right_shape(seen: Windows, trained: Trained) -> None:
    q, v = trained.embed_emg(seen.emg), trained.embed_pose(seen.pose)
    assert q.shape == (len(seen), 4, 32)
    assert v.shape == (len(seen), 32)
    np.testing.assert_allclose(np.linalg.norm(q, axis=2), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(v, axis=1), 1, atol=1e-5)
    assert trained.pose_mean.shape == trained.pose_sd.shape == (20,)
    with pytest.raises(DataError) as wrong:
        trained.embed_emg(np.zeros((2, 100, 6), np.float32))
    assert wrong.value.reason is Reason.WRONG_SHAPE
    with pytest.raises(DataError):
        trained.embed_pose(None)


def test_training_refuses_leaks(seen: Windows) -> None:
    config = tiny(steps=1, align=1)
    with pytest.raises(LeakageError, match="unseen"):
        train(paired(windows=64), None, config, seed=0, unseen=UNSEEN)
    with pytest.raises(LeakageError, match="validation"):
        train(seen, seen, config, seed=0)
    strangers = paired(windows=48, first_person=30)
    with pytest.raises(LeakageError, match="unseen"):
        train(seen, strangers, config, seed=0, unseen=UNSEEN)


def test_training_refuses_what_it_cannot_learn_from(seen: Windows) -> None:
    config = tiny(steps=1, align=1)
    for wrong in (seen.without_pose(), seen.without_emg(), seen.select(np.arange(1))):
        with pytest.raises(DataError):
            train(wrong, None, config, seed=0)
    with pytest.raises(DataError):
        train(paired(windows=64, channels=5), None, config, seed=0)
    first = pretrain_encoders(seen, config, seed=0)
    with pytest.raises(OperatorError):
        train(paired(windows=64), None, config, seed=0, pretrained=first)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError):
            train(seen, None, msgspec.structs.replace(config, device="cuda"), seed=0)


def test_several_alignments_start_from_the_same_encoders(seen: Windows) -> None:
    config = tiny(steps=2, align=2)
    first = pretrain_encoders(seen, config, seed=0)
    before = {k: v.clone() for k, v in first.emg.state_dict().items()}
    main = train(seen, None, config, seed=0, pretrained=first)
    control = train(seen, None, config, seed=0, pretrained=first, shuffle_pairs=True)
    assert all(torch.equal(before[k], v) for k, v in first.emg.state_dict().items())
    assert control.lineage.shuffled
    assert not main.lineage.shuffled
    assert control.history["emg_mae"] == main.history["emg_mae"]
    assert control.history["nce"] != main.history["nce"]
    assert main.history == train(seen, None, config, seed=0).history


def test_poses_alone_join_the_first_stage_and_show(seen: Windows) -> None:
    extra = paired(windows=32, first_person=50).of_gestures(UNSEEN).without_emg()
    result = train(seen, None, tiny(steps=2, align=2), seed=0, poses=extra, unseen=UNSEEN)
    assert regime(result, UNSEEN) is PoseRegime.POSE_ENROLLED
    assert not np.allclose(result.pose_mean, train(seen, None, tiny(steps=1, align=1), seed=0).pose_mean)
    assert len(result.lineage.data) == 2


def test_checkpoint_round_trip(seen: Windows, trained: Trained, tmp_path: Path) -> None:
    checkpoint.save_checkpoint(trained, tmp_path / "a")
    loaded = checkpoint.load_checkpoint(tmp_path / "a")
    assert np.array_equal(loaded.embed_emg(seen.emg), trained.embed_emg(seen.emg))
    assert np.array_equal(loaded.embed_pose(seen.pose), trained.embed_pose(seen.pose))
    assert loaded.history == trained.history
    assert loaded.lineage == trained.lineage
    assert loaded.sanity == trained.sanity
    assert loaded.config == trained.config
    checkpoint.save_checkpoint(loaded, tmp_path / "b")
    for name in (checkpoint.TENSORS, checkpoint.SIDECAR):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_damaged_checkpoints_are_refused(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as missing:
        checkpoint.load_checkpoint(tmp_path)
    assert missing.value.reason is Reason.NOT_FOUND
    checkpoint.save_checkpoint(trained, tmp_path)
    tensors = bytearray((tmp_path / checkpoint.TENSORS).read_bytes())
    tensors[-5] ^= 1
    (tmp_path / checkpoint.TENSORS).write_bytes(tensors)
    with pytest.raises(ModelError) as damaged:
        checkpoint.load_checkpoint(tmp_path)
    assert damaged.value.reason is Reason.HASH_MISMATCH
    sidecar = (tmp_path / checkpoint.SIDECAR).read_text()
    (tmp_path / checkpoint.SIDECAR).write_text(sidecar.replace('"format": 1', '"format": 9'))
    with pytest.raises(ModelError) as foreign:
        checkpoint.load_checkpoint(tmp_path)
    assert foreign.value.reason is Reason.UNSUPPORTED_VERSION
    (tmp_path / checkpoint.SIDECAR).write_text("{")
    with pytest.raises(ModelError) as broken:
        checkpoint.load_checkpoint(tmp_path)
    assert broken.value.reason is Reason.MALFORMED


def test_zero_shot_evaluation_obeys_the_rules(trained: Trained) -> None:
    strangers = paired(windows=64, first_person=40)
    gallery = paired(windows=64, first_person=60).without_emg().of_gestures(UNSEEN)
    tested = strangers.without_pose().of_gestures(UNSEEN)
    found = evaluate_zero_shot(trained, tested, gallery, claimed=PoseRegime.STRICT)
    assert found.unseen == UNSEEN
    assert found.knn.chance == 0.5
    assert found.knn.low <= found.knn.balanced_accuracy <= found.knn.high
    assert np.sum(found.knn.confusion) == len(tested)
    assert set(found.knn.per_participant) == {"p40", "p41", "p42", "p43"}
    assert found == evaluate_zero_shot(trained, tested, gallery)
    with pytest.raises(LeakageError):
        evaluate_zero_shot(trained, strangers.of_gestures(UNSEEN), gallery)
    with pytest.raises(LeakageError):
        evaluate_zero_shot(trained, tested, strangers.without_emg())
    known = paired(windows=64, seed=1).without_pose().of_gestures(SEEN)
    with pytest.raises(LeakageError):
        evaluate_zero_shot(trained, known, paired(windows=64, first_person=60).without_emg())
    later = replace(known, sessions=("n0", "n1", "n2", "n3"))
    with pytest.raises(LeakageError):
        evaluate_zero_shot(trained, later, paired(windows=64, first_person=60).without_emg())
    everyone = paired(windows=64, first_person=60).without_emg()
    assert evaluate_zero_shot(trained, later, everyone, new_participants=False).unseen == ()
    with pytest.raises(DataError):
        evaluate_zero_shot(trained, strangers.without_pose(), gallery)


def test_the_baseline_obeys_the_same_rules() -> None:
    world = paired(windows=512, people=8).of_gestures(SEEN)
    config = tiny()
    ridge = fit_ridge(world, config)
    again = fit_ridge(world, config)
    assert np.array_equal(ridge.weights, again.weights)
    strangers = paired(windows=384, people=8, first_person=40).without_pose()
    gallery = paired(windows=384, people=8, first_person=60).without_emg()
    for gestures in (SEEN, UNSEEN):
        found = evaluate_zero_shot(ridge, strangers.of_gestures(gestures), gallery.of_gestures(gestures))
        assert found.knn.low > found.knn.chance
        assert found.regime is PoseRegime.STRICT
    rng = np.random.default_rng(0)
    assert world.pose is not None
    broken = fit_ridge(replace(world, pose=world.pose[rng.permutation(len(world))]), config)
    control = evaluate_zero_shot(broken, strangers.of_gestures(UNSEEN), gallery.of_gestures(UNSEEN))
    assert abs(control.knn.balanced_accuracy - 0.5) < 0.25
    with pytest.raises(LeakageError):
        evaluate_zero_shot(ridge, world.without_pose(), gallery)
    with pytest.raises(DataError):
        fit_ridge(world.without_pose(), config)


def test_changed_statistics_are_noticed(trained: Trained, tmp_path: Path) -> None:
    checkpoint.save_checkpoint(trained, tmp_path)
    other = checkpoint.load_checkpoint(tmp_path)
    other.model.pose.scale.mul_(1.1)
    gallery = paired(windows=64, first_person=60).without_emg()
    with pytest.raises(LeakageError, match="statistics"):
        evaluate_zero_shot(other, paired(windows=64, first_person=40).without_pose(), gallery)


def test_probe_needs_strangers(trained: Trained, seen: Windows) -> None:
    strangers = paired(windows=96, first_person=40).of_gestures(SEEN)
    for features in ("queries", "summary", "both"):
        assert probe(trained, seen, strangers, features=features).balanced_accuracy > 2 / 6
    with pytest.raises(LeakageError):
        probe(trained, seen, seen)


def test_neighbours_vote_and_ties_go_to_the_nearer() -> None:
    labels = np.array([0, 0, 1, 1, 2])
    similarity = np.array([[0.9, 0.1, 0.8, 0.7, 0.2], [0.1, 0.2, 0.3, 0.4, 0.99]], np.float32)
    assert evaluate.knn(similarity, labels, classes=3, k=3).tolist() == [1, 1]
    assert evaluate.knn(similarity, labels, classes=3, k=2).tolist() == [0, 2]
    assert evaluate.knn(similarity, labels, classes=3, k=1).tolist() == [0, 2]


def test_similarity_is_that_of_the_nearest_query() -> None:
    q = np.eye(3, dtype=np.float32)[None, :2]
    gallery = np.eye(3, dtype=np.float32)
    assert evaluate.gallery_similarity(q, gallery).tolist() == [[1, 1, 0]]
    np.testing.assert_allclose(evaluate.mean_query(q)[0, 0], [2**-0.5, 2**-0.5, 0], atol=1e-6)


def test_scores_weigh_classes_and_people() -> None:
    truth = np.array([0, 0, 0, 0, 1, 1])
    predicted = np.array([0, 0, 0, 0, 0, 1])
    assert evaluate.balanced_accuracy(truth, predicted) == pytest.approx(0.75)
    assert evaluate.macro_f1(truth, predicted) == pytest.approx((8 / 9 + 2 / 3) / 2)
    tested = evaluate.Truth(truth, np.array([0, 0, 0, 1, 1, 1]), ("a", "b"), ("x", "y"))
    found = evaluate.score(tested, predicted, np.random.default_rng(0), bootstrap=200)
    assert found.balanced_accuracy == pytest.approx(0.75)
    assert found.per_participant == {"a": 1.0, "b": pytest.approx(0.75)}
    assert found.confusion == ((4, 0), (1, 1))
    assert found.low <= 0.75 <= found.high
    assert found.low < found.high


def test_probe_separates_what_is_separable() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=300)
    x = (np.eye(3)[y] @ rng.normal(size=(3, 8)) * 4 + rng.normal(size=(300, 8))).astype(np.float32)
    found = evaluate.linear_probe((x[:200], y[:200]), x[200:], classes=3)
    assert evaluate.balanced_accuracy(y[200:], found) > 0.95


@pytest.mark.learning
def test_overfits_a_handful_of_pairs() -> None:
    pairs = paired(windows=32, gestures=8)
    config = tiny(steps=60, align=400, patch=20)
    change = msgspec.structs.replace
    config = change(
        config,
        augment=change(config.augment, gain_db=0.0, channel_mask=0.0),
        linear=change(config.linear, l2=0.0),
        loss=change(config.loss, alpha=0.0, lam=0.0, tau_init=0.1, tau_min=0.02),
        align=change(config.align, batch=32, lr_emg=2e-3, lr_rest=2e-3),
    )
    result = train(pairs, None, config, seed=0)
    similarity = evaluate.gallery_similarity(result.embed_emg(pairs.emg), result.embed_pose(pairs.pose))
    assert np.mean(similarity.argmax(axis=1) == np.arange(32)) > 0.95


@pytest.mark.learning
def test_unseen_gestures_are_decoded_and_a_control_is_not() -> None:
    everyone = paired(windows=1024, people=16, gestures=8)
    world = everyone.of_gestures(SEEN)
    first = pretrain_encoders(world, tiny(steps=100, patch=20), seed=0)
    strangers = paired(windows=384, people=8, first_person=40).without_pose()
    gallery = paired(windows=384, people=8, first_person=60).without_emg()
    scores = {}
    for shuffled in (False, True):
        run = tiny(steps=100, align=100, patch=20)
        model = train(world, None, run, seed=0, pretrained=first, shuffle_pairs=shuffled, unseen=UNSEEN)
        scores[shuffled] = [
            evaluate_zero_shot(model, strangers.of_gestures(g), gallery.of_gestures(g)).knn for g in (SEEN, UNSEEN)
        ]
    seen_score, unseen_score = scores[False]
    assert seen_score.balanced_accuracy > 1.5 * seen_score.chance
    assert unseen_score.balanced_accuracy > 1.5 * unseen_score.chance
    for control in scores[True]:
        assert abs(control.balanced_accuracy - control.chance) < 0.1
