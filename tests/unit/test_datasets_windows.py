"""Windows: where they are cut, what the fits may see, and that a hidden gesture is seen by none of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embridge_cloud.datasets.base import EmgKind, PairedRecording, PoseKind, Segment, Split, all_recordings
from embridge_cloud.datasets.registry import open_dataset
from embridge_cloud.datasets.windows import CutConfig, cut_each, cut_windows
from embridge_shared.errors import ConfigError, DataError, Reason
from embridge_shared.hand import fit_glove_calibration, glove_to_joints
from embridge_shared.preprocess import FrontEnd, fit_wearer_scale
from embridge_shared.signal import Modality, SampleType, StreamSpec

REPS = 4


def recording(*, rate_hz=100.0, kind=EmgKind.ENVELOPE, pose_hz=100.0, who="p", name="s", seed=0, **changes):
    """Three gestures, rest before each repetition; EMG and glove rise with the gesture."""
    rng = np.random.default_rng(seed)
    label = np.tile(np.repeat([0, 1, 0, 2, 0, 3], [100, 250] * 3), REPS)
    at = np.arange(round(len(label) * rate_hz / 100)) * 100 / rate_hz
    level = label[at.astype(int)]
    noise = rng.normal(size=(len(level), 5))
    emg = np.abs(0.1 * noise + level[:, None]) if kind is EmgKind.ENVELOPE else (0.2 + level[:, None]) * noise
    pose_at = np.minimum((np.arange(round(len(label) * pose_hz / 100)) * 100 / pose_hz).astype(int), len(label) - 1)
    glove = 100 + 30 * label[pose_at, None] * np.linspace(0.2, 1, 22) + rng.normal(size=(len(pose_at), 22))
    edges = np.flatnonzero(np.diff(np.r_[0, label, 0]) != 0)
    scale = rate_hz / 100
    segments = tuple(
        Segment(f"g{label[a]}", i // 3 + 1, round(a * scale), round(b * scale))
        for i, (a, b) in enumerate(edges.reshape(-1, 2))
    )
    made = PairedRecording(
        participant=who,
        session=name,
        emg=emg.astype(np.float32),
        emg_rate_hz=rate_hz,
        emg_kind=kind,
        segments=segments,
        pose=glove.astype(np.float32),
        pose_rate_hz=pose_hz,
        pose_kind=PoseKind.GLOVE,
    )
    return replace(made, **changes)


def test_windows_lie_on_a_stride_inside_repetitions():
    w = cut_windows([recording()], CutConfig(stride_s=0.3))
    assert w.emg.shape == (3 * REPS * 4, 160, 5)
    assert w.pose.shape == (3 * REPS * 4, 160, 20)
    first = w.select((w.label == 1) & (w.repetition == 2))
    np.testing.assert_allclose(first.start_s, 10.5 + 4.5 + np.array([0, 0.3, 0.6, 0.9]))
    assert (w.gestures, w.participants, w.sessions) == (("g1", "g2", "g3"), ("p",), ("s",))


def test_the_content_of_a_window_is_the_signal_at_its_time():
    r = recording()
    w = cut_windows([r], CutConfig(emg_scale=None, pose="sensors"))
    for i in (0, 7, len(w) - 1):
        start = round(w.start_s[i] * 100)
        np.testing.assert_array_equal(w.emg[i], r.emg[start : start + 160])
    rest, moving = ~r.during(), r.during()
    centre = r.pose.astype(np.float64)[rest].mean(axis=0)
    spread = r.pose.astype(np.float64)[moving].std(axis=0) + 2
    np.testing.assert_allclose(w.pose[7], (r.pose[start_of(w, 7) : start_of(w, 7) + 160] - centre) / spread, atol=1e-5)


def start_of(w, i):
    return round(w.start_s[i] * 100)


def test_scale_and_glove_are_those_of_the_product():
    r = recording()
    w = cut_windows([r], CutConfig(), hidden=("g3",))
    open_ = ~r.during(("g3",))
    scale = fit_wearer_scale(r.emg[open_])
    joints = glove_to_joints(r.pose, fit_glove_calibration(r.pose, ~r.during(), use=open_))
    start = start_of(w, 3)
    np.testing.assert_array_equal(w.emg[3], scale.apply(r.emg[start : start + 160]))
    np.testing.assert_allclose(w.pose[3], joints[start : start + 160], atol=1e-6)


@pytest.mark.parametrize("pose", ["joints", "sensors"])
@pytest.mark.parametrize(
    ("kind", "rate_hz", "emg", "out_hz"),
    [
        (EmgKind.ENVELOPE, 100.0, "envelope", 100.0),
        (EmgKind.ENVELOPE, 200.0, "envelope", 100.0),
        (EmgKind.RAW, 1000.0, "envelope", 100.0),
        (EmgKind.RAW, 1000.0, "waveform", 500.0),
    ],
)
def test_samples_of_hidden_gestures_reach_no_normaliser(kind, rate_hz, emg, out_hz, pose):
    config = CutConfig(emg=emg, rate_hz=out_hz, pose=pose)
    was = recording(kind=kind, rate_hz=rate_hz)
    secret = was.during(("g2",))
    at_pose = secret[np.minimum((np.arange(len(was.pose)) * rate_hz / 100).astype(int), len(secret) - 1)]
    now = replace(
        was,
        emg=np.where(secret[:, None], was.emg * 50 + 7, was.emg).astype(np.float32),
        pose=np.where(at_pose[:, None], was.pose * 3 - 500, was.pose).astype(np.float32),
    )
    buffer = [s if s.gesture != "g2" or s.repetition > 1 else replace(s, repetition=0) for s in was.segments]
    for a, b in ((was, now), (replace(was, segments=tuple(buffer)), replace(now, segments=tuple(buffer)))):
        before, after = (cut_windows([r], config, hidden=("g2",), gestures=("g1", "g2", "g3")) for r in (a, b))
        assert len(before) == len(after)
        ungiven = before.label == 1
        if kind is EmgKind.ENVELOPE:
            np.testing.assert_array_equal(before.emg[~ungiven], after.emg[~ungiven])
        else:  # filters remember what came before a movement, but nothing that was fitted changed
            late = slice(round(0.5 * out_hz), None)
            np.testing.assert_allclose(before.emg[~ungiven][:, late], after.emg[~ungiven][:, late], atol=0.02)
        np.testing.assert_array_equal(before.pose[~ungiven], after.pose[~ungiven])
        assert np.abs(before.pose[ungiven] - after.pose[ungiven]).max() > 1
    shown = cut_windows([now], config, gestures=("g1", "g2", "g3"))
    assert np.abs(shown.emg[shown.label != 1] - after.emg[~ungiven]).max() > 0.1, "unhidden, they do matter"
    assert np.abs(shown.pose[shown.label != 1] - after.pose[~ungiven]).max() > 0.1


def test_the_fitted_scale_itself_ignores_hidden_raw_samples():
    from embridge_cloud.datasets.features import fit_wearer, prepare

    config = CutConfig()
    was = recording(kind=EmgKind.RAW, rate_hz=1000.0)
    now = replace(was, emg=np.where(was.during(("g2",))[:, None], was.emg * 90, was.emg).astype(np.float32))
    scales = [fit_wearer([prepare(r, config, frozenset({"g2"}))], config) for r in (was, now)]
    assert scales[0] == scales[1]
    assert fit_wearer([prepare(now, config, frozenset())], config) != scales[0]


def test_a_waveform_is_scaled_about_zero():
    r = recording(kind=EmgKind.RAW, rate_hz=1000.0)
    w = cut_windows([replace(r, emg=r.emg * np.float32(300))], CutConfig(emg="waveform", rate_hz=500.0))
    assert np.abs(w.emg.mean(axis=(0, 1))).max() < 0.02
    assert 0.5 < np.quantile(np.abs(w.emg), 0.97) < 2


def test_raw_features_are_those_of_the_front_end():
    r = recording(kind=EmgKind.RAW, rate_hz=1000.0)
    config = CutConfig(emg_scale=None, pose=None)
    w = cut_windows([r], config)
    spec = StreamSpec(
        name="emg", modality=Modality.EMG, channels=tuple("abcde"), rate_hz=1000.0, dtype=SampleType.FLOAT32
    )
    features = FrontEnd(config.front_end(r), spec).process(r.emg)
    np.testing.assert_array_equal(w.emg[5], features[start_of(w, 5) : start_of(w, 5) + 160])
    assert w.pose is None


def test_unfiltered_raw_samples_pass_untouched():
    r = recording(kind=EmgKind.RAW, rate_hz=2000.0, pose_hz=2000.0)
    config = CutConfig(
        window_s=2.0, emg="waveform", rate_hz=2000.0, highpass_hz=None, lowpass_hz=None, notch_hz=(), emg_scale=None
    )
    w = cut_windows([r], config)
    assert (w.emg.shape[1:], w.pose.shape[1:]) == ((4000, 5), (200, 20))
    start = round(w.start_s[2] * 2000)
    np.testing.assert_array_equal(w.emg[2], r.emg[start : start + 4000])


@pytest.mark.parametrize("pose_hz", [25.0, 100.0, 1000.0])
def test_pose_of_any_rate_meets_the_emg_at_its_time(pose_hz):
    r = recording(pose_hz=pose_hz)
    w = cut_windows([r], CutConfig(pose="sensors", stride_s=0.1))
    level = w.pose[:, :, -1].mean(axis=1)
    means = [level[w.label == g].mean() for g in range(3)]
    assert np.diff(means).min() > 0.5
    assert max(level[w.label == g].std() for g in range(3)) < 0.1


def test_windows_over_a_missing_pose_are_left_out():
    r = recording(pose_hz=1000.0)
    valid = np.ones(len(r.pose), bool)
    valid[5001] = False  # between two samples of the 100 Hz grid
    whole, rest = (cut_windows([replace(r, pose_valid=v)], CutConfig(stride_s=0.1)) for v in (None, valid))
    over = (whole.start_s <= 5.0) & (whole.start_s + 1.6 > 5.0)
    assert over.any()
    np.testing.assert_array_equal(rest.start_s, whole.start_s[~over])


def test_recordings_of_one_donning_share_their_fits():
    a, b = recording(seed=1, name="a"), recording(seed=2, name="b")
    loud = replace(b, emg=b.emg * 10)
    together = cut_windows([a, loud])
    apart = cut_windows([replace(a, donning="1"), replace(loud, donning="2")])
    other = cut_windows([a, replace(loud, participant="q")])
    loudness = [np.quantile(w.emg[w.session == 0], 0.9) for w in (together, apart, other)]
    assert loudness[0] < 0.3 * loudness[1]
    assert loudness[1] == loudness[2]
    assert other.participants == ("p", "q")


def test_recordings_without_a_common_fit_are_cut_one_at_a_time():
    held = []

    def stream():
        for i in range(3):
            held.append(i)
            yield replace(recording(name=str(i)), pose_kind=PoseKind.JOINTS, pose=np.ones((4200, 20), np.float32))

    config = CutConfig(emg_scale=None)
    parts = cut_each(stream(), config)
    next(parts)
    assert held == [0, 1], "one ahead, to see where the group ends"
    assert len(list(parts)) == 2


def test_a_recording_kept_out_of_calibration_is_cut_with_the_others_fit():
    a, b = recording(name="a"), recording(name="b", calibration=False)
    loud = replace(b, emg=b.emg * 100, pose=b.pose * 5)
    assert cut_windows([a, loud]).emg[0].tolist() == cut_windows([a]).emg[0].tolist()


def test_only_gestures_asked_for_in_their_order():
    w = cut_windows([recording()], gestures=("g3", "g1"))
    assert w.gestures == ("g3", "g1")
    assert w.present("gestures") == {"g1", "g3"}


@pytest.mark.parametrize(
    ("made", "config", "hidden", "error", "says"),
    [
        (lambda: recording(pose=None, pose_rate_hz=0.0), CutConfig(), (), DataError, "no pose"),
        (recording, CutConfig(window_s=9.0), (), DataError, "long enough"),
        (recording, CutConfig(pose="sensors"), ("g1", "g2", "g3"), DataError, "measure no glove"),
        (lambda: recording(rests=False), CutConfig(), (), DataError, "calibrate a glove"),
        (lambda: recording(pose_kind=PoseKind.JOINTS), CutConfig(), (), DataError, "20 joint angles"),
        (
            lambda: recording(pose_kind=PoseKind.JOINTS, pose=np.ones((4200, 20), np.float32)),
            CutConfig(pose="sensors"),
            (),
            ConfigError,
            "not sensors",
        ),
    ],
)
def test_what_cannot_be_cut_says_why(made, config, hidden, error, says):
    with pytest.raises(error, match=says):
        cut_windows([made()], config, hidden=hidden)


def test_a_configuration_without_a_sample_is_refused():
    for wrong in ({"window_s": 0.001}, {"rate_hz": 0.0}, {"stride_s": -1.0}, {"settle_s": -1.0}):
        with pytest.raises(ConfigError):
            CutConfig(**wrong)


def test_a_segment_outside_the_recording_is_refused():
    with pytest.raises(DataError) as caught:
        recording(segments=(Segment("g", 1, 0, 10**6),))
    assert caught.value.reason is Reason.WRONG_SHAPE


def test_a_split_selects_windows():
    w = cut_windows([recording(name="a"), recording(name="b", who="q")])
    assert set(Split("x", repetitions=frozenset({2})).of(w).repetition) == {2}
    assert Split("x", sessions=frozenset({"b"})).of(w).present("participants") == {"q"}
    assert len(Split("x", participants=frozenset({"p"}), sessions=frozenset({"b"})).of(w)) == 0
    assert len(Split("all").of(w)) == len(w)


@pytest.mark.real_data
def test_on_real_recordings_hidden_gestures_change_nothing(data_dir):
    dataset = open_dataset(f"ninapro:{data_dir / 'ninapro_db1'}")
    hidden = dataset.gestures()[2:6]
    was = list(all_recordings(dataset, dataset.participants()[:2]))
    now = [replace(r, emg=np.where(r.during(hidden)[:, None], 9, r.emg).astype(np.float32)) for r in was]
    kept = [g for g in dataset.gestures() if g not in hidden]
    before, after = (cut_windows(rs, hidden=hidden, gestures=kept) for rs in (was, now))
    assert before.digest() == after.digest()
    assert cut_windows(now, gestures=kept).digest() != after.digest()
