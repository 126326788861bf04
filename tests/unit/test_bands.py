"""Bands without a radio: catalogue, plans, words on the command line, drivers, LSL, BrainFlow."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from enum import IntEnum
from pathlib import Path
from types import ModuleType, SimpleNamespace

import msgspec
import numpy as np
import pytest

from embridge_edge import band_plan
from embridge_edge import plan as plans
from embridge_edge.bands import monitor, naming
from embridge_edge.bands.brainflow import BrainflowBand
from embridge_edge.bands.catalogue import CATALOGUE, driver_of, info_of, open_bands, recognise
from embridge_edge.bands.ganglion import GanglionDriver
from embridge_edge.bands.gforce import GForceDriver
from embridge_edge.bands.lsl import LslBand
from embridge_edge.bands.myo import MyoDriver
from embridge_edge.bands.npg import NpgDriver
from embridge_edge.bands.protocol import ganglion, gforce, myo, npg, open_profile
from embridge_edge.bands.protocol.octets import SOFTWARE_REVISION
from embridge_edge.source import Packet
from embridge_edge.takes import open_take
from embridge_shared.clock import SystemClock
from embridge_shared.errors import ConfigError, DeviceError, OperatorError, Reason
from embridge_shared.signal import Modality

S = 10**9
CLOCK = SystemClock()


class NoRadio:
    def acquire(self, spec):
        raise AssertionError("no band is connected here")

    def release(self, spec):
        raise AssertionError


def sources(source):
    return open_bands(source, Path(), CLOCK, radios=NoRadio())


# what is known before connecting


def test_features_are_known_before_anything_is_connected():
    for kind, info in CATALOGUE.items():
        assert info.kind == kind
        assert info.emg.modality is Modality.EMG
        assert info.quirks
        # A scale that nobody published is not called calibrated.
        assert not info.emg.calibrated or info.emg.unit == "µV"
    (source,) = sources(band_plan.GForceSource(bits=12))
    assert (source.spec.rate_hz, source.spec.n_channels) == (500.0, 8)
    assert source.spec.scale == gforce.UV_PER_COUNT_12_BIT
    emg, motion = sources(band_plan.MyoSource(motion=True))
    assert (emg.spec.name, motion.spec.name, motion.spec.modality) == ("emg", "imu", Modality.IMU)
    with pytest.raises(ConfigError, match="no band kind 'x'"):
        info_of("x")


@pytest.mark.parametrize(
    ("name", "services", "kind"),
    [
        ("", (myo.CONTROL_SERVICE.upper(),), "myo"),
        ("Armband", (open_profile.SERVICE,), "open"),
        ("gForcePro+ 1234", (), "gforce"),
        ("Mudra Link", (), "mudra"),
        ("Simblee", (), "ganglion"),
        ("NPG-30:30", (npg.SERVICE,), "npg"),
        ("myo-like name", (open_profile.SERVICE,), "open"),
        ("LabBand", ("6e400001-b5a3-f393-e0a9-e50e24dcca9e",), "uart"),
        ("Headphones", (), None),
    ],
)
def test_advertisements_are_recognised_by_service_before_name(name, services, kind):
    info = recognise(name, services)
    assert (info.kind if info else None) == kind


# plans


def test_a_plan_names_bands(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(
        '[[session]]\nname = "a"\nparticipant = "p"\n[session.source]\nkind = "bands"\n'
        '[[session.source.bands]]\nkind = "open"\nduration_s = 2.5\n'
        '[[session.source.bands]]\nkind = "myo"\nlabel = "left"\nmotion = true\nadapter = "hci1"\n'
    )
    plan = plans.load(path)
    take = open_take(plan.session[0], tmp_path, CLOCK)
    assert [s.spec.name for s in take.sources] == ["emg", "left_emg", "left_imu"]
    assert take.band is take.sources[0]
    assert (take.name, take.annotations) == ("", ())
    assert [(s.kind, s.stream, s.phase) for s in take.states()] == [
        ("open", "emg", "idle"),
        ("myo", "left_emg", "idle"),
    ]
    take.stop()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('kind = "open"\nduration_s = 0.0', "duration_s must be positive"),
        ('kind = "bands"\nbands = []', "`bands` is empty"),
        ('kind = "bands"\nbands = [{kind = "open"}, {kind = "myo"}]', "different labels"),
        ('kind = "open"\nlabel = "A b"', "only lower-case"),
        ('kind = "open"\nmotion = true', "motion"),
        ('kind = "teapot"', "teapot"),
        ('kind = "uart"', "profile"),
    ],
)
def test_plans_that_name_no_band_are_refused(tmp_path, text, says):
    path = tmp_path / "plan.toml"
    path.write_text(f'[[session]]\nname = "a"\nparticipant = "p"\n[session.source]\n{text}\n')
    with pytest.raises(ConfigError, match=says):
        plans.load(path)


def test_options_that_no_band_has_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="8 or 12 bit"):
        driver_of(band_plan.GForceSource(bits=10))
    with pytest.raises(ConfigError, match="cannot be read"):
        driver_of(band_plan.UartSource(profile="none.toml"), tmp_path)
    with pytest.raises(ConfigError, match="no Bluetooth band"):
        driver_of(band_plan.LslSource(channels=1, rate_hz=1.0))


def test_bands_are_words_on_a_command_line():
    source = naming.parse(["open", "myo@C0:01", "uart:a/b.toml@C0:02"], adapter="hci1", duration_s=3.0, motion=True)
    first, second, third = source.bands
    assert (first.label, first.address, first.adapter, first.duration_s) == ("", "", "hci1", 3.0)
    assert (second.label, second.address, second.motion) == ("b2", "C0:01", True)
    assert (third.label, third.profile, third.address) == ("b3", "a/b.toml", "C0:02")
    for words in (["nope"], ["open:profile"], ["uart"], ["lsl"]):
        with pytest.raises(ConfigError):
            naming.parse(words)
    with pytest.raises(ConfigError, match="positive"):
        naming.parse(["open"], duration_s=-1.0)


# drivers


class FakeLink:
    """A band that answers as told and remembers what it was written."""

    def __init__(self, reads=None, reply=None):
        self.reads, self.reply, self.written = reads or {}, reply, []
        self.answers = asyncio.Queue()

    def has(self, uuid):
        return uuid in self.reads

    async def read(self, uuid):
        return self.reads[uuid]

    async def read_if_there(self, uuid):
        return self.reads.get(uuid)

    async def write(self, uuid, data, *, response=True):
        self.written.append(data)
        if self.reply is not None:
            for answer in self.reply(data):
                self.answers.put_nowait(answer)

    async def listen(self, uuid):
        return self.answers

    async def answer(self, answers):
        async with asyncio.timeout(1):
            return await answers.get()


def place(driver, notifications, stream=0):
    """Packets of a stream from (channel, bytes, arrival in s)."""
    indexer, packets = driver.indexer(stream, 0), []
    for channel, data, arrival_s in notifications:
        for piece in driver.decode(channel, data):
            if piece.stream == stream:
                packets += indexer.push(piece.counted, 10 * S + round(arrival_s * S), 1)
    return packets, indexer


async def test_a_myo_of_other_firmware_is_refused_and_one_of_ours_is_set_up():
    driver = MyoDriver(motion=True)
    with pytest.raises(DeviceError, match=r"firmware 0\.8\.1") as error:
        await driver.prepare(FakeLink({myo.FIRMWARE: myo.encode_firmware(myo.Firmware(0, 8, 1, 2))}))
    assert error.value.reason is Reason.UNSUPPORTED_VERSION
    link = FakeLink({myo.FIRMWARE: myo.encode_firmware(myo.Firmware(1, 5, 1970, 2))})
    await driver.prepare(link)
    await driver.start(link)
    await driver.keep_alive(link)
    await driver.stop(link)
    assert [d.hex() for d in link.written] == ["090101", "0103030100", "090101", "0103000000"]
    assert driver.channels == (*myo.EMG, myo.IMU)


async def test_a_gforce_talks_and_listens():
    def reply(data):
        if data[0] == gforce.Op.BATTERY:
            return [bytes((0, gforce.Op.FIRMWARE)), bytes((0, data[0], 77))]
        return [bytes((0, data[0]))]

    driver, link = GForceDriver(), FakeLink(reply=reply)
    await driver.prepare(link)
    await driver.start(link)
    assert [d.hex() for d in link.written] == ["3fe803ff008008", "2601", "4f80000000"]
    assert await driver.battery(link) == 77
    mute = FakeLink(reply=lambda data: [bytes((gforce.Code.UNSUPPORTED, data[0]))])
    driver = GForceDriver()
    await driver.prepare(mute)
    with pytest.raises(DeviceError, match="cannot sample at 1000 Hz") as error:
        await driver.start(mute)
    assert error.value.reason is Reason.UNSUPPORTED_VERSION


def test_a_gforce_that_took_another_resolution_is_found_out():
    body = gforce.encode_emg(np.zeros((8, 8), np.int16))
    data = gforce.encode_frame(gforce.Frame(gforce.DataType.EMG, 1, body))
    with pytest.raises(DeviceError, match="8 samples instead of 16"):
        GForceDriver().decode(0, data)
    quaternion = gforce.encode_frame(gforce.Frame(gforce.DataType.QUATERNION, 1, bytes(16)))
    assert GForceDriver().decode(0, quaternion) == []


@pytest.mark.parametrize(("seq_bytes", "missing"), [(1, 200), (2, 300), (2, 60_000)])
def test_the_width_of_a_gforces_number_is_told_by_its_first_packet(seq_bytes, missing):
    driver, body = GForceDriver(), gforce.encode_emg(np.zeros((16, 8), np.int16))

    def heard(seq):
        frame = gforce.Frame(gforce.DataType.EMG, seq, body)
        ((piece,),) = [driver.decode(0, gforce.encode_frame(frame, seq_bytes))]
        return piece.counted

    first, later = heard(250), heard(250 + 1 + missing)
    indexer = driver.indexer(0, 0)
    (before,) = indexer.push(first, 16_000_000)
    (after,) = indexer.push(later, (2 + missing) * 16_000_000)
    assert after.first - before.first == 16 * (1 + missing)
    assert not after.inferred
    other = gforce.encode_frame(gforce.Frame(gforce.DataType.EMG, 1, body), 3 - seq_bytes)
    with pytest.raises(DeviceError):
        driver.decode(0, other)


async def test_a_ganglion_of_firmware_2_loses_all_up_to_the_next_raw_sample():
    driver = GanglionDriver()
    await driver.prepare(FakeLink({SOFTWARE_REVISION: b"2.0.1"}))
    rng = np.random.default_rng(0)
    turns = rng.integers(-900, 900, (3, 100, 2, 4)) * 2
    sent, level, truth = [], np.zeros(4, np.int64), []
    for turn in turns:
        sent.append(ganglion.encode(ganglion.Frame(0, 24, level[None].astype(np.int32)), 2))
        truth.append(level.copy())
        for number, steps in enumerate(turn, 1):
            sent.append(ganglion.encode(ganglion.Frame(number, 18, steps.astype(np.int32)), 2))
            for step in steps:
                level = level - step
                truth.append(level.copy())
    truth = np.array(truth)
    arrivals_s = np.cumsum([len(range(1 if i % 101 == 0 else 2)) for i in range(len(sent))]) / 200
    kept = [(0, d, t) for i, (d, t) in enumerate(zip(sent, arrivals_s, strict=True)) if i != 150]
    packets, indexer = place(driver, kept)
    for packet in packets:
        np.testing.assert_array_equal(packet.samples, truth[packet.first : packet.first + len(packet.samples)])
    assert packets[-1].first + 2 == len(truth)
    assert indexer.lost == 402 - (201 + 1 + 2 * 48)
    assert not any(p.inferred for p in packets)


def test_samples_missing_inside_an_npg_packet_are_a_gap():
    driver = NpgDriver()
    values = np.arange(60).reshape(20, 3)
    data = npg.encode(250, values[:4]) + npg.encode(0, values[10:16])
    packets, indexer = place(driver, [(0, npg.encode(240, values[:10]), 0.02), (0, data, 0.04)])
    assert [(p.first, len(p.samples)) for p in packets] == [(0, 10), (10, 4), (16, 6)]
    assert indexer.lost == 2


async def test_a_band_that_cannot_show_itself_says_so():
    with pytest.raises(OperatorError, match="neither vibrate nor blink"):
        await NpgDriver().identify(FakeLink())


# meter


def test_the_meter_counts_what_is_missing_and_knows_the_clock():
    band = SimpleNamespace(spec=CATALOGUE["open"].emg, state=lambda: None)
    meter = monitor.Meter(band, CLOCK)
    drift, now_ns = 50e-6, CLOCK.monotonic_ns()
    for i in range(4000):
        if i % 100 != 50:
            end = 70 * (i + 1)
            meter.take(Packet(70 * i, np.zeros((70, 16)), now_ns + round(end / 2000 / (1 + drift) * S)))
    row = meter.row()
    assert (row["expected"], row["lost"], row["loss"]) == (280_000, 2800, 0.01)
    assert row["ppm"] == pytest.approx(50, abs=15)
    assert row["rate_hz"] == pytest.approx(1980, abs=2)
    state = {"phase": "lost", "action": "Switch it on."}
    assert "Switch it on" in str(monitor.table([{**row, **state}]).caption)


# LSL


@pytest.fixture
def outlet():
    pylsl = pytest.importorskip("pylsl")
    name = f"ramp-{time.monotonic_ns()}"
    out = pylsl.StreamOutlet(pylsl.StreamInfo(name, "EMG", 4, 500.0, "float32", f"id-{name}"))
    over = threading.Event()

    def push():
        sent, began_s = 0, time.monotonic()
        while not over.wait(0.01):
            due = int((time.monotonic() - began_s) * 500)
            if due > sent:
                out.push_chunk(np.repeat(np.arange(sent, due, dtype=np.float32)[:, None], 4, axis=1))
                sent = due

    thread = threading.Thread(target=push)
    thread.start()
    yield name
    over.set()
    thread.join()


async def test_an_lsl_stream_is_held_to_its_plan_and_read(outlet):
    wrong = LslBand(band_plan.LslSource(stream=outlet, channels=5, rate_hz=500.0), clock=CLOCK)
    with pytest.raises(DeviceError, match="4 channels at 500 Hz, not 5") as error:
        await wrong.open(CLOCK.monotonic_ns())
    assert error.value.reason is Reason.WRONG_SHAPE
    (band,) = sources(band_plan.LslSource(stream=outlet, channels=4, rate_hz=500.0, duration_s=0.5, scale=2.0))
    assert (band.spec.scale, band.spec.calibrated) == (2.0, False)
    await band.open(CLOCK.monotonic_ns())
    packets = [p async for p in band.packets()]
    now_ns = CLOCK.monotonic_ns()
    await band.close()
    samples = np.concatenate([p.samples for p in packets])
    assert samples.shape == (250, 4)
    np.testing.assert_array_equal(np.diff(samples[:, 0]), 1)
    assert 0 <= now_ns - packets[-1].host_ns < 0.2 * S
    assert (band.state().received, band.state().lost, band.state().phase) == (250, 0, "stopped")


def test_without_pylsl_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pylsl", None)
    with pytest.raises(ConfigError, match=r"embridge\[lsl\]") as error:
        sources(band_plan.LslSource(channels=4, rate_hz=500.0))
    assert error.value.reason is Reason.MISSING_EXTRA


# BrainFlow


class BrainFlowError(Exception):
    pass


@pytest.fixture
def brainflow(monkeypatch):
    """BrainFlow with one board of two channels, which loses packages 30 to 34."""

    class BoardIds(IntEnum):
        TEST_BOARD = 7
        DRY_BOARD = 8

    class BoardShim:
        fails = False
        log: list[str] = []  # noqa: RUF012

        def __init__(self, number, parameters):
            self.sent, self.began_s = 0, 0.0
            self.log.append(f"{number} {parameters.serial_port}")

        @staticmethod
        def get_board_descr(number):
            rows = {"emg_channels": [1, 2]} if number == 7 else {"eeg_channels": []}
            return {**rows, "package_num_channel": 0, "timestamp_channel": 3, "sampling_rate": 250, "name": "Test"}

        def prepare_session(self):
            if self.fails:
                raise BrainFlowError("BOARD_NOT_READY_ERROR:7")

        def start_stream(self, size):
            self.began_s = time.time()

        def get_board_data(self):
            due = int((time.time() - self.began_s) * 250)
            at = np.array([i for i in range(self.sent, due) if not 30 <= i < 35], float)
            self.sent = due
            return np.array([at % 256, at, -at, self.began_s + (at + 1) / 250])

        def stop_stream(self):
            self.log.append("stopped")

        def release_session(self):
            self.log.append("released")

    shim = ModuleType("brainflow.board_shim")
    for part in (BoardIds, BoardShim, BrainFlowError):
        setattr(shim, part.__name__, part)
    shim.BrainFlowInputParams = SimpleNamespace
    package = ModuleType("brainflow")
    package.board_shim = shim
    monkeypatch.setitem(sys.modules, "brainflow", package)
    monkeypatch.setitem(sys.modules, "brainflow.board_shim", shim)
    return BoardShim


async def test_a_brainflow_board_is_read_with_its_gaps(brainflow):
    source = band_plan.BrainflowSource(board="test_board", serial_port="/dev/x", duration_s=0.4)
    (band,) = sources(source)
    assert (band.spec.n_channels, band.spec.rate_hz, band.spec.device) == (2, 250.0, "brainflow:test")
    await band.open(CLOCK.monotonic_ns())
    packets = [p async for p in band.packets()]
    await band.close()
    for packet in packets:
        np.testing.assert_array_equal(packet.samples[:, 0], np.arange(packet.first, packet.first + len(packet.samples)))
    assert packets[-1].first + len(packets[-1].samples) == 100
    assert (band.state().received, band.state().lost) == (95, 5)
    assert [state.phase for _, state in band.changes()] == ["connecting", "streaming", "stopped"]
    assert brainflow.log == ["7 /dev/x", "stopped", "released"]


class Ticking(SystemClock):
    """Half a second goes by with every sleep."""

    now_ns = 0

    def monotonic_ns(self) -> int:
        return self.now_ns

    async def sleep(self, seconds: float) -> None:
        self.now_ns += 500_000_000


async def test_a_brainflow_board_that_cannot_be_says_why(brainflow, monkeypatch):
    with pytest.raises(ConfigError, match="DRY_BOARD, TEST_BOARD"):
        BrainflowBand(band_plan.BrainflowSource(board="nope"), clock=CLOCK)
    with pytest.raises(ConfigError, match="no EMG"):
        BrainflowBand(band_plan.BrainflowSource(board="8"), clock=CLOCK)
    monkeypatch.setattr(brainflow, "fails", True)
    band = BrainflowBand(band_plan.BrainflowSource(board="7"), clock=CLOCK)
    with pytest.raises(DeviceError, match="BOARD_NOT_READY") as error:
        await band.open(0)
    assert "serial_port" in error.value.hint
    (_, failed) = [state for _, state in band.changes()]
    assert (failed.phase, failed.action) == ("failed", error.value.hint)
    await band.close()


async def test_a_board_that_falls_silent_stalls_and_is_lost(brainflow, monkeypatch):
    clock, (band,) = Ticking(), sources(band_plan.BrainflowSource(board="7"))
    monkeypatch.setattr(band, "_clock", clock)
    await band.open(0)
    with pytest.raises(DeviceError, match="sends nothing") as error:
        async for _ in band.packets():
            pass
    assert error.value.reason is Reason.SILENT
    *_, stalled, lost = [state for _, state in band.changes()]
    assert (stalled.phase, lost.phase) == ("stalled", "lost")
    assert lost.reason == "no samples for 30 s"
    assert lost.action == error.value.hint
    await band.close()


def test_without_brainflow_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "brainflow", None)
    with pytest.raises(ConfigError, match=r"embridge\[brainflow\]") as error:
        sources(band_plan.BrainflowSource(board="7"))
    assert error.value.reason is Reason.MISSING_EXTRA


def test_band_sources_survive_a_plan_in_json():
    source = band_plan.BandsSource(
        bands=(band_plan.MyoSource(motion=True), band_plan.UartSource(profile="x", label="b"))
    )
    plan = plans.Plan(session=(plans.SessionPlan(name="a", participant="p", source=source),))
    assert msgspec.json.decode(msgspec.json.encode(plan), type=plans.Plan) == plan
