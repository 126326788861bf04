"""Power cuts in an update: at every step towards the disk, and by SIGKILL at moments nobody chose."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from embridge_edge.update.slots import FOLDER, Slots
from embridge_shared.errors import Reason
from embridge_shared.fleet import UpdatePhase
from embridge_shared.release import read_bundle
from support.update_rig import Rig, every
from support.updates import TRIAL, Edge

pytestmark = pytest.mark.faults

CHILD = "support.update_child"


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    return Rig(tmp_path_factory.mktemp("power"))


def test_every_step_of_an_update(rig):
    assert every(rig, rig.update, stride=1, goals=("embridge-2",)) > 60


def test_every_step_of_a_rollback(rig):
    assert every(rig, rig.go_back, stride=1, goals=("embridge-2", "embridge-1")) > 60


def child(edge: Edge, *arguments: str, after_s: float | None = None) -> int:
    """An edge in a process of its own, which takes what it is asked for; killed so long after it was asked."""
    with subprocess.Popen(
        [sys.executable, "-m", CHILD, str(edge.folder), *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        if after_s is not None:
            time.sleep(after_s)
            process.send_signal(signal.SIGKILL)
        return process.wait(60)


def test_sigkill_at_any_moment(tmp_path):
    edge = Edge(tmp_path)
    first = edge.publish(1)
    second = msgspec.structs.replace(edge.publish(2), trial=TRIAL)
    (tmp_path / "first").write_bytes(msgspec.msgpack.encode(first))
    (tmp_path / "second").write_bytes(msgspec.msgpack.encode(second))
    assert child(edge, "first", "1000") == 0
    template = tmp_path / "template"
    shutil.copytree(edge.settings.state_dir, template)
    rng = random.Random(1)
    reached = set()
    for _ in range(25):
        shutil.rmtree(edge.settings.state_dir)
        shutil.copytree(template, edge.settings.state_dir)
        child(edge, "second", "30", after_s=rng.uniform(0, 0.6))
        pointer = Slots(edge.settings.state_dir / FOLDER).pointer()
        reached.add(pointer.told.phase)
        assert pointer.current is not None
        path = Slots(edge.settings.state_dir / FOLDER).path(pointer.current.digest)
        assert read_bundle(path, digest=pointer.current.digest).manifest.release in ("embridge-1", "embridge-2")
        assert child(edge, "second", "1000") == 0
        assert Slots(edge.settings.state_dir / FOLDER).current().name == "embridge-2"
    assert len(reached) > 1


def test_a_release_that_kills_the_process_goes_back_by_itself(tmp_path):
    edge = Edge(tmp_path)
    (tmp_path / "first").write_bytes(msgspec.msgpack.encode(edge.publish(1)))
    (tmp_path / "second").write_bytes(msgspec.msgpack.encode(msgspec.structs.replace(edge.publish(2), trial=TRIAL)))
    assert child(edge, "first", "1") == 0
    assert child(edge, "second", "1", "--deadly", "embridge-2") == -signal.SIGKILL
    assert child(edge, "second", "1", "--deadly", "embridge-2", "--down") == -signal.SIGKILL
    assert child(edge, "second", "1", "--deadly", "embridge-2", "--down") == 0
    pointer = Slots(edge.settings.state_dir / FOLDER).pointer()
    assert pointer.current.name == "embridge-1"
    assert pointer.told.phase is UpdatePhase.ROLLED_BACK
    assert pointer.told.reason == Reason.CRASHED
