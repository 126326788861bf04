"""A real agent whose release is given up: by an operator while it records, and between two starts of a session."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from conftest import take_free_port
from embridge_edge import cli
from embridge_edge.agent import Agent
from embridge_edge.plan import load as load_plan
from embridge_edge.update.slots import FOLDER, Slots
from embridge_shared.clock import SystemClock
from embridge_shared.decision import DecisionConfig
from embridge_shared.release import read_bundle
from embridge_shared.settings import EdgeSettings, MqttSettings, Settings
from support import bundles
from support.ble import until

PLAN = """
[[session]]
name = "calibration"
participant = "p1"
purpose = "calibration"
[session.source]
kind = "synthetic"
wearer = 1
performance = 2
gestures = ["open", "fist"]
repetitions = 2
speed = 0
pose = false

[[session]]
name = "live"
participant = "p1"
decode = true
[session.source]
kind = "synthetic"
wearer = 1
performance = 1
gestures = ["open", "fist"]
repetitions = 3
speed = {speed}
pose = false
"""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory whose edge runs release 2 and ran release 1."""
    monkeypatch.setattr(bundles, "C", 16)
    slots = Slots(tmp_path / "state" / FOLDER)
    for version in (1, 2):
        bundle = bundles.make_bundle(tmp_path, version, version, channels=16, decision=DecisionConfig())
        slots.activate(Path(shutil.copy(bundle, slots.path(read_bundle(bundle).digest))))
    return tmp_path / "state"


def agent(state: Path, speed: float) -> Agent:
    plan = state.parent / "plan.toml"
    plan.write_text(PLAN.replace("{speed}", str(speed)))
    settings = Settings(
        edge=EdgeSettings(name="e1", state_dir=state, reserve_bytes=0),
        mqtt=MqttSettings(port=take_free_port()),
    )
    return Agent(settings, SystemClock(), load_plan(plan), state.parent)


async def test_a_session_goes_on_after_its_release_was_given_up(state, caplog):
    first = agent(state, 4.0)
    task = asyncio.create_task(first.run())
    await until(lambda: first.state().health is not None and first.state().health.windows > 5, 30)
    assert first.state().release == "embridge-2"
    said = await asyncio.to_thread(
        CliRunner().invoke, cli.app, ["rollback", "--reason", "worse", "--state-dir", str(state)]
    )
    assert said.exit_code == 0, said.output
    assert said.output == "embridge-1 runs from the next session on.\n"
    assert first.state().recording is not None, "the session goes on"
    assert first.state().health.release == "embridge-2", "with what it began with"
    assert str(first.state().update) == "rolled back: worse"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    second = agent(state, 0.0)
    task = asyncio.create_task(second.run())
    await until(lambda: len(second.digests) == 1, 30)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    (digest,) = second.digests
    assert (digest.name, digest.reason) == ("live", "complete")
    streams = {s.name: s for s in digest.streams}
    assert streams["decode"].samples > 5
    assert streams["emg"].samples > 20 * streams["decode"].samples
    assert "goes on without decoding" in caplog.text
    assert second.state().release == "embridge-1"
