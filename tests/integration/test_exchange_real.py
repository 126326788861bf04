"""Real recordings through every format and back, and before the validators of those formats."""

from __future__ import annotations

import json
import shutil
import subprocess
from itertools import islice

import numpy as np
import polars as pl
import pytest

from embridge_cloud.context import CloudPaths
from embridge_cloud.datasets.emg2pose_files import read_take
from embridge_cloud.exchange import bids_export, bids_import, emg2pose, paired
from embridge_cloud.exchange.door import open_door
from embridge_cloud.exchange.recording import Provenance, Recording, StreamData, session_id
from embridge_cloud.store.sealed import Catalogue
from embridge_shared.session import Participant, Repetition, Session, SessionClosed, SessionOpened
from embridge_shared.signal import Modality, SampleType, StreamSpec
from support.exchange import cloud_settings, rich_recording, seal
from support.sessions import T0

pytestmark = pytest.mark.real_data


def stored(settings, recordings):
    """Bring sessions into a store; returns them sealed."""
    with open_door(settings) as door:
        ids = [door.bring(r).session for r in recordings]
    catalogue = Catalogue(CloudPaths.of(settings).sealed)
    return [catalogue.get(i) for i in ids]


def trials(path, rate_hz, *, keep=12):
    """Blocks of a trial-wise table as one session: what lies between two blocks is a gap of half a second."""
    frame = pl.read_parquet(path)
    columns = [c for c in frame.columns if c.startswith("emg_")]
    keys = [c for c in ("session", "gesture", "rep") if c in frame.columns]
    blocks = frame.partition_by(keys, maintain_order=True)[:keep]
    spec = StreamSpec(name="emg", modality=Modality.EMG, channels=tuple(columns), rate_hz=rate_hz, device=path.stem)
    pause, at, index, values, events = round(rate_hz / 2), 0, [], [], []
    for number, block in enumerate(blocks, 1):
        raw = block.select(columns).to_numpy().astype(np.int16)
        index.append(np.arange(at, at + len(raw)))
        values.append(raw)
        start, end = (T0 + round(i / rate_hz * 1e9) for i in (at, at + len(raw)))
        name = str(block["gesture"][0]) if "gesture" in keys else "reading"
        events.append(Repetition(gesture=name, repetition=number, start_ns=start, end_ns=end))
        at += len(raw) + pause
    index = np.concatenate(index)
    t_ns = T0 + np.rint(index * (1e9 / rate_hz)).astype(np.int64)
    session = Session(
        id=session_id("test", path.name), edge="import", participant=Participant(id=path.stem.split("_")[-1]),
        protocol="trials", streams=(spec,), started_ns=T0, host_ns=0, source=f"import:test:{path.name}",
    )  # fmt: skip
    origin = Provenance(format="test", file=path.name, sha256="0" * 64)
    closing = SessionClosed(t_ns=int(t_ns[-1]), totals=(int(index[-1]) + 1,))
    data = StreamData(index, t_ns, np.concatenate(values))
    return Recording(session, (data,), (SessionOpened(session=session), origin.marker(T0), *events, closing))


def polled(folder):
    """A log polled at irregular times: two streams on two clocks, times as they were written."""
    log = pl.read_csv(folder / "myo_emg.csv")
    hours = log["time"].str.split(":").list.to_struct(fields=["h", "m", "s"]).struct.unnest()
    seconds = hours.select(
        pl.col("h").cast(pl.Float64) % 12 * 3600 + pl.col("m").cast(pl.Float64) * 60 + pl.col("s").cast(pl.Float64)
    ).to_series()
    t_ns = T0 + np.rint((seconds.to_numpy() - seconds[0]) * 1e9).astype(np.int64)
    values = log.select([c for c in log.columns if c.startswith("currentData")]).to_numpy().astype(np.float32)
    spec = StreamSpec(
        name="emg", modality=Modality.EMG, channels=tuple(f"e{i}" for i in range(8)), rate_hz=53.9,
        dtype=SampleType.FLOAT32, unit="a.u.", device="myo",
    )  # fmt: skip
    session = Session(
        id=session_id("test", "jhu"), edge="import", participant=Participant(id="jhu"), streams=(spec,),
        started_ns=T0, host_ns=0, source="import:test:jhu",
    )  # fmt: skip
    n = 6000
    data = StreamData(np.arange(n), t_ns[:n], values[:n])
    closing = SessionClosed(t_ns=int(t_ns[n - 1]), totals=(n,))
    return Recording(session, (data,), (SessionOpened(session=session), closing))


@pytest.fixture(scope="module")
def originals(data_dir, tmp_path_factory):
    """Real sessions of five devices, sealed."""
    settings = cloud_settings(tmp_path_factory.mktemp("real"))
    one = tmp_path_factory.mktemp("ninapro")
    shutil.copyfile(data_dir / "ninapro_db1" / "S1_A1_E1.mat", one / "S1_A1_E1.mat")
    (reading,) = islice(sorted((data_dir / "myo_readings").glob("*.parquet")), 1)
    recordings = [
        trials(data_dir / "three_dc" / "three_dc_Participant3.parquet", 1000.0),
        trials(data_dir / "three_dc" / "three_dc_myo_Participant3.parquet", 200.0),
        polled(data_dir / "jhu_ntx"),
        *paired.ninapro_sessions(one, "db1"),
        *emg2pose.read(data_dir / "emg2pose_fixture"),
    ]
    assert reading.is_file()
    return stored(settings, recordings)


@pytest.fixture(scope="module")
def dataset(originals, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bids")
    bids_export.export(originals, folder, title="Real recordings")
    return folder


def test_real_recordings_come_back_from_bids_bit_by_bit(originals, dataset, tmp_path):
    found = {s.id: s for s in stored(cloud_settings(tmp_path), bids_import.read(dataset))}
    assert found.keys() == {s.id for s in originals}
    for original in originals:
        back = found[original.id]
        assert back.content_hash == original.content_hash
        assert back.session == original.session
        assert back.events() == original.events()
        for entry in original.manifest.streams:
            one, two = original.samples(entry.name), back.samples(entry.name)
            assert one.values.tobytes() == two.values.tobytes()
            np.testing.assert_array_equal(one.index, two.index)
            np.testing.assert_array_equal(one.t_ns, two.t_ns)


def test_int16_recordings_are_in_the_edf_alone(originals, dataset):
    exact = [s for s in originals if s.spec("emg").dtype is SampleType.INT16]
    assert len(exact) == 2
    for sealed in exact:
        assert not (dataset / "sourcedata" / "embridge" / str(sealed.id) / "emg.parquet").exists()


def test_the_fixture_of_emg2pose_comes_back_through_its_reader(originals, data_dir, tmp_path):
    fixture = next(s for s in originals if "emg2pose" in s.session.source)
    emg2pose.export([fixture], tmp_path)
    (path,) = tmp_path.glob("*.hdf5")
    first, second = read_take(data_dir / "emg2pose_fixture" / "test_data.hdf5"), read_take(path)
    np.testing.assert_array_equal(first.emg, second.emg)
    np.testing.assert_allclose(first.angles[1:-1], second.angles[1:-1], atol=1e-3)


@pytest.mark.validate
def test_the_bids_validator_has_no_error(originals, dataset, tmp_path):
    program = shutil.which("bids-validator-deno")
    if program is None:
        pytest.skip("no bids-validator-deno; `pip install --group validate` brings it")
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    bids_export.export([seal(cloud_settings(tmp_path / "one"), rich_recording())], mixed)
    for folder in (dataset, mixed):
        done = subprocess.run([program, str(folder), "--json"], capture_output=True, text=True, timeout=120)
        report = json.loads(done.stdout)
        issues = report["issues"]["issues"]
        errors = [i for i in issues if i["severity"] == "error"]
        assert not errors, errors[:5]
        assert done.returncode == 0
        assert "emg" in report["summary"]["modalities"] or "emg" in report["summary"]["dataTypes"]
    broken = next(dataset.rglob("*_emg.json"))
    text = broken.read_text()
    try:
        broken.write_text(text.replace('"EMGPlacementScheme": "Other"', '"EMGPlacementScheme": "?"'))
        done = subprocess.run([program, str(dataset), "--json"], capture_output=True, text=True, timeout=120)
        assert done.returncode != 0, "the validator must be one that can find something"
    finally:
        broken.write_text(text)
