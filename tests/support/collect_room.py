"""The Collect room alone over a station of its own, and somebody at its keyboard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Input, Static

import embridge_tui
from embridge_edge.collect.station import Station
from embridge_edge.collect.steps import State
from embridge_shared.clock import SystemClock
from embridge_tui.screens.collect import CollectScreen, Stage
from embridge_tui.screens.collect_dialogs import TextDialog
from embridge_tui.widgets.bigword import BigWord
from support.collect import settings, signed

PROTOCOL = """
name = "quick"
version = 1
gestures = ["fist", "open"]
repetitions = 1
[timing]
prepare_s = 1.0
hold_s = 1.5
rest_s = 1.2
"""


class Bench(App[None]):
    """The room alone, over a station of its own."""

    CSS_PATH = str(Path(embridge_tui.__file__).parent / "theme.tcss")
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (116, "-wide"), (150, "-broad")]  # noqa: RUF012

    def __init__(self, station: Station | None) -> None:
        super().__init__()
        self.station = station
        self.room = CollectScreen(station, "no edge here: install embridge[edge]")

    def on_mount(self) -> None:
        if self.station is not None:
            self.running = asyncio.create_task(self.station.run())
        self.push_screen(self.room)

    async def on_unmount(self) -> None:
        if self.station is not None:
            self.running.cancel()
            await asyncio.gather(self.running, return_exceptions=True)


def bench(folder: Path, **more: Any) -> Bench:
    (folder / "quick.toml").write_text(PROTOCOL)
    given = more.pop("settings", None) or settings(folder / "edge")
    return Bench(Station(given, SystemClock(), ask_consent=more.pop("consent", signed)))


async def until(pilot: Pilot[None], condition: Callable[[], Any], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def shown(app: Bench) -> str:
    """Everything that stands on the screen."""
    return "\n".join("".join(s.text for s in line) for line in app.screen._compositor.render_strips())


def word(app: Bench) -> str:
    return app.room.query_one("#word", BigWord).word


def advice(app: Bench) -> str:
    return str(app.room.query_one("#collect-advice", Static).content)


async def fill(pilot: Pilot[None], folder: Path, participant: str = "p07") -> None:
    """Name who and what with keys, as somebody at the keyboard does."""
    app = pilot.app
    await until(pilot, lambda: app.focused is not None)
    await pilot.press(*participant, "enter", "enter")
    app.room.query_one("#protocol", Input).value = str(folder / "quick.toml")
    await pilot.press("ctrl+g")
    await until(pilot, lambda: app.room.stage is Stage.LOOK)


async def begin(pilot: Pilot[None]) -> None:
    """From the look before to the first prompt."""
    app = pilot.app
    await until(pilot, lambda: app.room._preflight and not any(x.blocks for x in app.room._preflight.lines()))
    await pilot.press("enter")
    await until(pilot, lambda: isinstance(app.screen, TextDialog) or app.room.stage is Stage.RUN)
    if isinstance(app.screen, TextDialog):
        await pilot.press(*"test", "enter")
    await until(pilot, lambda: app.station.leader is not None and app.station.leader.conductor.state is State.READY)
    await pilot.press("space")
