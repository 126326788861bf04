"""Drivers against virtual bands over a real Bluetooth stack: exact samples, and every fault ends in a named state."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import itertools
import json
import math
import time
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from embridge_edge import band_cli, band_plan, solo
from embridge_edge.agent import Agent
from embridge_edge.bands.device import BleBand
from embridge_edge.bands.ganglion import GanglionDriver
from embridge_edge.bands.gforce import GForceDriver
from embridge_edge.bands.mudra import MudraDriver
from embridge_edge.bands.myo import MyoDriver
from embridge_edge.bands.npg import NpgDriver
from embridge_edge.bands.open import OpenDriver
from embridge_edge.bands.protocol import myo, open_profile
from embridge_edge.bands.protocol import uart as uart_profile
from embridge_edge.bands.uart import UartDriver
from embridge_edge.ble.faults import DROPPED, NOT_SEEN
from embridge_edge.ble.status import Phase, Policy
from embridge_edge.ble.thread import Radios
from embridge_edge.plan import Plan, SessionPlan
from embridge_edge.spool import EVENTS, Spool
from embridge_edge.virtual import myo as virtual_myo
from embridge_edge.virtual.feed import LoopFeed
from embridge_shared.clock import SystemClock
from embridge_shared.errors import ConfigError, DeviceError, OperatorError, Reason
from embridge_shared.session import BandChanged, Session
from embridge_shared.settings import EdgeSettings, MqttSettings, Settings
from embridge_shared.signal import Chunk
from embridge_shared.wire import codec
from embridge_shared.wire.messages import EventMessage, unpack
from support.bands import GanglionBand, NpgBand, Ramp, RigThread, StreamingUartBand, UartBand, misplaced, ramp

ROOT = Path(__file__).parents[2]
QUICK = Policy(scan_s=0.6, silence_s=0.6, first_s=1.5, give_up_s=1.5, report_s=0.5, backoff_s=(0.05, 0.2))


@pytest.fixture
def rig():
    with RigThread() as thread:
        yield thread


def open_ramp():
    return Ramp(2000.0, 16, open_profile.UV_PER_COUNT)


def band(rig, driver, seconds=math.inf, **options):
    options.setdefault("policy", QUICK)
    return BleBand(driver, clock=SystemClock(), radios=rig, duration_s=seconds, **options)


class Run:
    """A stream being read to its end, from the side."""

    def __init__(self, source):
        self.source = source
        self.packets = []
        self.task = asyncio.create_task(self._read())

    async def _read(self):
        try:
            await self.source.open(time.monotonic_ns())
            async for packet in self.source.packets():
                self.packets.append(packet)
        finally:
            await self.source.close()

    @property
    def end(self):
        return self.packets[-1].first + len(self.packets[-1].samples) if self.packets else 0

    @property
    def gaps(self):
        """(first missing, how many, inferred) of every gap."""
        pairs = zip(self.packets, self.packets[1:], strict=False)
        return [
            (a.first + len(a.samples), b.first - a.first - len(a.samples), b.inferred)
            for a, b in pairs
            if b.first != a.first + len(a.samples)
        ]

    async def until(self, condition, timeout_s=10.0):
        async with asyncio.timeout(timeout_s):
            while not condition():
                if self.task.done():
                    self.task.result()
                    assert condition()
                await asyncio.sleep(0.01)

    async def at_least(self, samples):
        await self.until(lambda: self.end >= samples)


def phases(device):
    return [s.phase for s in device.history]


def then(device, *wanted):
    """Whether the band went through these states in this order."""
    remaining = iter(phases(device))
    return all(p in remaining for p in wanted)


def profile():
    return uart_profile.load(ROOT / "docs" / "examples" / "uart-band.toml")


# streaming


async def stream_all(rig, drivers, seconds=0.5):
    """Read bands of these kinds at once and check every sample."""
    devices = [band(rig, d, seconds, policy=dataclasses.replace(QUICK, first_s=10, scan_s=5)) for d in drivers]
    runs = {(d.driver.info.kind, s.spec.name): Run(s) for d in devices for s in d.streams}
    await asyncio.gather(*(r.task for r in runs.values()))
    for (kind, name), run in runs.items():
        spec = run.source.spec
        if (kind, name) == ("mudra", "imu"):
            continue
        assert (run.end, run.gaps) == (math.ceil(seconds * spec.rate_hz), []), kind
        assert all(p.samples.shape[1] == spec.n_channels for p in run.packets)
        if kind == "ganglion":
            counts = np.concatenate([p.samples for p in run.packets])
            wanted = ramp(np.arange(run.end), 4) << 6
            np.testing.assert_array_equal(counts, np.where(wanted == -64, -128, wanted))
        elif name == "emg":
            assert misplaced(run.packets, 8 if kind in ("myo", "gforce") else 16) == 0, kind
    for device in devices:
        state = device.state()
        assert (state.phase, state.connects, state.battery, state.garbage) == ("stopped", 1, 87, 0), state
        assert (state.mtu, state.phy) == (247, "2M")
        assert state.rssi_dbm < 0
        assert device.dropped == 0


async def test_bands_of_four_kinds_stream_sample_exact_at_once(rig):
    scale = {d.info.kind: d.streams[0].scale for d in (GForceDriver(), MudraDriver(), OpenDriver())}
    rig.add("open", open_ramp())
    rig.add("myo", Ramp(200.0, 8, virtual_myo.UV_PER_COUNT, 8))
    rig.add("gforce", Ramp(1000.0, 8, scale["gforce"], 8))
    rig.add("mudra", Ramp(834.0, 3, scale["mudra"]))
    await stream_all(rig, [OpenDriver(), MyoDriver(motion=True), GForceDriver(), MudraDriver(motion=True)])


@pytest.mark.radio
async def test_scripted_bands_stream_sample_exact_at_once(rig):
    rig.put(NpgBand, Ramp(500.0, 3, 1.0))
    rig.put(GanglionBand, Ramp(200.0, 4, 1.0))
    rig.put(UartBand, Ramp(1000.0, 8, 1.0), profile())
    await stream_all(rig, [NpgDriver(), GanglionDriver(), UartDriver(profile())])


@pytest.mark.radio
async def test_a_uart_stream_across_notifications_is_read_and_what_it_loses_is_exact(rig):
    layout = uart_profile.PacketLayout(
        header="2sB", begins="hex:a05a", seq=1, samples=5, trailer="B", ends="hex:c0", framing="stream"
    )
    made = uart_profile.UartProfile(name="lab", rate_hz=500.0, channels=tuple("abcd"), packet=layout, start="b")
    rig.put(StreamingUartBand, Ramp(500.0, 4, 1.0), made)
    run = Run(band(rig, UartDriver(made), 1.2).streams[0])
    await run.task
    # The packet that lost its end is gone; until two have followed the next, none is believed.
    assert run.gaps
    assert all((n, inferred) == (5, False) for _, n, inferred in run.gaps)
    assert misplaced(run.packets, 16, offset=int(run.packets[0].samples[0, 0]) + 15005) == 0
    assert [first // 5 % 20 for first, *_ in run.gaps] == [run.gaps[0][0] // 5 % 20] * len(run.gaps)


@pytest.mark.radio
async def test_a_gforce_with_numbers_of_16_bit(rig):
    virtual = rig.add("gforce", Ramp(1000.0, 8, GForceDriver().streams[0].scale, 8))
    virtual.seq_bytes = 2
    await stream_all(rig, [GForceDriver()])


@pytest.mark.radio
async def test_gforce_at_12_bit(rig):
    driver = GForceDriver(bits=12)
    rig.add("gforce", Ramp(500.0, 8, driver.streams[0].scale, 8))
    run = Run(band(rig, driver, 0.5).streams[0])
    await run.task
    assert (run.end, misplaced(run.packets, 8)) == (250, 0)


async def test_a_loop_that_is_busy_elsewhere_drops_nothing(rig):
    rig.add("open", open_ramp())
    device = band(rig, OpenDriver(), 1.1)
    run = Run(device.streams[0])
    await run.at_least(200)
    time.sleep(0.7)  # noqa: ASYNC251  somebody blocks the agent's loop
    await run.task
    assert (run.end, run.gaps, misplaced(run.packets)) == (2200, [], 0)
    stamps_ns = np.array([p.host_ns for p in run.packets])
    assert np.diff(stamps_ns).max() < 0.5e9, "arrivals are stamped where they arrive"


@pytest.mark.radio
async def test_bands_show_which_one_they_are(rig, monkeypatch):
    told, real = [], virtual_myo.MyoBand._command
    monkeypatch.setattr(virtual_myo.MyoBand, "_command", lambda self, data: (told.append(data), real(self, data)))
    virtual = rig.add("open", open_ramp())
    rig.add("myo", Ramp(200.0, 8, 1.0, 8))
    for driver in (OpenDriver(), MyoDriver(), GForceDriver()):
        if driver.info.kind == "gforce":
            rig.add("gforce", Ramp(1000.0, 8, 1.0, 8))
        device = band(rig, driver)
        run = Run(device.streams[0])
        await run.at_least(2)
        await device.identify()
        device.stop()
        await run.task
    assert virtual.identified == 5
    assert myo.vibrate(3) in told


# faults


async def test_a_dropped_link_leaves_a_gap_that_is_exact(rig):
    virtual = rig.add("open", open_ramp())
    device = band(rig, OpenDriver())
    run = Run(device.streams[0])
    await run.at_least(800)
    rig.call(rig.rig.cut, [virtual])
    await run.until(lambda: device.status.connects == 2 and run.gaps)
    await run.at_least(run.end + 400)
    device.stop()
    await run.task
    assert misplaced(run.packets) == 0
    ((_, missing, inferred),) = run.gaps
    assert missing == device.streams[0].lost
    assert not inferred
    assert missing < 0.9 * 2000
    assert then(device, Phase.STREAMING, Phase.RECONNECTING, Phase.SCANNING, Phase.STREAMING, Phase.STOPPED)
    lost = next(s for s in device.history if s.phase is Phase.RECONNECTING)
    assert lost.reason.startswith("the link dropped")
    assert lost.action == "Bring the band nearer; it is connected again by itself."


@pytest.mark.radio
async def test_a_dropped_link_of_a_band_that_begins_anew_leaves_a_gap_by_time(rig):
    virtual = rig.add("gforce", Ramp(1000.0, 8, GForceDriver().streams[0].scale, 8))
    device = band(rig, GForceDriver())
    run = Run(device.streams[0])
    await run.at_least(1000)
    rig.call(rig.rig.cut, [virtual])
    await run.until(lambda: device.status.connects == 2 and run.gaps)
    await run.at_least(run.end + 500)
    device.stop()
    await run.task
    ((_, _, inferred),) = run.gaps
    assert inferred
    lags_s = np.array([p.host_ns * 1e-9 - (p.first + 16) / 1000 for p in run.packets])
    after = np.array([p.first for p in run.packets]) >= run.gaps[0][0]
    assert abs(lags_s[after].min() - lags_s[~after].min()) < 0.03


async def test_a_band_switched_off_is_lost_and_on_again_goes_on(rig):
    virtual = rig.add("open", open_ramp())
    device = band(rig, OpenDriver(), policy=dataclasses.replace(QUICK, give_up_s=0.9, scan_s=0.4))
    run = Run(device.streams[0])
    await run.at_least(400)
    rig.do(virtual.stop())
    await asyncio.sleep(0.2)
    rig.do(virtual.start())
    await run.until(lambda: device.status.connects == 2 and len(run.gaps) == 1)
    await run.at_least(run.end + 200)
    ((_, missing, inferred),) = run.gaps
    assert inferred
    assert 0.2 * 2000 < missing < 2.5 * 2000
    before, end = len(run.packets), run.end
    rig.do(virtual.stop())
    with pytest.raises(DeviceError, match="lost") as error:
        await run.task
    assert (error.value.reason, device.status.phase) == (Reason.NOT_FOUND, Phase.LOST)
    assert "Switch it on" in error.value.hint
    assert len(run.packets) >= before
    assert run.end >= end


async def test_garbage_now_and_then_is_counted_and_the_gap_is_exact(rig):
    virtual = rig.add("open", open_ramp())
    send, turns, rng = virtual.notify, itertools.count(1), np.random.default_rng(1)

    def notify(characteristic, value):
        if len(value) > 100 and next(turns) in (40, 80, 120, 160, 200):
            value = rng.bytes(100)
        return send(characteristic, value)

    rig.call(setattr, virtual, "notify", notify)
    device = band(rig, OpenDriver(), 0.8)
    run = Run(device.streams[0])
    await run.task
    assert device.garbage == 5
    assert [(n, inferred) for _, n, inferred in run.gaps] == [(7, False)] * 5
    assert misplaced(run.packets) == 0
    assert Phase.GARBLED not in phases(device)


async def test_nothing_but_garbage_fails_and_says_why(rig):
    virtual = rig.add("open", open_ramp())
    send = virtual.notify
    rig.call(setattr, virtual, "notify", lambda c, v: send(c, v if len(v) < 100 else bytes(len(v))))
    device = band(rig, OpenDriver(), policy=dataclasses.replace(QUICK, first_s=20))
    run = Run(device.streams[0])
    with pytest.raises(DeviceError, match="malformed") as error:
        await run.task
    assert phases(device).count(Phase.GARBLED) == 3
    assert (device.status.phase, run.packets) == (Phase.FAILED, [])
    assert "firmware" in error.value.hint
    assert device.garbage >= 96


async def test_a_counter_that_jumps_back_is_told_of_and_costs_nothing(rig):
    virtual = rig.add("open", open_ramp())
    device = band(rig, OpenDriver(), 0.8)
    run = Run(device.streams[0])
    await run.at_least(600)
    send = virtual.send
    rig.call(setattr, virtual, "send", lambda first, samples: send(first - 500, samples))
    await run.task
    assert (run.end, run.gaps, misplaced(run.packets)) == (1600, [], 0)
    assert then(device, Phase.STREAMING, Phase.RESYNCED, Phase.STREAMING)
    told = next(s for s in device.history if s.phase is Phase.RESYNCED)
    assert "no packet is missing" in told.reason
    assert told.action


async def test_another_version_of_the_profile_fails_at_once(rig, monkeypatch):
    real = open_profile.encode_info
    monkeypatch.setattr(open_profile, "encode_info", lambda info: real(dataclasses.replace(info, version=9)))
    rig.add("open", open_ramp())
    device = band(rig, OpenDriver())
    with pytest.raises(DeviceError, match="version 9 of the open profile") as error:
        await Run(device.streams[0]).task
    assert (error.value.reason, device.status.phase) == (Reason.UNSUPPORTED_VERSION, Phase.FAILED)
    assert "Update" in error.value.hint
    assert device.status.connects == 1


@pytest.mark.radio
async def test_a_band_that_falls_silent_is_started_again(rig):
    virtual = rig.add("open", open_ramp())
    device = band(rig, OpenDriver(), policy=dataclasses.replace(QUICK, silence_s=0.4))
    run = Run(device.streams[0])
    await run.at_least(400)
    rig.call(virtual.halt)
    await run.until(lambda: then(device, Phase.STALLED, Phase.STREAMING) and len(run.gaps) == 1)
    device.stop()
    await run.task
    assert device.status.connects == 1
    ((_, missing, inferred),) = run.gaps
    assert inferred
    assert 0.3 * 2000 < missing < 1.6 * 2000


@pytest.mark.radio
async def test_a_radio_that_is_unplugged_and_plugged_in_again_leaves_an_exact_gap(rig):
    rig.add("open", open_ramp())
    device = band(Radios(), OpenDriver(), adapter=served(rig), policy=dataclasses.replace(QUICK, give_up_s=10))
    run = Run(device.streams[0])
    await run.at_least(800)
    rig.call(lambda: [host.abort() for host in list(rig.rig.hosts)])
    await run.until(lambda: device.status.connects == 2 and run.gaps)
    await run.at_least(run.end + 400)
    device.stop()
    await run.task
    ((_, missing, inferred),) = run.gaps
    assert (missing == device.streams[0].lost, inferred, misplaced(run.packets)) == (True, False, 0)


@pytest.mark.radio
async def test_two_bands_of_a_kind_are_kept_apart(rig):
    virtual = [rig.add("myo", Ramp(200.0, 8, virtual_myo.UV_PER_COUNT, 8), name=f"Myo {i}") for i in range(2)]
    devices = [band(rig, MyoDriver(), 1.0, policy=dataclasses.replace(QUICK, first_s=10, scan_s=5)) for _ in virtual]
    await asyncio.gather(*(Run(d.streams[0]).task for d in devices))
    assert {d.status.address for d in devices} == {v.address for v in virtual}
    assert [d.streams[0].received for d in devices] == [200, 200]


async def test_no_band_at_all_says_what_to_do(rig):
    device = band(rig, MyoDriver(), policy=dataclasses.replace(QUICK, first_s=0.5))
    with pytest.raises(DeviceError, match="does not advertise") as error:
        await Run(device.streams[0]).task
    assert (error.value.reason, device.status.phase) == (Reason.NOT_FOUND, Phase.LOST)


# recording


def settings(folder):
    return EdgeSettings(name="edge-t", state_dir=folder)


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def chunks(folder):
    """Chunks in a spool, in order."""
    spool = Spool(folder / "spool.db", 1 << 30)
    items = [i for i in spool.pending(0, 10_000) if i.stream >= 0]
    spool.close()
    found: list[Chunk] = [codec.decode(i.payload) for i in items]
    return found


def changes(folder):
    """What a spool says the bands went through."""
    spool = Spool(folder / "spool.db", 1 << 30)
    messages = [unpack(i.payload, EventMessage) for i in spool.pending(0, 10_000) if i.stream == EVENTS]
    spool.close()
    return [m.event for m in sorted(messages, key=lambda m: m.seq) if isinstance(m.event, BandChanged)]


def begun(folder):
    """The session in a spool."""
    spool = Spool(folder / "spool.db", 1 << 30)
    (known,) = spool.sessions()
    spool.close()
    return msgspec.msgpack.decode(known.description, type=Session)


def served(rig):
    return f"tcp-client:127.0.0.1:{rig.do(rig.rig.serve())}"


def session(source, name="a"):
    return SessionPlan(name=name, participant="p1", source=source)


async def test_a_recording_survives_a_dropped_link_with_its_gap(rig, tmp_path):
    virtual = rig.add("open", open_ramp())
    plan = session(band_plan.OpenSource(adapter=served(rig), duration_s=1.5))
    recording = asyncio.create_task(solo.record(plan, settings(tmp_path), clock=SystemClock()))
    await until(lambda: virtual.tally.samples > 1000)
    rig.call(rig.rig.cut, [virtual])
    digest = await recording
    (emg,) = digest.streams
    stored = chunks(tmp_path)
    assert digest.reason == "complete"
    assert emg.samples + emg.lost == 3000
    assert 0 < emg.lost == sum(c.gap_before for c in stored) < 2000
    # The band was there before the session began.
    before = int(stored[0].samples[0, 0]) - int(ramp(np.arange(1), 1)[0, 0])
    assert 0 <= before < 1000
    for chunk in stored:
        np.testing.assert_array_equal(chunk.samples, ramp(np.arange(chunk.first, chunk.end) + before, 16))
    assert all(b.first == a.end + b.gap_before for a, b in pairwise(stored))
    assert not any(c.gap_inferred for c in stored)
    told = [(e.band.phase, e.band.connects) for e in changes(tmp_path)]
    went = ["scanning", "connecting", "subscribing", "streaming"]
    assert told == list(zip([*went, "reconnecting", *went, "stopped"], [0, 0, 1, 1, 1, 1, 1, 2, 2, 2], strict=True))
    assert digest.bands == tuple(changes(tmp_path))
    lost, *_, back, _ = digest.bands[4:]
    assert lost.band.reason.startswith("the link dropped")
    assert lost.band.action == DROPPED.action
    # The gap lies where the band was gone.
    first_s = next(c.first - c.gap_before for c in stored if c.gap_before) / 2000
    started_ns = begun(tmp_path).started_ns
    assert (lost.t_ns - started_ns) * 1e-9 == pytest.approx(first_s, abs=0.15)
    assert (back.t_ns - started_ns) * 1e-9 == pytest.approx(first_s + emg.lost / 2000, abs=0.15)


async def test_a_band_that_is_lost_for_good_ends_the_session_in_a_named_state(rig, tmp_path, monkeypatch):
    patience = functools.partialmethod(Policy.__init__, give_up_s=0.6, scan_s=0.3, backoff_s=(0.05, 0.1))
    monkeypatch.setattr(Policy, "__init__", patience)
    virtual = rig.add("myo", Ramp(200.0, 8, virtual_myo.UV_PER_COUNT, 8))
    plan = session(band_plan.MyoSource(adapter=served(rig)))
    recording = asyncio.create_task(solo.record(plan, settings(tmp_path), clock=SystemClock()))
    await until(lambda: virtual.tally.samples > 200)
    rig.do(virtual.stop())
    digest = await recording
    assert digest.reason.startswith("device lost: Virtual Myo: lost, the band does not advertise")
    last = digest.bands[-1].band
    assert (last.phase, last.action) == ("lost", NOT_SEEN.action)
    assert digest.bands == tuple(changes(tmp_path))
    assert sum(c.n for c in chunks(tmp_path)) == digest.streams[0].samples > 100


@pytest.mark.parametrize("fault", ["garbage", "backwards"])
async def test_a_recording_through_nonsense_holds_exactly_what_was_sent(rig, tmp_path, fault):
    virtual = rig.add("open", open_ramp())
    plan = session(band_plan.OpenSource(adapter=served(rig), duration_s=1.5))
    recording = asyncio.create_task(solo.record(plan, settings(tmp_path), clock=SystemClock()))
    await until(lambda: virtual.tally.samples > 1000)
    if fault == "garbage":
        notify, turns = virtual.notify, itertools.count(1)

        def spoiled(characteristic, value):
            return notify(characteristic, bytes(100) if len(value) > 100 and next(turns) in (20, 40) else value)

        rig.call(setattr, virtual, "notify", spoiled)
    else:
        send = virtual.send
        rig.call(setattr, virtual, "send", lambda first, samples: send(first - 500, samples))
    digest = await recording
    stored = chunks(tmp_path)
    before = int(stored[0].samples[0, 0]) - int(ramp(np.arange(1), 1)[0, 0])
    for chunk in stored:
        np.testing.assert_array_equal(chunk.samples, ramp(np.arange(chunk.first, chunk.end) + before, 16))
    gaps = [(c.gap_before, c.gap_inferred) for c in stored if c.gap_before]
    told = [b.band for b in digest.bands]
    if fault == "garbage":
        assert gaps == [(7, False)] * 2
        assert told[-1].garbage == 2
    else:
        assert gaps == []
        assert [b.action for b in told if b.phase == "resynced"] == [
            "Recording goes on; if it happens again, charge the band and update its firmware."
        ]
    assert (digest.reason, digest.streams[0].samples + digest.streams[0].lost) == ("complete", 3000)


async def test_a_gap_of_a_band_without_a_counter_is_stored_as_an_estimate(rig, tmp_path):
    virtual = rig.add("myo", Ramp(200.0, 8, virtual_myo.UV_PER_COUNT, 8))
    plan = session(band_plan.MyoSource(adapter=served(rig), duration_s=3.0))
    recording = asyncio.create_task(solo.record(plan, settings(tmp_path), clock=SystemClock()))
    await until(lambda: virtual.tally.samples > 200)
    rig.call(rig.rig.cut, [virtual])
    digest = await recording
    gaps = [(c.gap_before, c.gap_inferred) for c in chunks(tmp_path) if c.gap_before]
    assert gaps == [(digest.streams[0].lost, True)]


async def test_a_band_that_is_not_there_begins_no_session(rig, tmp_path):
    plan = session(band_plan.BandsSource(bands=(band_plan.OpenSource(adapter=served(rig)),)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Policy, "__init__", functools.partialmethod(Policy.__init__, first_s=0.5, scan_s=0.4))
        with pytest.raises(DeviceError, match="does not advertise") as error:
            await solo.record(plan, settings(tmp_path), clock=SystemClock())
    assert error.value.hint.startswith("Switch it on")
    spool = Spool(tmp_path / "spool.db", 1 << 30)
    assert (spool.sessions(), spool.backlog().items) == ([], 0)
    spool.close()


async def test_the_agent_tells_of_its_bands_and_goes_on_after_a_stop(rig, tmp_path):
    rig.add("myo", Ramp(200.0, 8, virtual_myo.UV_PER_COUNT, 8))
    source = band_plan.MyoSource(adapter=served(rig), motion=True)
    config = Settings(edge=settings(tmp_path), mqtt=MqttSettings(port=9))
    plan = Plan(session=(session(source),))
    for _ in range(2):
        agent = Agent(config, SystemClock(), plan)
        running = asyncio.create_task(agent.run())
        await until(lambda a=agent: any(b.received >= 60 for b in a.state().bands))
        (state,) = agent.state().bands
        assert (state.kind, state.stream, state.phase) == ("myo", "emg", "streaming")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    emg = [c for c in chunks(tmp_path) if c.stream == 0]
    assert sum(c.gap_before > 0 for c in emg) == 1
    assert all(b.first == a.end + b.gap_before for a, b in pairwise(emg))
    # Across the interruption the index keeps the session's time.
    elapsed_s = (emg[-1].arrivals.host_ns[-1] - emg[0].arrivals.host_ns[0]) * 1e-9
    assert abs(emg[-1].end / 200 - elapsed_s) < 1.5


# commands


def run(*words):
    result = CliRunner().invoke(band_cli.app, [*map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_bands_are_found_and_recorded_by_command(rig, tmp_path, monkeypatch):
    monkeypatch.setenv("EMBRIDGE_LOG__LEVEL", "ERROR")
    virtual = rig.add("open", open_ramp())
    rig.add("myo", Ramp(200.0, 8, virtual_myo.UV_PER_COUNT, 8))
    at = ["--adapter", served(rig)]
    found = json.loads(run("scan", *at, "--seconds", 0.4, "--json"))
    assert sorted((f["kind"], f["address"] == virtual.address) for f in found) == [("myo", False), ("open", True)]
    record = ["record", tmp_path, "open", "--participant", "p1", "--name", "a", *at, "--seconds", 0.5]
    assert "emg 1000 samples, 0 lost" in run(*record)
    with pytest.raises(OperatorError, match="recorded already"):
        run(*record)
    assert sum(c.n for c in chunks(tmp_path)) == 1000


@pytest.mark.radio
def test_bands_are_watched_and_identified_by_command(rig, monkeypatch):
    monkeypatch.setenv("EMBRIDGE_LOG__LEVEL", "ERROR")
    virtual = rig.add("open", open_ramp())
    rig.add("myo", Ramp(200.0, 8, virtual_myo.UV_PER_COUNT, 8))
    at = ["--adapter", served(rig)]
    rows = [json.loads(line) for line in run("stream", "open", "myo", *at, "--seconds", 2.0, "--json").splitlines()]
    last = {r["stream"]: r for r in rows}
    assert set(last) == {"emg", "b2_emg"}
    assert last["emg"]["received"] == last["emg"]["expected"] > 500
    assert (last["emg"]["lost"], last["emg"]["mtu"]) == (0, 247)
    assert "blinks" in run("identify", f"open@{virtual.address}", *at)
    rig.add("mudra", Ramp(834.0, 3, 0.035))
    with pytest.raises(OperatorError, match="neither vibrate nor blink"):
        run("identify", "mudra", *at)


@pytest.mark.radio
def test_the_adapter_of_the_settings_is_used_unless_another_is_named(rig, tmp_path, monkeypatch):
    monkeypatch.setenv("EMBRIDGE_LOG__LEVEL", "ERROR")
    rig.add("open", open_ramp())
    monkeypatch.setenv("EMBRIDGE_EDGE__ADAPTER", served(rig))
    assert [f["kind"] for f in json.loads(run("scan", "--seconds", 0.4, "--json"))] == ["open"]
    assert "blinks" in run("identify", "open")
    (row, *_) = [json.loads(line) for line in run("stream", "open", "--seconds", 1.0, "--json").splitlines()]
    assert row["stream"] == "emg"
    record = ["--participant", "p1", "--seconds", 0.5]
    assert "emg 1000 samples, 0 lost" in run("record", tmp_path / "a", "open", *record)
    with pytest.raises(ConfigError, match="no Bluetooth adapter 'elsewhere'"):
        run("record", tmp_path / "b", "open", *record, "--adapter", "elsewhere")


@pytest.mark.radio
def test_a_recording_by_command_is_refused_or_warned_of_when_the_signal_is_poor(rig, tmp_path, monkeypatch):
    monkeypatch.setenv("EMBRIDGE_LOG__LEVEL", "ERROR")
    rig.add("open", LoopFeed(np.zeros((2000, 16)), 2000.0))
    record = ["open", "--participant", "p1", "--adapter", served(rig), "--seconds", 3.0, "--settle", 6]
    with pytest.raises(DeviceError, match="not good enough") as error:
        run("record", tmp_path / "a", *record, "--quality-gate", "require")
    assert error.value.reason is Reason.POOR_SIGNAL
    told = run("record", tmp_path / "b", *record, "--quality-gate", "warn")
    assert "emg 0 of 16 channels good" in told
    assert "emg e3 bad: " in told
