"""Hand pose beside a live band in one session, and the commands about it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from embridge_edge import band_plan, plan, pose_cli, solo, wall
from embridge_edge.bands.protocol import open_profile
from embridge_edge.plan import SessionPlan
from embridge_edge.pose import plan as pose_plan
from embridge_edge.pose.gloves import ROUTINE, load_calibration
from embridge_edge.spool import EVENTS, Spool
from embridge_shared.clock import SystemClock
from embridge_shared.errors import ConfigError, DataError, DeviceError, Reason
from embridge_shared.hand import CYBERGLOVE_SENSORS
from embridge_shared.session import ClockRead
from embridge_shared.settings import EdgeSettings
from embridge_shared.wire import codec
from embridge_shared.wire.messages import EventMessage, unpack
from support.bands import Ramp, RigThread


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Sender:
    """Sends frames to a port until stopped."""

    def __init__(self, port: int, values, key: str = "pose", rate_hz: float = 100.0) -> None:
        self._port, self._values, self._key, self._rate_hz = port, values, key, rate_hz
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        frame = 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            while not self._stop.wait(1 / self._rate_hz):
                values = self._values(frame) if callable(self._values) else self._values
                s.sendto(json.dumps({"frame": frame, self._key: values}).encode(), ("127.0.0.1", self._port))
                frame += 1

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def rig():
    with RigThread() as thread:
        yield thread


def session(rig, pose, seconds=1.5):
    rig.add("open", Ramp(2000.0, 16, open_profile.UV_PER_COUNT))
    source = band_plan.OpenSource(adapter=f"tcp-client:127.0.0.1:{rig.do(rig.rig.serve())}", duration_s=seconds)
    return SessionPlan(name="a", participant="p1", source=source, pose=pose)


def kept(folder):
    """Items of a spool, chunks and events."""
    spool = Spool(folder / "spool.db", 1 << 30)
    items = spool.pending(0, 10_000)
    spool.close()
    chunks = [codec.decode(i.payload) for i in items if i.stream >= 0]
    events = [unpack(i.payload, EventMessage).event for i in items if i.stream == EVENTS]
    return chunks, events


async def test_a_band_and_a_hand_are_recorded_together_and_end_together(rig, tmp_path, monkeypatch):
    monkeypatch.setattr(wall, "READ_EVERY_S", 0.3)
    port = free_port()
    recipe = session(rig, pose_plan.UdpPoseSource(port=port, rate_hz=100.0))
    with Sender(port, [0.1] * 20):
        digest = await solo.record(recipe, EdgeSettings(name="e", state_dir=tmp_path), clock=SystemClock())
    emg, pose = digest.streams
    assert digest.reason == "complete"
    assert (emg.name, pose.name) == ("emg", "pose")
    assert emg.samples == 3000
    assert 100 < pose.samples < 200
    chunks, events = kept(tmp_path)
    hand = [c for c in chunks if c.stream == 1]
    assert hand[0].first == 0
    assert all((c.samples == np.float32(0.1)).all() for c in hand)
    began = [next(c.t0_ns for c in chunks if c.stream == s) for s in (0, 1)]
    assert abs(began[1] - began[0]) < 1e9
    reads = [e for e in events if isinstance(e, ClockRead)]
    assert 3 <= len(reads) <= 6
    offsets = [r.t_ns - r.host_ns for r in reads]
    assert max(offsets) - min(offsets) < 50e6


async def test_no_session_is_begun_without_its_hand(rig, tmp_path):
    recipe = session(rig, pose_plan.UdpPoseSource(port=free_port(), wait_s=0.3))
    with pytest.raises(DeviceError) as failed:
        await solo.record(recipe, EdgeSettings(name="e", state_dir=tmp_path), clock=SystemClock())
    assert failed.value.reason is Reason.SILENT
    spool = Spool(tmp_path / "spool.db", 1 << 30)
    assert spool.sessions() == []
    spool.close()


async def test_a_hand_that_falls_silent_does_not_end_the_session(rig, tmp_path):
    port = free_port()
    recipe = session(rig, pose_plan.UdpPoseSource(port=port, rate_hz=100.0), seconds=1.5)
    sender = Sender(port, [0.1] * 20)
    states = []
    with sender:
        recording = asyncio.create_task(
            solo.record(
                recipe,
                EdgeSettings(name="e", state_dir=tmp_path),
                clock=SystemClock(),
                began=lambda t: states.append(t),
            )
        )
        while not states or states[0].states()[-1].received < 20:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    digest = await recording
    assert digest.reason == "complete"
    assert digest.streams[0].samples == 3000
    assert 20 <= digest.streams[1].samples < 140


async def test_a_wall_clock_that_steps_is_told(caplog):
    class Stepping:
        now_ns = 0

        def wall_ns(self):
            return self.now_ns + (3_600_000_000_000 if self.now_ns > 15e9 else 0)

        def monotonic_ns(self):
            return self.now_ns

        async def sleep(self, seconds):
            self.now_ns += round(seconds * 1e9)
            await asyncio.sleep(0)

    written = []

    async def write(events):
        written.extend(events)
        if len(written) == 3:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await wall.keep_reading(Stepping(), write)
    assert [e.host_ns for e in written] == [10_000_000_000, 20_000_000_000, 30_000_000_000]
    assert [e.t_ns - e.host_ns for e in written] == [0, 3_600_000_000_000, 3_600_000_000_000]
    assert [r.message for r in caplog.records] == ["the wall clock stepped by 3600.000 s; samples keep their times"]


def test_a_plan_with_a_hand(tmp_path):
    path = tmp_path / "plan.toml"
    text = (
        '[[session]]\nname = "a"\nparticipant = "p"\nlsl_out = true\n'
        "[session.source]\n{source}\n[session.pose]\nkind = 'osc'\nport = 9001\nunit = 'deg'\n"
    )
    path.write_text(text.format(source="kind = 'myo'"))
    [entry] = plan.load(path).session
    assert entry.pose == pose_plan.OscPoseSource(port=9001, unit=pose_plan.Angle.DEGREES)
    assert entry.lsl_out is True
    path.write_text(text.format(source="kind = 'replay'\npath = 'x.mat'"))
    with pytest.raises(ConfigError, match="beside a live band"):
        plan.load(path)


# commands


def run(*arguments):
    return CliRunner().invoke(pose_cli.app, [str(a) for a in arguments])


def test_stream_tells_of_frames_and_of_faults():
    port = free_port()
    with Sender(port, [0.0] * 20):
        done = run("stream", f"udp:{port}", "--rate", 100, "--seconds", 1.2, "--every", 0.5, "--json")
    assert done.exit_code == 0, done.output
    row = json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1])
    assert (row["stream"], row["phase"], row["lost"]) == ("pose", "streaming", 0)
    assert row["received"] > 40
    with Sender(port, [0.0] * 3):
        done = run("stream", f"udp:{port}", "--seconds", 0.5, "--json")
    assert isinstance(done.exception, DeviceError)
    assert "wrong number of values" in str(done.exception)


def test_scan_finds_senders():
    pytest.importorskip("pylsl")
    udp, osc = free_port(), free_port()
    with Sender(udp, [0.0] * 22, "glove"):
        done = run("scan", "--seconds", 0.5, "--udp", udp, "--osc", osc, "--json")
    [found] = [f for f in json.loads(done.stdout) if f["source"] == f"udp:{udp}"]
    assert found["measured"] == "glove"
    assert "frames of glove" in found["what"]


def test_a_glove_is_calibrated_by_command(tmp_path, monkeypatch):
    levels = {"rest": 130.0, "fist": 220.0, "flat": 100.0, "spread": 110.0, "thumb": 105.0}
    held, echo = ["rest"], typer.echo

    def follow(message, **options):
        """The wearer does what the prompt says."""
        held.extend(p.name for p in ROUTINE if str(message).startswith(p.prompt))
        echo(message, **options)

    monkeypatch.setattr(typer, "echo", follow)
    port, out = free_port(), tmp_path / "glove.json"
    with Sender(port, lambda _: [levels[held[-1]] + i for i in range(len(CYBERGLOVE_SENSORS))], "glove", 200.0):
        done = run(
            "calibrate", out, f"udp:{port}", "--participant", "p1", "--rate", 200, "--prepare", 0.15, "--hold", 0.25
        )
    assert done.exit_code == 0, done.output
    assert held[1:] == [p.name for p in ROUTINE]
    assert f"{out}: name it in the plan" in done.stdout
    calibration = load_calibration(out)
    assert calibration.offset[:3] == (130.0, 131.0, 132.0)
    assert isinstance(run("calibrate", out, f"udp:{port}", "--participant", "p1").exception, DataError)
    assert isinstance(run("stream", "vicon").exception, ConfigError)
    assert isinstance(run("stream", "udp:many").exception, ConfigError)
