"""Clean stops, a broker that is late, a full disk, and doubles: no loss, and errors that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from conftest import MosquittoBroker
from embridge_edge.plan import SessionPlan, SyntheticSource
from embridge_edge.spool import Item, Spool
from embridge_shared.errors import ExitCode
from embridge_shared.wire.messages import CommitReport, Refusal
from support.loop import Loop, assert_recorded, rehearse, until


@pytest.fixture
def loop(tmp_path: Path, own_mosquitto: MosquittoBroker) -> Iterator[Loop]:
    loop = Loop(tmp_path, own_mosquitto.port, {"EMBRIDGE_EDGE__CHUNK_S": "0.2"})
    yield loop
    loop.close()


def synthetic(**changes) -> SessionPlan:
    source = {"wearer": 6, "performance": 4, "gestures": ("fist", "point"), "repetitions": 2, "speed": 4.0}
    return SessionPlan(name="stop", participant="p6", source=SyntheticSource(**source | {"loss": 0.02} | changes))


def assert_complete(loop: Loop, plan: SessionPlan) -> None:
    loop.wait_edge()
    (sealed,) = loop.sealed()
    assert_recorded(sealed, rehearse(plan))
    state = loop.spooled()
    assert (state["waiting"], state["refused"], state["closed"]) == (0, 0, 1)
    assert "Traceback" not in loop.log("edge-1")


def assert_one_line(text: str, *words: str) -> None:
    """One line for people, with everything they need."""
    (line,) = [part for part in text.splitlines() if part.startswith("embridge: error: ")]
    assert "Traceback" not in text
    for word in words:
        assert word in line


def test_a_stopped_agent_goes_on_where_it_was(loop: Loop) -> None:
    plan = synthetic()
    loop.write_plan(plan)
    loop.start_cloud()
    recorded = 0
    for _ in range(3):
        loop.start_edge()
        until(lambda more=recorded + 5000: loop.spooled()["recorded"] >= more, 30, "to record more")
        assert loop.stop("edge-1") == ExitCode.INTERRUPTED
        recorded = loop.spooled()["recorded"]
        assert not loop.spooled()["closed"]
    until(lambda: not loop.get("/api/edges")[0]["online"], 5, "the edge to say goodbye")
    loop.start_edge()
    assert_complete(loop, plan)


def test_a_broker_that_comes_late_is_found(loop: Loop, own_mosquitto: MosquittoBroker) -> None:
    own_mosquitto.kill()
    plan = synthetic(speed=0.0)
    loop.write_plan(plan)
    loop.start_cloud(wait=False)
    loop.start_edge()
    until(lambda: loop.spooled()["closed"], 30, "the session to be recorded")
    assert loop.running["edge-1"].poll() is None
    assert not (loop.folder / "ready.json").exists()
    own_mosquitto.start()
    loop.wait_cloud()
    assert_complete(loop, plan)


def test_a_full_spool_stops_recording_and_goes_on_once_it_drains(loop: Loop, own_mosquitto: MosquittoBroker) -> None:
    own_mosquitto.kill()
    loop.settings["EMBRIDGE_EDGE__SPOOL_MAX_BYTES"] = str(1 << 20)
    plan = synthetic(repetitions=4, speed=8.0)
    loop.write_plan(plan)
    full = loop.run("edge", "run", "--plan", "plan.json", "--name", "edge-1", "--state-dir", "edge-1", "--until-done")
    assert full.returncode == ExitCode.FAILED
    assert_one_line(full.stderr, "the spool is full", "Restore the connection, or raise edge.spool_max_bytes.")
    state = loop.spooled()
    assert state["waiting"] > 10
    assert not state["closed"]
    # While there is no room nothing is recorded, and once there is, it goes on by itself.
    process = loop.start_edge()
    until(lambda: "waits for the cloud" in loop.log("edge-1") or process.poll() is not None, 20, "a word about it")
    assert process.poll() is None, loop.log("edge-1")
    assert loop.spooled() == state
    own_mosquitto.start()
    loop.start_cloud()
    assert_complete(loop, plan)


def test_a_second_agent_is_turned_away(loop: Loop) -> None:
    plan = synthetic()
    loop.write_plan(plan)
    loop.start_cloud()
    loop.start_edge()
    until(lambda: loop.spooled()["recorded"] > 4000, 30, "to record")
    second = loop.run("edge", "run", "--plan", "plan.json", "--name", "edge-2", "--state-dir", "edge-1", "--until-done")
    assert second.returncode == ExitCode.BUSY
    assert_one_line(second.stderr, "another agent runs in", "edge-1", "Stop that one")
    assert_complete(loop, plan)


def test_a_second_cloud_process_is_turned_away(loop: Loop) -> None:
    loop.start_cloud()
    second = loop.run("cloud", "run", "--state-dir", "cloud", "--http-port", "0")
    assert second.returncode == ExitCode.BUSY
    assert_one_line(second.stderr, "ingest-0-255.duckdb is open in another process", "stop that one")
    assert loop.get("/health") == {"state": "ready"}


def test_what_the_cloud_refused_makes_the_agent_fail_by_name(loop: Loop) -> None:
    plan = synthetic(speed=0.0)
    path = loop.write_plan(plan)
    session = uuid4()
    spool = Spool(path.parent / "edge-1" / "spool.db", 1 << 20)
    spool.put([Item(session, 0, 0, 10, "t", b"payload")])
    refusal = Refusal(stream=0, first=0, reason="wrong_shape", detail="3 channels where 16 are due")
    spool.settle(CommitReport(session=session, refused=(refusal,)))
    spool.close()
    loop.start_cloud()
    done = loop.run("edge", "run", "--name", "edge-1", "--state-dir", str(path.parent / "edge-1"), "--plan", str(path),
                    "--until-done")  # fmt: skip
    assert done.returncode == ExitCode.FAILED
    assert_one_line(done.stderr, "refused 1 item", "edge status")
    assert_recorded(loop.sealed()[0], rehearse(plan))
