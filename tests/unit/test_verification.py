"""Every way a sealed session can be damaged is named."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embridge_cloud.store.manifest import MANIFEST, file_sha256
from embridge_cloud.store.sealed import SealedSession
from embridge_cloud.store.verification import FaultKind, faults
from embridge_shared.errors import DataError
from support.exchange import cloud_settings, rich_recording, seal


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return seal(cloud_settings(tmp_path_factory.mktemp("cloud")), rich_recording())


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole.directory, tmp_path / whole.directory.name)


def kinds(folder):
    return {(f.kind, f.where) for f in faults(SealedSession(folder))}


def edit(folder, change):
    path = folder / MANIFEST
    body = json.loads(path.read_bytes())
    change(body)
    path.write_text(json.dumps(body))


def reseal(folder, name, table, entry):
    """Write a file anew and make the manifest agree with its bytes, as a forger would."""
    pq.write_table(table, folder / name)
    digest, size = file_sha256(folder / name), (folder / name).stat().st_size
    edit(folder, lambda m: entry(m).update(sha256=digest, bytes=size))


def test_a_whole_session_has_no_fault(folder):
    assert not kinds(folder)


FILES = [
    *(f"{n}.parquet" for n in ("emg", "emg.arrivals", "pose", "pose.arrivals", "quality")),
    "events.json",
]


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_found_wherever_it_is(folder, name):
    path = folder / name
    data = bytearray(path.read_bytes())
    for at in np.linspace(0, len(data) - 1, 7).astype(int).tolist():
        data[at] ^= 0x10
        path.write_bytes(data)
        assert (FaultKind.CHANGED_FILE, name) in kinds(folder), at
        data[at] ^= 0x10


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_and_a_missing_file_are_found(folder, name):
    path = folder / name
    path.write_bytes(path.read_bytes()[:-1])
    assert (FaultKind.CHANGED_FILE, name) in kinds(folder)
    path.unlink()
    assert (FaultKind.MISSING_FILE, name) in kinds(folder)


def test_a_file_that_was_not_sealed_is_found(folder):
    (folder / "notes.txt").write_text("?")
    assert kinds(folder) == {(FaultKind.FOREIGN_FILE, "notes.txt")}


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda m: m["session"]["participant"].update(id="p02"), FaultKind.MANIFEST),
        (lambda m: m["session"].update(started_ns=1), FaultKind.MANIFEST),
        (lambda m: m["session"]["streams"][0].update(scale=2.0), FaultKind.MANIFEST),
        (lambda m: m["session"].update(id="00000000-0000-0000-0000-000000000001"), FaultKind.MANIFEST),
        (lambda m: m["closed"].update(reason="stopped"), FaultKind.MANIFEST),
        (lambda m: m["streams"][0].update(gaps=[]), FaultKind.MANIFEST),
        (lambda m: m["streams"][0].update(total=m["streams"][0]["total"] + 1), FaultKind.MANIFEST),
        (lambda m: m["streams"][0].update(rows=1), FaultKind.MANIFEST),
        (lambda m: m["streams"][0].update(inferred=[[0, 1]]), FaultKind.MANIFEST),
        (lambda m: m["streams"][0].update(content="0" * 64), FaultKind.CONTENT),
        (lambda m: m["streams"][0].update(sha256="0" * 64), FaultKind.CHANGED_FILE),
        (lambda m: m["streams"][0].update(file="../emg.parquet"), FaultKind.MANIFEST),
        (lambda m: m["streams"][0]["arrivals"].update(rows=1), FaultKind.CLOCK),
        (lambda m: m["events"].update(rows=1), FaultKind.EVENTS),
        (lambda m: m["quality"].update(rows=1), FaultKind.QUALITY),
        (lambda m: m.pop("quality"), FaultKind.EVENTS),
        (lambda m: m["streams"].pop(), FaultKind.MANIFEST),
        (lambda m: m.update(content_hash="0" * 64), FaultKind.CONTENT),
    ],
)
def test_an_edited_manifest_is_found(folder, change, kind):
    edit(folder, change)
    assert kind in {k for k, _ in kinds(folder)}


def test_a_forged_file_is_found_by_what_it_holds(folder):
    path = folder / "emg.parquet"
    table = pq.read_table(path)
    column = table["e0"].to_numpy().copy()
    column[7] += 1
    reseal(folder, "emg.parquet", table.set_column(2, "e0", pa.array(column)), lambda m: m["streams"][0])
    assert kinds(folder) == {(FaultKind.CONTENT, "emg"), (FaultKind.CONTENT, MANIFEST)}
    reseal(folder, "emg.parquet", table.slice(0, 100), lambda m: m["streams"][0])
    assert (FaultKind.RANGES, "emg") in kinds(folder)
    backwards = table["t_ns"].to_numpy().copy()
    backwards[9] -= 10**9
    reseal(folder, "emg.parquet", table.set_column(1, "t_ns", pa.array(backwards)), lambda m: m["streams"][0])
    assert (FaultKind.CLOCK, "emg") in kinds(folder)


def test_forged_clock_pairs_are_found(folder):
    table = pq.read_table(folder / "emg.arrivals.parquet")
    host = table["host_ns"].to_numpy()[::-1]
    forged = table.set_column(1, "host_ns", pa.array(host))
    reseal(folder, "emg.arrivals.parquet", forged, lambda m: m["streams"][0]["arrivals"])
    assert kinds(folder) == {(FaultKind.CLOCK, "emg.arrivals.parquet")}


def test_events_that_are_gone_are_found(folder):
    path = folder / "events.json"
    events = json.loads(path.read_bytes())
    path.write_text(json.dumps(events[:2] + events[3:]))
    assert (FaultKind.EVENTS, "events.json") in kinds(folder)
    path.write_text("[")
    assert (FaultKind.UNREADABLE, "events.json") in kinds(folder)


def test_verify_tells_all_faults_in_one_error(folder):
    (folder / "emg.parquet").unlink()
    (folder / "events.json").write_text("{}")
    with pytest.raises(DataError, match=r"emg\.parquet is missing.*events\.json"):
        SealedSession(folder).verify()
