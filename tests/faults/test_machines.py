"""Machines that misbehave: clocks that step, disks that are slow or locked, a cable that is pulled."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from conftest import MosquittoBroker
from embridge_edge.plan import SessionPlan, SyntheticSource
from embridge_shared.errors import ExitCode
from support.disks import SmallDisk
from support.loop import EMBRIDGE, Loop, rehearse, until
from support.proof import Row

SUPPORT = Path(__file__).parent.parent / "support"


@pytest.fixture
def loop(tmp_path: Path, own_mosquitto: MosquittoBroker) -> Iterator[Loop]:
    settings = {"EMBRIDGE_EDGE__CHUNK_S": "0.2", "EMBRIDGE_MQTT__KEEPALIVE_S": "2"}
    loop = Loop(tmp_path, own_mosquitto.port, settings)
    yield loop
    loop.close()


def plan(repetitions: int = 1, speed: float = 4.0) -> SessionPlan:
    source = SyntheticSource(
        wearer=9, performance=6, gestures=("fist", "point"), repetitions=repetitions, speed=speed, loss=0.02
    )
    return SessionPlan(name="machine", participant="p9", source=source)


def finish(loop: Loop, row: Row, session: SessionPlan, timeout_s: float = 120.0) -> None:
    loop.wait_edge(timeout_s=timeout_s)
    (sealed,) = loop.sealed()
    row.compare(sealed, rehearse(session))
    state = loop.spooled()
    assert (state["waiting"], state["refused"], state["closed"]) == (0, 0, 1)
    for name in ("edge-1", "cloud"):
        assert "Traceback" not in loop.log(name)


@pytest.mark.faults
@pytest.mark.parametrize("victim", ["edge-1", "cloud"])
def test_a_clock_that_steps_by_an_hour_either_way(loop: Loop, victim: str) -> None:
    session, row = plan(repetitions=3), Row(f"wall clock of {victim} steps by an hour, both ways")
    off = loop.folder / "off"
    off.write_text("0")
    loop.settings["PYTHONPATH"] = f"{SUPPORT.parent}:{os.environ.get('PYTHONPATH', '')}"
    loop.launch[victim] = (sys.executable, "-m", "support.stepped", off)
    loop.write_plan(session)
    loop.start_cloud()
    loop.start_edge()
    until(lambda: loop.committed() > 500, 30, "the first commits")
    for step in ("3600", "0", "-3600", "0"):
        with row.struck(loop):
            off.write_text(step)
        time.sleep(1.0)
    off.write_text("-3600")
    loop.kill("cloud")
    loop.start_cloud()
    finish(loop, row, session)
    (sealed,) = loop.sealed()
    emg = sealed.samples("emg")
    # Samples keep the time of the device, whatever the wall clock did meanwhile.
    true_s = emg.index / (2000.0 * (1 - 18e-6))
    late_s = (emg.t_ns - sealed.session.started_ns) * 1e-9 - true_s
    assert np.ptp(late_s) < 0.1


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("victim", ["edge-1", "cloud"])
def test_a_disk_that_takes_seconds_to_sync(loop: Loop, victim: str) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = loop.folder / "slow.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, SUPPORT / "slow_fsync.c", "-ldl"], check=True)
    session, row = plan(), Row(f"disk of {victim} takes 2 s a sync", runs=1)
    slow = {"LD_PRELOAD": str(library), "SLOW_FSYNC_S": "2"}
    loop.write_plan(session)
    loop.start_cloud(wait=False, **(slow if victim == "cloud" else {}))
    until(lambda: (loop.folder / "ready.json").exists(), 180, "the cloud process to be ready")
    loop.wait_cloud()
    loop.start_edge(**(slow if victim == "edge-1" else {}))
    finish(loop, row, session, 240)


@pytest.mark.faults
@pytest.mark.parametrize("victim", ["edge-1", "cloud"])
def test_a_disk_that_becomes_read_only(loop: Loop, tmp_path: Path, victim: str) -> None:
    disk = SmallDisk(tmp_path / victim, 64 << 20)
    disk.mount()
    try:
        loop.settings["EMBRIDGE_EDGE__RESERVE_BYTES"] = loop.settings["EMBRIDGE_CLOUD__RESERVE_BYTES"] = "0"
        session, row = plan(repetitions=2), Row(f"disk of {victim} read-only", runs=1)
        loop.write_plan(session)
        loop.start_cloud()
        loop.start_edge()
        until(lambda: loop.committed() > 500, 30, "the first commits")
        # A disk with open files stays writable, so the process meets it as it starts again.
        loop.kill(victim)
        assert disk.writable(False)
        if victim == "cloud":
            loop.start_cloud(wait=False)
        else:
            loop.start_edge()
        assert loop.running[victim].wait(30) in (ExitCode.FAILED, ExitCode.USAGE)
        assert "Traceback" not in loop.log(victim), loop.log(victim)
        assert "embridge: error: " in loop.log(victim)
        assert disk.writable(True)
        if victim == "cloud":
            loop.start_cloud()
        else:
            loop.start_edge()
        with row.struck(loop):
            pass
        row.runs = 1
        finish(loop, row, session)
    finally:
        disk.unmount()


@pytest.fixture
def far_side() -> Iterator[tuple[str, str]]:
    """A network namespace with a cable to this machine: its name, and the name of the cable here."""
    name, here = "embridge-far", "embridge-near0"
    ip = shutil.which("ip") or shutil.which("ip", path="/usr/sbin:/sbin")
    steps = [
        ["netns", "add", name],
        ["link", "add", here, "type", "veth", "peer", "name", "far0", "netns", name],
        ["addr", "add", "10.213.7.1/24", "dev", here],
        ["link", "set", here, "up"],
        ["-n", name, "addr", "add", "10.213.7.2/24", "dev", "far0"],
        ["-n", name, "link", "set", "far0", "up"],
        ["-n", name, "link", "set", "lo", "up"],
    ]
    if ip is None:
        pytest.skip("no ip command")
    for step in steps:
        if subprocess.run([ip, *step], capture_output=True, check=False).returncode:
            subprocess.run([ip, "netns", "del", name], capture_output=True, check=False)
            pytest.skip("no network namespace can be made here")
    yield name, here
    subprocess.run([ip, "netns", "del", name], check=False)
    subprocess.run([ip, "link", "del", here], capture_output=True, check=False)


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_a_cable_that_is_pulled_for_seventy_seconds(
    loop: Loop, own_mosquitto: MosquittoBroker, far_side: tuple[str, str]
) -> None:
    name, cable = far_side
    own_mosquitto.kill()
    own_mosquitto.host = "0.0.0.0"
    own_mosquitto.start()
    session, row = plan(repetitions=6, speed=1.0), Row("cable pulled for 70 s (network namespace)")
    loop.launch["edge-1"] = ("ip", "netns", "exec", name, EMBRIDGE)
    loop.write_plan(session)
    loop.start_cloud()
    loop.start_edge(EMBRIDGE_MQTT__HOST="10.213.7.1", EMBRIDGE_MQTT__INSECURE="true")
    until(lambda: loop.committed() > 500, 30, "the first commits")
    before = loop.spooled()["recorded"]
    with row.struck(loop):
        subprocess.run(["ip", "link", "set", cable, "down"], check=True)
        time.sleep(70.0)
        assert loop.spooled()["recorded"] > before
        subprocess.run(["ip", "link", "set", cable, "up"], check=True)
    finish(loop, row, session, 300)
