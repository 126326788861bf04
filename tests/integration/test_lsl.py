"""LSL both ways: hand pose from an outlet, and a session republished as outlets that an inlet elsewhere records."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import uuid
from pathlib import Path

import msgspec
import numpy as np
import pytest

from embridge_edge import solo
from embridge_edge.capture import Chunker
from embridge_edge.lsl_out import LslOut, marks
from embridge_edge.plan import SessionPlan, SyntheticSource
from embridge_edge.pose import plan as plans
from embridge_edge.pose.catalogue import open_pose
from embridge_edge.source import Packet
from embridge_edge.spool import Spool
from embridge_shared.clock import SystemClock
from embridge_shared.errors import DeviceError, Reason
from embridge_shared.session import CueShown, Participant, Repetition, Session
from embridge_shared.settings import EdgeSettings
from embridge_shared.signal import Modality, SampleType, StreamSpec
from embridge_shared.wire import codec

pylsl = pytest.importorskip("pylsl")

CLOCK = SystemClock()

RECORDER = """
import json, sys, time, pylsl
wanted, lengths, seconds = sys.argv[1].split(","), json.loads(sys.argv[2]), float(sys.argv[3])
inlets = []
for source in wanted:
    found = pylsl.resolve_byprop("source_id", source, 1, 20.0)
    assert found, source
    inlets.append(pylsl.StreamInlet(found[0], max_buflen=60))
    inlets[-1].open_stream(10.0)
print("ready", flush=True)
got = [([], []) for _ in inlets]
deadline = time.monotonic() + seconds
while time.monotonic() < deadline and any(len(g[1]) < n for g, n in zip(got, lengths)):
    for inlet, (samples, stamps) in zip(inlets, got):
        new, times = inlet.pull_chunk(0.05, 4096)
        samples += new
        stamps += times
print(json.dumps([{"samples": s, "stamps": t, "info": i.info().as_xml()} for i, (s, t) in zip(inlets, got)]))
"""


@pytest.fixture(autouse=True)
def loopback(monkeypatch, tmp_path):
    """LSL that stays on this computer and says nothing."""
    config = tmp_path / "lsl_api.cfg"
    config.write_text("[multicast]\nResolveScope = machine\n[log]\nlevel = -3\n")
    monkeypatch.setenv("LSLAPICFG", str(config))


def recorder(sources: list[str], lengths: list[int], seconds: float = 20.0) -> subprocess.Popen[str]:
    """A process of its own that records outlets until it has so many samples of each."""
    return subprocess.Popen(
        [sys.executable, "-c", RECORDER, ",".join(sources), json.dumps(lengths), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
    )


def recorded(process: subprocess.Popen[str]) -> list[dict]:
    out, _ = process.communicate(timeout=40)
    assert process.returncode == 0
    return json.loads(out.splitlines()[-1])


def session(name: str, *streams: StreamSpec) -> Session:
    return Session(
        id=uuid.uuid4(),
        edge=name,
        participant=Participant(id="p"),
        streams=streams,
        started_ns=CLOCK.wall_ns(),
        host_ns=CLOCK.monotonic_ns(),
    )


# out


def test_marks_are_in_order_of_time():
    cue = CueShown(gesture="fist", repetition=1, start_ns=0, end_ns=50)
    done = Repetition(gesture="fist", repetition=1, start_ns=10, end_ns=40)
    assert marks([done, cue]) == [
        (0, "cue:fist:1:start"),
        (10, "repetition:fist:1:start"),
        (40, "repetition:fist:1:end"),
        (50, "cue:fist:1:end"),
    ]


def test_another_process_records_what_is_republished():
    name = f"t{uuid.uuid4().hex[:8]}"
    spec = StreamSpec(
        name="emg",
        modality=Modality.EMG,
        channels=("a", "b"),
        rate_hz=1000.0,
        unit="µV",
        scale=0.5,
        calibrated=True,
        device="testband",
    )
    made = session(name, spec)
    chunker = Chunker(made, 0, 0.5)
    notes = [CueShown(gesture="fist", repetition=1, start_ns=0, end_ns=200_000_000)]
    out = LslOut(made, [chunker.clock], notes, clock=CLOCK)
    process = recorder([f"embridge:{name}:emg", f"embridge:{name}:markers"], [1800, 2])
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    rng, sent, taken = np.random.default_rng(0), [], []
    for k in range(0, 2000, 20):
        if 1000 <= k < 1200:
            continue
        samples = rng.integers(-1000, 1000, (20, 2)).astype(np.int16)
        # 40 ms after it was taken, and up to 5 ms later than that.
        packet = Packet(k, samples, made.host_ns + round((k + 19) * 1e6 + 40e6 + rng.exponential(2e6)))
        chunker.push(packet)
        out.packet(0, packet)
        out.advance(packet.host_ns - made.host_ns)
        sent.append(samples)
        taken += [made.host_ns * 1e-9 + i / 1000 + 0.04 for i in range(k, k + 20)]
    emg, markers = recorded(process)
    np.testing.assert_array_equal(np.array(emg["samples"], np.float32), np.concatenate(sent) * np.float32(0.5))
    stamps = np.array(emg["stamps"])
    assert (np.diff(stamps) > 0).all()
    assert np.abs(stamps - taken).max() < 0.005
    assert np.diff(stamps).max() == pytest.approx(0.2, abs=0.005)
    assert [m for [m] in markers["samples"]] == ["cue:fist:1:start", "cue:fist:1:end"]
    assert np.diff(markers["stamps"])[0] == pytest.approx(0.2, abs=1e-6)
    assert markers["stamps"][0] == pytest.approx(made.host_ns * 1e-9, abs=0.001)
    info = emg["info"]
    for piece in (
        "<type>EMG</type>",
        "<channel_count>2</channel_count>",
        "<nominal_srate>1000.",
        "<label>b</label>",
        "<unit>microvolts</unit>",
        "<model>testband</model>",
        "<can_drop_samples>true</can_drop_samples>",
        f"<session>{made.id}</session>",
    ):
        assert piece in info, piece


@pytest.mark.radio
async def test_a_recorded_session_and_its_outlets_hold_the_same(tmp_path):
    name = f"t{uuid.uuid4().hex[:8]}"
    plan = SessionPlan(
        name="s",
        participant="p",
        source=SyntheticSource(wearer=1, performance=1, gestures=("fist",), repetitions=1),
        lsl_out=True,
    )
    process = recorder([f"embridge:{name}:{s}" for s in ("emg", "pose", "markers")], [10**9] * 3, 12.0)
    settings = EdgeSettings(name=name, state_dir=tmp_path / "edge")
    digest = await solo.record(plan, settings, clock=CLOCK)
    emg, pose, markers = await asyncio.to_thread(recorded, process)
    spool = Spool(tmp_path / "edge" / "spool.db", 1 << 30)
    known = spool.session("s")
    assert known is not None
    streams = msgspec.msgpack.decode(known.description, type=Session).streams
    chunks = [codec.decode(i.payload) for i in spool.pending(0, 10_000) if i.stream >= 0]
    spool.close()
    assert digest.streams[0].samples > 2000
    for ordinal, heard in ((0, emg), (1, pose)):
        values = np.concatenate([c.samples for c in chunks if c.stream == ordinal]).astype(np.float32)
        got = np.array(heard["samples"], np.float32)
        # The inlet joined while the session ran: it has the rest of it.
        assert len(got) > 0.3 * len(values)
        assert (np.diff(heard["stamps"]) > 0).all()
        np.testing.assert_array_equal(got, values[-len(got) :] * np.float32(streams[ordinal].scale))
    assert markers["samples"][-1][0].endswith("fist:1:end")


# in


@pytest.mark.parametrize("rate_hz", [120.0, 0.0], ids=["regular", "irregular"])
async def test_pose_from_an_outlet(rate_hz):
    name = f"t{uuid.uuid4().hex[:8]}"
    outlet = pylsl.StreamOutlet(pylsl.StreamInfo(name, "MoCap", 20, rate_hz, pylsl.cf_float32, name))
    source = open_pose(plans.LslPoseSource(stream=name, rate_hz=120.0), Path(), CLOCK)
    values = np.random.default_rng(0).normal(0, 0.5, (120, 20)).astype(np.float32)

    async def send() -> None:
        while not outlet.have_consumers():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        began = pylsl.local_clock()
        for i, row in enumerate(values):
            if not 50 <= i < 60:
                outlet.push_sample(row.tolist(), began + i / 120)
        broken = [float("nan")] * 20
        outlet.push_sample(broken, began + 1.0)

    sending = asyncio.create_task(send())
    await source.open(time.monotonic_ns())
    packets = []
    async for packet in source.packets():
        packets.append(packet)
        if len(packets) == 110:
            break
    await sending
    await asyncio.sleep(0.3)
    await source.close()
    assert [p.first for p in packets] == [*range(50), *range(60, 120)]
    np.testing.assert_array_equal(np.concatenate([p.samples for p in packets]), np.delete(values, np.s_[50:60], 0))
    times = np.array([p.host_ns for p in packets])
    np.testing.assert_allclose(np.diff(times[:50]) * 1e-9, 1 / 120, atol=2e-4)
    assert abs(times[0] - time.monotonic_ns()) < 10e9
    assert source.state().lost == 10
    assert source.state().garbage == 1


async def test_a_pose_outlet_of_another_shape_is_refused():
    name = f"t{uuid.uuid4().hex[:8]}"
    outlet = pylsl.StreamOutlet(pylsl.StreamInfo(name, "MoCap", 63, 60.0, pylsl.cf_float32, name))
    source = open_pose(plans.LslPoseSource(stream=name), Path(), CLOCK)
    with pytest.raises(DeviceError, match="63 channels at 60 Hz, not 20") as failed:
        await source.reach()
    assert failed.value.reason is Reason.WRONG_SHAPE
    await source.close()
    del outlet


async def test_a_pose_outlet_that_sends_nothing_is_told():
    name = f"t{uuid.uuid4().hex[:8]}"
    outlet = pylsl.StreamOutlet(pylsl.StreamInfo(name, "MoCap", 20, 60.0, pylsl.cf_float32, name))
    source = open_pose(plans.LslPoseSource(stream=name, wait_s=0.5), Path(), CLOCK)
    with pytest.raises(DeviceError) as failed:
        await source.reach()
    assert failed.value.reason is Reason.SILENT
    await source.close()
    del outlet


def test_float_streams_go_out_as_they_are():
    spec = StreamSpec(name="pose", modality=Modality.POSE, channels=("x",), rate_hz=60.0, dtype=SampleType.FLOAT32)
    made = session(f"t{uuid.uuid4().hex[:8]}", spec)
    chunker = Chunker(made, 0, 0.5)
    out = LslOut(made, [chunker.clock], [], clock=CLOCK)
    packet = Packet(0, np.ones((1, 1), np.float32), made.host_ns)
    chunker.push(packet)
    out.packet(0, packet)
