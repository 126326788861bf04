"""From a planned session on an edge to a sealed folder in the cloud: the commands, a broker, nothing replaced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat

from embridge_cloud.store.sealed import Samples, SealedSession
from embridge_edge.plan import ReplaySource, Selection, SessionPlan, SyntheticSource
from embridge_shared.session import CueShown, Repetition
from support.loop import Loop, assert_recorded, rehearse

RATE_HZ = 100.0
MARGIN_S = 0.5
GESTURES = {"index_flexion": 1, "thumb_flexion": 11}
REPETITION = 3


@pytest.fixture
def loop(tmp_path: Path, own_mosquitto) -> Iterator[Loop]:
    loop = Loop(tmp_path, own_mosquitto.port)
    yield loop
    loop.close()


def record(loop: Loop, plan: SessionPlan) -> SealedSession:
    loop.write_plan(plan)
    loop.start_cloud()
    loop.start_edge()
    loop.wait_edge()
    (sealed,) = loop.sealed()
    state = loop.spooled()
    assert (state["waiting"], state["refused"], state["closed"]) == (0, 0, 1)
    assert loop.get("/api/quarantine")["messages"] == []
    return sealed


def within(samples: Samples, span: CueShown | Repetition) -> np.ndarray:
    """Indices of the samples that were taken during a cue or a repetition."""
    return samples.index[(samples.t_ns >= span.start_ns) & (samples.t_ns < span.end_ns)]


@pytest.mark.real_data
def test_a_real_recording_is_sealed_sample_by_sample(loop: Loop, data_dir: Path) -> None:
    path = data_dir / "ninapro_db1" / "S1_A1_E1.mat"
    select = Selection(gestures=tuple(GESTURES), repetitions=(REPETITION,), margin_s=MARGIN_S)
    source = ReplaySource(path=str(path), speed=0.0, select=select)
    plan = SessionPlan(name="s1", participant="ninapro-s1", source=source, protocol="ninapro-db1-e1/1")
    sealed = record(loop, plan)
    assert_recorded(sealed, rehearse(plan))
    assert (sealed.session.source, sealed.session.protocol) == ("replay:S1_A1_E1", "ninapro-db1-e1/1")
    # The same once more from the file itself, sample by sample.
    mat = loadmat(path)
    label, repetition = mat["restimulus"].ravel(), mat["rerepetition"].ravel()
    margin = round(MARGIN_S * RATE_HZ)
    index = np.zeros(len(label), bool)
    for code in GESTURES.values():
        (done,) = np.nonzero((label == code) & (repetition == REPETITION))
        index[done[0] - margin : done[-1] + 1 + margin] = True
    for name in ("emg", "glove"):
        found = sealed.samples(name)
        np.testing.assert_array_equal(found.index, np.flatnonzero(index))
        np.testing.assert_array_equal(found.values, mat[name][index].astype(np.float32))
    # A movement's samples are those the file labels so, to within one sample at its ends.
    emg, repetitions = sealed.samples("emg"), {r.gesture: r for r in sealed.repetitions()}
    assert {c.gesture for c in sealed.cues()} == set(repetitions) == set(GESTURES)
    for gesture, code in GESTURES.items():
        (labelled,) = np.nonzero((label == code) & (repetition == REPETITION))
        taken = within(emg, repetitions[gesture])
        assert abs(taken[0] - labelled[0]) <= 1
        assert abs(taken[-1] - labelled[-1]) <= 1


def test_a_lossy_synthetic_session_keeps_its_gaps_and_its_time(loop: Loop) -> None:
    source = SyntheticSource(
        wearer=3, performance=1, gestures=("fist", "point"), repetitions=2, speed=20.0, shuffled=True, loss=0.02
    )
    plan = SessionPlan(name="lossy", participant="p3", source=source)
    sealed = record(loop, plan)
    expected = rehearse(plan)
    assert_recorded(sealed, expected)
    emg = sealed.samples("emg")
    lost = sum(b - a for a, b in sealed.gaps("emg"))
    assert lost == emg.index[-1] + 1 - len(emg.index)
    assert 0.005 < lost / emg.index[-1] < 0.05
    assert len(sealed.gaps("emg")) > 5
    # The device started 12 ms after the session and its packets take 10 ms at least; the clock is off by no more.
    true_s = 0.012 + emg.index / (2000.0 * (1 - 18e-6))
    late_s = (emg.t_ns - sealed.session.started_ns) * 1e-9 - true_s
    assert 0.0 < late_s.min() <= late_s.max() < 0.025
    assert len(sealed.repetitions()) == len(sealed.cues()) == 4
    rest = np.ones(len(emg.index), bool)
    for repetition in sealed.repetitions():
        rest &= (emg.t_ns < repetition.start_ns - 300_000_000) | (emg.t_ns > repetition.end_ns + 300_000_000)
    quiet = emg.values[rest].std(axis=0)
    for repetition in sealed.repetitions():
        active = np.isin(emg.index, within(emg, repetition))
        assert (emg.values[active].std(axis=0) / quiet).max() > 3
    # Hand and muscle on one time: the tracker sees the hand away from rest during the same repetitions.
    pose = sealed.samples("pose")
    still = pose.values[pose.t_ns < min(r.start_ns for r in sealed.repetitions())].mean(axis=0)
    for repetition in sealed.repetitions():
        held = np.isin(pose.index, within(pose, repetition))
        assert np.abs(pose.values[held] - still).max() > 0.5
