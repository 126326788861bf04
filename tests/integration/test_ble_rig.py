"""Virtual bands through HCI, L2CAP, ATT, GATT and bleak; with --ble-adapter on real controllers."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from bleak.exc import BleakDeviceNotFoundError, BleakError, BleakGATTProtocolError

from embridge_edge.bands.protocol import gforce, mudra, myo
from embridge_edge.bands.protocol import open_profile as wire
from embridge_edge.bands.protocol.octets import BATTERY_LEVEL
from embridge_edge.ble.adapter import make_adapter
from embridge_edge.virtual import myo as virtual_myo
from embridge_edge.virtual.air import Air, air_time_s
from embridge_edge.virtual.feed import LoopFeed
from embridge_edge.virtual.gforce import GForceBand
from embridge_shared.errors import DeviceError, OperatorError
from support.ble import Received, World, ramp_counts, start, stop, until

ROOT = Path(__file__).parents[2]
SIMULATE = [sys.executable, "-m", "embridge_shared.cli", "band", "simulate"]
SILENCE = LoopFeed(np.zeros((100, 16)), 2000.0)


@pytest.fixture
async def world(request):
    world = await World.make(request.config)
    yield world
    await world.close()


@pytest.fixture
async def on_air(request):
    """A world with a radio of one's choice."""
    worlds = []

    async def make(air: Air, **options) -> World:
        worlds.append(await World.make(request.config, air, **options))
        return worlds[-1]

    yield make
    for world in worlds:
        await world.close()


# scanning


async def test_a_scan_filter_lets_only_matching_bands_through(world):
    band = await world.band()
    if world.rig is not None:
        await world.band("myo")
    found = {}
    async with world.adapter.make_scanner(
        lambda d, ad: found.__setitem__(d.address, (d, ad)), service_uuids=[wire.SERVICE]
    ):
        await until(lambda: band.address in found and found[band.address][1].local_name is not None)
        await asyncio.sleep(0.1)
    assert set(found) == {band.address}
    device, heard = found[band.address]
    assert device.name == heard.local_name == band.name  # from the scan response
    assert heard.service_uuids == [wire.SERVICE]
    assert -127 <= heard.rssi < 20


@pytest.mark.radio
async def test_scanners_share_the_radio(world):
    band = await world.band()
    first, second = [], []
    one = world.adapter.make_scanner(lambda d, _: first.append(d.address))
    async with world.adapter.make_scanner(lambda d, _: second.append(d.address)):
        await one.start()
        await until(lambda: band.address in first and band.address in second)
        await one.stop()
        second.clear()
        await until(lambda: band.address in second)


# connecting


async def test_what_a_link_agreed_on_is_reported(world):
    client = await world.connect(await world.band())
    report = await world.adapter.report(client)
    assert report.mtu == 247
    if world.rig is not None:
        assert (report.interval_ms, report.phy, report.data_length, report.rssi_dbm) == (7.5, "2M", 251, -52)
    await client.disconnect()


async def test_a_device_that_is_not_there_times_out_and_the_next_connects(world):
    band = await world.band()
    device = await world.find(band)
    await band.stop()
    client = world.adapter.make_client(device, timeout_s=0.4)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await client.connect()
    assert time.monotonic() - began < 2.0
    assert not client.is_connected
    await band.start()
    await client.connect(timeout=10.0)
    assert client.is_connected
    await client.disconnect()


async def test_a_cancelled_connect_leaves_the_radio_free(world):
    band = await world.band()
    device = await world.find(band)
    await band.stop()
    attempt = asyncio.create_task(world.adapter.make_client(device).connect())
    await asyncio.sleep(0.1)
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    await band.start()
    client = await world.connect(band)
    await client.disconnect()


@pytest.mark.radio
async def test_an_address_alone_is_enough(world):
    band = await world.band()
    client = world.adapter.make_client(band.address, timeout_s=10)
    await client.connect()
    assert client.is_connected
    await client.disconnect()
    lost = world.radio.adapter().make_client("C0:00:00:00:00:01", timeout_s=0.3)
    with pytest.raises((BleakDeviceNotFoundError, TimeoutError)):
        await lost.connect()


async def test_a_radio_nobody_answers_on_is_named(free_port):
    adapter = make_adapter(f"tcp-client:127.0.0.1:{free_port}")
    with pytest.raises(DeviceError, match=f"tcp-client:127.0.0.1:{free_port}"):
        await adapter.open()
    await adapter.close()


async def test_two_bands_of_one_address_are_refused(world):
    await world.band(name="one")
    with pytest.raises(OperatorError, match="two virtual bands at"):
        await world.radio.add("open", SILENCE, world.bands[0].traits)


# streaming


async def test_a_stream_loses_nothing(world):
    band = await world.band()
    client = await world.connect(band)
    received = Received()
    await start(client, received)
    await received.at_least(1000)
    await stop(client)
    assert (received.missing, received.jumps) == (0, 0)
    assert {len(f.samples) for f in received.frames} == {wire.SAMPLES_PER_PACKET}
    assert received.frames[0].flags == wire.Flags.RESTARTED
    sent = np.concatenate([f.samples for f in received.frames])
    np.testing.assert_array_equal(sent, ramp_counts(0, len(sent)))
    assert band.tally.dropped_packets == 0
    await client.disconnect()


@pytest.mark.radio
async def test_two_bands_share_a_host(world):
    bands = [await world.band(name="left"), await world.band(name="right")]
    clients = [await world.connect(band) for band in bands]
    received = [Received(), Received()]
    for client, taken in zip(clients, received, strict=True):
        await start(client, taken)
    await asyncio.gather(*(taken.at_least(1000) for taken in received))
    assert [(r.missing, r.jumps) for r in received] == [(0, 0), (0, 0)]


@pytest.mark.radio
@pytest.mark.parametrize("kind", ["myo", "open"])
async def test_a_machine_that_stands_still_makes_no_firmware_drop(on_air, kind):
    world = await on_air(Air())
    band = await world.band(kind, SILENCE)
    client = await world.connect(band)
    if kind == "open":
        await start(client, Received())
    else:
        for uuid in (*myo.EMG, myo.IMU):
            await client.start_notify(uuid, lambda *_: None)
        await client.write_gatt_char(myo.COMMAND, myo.set_mode(myo.EmgMode.RAW, myo.ImuMode.DATA), response=True)
    for _ in range(2):
        before = band.tally.samples
        await until(lambda before=before: band.tally.samples > before + band.rate_hz / 2)
        time.sleep(0.5)  # the whole process, as a busy machine does it  # noqa: ASYNC251
    before = band.tally.samples
    await until(lambda: band.tally.samples > before + band.rate_hz)
    assert band.tally.dropped_samples == 0
    assert time.monotonic() - band.sample_s(band.tally.samples) < 0.3  # it has caught up
    await client.disconnect()


async def test_a_congested_link_drops_in_firmware_and_the_counters_say_how_much(on_air):
    world = await on_air(Air(ll_octets=27, interval_ms=15))
    band = await world.band(queue=8)
    client = await world.connect(band)
    received = Received()
    await start(client, received)
    await asyncio.sleep(0.6)
    await stop(client)
    await until(lambda: not band.backlog)
    await asyncio.sleep(0.05)
    trailing = band.tally.samples - received.end
    assert band.tally.dropped_samples > 100
    assert received.missing == band.tally.dropped_samples - trailing
    assert received.samples + received.missing + trailing == band.tally.samples
    assert received.jumps == 0  # the link itself lost nothing
    after_gap = [
        bool(b.flags & wire.Flags.OVERFLOW)
        for a, b in zip(received.frames, received.frames[1:], strict=False)
        if b.first != a.first + len(a.samples)
    ]
    assert after_gap
    assert all(after_gap)


@pytest.mark.radio
async def test_errors_on_air_delay_and_lose_nothing(on_air):
    world = await on_air(Air(pdu_errors=0.1, jitter_ms=1.0, interval_ms=15, seed=4))
    client = await world.connect(await world.band(queue=64))
    received = Received()
    await start(client, received)
    await received.at_least(1000)
    assert (received.missing, received.jumps) == (0, 0)


# one exchange is a packet with data, an empty one, and twice 150 µs; whole exchanges in an event, kbit/s
@pytest.mark.parametrize(
    ("air", "kbit_s"),
    [
        pytest.param(Air(interval_ms=15), 10 * 244 * 8 / 15, id="2M"),
        pytest.param(Air(interval_ms=15, phy=1), 6 * 244 * 8 / 15, id="1M", marks=pytest.mark.radio),
        pytest.param(Air(interval_ms=15, ll_octets=27), 3 * 244 * 8 / 15, id="no-dle", marks=pytest.mark.radio),
    ],
)
async def test_the_radio_carries_what_its_air_time_allows(on_air, air, kbit_s):
    world = await on_air(air)
    band = await world.band("gforce", SILENCE)
    client = await world.connect(band)
    got = []
    await client.start_notify(gforce.DATA, lambda _, data: got.append((time.monotonic(), len(data))))
    end = time.monotonic() + 0.6
    while time.monotonic() < end:
        while band.notify(band._data, bytes(244)):
            pass
        await asyncio.sleep(0.002)
    steady = [n for t, n in got if end - 0.45 < t <= end]
    assert 8e-3 * sum(steady) / 0.45 == pytest.approx(kbit_s, rel=0.08)


def test_air_times_are_those_of_the_specification():
    assert air_time_s(251, 2) == pytest.approx(1048e-6)
    assert air_time_s(0, 2) == pytest.approx(44e-6)
    assert air_time_s(27, 1) == pytest.approx(296e-6)


# GATT


async def test_errors_of_the_band_are_errors_of_bleak(world):
    client = await world.connect(await world.band())
    with pytest.raises(BleakGATTProtocolError) as unknown:
        await client.write_gatt_char(wire.CONTROL, b"\x77", response=True)
    with pytest.raises(BleakGATTProtocolError) as length:
        await client.write_gatt_char(wire.CONTROL, b"\x01\x01", response=True)
    with pytest.raises(BleakGATTProtocolError) as unreadable:
        await client.read_gatt_char(wire.CONTROL)
    codes = [int(e.value.code) for e in (unknown, length, unreadable)]
    assert codes == [wire.ERROR_UNKNOWN_COMMAND, wire.ERROR_BAD_LENGTH, 0x02]
    assert wire.decode_info(bytes(await client.read_gatt_char(wire.INFO))).channels == 16  # and the link stands
    await client.disconnect()


async def test_writes_of_any_length(world, monkeypatch):
    taken = []
    monkeypatch.setattr(GForceBand, "_request", lambda _, data: taken.append(data))
    client = await world.connect(await world.band("gforce", SILENCE))
    long = bytes(range(256)) + b"end"
    await client.write_gatt_char(gforce.COMMAND, long, response=True)
    with pytest.raises(BleakError, match="244"):
        await client.write_gatt_char(gforce.COMMAND, long, response=False)
    await client.write_gatt_char(gforce.COMMAND, long[:244], response=False)
    await until(lambda: len(taken) >= 2)
    assert taken == [long, long[:244]]
    await client.disconnect()


async def test_notifications_in_pieces_and_indications_arrive(on_air):
    world = await on_air(Air(ideal=True), mtu=517)
    band = await world.band("myo", SILENCE)
    client = await world.connect(band)
    assert client.mtu_size == 517
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    await client.start_notify(myo.IMU, lambda _, data: heard.put_nowait(bytes(data)))
    long = bytes(i % 251 for i in range(514))  # three packets of the link layer
    band.notify(band._imu, long)
    assert await asyncio.wait_for(heard.get(), 5) == long
    await client.start_notify(myo.CLASSIFIER, lambda _, data: heard.put_nowait(bytes(data)))
    classifier = next(c for s in band.device.gatt_server.services for c in s.characteristics if c.handle == 0x23)
    await asyncio.wait_for(band.device.indicate_subscribers(classifier, b"\x03\x01\x00"), 5)
    assert heard.get_nowait() == b"\x03\x01\x00"
    await client.stop_notify(myo.CLASSIFIER)
    await client.disconnect()


async def test_a_battery_tells_when_its_charge_changes(world):
    band = await world.band(battery=50)
    client = await world.connect(band)
    assert (await client.read_gatt_char(BATTERY_LEVEL))[0] == 50
    heard: asyncio.Queue[int] = asyncio.Queue()
    await client.start_notify(BATTERY_LEVEL, lambda _, data: heard.put_nowait(data[0]))
    band.set_battery(49)
    assert await asyncio.wait_for(heard.get(), 5) == 49
    await client.stop_notify(BATTERY_LEVEL)
    band.set_battery(48)
    assert (await client.read_gatt_char(BATTERY_LEVEL))[0] == 48
    assert heard.empty()
    await client.disconnect()


# links that end


async def test_a_lost_link_is_told_and_comes_back(world):
    band = await world.band()
    ended = []
    client = await world.connect(band, disconnected=ended.append)
    received = Received()
    await start(client, received)
    await received.at_least(200)
    if world.rig is not None:
        world.radio.cut([band])
    else:
        await band.disconnect()
    await until(lambda: ended)
    assert ended == [client]
    assert not client.is_connected
    with pytest.raises(BleakError, match="Not connected"):
        await client.read_gatt_char(wire.INFO)
    again = Received()
    client = await world.connect(band)
    await start(client, again)
    await again.at_least(200)
    # The band counts on meanwhile: the gap is known to the sample.
    assert again.frames[0].first > received.end
    assert (again.missing - again.frames[0].first, again.jumps) == (0, 0)
    np.testing.assert_array_equal(again.frames[0].samples, ramp_counts(again.frames[0].first, 7))
    assert band.tally.connections == 2
    await client.disconnect()


async def test_our_own_disconnect_is_told_once(world):
    ended = []
    client = await world.connect(await world.band(), disconnected=ended.append)
    await client.disconnect()
    await client.disconnect()
    assert ended == [client]


async def test_a_link_that_ends_under_a_request_fails_it(on_air):
    world = await on_air(Air())
    band = await world.band()
    client = await world.connect(band)
    read = asyncio.create_task(client.read_gatt_char(wire.INFO))
    await asyncio.sleep(0)
    world.radio.cut([band])
    with pytest.raises(BleakError):
        await read


@pytest.mark.radio
async def test_out_of_range_is_a_supervision_timeout(on_air):
    world = await on_air(Air(), supervision_ms=300.0)
    band = await world.band()
    ended = asyncio.Event()
    client = await world.connect(band, disconnected=lambda _: ended.set())
    received = Received()
    await start(client, received)
    await received.at_least(50)
    world.radio.radio.leave(band.controller_name)
    began = time.monotonic()
    await asyncio.wait_for(ended.wait(), 5)
    assert 0.2 < time.monotonic() - began < 1.0
    assert band.connection is None
    with pytest.raises(TimeoutError):
        await world.find(band, 0.2)
    world.radio.radio.come_back(band.controller_name)
    client = await world.connect(band)
    await client.disconnect()


@pytest.mark.radio
async def test_a_short_silence_only_delays(on_air):
    world = await on_air(Air(), supervision_ms=2000.0)
    band = await world.band(queue=200)
    client = await world.connect(band)
    received = Received()
    await start(client, received)
    await received.at_least(200)
    world.radio.radio.leave(band.controller_name)
    await asyncio.sleep(0.2)
    stuck = received.samples
    await asyncio.sleep(0.1)
    assert received.samples == stuck
    world.radio.radio.come_back(band.controller_name)
    await received.at_least(1000)
    assert (received.missing, received.jumps) == (0, 0)


# other people's devices


async def test_a_myo_has_its_handles_its_rotation_and_its_manners(world):
    band = await world.band("myo", LoopFeed(np.full((10, 8), 80.0), 200.0))
    client = await world.connect(band)
    characteristics = {c.uuid: c for s in client.services for c in s.characteristics}
    if world.rig is not None:
        assert {u: characteristics[u].handle + 1 for u in myo.HANDLES} == myo.HANDLES
    with pytest.raises(BleakGATTProtocolError):
        await client.write_gatt_char(myo.COMMAND, b"\x01\x02\x03\x01\x00", response=True)
    packets = []
    for turn, uuid in enumerate(myo.EMG):
        await client.start_notify(uuid, lambda _, data, turn=turn: packets.append((turn, bytes(data))))
    motion = []
    await client.start_notify(myo.IMU, lambda _, data: motion.append(bytes(data)))
    await client.write_gatt_char(myo.COMMAND, myo.never_sleep(), response=True)
    await client.write_gatt_char(myo.COMMAND, myo.set_mode(myo.EmgMode.RAW, myo.ImuMode.DATA), response=True)
    await until(lambda: len(packets) >= 40)
    assert [turn for turn, _ in packets] == [i % 4 for i in range(len(packets))]
    np.testing.assert_array_equal(myo.decode_emg(packets[30][1]), 10)
    assert len(motion) == pytest.approx(len(packets) / 2, abs=2)
    assert np.linalg.norm(myo.decode_imu(motion[3])[0, :4]) == pytest.approx(myo.QUATERNION_SCALE, rel=1e-3)
    await client.disconnect()


@pytest.mark.radio
async def test_electronics_hiss_where_they_are_told_to(world):
    band = await world.band("myo", SILENCE, noise_uv=2 * virtual_myo.UV_PER_COUNT)
    client = await world.connect(band)
    heard = []
    for uuid in myo.EMG:
        await client.start_notify(uuid, lambda _, data: heard.append(myo.decode_emg(bytes(data))))
    await client.write_gatt_char(myo.COMMAND, myo.set_mode(myo.EmgMode.RAW), response=True)
    await until(lambda: len(heard) >= 60)
    assert np.concatenate(heard).std() == pytest.approx(2.0, rel=0.15)
    await client.disconnect()


async def test_a_myo_falls_asleep_unless_told_never_to(world, monkeypatch):
    band = await world.band("myo", SILENCE)
    ended = asyncio.Event()
    client = await world.connect(band, disconnected=lambda _: ended.set())
    monkeypatch.setattr(virtual_myo, "SLEEP_S", 0.2)
    await client.write_gatt_char(myo.COMMAND, myo.never_sleep(), response=True)
    await asyncio.sleep(0.3)
    assert not ended.is_set()
    await client.disconnect()
    monkeypatch.setattr(virtual_myo, "SLEEP_S", 1.5)
    ended.clear()
    await world.connect(band, disconnected=lambda _: ended.set())
    await asyncio.wait_for(ended.wait(), 5)


async def test_a_gforce_answers_and_numbers_its_packets(world):
    band = await world.band("gforce", LoopFeed(np.full((10, 8), 164.05), 500.0), battery=61)
    client = await world.connect(band)
    replies: asyncio.Queue[gforce.Reply] = asyncio.Queue()
    packets = []
    await client.start_notify(gforce.COMMAND, lambda _, data: replies.put_nowait(gforce.decode_reply(bytes(data))))
    await client.start_notify(gforce.DATA, lambda _, data: packets.append(gforce.decode_frame(bytes(data))))

    async def ask(request: bytes) -> gforce.Reply:
        await client.write_gatt_char(gforce.COMMAND, request, response=True)
        return await asyncio.wait_for(replies.get(), 5)

    assert (await ask(bytes((gforce.Op.BATTERY,)))).body == bytes((61,))
    assert (await ask(b"\x7f")).code is gforce.Code.UNSUPPORTED
    too_fast = gforce.EmgConfig(rate_hz=1000, bits=12)
    assert (await ask(gforce.set_config(too_fast))).code is gforce.Code.BAD_PARAMETER
    config = gforce.EmgConfig(rate_hz=500, bits=12)
    assert (await ask(gforce.set_config(config))).code is gforce.Code.OK
    assert gforce.decode_config((await ask(bytes((gforce.Op.GET_EMG_CONFIG,)))).body) == config
    assert (await ask(gforce.package_id(True))).code is gforce.Code.OK
    assert (await ask(gforce.data_switch(gforce.Notify.EMG))).code is gforce.Code.OK
    await until(lambda: len(packets) >= 30)
    assert [p.seq for p in packets] == list(range(len(packets)))
    counts = gforce.decode_emg(packets[-1].body, bits=12)
    assert counts.shape == (8, 8)
    np.testing.assert_array_equal(counts, round(164.05 / gforce.UV_PER_COUNT_12_BIT))
    await client.disconnect()


@pytest.mark.radio
async def test_a_mudra_stamps_its_packets_with_its_own_clock(world):
    band = await world.band("mudra", LoopFeed(np.full((10, 3), 35.0), mudra.RATE_HZ), drift_ppm=5000.0, serial=12006699)
    client = await world.connect(band)
    serial = [bytes(await client.read_gatt_char(u)) for u in (mudra.SERIAL_RIGHT, mudra.SERIAL_LEFT)]
    assert mudra.serial_number(*serial) == 12006699
    frames = []
    await client.start_notify(mudra.SNC, lambda _, data: frames.append(mudra.decode(bytes(data))))
    await asyncio.sleep(0.1)
    assert not frames  # off until enabled
    await client.stop_notify(mudra.SNC)
    await client.write_gatt_char(mudra.COMMAND, mudra.enable_snc(), response=True)
    cpu = time.process_time()
    await asyncio.sleep(0.2)
    assert band.tally.samples == 0  # and not before somebody listens
    assert time.process_time() - cpu < 0.1
    await client.start_notify(mudra.SNC, lambda _, data: frames.append(mudra.decode(bytes(data))))
    await until(lambda: len(frames) >= 40)
    np.testing.assert_array_equal(frames[0].samples, 1000)
    assert frames[0].samples.shape == (mudra.SAMPLES_PER_PACKET, 3)
    steps_us = np.diff([f.device_us for f in frames])
    np.testing.assert_allclose(steps_us, mudra.SAMPLES_PER_PACKET / mudra.RATE_HZ * 1e6, atol=1.1)
    await client.disconnect()


# HCI over TCP


async def test_hosts_attach_over_tcp_and_leave_as_they_like(world):
    rig = world.radio
    band = await world.band()
    port = await rig.serve()
    _, noise = await asyncio.open_connection("127.0.0.1", port)
    noise.write(b"GET / HTTP/1.1\r\n\r\n")
    for _ in range(2):
        remote = World(rig, make_adapter(f"tcp-client:127.0.0.1:{port}"))
        client = await remote.connect(band)
        received = Received()
        await start(client, received)
        await received.at_least(300)
        assert (received.missing - received.frames[0].first, received.jumps) == (0, 0)
        await remote.adapter.close()
    noise.close()
    await noise.wait_closed()
    await until(lambda: band.connection is None and not rig.hosts)


async def test_a_radio_that_is_unplugged_ends_its_links_and_may_come_back(world):
    rig = world.radio
    band = await world.band()
    port = await rig.serve()
    remote = World(rig, make_adapter(f"tcp-client:127.0.0.1:{port}"))
    ended = asyncio.Event()
    client = await remote.connect(band, disconnected=lambda _: ended.set())
    for transport in list(rig.hosts):
        transport.abort()
    await asyncio.wait_for(ended.wait(), 5)
    assert not client.is_connected
    client = await remote.connect(band)
    assert client.is_connected
    await remote.adapter.close()


@pytest.mark.radio
async def test_the_command_serves_bands_cuts_their_links_and_sums_up():
    command = [*SIMULATE, "open", "--count", "2", "--port", "0", "--drop-every", "0.8", "--drift-ppm", "50", "--json"]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    told = json.loads(await process.stdout.readline())
    assert [b["name"] for b in told["bands"]] == ["EMBridge-16 1", "EMBridge-16 2"]
    async with make_adapter(told["adapter"]) as adapter:
        cut = asyncio.Event()
        client = adapter.make_client(told["bands"][1]["address"], disconnected=lambda _: cut.set())
        await client.connect()
        await asyncio.wait_for(cut.wait(), 5)
        await client.connect()
        assert client.is_connected
    process.terminate()
    out, _ = await process.communicate()
    tally = json.loads(out.splitlines()[-1])["tally"]
    assert process.returncode == 0
    assert tally["EMBridge-16 1"]["connections"] == 0
    assert tally["EMBridge-16 2"]["connections"] >= 2


@pytest.mark.radio
async def test_the_command_serves_a_band_on_a_given_controller(world):
    port = await world.radio.serve()
    command = [*SIMULATE, "myo", "--controller", f"tcp-client:127.0.0.1:{port}", "--name", "On a dongle", "--json"]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    (told,) = json.loads(await process.stdout.readline())["bands"]
    client = world.adapter.make_client(told["address"])
    await client.connect()
    firmware = myo.decode_firmware(bytes(await client.read_gatt_char(myo.FIRMWARE)))
    assert (firmware.major, told["name"]) == (1, "On a dongle")
    await client.disconnect()
    process.terminate()
    await process.communicate()
    assert process.returncode == 0


@pytest.mark.radio
def test_the_same_tests_run_on_other_controllers(request):
    """Two bare controllers of another process stand for two dongles."""
    if request.config.getoption("--ble-adapter"):
        pytest.skip("they do already")
    code = (
        "import asyncio\n"
        "from embridge_edge.virtual.rig import Rig\n"
        "async def main():\n"
        "    rig = Rig()\n"
        "    print(await rig.serve(), flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as radio:
        try:
            assert radio.stdout is not None
            transport = f"tcp-client:127.0.0.1:{int(radio.stdout.readline())}"
            command = [sys.executable, "-m", "pytest", "-q", __file__, "--ble-adapter", f"{transport},{transport}"]
            command += ["-k", "not takes_a_virtual and not decodes_a_virtual"]
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=240)
        finally:
            radio.kill()
    assert done.returncode == 0, done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 15, done.stdout


# unmodified programs from PyPI

CLIENTS = {
    "myo": ["dl-myo==1.1.8"],
    "gforce": ["sensor-sdk==0.0.71"],
    "mudra": ["mudraka==0.3.1"],
}


def client_folder(kind: str) -> Path:
    """A folder with the third-party program, which never enters our environment: licences and pins are its own."""
    folder = ROOT / "build" / "clients" / kind
    if not any(folder.glob("*.dist-info")):
        install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), *CLIENTS[kind]]
        done = subprocess.run(install, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot install {CLIENTS[kind]}: {done.stderr.splitlines()[-1]}")
    return folder


def listen(kind: str, seconds: float = 4.0) -> dict:
    """What an unmodified program receives from a simulated band in another process."""
    with subprocess.Popen(
        [*SIMULATE, kind, "--port", "0", "--json"], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as bands:
        try:
            assert bands.stdout is not None
            adapter = json.loads(bands.stdout.readline())["adapter"]
            program = ROOT / "tests" / "support" / "clients" / f"{kind}_listener.py"
            done = subprocess.run(
                [sys.executable, "-m", "embridge_edge.ble.launch", adapter, str(program), str(seconds)],
                capture_output=True,
                text=True,
                timeout=90,
                env={"PYTHONPATH": str(client_folder(kind)), "PATH": ""},
            )
        finally:
            bands.terminate()
            told = bands.stdout.read() if bands.stdout is not None else ""
    assert done.returncode == 0, done.stderr
    (tally,) = json.loads(told.splitlines()[-1])["tally"].values()
    assert tally["dropped_samples"] == 0
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.radio
def test_dl_myo_takes_a_virtual_myo_for_a_myo():
    heard = listen("myo")
    assert heard["rates_hz"]["emg"] == pytest.approx(200, rel=0.03)
    assert heard["rates_hz"]["imu"] == pytest.approx(50, rel=0.05)
    assert (heard["battery"], heard["services"]) == (87, 7)


@pytest.mark.radio
def test_oymotions_sdk_takes_a_virtual_gforce_for_a_gforce():
    heard = listen("gforce")
    assert heard["rate_hz"] == pytest.approx(1000, rel=0.03)
    assert (heard["gaps"], heard["kinds"], heard["fs"], heard["battery"]) == (0, [8], 1000, 87)


@pytest.mark.radio
def test_mudraka_decodes_a_virtual_mudra_link():
    heard = listen("mudra")
    assert heard["rate_hz"] == pytest.approx(834, rel=0.03)
    assert heard["written"] > 0
    assert heard["rms_uv"] > 0.1
