"""Outputs: what they say and to whom, that none holds decoding up, and that no key stays down."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from embridge_edge.decode.decision import Decided, Sinks
from embridge_edge.outputs import catalogue, mapping, uinput
from embridge_edge.outputs.base import Output, Outputs, Pace
from embridge_edge.outputs.catalogue import Means
from embridge_edge.outputs.door import Asked, Door, check_address
from embridge_edge.outputs.keys import KeysOutput
from embridge_edge.outputs.messages import Notice
from embridge_edge.outputs.mqtt import MqttOutput
from embridge_edge.outputs.notices import Watcher
from embridge_edge.outputs.osc import OscOutput
from embridge_edge.outputs.session import telling
from embridge_edge.outputs.uinput import DryDevice, UinputDevice
from embridge_edge.outputs.websocket import WebSocketOutput
from embridge_shared.clock import SystemClock
from embridge_shared.decision import Decision, GestureEvent
from embridge_shared.errors import ConfigError, OperatorError, Reason
from embridge_shared.quality import Grade
from embridge_shared.session import BandState, GestureChange
from embridge_shared.settings import OutputSettings
from embridge_shared.wire.messages import StreamQuality
from support.ble import until

connect = pytest.importorskip("websockets.asyncio.client").connect
ONSET, HOLD, RELEASE = GestureChange.ONSET, GestureChange.HOLD, GestureChange.RELEASE
LABELS = ("fist", "open", "point")


def hop(number: int = 0, *events: tuple[GestureChange, str], label: str = "rest", arrived_ns: int = 0) -> Decided:
    told = tuple(GestureEvent(kind, gesture, number, 0.9, 0.5) for kind, gesture in events)
    decision = Decision(label, 0.9, "fist", np.array([0.9, 0.06, 0.04]), told)
    t_ns = 1_800_000_000_000_000_000 + number * 50_000_000
    return Decided(UUID(int=1), "embridge-1", LABELS, number, t_ns, arrived_ns, 0.001, decision)


class Stepped:
    """A clock that goes when told."""

    def __init__(self) -> None:
        self.now_ns = 1

    def wall_ns(self) -> int:
        return self.now_ns

    def monotonic_ns(self) -> int:
        return self.now_ns

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


# nobody is held up


class Stuck(Output):
    name = "stuck"

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.got: list[Decided] = []

    async def tell(self, decided: Decided) -> None:
        self.got.append(decided)
        await self.free.wait()


class Kept(Output):
    name = "kept"

    def __init__(self) -> None:
        self.got: list[Decided] = []

    async def tell(self, decided: Decided) -> None:
        if decided.number == 3:
            raise OSError("a bad moment")
        self.got.append(decided)


async def test_an_output_that_is_stuck_costs_neither_decoding_nor_the_others():
    stuck, kept, clock = Stuck(), Kept(), SystemClock()
    async with Outputs([stuck, kept], clock=clock) as outputs:
        took = []
        for n in range(1000):
            began = clock.monotonic_ns()
            outputs.decided(hop(n, *([(ONSET, "fist")] if n == 500 else []), arrived_ns=began))
            took.append(clock.monotonic_ns() - began)
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert np.median(took) < 100_000  # ns
        assert [d.number for d in kept.got] == [n for n in range(1000) if n != 3]
        assert outputs.lanes[1].failed == 1
        assert 900 < outputs.lanes[0].dropped < 1000
        stuck.free.set()
    # what changed is kept where there is room for anything
    assert any(d.number == 500 for d in stuck.got)


@pytest.mark.parametrize(("hz", "expected"), [(0, 0), (5, 20), (10, 40), (20, 80), (100, 80)])
def test_a_pace_is_kept_on_a_grid_of_hops(hz, expected):
    pace = Pace(hz)
    assert sum(pace.due(n * 50_000_000) for n in range(80)) == pytest.approx(expected, abs=1)
    assert pace.due(-(10**12)) == (hz > 0)


# the door


@pytest.mark.parametrize(
    ("asked", "welcome"),
    [
        (Asked("/", "127.0.0.1:8471"), True),
        (Asked("/", "localhost:8471", "http://localhost:8471"), True),
        (Asked("/", "[::1]:8471", "http://[::1]:8471"), True),
        (Asked("/", "127.0.0.1:8471", "https://evil.example"), False),
        (Asked("/", "127.0.0.1:8471", "null"), False),
        (Asked("/", "127.0.0.1:8471", "http://127.0.0.1:9999"), False),
        (Asked("/", "evil.example:8471", "http://evil.example:8471"), False),
        (Asked("/", "", None), False),
        (Asked("/", "[::1", None), False),
        (Asked("/", "127.0.0.1:8471", "https://panel.example"), True),
        (Asked("/", "hand.local", None), True),
    ],
)
def test_foreign_pages_and_foreign_names_are_refused(asked, welcome):
    door = Door(origins=("https://panel.example",), hosts=("hand.local",))
    assert (door.refusal(asked) == "") == welcome


def test_a_token_is_asked_for_in_either_place():
    door = Door(token="s3cret")
    assert door.refusal(Asked("/", "localhost"))
    assert door.refusal(Asked("/?token=s3cre", "localhost"))
    assert not door.refusal(Asked("/?token=s3cret", "localhost"))
    assert not door.refusal(Asked("/", "localhost", authorization="Bearer s3cret"))
    with pytest.raises(ConfigError) as error:
        check_address("0.0.0.0", "")
    assert error.value.reason is Reason.INSECURE
    check_address("0.0.0.0", "t")
    check_address("::1", "")


# WebSocket


async def test_a_client_is_greeted_and_told_at_its_own_pace():
    output = WebSocketOutput("127.0.0.1", 0, edge="e1", updates_hz=10)
    await output.start()
    try:
        async with connect(output.where) as slow, connect(f"{output.where}?hz=0") as calm:
            assert json.loads(await slow.recv()) == {
                "type": "hello", "version": 1, "edge": "e1", "session": "", "release": "", "vocabulary": [],
                "updates_hz": 10.0,
            }  # fmt: skip
            await calm.recv()
            for n in range(20):
                events = {5: [(ONSET, "fist")], 12: [(RELEASE, "fist")]}.get(n, [])
                await output.tell(hop(n, *events, label="fist" if 5 <= n < 12 else "rest"))
                await asyncio.sleep(0.002)
            output.notice(Notice(about="drift", level="warning", text="moved"))
            told = [json.loads(await calm.recv()) for _ in range(4)]
            assert [m["type"] for m in told] == ["hello", "gesture", "gesture", "notice"]
            assert told[0]["vocabulary"] == list(LABELS)
            assert told[1] == {
                "type": "gesture", "change": "onset", "gesture": "fist", "probability": 0.9, "lasted_s": 0.5,
                "t_s": 1800000000.25, "number": 5,
            }  # fmt: skip
            heard = [json.loads(await slow.recv()) for _ in range(14)]
            updates = [m for m in heard if m["type"] == "decision"]
            assert len(updates) in (10, 11, 12)
            assert updates[0]["probabilities"] == [0.9, 0.06, 0.04]
    finally:
        await output.close()
    assert output.clients == 0


async def test_who_may_not_come_in_is_told_why_and_the_page_is_handed_out(tmp_path):
    from websockets.exceptions import InvalidStatus

    (tmp_path / "page.html").write_text("<!doctype html><p>höllo")
    output = WebSocketOutput("127.0.0.1", 0, edge="e1", page=tmp_path / "page.html")
    await output.start()
    try:
        with pytest.raises(InvalidStatus) as refused:
            await connect(output.where, origin="https://evil.example")
        assert refused.value.response.status_code == 403
        with pytest.raises(InvalidStatus) as wrong:
            await connect(f"{output.where}?hz=nan")
        assert wrong.value.response.status_code == 400
        body = await asyncio.to_thread(get, output.port, f"127.0.0.1:{output.port}")
        assert b"200 OK" in body
        assert b"text/html" in body
        assert body.endswith("höllo".encode())
        assert b"403" in await asyncio.to_thread(get, output.port, "evil.example")
    finally:
        await output.close()
    with pytest.raises(ConfigError):
        WebSocketOutput("127.0.0.1", 0, edge="e1", page=tmp_path / "none.html")


def get(port: int, host: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 5) as s:
        s.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        return b"".join(iter(lambda: s.recv(65536), b""))


async def test_a_client_that_does_not_read_is_dropped_and_the_others_are_served():
    output = WebSocketOutput("127.0.0.1", 0, edge="e1")
    await output.start()
    try:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        raw.connect(("127.0.0.1", output.port))
        raw.sendall(
            f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{output.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        async with asyncio.timeout(20), connect(f"{output.where}?hz=0") as quick:
            await until(lambda: output.clients == 2)
            heard = asyncio.Event()
            reading = asyncio.create_task(read(quick, heard))
            long = Notice(about="quality", level="warning", text="x" * 60_000)
            while not output.dropped:
                output.notice(long)
                await asyncio.sleep(0.002)
            assert output.clients == 1
            await output.tell(hop(1, (ONSET, "fist")))
            await heard.wait()
            reading.cancel()
        raw.close()
    finally:
        await output.close()


async def read(client: Any, heard: asyncio.Event) -> None:
    async for text in client:
        if '"onset"' in text:
            heard.set()


async def test_a_port_that_is_taken_is_said_and_left_out_beside_a_recording(caplog):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        output = WebSocketOutput("127.0.0.1", port, edge="e1")
        with pytest.raises(OperatorError, match="cannot be listened on"):
            await output.start()
        sinks = Sinks()
        words = (f"websocket:{port}", "mqtt", "websocket:0")
        async with telling(words, Means(OutputSettings(), "e1", SystemClock()), sinks, lambda _: []):
            sinks.tell(hop())
    assert "output websocket is left out" in caplog.text
    assert "output mqtt is left out" in caplog.text


# MQTT, OSC


async def test_mqtt_says_gestures_on_the_live_topic_and_decisions_when_asked():
    said: list[tuple[str, dict[str, Any]]] = []
    output = MqttOutput(lambda topic, payload: said.append((topic, json.loads(payload))), edge="e1", updates_hz=10)
    for n in range(5):
        await output.tell(hop(n, *([(ONSET, "fist")] if n == 2 else [])))
    assert {topic for topic, _ in said} == {"embridge/v1/live/e1"}
    assert [m["type"] for _, m in said] == ["hello", "decision", "gesture", "decision", "decision"]


async def test_osc_goes_to_the_addresses_that_were_given():
    parsed = pytest.importorskip("pythonosc.osc_message").OscMessage
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(5)
        output = OscOutput("127.0.0.1", listener.getsockname()[1], gesture="/h/{gesture}/{change}", updates_hz=100)
        await output.start()
        await output.tell(hop(0, (ONSET, "fist"), (HOLD, "fist")))
        got = [parsed(listener.recv(4096)) for _ in range(3)]
        await output.close()
        await output.tell(hop(1, (ONSET, "fist")))
    assert [(m.address, m.params[:2]) for m in got] == [
        ("/h/fist/onset", [1, pytest.approx(0.9)]),
        ("/h/fist/hold", [2, pytest.approx(0.9)]),
        ("/embridge/decision", ["rest", pytest.approx(0.9)]),
    ]
    for address in ("no/slash", "/a b", "/{finger}", "/{", "/{0}"):
        with pytest.raises(ConfigError):
            OscOutput("127.0.0.1", 9, gesture=address)


# keys


class Fake(uinput.KeyDevice):
    """Knows what is down."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.did: list[str] = []
        self.closed = False

    def keys(self, names: tuple[str, ...], *, down: bool) -> None:
        self.did.append(f"{'+'.join(names)} {'down' if down else 'up'}")
        self.down = self.down | set(names) if down else self.down - set(names)

    def wheel(self, notches: int) -> None:
        self.did.append(f"wheel {notches}")

    def move(self, right: int, down: int) -> None:
        self.did.append(f"move {right} {down}")

    def close(self) -> None:
        self.closed = True


KEYS = """
pause = "point"
dead_man_s = 0.5
longest_s = 20
[[bind]]
gesture = "fist"
keep = ["KEY_LEFTSHIFT", "BTN_LEFT"]
[[bind]]
gesture = "open"
press = ["KEY_SPACE"]
[[bind]]
gesture = "open"
when = "hold"
scroll = -2
[[bind]]
gesture = "open"
when = "release"
move = [3, -4]
"""


async def pressing(tmp_path: Path, text: str = KEYS) -> tuple[KeysOutput, Fake, Stepped]:
    (tmp_path / "keys.toml").write_text(text)
    device, clock = Fake(), Stepped()
    output = KeysOutput(mapping.load(tmp_path / "keys.toml"), lambda: device, clock=clock)
    await output.start()
    return output, device, clock


async def test_gestures_press_keep_scroll_and_move(tmp_path):
    output, device, _ = await pressing(tmp_path)
    for n, event in enumerate([(ONSET, "open"), (HOLD, "open"), (RELEASE, "open"), (ONSET, "fist"), (RELEASE, "fist")]):
        await output.tell(hop(n, event))
    assert device.did == [
        "KEY_SPACE down", "KEY_SPACE up", "wheel -2", "move 3 -4", "KEY_LEFTSHIFT+BTN_LEFT down",
        "KEY_LEFTSHIFT+BTN_LEFT up",
    ]  # fmt: skip
    await output.close()
    assert device.closed


@pytest.mark.parametrize("end", ["close", "pause", "silence", "long", "ended"])
async def test_no_key_stays_down(tmp_path, end):
    output, device, clock = await pressing(tmp_path)
    await output.tell(hop(0, (ONSET, "fist")))
    assert device.down == {"KEY_LEFTSHIFT", "BTN_LEFT"}
    if end == "close":
        await output.close()
    elif end == "pause":
        await output.tell(hop(1, (ONSET, "point")))
        await output.tell(hop(2, (HOLD, "point")))
        await output.tell(hop(3, (ONSET, "open")))
        assert output.paused
        assert "KEY_SPACE down" not in device.did
    elif end == "silence":
        clock.now_ns += 600_000_000
        output.check()
    elif end == "long":
        for _ in range(50):
            clock.now_ns += 410_000_000
            await output.tell(hop(1))
            output.check()
    else:
        await output.tell(hop(1, (RELEASE, "fist")))
    assert not device.down
    assert not output.down
    await output.close()


async def test_the_dead_man_needs_no_event_loop(tmp_path):
    output, device, clock = await pressing(tmp_path, KEYS.replace("0.5", "0.1"))
    await output.tell(hop(0, (ONSET, "fist")))
    clock.now_ns += 200_000_000
    import time

    until = time.monotonic() + 3
    while device.down and time.monotonic() < until:
        time.sleep(0.01)  # noqa: ASYNC251 the loop stands still
    assert not device.down
    await output.close()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("bind = []", "no [[bind]]"),
        ('[[bind]]\ngesture = "a"', "one of press"),
        ('[[bind]]\ngesture = "a"\npress = ["space"]', "no key"),
        ('[[bind]]\ngesture = "a"\npress = ["KEY_POWER"]', "not given to a hand"),
        ('[[bind]]\ngesture = "a"\nwhen = "release"\nkeep = ["KEY_A"]', "from its end on"),
        ('pause = "a"\n[[bind]]\ngesture = "a"\npress = ["KEY_A"]', "something else too"),
        ('paused = true\n[[bind]]\ngesture = "a"\npress = ["KEY_A"]', "no gesture ends that"),
        ('dead_man_s = 0\n[[bind]]\ngesture = "a"\npress = ["KEY_A"]', "positive"),
        ('[[bind]]\ngesture = "a"\nmove = [9999, 0]', "farther"),
        ('[[bind]]\ngesture = "a"\nshoot = 1', "shoot"),
        ("[[", ""),
    ],
)
def test_a_wrong_mapping_says_what_is_wrong(tmp_path, text, word):
    (tmp_path / "m.toml").write_text(text)
    with pytest.raises(ConfigError) as error:
        mapping.load(tmp_path / "m.toml")
    assert word in str(error.value)


def test_a_machine_without_uinput_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "m.toml").write_text(KEYS)
    fits = mapping.load(tmp_path / "m.toml")
    monkeypatch.setitem(sys.modules, "evdev", fake_evdev([]))
    monkeypatch.setattr(uinput, "NODE", tmp_path / "uinput")
    with pytest.raises(OperatorError, match="modprobe"):
        UinputDevice(fits)
    monkeypatch.setitem(sys.modules, "evdev", None)
    with pytest.raises(ConfigError) as error:
        UinputDevice(fits)
    assert error.value.reason is Reason.MISSING_EXTRA


def fake_evdev(written: list[Any]) -> Any:
    codes = SimpleNamespace(EV_KEY=1, EV_REL=2, REL_X=0, REL_Y=1, REL_WHEEL=8, BTN_LEFT=272)
    codes.ecodes = {"KEY_SPACE": 57, "KEY_LEFTSHIFT": 42, "BTN_LEFT": 272}

    def made(able: dict[int, list[int]], name: str) -> Any:
        written.append(able)
        return SimpleNamespace(
            write=lambda *event: written.append(event),
            syn=lambda: written.append("syn"),
            close=lambda: written.append("closed"),
        )

    return SimpleNamespace(UInput=made, ecodes=codes, UInputError=OSError)


def test_the_kernel_is_told_in_its_own_codes(tmp_path, monkeypatch):
    (tmp_path / "m.toml").write_text(KEYS)
    written: list[Any] = []
    monkeypatch.setitem(sys.modules, "evdev", fake_evdev(written))
    (tmp_path / "uinput").touch()
    monkeypatch.setattr(uinput, "NODE", tmp_path / "uinput")
    device = UinputDevice(mapping.load(tmp_path / "m.toml"))
    device.keys(("KEY_LEFTSHIFT", "BTN_LEFT"), down=True)
    device.keys(("KEY_LEFTSHIFT", "BTN_LEFT"), down=False)
    device.wheel(-2)
    device.close()
    assert written[0] == {1: [42, 57, 272], 2: [0, 1, 8]}
    assert written[1:] == [(1, 42, 1), (1, 272, 1), "syn", (1, 272, 0), (1, 42, 0), "syn", (2, 8, -2), "syn", "closed"]


def test_the_key_names_of_evdev_and_a_real_device(tmp_path):
    evdev = pytest.importorskip("evdev")
    for key in ("KEY_SPACE", "KEY_LEFTSHIFT", "BTN_LEFT"):
        assert isinstance(evdev.ecodes.ecodes[key], int)
    if not uinput.NODE.exists():
        pytest.skip("this machine has no uinput")
    (tmp_path / "m.toml").write_text(KEYS)
    device = UinputDevice(mapping.load(tmp_path / "m.toml"))
    device.keys(("KEY_LEFTSHIFT",), down=True)
    device.close()


# words and notices


@pytest.mark.parametrize("word", ["", "tcp", "websocket:x", "websocket:99999", "osc:9", "lsl:1", "keys", "keys:"])
def test_words_that_name_no_output_are_refused(word):
    with pytest.raises(ConfigError):
        catalogue.check([word], "the plan")


def test_words_open_what_they_name(tmp_path):
    (tmp_path / "m.toml").write_text(KEYS)
    lines: list[str] = []
    settings = OutputSettings(keys_dry_run=True)
    means = Means(settings, "e1", SystemClock(), tmp_path, say=lambda *_: None, show=lines.append)
    opened = catalogue.open_outputs(["websocket:8500", "osc:127.0.0.1:9100", "mqtt", "keys:m.toml"], means)
    assert [o.name for o in opened] == ["websocket", "osc", "mqtt", "keys"]
    assert opened[0].where == "ws://127.0.0.1:8500/"
    with pytest.raises(ConfigError, match="twice"):
        catalogue.check(["lsl", "lsl"], "the plan")
    device = opened[3]._make()  # type: ignore[attr-defined]
    assert isinstance(device, DryDevice)
    device.keys(("KEY_A",), down=True)
    assert lines == ["KEY_A down"]


def test_the_wearer_is_told_once_when_it_gets_worse_and_once_when_it_is_well():
    watcher = Watcher()
    gone = BandState(stream="emg", kind="open", phase="reconnecting", reason="out of range", action="Come closer.")
    there = BandState(stream="emg", kind="open", phase="streaming")
    told = [watcher.bands([s]) for s in (there, gone, gone, there, there)]
    assert [[n.level for n in t] for t in told] == [[], ["warning"], [], ["info"], []]
    assert told[1][0].hint == "Come closer."
    good = StreamQuality(stream="emg", grades=(Grade.GOOD, Grade.GOOD))
    bad = StreamQuality(stream="emg", grades=(Grade.GOOD, Grade.BAD), told=("e1: flat. Press it on.",))
    assert [len(watcher.quality([q])) for q in (good, bad, bad, good)] == [0, 1, 0, 1]
