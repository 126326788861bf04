"""Pictures of the terminal interface, made by the running application: `make pictures`.

A cloud process with a broker, an edge with the virtual band in this process, data that flows: every room is entered
with the keys an operator presses, a session is recorded, and each screen is saved as an SVG, dark and light.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from textual.pilot import Pilot
from textual.widgets import Input

from embridge_edge.collect.steps import State
from embridge_shared.cloud_client import connect
from embridge_tui.app import EmbridgeApp
from embridge_tui.client import HttpClient
from embridge_tui.demonstration import demonstration
from embridge_tui.part import EdgePart
from embridge_tui.screens.collect import CollectScreen, Stage
from embridge_tui.screens.collect_dialogs import TextDialog
from embridge_tui.themes import THEMES

FOLDER = Path(__file__).parents[2] / "docs" / "img" / "tui"
SIZE = (150, 44)
LARGEST_BYTES = 150_000
PROTOCOL = """
name = "shapes"
version = 2
title = "Shapes of the hand"
gestures = ["fist", "open", "point"]
repetitions = 1
[timing]
prepare_s = 1.0
hold_s = 2.0
rest_s = 1.5
"""


async def until(condition: Callable[[], Any], within_s: float = 120.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


class Photographer:
    """Saves what is on the screen, once in every theme."""

    def __init__(self, app: EmbridgeApp, pilot: Pilot[None], folder: Path) -> None:
        self._app, self._pilot, self._folder = app, pilot, folder
        self.made: list[Path] = []

    async def take(self, name: str) -> None:
        """Save this screen."""
        before = self._app.theme
        for theme in THEMES[:2]:
            self._app.theme = theme.name
            await self._pilot.pause(2.0)
            path = self._folder / f"{name}-{'dark' if theme.dark else 'light'}.svg"
            path.write_text(slim(self._app.export_screenshot(title="EMBridge", simplify=True)), encoding="utf-8")
            self.made.append(path)
        self._app.theme = before


def slim(svg: str) -> str:
    """A picture without fonts of others' servers and without names that change every time."""
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"terminal-\d+", "t", svg)
    svg = svg.replace("Fira Code, monospace", "Menlo, Consolas, DejaVu Sans Mono, monospace")
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


async def record(app: EmbridgeApp, pilot: Pilot[None], shoot: Photographer, protocol: Path) -> None:
    """From the form to a session that is sealed."""
    room = app.screen
    assert isinstance(room, CollectScreen)
    await until(lambda: isinstance(app.focused, Input))
    await shoot.take("collect-form")
    await pilot.press(*"p07")
    room.query_one("#protocol", Input).value = str(protocol)
    await pilot.press("ctrl+g")
    await until(lambda: room.stage is Stage.LOOK)
    await until(lambda: room._preflight and not any(line.blocks for line in room._preflight.lines()))
    await asyncio.sleep(3.0)
    await shoot.take("collect-preflight")
    await pilot.press("enter")
    await until(lambda: isinstance(app.screen, TextDialog) or room.stage is Stage.RUN)
    if isinstance(app.screen, TextDialog):
        await pilot.press(*"trial", "enter")
    await until(lambda: room.leader is not None and room.leader.conductor.state is State.READY)
    await asyncio.sleep(2.0)
    await pilot.press("space")
    leader = room.leader
    assert leader is not None
    await until(lambda: len(leader.conductor.outcomes) >= 1 and leader.conductor.state is State.HOLD)
    await asyncio.sleep(1.0)
    await shoot.take("collect-run")
    await until(lambda: room.stage is Stage.REVIEW)
    await pilot.press("enter")
    await until(lambda: room._sealed)
    await asyncio.sleep(1.0)
    await shoot.take("collect-review")
    await pilot.press("enter")
    await pilot.press("escape")


async def walk(app: EmbridgeApp, pilot: Pilot[None], shoot: Photographer) -> None:
    """Through the other rooms."""
    for key, name, more in (("2", "devices", ("c",)), ("3", "sessions", ()), ("4", "fleet", ()), ("7", "models", ())):
        await pilot.press(key)
        await until(lambda name=name: getattr(app.screen, "ROOM", "") == name)
        await pilot.press(*more)
        await asyncio.sleep(5.0)
        await shoot.take(name)
        if name == "devices":
            await pilot.press("d")
    await pilot.press("question_mark")
    await pilot.pause(0.5)
    await shoot.take("help")
    await pilot.press("escape")
    await pilot.press("5")
    await until(lambda: getattr(app.screen, "ROOM", "") == "enrol")
    await asyncio.sleep(2.0)
    await shoot.take("enrol")
    await pilot.press("escape", "6")
    await until(lambda: getattr(app.screen, "ROOM", "") == "live")
    await asyncio.sleep(2.0)
    await shoot.take("live")


async def main(folder: Path) -> list[Path]:
    """Make all of them."""
    with tempfile.TemporaryDirectory() as kept, demonstration(Path(kept)) as settings:
        protocol = Path(kept) / "shapes.toml"
        protocol.write_text(PROTOCOL)
        part = EdgePart(settings)
        app = EmbridgeApp(HttpClient(connect(settings=settings)), part, settings=settings.tui)
        async with app.run_test(size=SIZE) as pilot:
            await until(lambda: isinstance(app.screen, CollectScreen))
            shoot = Photographer(app, pilot, folder)
            await record(app, pilot, shoot, protocol)
            await walk(app, pilot, shoot)
    return shoot.made


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    made = asyncio.run(main(FOLDER))
    large = [path.name for path in made if path.stat().st_size > LARGEST_BYTES]
    sys.exit(f"larger than {LARGEST_BYTES} bytes: {', '.join(large)}" if large else 0)
