"""`embridge live` as its user runs it, and the examples of the documentation beside a server that decides."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aiomqtt
import numpy as np
import pytest

from conftest import take_free_port
from embridge_edge.agent import Agent
from embridge_edge.courier import Courier
from embridge_edge.decode.decision import Decided
from embridge_edge.outputs.lsl import LslMarkers
from embridge_edge.outputs.mapping import load
from embridge_edge.outputs.mqtt import MqttOutput
from embridge_edge.outputs.websocket import WebSocketOutput
from embridge_edge.plan import load as load_plan
from embridge_edge.spool import Spool
from embridge_edge.update.slots import FOLDER, Slots
from embridge_edge.uplink import LinkState, Uplink
from embridge_shared.clock import SystemClock
from embridge_shared.decision import Decision, DecisionConfig, GestureEvent
from embridge_shared.release import read_bundle
from embridge_shared.session import GestureChange
from embridge_shared.settings import EdgeSettings, MqttSettings, Settings
from embridge_shared.wire.messages import EdgeState
from support import bundles
from support.ble import until

connect = pytest.importorskip("websockets.asyncio.client").connect

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
LABELS = ("fist", "open", "point", "pinch_index")
PLAN = """
[[session]]
name = "s"
participant = "p1"
[session.source]
kind = "synthetic"
wearer = 1
performance = 1
gestures = ["open", "fist"]
repetitions = 2
speed = 0
pose = false
"""


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(bundles, "C", 16)
    decision = DecisionConfig(temperature=0.01, otherwise=0.0, onset_s=0.0, steady_s=0.0, release_s=0.0)
    return bundles.make_bundle(tmp_path, channels=16, decision=decision)


def live(tmp_path: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "embridge_shared.cli", "live", *arguments, "--state-dir", tmp_path / "state"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


def test_a_source_is_decoded_without_broker_and_cloud(tmp_path, bundle):
    (tmp_path / "plan.toml").write_text(PLAN)
    (tmp_path / "keys.toml").write_text('[[bind]]\ngesture = "g0"\nkeep = ["KEY_A"]\n')
    common = [str(tmp_path / "plan.toml"), "--release", str(bundle), "--calibrate", "8"]
    done = live(tmp_path, *common, "--json", "--output", f"keys:{tmp_path / 'keys.toml'}", "--dry-run")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0]["type"] == "hello"
    assert lines[0]["vocabulary"] == ["g0", "g1", "g2"]
    gestures = [m for m in lines if m["type"] == "gesture"]
    begun = sum(m["change"] == "onset" for m in gestures)
    assert begun == sum(m["change"] == "release" for m in gestures) > 0
    pressed = [line for line in done.stderr.splitlines() if "KEY_A" in line]
    assert len([p for p in pressed if p.endswith("down")]) == len([p for p in pressed if p.endswith("up")])
    assert "calibration" in done.stderr
    assert not list((tmp_path / "state").rglob("*"))
    # a wearer's calibration is kept for them, nothing else is
    named = live(tmp_path, *common, "--participant", "p1")
    assert "calibration" in named.stderr
    assert [p.parent.name for p in (tmp_path / "state").rglob("*") if p.is_file()] == ["calibrations"]


def test_an_edge_without_a_release_says_so(tmp_path):
    assert "no release yet" in live(tmp_path, "synthetic:1", code=2).stderr


def hop(number: int, event: GestureChange | None, gesture: str) -> Decided:
    events = (
        ()
        if event is None
        else (GestureEvent(event, gesture, number, 0.93, 0.0 if event is GestureChange.ONSET else 0.6),)
    )
    label = "rest" if event is GestureChange.RELEASE else gesture
    shares = np.full(len(LABELS), 0.02)
    shares[LABELS.index(gesture)] = 0.94
    t_ns = 1_800_000_000_000_000_000 + number * 50_000_000
    return Decided(
        UUID(int=1), "embridge-1", LABELS, number, t_ns, 0, 0.001, Decision(label, 0.93, label, shares, events)
    )


@asynccontextmanager
async def deciding(page: Path | None, script: Callable[[int], Decided]) -> AsyncIterator[WebSocketOutput]:
    """A server that decides by a script as soon as somebody listens."""
    output = WebSocketOutput("127.0.0.1", 0, edge="bench-3", page=page)
    await output.start()

    async def play() -> None:
        while not output.clients:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for number in range(1000):
            await output.tell(script(number))
            await asyncio.sleep(0.02)

    playing = asyncio.create_task(play())
    try:
        yield output
    finally:
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
        await output.close()


def pinch(number: int) -> Decided:
    return hop(number, {5: GestureChange.ONSET, 15: GestureChange.RELEASE}.get(number % 20), "pinch_index")


async def test_the_client_of_the_documentation_prints_gestures():
    async with deciding(None, pinch) as output:
        client = await asyncio.create_subprocess_exec(
            sys.executable, EXAMPLES / "live.py", f"{output.where}?hz=0", stdout=asyncio.subprocess.PIPE
        )
        assert client.stdout is not None
        async with asyncio.timeout(20):
            lines = [(await client.stdout.readline()).decode().strip() for _ in range(4)]
        client.kill()
        await client.wait()
    assert lines[1:] == [
        "decoding: fist, open, point, pinch_index",
        "pinch_index began (93% sure)",
        "pinch_index ended after 0.6 s",
    ]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium, of the package `chromium`")
async def test_a_pinch_clicks_in_the_page_of_the_documentation(tmp_path):
    async with deciding(EXAMPLES / "live.html", pinch) as output:
        browser = await asyncio.create_subprocess_exec(
            "chromium",
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--window-size=900,860",
            "--remote-debugging-port=0",
            f"--user-data-dir={tmp_path / 'profile'}",
            output.where.replace("ws://", "http://"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(60), devtools(tmp_path / "profile") as ask:
                while not await ask("document.querySelectorAll('.lit').length"):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
                state = await ask("document.getElementById('state').textContent")
                rows = await ask("[...document.querySelectorAll('#rows .row')].map(r => r.firstChild.textContent)")
                log = await ask("document.getElementById('log').textContent")
        finally:
            browser.kill()
            await browser.wait()
    assert state == "bench-3 · embridge-1"
    assert rows == list(LABELS)
    assert "pinch_index onset" in log


@asynccontextmanager
async def devtools(profile: Path) -> AsyncIterator[Callable[[str], Awaitable[Any]]]:
    """Asks the browser's only page what an expression is."""
    port = profile / "DevToolsActivePort"
    while not port.exists() or len(port.read_text().split()) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    base = f"127.0.0.1:{port.read_text().split()[0]}"

    def pages() -> list[dict[str, str]]:
        with urllib.request.urlopen(f"http://{base}/json/list", timeout=10) as answer:
            return [p for p in json.load(answer) if p["type"] == "page"]

    while not (found := await asyncio.to_thread(pages)):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    async with connect(found[0]["webSocketDebuggerUrl"], max_size=1 << 24) as socket:

        async def ask(expression: str) -> Any:
            wish = {"expression": expression, "returnByValue": True}
            await socket.send(json.dumps({"id": 1, "method": "Runtime.evaluate", "params": wish}))
            return json.loads(await socket.recv())["result"]["result"].get("value")

        yield ask


async def test_the_uplink_says_gestures_to_who_listens_and_keeps_none(own_mosquitto, tmp_path):
    async def ignore(_: object) -> None:
        return None

    broker = MqttSettings(host=own_mosquitto.host, port=own_mosquitto.port)
    courier = Courier(Spool(tmp_path / "spool.db", 1 << 20))
    state = EdgeState(edge="edge-1", online=True)
    uplink = Uplink(Settings(mqtt=broker), courier, SystemClock(), state=lambda: state, on_desired=ignore)
    output = MqttOutput(uplink.say, edge="edge-1")
    await output.tell(pinch(5))  # no link yet: nobody hears it, now or later
    async with aiomqtt.Client(broker.host, broker.port) as listener, asyncio.timeout(20):
        await listener.subscribe("embridge/v1/live/+")
        running = asyncio.create_task(uplink.run())
        await until(lambda: uplink.link is LinkState.ONLINE)
        await output.tell(pinch(15))
        async for message in listener.messages:
            told = json.loads(bytes(message.payload))
            assert not message.retain
            break
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert (told["change"], told["gesture"]) == ("release", "pinch_index")
    assert courier.spool.backlog().items == 0
    await courier.close()


async def test_an_agent_that_records_tells_a_client_what_it_decodes(tmp_path, bundle, caplog):
    (tmp_path / "plan.toml").write_text(PLAN)
    live(tmp_path, str(tmp_path / "plan.toml"), "--release", str(bundle), "--calibrate", "8", "--participant", "p1")
    state_dir = tmp_path / "state"
    slots = Slots(state_dir / FOLDER)
    digest = read_bundle(bundle).digest
    shutil.copy(bundle, slots.path(digest))
    slots.activate(slots.path(digest))
    port = take_free_port()
    words = f'decode = true\noutputs = ["websocket:{port}", "keys:none.toml"]'
    (tmp_path / "plan.toml").write_text(PLAN.replace("speed = 0", "speed = 4").replace('"p1"', f'"p1"\n{words}'))
    settings = Settings(mqtt=MqttSettings(port=take_free_port()), edge=EdgeSettings(state_dir=state_dir))
    agent = Agent(settings, SystemClock(), load_plan(tmp_path / "plan.toml"), tmp_path)
    running = asyncio.create_task(agent.run())
    try:
        async with asyncio.timeout(40), connect_soon(port) as client:
            heard: list[str] = []
            async for text in client:
                heard.append(json.loads(text)["type"])
                if {"decision", "gesture"} <= set(heard):
                    break
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert heard[0] == "hello"
    assert "output keys:none.toml is left out" in caplog.text


@asynccontextmanager
async def connect_soon(port: int) -> AsyncIterator[Any]:
    """A client of a server that is about to listen."""
    while True:
        try:
            client = await connect(f"ws://127.0.0.1:{port}/")
        except OSError:
            await asyncio.sleep(0.02)
            continue
        break
    async with client:
        yield client


async def test_lsl_markers_carry_the_time_of_the_samples():
    pylsl = pytest.importorskip("pylsl")
    edge = f"lsl-{uuid4().hex[:8]}"
    output = LslMarkers(edge, clock=SystemClock())
    await output.tell(pinch(0))

    def inlet() -> Any:
        (found,) = pylsl.resolve_byprop("source_id", f"embridge:{edge}:gestures", timeout=15)
        opened = pylsl.StreamInlet(found)
        opened.open_stream(timeout=10)
        return opened

    stream = await asyncio.to_thread(inlet)
    ago_ns = 250_000_000
    now = SystemClock().wall_ns()
    await output.tell(replace(pinch(5), t_ns=now - ago_ns))
    before = pylsl.local_clock()
    sample, stamp = await asyncio.to_thread(stream.pull_sample, 10)
    stream.close_stream()
    await output.close()
    assert sample == ["onset:pinch_index"]
    assert before - stamp == pytest.approx(0.25, abs=0.1)


def test_the_mapping_of_the_documentation_is_one():
    assert load(EXAMPLES / "keys.toml").gestures == ("pinch_index", "three", "open", "point", "fist")
