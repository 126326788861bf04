"""emg2pose, NinaPro, XDF and Parquet: in, out, and once."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from scipy.io import savemat

from embridge_cloud.context import CloudPaths
from embridge_cloud.datasets.base import EmgKind, PoseKind
from embridge_cloud.datasets.emg2pose import Emg2PoseDataset
from embridge_cloud.datasets.emg2pose_files import read_take
from embridge_cloud.datasets.ninapro import NinaproDataset
from embridge_cloud.datasets.store import StoreDataset
from embridge_cloud.exchange import emg2pose, incoming, parquet
from embridge_cloud.exchange.door import Arrival, open_door
from embridge_cloud.exchange.incoming import ImportFormat
from embridge_cloud.store.sealed import Catalogue
from embridge_shared.errors import DataError, OperatorError, Reason
from embridge_shared.ninapro import BASES
from embridge_shared.session import Marker, Purpose, RepetitionStatus
from embridge_shared.signal import Modality, SampleType
from support.exchange import cloud_settings, joint_spec, rich_recording, seal, wrist_spec
from support.sessions import T0, emg_spec
from support.xdf import XdfStream, write_xdf

NOISE = np.random.default_rng(8).bytes(500)


def brought(tmp_path, path, format, **named):
    """Import into a new store; returns its sessions after importing a second time has changed nothing."""
    settings = cloud_settings(tmp_path / "into")
    for arrival in (Arrival.STORED, Arrival.HELD):
        with open_door(settings) as door:
            for recording in incoming.read(path, format):
                assert door.bring(incoming.named(recording, **named)).arrival is arrival
    found = Catalogue(CloudPaths.of(settings).sealed).sessions()
    for sealed in found:
        sealed.verify()
    return found


def origin(sealed):
    (marker,) = [
        e.event for e in sealed.events() if isinstance(e.event, Marker) and e.event.text.startswith("imported: ")
    ]
    return json.loads(marker.text.partition(": ")[2])


# emg2pose


@pytest.fixture(scope="module")
def wrist(tmp_path_factory):
    return seal(
        cloud_settings(tmp_path_factory.mktemp("cloud")), rich_recording(wrist_spec(), joint_spec(), n_chunks=4)
    )


def test_emg2pose_is_read_by_its_reader_and_comes_back_exactly(wrist, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    emg2pose.export([wrist], folder)
    dataset = Emg2PoseDataset(folder)
    assert dataset.participants() == ("p-01",)
    gaps, spec, samples = wrist.gaps("emg"), wrist.spec("emg"), wrist.samples("emg")
    assert gaps, "a session without loss shows nothing"
    paths = sorted(folder.glob("*.hdf5"))
    assert len(paths) == len(wrist.entry("emg").stored())
    for path, (first, end) in zip(paths, wrist.entry("emg").stored(), strict=True):
        take = read_take(path)
        at = slice(*np.searchsorted(samples.index, [first, end]))
        np.testing.assert_array_equal(take.emg, (samples.values[at] * spec.scale).astype(np.float32))
        np.testing.assert_allclose(take.time_s, samples.t_ns[at] * 1e-9, atol=3e-7)
    found = brought(tmp_path, folder, ImportFormat.EMG2POSE)
    back = np.concatenate([s.samples("emg").values for s in sorted(found, key=lambda s: s.session.started_ns)])
    assert back.dtype == np.int16
    np.testing.assert_array_equal(back, samples.values)
    assert {(s.spec("emg").scale, s.spec("emg").unit) for s in found} == {(0.195, "µV")}


def test_joint_angles_are_drawn_to_the_emg_and_0_where_there_are_none(tmp_path):
    recording = rich_recording(wrist_spec(), joint_spec(), n_chunks=4, gaps=False)
    samples = np.concatenate([c.samples for c in recording.chunks[1]])
    samples[:] = np.linspace(0.1, 1.0, len(samples))[:, None]
    at = 0
    for i, chunk in enumerate(recording.chunks[1]):
        recording.chunks[1][i] = replace(
            chunk,
            samples=samples[at : at + chunk.n].copy(),
            t0_ns=recording.session.started_ns + round(chunk.first / 50 * 1e9),
        )
        at += chunk.n
    recording.chunks[1][2].samples[:] = 0.0
    original = seal(cloud_settings(tmp_path / "one"), recording)
    folder = tmp_path / "out"
    folder.mkdir()
    emg2pose.export([original], folder)
    (path,) = folder.glob("*.hdf5")
    take = read_take(path)
    pose = original.samples("pose")
    since = (take.time_s - recording.session.started_ns * 1e-9) * 50
    expected = np.interp(since, np.arange(len(samples)), samples[:, 0])
    lost = slice(*np.searchsorted(since, [recording.chunks[1][2].first, recording.chunks[1][2].end - 1]))
    assert not take.valid[lost][5:-5].any()
    sound = take.valid & (since > 1) & (since < len(samples) - 2)
    assert sound.sum() > 1500
    np.testing.assert_allclose(take.angles[sound, 0], expected[sound], atol=2e-3)
    assert pose.values.shape[1] == take.angles.shape[1]


def test_what_does_not_fit_emg2pose_is_refused(tmp_path):
    original = seal(cloud_settings(tmp_path / "one"), rich_recording())
    with pytest.raises(OperatorError, match="4 × 200 Hz") as caught:
        emg2pose.export([original], tmp_path)
    assert caught.value.reason is Reason.INCOMPATIBLE


# NinaPro


@pytest.fixture
def ninapro_folder(tmp_path):
    rng = np.random.default_rng(4)
    n = 900
    label = np.repeat([0, 1, 0, 1, 0, 2, 0, 2, 0], 100)
    repetition = np.repeat([0, 1, 0, 2, 0, 1, 0, 0, 0], 100)
    cue = np.roll(label, -20)
    folder = tmp_path / "ninapro"
    folder.mkdir()
    savemat(
        folder / "S3_A1_E1.mat",
        {
            "emg": rng.uniform(0, 4, (n, 10)), "glove": rng.uniform(1, 255, (n, 22)), "subject": 3, "exercise": 1,
            "restimulus": label[:, None], "rerepetition": repetition[:, None],
            "stimulus": cue[:, None], "repetition": np.roll(repetition, -20)[:, None],
        },
    )  # fmt: skip
    return folder


def test_ninapro_becomes_a_session_that_data_sets_read_alike(ninapro_folder, tmp_path):
    (found,) = brought(tmp_path, ninapro_folder, ImportFormat.NINAPRO)
    (public,) = NinaproDataset(ninapro_folder, BASES["db1"]).recordings("db1-s3")
    stored = StoreDataset(CloudPaths.of(cloud_settings(tmp_path / "into")).sealed)
    (ours,) = stored.recordings("db1-s3")
    np.testing.assert_array_equal(ours.emg, public.emg)
    np.testing.assert_array_equal(ours.pose, public.pose)
    assert (ours.emg_kind, ours.pose_kind) == (EmgKind.ENVELOPE, PoseKind.GLOVE)
    assert [(s.gesture, s.repetition, s.start) for s in ours.segments] == [
        (s.gesture, s.repetition, s.start) for s in public.segments
    ]
    rejected = [r for r in found.repetitions() if r.status is RepetitionStatus.REJECTED]
    assert [r.reason for r in rejected] == ["belongs to no trial"]
    assert len(found.cues()) == 4
    told = origin(found)
    assert told["file"] == "S3_A1_E1.mat"
    assert len(told["sha256"]) == 64
    assert told["licence"]
    assert found.session.participant.consent_version == "publisher's"


# XDF


def lab(folder, *, lost=0):
    """A file of a recorder: EMG with jitter and loss on a clock of its own, pose, markers, a stream of nobody's."""
    rng = np.random.default_rng(5)
    n, rate = 4000, 1000.0
    values = rng.integers(-2000, 2000, (n, 4))
    true = 100 + np.arange(n) / rate
    true[n // 2 :] += lost / rate
    offset = -3.5
    clock = [(t, offset) for t in np.linspace(99, 106, 15)]
    emg = XdfStream(
        "My Band", "EMG", "int16", rate, true - offset + rng.normal(0, 1e-4, n), values, ("a", "b", "c", "d"),
        "microvolts", [(t - offset, offset) for t, _ in clock],
    )  # fmt: skip
    pose = XdfStream("hand", "MoCap", "float32", 50.0, 100 + np.arange(200) / 50, rng.normal(0, 1, (200, 20)))
    notes = XdfStream("notes", "Markers", "string", 0.0, np.array([101.0, 102.5]), ["start ✓", "stop"])
    other = XdfStream("room", "Temperature", "float32", 1.0, 100 + np.arange(4.0), np.zeros((4, 1)))
    path = folder / "sub-P007" / "ses-S001" / "sub-P007_ses-S001_task-grasp_run-001_emg.xdf"
    write_xdf(path, [emg, pose, notes, other])
    return path, values


def test_xdf_is_brought_to_one_clock(tmp_path):
    path, values = lab(tmp_path / "lab")
    (found,) = brought(tmp_path, path, ImportFormat.XDF)
    spec = found.spec("my_band")
    assert (spec.modality, spec.unit, spec.channels, spec.dtype) == (
        Modality.EMG,
        "µV",
        ("a", "b", "c", "d"),
        SampleType.INT16,
    )
    samples = found.samples("my_band")
    np.testing.assert_array_equal(samples.values, values)
    assert found.session.started_ns == T0
    np.testing.assert_allclose((samples.t_ns - T0) * 1e-9, np.arange(4000) / 1000, atol=2e-4)
    pose = found.samples("hand")
    assert found.spec("hand").modality is Modality.POSE
    np.testing.assert_allclose((pose.t_ns - T0) * 1e-9, np.arange(200) / 50, atol=2e-4)
    marks = [e.event for e in found.events() if isinstance(e.event, Marker)][1:]
    assert [m.text for m in marks] == ["start ✓", "stop"]
    assert [(m.t_ns - T0) * 1e-9 for m in marks] == pytest.approx([1.0, 2.5], abs=1e-3)
    assert found.session.participant.id == "P007"
    assert found.session.protocol == "grasp"
    assert any("room" in note for note in origin(found)["notes"])


def test_a_loss_in_xdf_is_a_gap_whose_length_is_an_estimate(tmp_path):
    path, values = lab(tmp_path / "lab", lost=3000)
    (found,) = brought(tmp_path, path.parents[2], ImportFormat.LSL_RECORDER, participant="p9", consent_version="v3")
    entry = found.entry("my_band")
    (gap,) = entry.gaps
    assert gap[0] == 2000
    assert gap[1] - gap[0] == pytest.approx(3000, abs=2)
    assert entry.inferred == entry.gaps
    np.testing.assert_array_equal(found.samples("my_band").values, values)
    assert found.session.participant.id == "p9"
    assert found.session.participant.consent_version == "v3"


@pytest.mark.parametrize("content", [b"", b"XDF", b"XDF:", NOISE, b"XDF:" + NOISE])
def test_a_foreign_file_is_no_xdf(tmp_path, content):
    path = tmp_path / "x.xdf"
    path.write_bytes(content)
    with pytest.raises(DataError):
        list(incoming.read(path, ImportFormat.XDF))


def test_a_truncated_xdf_is_refused_or_read_up_to_there(tmp_path):
    path, values = lab(tmp_path / "lab")
    data = path.read_bytes()
    for part in (0.2, 0.5, 0.9):
        path.write_bytes(data[: int(len(data) * part)])
        try:
            (found,) = incoming.read(path, ImportFormat.XDF)
        except DataError:
            continue
        held = found.streams[0].values
        np.testing.assert_array_equal(held, values[: len(held)])


# Parquet


def test_parquet_moves_whole_sessions(wrist, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    parquet.export([wrist], folder)
    listed = json.loads((folder / "export.json").read_text())
    assert listed["sessions"][0]["content_hash"] == wrist.content_hash
    (found,) = brought(tmp_path, folder, ImportFormat.PARQUET)
    assert found.content_hash == wrist.content_hash
    assert found.session == wrist.session
    assert msgspec.json.encode(found.events()) == msgspec.json.encode(wrist.events())


def test_a_damaged_parquet_export_is_refused(wrist, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    parquet.export([wrist], folder)
    path = folder / str(wrist.id) / "pose.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"pose\.parquet"):
        brought(tmp_path, folder, ImportFormat.PARQUET)


def test_only_what_comes_from_elsewhere_is_given_a_name(wrist, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    parquet.export([wrist], folder)
    (recording,) = incoming.read(folder, ImportFormat.PARQUET)
    with pytest.raises(OperatorError):
        incoming.named(recording, participant="p9")
    path, _ = lab(tmp_path / "lab")
    (recording,) = incoming.read(path, ImportFormat.XDF)
    other = incoming.named(recording, purpose=Purpose.EVALUATION)
    assert other.session.purpose is Purpose.EVALUATION
    assert other.events[0].session == other.session
    assert emg_spec().rate_hz == 200.0
