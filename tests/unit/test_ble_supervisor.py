"""The supervisor against a scripted radio: every way a link can go ends in a named state that says what to do."""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from itertools import pairwise
from types import SimpleNamespace

import pytest
from bleak.exc import (
    BleakBluetoothNotAvailableError,
    BleakBluetoothNotAvailableReason,
    BleakCharacteristicNotFoundError,
    BleakDBusError,
    BleakError,
    BleakGATTProtocolError,
)

from embridge_edge.ble.adapter import LinkReport
from embridge_edge.ble.faults import Fault, blame
from embridge_edge.ble.mailbox import Mailbox, Notification
from embridge_edge.ble.status import Phase, Policy
from embridge_edge.ble.supervisor import Supervisor
from embridge_edge.ble.thread import BleThread, Radios
from embridge_shared.errors import DeviceError, Reason

DATA, CONTROL = "data", "control"


class FastClock:
    """Time passes only while somebody sleeps, and then at once."""

    def __init__(self):
        self.now_ns = 10**9
        self.due = []

    def monotonic_ns(self):
        return self.now_ns

    def wall_ns(self):
        return self.now_ns

    def at(self, seconds, function, *arguments):
        self.due.append((self.now_ns + round(seconds * 1e9), function, arguments))

    async def sleep(self, seconds):
        end = self.now_ns + round(seconds * 1e9)
        await asyncio.sleep(0)
        while due := min((d for d in self.due if d[0] <= end), key=lambda d: d[0], default=None):
            self.due.remove(due)
            self.now_ns = max(self.now_ns, due[0])
            due[1](*due[2])
            await asyncio.sleep(0)
        self.now_ns = max(self.now_ns, end)
        await asyncio.sleep(0)


class World:
    """A band, a radio and a host in one: adapter, scanner and client of bleak's shape."""

    def __init__(self, clock):
        self.clock = clock
        self.advertising = True
        self.address, self.more = "C0:01", []
        self.scans = 0
        self.clients = []
        self.connect_errors = []
        self.scan_error = None
        self.missing = set()
        self.log = []
        self.rate_hz = 10.0

    async def open(self):
        return self

    def make_scanner(self, take):
        return Scanner(self, take)

    def make_client(self, device, *, disconnected, timeout_s):
        client = Client(self, disconnected)
        self.clients.append(client)
        return client

    async def report(self, client):
        return LinkReport(mtu=247, rssi_dbm=-50, interval_ms=15.0)

    @property
    def client(self):
        return self.clients[-1]


class Scanner:
    def __init__(self, world, take):
        self.world, self.take = world, take

    async def start(self):
        self.world.scans += 1
        if self.world.scan_error is not None:
            raise self.world.scan_error
        if self.world.advertising:
            for address, name in (("AA:BB", "other"), (self.world.address, "band"), *self.world.more):
                self.take(
                    SimpleNamespace(address=address, name=None),
                    SimpleNamespace(local_name=name, rssi=-60, service_uuids=[]),
                )

    async def __aenter__(self):
        await self.start()

    async def __aexit__(self, *_):
        pass


class Client:
    def __init__(self, world, disconnected):
        self.world, self._disconnected = world, disconnected
        self.is_connected = False
        self.callbacks = {}
        self.sending = False
        self.muted = False
        self.services = SimpleNamespace(
            get_characteristic=lambda uuid: None if uuid in world.missing else uuid, characteristics={}
        )

    async def connect(self):
        if self.world.connect_errors:
            raise self.world.connect_errors.pop(0)
        self.is_connected = True

    async def start_notify(self, uuid, callback):
        if uuid in self.world.missing:
            raise BleakCharacteristicNotFoundError(uuid)
        self.callbacks[uuid] = callback

    async def write_gatt_char(self, uuid, data, response=True):
        self.world.log.append(data)
        if data == b"start" and not self.sending:
            self.sending = True
            self._tick()

    async def read_gatt_char(self, uuid):
        return b"\x37"

    async def disconnect(self):
        self.drop()

    def _tick(self):
        if self.sending and self.is_connected:
            if not self.muted:
                self.callbacks[DATA](None, bytearray(b"x"))
            self.world.clock.at(1 / self.world.rate_hz, self._tick)

    def drop(self):
        self.sending = False
        if self.is_connected:
            self.is_connected = False
            self._disconnected(self)


class Handler:
    channels = (DATA,)
    keep_alive_s = None

    def __init__(self):
        self.battery_error = None
        self.prepare_error = None

    def matches(self, device, advertisement):
        return advertisement.local_name == "band"

    async def prepare(self, link):
        if self.prepare_error is not None:
            raise self.prepare_error

    async def start(self, link):
        await link.write(CONTROL, b"start")

    async def stop(self, link):
        await link.write(CONTROL, b"stop")

    async def keep_alive(self, link):
        await link.write(CONTROL, b"alive")

    async def battery(self, link):
        if self.battery_error is not None:
            raise self.battery_error
        return (await link.read(CONTROL))[0]


class Bench:
    def __init__(self, **policy):
        self.clock = FastClock()
        self.world = World(self.clock)
        self.handler = Handler()
        self.mailbox = Mailbox(100_000)
        self.supervisor = Supervisor(
            self.handler, self.mailbox, self.clock, policy=Policy(**policy), rng=random.Random(1)
        )

    async def run(self, seconds=60.0):
        self.clock.at(seconds, self.supervisor.stop)
        async with asyncio.timeout(20):
            await self.supervisor.run(self.world.open)
        return self.supervisor.status

    @property
    def phases(self):
        return [s.phase.value for s in self.supervisor.history]


HAPPY = ["scanning", "connecting", "subscribing", "streaming"]


async def test_a_band_is_found_set_up_watched_and_stopped():
    bench = Bench()
    status = await bench.run(25.0)
    assert bench.phases == [*HAPPY, "stopped"]
    assert bench.world.log == [b"start", b"stop"]
    assert (status.address, status.name, status.battery, status.rssi_dbm) == ("C0:01", "band", 0x37, -50)
    assert (status.report.mtu, status.connects) == (247, 1)
    assert bench.mailbox.closed
    assert not bench.world.client.is_connected
    items = await bench.mailbox.take()
    assert len(items) == bench.supervisor.notifications > 200
    assert {(i.epoch, i.channel, i.data) for i in items} == {(1, 0, b"x")}


async def test_only_the_band_asked_for_is_taken():
    bench = Bench()
    bench.supervisor = Supervisor(bench.handler, bench.mailbox, bench.clock, address="aa:bb")
    assert (await bench.run(5.0)).address == "AA:BB"


async def test_a_dropped_link_is_scanned_for_and_connected_again_without_delay():
    bench = Bench()
    bench.clock.at(20.0, lambda: bench.world.client.drop())
    await bench.run(30.0)
    assert bench.phases == [*HAPPY, "reconnecting", *HAPPY, "stopped"]
    lost = next(s for s in bench.supervisor.history if s.phase is Phase.RECONNECTING)
    again = [s for s in bench.supervisor.history if s.phase is Phase.STREAMING][1]
    assert (lost.fault.reason, bool(lost.action)) == (Reason.UNREACHABLE, True)
    assert again.since_ns - lost.since_ns < 0.1e9
    assert bench.world.scans == 2
    assert {i.epoch for i in await bench.mailbox.take()} == {1, 2}


async def test_a_link_that_does_not_hold_is_not_hammered():
    bench = Bench(give_up_s=1e6)

    def drop_soon():
        if bench.world.clients:
            bench.world.client.drop()
        bench.clock.at(0.3, drop_soon)

    drop_soon()
    await bench.run(120.0)
    assert len(bench.world.clients) < 15


async def test_a_band_that_is_not_there_is_looked_for_ever_more_rarely_and_given_up():
    bench = Bench(scan_s=1.0, first_s=300.0)
    bench.world.advertising = False
    status = await bench.run(1e6)
    waits = [s for s in bench.supervisor.history if s.phase is Phase.RECONNECTING]
    gaps = [(b.since_ns - a.since_ns) * 1e-9 - 1.0 for a, b in pairwise(waits)]
    for i, gap in enumerate(gaps):
        full = min(30.0, 0.25 * 2**i)
        assert full / 2 - 0.01 <= gap <= full + 0.01
    assert max(gaps) > 15
    assert status.phase is Phase.LOST
    assert status.fault.reason is Reason.NOT_FOUND
    assert "phone or another computer" in status.action


async def test_a_band_switched_off_is_lost_after_the_patience_of_a_recording():
    bench = Bench(scan_s=2.0, give_up_s=60.0)

    def off():
        bench.world.advertising = False
        bench.world.client.drop()

    bench.clock.at(20.0, off)
    status = await bench.run(1e6)
    assert status.phase is Phase.LOST
    away_s = (status.since_ns - 10**9) * 1e-9 - 20
    assert 60 <= away_s < 100


async def test_a_silent_band_is_started_again_and_then_connected_anew():
    bench = Bench(silence_s=2.0)
    bench.clock.at(10.0, lambda: setattr(bench.world.client, "sending", False))

    def mute():
        bench.world.client.muted = True

    bench.clock.at(30.0, mute)
    await bench.run(60.0)
    assert bench.phases == [*HAPPY, "stalled", "streaming", "stalled", "reconnecting", *HAPPY, "stopped"]
    assert bench.world.log.count(b"start") == 4
    assert [s.fault.reason for s in bench.supervisor.history if s.phase is Phase.RECONNECTING] == [Reason.SILENT]


async def test_signs_of_life_go_out_as_often_as_the_band_needs_them():
    bench = Bench()
    bench.handler.keep_alive_s = 5.0
    await bench.run(31.0)
    assert bench.world.log.count(b"alive") in (5, 6)


async def test_wrong_firmware_ends_at_once_and_says_so():
    bench = Bench()
    bench.handler.prepare_error = DeviceError(
        "it runs firmware 9", reason=Reason.UNSUPPORTED_VERSION, hint="Update it."
    )
    status = await bench.run(1e5)
    assert (status.phase, status.reason, status.action) == (Phase.FAILED, "it runs firmware 9", "Update it.")
    assert len(bench.world.clients) == 1
    assert not bench.world.client.is_connected


async def test_a_band_without_the_characteristic_fails_after_three_tries():
    bench = Bench()
    bench.world.missing.add(DATA)
    status = await bench.run(1e5)
    assert (status.phase, status.fault.reason, len(bench.world.clients)) == (Phase.FAILED, Reason.FOREIGN, 3)


async def test_garbage_is_tried_again_twice_and_then_given_up():
    bench = Bench()
    fault = Fault(Reason.MALFORMED, "nothing but garbage", "Wrong kind?")

    def complain():
        if bench.supervisor.status.phase is Phase.STREAMING:
            bench.supervisor.complain(fault)
        bench.clock.at(1.0, complain)

    bench.clock.at(1.0, complain)
    status = await bench.run(1e5)
    assert bench.phases.count("garbled") == 3
    assert (status.phase, status.action) == (Phase.FAILED, "Wrong kind?")


async def test_garbage_between_good_times_is_forgiven():
    bench = Bench()
    fault = Fault(Reason.MALFORMED, "nothing but garbage", "Wrong kind?")
    for t in range(10, 60, 10):
        bench.clock.at(t, bench.supervisor.complain, fault)
        bench.clock.at(t + 5, bench.supervisor.praise)
    status = await bench.run(80.0)
    assert status.phase is Phase.STOPPED
    assert status.connects == 6


async def test_a_counter_that_jumped_is_told_of():
    bench = Bench()
    bench.clock.at(5.0, bench.supervisor.resynced, "the counter jumped", "nothing")
    await bench.run(10.0)
    assert bench.phases == [*HAPPY, "resynced", "streaming", "stopped"]


async def test_bluetooth_that_is_off_is_waited_for_and_forbidden_bluetooth_is_not():
    bench = Bench()
    bench.world.scan_error = BleakBluetoothNotAvailableError("off", BleakBluetoothNotAvailableReason.POWERED_OFF)
    bench.clock.at(5.0, lambda: setattr(bench.world, "scan_error", None))
    status = await bench.run(30.0)
    assert "streaming" in bench.phases
    off = next(s for s in bench.supervisor.history if s.phase is Phase.RECONNECTING)
    assert (off.fault.reason, "bluetoothctl power on" in off.action) == (Reason.ADAPTER_OFF, True)
    bench = Bench()
    bench.world.scan_error = BleakBluetoothNotAvailableError("no", BleakBluetoothNotAvailableReason.DENIED_BY_USER)
    status = await bench.run(1e5)
    assert (status.phase, status.fault.reason) == (Phase.FAILED, Reason.DENIED)


async def test_an_adapter_that_does_not_open_is_a_fault_like_any_other():
    bench = Bench(first_s=5.0)

    async def broken():
        raise DeviceError("no dongle", reason=Reason.UNREACHABLE, hint="Plug it in.")

    await bench.supervisor.run(broken)
    assert bench.supervisor.status.phase is Phase.LOST
    assert bench.supervisor.status.action == "Plug it in."


async def test_connecting_that_fails_is_tried_again():
    bench = Bench()
    bench.world.connect_errors = [TimeoutError(), BleakError("le-connection-abort-by-local")]
    status = await bench.run(20.0)
    assert status.connects == 1
    assert [s.fault.reason for s in bench.supervisor.history if s.phase is Phase.RECONNECTING] == [
        Reason.TIMEOUT,
        Reason.UNREACHABLE,
    ]


async def test_a_battery_that_does_not_tell_harms_nothing():
    bench = Bench()
    bench.handler.battery_error = BleakError("no")
    status = await bench.run(20.0)
    assert (status.battery, status.rssi_dbm, status.connects) == (None, -50, 1)


@pytest.mark.parametrize(
    ("error", "reason", "fatal"),
    [
        (BleakBluetoothNotAvailableError("", BleakBluetoothNotAvailableReason.NO_BLUETOOTH), Reason.ADAPTER_OFF, False),
        (BleakDBusError("org.bluez.Error.NotReady", []), Reason.ADAPTER_OFF, False),
        (BleakDBusError("org.freedesktop.DBus.Error.AccessDenied", []), Reason.DENIED, True),
        (BleakDBusError("org.freedesktop.DBus.Error.ServiceUnknown", []), Reason.ADAPTER_OFF, False),
        (BleakDBusError("org.bluez.Error.Failed", ["x"]), Reason.UNREACHABLE, False),
        (BleakGATTProtocolError(0x05), Reason.DENIED, False),
        (BleakGATTProtocolError(0x0E), Reason.UNREACHABLE, False),
        (FileNotFoundError(2, "no bus"), Reason.ADAPTER_OFF, False),
        (PermissionError(13, "no"), Reason.DENIED, True),
        (TimeoutError(), Reason.TIMEOUT, False),
        (DeviceError("x", reason=Reason.MALFORMED), Reason.MALFORMED, False),
        (DeviceError("x", reason=Reason.FOREIGN), Reason.FOREIGN, True),
    ],
)
def test_every_error_of_a_radio_is_blamed_and_says_what_to_do(error, reason, fatal):
    fault = blame(error, "connecting")
    assert (fault.reason, fault.fatal) == (reason, fatal)
    if not isinstance(error, DeviceError):
        assert fault.action.endswith((".", "again."))
        assert fault.text


async def test_an_error_nobody_foresaw_is_logged_and_tried_again(caplog):
    bench = Bench()
    bench.world.connect_errors = [KeyError("bug")]
    status = await bench.run(20.0)
    assert status.connects == 1
    assert "KeyError('bug')" in next(s.reason for s in bench.supervisor.history if s.phase is Phase.RECONNECTING)
    assert "nobody foresaw" in caplog.text


async def test_two_bands_of_a_kind_do_not_take_the_same_device_and_keep_theirs():
    bench, claims = Bench(), set()
    bench.world.more = [("C0:02", "band")]
    boxes = [Mailbox(100_000) for _ in range(2)]
    both = [
        Supervisor(Handler(), box, bench.clock, claims=claims, rng=random.Random(1), policy=Policy()) for box in boxes
    ]
    bench.clock.at(20.0, lambda: [c.drop() for c in list(bench.world.clients)])
    for s in both:
        bench.clock.at(40.0, s.stop)
    async with asyncio.timeout(20):
        await asyncio.gather(*(s.run(bench.world.open) for s in both))
    assert [s.status.address for s in both] == ["C0:01", "C0:02"]
    assert [{h.address for h in s.history if h.address} for s in both] == [{"C0:01"}, {"C0:02"}]
    assert [s.status.connects for s in both] == [2, 2]
    assert not claims


async def test_a_band_that_comes_back_under_another_address_is_known_by_its_name():
    bench = Bench(scan_s=1.0)

    def move():
        bench.world.address = "C0:99"
        bench.world.client.drop()

    bench.clock.at(10.0, move)
    status = await bench.run(30.0)
    assert (status.address, status.connects) == ("C0:99", 2)


# mailbox and thread


async def test_a_full_mailbox_drops_and_counts():
    box = Mailbox(3)
    kept = [box.put(Notification(i, 1, 0, b"")) for i in range(5)]
    assert kept == [True, True, True, False, False]
    assert (box.dropped, box.deepest) == (2, 3)
    assert [i.host_ns for i in await box.take()] == [0, 1, 2]
    assert await box.take(0.01) == []
    box.close()
    assert await box.take() == []


async def test_nothing_is_lost_between_a_thread_that_puts_and_a_busy_loop_that_takes():
    box, total = Mailbox(20_000), 10_000

    def put():
        for i in range(total):
            box.put(Notification(i, 1, 0, b"x"))
            if i % 500 == 0:
                time.sleep(0.002)
        box.close()

    thread = threading.Thread(target=put)
    thread.start()
    got = []
    while not (box.closed and not len(box)):
        got += await box.take(1.0)
        time.sleep(0.02)  # noqa: ASYNC251  a loop that is busy elsewhere
    thread.join()
    assert [i.host_ns for i in got] == list(range(total))
    assert box.dropped == 0


async def test_an_adapter_is_opened_once_in_its_thread_and_closed_with_it():
    opened = []

    class FakeAdapter:
        closed = False

        async def close(self):
            self.closed = True

    adapter = FakeAdapter()

    async def make():
        opened.append(threading.current_thread().name)
        await asyncio.sleep(0)
        return adapter

    thread = BleThread(make)
    first, second = await asyncio.gather(thread.run(thread.adapter()), thread.run(thread.adapter()))
    assert first is second is adapter
    assert opened == ["bluetooth"]
    endless = thread.spawn(asyncio.sleep(math.inf))
    await asyncio.to_thread(thread.close)
    thread.close()
    assert adapter.closed
    assert endless.cancelled()


def test_bands_on_one_adapter_share_its_thread():
    radios = Radios()
    a, b = radios.acquire("platform"), radios.acquire("platform")
    assert a is b
    radios.release("platform")
    assert radios.acquire("platform") is a
    radios.release("platform")
    radios.release("platform")
    c = radios.acquire("platform")
    assert c is not a
    radios.release("platform")
