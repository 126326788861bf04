"""A participant is erased from a deployment that runs: cloud, edge, backups; with the cloud killed meanwhile."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from conftest import MosquittoBroker
from embridge_edge.plan import SessionPlan, SyntheticSource
from embridge_shared.signal import Arrivals, Chunk
from embridge_shared.wire import codec
from support.loop import Loop, rehearse, until

NAME = "subject-4711"


@pytest.fixture
def loop(tmp_path: Path, own_mosquitto: MosquittoBroker) -> Iterator[Loop]:
    root = tmp_path / "cloud" / "registry" / "repository" / "metadata" / "1.root.json"
    settings = {
        "EMBRIDGE_EDGE__UPDATE_ROOT": str(root),
        "EMBRIDGE_STORE__BACKUP_DIR": str(tmp_path / "backups"),
        "EMBRIDGE_STORE__VIEWS_EVERY_S": "1",
        "EMBRIDGE_CLOUD__STATE_DIR": str(tmp_path / "cloud"),
    }
    loop = Loop(tmp_path, own_mosquitto.port, settings)
    yield loop
    loop.close()


def traces(folder: Path, samples: np.ndarray) -> list[str]:
    marks = [NAME.encode(), NAME.encode("utf-16-le"), NAME.encode("utf-16-be")]
    for at in range(0, len(samples) - 64, len(samples) // 40):
        marks += [samples[at : at + 16].tobytes(), np.ascontiguousarray(samples[at : at + 32, 0]).tobytes()]
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != "plan.json"]
    return [str(p) for p in files if any(mark in p.read_bytes() for mark in marks)]


def payloads(loop: Loop) -> list[bytes]:
    """Bodies of chunks as they were on the wire: what the hot file and the spool kept."""
    (sealed,) = [s for s in loop.catalogue.sessions() if s.session.participant.id == NAME]
    found = []
    values = sealed.samples("emg")
    for at in range(0, len(values.values) - 400, 400):
        none = Arrivals(np.zeros(0, np.int64), np.zeros(0, np.int64))
        chunk = Chunk(sealed.id, 0, int(values.index[at]), values.values[at : at + 400], 0, 0, none)
        found.append(codec.encode(chunk)[-200:])
    return found


@pytest.mark.faults
@pytest.mark.parametrize("after_s", [0.05, 0.4, 1.0])
def test_nothing_is_left_in_any_file_of_a_deployment(
    loop: Loop, own_mosquitto: MosquittoBroker, after_s: float
) -> None:
    def plan(number: int, participant: str) -> SessionPlan:
        source = SyntheticSource(wearer=number, performance=1, gestures=("fist", "point"), repetitions=1, speed=0.0)
        return SessionPlan(name=f"take-{number}", participant=participant, source=source)

    plans = [plan(1, NAME), plan(2, "other")]
    loop.write_plan(*plans)
    loop.start_cloud()
    loop.start_edge()
    loop.wait_edge()
    loop.sealed(2)
    assert loop.run("store", "backup", "--keys").returncode == 0
    samples = rehearse(plans[0]).values["emg"]
    bodies = payloads(loop)
    assert traces(loop.folder, samples)

    eraser = loop.start("eraser", "participant", "erase", NAME, "--yes")
    until(lambda: "participant.erase" in loop.run("audit", "list").stdout or eraser.poll() is not None, 20)
    time.sleep(after_s)
    loop.kill("cloud")
    loop.start_cloud()
    plain = SessionPlan(name="take-3", participant="other", source=plans[1].source)
    loop.write_plan(plain)
    loop.start("edge-1", "edge", "run", "--name", "edge-1", "--state-dir", "edge-1")

    def done() -> bool:
        rows = json.loads(loop.run("participant", "erasures", "--json").stdout or "[]")
        return bool(rows) and all(r["stage"] == "done" for r in rows)

    until(done, 60, "the edge to answer")
    loop.stop("edge-1")
    assert "unbroken" in loop.run("audit", "verify").stdout
    loop.stop("cloud")
    assert traces(loop.folder, samples) == []
    left = [str(p) for p in loop.folder.rglob("*") if p.is_file() and any(b in p.read_bytes() for b in bodies)]
    assert left == []
    (kept,) = loop.catalogue.sessions()
    assert kept.session.participant.id == "other"
    kept.verify()
    np.testing.assert_array_equal(kept.samples("emg").values, rehearse(plans[1]).values["emg"])
