"""The Live room: over a scripted source that stands still, and over the product's own path."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import msgspec
import numpy as np
import pytest
from textual.app import App
from textual.widgets import Static

from embridge_edge.agent import Agent
from embridge_edge.decode.decision import Decided
from embridge_edge.enrol.bench import Acted, Bench
from embridge_edge.enrol.desk import release_of
from embridge_edge.live_score import Latency, Score
from embridge_edge.live_seat import Told, View, Which
from embridge_edge.plan import SyntheticSource
from embridge_edge.spool import EVENTS
from embridge_edge.update.slots import FOLDER, Slots
from embridge_shared.clock import SystemClock
from embridge_shared.decision import Decision, DecisionConfig
from embridge_shared.errors import DeviceError, OperatorError, Reason
from embridge_shared.release import read_bundle, write_bundle
from embridge_shared.session import Marker, Repetition, RepetitionStatus, WearingChanged
from embridge_shared.settings import EdgeSettings, MqttSettings, Settings
from embridge_shared.signal import Modality, StreamSpec
from embridge_shared.wire.messages import EventMessage, unpack
from embridge_tui.living import maker
from embridge_tui.ring import SignalRing
from embridge_tui.screens.live import LiveScreen
from embridge_tui.trace import Glyphs
from embridge_tui.widgets.bigword import BigWord
from embridge_tui.widgets.probabilities import Probabilities, level, likeliest
from embridge_tui.widgets.scope import Scope
from support.enrol_world import SEEN, release

WEARER, GESTURES = 22, SEEN[:3]

LABELS = ("fist", "open", "point", "rest_of_them")
T_NS = 1_790_000_000_000_000_000


class OneRoom(App[None]):
    CSS_PATH = str(Path(__file__).parents[2] / "tui" / "embridge_tui" / "theme.tcss")
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (116, "-wide"), (150, "-broad")]  # noqa: RUF012
    BINDINGS = [("3", "elsewhere", "Elsewhere")]  # noqa: RUF012
    left = False

    def __init__(self, make, missing: str = "", glyphs: Glyphs = Glyphs.BRAILLE) -> None:
        super().__init__()
        self.room = LiveScreen(make, missing, glyphs=glyphs)

    def on_mount(self) -> None:
        self.push_screen(self.room)

    def action_elsewhere(self) -> None:
        self.left = True


class Scripted:
    """Stands still: one decision, two releases."""

    def __init__(self, participant: str) -> None:
        self.participant = participant
        self.donning = 2
        spec = StreamSpec(
            name="emg", modality=Modality.EMG, channels=tuple(f"ch{i:02d}" for i in range(16)), rate_hz=2000.0
        )
        self.ring = SignalRing(spec)
        self.ring.push(0, np.random.default_rng(0).normal(0, 100, (8000, 16)).astype(np.int16))
        self.now_ns = T_NS
        self.age_s = 0.02
        self.lasted_s = 120.0
        self.wearing = WearingChanged(t_ns=T_NS, level="watch", said="the band turned", farther=0.23)
        self.ended = asyncio.Event()
        self.labels: list[tuple[str, int]] = []
        self.targets: list[int] = []
        self.compared = False
        self.said = "fist"
        self.score = Score(right=28, wrong=1, missed=2, false=1)

    def view(self, which: str) -> View | None:
        if which == "b" and not self.compared:
            return None
        release = {"a": "m-142", "b": "m-141"}[which]
        decision = Decision(self.said, 0.92, "fist", np.array([0.92, 0.05, 0.02, 0.01]))
        return View(
            which=Which(which),
            release=release,
            labels=LABELS,
            decision=DecisionConfig(otherwise=0.6),
            decided=Decided(UUID(int=1), release, LABELS, 7, T_NS, 0, 0.004, decision),
            lines=(Told(T_NS - 10**9, "open 0.71"), Told(T_NS, "fist 0.92", True)),
            latency=Latency(9.0, 50.0, 4.0, 63.0, 88.0),
            score=self.score if which == "a" else Score(right=20, missed=11),
        )

    async def run(self) -> str:
        await self.ended.wait()
        return "complete"

    def stop(self) -> None:
        self.ended.set()

    async def label(self, gesture: str, t_ns: int) -> str:
        self.labels.append((gesture, t_ns))
        return f"Right: labelled {gesture}."

    async def retune(self, by: int) -> float:
        self.targets.append(by)
        return 12.0

    async def compare(self) -> None:
        self.compared = True


def advice(app: App) -> str:
    return str(app.screen.query_one("#advice", Static).content)


def words(app: App, name: str) -> str:
    return str(app.screen.query_one(f"#{name}", Static).content)


async def until(true, seconds: float = 30.0) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def begun(pilot, who: str = "p7") -> None:
    await pilot.press(*who, "enter")
    await until(lambda: pilot.app.screen.scene is not None or "✕" in advice(pilot.app))
    assert "✕" not in advice(pilot.app)


@pytest.mark.parametrize("size", [(150, 44), (100, 30), (80, 24)])
async def test_all_of_it_fits(size):
    living = Scripted("p7")
    async with OneRoom(lambda who: living).run_test(size=size) as pilot:
        await begun(pilot)
        app = pilot.app
        assert app.screen.query_one(BigWord).word == "FIST"
        bars = app.screen.query_one(Probabilities)
        assert [line.split()[-1] for line in bars.lines if line.strip()] == ["0.92", "0.05", "0.02", "0.01"]
        assert bars.lines[0].startswith("▶ fist")
        assert "radio 9 · hop 50 · infer 4.0 · total 63 ms (p99 88)" in words(app, "latency")
        worth = words(app, "worth")
        for part in ("p7 donning 2", "right 28/31, missed 2, false 1 (0.5/min)", "drift watch 0.23: the band turned"):
            assert part in worth
        assert "fist 0.92" in words(app, "ticker")
        scope = app.screen.query_one(Scope)
        assert len(scope.shown) >= 4
        assert app.screen.region.contains_region(app.screen.query_one("#advice").region)


async def test_keys_do_what_they_say():
    living = Scripted("p7")
    async with OneRoom(lambda who: living).run_test(size=(150, 44)) as pilot:
        await begun(pilot)
        app = pilot.app
        await pilot.press("t")
        assert living.targets == [1]
        assert "12 false activations an hour" in advice(app)
        await pilot.press("T")
        assert living.targets == [1, -1]
        await pilot.press("b")
        await pilot.pause(0.13)
        assert living.compared
        assert app.screen.scene.release == "B m-141"
        assert "right 28/31" in advice(app)
        await pilot.press("a")
        await pilot.pause(0.13)
        assert app.screen.scene.release == "A m-142"
        await pilot.press("space")
        living.said = "open"
        await pilot.pause(0.15)
        assert app.screen.query_one(BigWord).word == "FIST"
        assert app.screen.query_one(Scope).frozen
        await pilot.press("space")
        await pilot.pause(0.15)
        assert app.screen.query_one(BigWord).word == "OPEN"
        assert app.screen.busy
        await pilot.press("ctrl+e")
        await pilot.pause(0.13)
        assert "Ended in good order" in advice(app)
        assert not app.screen.busy


async def test_a_label_is_about_the_moment_the_key_was_pressed():
    living = Scripted("p7")
    async with OneRoom(lambda who: living).run_test(size=(100, 30)) as pilot:
        await begun(pilot)
        await pilot.press("l")
        living.now_ns += 5 * 10**9
        await pilot.press("3")
        await pilot.pause(0.13)
        assert living.labels == [("point", T_NS)]
        assert not pilot.app.left, "a digit answers, and opens no room"
        assert "Right: labelled point" in advice(pilot.app)
        await pilot.press("l", "escape")
        assert len(living.labels) == 1
        await pilot.press("l", "r", "enter")
        await pilot.pause(0.13)
        assert living.labels[-1][0] == "rest_of_them"


async def test_silence_is_loud():
    living = Scripted("p7")
    async with OneRoom(lambda who: living).run_test(size=(100, 30)) as pilot:
        await begun(pilot)
        worth = pilot.app.screen.query_one("#worth", Static)
        living.age_s = 1.5
        await pilot.pause(0.15)
        assert str(worth.content).startswith("▲ no packet for 2 s")
        assert worth.has_class("-warn")
        living.age_s = 4.0
        await pilot.pause(0.15)
        assert str(worth.content).startswith("✕ no packet for 4 s")
        assert pilot.app.screen.query_one(BigWord).word == "LOST"


async def test_without_an_edge_it_says_how_to_get_one():
    async with OneRoom(None, "This machine is no edge: pip install.").run_test() as pilot:
        assert advice(pilot.app) == "✕ This machine is no edge: pip install."
        await pilot.press("l", "t", "a", "ctrl+e")
        assert advice(pilot.app).startswith(("✕ Nothing is decoded", "Nothing is decoded"))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OperatorError("this edge has no release yet.", hint="Roll one out."), "Roll one out."),
        (DeviceError("band-03 does not advertise", hint="Wake it."), "Wake it."),
        (
            OperatorError("p7 was not calibrated with this band", reason=Reason.NOT_FOUND, hint="Calibrate."),
            "The room Enrol calibrates",
        ),
    ],
)
async def test_what_is_refused_says_why_and_what_next(error, told):
    class Refused(Scripted):
        async def run(self) -> str:
            raise error

    async with OneRoom(Refused).run_test(size=(100, 30)) as pilot:
        await pilot.press("p", "7", "enter")
        await pilot.pause(0.15)
        assert advice(pilot.app).startswith(f"✕ {error.message}")
        assert told in advice(pilot.app)
        await pilot.press("x", "enter")
        assert pilot.app.screen.busy == ""


def test_a_bar_is_as_long_as_its_value_and_marks_the_threshold():
    assert level(0.5, 0.9, 10) == "█████    ┊"
    assert level(1.0, 0.5, 10) == "█████│████"
    assert level(0.06, 1.0, 10) == "▋        ┊"
    assert level(0.0, 0.0, 0) == ""


def test_where_not_all_fit_the_likeliest_are_shown_in_their_order():
    assert likeliest([0.1, 0.5, 0.0, 0.4], 2) == [1, 3]
    assert likeliest([0.1], 5) == [0]


# the product's own path


@pytest.fixture(scope="module")
def known(tmp_path_factory) -> Path:
    """The state folder of an edge with a release, and with w1, who was calibrated for it."""
    folder = tmp_path_factory.mktemp("edge")
    for version in (1, 2):
        packed = tmp_path_factory.mktemp("release")
        bundle = release(packed, version)
        path = packed / "decides.embridge"
        write_bundle(path, msgspec.structs.replace(bundle.manifest, decision=DecisionConfig()), bundle.files)
        install(path, folder)
    settings = EdgeSettings(state_dir=folder, name="edge-1")
    bench = Bench(settings, "w1", release_of(read_bundle(path)), Acted(WEARER, speed=0.0), SystemClock())
    bench.desk.calibrate(asyncio.run(bench.lead(bench.calibrate(repetitions=2), lambda events: None)))
    (folder / "spool.db").unlink()
    return folder


@pytest.fixture
async def edge(known, tmp_path) -> AsyncIterator[tuple[Agent, EdgeSettings]]:
    """An agent that runs; its broker is away."""
    shutil.copytree(known, tmp_path, dirs_exist_ok=True)
    settings = Settings(
        mqtt=MqttSettings(host="127.0.0.1", port=1),
        edge=EdgeSettings(name="edge-1", state_dir=tmp_path, reserve_bytes=0),
    )
    agent = Agent(settings, SystemClock())
    running = asyncio.create_task(agent.run())
    yield agent, settings.edge
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def install(bundle: Path, state_dir: Path) -> None:
    slots = Slots(state_dir / FOLDER)
    path = slots.path(read_bundle(bundle).digest)
    shutil.copy(bundle, path)
    slots.activate(path)


@pytest.mark.learning
async def test_what_a_wearer_does_is_decoded_labelled_and_kept(edge, tmp_path):
    agent, settings = edge
    source = SyntheticSource(wearer=WEARER, performance=1, gestures=GESTURES, repetitions=3, speed=4.0)
    make = maker(agent, settings, source, SystemClock(), tmp_path)
    async with OneRoom(make).run_test(size=(120, 40)) as pilot:
        await begun(pilot, "w1")
        app = pilot.app
        await until(lambda: "ended after" in words(app, "ticker"))
        await pilot.press("l", "1")
        await until(lambda: "labelled fist" in advice(app))
        assert app.screen.query_one(Scope).lines[0].strip("⠀ ")
        await pilot.press("b")
        await until(lambda: app.screen.scene.release == "B embridge-1")
        await until(lambda: "B embridge-1" in str(app.screen.query_one("#ticker").border_title))
        assert "The other one, embridge-2: right" in advice(app)
        await pilot.press("a")
        await pilot.press("ctrl+e")
        await until(lambda: not app.screen.busy)
        assert "Ended in good order" in advice(app)
    events = await stored(agent)
    markers = [e.text for e in events if isinstance(e, Marker)]
    assert len([m for m in markers if m.startswith("label fist: decoded ")]) == 1
    repetitions = [e for e in events if isinstance(e, Repetition)]
    assert [(r.gesture, r.repetition, r.status) for r in repetitions] == [("fist", 1, RepetitionStatus.ACCEPTED)]
    assert 0.2e9 < repetitions[0].end_ns - repetitions[0].start_ns < 6e9


@pytest.mark.learning
async def test_who_was_never_calibrated_is_told_so(edge, tmp_path):
    agent, settings = edge
    source = SyntheticSource(wearer=WEARER, performance=1, gestures=GESTURES, repetitions=1, pose=False)
    async with OneRoom(maker(agent, settings, source, SystemClock(), tmp_path)).run_test(size=(120, 40)) as pilot:
        await pilot.press("w", "9", "enter")
        await until(lambda: "✕" in advice(pilot.app))
        assert "Enrol calibrates" in advice(pilot.app)


async def test_an_edge_without_a_release_refuses_at_once(tmp_path):
    settings = EdgeSettings(name="edge-1", state_dir=tmp_path, reserve_bytes=0)
    agent = Agent(Settings(edge=settings), SystemClock())
    source = SyntheticSource(wearer=WEARER, performance=1, gestures=GESTURES, repetitions=1, pose=False)
    async with OneRoom(maker(agent, settings, source, SystemClock(), tmp_path)).run_test(size=(120, 40)) as pilot:
        await pilot.press("w", "9", "enter")
        await until(lambda: "✕" in advice(pilot.app))
        assert "no release yet" in advice(pilot.app)
    await agent.courier.close()


async def stored(agent: Agent) -> list[object]:
    """The events of the one session of a spool."""
    courier = agent.courier
    (known,) = await courier.call(courier.spool.sessions)
    items = await courier.call(courier.spool.of_stream, known.session, EVENTS)
    return [unpack(item.payload, EventMessage).event for item in items]
