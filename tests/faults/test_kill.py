"""Any process may be killed at any moment: nothing is lost, nothing is there twice."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from conftest import MosquittoBroker
from embridge_cloud.store.sealed import SealedSession
from embridge_edge.plan import ReplaySource, Selection, SessionPlan, SyntheticSource
from support.loop import Expected, Loop, rehearse, until
from support.proof import Row

PROCESSES = ("edge-1", "broker", "cloud")
KILLS = 5


@pytest.fixture
def loop(tmp_path: Path, own_mosquitto: MosquittoBroker) -> Iterator[Loop]:
    # A small window keeps delivery slower than every machine that runs this, so that kills find work under way.
    settings = {"EMBRIDGE_EDGE__CHUNK_S": "0.2", "EMBRIDGE_EDGE__WINDOW": "16"}
    loop = Loop(tmp_path, own_mosquitto.port, settings)
    yield loop
    loop.close()


def synthetic(**changes) -> SessionPlan:
    source = {"wearer": 5, "performance": 2, "gestures": ("fist", "point"), "repetitions": 3, "speed": 4.0}
    return SessionPlan(name="kill", participant="p5", source=SyntheticSource(**source | {"loss": 0.02} | changes))


def numbered(folder: Path) -> SessionPlan:
    """A recording whose every sample is another number, and of which one repetition in the middle is left out."""
    at, block = np.arange(9_000), 300
    label = np.where(at // block % 2, at // block // 2 % 3 + 1, 0)
    turn = np.where(label, at // block // 6 + 1, 0)
    counts = (at[:, None] + np.arange(10) * 0.0625).astype(np.float32)
    marks = {"stimulus": label, "restimulus": label, "repetition": turn, "rerepetition": turn}
    savemat(
        folder / "numbered.mat",
        {"emg": counts, "glove": -counts, "subject": [[9]], "exercise": [[1]]}
        | {name: values[:, None].astype(np.int16) for name, values in marks.items()},
    )
    source = ReplaySource(
        path="numbered.mat", rate_hz=100.0, speed=8.0, select=Selection(repetitions=(1, 2, 4, 5), margin_s=0.8)
    )
    return SessionPlan(name="kill", participant="p9", source=source)


def kill_mid_session(loop: Loop, broker: MosquittoBroker, victims: Sequence[str], span: int, row: Row) -> None:
    """Kill and restart processes one by one, each when the session has come some way further."""
    before, rng = 0, random.Random(len(victims))
    for number, victim in enumerate(victims, 1):
        goal = max(before + 1, span * number // (len(victims) + 2))
        before = until(partial(_passed, loop, goal), 60, f"{goal} of {span} to be committed")
        # A commit has just been seen; the kill shall not always come at the same point of a round.
        time.sleep(rng.uniform(0.0, 0.2))
        assert before < span
        assert loop.catalogue.ids() == []
        assert loop.running["edge-1"].poll() is None, loop.log("edge-1")
        assert victim != "edge-1" or not loop.spooled()["closed"] or len(set(victims)) > 1
        for name in victim.split("+"):
            broker.kill() if name == "broker" else loop.kill(name)
        with row.struck(loop):
            for name in reversed(victim.split("+")):
                restart(loop, broker, name)


def restart(loop: Loop, broker: MosquittoBroker, name: str) -> None:
    if name == "broker":
        broker.start()
    elif name == "cloud":
        loop.start_cloud()
    else:
        loop.start_edge(name)


def _passed(loop: Loop, goal: int) -> int:
    """What is committed, once it is `goal` or more."""
    committed = loop.committed()
    return committed if committed >= goal else 0


def assert_nothing_lost(loop: Loop, expected: Expected, row: Row) -> SealedSession:
    loop.wait_edge(timeout_s=120)
    (sealed,) = loop.sealed()
    row.compare(sealed, expected)
    state = loop.spooled()
    assert (state["waiting"], state["refused"], state["closed"]) == (0, 0, 1)
    assert loop.get("/api/quarantine")["messages"] == []
    assert loop.stop("cloud") == 0
    for name in ("edge-1", "cloud"):
        assert "Traceback" not in loop.log(name)
    return sealed


def assert_in_time(sealed: SealedSession) -> None:
    """A simulated band's samples keep their time over every restart of its agent."""
    emg = sealed.samples("emg")
    true_s = 0.012 + emg.index / (2000.0 * (1 - 18e-6))
    late_s = (emg.t_ns - sealed.session.started_ns) * 1e-9 - true_s
    assert 0.0 < late_s.min() <= late_s.max() < 0.04


def go_through(loop: Loop, broker: MosquittoBroker, plan: SessionPlan, victims: Sequence[str]) -> None:
    expected = rehearse(plan, loop.folder)
    loop.write_plan(plan)
    loop.start_cloud()
    loop.start_edge()
    kinds = sorted(set(victims))
    row = Row(f"SIGKILL of {kinds[0] if len(kinds) == 1 else 'all, random order'}")
    kill_mid_session(loop, broker, victims, expected.span, row)
    sealed = assert_nothing_lost(loop, expected, row)
    if isinstance(plan.source, SyntheticSource):
        assert_in_time(sealed)


@pytest.mark.parametrize("victim", PROCESSES)
def test_a_process_is_killed_five_times(loop: Loop, own_mosquitto: MosquittoBroker, victim: str) -> None:
    plan = synthetic() if victim == "edge-1" else numbered(loop.folder)
    go_through(loop, own_mosquitto, plan, [victim] * KILLS)


def test_all_processes_are_killed_in_random_order(loop: Loop, own_mosquitto: MosquittoBroker) -> None:
    # With the broker goes what it kept for the cloud process: then only the spool still holds what is not committed.
    victims = [*PROCESSES, "cloud+broker", "cloud+broker"]
    random.Random(5).shuffle(victims)
    go_through(loop, own_mosquitto, synthetic(), victims)


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("victim", [*PROCESSES, "cloud+broker"])
def test_a_process_is_killed_ten_times(loop: Loop, own_mosquitto: MosquittoBroker, victim: str) -> None:
    go_through(loop, own_mosquitto, synthetic(repetitions=6, speed=1.5), [victim] * 10)


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_all_processes_are_killed_ten_times_each_in_random_order(loop: Loop, own_mosquitto: MosquittoBroker) -> None:
    victims = [*PROCESSES, "cloud+broker"] * 10
    random.Random(7).shuffle(victims)
    go_through(loop, own_mosquitto, synthetic(repetitions=16, speed=1.5), victims)


@pytest.mark.faults
@pytest.mark.real_data
@pytest.mark.timeout(900)
def test_a_real_session_in_real_time_survives_twenty_kills(
    loop: Loop, own_mosquitto: MosquittoBroker, data_dir: Path
) -> None:
    del loop.settings["EMBRIDGE_EDGE__CHUNK_S"], loop.settings["EMBRIDGE_EDGE__WINDOW"]
    path = data_dir / "ninapro_db1" / "S2_A1_E1.mat"
    select = Selection(gestures=("index_flexion", "index_extension"))
    plan = SessionPlan(name="s2", participant="ninapro-s2", source=ReplaySource(path=str(path), select=select))
    go_through(loop, own_mosquitto, plan, random.Random(6).choices([*PROCESSES, "cloud+broker"], k=20))
