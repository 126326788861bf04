"""A hot file is harmed while an edge goes on: the cloud says so, the repair saves what there is and names the rest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from conftest import MosquittoBroker
from embridge_cloud.store.ranges import RangeSet
from embridge_edge.plan import SessionPlan, SyntheticSource
from embridge_shared.errors import ExitCode
from support.loop import Loop, rehearse, until
from support.proof import Row


@pytest.fixture
def loop(tmp_path: Path, own_mosquitto: MosquittoBroker) -> Iterator[Loop]:
    loop = Loop(tmp_path, own_mosquitto.port, {"EMBRIDGE_EDGE__CHUNK_S": "0.2"})
    yield loop
    loop.close()


def harm(folder: Path, how: str) -> None:
    """Change the files that a killed process has left."""
    (log,) = folder.glob("*.wal")
    file = log.with_suffix("")
    if how == "log lost":
        log.unlink()
    elif how == "log cut":
        with log.open("r+b") as opened:
            opened.truncate(log.stat().st_size - 30_000)
    elif how == "file of zeros":
        file.write_bytes(bytes(file.stat().st_size))
    elif how == "file cut":
        with file.open("r+b") as opened:
            opened.truncate(file.stat().st_size - 5_000)


@pytest.mark.faults
@pytest.mark.parametrize("how", ["log cut", "log lost", "file cut", "file of zeros"])
def test_what_a_harmed_store_lost_is_named_to_the_sample(loop: Loop, how: str) -> None:
    source = SyntheticSource(wearer=4, performance=1, gestures=("fist", "point"), repetitions=3, speed=3.0, loss=0.02)
    session, row = SessionPlan(name="harm", participant="p4", source=source), Row(f"hot store: {how}", runs=1)
    loop.write_plan(session)
    loop.start_cloud()
    loop.start_edge()
    until(lambda: loop.committed() > 8000, 60, "some commits")
    loop.kill("cloud")
    harm(loop.folder / "cloud" / "hot", how)
    loop.start_cloud(wait=False)
    # What is whole again by itself starts; what is not says how to go on.
    until(lambda: loop.running["cloud"].poll() is not None or (loop.folder / "ready.json").exists(), 30, "an answer")
    gone: dict[str, RangeSet] = {}
    if loop.running["cloud"].poll() is not None:
        assert loop.running["cloud"].returncode == ExitCode.FAILED
        assert "embridge cloud repair" in loop.log("cloud")
        assert "Traceback" not in loop.log("cloud")
        done = loop.run("cloud", "repair", "--state-dir", "cloud", "--json")
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        gone = {m["name"]: RangeSet(map(tuple, m["ranges"])) for m in report["missing"]}
        loop.start_cloud()
    loop.wait_edge(timeout_s=120)
    expected = rehearse(session)
    if gone:
        # The edge delivered the rest; what is gone keeps the session from being sealed until somebody says so.
        (state,) = loop.get("/api/sessions")
        assert state["state"] == "ended"
        done = loop.run("session", "seal", state["session"], "--force", "--reason", f"the store was harmed: {how}",
                        "--url", loop.url, EMBRIDGE_CLOUD__STATE_DIR="cloud")  # fmt: skip
        assert done.returncode == 0, done.stderr
    (sealed,) = loop.sealed()
    sealed.verify()
    for name, index in expected.index.items():
        found, lost = sealed.samples(name), gone.get(name, RangeSet())
        keep = np.array([not lost.covers(int(i), int(i) + 1) for i in index])
        np.testing.assert_array_equal(found.index, index[keep])
        np.testing.assert_array_equal(found.values, expected.values[name][keep])
        row.samples += len(index)
        row.lost += int((~keep).sum())
    row.write()
    assert (row.lost == 0) == (not any(g.count for n, g in gone.items() if n != "events"))
