"""A cloud that a test of the terminal interface plays, and the interface over it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Static

from embridge_shared.clock import SystemClock
from embridge_shared.errors import EmbridgeError, OperatorError, Reason
from embridge_tui.app import EmbridgeApp
from embridge_tui.model import Edge, Ingest, Readiness, SessionDetail, Snapshot
from embridge_tui.widgets.records import Records

EMPTY = Snapshot(
    readiness=Readiness(ready=True, state="ready"),
    ingest=Ingest(chunks=0, samples=0, duplicates=0, refused=0, sealed=0),
    sessions=(),
    edges=(),
    releases=(),
    jobs=(),
)


def edge(name: str, **changes: Any) -> Edge:
    given = {
        "edge": name, "online": True, "release": "embridge-2", "recording": None, "spooled": 0, "spooled_bytes": 0,
        "seen_at": datetime(2026, 11, 22, 9, 30),
    }  # fmt: skip
    return Edge(**(given | changes))


class ScriptedCloud:
    """Answers paths with what it was told; keeps what it was asked to do."""

    address = "http://cloud.test:8470"

    def __init__(self, snapshot: Snapshot = EMPTY) -> None:
        self.now = snapshot
        self.answers: dict[str, Any] = {}
        self.refusals: dict[str, EmbridgeError] = {}
        self.asked: list[str] = []
        self.told: list[tuple[str, str, Any]] = []
        self.done: Callable[[str, str, Any], Any] = lambda method, path, body: {}
        self.heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.error: EmbridgeError | None = None

    async def snapshot(self) -> Snapshot:
        if self.error is not None:
            raise self.error
        return self.now

    async def session(self, session: UUID) -> SessionDetail:
        return msgspec.convert(await self.ask(f"/api/sessions/{session}"), SessionDetail)

    async def ask(self, path: str) -> Any:
        self.asked.append(path)
        if path in self.refusals:
            raise self.refusals[path]
        if path not in self.answers:
            raise OperatorError(f"there is no {path}", reason=Reason.NOT_FOUND)
        return self.answers[path]

    async def text(self, path: str) -> str:
        return str(await self.ask(path))

    async def tell(self, path: str, body: Any = None, *, method: str = "POST") -> Any:
        if path in self.refusals:
            raise self.refusals[path]
        self.told.append((method, path, body))
        return self.done(method, path, body)

    async def events(self) -> AsyncIterator[tuple[str, str]]:
        while True:
            yield await self.heard.get()


class Clock(SystemClock):
    """Stands still until it is told otherwise."""

    ns = 5_000_000_000
    wall = 1_795_427_162_000_000_000

    def monotonic_ns(self) -> int:
        return self.ns

    def wall_ns(self) -> int:
        return self.wall


def over(cloud: Any, room: str, **given: Any) -> EmbridgeApp:
    """The interface over a scripted cloud, in a room; nothing happens there but what the test does."""
    return EmbridgeApp(cloud, **({"clock": Clock(), "period_s": 3600.0, "room": room} | given))


def words(app: App[None], selector: str) -> str:
    """What a line shows."""
    return str(app.screen.query_one(selector, Static).render())


def cells(app: App[None], selector: str) -> list[list[str]]:
    """What a table shows."""
    table = app.screen.query_one(selector, Records)
    return [[str(cell) for cell in table.get_row_at(y)] for y in range(table.row_count)]


async def settle(pilot: Pilot[None], condition: Callable[[], bool], within_s: float = 8.0) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(within_s):
        while not condition():
            await pilot.pause(0.02)
    await pilot.pause()


async def typed(pilot: Pilot[None], line: str) -> None:
    """Type a line and end it."""
    keys = {" ": "space", "-": "minus", ",": "comma", ".": "full_stop", "_": "underscore", "/": "slash"}
    await pilot.press(*(keys.get(c, c) for c in line), "enter")
