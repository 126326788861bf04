"""Hand pose from senders, cameras and gloves."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pythonosc.osc_bundle_builder import IMMEDIATELY, OscBundleBuilder
from pythonosc.osc_message_builder import OscMessageBuilder

from embridge_edge.pose import gloves
from embridge_edge.pose import plan as plans
from embridge_edge.pose.camera import CameraPose
from embridge_edge.pose.catalogue import open_pose
from embridge_edge.pose.grid import Grid
from embridge_edge.pose.live import LivePose
from embridge_edge.pose.network import NetworkPose
from embridge_edge.pose.payload import Fault, Frame, from_json, from_osc
from embridge_shared.clock import SystemClock
from embridge_shared.errors import ConfigError, DataError, DeviceError, Reason
from embridge_shared.hand import (
    CYBERGLOVE_SENSORS,
    JOINTS,
    LIMITS,
    REST,
    glove_to_joints,
    ik_failures,
    joint_angles,
    landmarks,
)
from embridge_shared.session import Side
from embridge_shared.signal import Modality

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "send_pose.py"
ANGLES = np.linspace(-0.3, 1.2, 20).astype(np.float32)


def as_json(frame: object, values: object, key: str = "pose") -> bytes:
    return json.dumps({"frame": frame, key: values}).encode()


def as_osc(frame: int, values: np.ndarray, address: str = "/embridge/pose") -> OscMessageBuilder:
    message = OscMessageBuilder(address)
    message.add_arg(frame, "i")
    for value in values:
        message.add_arg(float(value), "f")
    return message


# payloads


def test_a_frame_in_json():
    frame = from_json(as_json(2**32 + 7, ANGLES.tolist()), "pose", 20)
    assert isinstance(frame, Frame)
    assert frame.number == 7
    np.testing.assert_array_equal(frame.values, ANGLES)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", Fault.NOT_JSON),
        (b"\xff\xfe", Fault.NOT_JSON),
        (b"[" * 100_000, Fault.NOT_JSON),
        (b'{"frame": 1, "pose": [NaN]}', Fault.NOT_JSON),
        (b"[1, 2]", Fault.NO_FRAME),
        (b'{"pose": []}', Fault.NO_FRAME),
        (as_json(-1, [0.0] * 20), Fault.NO_FRAME),
        (as_json(True, [0.0] * 20), Fault.NO_FRAME),
        (as_json(1.5, [0.0] * 20), Fault.NO_FRAME),
        (as_json(1, None), Fault.NO_VALUES),
        (as_json(1, [0.0] * 20, "glove"), Fault.NO_VALUES),
        (as_json(1, [True] * 20), Fault.NO_VALUES),
        (as_json(1, [0.0] * 19), Fault.WRONG_COUNT),
        (as_json(1, [1e300] * 20), Fault.NOT_FINITE),
        (as_json(1, [10**400] + [0.0] * 19), Fault.NOT_FINITE),
    ],
)
def test_json_that_is_no_frame_is_named(data, fault):
    assert from_json(data, "pose", 20) is fault


def test_frames_of_python_osc_are_understood():
    [frame] = from_osc(as_osc(5, ANGLES).build().dgram, "/embridge/pose", 20)
    assert isinstance(frame, Frame)
    assert frame.number == 5
    np.testing.assert_array_equal(frame.values, ANGLES)
    bundle = OscBundleBuilder(IMMEDIATELY)
    inner = OscBundleBuilder(IMMEDIATELY)
    bundle.add_content(as_osc(6, ANGLES).build())
    inner.add_content(as_osc(7, ANGLES + 1).build())
    inner.add_content(as_osc(8, ANGLES, "/other").build())
    bundle.add_content(inner.build())
    found = from_osc(bundle.build().dgram, "/embridge/pose", 20)
    assert [f.number if isinstance(f, Frame) else f for f in found] == [6, 7, Fault.WRONG_ADDRESS]


def test_osc_that_is_no_frame_is_named():
    worded = OscMessageBuilder("/embridge/pose")
    worded.add_arg("fist")
    unnumbered = OscMessageBuilder("/embridge/pose")
    unnumbered.add_arg(1.0, "f")
    for data, fault in (
        (worded.build().dgram, Fault.WRONG_TYPES),
        (unnumbered.build().dgram, Fault.NO_FRAME),
        (as_osc(1, ANGLES[:5]).build().dgram, Fault.WRONG_COUNT),
        (as_osc(1, np.full(20, np.nan)).build().dgram, Fault.NOT_FINITE),
        (as_osc(1, ANGLES).build().dgram[:-4], Fault.NOT_OSC),
        (as_osc(1, ANGLES).build().dgram + b"\0\0\0\0", Fault.NOT_OSC),
        (b"#bundle\0" + bytes(8) + struct.pack(">i", 0), Fault.NOT_OSC),
        (b"#bundle\0" + bytes(8) + struct.pack(">i", 1 << 30), Fault.NOT_OSC),
    ):
        assert from_osc(data, "/embridge/pose", 20) == [fault]


@given(st.binary(max_size=300))
def test_no_datagram_breaks_the_decoders(data):
    assert from_json(data, "pose", 20) in set(Fault)
    for prefix in (b"", b"/embridge/pose\0\0,i", b"#bundle\0"):
        assert all(f in set(Fault) for f in from_osc(prefix + data, "/embridge/pose", 20) if not isinstance(f, Frame))


# the grid of frames nobody counts


@pytest.mark.parametrize("rate_hz", [60.0, 59.94, 60.06])
def test_frames_that_jitter_take_places_in_a_row(rate_hz):
    rng = np.random.default_rng(0)
    taken = np.arange(3000) / rate_hz + rng.normal(0, 0.15 / 60, 3000)
    grid = Grid(60.0)
    assert [grid.place(round(t * 1e9)) for t in taken] == list(range(3000))
    assert (grid.lost, grid.surplus) == (0, 0)


def test_lost_frames_leave_their_places_and_bursts_find_none():
    grid = Grid(100.0, start=5)
    times = [0, 10, 20, 50, 60, 61, 70]
    assert [grid.place(t * 1_000_000) for t in times] == [5, 6, 7, 10, 11, None, 12]
    assert (grid.lost, grid.surplus) == (2, 1)


# over UDP


async def collect(source: LivePose, n: int) -> list:
    packets = []
    async for packet in source.packets():
        packets.append(packet)
        if len(packets) >= n:
            break
    return packets


def udp(**options) -> NetworkPose:
    return NetworkPose(plans.UdpPoseSource(port=0, **options), base=Path(), clock=SystemClock())


async def opened(source: NetworkPose, sender: socket.socket, first: bytes, index: int = 0) -> None:
    """Open a source while a sender sends to it."""
    opening = asyncio.ensure_future(source.open(time.monotonic_ns(), index))
    while not source.port:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    sender.sendto(first, ("127.0.0.1", source.port))
    await opening


@pytest.fixture
def sender():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        yield made


async def test_datagrams_become_a_stream_with_exact_gaps_and_named_faults(sender):
    source = udp(rate_hz=100.0)
    await opened(source, sender, as_json(40, ANGLES.tolist()))
    for k in (41, 42):
        sender.sendto(as_json(k, ANGLES.tolist()), ("127.0.0.1", source.port))
    await asyncio.sleep(0.06)
    for data in (as_json(46, ANGLES.tolist()), b"?", b"!", as_json(47, [1.0])):
        sender.sendto(data, ("127.0.0.1", source.port))
    packets = await collect(source, 4)
    assert [p.first for p in packets] == [0, 1, 2, 6]
    assert not any(p.inferred for p in packets)
    np.testing.assert_array_equal(packets[0].samples, ANGLES[None])
    await asyncio.sleep(0.02)
    state = source.state()
    assert (state.kind, state.phase, state.received, state.lost, state.garbage) == ("udp", "streaming", 4, 3, 3)
    assert state.reason == "3 malformed: not JSON (2), wrong number of values (1)"
    assert state.action
    await source.close()
    await source.close()


async def test_osc_over_udp(sender):
    source = NetworkPose(plans.OscPoseSource(port=0, unit=plans.Angle.DEGREES), base=Path(), clock=SystemClock())
    await opened(source, sender, as_osc(0, ANGLES).build().dgram)
    sender.sendto(as_osc(1, ANGLES, "/tracker/battery").build().dgram, ("127.0.0.1", source.port))
    await collect(source, 1)
    assert source.spec.scale == pytest.approx(np.pi / 180)
    assert not source.faults
    await source.close()


async def test_a_sender_that_never_makes_sense_is_told_before_the_session(sender):
    source = udp(wait_s=0.3)
    with pytest.raises(DeviceError) as failed:
        await opened(source, sender, b"hello")
    assert failed.value.reason is Reason.MALFORMED
    assert "not JSON (1)" in str(failed.value)
    await source.close()
    silent = udp(wait_s=0.1)
    with pytest.raises(DeviceError) as failed:
        await silent.open(time.monotonic_ns())
    assert failed.value.reason is Reason.SILENT
    assert "port" in failed.value.hint
    await silent.close()


async def test_a_sender_that_falls_silent_is_told_and_may_come_back(sender):
    source, seen = udp(), []
    source.watch(lambda: seen.append(source.state()))
    await opened(source, sender, as_json(0, ANGLES.tolist()))
    reading = asyncio.ensure_future(collect(source, 2))
    await asyncio.sleep(2.6)
    stalled = seen[-1]
    assert stalled.phase == "stalled"
    assert stalled.reason.startswith("no frames for 2 s")
    assert "port" in stalled.action
    sender.sendto(as_json(150, ANGLES.tolist()), ("127.0.0.1", source.port))
    packets = await reading
    assert packets[1].first == 150
    await source.close()
    assert seen[-1].phase == "stopped"


async def test_a_port_that_is_taken_is_named(sender):
    sender.bind(("127.0.0.1", 0))
    source = NetworkPose(plans.UdpPoseSource(port=sender.getsockname()[1]), base=Path(), clock=SystemClock())
    with pytest.raises(DeviceError, match="cannot be listened on"):
        await source.open(time.monotonic_ns())
    await source.close()


async def test_a_session_that_goes_on_places_frames_by_its_own_time(sender):
    source = udp(rate_hz=100.0)
    began = time.monotonic_ns() - 5_000_000_000
    opening = asyncio.ensure_future(source.open(began, 300))
    while not source.port:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    sender.sendto(as_json(9, ANGLES.tolist()), ("127.0.0.1", source.port))
    await opening
    [packet] = await collect(source, 1)
    assert 495 <= packet.first <= 520
    await source.close()


async def test_the_example_of_the_documentation_is_heard():
    source = NetworkPose(plans.UdpPoseSource(), base=Path(), clock=SystemClock())
    with subprocess.Popen([sys.executable, str(EXAMPLE)]) as example:  # noqa: ASYNC220
        try:
            await source.open(time.monotonic_ns())
            packets = await collect(source, 20)
        finally:
            example.kill()
            await source.close()
    assert np.diff([p.first for p in packets]).min() >= 1
    assert packets[0].samples.shape == (1, 20)
    assert not source.faults


def test_the_example_is_the_one_on_the_page():
    assert EXAMPLE.read_text() in (EXAMPLE.parents[1] / "pose-sources.md").read_text()


# plans


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('kind = "udp"\nport = 70000', "port"),
        ('kind = "udp"\nrate_hz = 0', "rate_hz"),
        ('kind = "osc"\naddress = "pose"', "OSC address"),
        ('kind = "udp"\ncalibration = "glove.json"', "calibration"),
        ('kind = "camera"\nmodel = "m.task"\nmeasured = "glove"', "camera"),
    ],
)
def test_a_pose_source_that_cannot_be_is_refused(text, problem):
    source = msgspec.toml.decode(text, type=plans.AnyPose)
    with pytest.raises(ConfigError, match=problem):
        open_pose(source, Path(), SystemClock())


# a camera


class FakeEyes:
    """Thirty frames of a hand that closes, then nothing."""

    def __init__(self, side: Side = Side.RIGHT) -> None:
        self._points = landmarks(REST + np.linspace(0, 0.5, 30)[:, None], side)
        self._turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
        self._turn *= np.sign(np.linalg.det(self._turn))
        self._next = 0
        self.closed = False

    def look(self):
        time.sleep(0.001)
        if self._next == 30:
            return None
        self._next += 1
        points = self._points[self._next - 1] @ self._turn * 1.1 + 0.3
        return self._next * 33_333_333, points if self._next % 10 else None

    def close(self):
        self.closed = True


@pytest.mark.parametrize("side", list(Side))
async def test_a_camera_gives_angles_and_failed_poses(side):
    eyes = FakeEyes(side)
    source = CameraPose(
        plans.CameraPoseSource(model="any", rate_hz=30.0, side=side),
        base=Path(),
        clock=SystemClock(),
        eyes=lambda: eyes,
    )
    await source.open(0)
    packets = await collect(source, 30)
    await source.close()
    assert eyes.closed
    assert [p.first for p in packets] == list(range(30))
    angles = np.concatenate([p.samples for p in packets])
    failed = ik_failures(angles)
    assert failed.nonzero()[0].tolist() == [9, 19, 29]
    np.testing.assert_allclose(angles[~failed], (REST + np.linspace(0, 0.5, 30)[:, None])[~failed], atol=1e-5)
    assert source.unseen == 3


def test_a_missing_model_and_a_missing_extra_are_named(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="no model at") as failed:
        open_pose(plans.CameraPoseSource(model="hand.task"), tmp_path, SystemClock())
    assert "hand_landmarker.task" in failed.value.hint
    (tmp_path / "hand.task").write_bytes(b"model")
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(ConfigError) as failed:
        open_pose(plans.CameraPoseSource(model="hand.task"), tmp_path, SystemClock())
    assert failed.value.reason is Reason.MISSING_EXTRA
    assert "embridge[camera]" in failed.value.hint


# landmarks to angles


@pytest.mark.parametrize("side", list(Side))
def test_angles_survive_the_way_over_landmarks_of_any_size_place_and_direction(side):
    rng = np.random.default_rng(1)
    angles = rng.uniform(LIMITS[:, 0], LIMITS[:, 1], (200, 20))
    turns = np.linalg.qr(rng.normal(size=(200, 3, 3)))[0]
    turns *= np.sign(np.linalg.det(turns))[:, None, None]
    points = landmarks(angles, side) @ turns * rng.uniform(0.5, 2, (200, 1, 1)) + rng.normal(size=(200, 1, 3))
    np.testing.assert_allclose(joint_angles(points, side), angles, atol=1e-9)


def test_noise_on_landmarks_moves_angles_little_and_longer_bones_not_at_all():
    rng = np.random.default_rng(2)
    angles = np.tile(REST, (100, 1))
    points = landmarks(angles)
    noisy = joint_angles(points + rng.normal(0, 0.0005, points.shape))
    assert np.rad2deg(np.abs(noisy - angles)).mean() < 3
    longer = points.copy()
    longer[:, 8] += 0.4 * (points[:, 8] - points[:, 7])
    np.testing.assert_allclose(joint_angles(longer), angles, atol=1e-9)


def test_landmarks_that_are_none_are_failed_poses():
    good = landmarks(REST)
    nan = good.copy()
    nan[3] = np.nan
    assert ik_failures(joint_angles(np.stack([good, nan, np.zeros((21, 3))]))).tolist() == [False, True, True]
    with pytest.raises(DataError):
        joint_angles(np.zeros((20, 3)))


# gloves


def held(inverted: tuple[str, ...] = (), still: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Counts of the guided poses from a glove whose true gain is 0.01 rad a count."""
    rng = np.random.default_rng(0)
    at = {s: i for i, s in enumerate(CYBERGLOVE_SENSORS)}
    poses = {}
    for name, flexed, spread, rolled in (
        ("rest", 40, 20, 30),
        ("fist", 150, 5, 60),
        ("flat", 10, 5, 20),
        ("spread", 10, 60, 10),
        ("thumb", 10, 5, 90),
    ):
        counts = np.full(22, 100.0)
        for sensor, i in at.items():
            counts[i] += spread if sensor.endswith("abduction") else rolled if sensor == "thumb_roll" else flexed
            counts[i] = 255 - counts[i] if sensor in inverted else 120.0 if sensor in still else counts[i]
        poses[name] = counts + rng.normal(0, 1, (90, 22))
    return poses


def test_a_glove_is_calibrated_to_its_ends(tmp_path):
    poses = held(inverted=("index_pip", "thumb_abduction"), still=("pinky_dip",))
    file = gloves.fit(poses, participant="p1", created_ns=1)
    assert set(file.inverted) == {"index_pip", "thumb_abduction"}
    assert file.still == ("pinky_dip",)
    gloves.save(tmp_path / "glove.json", file)
    calibration = gloves.load_calibration(tmp_path / "glove.json")
    fist = glove_to_joints(np.median(poses["fist"], axis=0), calibration)
    rest = glove_to_joints(np.median(poses["rest"], axis=0), calibration)
    flat = glove_to_joints(np.median(poses["flat"], axis=0), calibration)
    np.testing.assert_allclose(rest, REST, atol=0.02)
    for joint in ("index_mcp_fe", "index_pip_fe", "middle_pip_fe", "thumb_ip_fe"):
        i = JOINTS.index(joint)
        assert flat[i] < rest[i] < fist[i]
    with pytest.raises(DataError, match="exists"):
        gloves.save(tmp_path / "glove.json", file)


def test_a_glove_that_does_not_move_or_send_is_refused():
    poses = held()
    with pytest.raises(DataError, match="nothing during: fist"):
        gloves.fit({k: v for k, v in poses.items() if k != "fist"}, participant="p", created_ns=0)
    with pytest.raises(DataError, match="no sensor"):
        gloves.fit(dict.fromkeys(poses, poses["rest"]), participant="p", created_ns=0)


@pytest.mark.parametrize("content", [None, b"{}", b"\xff", b'{"calibration": {"offset": [], "gain": []}}'])
def test_a_calibration_that_is_none_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "glove.json").write_bytes(content)
    with pytest.raises(DataError, match="glove calibration"):
        gloves.load_calibration(tmp_path / "glove.json")


async def test_a_calibrated_glove_is_recorded_as_joints(tmp_path, sender):
    poses = held()
    gloves.save(tmp_path / "glove.json", gloves.fit(poses, participant="p", created_ns=0))
    raw = NetworkPose(plans.UdpPoseSource(port=0, measured=plans.Measured.GLOVE), base=tmp_path, clock=SystemClock())
    assert (raw.spec.modality, raw.spec.n_channels, raw.spec.unit) == (Modality.GLOVE, 22, "count")
    source = NetworkPose(
        plans.UdpPoseSource(port=0, measured=plans.Measured.GLOVE, calibration="glove.json"),
        base=tmp_path,
        clock=SystemClock(),
    )
    assert (source.spec.modality, source.spec.n_channels) == (Modality.POSE, 20)
    rest = np.median(poses["rest"], axis=0)
    await opened(source, sender, as_json(0, rest.tolist(), "glove"))
    [packet] = await collect(source, 1)
    np.testing.assert_allclose(packet.samples[0], REST, atol=0.02)
    await source.close()
