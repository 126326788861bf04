from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from embridge_cloud.learn import evaluate
from embridge_cloud.learn.baseline import fit_ridge
from embridge_cloud.learn.leakage import PoseRegime
from embridge_cloud.study.evaluation import Fitted, evaluate_fitted, subject_of, unlabelled_view
from embridge_cloud.study.methods import CLOSED, Shared, method, methods
from embridge_cloud.study.outcome import Figure, Job
from embridge_cloud.study.protocol import Protocol, Regime
from embridge_cloud.study.splits import Split, make_split
from embridge_cloud.study.unit import do_job, narrowed
from embridge_shared.errors import ConfigError, DataError, LeakageError
from support.study_world import WINDOW_S, config, noise, run, windows

ZERO_SHOT = {p for p in Protocol if p.startswith(("zs", "gzs")) and p is not Protocol.GZS_HARMONIC}
PROBES = {Protocol.LP_SEEN, Protocol.LP_UNSEEN, Protocol.FEW_SHOT_1, Protocol.FEW_SHOT_3, Protocol.FEW_SHOT_5}


@pytest.fixture(scope="module")
def split() -> Split:
    return make_split(windows(), run(), WINDOW_S)


def mean(figure: Figure) -> float:
    return float(np.mean(list(figure.per_participant.values())))


def figures(made: Split, name: str, draw: int = 0) -> dict[str, Figure]:
    fitted = method(name).fit(made, Shared(config()), Job(method=name, draw=draw))
    return {f.protocol: f for f in evaluate_fitted(fitted, made)}


# protocols


def test_every_protocol_recovers_a_planted_link(split):
    found = figures(split, "regression")
    assert set(found) == ZERO_SHOT | PROBES
    for name, figure in found.items():
        assert mean(figure) > figure.chance + 0.25, name
    assert found["zs-seen"].chance == 1 / 6
    assert found["zs-unseen"].chance == 1 / 2
    assert len(found["gzs-seen"].gestures) == 8


def test_galleries_hold_as_many_poses_of_each_gesture(split):
    rare = np.flatnonzero(split.gallery.label == 0)[3:]
    fewer = replace(split, gallery=split.gallery.select(np.setdiff1d(np.arange(len(split.gallery)), rare)))
    assert np.bincount(subject_of(fewer).gallery_labels).tolist() == [3] * 8


def test_a_trial_is_one_decision(split):
    found = figures(split, "regression")
    assert found["zs-seen-trial"].windows == len(np.unique(split.tested.of_gestures(split.seen).start_s))
    doubled = make_split(doubled_windows(), run(), WINDOW_S)
    twice = figures(doubled, "regression")
    assert twice["zs-seen"].windows == 2 * twice["zs-seen-trial"].windows == 2 * found["zs-seen"].windows


def doubled_windows():
    """Two windows, two seconds apart, of every repetition."""
    made = windows()
    rows = np.repeat(np.arange(len(made)), 2)
    return replace(made.select(rows), start_s=np.arange(len(rows)) * 2.0)


def test_emg_that_says_nothing_is_at_chance():
    found = [figures(make_split(noise(windows(), seed=n), run(), WINDOW_S), "regression") for n in range(6)]
    for name in ("zs-seen", "lp-seen", "lp-unseen", "few-shot-5"):
        assert abs(np.mean([mean(f[name]) for f in found]) - found[0][name].chance) < 0.1, name


@pytest.mark.parametrize("name", ["shuffled-regression", "shuffled-closed"])
def test_broken_pairs_are_at_chance_in_every_protocol(split, name):
    draws = [figures(split, name, draw) for draw in range(12)]
    allowed = {
        "zs-seen": 0.06,
        "zs-unseen": 0.25,
        "gzs-seen": 0.06,
        "gzs-unseen": 0.2,
        "lp-seen": 0.06,
        "lp-unseen": 0.1,
    }
    for protocol, most in allowed.items():
        value = np.mean([mean(d[protocol]) for d in draws])
        assert abs(value - draws[0][protocol].chance) < most, protocol


def test_a_ceiling_reads_the_pose_and_has_no_enrolment(split):
    found = figures(split, "posture-ceiling")
    assert mean(found["zs-unseen"]) > 0.95
    assert {Protocol.LP_SEEN, Protocol.LP_UNSEEN} <= set(found)
    assert not {n for n in found if n.startswith(("gzs", "few"))}


@pytest.mark.parametrize("name", ["regression", *CLOSED])
def test_a_calibrated_wearer_gains_on_seen_gestures(name):
    strange = windows()
    emg = np.array(strange.emg)
    worn = np.isin(strange.participant, [0, 1])
    emg[worn] = np.roll(emg[worn], 2, axis=2)
    strange = replace(strange, emg=emg)
    before = mean(figures(make_split(strange, run(), WINDOW_S), name)["zs-seen"])
    made = make_split(strange, run(), WINDOW_S, regime=Regime.CALIBRATED)
    after = float(np.mean([mean(figures(part, name)["zs-seen"]) for part in narrowed(made)]))
    assert after > before + 0.15


def test_a_head_moved_to_wearers_sees_no_unseen_emg(split):
    view = unlabelled_view(split, "p0")
    seen = split.tested.of_participants(["p0"]).of_gestures(split.seen)
    allowed = seen.select(seen.repetition <= 3)
    assert len(allowed) < len(seen)
    assert {row.tobytes() for row in view} == {row.tobytes() for row in np.asarray(allowed.emg)}
    assert len(unlabelled_view(split, "p2")) == len(view)
    with pytest.raises(DataError):
        unlabelled_view(split, "nobody")


@pytest.mark.parametrize("name", ["embridge", "cpep", "supervised", "emg-mae", "pose-ceiling", "shuffled-pairs"])
def test_deep_methods_answer_what_they_can(split, name):
    found = figures(split, name)
    wanted = {
        "emg-mae": PROBES,
        "supervised": ZERO_SHOT | PROBES | {Protocol.SUPERVISED},
        "pose-ceiling": {p for p in ZERO_SHOT if not p.startswith("gzs")} | {Protocol.LP_SEEN, Protocol.LP_UNSEEN},
    }.get(name, ZERO_SHOT | PROBES)
    assert set(found) == wanted


def test_the_classifier_speaks_in_the_order_of_the_split(split):
    fitted = method("supervised").fit(split, Shared(config(steps=60)), Job(method="supervised"))
    found = {f.protocol: f for f in evaluate_fitted(fitted, split)}
    assert found["supervised"].gestures == split.seen
    assert mean(found["supervised"]) > 0.5


def test_a_model_that_saw_too_much_is_refused(split):
    everything = replace(split.probe, pose=split.gallery.pose)
    with pytest.raises(LeakageError, match="unseen gestures"):
        evaluate_fitted(Fitted(embedder=fit_ridge(everything, config())), split)
    tested = replace(split.tested, pose=split.tested_pose.pose).of_gestures(split.seen)
    with pytest.raises(LeakageError, match="participants"):
        evaluate_fitted(Fitted(embedder=fit_ridge(tested, config())), split)


def test_a_changed_model_is_refused(split):
    fitted = fit_ridge(split.train, config())
    with pytest.raises(LeakageError, match="statistics"):
        evaluate_fitted(Fitted(embedder=replace(fitted, weights=fitted.weights + 1)), split)


def test_enrolled_poses_need_their_regime(split):
    shared = Shared(config())
    enrolled = replace(split, pose_regime=PoseRegime.POSE_ENROLLED)
    fitted = method("cpep").fit(enrolled, shared, Job(method="cpep"))
    assert evaluate_fitted(fitted, enrolled)
    with pytest.raises(LeakageError, match="poses of unseen"):
        evaluate_fitted(fitted, split)


def test_an_unknown_method_is_named():
    with pytest.raises(ConfigError, match="no method 'nothing'"):
        method("nothing")
    assert {"embridge", "cpep", "regression", "shuffled-pairs", "supervised", *CLOSED} <= set(methods())


def test_encoders_are_trained_once_and_charged_to_everybody(split):
    shared = Shared(config())
    first = shared.pretrained(split)
    assert shared.charged == (0.0, 0.0)
    assert shared.pretrained(split) is first
    assert shared.charged[0] > 0
    half = make_split(windows(), run(), WINDOW_S, share=0.5)
    assert shared.pretrained(half).data[0] == half.train.digest()


def test_a_failing_method_is_an_outcome(split, monkeypatch):
    chosen = method("regression")

    def fail(*given):
        raise AttributeError("nothing there")

    done = do_job(
        windows(), run(), Job(method="regression"), msgspec_replace(chosen, fit=fail), Shared(config()), digest=""
    )
    assert done.outcome.error == "AttributeError: nothing there"
    assert not done.outcome.figures
    assert done.fitted is None


def msgspec_replace(value, **changes):
    return replace(value, **changes)


def test_data_efficiency_keeps_the_gallery():
    job = Job(method="regression", share=0.34)
    done = do_job(windows(), run(), job, method("regression"), Shared(config()), digest="")
    assert not done.outcome.error
    assert done.split is not None
    assert len(done.split.train.present("participants")) == 2
    assert msgspec.json.decode(msgspec.json.encode(done.outcome), type=type(done.outcome)) == done.outcome


# what figures are made of


def test_shrinkage_serves_with_fewer_windows_than_features():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 64)) * 0.6
    x = np.concatenate([centres + 0.5 * rng.normal(size=(4, 64)) for _ in range(3)]).astype(np.float32)
    y = np.tile(np.arange(4), 3)
    z = np.concatenate([centres + 0.5 * rng.normal(size=(4, 64)) for _ in range(50)]).astype(np.float32)
    scores = evaluate.shrinkage_lda((x, y), z, classes=4)
    assert evaluate.balanced_accuracy(np.tile(np.arange(4), 50), scores.argmax(axis=1)) > 0.9
    with pytest.raises(DataError, match="every class"):
        evaluate.shrinkage_lda((x[:3], y[:3]), z, classes=4)


def test_a_full_covariance_is_used_where_windows_allow():
    rng = np.random.default_rng(1)
    mix = np.array([[1.0, 0.97], [0.97, 1.0]])
    y = np.repeat([0, 1], 400)
    x = rng.multivariate_normal([0, 0], mix, 800) + np.where(y[:, None] == 1, [0.5, -0.5], [0, 0])
    said = evaluate.shrinkage_lda((x.astype(np.float32), y), x.astype(np.float32), classes=2).argmax(axis=1)
    assert evaluate.balanced_accuracy(y, said) > 0.95


def test_levelled_scores_need_no_window_of_a_class():
    rng = np.random.default_rng(2)
    reference = rng.normal([0, 5, -3], [1, 2, 0.5], (600, 3))
    truth = np.repeat([0, 1], 300)
    level = evaluate.against_negatives(reference, reference, truth)
    assert level[truth != 0, 0].mean() == pytest.approx(0, abs=1e-9)
    assert level[:, 2].std() == pytest.approx(1, rel=1e-6)


def test_the_seen_penalty_gives_up_the_share_asked_for():
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(1000, 6)) + np.array([1, 1, 1, 1, 0, 0])
    for share in (0.2, 0.5):
        moved = scores.copy()
        moved[:, :4] -= evaluate.seen_penalty(scores, 4, share=share)
        assert (moved.argmax(axis=1) >= 4).mean() == pytest.approx(share, abs=0.01)


def test_trials_pool_their_windows():
    pooled, first = evaluate.pool_trials(np.array([[1.0, 0.0], [0.0, 0.4], [0.0, 1.0]]), np.array([7, 7, 3]))
    assert pooled.tolist() == [[0.0, 1.0], [0.5, 0.2]]
    assert first.tolist() == [2, 0]


def test_neighbours_vote_before_they_are_weighed():
    similarity = np.array([[0.9, 0.1, 0.1, 0.95]], np.float32)
    assert evaluate.knn(similarity, np.array([0, 1, 1, 2]), classes=3, k=4).tolist() == [1]
    ballots = evaluate.ballots(similarity, np.array([0, 1, 1, 2]), classes=3, k=4)
    assert ballots[0, 1] > 2 > ballots[0, 0]


def test_harmonic_means():
    assert evaluate.harmonic(0.2, 0.3) == pytest.approx(0.24)
    assert evaluate.harmonic(0.0, 0.0) == 0.0
