from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from embridge_cloud.learn import leakage
from embridge_cloud.learn.config import EncoderConfig, LearnConfig, SignalConfig
from embridge_cloud.learn.data import Windows, batches, class_balanced, concatenate
from embridge_cloud.learn.leakage import PoseRegime
from embridge_cloud.learn.presets import load_config, preset, quick
from embridge_shared.errors import ConfigError, DataError, LeakageError, Reason
from support.learn_world import paired

WINDOW_S = 1.6


@pytest.fixture
def windows() -> Windows:
    return paired(windows=64)


def test_selection_keeps_vocabularies(windows: Windows) -> None:
    some = windows.of_gestures(["g1", "g3"]).of_participants(["p2"])
    assert some.present("gestures") == {"g1", "g3"}
    assert some.present("participants") == {"p2"}
    assert some.gestures == windows.gestures
    assert some.without_pose().pose is None
    assert some.without_emg().emg is None
    assert len(windows.select(np.zeros(64, bool))) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"emg": None, "pose": None},
        {"emg": np.zeros((64, 160), np.float32)},
        {"emg": np.zeros((63, 160, 6), np.float32)},
        {"emg": np.zeros((64, 160, 6))},
        {"pose": np.full((64, 160, 20), np.nan, np.float32)},
        {"label": np.full(64, 8)},
        {"participant": np.full(64, -1)},
        {"start_s": np.full(64, np.inf)},
        {"repetition": np.zeros(3, np.int64)},
        {"sessions": ("a", "a", "b", "c")},
    ],
)
def test_windows_that_do_not_fit_are_refused(windows: Windows, change: dict[str, object]) -> None:
    with pytest.raises(DataError):
        replace(windows, **change)


def test_joining_maps_vocabularies() -> None:
    one = paired(windows=16, people=2)
    two = replace(paired(windows=16, people=2, first_person=1), gestures=tuple(f"g{i + 4}" for i in range(8)))
    both = concatenate([one, two])
    assert both.participants == ("p0", "p1", "p2")
    assert len(both.gestures) == 12
    assert both.gestures[both.label[16]] == "g4"
    assert both.participants[both.participant[16]] == "p1"
    unlabelled = replace(one, label=np.full(16, -1))
    assert np.all(concatenate([one, unlabelled]).label[16:] == -1)
    assert concatenate([one, two.without_pose()]).pose is None
    with pytest.raises(DataError):
        concatenate([one, paired(windows=16, channels=5)])
    with pytest.raises(DataError):
        concatenate([])


def test_digest_follows_content(windows: Windows) -> None:
    assert windows.digest() == paired(windows=64).digest()
    moved = replace(windows, start_s=windows.start_s + 1)
    assert moved.digest() != windows.digest()
    assert windows.without_emg().digest() != windows.digest()


def test_batches_cover_everyone_once(windows: Windows) -> None:
    drawn = list(batches(windows, 16, np.random.default_rng(0)))
    assert sorted(np.concatenate(drawn)) == list(range(64))
    for rows in drawn:
        counts = np.bincount(windows.participant[rows], minlength=4)
        assert counts.min() >= 3
    again = list(batches(windows, 16, np.random.default_rng(0)))
    assert all(np.array_equal(a, b) for a, b in zip(drawn, again, strict=True))
    other = list(batches(windows, 16, np.random.default_rng(1)))
    assert not np.array_equal(drawn[0], other[0])


def test_near_duplicates_never_share_a_batch(windows: Windows) -> None:
    close = replace(windows, start_s=np.arange(64) * 0.5)
    drawn = list(batches(close, 16, np.random.default_rng(0), min_gap_s=4.0))
    assert drawn
    for rows in drawn:
        for s in np.unique(close.session[rows]):
            starts = np.sort(close.start_s[rows][close.session[rows] == s])
            assert np.all(np.diff(starts) >= 4.0)
    flat = np.concatenate(drawn)
    assert len(set(flat)) == len(flat)


def test_one_short_batch_is_better_than_none(windows: Windows) -> None:
    drawn = list(batches(windows.select(np.arange(5)), 64, np.random.default_rng(0)))
    assert [len(d) for d in drawn] == [5]
    drawn = list(batches(windows.select(np.arange(20)), 16, np.random.default_rng(0)))
    assert [len(d) for d in drawn] == [16]


def test_class_balance() -> None:
    label = np.array([0] * 10 + [1] * 4 + [-1] * 5)
    picked = class_balanced(label, np.random.default_rng(0))
    assert np.bincount(label[picked]).tolist() == [4, 4]
    assert np.bincount(label[class_balanced(label, np.random.default_rng(0), per_class=2)]).tolist() == [2, 2]
    with pytest.raises(DataError):
        class_balanced(np.full(3, -1), np.random.default_rng(0))


def test_presets_and_toml(tmp_path: Path) -> None:
    faithful = preset("faithful")
    assert (faithful.encoder.width, faithful.qformer.queries, faithful.loss.tau_init) == (256, 16, 0.02)
    assert faithful.emg.tokens == faithful.pose.tokens == 20
    assert preset("product").loss.select == "max"
    path = tmp_path / "learn.toml"
    path.write_text('preset = "quick"\nname = "mine"\n[loss.cascle]\nkeep = 3\n[align]\nsteps = 7\n')
    config = load_config(path)
    assert (config.name, config.loss.cascle.keep, config.align.steps) == ("mine", 3, 7)
    assert config.encoder == quick().encoder
    assert config.digest() != quick().digest()
    assert quick().digest() == quick().digest()
    assert msgspec.json.decode(msgspec.json.encode(config), type=LearnConfig) == config


@pytest.mark.parametrize(
    "text", ["[loss]\nalhpa = 1.0\n", 'preset = "none"\n', "[align]\nsteps = 'many'\n", "= 3", "[mae]\nratio = 0.5\n"]
)
def test_a_typo_in_toml_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "learn.toml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load_config(path)
    with pytest.raises(ConfigError) as missing:
        load_config(tmp_path / "absent.toml")
    assert missing.value.reason is Reason.NOT_FOUND


def test_impossible_shapes_are_refused() -> None:
    with pytest.raises(ConfigError):
        SignalConfig(window=100, patch=30)
    with pytest.raises(ConfigError):
        EncoderConfig(width=30, heads=4)
    with pytest.raises(ConfigError):
        LearnConfig(pose=SignalConfig(rate_hz=100.0, channels=20, window=100, patch=10))


def test_rule_participants_and_sessions() -> None:
    leakage.check_participants(["a"], ["b"])
    with pytest.raises(LeakageError, match="participants"):
        leakage.check_participants(["a", "b"], ["b"])
    leakage.check_sessions(["s"], ["t"])
    with pytest.raises(LeakageError, match="sessions"):
        leakage.check_sessions(["s"], ["s"])


def test_rule_windows_do_not_straddle_splits(windows: Windows) -> None:
    early, late = windows.select(windows.start_s < 60), windows.select(windows.start_s >= 60)
    leakage.check_overlap(early, late, WINDOW_S)
    with pytest.raises(LeakageError, match="overlap"):
        leakage.check_overlap(early, replace(late, start_s=late.start_s - 60 + 0.5), WINDOW_S)
    before = replace(early, start_s=early.start_s - 0.5)
    with pytest.raises(LeakageError, match="overlap"):
        leakage.check_overlap(early, before, WINDOW_S)


def test_rule_repetitions(windows: Windows) -> None:
    first, second = windows.select(windows.repetition == 0), windows.select(windows.repetition == 1)
    leakage.check_repetitions(first, second)
    with pytest.raises(LeakageError, match="repetition"):
        leakage.check_repetitions(first, windows)


def test_rule_gallery(windows: Windows) -> None:
    others = paired(windows=32, first_person=20).without_emg()
    tested = windows.without_pose()
    leakage.check_gallery(others, tested, WINDOW_S)
    with pytest.raises(LeakageError, match="carries EMG"):
        leakage.check_gallery(paired(windows=32, first_person=20), tested, WINDOW_S)
    with pytest.raises(LeakageError, match="own pose"):
        leakage.check_gallery(others, windows, WINDOW_S)
    with pytest.raises(LeakageError, match="overlap"):
        leakage.check_gallery(windows.without_emg(), tested, WINDOW_S)
    elsewhere = replace(windows.without_emg(), sessions=("w", "x", "y", "z"))
    with pytest.raises(LeakageError, match="participants"):
        leakage.check_gallery(elsewhere, tested, WINDOW_S)
    same_session = replace(windows.without_emg(), participants=("w", "x", "y", "z"), start_s=windows.start_s + 9e3)
    with pytest.raises(LeakageError, match="sessions"):
        leakage.check_gallery(same_session, tested, WINDOW_S)


def test_rule_unseen_emg(windows: Windows) -> None:
    leakage.check_unseen(windows, ["other"])
    leakage.check_unseen(windows.without_emg(), ["g1"])
    with pytest.raises(LeakageError, match="g1"):
        leakage.check_unseen(windows, ["g1"])


def test_rule_pose_regime() -> None:
    assert leakage.pose_regime(["a"], ["b"]) is PoseRegime.STRICT
    assert leakage.pose_regime(["a", "b"], ["b"]) is PoseRegime.POSE_ENROLLED
    with pytest.raises(LeakageError, match="pose-enrolled"):
        leakage.pose_regime(["a", "b"], ["b"], claimed=PoseRegime.STRICT)


def test_rule_statistics_belong_to_the_train_split() -> None:
    statistics = {"scale": np.ones(4, np.float32), "center": np.zeros(2, np.float32)}
    stored = leakage.statistics_digest(statistics)
    leakage.check_statistics(stored, dict(reversed(statistics.items())))
    with pytest.raises(LeakageError, match="statistics"):
        leakage.check_statistics(stored, statistics | {"scale": np.full(4, 1.001, np.float32)})
