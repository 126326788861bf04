"""Full disks on either side: recording or ingest stops in good order, and goes on by itself when there is room."""

from __future__ import annotations

import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import MosquittoBroker
from embridge_edge.plan import SessionPlan, SyntheticSource
from embridge_shared.errors import ExitCode
from support.disks import SmallDisk
from support.loop import Loop, rehearse, until
from support.proof import Row

MIB = 1 << 20


@pytest.fixture
def loop(tmp_path: Path, own_mosquitto: MosquittoBroker) -> Iterator[Loop]:
    loop = Loop(tmp_path, own_mosquitto.port, {"EMBRIDGE_EDGE__CHUNK_S": "0.2"})
    yield loop
    loop.close()


@pytest.fixture
def edge_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "edge-1", 32 * MIB)
    disk.mount()
    yield disk
    disk.unmount()


@pytest.fixture
def cloud_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "cloud", 64 * MIB)
    disk.mount()
    yield disk
    disk.unmount()


def plan(repetitions: int = 2, speed: float = 4.0) -> SessionPlan:
    source = SyntheticSource(
        wearer=8, performance=5, gestures=("fist", "point"), repetitions=repetitions, speed=speed, loss=0.02
    )
    return SessionPlan(name="disk", participant="p8", source=source)


def start_daemon(loop: Loop) -> subprocess.Popen[bytes]:
    """An edge as a service runs it."""
    return loop.start("edge-1", "edge", "run", "--plan", "plan.json", "--name", "edge-1", "--state-dir", "edge-1")


def finish(loop: Loop, row: Row, session: SessionPlan, timeout_s: float = 90.0) -> None:
    (sealed,) = loop.sealed(timeout_s=timeout_s)
    until(lambda: not loop.spooled()["waiting"], 30, "the spool to be empty")
    row.compare(sealed, rehearse(session))
    state = loop.spooled()
    assert (state["waiting"], state["refused"], state["closed"]) == (0, 0, 1)
    for name in ("edge-1", "cloud"):
        assert "Traceback" not in loop.log(name), loop.log(name)


def ready(loop: Loop) -> tuple[bool, str]:
    """Whether the cloud says that it is ready, and everything it says."""
    try:
        with urllib.request.urlopen(loop.url + "/ready", timeout=10) as answer:
            return True, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return False, error.read().decode()
    except OSError as error:
        return False, str(error)


@pytest.mark.faults
def test_recording_leaves_the_reserve_of_the_edges_disk_and_goes_on(
    loop: Loop, own_mosquitto: MosquittoBroker, edge_disk: SmallDisk
) -> None:
    own_mosquitto.kill()
    loop.settings["EMBRIDGE_EDGE__RESERVE_BYTES"] = str(8 * MIB)
    session, row = plan(repetitions=1, speed=8.0), Row("disk of the edge at its reserve")
    loop.write_plan(session)
    edge_disk.fill(leave=11 * MIB)
    process = start_daemon(loop)
    until(lambda: "session disk stops" in loop.log("edge-1"), 30, "the recording to stop")
    assert "edge.reserve_bytes keeps 8.0 MiB back. Free disk space" in loop.log("edge-1")
    assert edge_disk.free > 7 * MIB
    state = loop.spooled()
    assert state["waiting"] > 5
    assert process.poll() is None
    own_mosquitto.start()
    loop.start_cloud()
    # What is delivered leaves room in the spool's own file, though nobody freed any.
    with row.struck(loop):
        pass
    until(lambda: loop.get("/api/edges"), 10, "the edge to tell its state")
    finish(loop, row, session)


@pytest.mark.faults
def test_a_disk_filled_by_others_stops_the_edge_and_nothing_that_was_recorded(loop: Loop, edge_disk: SmallDisk) -> None:
    loop.settings["EMBRIDGE_EDGE__RESERVE_BYTES"] = str(4 * MIB)
    session, row = plan(repetitions=1), Row("disk of the edge filled by others")
    loop.write_plan(session)
    loop.start_cloud()
    start_daemon(loop)
    until(lambda: loop.spooled()["recorded"] > 3000, 30, "some recording")
    edge_disk.fill()
    until(lambda: "session disk stops" in loop.log("edge-1"), 30, "the recording to stop")
    until(lambda: not loop.spooled()["waiting"], 30, "the spool to forget on a full disk")
    with row.struck(loop):
        edge_disk.clear()
    finish(loop, row, session)


def test_ingest_pauses_at_the_reserve_and_goes_on_by_itself(loop: Loop, cloud_disk: SmallDisk) -> None:
    loop.settings["EMBRIDGE_CLOUD__RESERVE_BYTES"] = str(8 * MIB)
    session, row = plan(repetitions=1), Row("disk of the cloud at its reserve")
    loop.write_plan(session)
    loop.start_cloud()
    loop.start_edge()
    until(lambda: loop.committed() > 500, 30, "the first commits")
    assert ready(loop)[0]
    cloud_disk.fill(leave=7 * MIB)
    until(lambda: not ready(loop)[0], 20, "the cloud to say that it takes nothing")
    said = ready(loop)[1]
    assert "disk" in said
    assert "cloud.reserve_bytes" in loop.log("cloud")
    before = loop.committed()
    until(lambda: loop.spooled()["waiting"] > 20, 20, "the edge to keep everything")
    assert loop.committed() == before
    with row.struck(loop):
        cloud_disk.clear()
    until(lambda: ready(loop)[0], 20, "the cloud to be ready again")
    finish(loop, row, session)


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_a_disk_of_the_cloud_without_a_byte_left_ten_times(loop: Loop, cloud_disk: SmallDisk) -> None:
    loop.settings["EMBRIDGE_CLOUD__RESERVE_BYTES"] = "0"
    session, row = plan(repetitions=16, speed=2.0), Row("disk of the cloud full: hot file, log, ledger")
    loop.write_plan(session)
    loop.start_cloud()
    loop.start_edge()
    until(lambda: loop.committed() > 500, 30, "the first commits")
    for turn in range(10):
        cloud_disk.fill()
        until(lambda: not ready(loop)[0], 60, "the cloud to say that it takes nothing")
        if turn % 3 == 1:
            loop.kill("cloud")
            loop.start_cloud(wait=False)
            time.sleep(2.0)
        if turn % 3 == 2:
            loop.stop("cloud")
            loop.start_cloud(wait=False)
            time.sleep(2.0)
        cloud_disk.clear()
        cloud, said = loop.running["cloud"], loop.folder / "ready.json"
        until(lambda cloud=cloud, said=said: said.exists() or cloud.poll() is not None, 30, "the cloud to start or end")
        assert "Traceback" not in loop.log("cloud"), loop.log("cloud")
        if cloud.poll() is not None:
            # What cannot even begin on a full disk is begun again by its supervisor.
            assert cloud.returncode == ExitCode.FAILED
            loop.start_cloud()
        loop.wait_cloud()
        with row.struck(loop):
            pass
    finish(loop, row, session)


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_a_full_folder_of_sealed_sessions_keeps_the_session_hot(loop: Loop, tmp_path: Path) -> None:
    disk = SmallDisk(tmp_path / "cloud" / "sealed", 16 * MIB)
    disk.mount()
    try:
        disk.fill(leave=65536)
        session, row = plan(repetitions=1, speed=0.0), Row("disk of the sealed sessions full", runs=1)
        loop.write_plan(session)
        loop.start_cloud()
        loop.start_edge()
        until(lambda: loop.get("/api/ingest")["unsealable"], 60, "sealing to fail")
        assert list(disk.folder.glob(".sealing-*")) == []
        assert "is not sealed" in loop.log("cloud")
        disk.clear()
        began = time.monotonic()
        loop.sealed(timeout_s=90)
        row.recovery_s.append(time.monotonic() - began)
        finish(loop, row, session)
    finally:
        disk.unmount()
