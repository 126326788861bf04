"""An edge that never comes back: its session is sealed by force, and what it may still hold is not lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from conftest import MosquittoBroker
from embridge_edge.plan import SessionPlan, SyntheticSource
from embridge_shared.errors import ExitCode
from support.loop import Loop, rehearse, until


@pytest.fixture
def loop(tmp_path: Path, own_mosquitto: MosquittoBroker) -> Iterator[Loop]:
    loop = Loop(tmp_path, own_mosquitto.port, {"EMBRIDGE_EDGE__CHUNK_S": "0.2"})
    yield loop
    loop.close()


@pytest.mark.faults
def test_a_session_of_a_dead_edge_is_sealed_by_force(loop: Loop, own_mosquitto: MosquittoBroker) -> None:
    source = SyntheticSource(wearer=5, performance=2, gestures=("fist", "point"), repetitions=2, speed=4.0)
    plan = SessionPlan(name="dead", participant="p5", source=source)
    loop.write_plan(plan)
    loop.start_cloud()
    loop.start_edge()
    until(lambda: loop.committed() > 2000, 30, "some commits")
    loop.kill("edge-1")
    (row,) = loop.get("/api/sessions")
    url = ("--url", loop.url)
    asked = loop.run("session", "seal", row["session"], *url, EMBRIDGE_CLOUD__STATE_DIR="cloud")
    assert asked.returncode == ExitCode.REJECTED
    assert "never ended" in asked.stderr
    done = loop.run(
        "session", "seal", row["session"], "--force", "--reason", "the edge is gone", *url,
        EMBRIDGE_CLOUD__STATE_DIR="cloud",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (sealed,) = loop.sealed()
    sealed.verify()
    assert "the edge is gone" in sealed.manifest.closed.reason
    expected = rehearse(plan)
    found = sealed.samples("emg")
    at = np.searchsorted(expected.index["emg"], found.index)
    np.testing.assert_array_equal(expected.index["emg"][at], found.index)
    np.testing.assert_array_equal(expected.values["emg"][at], found.values)
    # The edge comes back after all: what it records is refused, and kept on both sides.
    waiting = loop.spooled()
    loop.start_edge()
    assert loop.running["edge-1"].wait(60) == ExitCode.FAILED
    state = loop.spooled()
    assert state["refused"] > 0
    assert state["recorded"] > waiting["recorded"]
    assert sum(r["messages"] for r in loop.get("/api/quarantine")["summary"]) == state["refused"]
