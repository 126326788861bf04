"""NinaPro through one table: every base, its traps, and files that are not what they should be."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from embridge_cloud.datasets.base import EmgKind, PoseKind, all_recordings, pick_participants
from embridge_cloud.datasets.registry import open_dataset
from embridge_cloud.datasets.windows import CutConfig, cut_windows
from embridge_edge import recordings as edge_recordings
from embridge_shared import ninapro
from embridge_shared.errors import ConfigError, DataError, OperatorError, Reason
from embridge_shared.gestures import NINAPRO_DB1_E1
from embridge_shared.ninapro import BASES
from support.public_sets import write_ninapro

SMALL = {"subjects": (1, 10, 2), "repetitions": 2, "movements": 2, "hold_s": 1.0, "rest_s": 0.5}


@pytest.mark.parametrize("base", BASES)
def test_every_base_is_told_by_its_contents(tmp_path, base):
    write_ninapro(tmp_path, base=base, **SMALL)
    dataset = open_dataset(f"ninapro:{tmp_path}")
    facts = BASES[base]
    assert dataset.name == f"ninapro-{base}"
    assert dataset.participants() == tuple(f"{base}-s{n}" for n in (1, 2, 10)), "by number, not by text"
    recording = next(dataset.recordings(f"{base}-s10"))
    assert recording.emg.shape[1] == facts.channels == dataset.facts.channels
    assert recording.emg_rate_hz == facts.rate_hz == dataset.facts.emg_rate_hz
    assert recording.emg_kind is (EmgKind.ENVELOPE if base == "db1" else EmgKind.RAW)
    assert (recording.pose_kind, recording.pose.shape[1]) == (PoseKind.GLOVE, facts.glove[-1])
    assert {s.gesture for s in recording.segments} == set(facts.exercises[1].gestures[:2])
    assert [s.repetition for s in recording.segments] == [1, 2, 1, 2]


@pytest.mark.parametrize("glove", [18, 22])
def test_db7_comes_with_either_glove(tmp_path, glove):
    write_ninapro(tmp_path, base="db7", glove=glove, **SMALL | {"subjects": (1,)})
    dataset = open_dataset(f"ninapro:{tmp_path}")
    config = CutConfig(window_s=0.5, stride_s=0.5)
    assert cut_windows(dataset.recordings("db7-s1"), config).pose.shape[1:] == (50, 20)
    sensors = CutConfig(window_s=0.5, stride_s=0.5, pose="sensors")
    assert cut_windows(dataset.recordings("db7-s1"), sensors).pose.shape[1:] == (50, glove)


def test_a_glove_without_fingertip_sensors_leaves_those_joints_at_rest(tmp_path):
    from embridge_shared.hand import JOINTS, REST

    write_ninapro(tmp_path, base="db8", **SMALL)
    dataset = open_dataset(f"ninapro:{tmp_path}")
    pose = cut_windows(dataset.recordings("db8-s1"), CutConfig(window_s=0.5)).pose
    dip = [i for i, name in enumerate(JOINTS) if name.endswith("_dip_fe")]
    np.testing.assert_allclose(pose[..., dip], np.broadcast_to(REST[dip], pose[..., dip].shape), atol=1e-6)
    assert pose[..., JOINTS.index("index_pip_fe")].std() > 0.1


def test_bases_that_look_alike_must_be_named(tmp_path):
    write_ninapro(tmp_path, base="db2", extra=False, **SMALL)
    with pytest.raises(DataError, match="db2 or db7") as caught:
        open_dataset(f"ninapro:{tmp_path}")
    assert f"ninapro-db7:{tmp_path}" in caught.value.hint
    assert open_dataset(f"ninapro-db7:{tmp_path}").name == "ninapro-db7"
    assert open_dataset(f"ninapro-db2:{tmp_path}").name == "ninapro-db2"
    with pytest.raises(OperatorError, match="ninapro-db3"):
        open_dataset(f"ninapro-db3:{tmp_path}")


def test_two_bases_in_one_folder_are_refused(tmp_path):
    write_ninapro(tmp_path / "a", base="db1", **SMALL)
    write_ninapro(tmp_path / "b", base="db5", **SMALL | {"subjects": (4,)})
    with pytest.raises(DataError, match="fit no NinaPro base together"):
        open_dataset(f"ninapro:{tmp_path}")
    with pytest.raises(DataError, match="electrodes"):
        list(all_recordings(open_dataset(f"ninapro-db1:{tmp_path}")))


def test_names_in_both_orders_and_folders_of_their_own(tmp_path):
    write_ninapro(tmp_path / "s1", subjects=(1,), repetitions=1, movements=1, swapped=True)
    write_ninapro(tmp_path / "s2", subjects=(2,), repetitions=1, movements=1, swapped=False)
    assert open_dataset(f"ninapro:{tmp_path}").participants() == ("db1-s1", "db1-s2")
    assert ninapro.parse_name("S3_E2_A1") == ninapro.parse_name("s3_a1_e2") == ninapro.FileName(3, 2, 1)
    assert ninapro.parse_name("S3_A1") is None


def test_one_recording_twice_is_refused(tmp_path):
    write_ninapro(tmp_path / "a", subjects=(1,), repetitions=1, movements=1)
    write_ninapro(tmp_path / "b", subjects=(1,), repetitions=1, movements=1, swapped=False)
    with pytest.raises(DataError, match="same recording"):
        open_dataset(f"ninapro:{tmp_path}")


def test_all_exercises_of_a_participant_are_one_wearing(tmp_path):
    write_ninapro(tmp_path, base="db5", exercises=(1, 2, 3), **SMALL | {"subjects": (1,)})
    dataset = open_dataset(f"ninapro:{tmp_path}")
    found = list(dataset.recordings("db5-s1"))
    assert [r.stage for r in found] == ["exercise A", "exercise B", "exercise C"]
    assert len({(r.participant, r.donning) for r in found}) == 1
    assert len({r.session for r in found}) == 3
    assert dataset.gestures()[:12] == tuple(NINAPRO_DB1_E1.values())
    assert (len(dataset.gestures()), dataset.gestures()[12], dataset.gestures()[-1]) == (52, "b01_thumb_up", "c23_cut")


def test_movements_may_be_numbered_on_from_exercise_to_exercise():
    names = BASES["db2"].names
    assert names(2, np.array([0, 1, 23])) == {1: "c01_large_diameter", 23: "c23_cut"}
    assert names(2, np.array([0, 18, 40])) == {18: "c01_large_diameter", 40: "c23_cut"}
    assert names(2, np.array([1, 18]))[18] == "c18_parallel_extension"
    assert names(3, np.array([41, 49]))[49] == names(3, np.array([1, 9]))[9] == "d09_force"
    assert names(1, np.zeros(3)) == {}
    for exercise, label in ((1, 18), (2, 41), (4, 1)):
        with pytest.raises(DataError, match="no movement"):
            names(exercise, np.array([0, label]))


def test_buffers_belong_to_no_trial_and_are_no_rest(tmp_path):
    write_ninapro(tmp_path, subjects=(1,), repetitions=2, movements=1, buffer=40)
    recording = next(open_dataset(f"ninapro:{tmp_path}").recordings("db1-s1"))
    assert [s.repetition for s in recording.segments] == [1, 0, 2, 0]
    assert recording.segments[1].stop - recording.segments[1].start == 40
    w = cut_windows([recording], CutConfig(window_s=0.3, stride_s=0.1))
    ends = np.array([s.stop for s in recording.segments if s.repetition])[w.repetition - 1]
    assert (np.round(w.start_s * 100) + 30 <= ends).all()


def test_arrays_of_different_length_are_cut_to_the_shortest(tmp_path):
    (path,) = write_ninapro(tmp_path, subjects=(1,), repetitions=1, movements=1, short=30)
    full = loadmat(path)["emg"].shape[0]
    recording = next(open_dataset(f"ninapro:{tmp_path}").recordings("db1-s1"))
    assert len(recording.emg) == len(recording.pose) == full - 30


def test_repetitions_of_a_later_acquisition_count_on_and_the_third_is_the_test(tmp_path):
    write_ninapro(tmp_path, base="db8", acquisitions=(1, 2, 3), **SMALL | {"subjects": (1,)})
    dataset = open_dataset(f"ninapro:{tmp_path}")
    w = cut_windows(dataset.recordings("db8-s1"), CutConfig(window_s=0.5, stride_s=0.5))
    assert set(w.repetition) == {1, 2, 11, 12, 21, 22}
    train, test = dataset.splits()
    assert set(train.of(w).repetition) == {1, 2, 11, 12}
    assert set(test.of(w).repetition) == {21, 22}
    assert dataset.facts.band_limit_hz == 555
    assert any("other hand" in note for note in dataset.facts.notes)


@pytest.mark.parametrize("base", ["db1", "db2", "db5", "db7"])
def test_the_literature_splits_repetitions(tmp_path, base):
    write_ninapro(tmp_path, base=base, **SMALL)
    train, test = open_dataset(f"ninapro:{tmp_path}").splits()
    assert not train.repetitions & test.repetitions
    assert train.repetitions | test.repetitions == set(range(1, BASES[base].repetitions + 1))


def test_published_classes_of_db7(tmp_path):
    write_ninapro(tmp_path, base="db7", exercises=(1, 2), **SMALL | {"subjects": (1,)})
    tasks = {t.name: t.seen for t in open_dataset(f"ninapro:{tmp_path}").tasks()}
    assert set(tasks) == {"b3", "b4", "c3", "c4"}
    assert [g[:3] for g in tasks["b4"]] == ["b01", "b05", "b10", "b15"]


def test_an_envelope_has_no_waveform(tmp_path):
    write_ninapro(tmp_path, subjects=(1,), repetitions=1, movements=1)
    with pytest.raises(ConfigError, match="no waveform"):
        cut_windows(all_recordings(open_dataset(f"ninapro:{tmp_path}")), CutConfig(emg="waveform"))


def test_participants_are_picked_by_number_or_name(tmp_path):
    write_ninapro(tmp_path, **SMALL)
    dataset = open_dataset(f"ninapro:{tmp_path}")
    assert pick_participants(dataset, ("10", " db1-s1")) == ("db1-s10", "db1-s1")
    with pytest.raises(OperatorError, match="no participant '0'"):
        pick_participants(dataset, ("0",))
    with pytest.raises(OperatorError):
        next(dataset.recordings("db1-s99"))


def ruined(path, kind):
    mat = {k: v for k, v in loadmat(path).items() if not k.startswith("__")}
    if kind == "short":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "foreign":
        path.write_bytes(b"not a file of theirs" * 100)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "hdf5":
        path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\0" * 64)
    elif kind == "nan":
        mat["emg"][5, 2] = np.nan
        savemat(path, mat)
    else:
        del mat[kind]
        savemat(path, mat)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("short", "damaged"),
        ("foreign", "damaged"),
        ("empty", "damaged"),
        ("hdf5", "7.3"),
        ("nan", "finite"),
        ("restimulus", "lacks restimulus"),
        ("emg", "lacks emg"),
    ],
)
def test_files_that_cannot_be_used_say_what_to_do(tmp_path, kind, says):
    paths = write_ninapro(tmp_path, subjects=(1, 2), repetitions=1, movements=1)
    ruined(paths[1], kind)
    dataset = open_dataset(f"ninapro-db1:{tmp_path}")
    assert next(dataset.recordings("db1-s1"))
    with pytest.raises(DataError, match=says) as caught:
        next(dataset.recordings("db1-s2"))
    assert caught.value.hint


def test_a_broken_glove_sample_leaves_its_windows_out(tmp_path):
    (path,) = write_ninapro(tmp_path, subjects=(1,), repetitions=2, movements=1)
    config = CutConfig(window_s=0.5, stride_s=0.1)
    whole = cut_windows(open_dataset(f"ninapro:{tmp_path}").recordings("db1-s1"), config)
    mat = {k: v for k, v in loadmat(path).items() if not k.startswith("__")}
    at = int(np.flatnonzero(mat["restimulus"].ravel() > 0)[100])
    mat["glove"][at, 3] = np.nan
    savemat(path, mat)
    rest = cut_windows(open_dataset(f"ninapro:{tmp_path}").recordings("db1-s1"), config)
    over = (np.round(whole.start_s * 100) <= at) & (at < np.round(whole.start_s * 100) + 50)
    assert over.sum() == 5
    np.testing.assert_array_equal(rest.start_s, whole.start_s[~over])


def test_an_empty_folder_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"no \.mat file") as caught:
        open_dataset(f"ninapro:{tmp_path}")
    assert caught.value.reason is Reason.NOT_FOUND
    assert caught.value.hint


def test_the_edge_replays_what_the_cloud_learns_from(tmp_path):
    for base in ("db1", "db2", "db5"):
        (path,) = write_ninapro(tmp_path / base, base=base, **SMALL | {"subjects": (3,)})
        replayed = edge_recordings.load(path)
        learnt = next(open_dataset(f"ninapro:{tmp_path / base}").recordings(f"{base}-s3"))
        np.testing.assert_array_equal(replayed.emg_samples, learnt.emg)
        np.testing.assert_array_equal(replayed.pose_samples, learnt.pose)
        done = [a for a in replayed.annotations if type(a).__name__ == "Repetition"]
        assert [(a.gesture, a.repetition) for a in done] == [(s.gesture, s.repetition) for s in learnt.segments]
        assert [round(a.start_ns * 1e-9 * replayed.emg.rate_hz) for a in done] == [s.start for s in learnt.segments]
        assert replayed.emg.device == ("ninapro-envelope" if base == "db1" else "ninapro-raw")


@pytest.mark.real_data
def test_every_participant_of_the_recordings_in_hand(data_dir):
    dataset = open_dataset(f"ninapro:{data_dir / 'ninapro_db1'}")
    assert dataset.name == "ninapro-db1"
    assert dataset.gestures() == tuple(NINAPRO_DB1_E1.values())
    started = time.process_time()
    w = cut_windows(
        all_recordings(dataset), CutConfig(pose="sensors"), hidden=dataset.gestures()[:4], gestures=dataset.gestures()
    )
    spent_s = time.process_time() - started
    assert len(w.participants) == len(dataset.participants()) == 18
    assert w.emg.shape == (len(w), 160, 10)
    assert w.pose.shape == (len(w), 160, 22)
    assert set(w.repetition) == set(range(1, 11))
    counts = np.array([[((w.participant == p) & (w.label == g)).sum() for g in range(12)] for p in range(18)])
    assert counts.min() >= 10, "every wearer has windows of every gesture"
    assert np.abs(np.median(w.emg, axis=(0, 1))).max() < 1
    assert spent_s < 15
