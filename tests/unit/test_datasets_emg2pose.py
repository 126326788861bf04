"""emg2pose: schema, failed poses, metadata and splits, stages, hands, and files that are not what they should be."""

from __future__ import annotations

import csv
import shutil

import h5py
import numpy as np
import pytest

from embridge_cloud.datasets.base import EmgKind, PoseKind, all_recordings
from embridge_cloud.datasets.emg2pose_files import (
    FAITHFUL_SEEN,
    FAITHFUL_UNSEEN,
    METADATA,
    STAGES,
    read_metadata,
    read_take,
    stage_of,
)
from embridge_cloud.datasets.registry import open_dataset
from embridge_cloud.datasets.windows import CutConfig, cut_windows
from embridge_shared.errors import ConfigError, DataError, OperatorError, Reason
from support.public_sets import write_emg2pose

FAITHFUL = CutConfig(
    window_s=2.0,
    stride_s=1.0,
    rate_hz=2000.0,
    emg="waveform",
    highpass_hz=None,
    lowpass_hz=None,
    notch_hz=(),
    emg_scale=None,
)
ONE = {"users": ("train0",), "stages": FAITHFUL_SEEN[:2], "sides": ("left",)}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("emg2pose")
    write_emg2pose(folder, users=("test0", "train0", "train1", "val0"), seconds=5.0, takes=2)
    return folder


def test_it_is_recognised_and_described(world):
    dataset = open_dataset(str(world))
    assert dataset.name == "emg2pose"
    assert dataset.participants() == ("test0", "train0", "train1", "val0")
    assert dataset.gestures() == (*FAITHFUL_SEEN, *FAITHFUL_UNSEEN)
    assert dataset.held_out() == FAITHFUL_UNSEEN
    assert (dataset.facts.emg_kind, dataset.facts.pose_kind) == (EmgKind.RAW, PoseKind.JOINTS)
    assert "NC" in dataset.facts.licence
    assert {t.name: (t.seen, t.unseen) for t in dataset.tasks()} == {
        "faithful": (FAITHFUL_SEEN, FAITHFUL_UNSEEN),
        "all": (FAITHFUL_SEEN, FAITHFUL_UNSEEN),
    }


def test_a_recording_is_the_file(world):
    dataset = open_dataset(f"emg2pose:{world}")
    recording = next(r for r in dataset.recordings("train1") if r.side == "right")
    with h5py.File(world / f"{recording.session}.hdf5") as file:
        rows = file["emg2pose"]["timeseries"][:]
    np.testing.assert_array_equal(recording.emg, rows["emg"])
    np.testing.assert_array_equal(recording.pose, rows["joint_angles"].astype(np.float32))
    assert recording.emg_rate_hz == recording.pose_rate_hz == 2000.0
    assert recording.stage.endswith("_both")
    assert not recording.rests


def test_failed_poses_end_a_block_and_no_window_touches_one(world):
    dataset = open_dataset(f"emg2pose:{world}")
    recording = next(dataset.recordings("train0"))
    assert [(s.start, s.stop, s.repetition) for s in recording.segments] == [
        (0, 4000, 1), (4000, 4400, 0), (4400, 10000, 1)
    ]  # fmt: skip
    assert np.flatnonzero(~recording.pose_valid).tolist() == list(range(4000, 4400))
    w = cut_windows([recording], FAITHFUL)
    np.testing.assert_allclose(w.start_s, [0.0, 2.2], err_msg="a window starts where a valid block does")
    assert w.emg.shape[1:] == (4000, 16)
    assert w.pose.shape[1:] == (200, 20)
    assert not (w.pose == 0).all(axis=2).any()
    np.testing.assert_array_equal(w.emg[1], recording.emg[4400:8400])
    np.testing.assert_array_equal(w.pose[1], recording.pose[4400:8400:20])


def test_almost_zero_is_a_failure_and_a_partly_zero_pose_is_none(tmp_path):
    (path, _) = write_emg2pose(tmp_path, **ONE, failures=())
    with h5py.File(path, "a") as file:
        rows = file["emg2pose"]["timeseries"][:]
        rows["joint_angles"][10] = 1e-12
        rows["joint_angles"][20, 1:] = 0
        rows["joint_angles"][30] = np.nan
        del file["emg2pose"]["timeseries"]
        file["emg2pose"].create_dataset("timeseries", data=rows)
    assert np.flatnonzero(~read_take(path).valid).tolist() == [10, 30]


@pytest.mark.parametrize("width", ["<f4", "<f8"])
def test_angles_of_either_width(tmp_path, width):
    (path, _) = write_emg2pose(tmp_path, **ONE, angles=width)
    take = read_take(path)
    assert take.angles.dtype == np.float32
    assert np.abs(take.angles).max() > 0.1


def test_splits_are_the_metadata_s_by_what_is_new(world):
    dataset = open_dataset(f"emg2pose:{world}")
    w = cut_windows(all_recordings(dataset), FAITHFUL)
    parts = {s.name: s.of(w) for s in dataset.splits()}
    assert set(parts) == {"train", "test/stage", "test/user", "test/user_stage", "val/user", "val/user_stage"}
    assert sum(map(len, parts.values())) == len(w)
    assert parts["train"].present("participants") == parts["test/stage"].present("participants") == {"train0", "train1"}
    assert parts["train"].present("gestures") == set(FAITHFUL_SEEN) == parts["test/user"].present("gestures")
    assert parts["test/user_stage"].present("gestures") == set(FAITHFUL_UNSEEN)
    assert parts["test/user_stage"].present("participants") == {"test0"}


def test_takes_of_a_stage_are_repetitions_and_both_hands_share_one(world):
    dataset = open_dataset(f"emg2pose:{world}")
    found = list(dataset.recordings("train0"))
    number = {(r.session.removesuffix(f"_{r.side}"), r.side): r.segments[0].repetition for r in found}
    takes = {session for session, _ in number}
    assert set(number.values()) == {1, 2}
    assert all(number[t, "left"] == number[t, "right"] for t in takes)
    assert [r.side for r in found] == ["left"] * 16 + ["right"] * 16, "one hand after the other: one band each"
    assert len({r.donning for r in found}) == 2


def test_a_hand_that_was_not_asked_to_move_gives_no_window(tmp_path):
    write_emg2pose(tmp_path, **ONE | {"sides": ("left", "right")}, still=("right",))
    w = cut_windows(all_recordings(open_dataset(f"emg2pose:{tmp_path}")), FAITHFUL)
    assert all(session.endswith("_left") for session in w.present("sessions"))


def test_a_wearer_s_scale_of_a_hidden_stage_comes_from_the_others(world):
    dataset = open_dataset(f"emg2pose:{world}")
    w = cut_windows(dataset.recordings("test0"), CutConfig(), hidden=FAITHFUL_UNSEEN)
    assert w.present("gestures") == {*FAITHFUL_SEEN, *FAITHFUL_UNSEEN}
    assert 0.1 < np.abs(w.emg).mean() < 2


def test_stages_are_matched_by_their_beginning_the_longest_first():
    assert len(STAGES) == len(set(STAGES)) == 29
    assert stage_of("IndividualFingerPointingSnap_both") == "IndividualFingerPointingSnap"
    assert stage_of("FingerWigglingSpreading_left") == "FingerWigglingSpreading"
    long = "HandOverHandCountingUpDownFingerWigglingSpreading"
    assert stage_of(f"{long}_both") == long
    assert stage_of("SomethingNew_both") == "SomethingNew_both"
    assert set(FAITHFUL_SEEN) | set(FAITHFUL_UNSEEN) < set(STAGES)
    assert not set(FAITHFUL_SEEN) & set(FAITHFUL_UNSEEN)


def test_a_part_of_the_release_is_a_data_set(tmp_path):
    paths = write_emg2pose(tmp_path, **ONE)
    paths[0].unlink()
    dataset = open_dataset(f"emg2pose:{tmp_path}")
    assert [e.filename for e in dataset.entries] == [paths[1].stem]
    assert dataset.tasks() == ()


def test_the_published_comparison_is_a_data_set_of_eight_stages(tmp_path):
    write_emg2pose(tmp_path, **ONE | {"stages": (FAITHFUL_SEEN[0], FAITHFUL_UNSEEN[0], "CoffeePanicPete")})
    assert len(open_dataset(f"emg2pose:{tmp_path}").gestures()) == 3
    dataset = open_dataset(f"emg2pose-faithful:{tmp_path}")
    assert dataset.name == "emg2pose-faithful"
    assert dataset.gestures() == (FAITHFUL_SEEN[0], FAITHFUL_UNSEEN[0])
    for path in tmp_path.glob("*recording-[01]*"):
        path.unlink()
    with pytest.raises(DataError, match="none of the files"):
        open_dataset(f"emg2pose-faithful:{tmp_path}")


def test_without_metadata_files_speak_for_themselves(tmp_path):
    write_emg2pose(tmp_path, **ONE, metadata=False)
    dataset = open_dataset(f"emg2pose:{tmp_path}")
    assert dataset.participants() == ("train0",)
    assert dataset.splits() == ()
    assert dataset.held_out() == ()
    assert len(list(dataset.recordings("train0"))) == 2


def change(path, **values):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0] |= values
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


@pytest.mark.parametrize("value", ["True", "true", "1", "both", "left"])
def test_moving_hands_are_flags_or_hands(tmp_path, value):
    write_emg2pose(tmp_path, **ONE)
    change(tmp_path / METADATA, moving_hand=value)
    assert read_metadata(tmp_path / METADATA)[0].moving
    change(tmp_path / METADATA, moving_hand="right" if value in ("both", "left") else "False")
    assert not read_metadata(tmp_path / METADATA)[0].moving


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"split": "dev"}, "line 2: split 'dev'"),
        ({"split": "test", "generalization": ""}, "generalization ''"),
        ({"held_out_stage": "maybe"}, "neither true nor false"),
    ],
)
def test_damaged_metadata_name_the_line(tmp_path, values, says):
    write_emg2pose(tmp_path, **ONE)
    change(tmp_path / METADATA, **values)
    with pytest.raises(DataError, match=says) as caught:
        open_dataset(f"emg2pose:{tmp_path}")
    assert caught.value.reason is Reason.MALFORMED


def test_metadata_of_another_table_are_refused(tmp_path):
    write_emg2pose(tmp_path, **ONE)
    (tmp_path / METADATA).write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="lacks filename, user"):
        open_dataset(f"emg2pose:{tmp_path}")
    with pytest.raises(DataError, match="there is no"):
        read_metadata(tmp_path / "nowhere.csv")


def damage(path, kind):
    if kind == "short":
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "foreign":
        path.write_bytes(b"no HDF5 at all")
    else:
        with h5py.File(path, "a") as file:
            group = file["emg2pose"]
            rows = group["timeseries"][:]
            del group["timeseries"]
            if kind == "channels":
                kinds = [("time", "<f8"), ("joint_angles", "<f8", (20,)), ("emg", "<f4", (8,))]
                rows = np.zeros(len(rows), np.dtype(kinds))
            elif kind == "joints":
                rows = np.zeros(
                    len(rows), np.dtype([("time", "<f8"), ("joint_angles", "<f8", (22,)), ("emg", "<f4", (16,))])
                )
            elif kind == "plain":
                rows = np.zeros((50, 37))
            elif kind == "nan":
                rows["emg"][7, 3] = np.nan
            elif kind == "rate":
                group.attrs["sample_rate"] = 1000.0
            if kind != "missing":
                group.create_dataset("timeseries", data=rows)


@pytest.mark.parametrize("kind", ["short", "foreign", "missing", "channels", "joints", "plain", "nan", "rate"])
def test_files_that_cannot_be_used_say_what_to_do(tmp_path, kind):
    (path, _) = write_emg2pose(tmp_path, **ONE)
    damage(path, kind)
    with pytest.raises(DataError, match=path.stem) as caught:
        list(open_dataset(f"emg2pose:{tmp_path}").recordings("train0"))
    assert caught.value.hint


def test_what_is_not_there_is_named(tmp_path, world):
    with pytest.raises(DataError, match=r"no \.hdf5"):
        open_dataset(f"emg2pose:{tmp_path}")
    with pytest.raises(OperatorError, match="no user 'nobody'"):
        next(open_dataset(f"emg2pose:{world}").recordings("nobody"))
    with pytest.raises((ConfigError, OperatorError), match="emg2pose-mini"):
        open_dataset(f"emg2pose-mini:{world}")


def test_the_planted_relation_can_be_learnt(world):
    """A linear map from the EMG's level to the mean pose tells unseen stages of new users apart."""
    dataset = open_dataset(f"emg2pose:{world}")
    config = CutConfig(window_s=1.0, stride_s=0.5)
    w = cut_windows(all_recordings(dataset), config, hidden=FAITHFUL_UNSEEN, gestures=dataset.gestures())
    split = {s.name: s.of(w) for s in dataset.splits()}
    train, test, gallery = split["train"], split["test/user_stage"], split["test/stage"]
    x, y = (np.c_[s.emg.mean(axis=1), np.ones(len(s))] for s in (train, test))
    weights = np.linalg.solve(x.T @ x + 0.1 * np.eye(17), x.T @ train.pose.mean(axis=1))
    means = np.stack([gallery.pose[gallery.label == g].mean(axis=(0, 1)) for g in range(4, 8)])
    guess = ((y @ weights)[:, None] - means).__pow__(2).sum(axis=2).argmin(axis=1) + 4
    assert (guess == test.label).mean() > 0.6


@pytest.mark.real_data
def test_the_published_fixture_has_the_schema(data_dir, tmp_path):
    source = data_dir / "emg2pose_fixture" / "test_data.hdf5"
    take = read_take(source)
    assert (take.emg.shape, take.angles.shape, take.valid.all()) == ((100, 16), (100, 20), True)
    shutil.copy(source, tmp_path)
    dataset = open_dataset(str(tmp_path))
    assert dataset.participants() == ("d387095792",)
    assert dataset.gestures() == ("IndividualFingerPointingSnap",)
    (recording,) = dataset.recordings("d387095792")
    assert (recording.side, recording.stage) == ("right", "IndividualFingerPointingSnap_both")
    written = tmp_path / "synthetic"
    (made, *_) = write_emg2pose(written, **ONE)
    with h5py.File(source) as theirs, h5py.File(made) as ours:
        assert ours["emg2pose"]["timeseries"].dtype == theirs["emg2pose"]["timeseries"].dtype
        assert set(ours["emg2pose"].attrs) == set(theirs["emg2pose"].attrs)
