"""EMG-BIDS: what is written, and that it comes back."""

from __future__ import annotations

import csv
import json

import edfio
import msgspec
import numpy as np
import pytest

from embridge_cloud.context import CloudPaths
from embridge_cloud.exchange import bids_export, bids_import
from embridge_cloud.exchange.door import open_door
from embridge_cloud.store.sealed import Catalogue
from embridge_shared.errors import DataError, OperatorError, Reason
from embridge_shared.session import Marker, Repetition
from embridge_shared.signal import Modality, SampleType
from support.exchange import cloud_settings, joint_spec, rich_recording, seal, wrist_spec
from support.sessions import emg_spec


def glove_spec():
    return msgspec.structs.replace(
        joint_spec(), name="glove", modality=Modality.GLOVE, dtype=SampleType.INT16, unit="count"
    )


def decode_spec():
    return msgspec.structs.replace(joint_spec(20.0), name="decode", modality=Modality.DECODE, unit="score")


def many_specs():
    floats = msgspec.structs.replace(emg_spec(3, 100.0, "envelope"), dtype=SampleType.FLOAT32, unit="a.u.")
    wide = msgspec.structs.replace(emg_spec(2, 250.0, "wide"), dtype=SampleType.INT32, scale=0.0223517)
    return (emg_spec(5, 1925.926), joint_spec(), glove_spec(), floats, wide, decode_spec())


@pytest.fixture(scope="module")
def simple(tmp_path_factory):
    return seal(cloud_settings(tmp_path_factory.mktemp("cloud")), rich_recording())


def exported(tmp_path, *sessions):
    folder = tmp_path / "bids"
    folder.mkdir()
    bids_export.export(sessions, folder)
    return folder


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def again(tmp_path, folder):
    """Bring a dataset into a new store and return its sessions."""
    settings = cloud_settings(tmp_path / "two")
    with open_door(settings) as door:
        for recording in bids_import.read(folder):
            door.bring(recording)
    catalogue = Catalogue(CloudPaths.of(settings).sealed)
    return {s.id: s for s in catalogue.sessions()}


def assert_same(a, b):
    assert a.content_hash == b.content_hash
    assert a.session == b.session
    assert a.events() == b.events()
    for entry in a.manifest.streams:
        one, two = a.samples(entry.name), b.samples(entry.name)
        for field in ("index", "t_ns", "values"):
            np.testing.assert_array_equal(getattr(one, field), getattr(two, field), err_msg=entry.name)
        np.testing.assert_array_equal(a.arrivals(entry.name).host_ns, b.arrivals(entry.name).host_ns)
        assert entry.inferred == b.entry(entry.name).inferred
    assert a.quality().collect().equals(b.quality().collect())
    b.verify()


def test_a_session_comes_back_from_bids_as_it_was(simple, tmp_path):
    folder = exported(tmp_path, simple)
    assert not list((folder / "sourcedata").rglob("emg.parquet")), "the EDF alone must hold the samples"
    assert_same(simple, again(tmp_path, folder)[simple.id])


def test_streams_of_every_kind_come_back(tmp_path):
    original = seal(cloud_settings(tmp_path / "one"), rich_recording(*many_specs(), n_chunks=5))
    folder = exported(tmp_path, original)
    emg = sorted(p.name.partition("recording-")[2] for p in folder.rglob("*_emg.?df"))
    assert emg == ["emg_emg.edf", "envelope_emg.bdf", "wide_emg.bdf"]
    assert {p.name.partition("tracksys-")[2] for p in folder.rglob("*_motion.tsv")} == {
        "glove_motion.tsv",
        "pose_motion.tsv",
    }
    kept = {p.name for p in (folder / "sourcedata").rglob("*.parquet") if "arrivals" not in p.name}
    assert kept == {"decode.parquet", "envelope.parquet", "quality.parquet"}
    assert_same(original, again(tmp_path, folder)[original.id])


def test_the_edf_holds_the_devices_values(simple, tmp_path):
    folder = exported(tmp_path, simple)
    (path,) = folder.rglob("*_emg.edf")
    file = edfio.read_edf(path)
    samples = simple.samples("emg")
    for i, signal in enumerate(file.signals):
        np.testing.assert_array_equal(signal.digital[samples.index], samples.values[:, i])
    lost = np.ones(len(file.signals[0].digital), bool)
    lost[samples.index] = False
    assert not np.stack([s.digital for s in file.signals])[:, lost].any()
    spec = simple.spec("emg")
    gaps = simple.gaps("emg")
    noted = [(a.onset, a.duration) for a in file.annotations if a.text == "BAD_gap"]
    assert noted == [(a / spec.rate_hz, (b - a) / spec.rate_hz) for a, b in gaps]


def test_samples_at_the_ends_of_the_range_are_exact(tmp_path):
    recording = rich_recording(wrist_spec(200.0), gaps=False)
    ends = np.array([-32768, 32767, 0, -1, 1], np.int16)
    chunk = recording.chunks[0][0]
    chunk.samples[:] = np.resize(ends, chunk.samples.shape)
    original = seal(cloud_settings(tmp_path / "one"), recording)
    back = again(tmp_path, exported(tmp_path, original))[original.id]
    np.testing.assert_array_equal(original.samples("emg").values, back.samples("emg").values)


def test_tables_say_what_happened(simple, tmp_path):
    folder = exported(tmp_path, simple)
    (events,) = folder.rglob("*_events.tsv")
    found = rows(events)
    kinds = [r["kind"] for r in found]
    assert kinds.count("gap") == len(simple.gaps("emg"))
    assert {"cue", "repetition", "marker"} <= set(kinds)
    rejected = next(r for r in found if r["status"] == "rejected")
    assert (rejected["trial_type"], rejected["reason"]) == ("point", "moved too early")
    onsets = [float(r["onset"]) for r in found]
    assert onsets == sorted(onsets)
    described = json.loads(events.with_suffix(".json").read_text())
    assert set(found[0]) - {"onset", "duration"} <= set(described) | {"trial_type"}
    assert rows(folder / "participants.tsv") == [
        {"participant_id": "sub-p01", "pseudonym": "p-01", "consent_version": "v2"}
    ]
    (sidecar,) = folder.rglob("*_emg.json")
    body = json.loads(sidecar.read_text())
    assert body["SamplingFrequency"] == 200.0
    assert body["RecordingType"] == "discontinuous"
    assert body["EMBridge"]["total"] == simple.entry("emg").total


def test_events_lie_on_the_files_time_axis(tmp_path):
    """A device that runs one per cent fast: its file is longer than the clock, and so are the onsets in it."""
    from dataclasses import replace

    recording = rich_recording(gaps=False)
    started = recording.session.started_ns
    recording.chunks[0] = [replace(c, t0_ns=started + round(c.first / 202.0 * 1e9)) for c in recording.chunks[0]]
    original = seal(cloud_settings(tmp_path / "one"), recording)
    (events,) = exported(tmp_path, original).rglob("*_events.tsv")
    made = next(r for r in rows(events) if r["kind"] == "repetition" and r["status"] == "accepted")
    true = next(e for e in recording.events if isinstance(e, Repetition))
    onset, end = float(made["onset"]), float(made["onset"]) + float(made["duration"])
    samples = original.samples("emg")
    at = int(np.searchsorted(samples.t_ns, true.start_ns))
    assert onset == pytest.approx(samples.index[at] / 200.0, abs=0.006)
    assert end == pytest.approx((true.end_ns - started) * 1e-9 * 1.01, abs=0.02)


def test_labels_that_would_collide_are_refused(tmp_path):
    settings = cloud_settings(tmp_path / "one")
    one = seal(settings, rich_recording(number=1, participant="p-01"))
    two = seal(settings, rich_recording(number=2, participant="p01"))
    with pytest.raises(OperatorError, match="would both be sub-p01"):
        exported(tmp_path, one, two)


def test_a_session_without_emg_is_refused(tmp_path):
    session = rich_recording(joint_spec(), gaps=False)
    session.events.pop(2)
    with pytest.raises(OperatorError) as caught:
        exported(tmp_path, seal(cloud_settings(tmp_path / "one"), session))
    assert caught.value.reason is Reason.INCOMPATIBLE


@pytest.mark.parametrize("damage", ["sample", "sidecar", "map", "truncated", "manifest"])
def test_a_damaged_dataset_is_refused(simple, tmp_path, damage):
    folder = exported(tmp_path, simple)
    (path,) = folder.rglob("*_emg.edf")
    data = bytearray(path.read_bytes())
    if damage == "sample":
        data[2048] ^= 1
        path.write_bytes(data)
    elif damage == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "sidecar":
        path.with_suffix(".json").write_text("{}")
    elif damage == "manifest":
        (manifest,) = folder.rglob("session.json")
        manifest.write_text(manifest.read_text().replace("pose.arrivals.parquet", "../../../x.parquet"))
    else:
        (mapping,) = folder.rglob("bids.json")
        mapping.write_text('{"emg": "../../../etc/passwd"}')
    with pytest.raises(DataError):
        again(tmp_path, folder)


def test_a_dataset_of_others_is_read_as_far_as_it_tells(simple, tmp_path):
    folder = exported(tmp_path, simple)
    import shutil

    shutil.rmtree(folder / "sourcedata")
    (path,) = folder.rglob("*_emg.edf")
    body = json.loads(path.with_suffix(".json").read_text())
    del body["EMBridge"]
    path.with_suffix(".json").unlink()
    (folder / "task-fingers121_emg.json").write_text(json.dumps(body))
    (found,) = again(tmp_path, folder).values()
    assert found.session.participant.id == "p01"
    assert found.session.edge == "import"
    spec = found.spec("emg")
    assert (spec.rate_hz, spec.dtype, spec.n_channels) == (200.0, SampleType.INT16, 4)
    samples = simple.samples("emg")
    np.testing.assert_array_equal(found.samples("emg").values[samples.index], samples.values)
    (origin,) = [e.event for e in found.events() if isinstance(e.event, Marker) and "imported" in e.event.text]
    assert json.loads(origin.text.partition(": ")[2])["file"] == path.name
    assert {(r.gesture, r.status.value, r.reason) for r in found.repetitions()} == {
        ("fist", "accepted", ""),
        ("point", "rejected", "moved too early"),
    }
    assert [c.gesture for c in found.cues()] == ["fist"]


def test_channels_with_scales_of_their_own_are_kept_in_their_unit(tmp_path):
    """As most programs write EDF: each channel's physical range is its own."""
    rng = np.random.default_rng(6)
    wanted = np.stack([rng.normal(0, s, 2000) for s in (10.0, 300.0)], axis=1)
    signals = [
        edfio.EdfSignal(wanted[:, i], 1000.0, label=f"m{i}", physical_dimension="uV", physical_range=(-top, top))
        for i, top in enumerate((100.0, 2000.0))
    ]
    signals.append(edfio.EdfSignal(np.zeros(2000), 1000.0, label="trigger", physical_range=(0, 1)))
    folder = tmp_path / "theirs" / "sub-09" / "emg"
    folder.mkdir(parents=True)
    edfio.Edf(signals).write(folder / "sub-09_task-rest_emg.edf")
    listed = ["name\ttype\tunits", "m0\tEMG\tuV", "m1\tEMG\tuV", "trigger\tTRIG\tV"]
    (folder / "sub-09_task-rest_channels.tsv").write_text("\n".join(listed))
    (found,) = again(tmp_path, tmp_path / "theirs").values()
    spec, samples = found.spec("emg"), found.samples("emg")
    assert (spec.unit, spec.dtype, spec.channels, spec.rate_hz) == ("µV", SampleType.FLOAT32, ("m0", "m1"), 1000.0)
    assert np.abs(samples.values - wanted).max(axis=0) == pytest.approx([100 / 65535, 2000 / 65535], rel=0.1)
    assert found.session.started_ns == 0
    (origin,) = [e.event for e in found.events() if isinstance(e.event, Marker)]
    assert "1970" in origin.text
    assert "scales of their own" in origin.text
