"""Rollouts without a cloud around them: scripted edges, a registry in memory, a clock that is set by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from embridge_cloud.rollouts.carrier import Kept
from embridge_cloud.rollouts.driver import Rollouts
from embridge_cloud.rollouts.roster import Roster
from embridge_cloud.rollouts.shelf import Shelf
from embridge_shared.errors import NetworkError
from embridge_shared.fleet import Rollout, RolloutPolicy, RolloutRequest
from embridge_shared.manifest import Published
from embridge_shared.wire.messages import EdgeState
from support.fleets import NEW, T0, S, ScriptedEdge, policy, published


class Killed(BaseException):
    """The process ends here."""


class HandClock:
    """Time that moves when somebody moves it."""

    def __init__(self) -> None:
        self.now_ns = T0

    def wall_ns(self) -> int:
        return self.now_ns

    def monotonic_ns(self) -> int:
        return self.now_ns

    async def sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * S)
        await asyncio.sleep(0)


class Shelfful:
    """A registry in memory."""

    def __init__(self, world: World, *versions: int) -> None:
        self._world = world
        self.all = {p.name: p for p in map(published, versions)}

    def releases(self) -> tuple[Published, ...]:
        return tuple(self.all.values())

    def recall(self, name: str, why: str) -> Published:
        self._world.effect("recall")
        self.all[name] = msgspec.structs.replace(self.all[name], recalled=self.all[name].recalled or why)
        return self.all[name]

    @property
    def recalled(self) -> set[str]:
        return {p.name for p in self.all.values() if p.recalled}


class World:
    """A cloud's rollouts, its broker's retained messages, and edges.

    Args:
        folder: Where the cloud keeps things.
        fates: What becomes of each edge, by name.
        versions: Releases published.
    """

    def __init__(self, folder: Path, fates: Mapping[str, str], *versions: int) -> None:
        self.folder = folder
        self.clock = HandClock()
        self.registry = Shelfful(self, *(versions or (1, 2)))
        self.edges = {name: ScriptedEdge(name, fate) for name, fate in fates.items()}
        self.retained: dict[str, bytes] = {}
        self.sent = 0
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        self.rows: list[tuple[str, str, dict[str, Any]]] = []
        self.effects: list[str] = []
        self.kill_at: int | None = None
        self.connection = 1
        self.states: dict[str, tuple[EdgeState, int]] = {}
        self.rollouts = self._process()

    def _process(self) -> Rollouts:
        kept = Kept(_Shelf(self, self.folder / "rollouts"), _Roster(self, self.folder / "fleet.json"), self.registry)
        return Rollouts(kept, self, self.clock, url="http://cloud/updates")

    async def begin(self) -> World:
        """Every edge has been heard of."""
        self.speak(*self.edges)
        await self.rollouts.round()
        return self

    async def restart(self) -> None:
        """Another process over what the last one kept."""
        self.kill_at = None
        self.rollouts = self._process()
        await self.rollouts.recover(self.states)

    # what rollouts are given

    async def publish_all(self, messages: Sequence[tuple[str, bytes]]) -> None:
        if not self.connection:
            raise NetworkError("gone")
        for topic, payload in messages:
            self.effect("publish")
            self.sent += 1
            edge = topic.split("/")[3]
            self.retained[edge] = payload
            if self.edges[edge].online:
                self.edges[edge].told(payload, self.registry.recalled)

    def event(self, kind: str, subject: str, **data: Any) -> None:
        self.events.append((kind, subject, data))

    async def history(self, action: str, subject: str, detail: Mapping[str, Any]) -> None:
        self.effect("history")
        self.rows.append((action, subject, dict(detail)))

    def effect(self, what: str) -> None:
        """Something that outlives the process is about to be done."""
        if self.kill_at is not None and len(self.effects) == self.kill_at:
            raise Killed(what)
        self.effects.append(what)

    # what happens

    def speak(self, *names: str) -> None:
        """Edges publish their state; the store has it before rollouts hear of it."""
        states = {name: (self.edges[name].state(), self.clock.wall_ns()) for name in names}
        self.states |= states
        self.rollouts.hear(states)

    def connect(self, name: str, online: bool) -> None:
        edge = self.edges[name]
        edge.online = online
        if online and name in self.retained:
            edge.told(self.retained[name], self.registry.recalled)
        self.speak(name)

    async def start(self, how: RolloutPolicy | None = None, **request: Any) -> Rollout:
        wish = RolloutRequest(release=NEW, **request)
        return await self.rollouts.start(wish, how or policy(), "ana")

    async def tick(self, seconds: float = 1.0) -> None:
        """Edges take a step and say so; a round."""
        self.clock.now_ns += round(seconds * S)
        moved = [name for name, edge in self.edges.items() if edge.work()]
        # What is told about a return is said without further steps.
        told = [n for n, e in self.edges.items() if e.online and n in self.states and e.state() != self.states[n][0]]
        if moved or told:
            self.speak(*sorted({*moved, *told}))
        await self.rollouts.round()

    async def play(self, name: str = "r-0001", ticks: int = 80) -> Rollout:
        """Until a rollout is over."""
        for _ in range(ticks):
            rollout = self.rollouts.shelf.get(name)
            if rollout.ended_ns:
                return rollout
            await self.tick()
        return self.rollouts.shelf.get(name)

    def running(self) -> dict[str, str]:
        return {name: edge.release for name, edge in self.edges.items()}


class _Shelf(Shelf):
    def __init__(self, world: World, folder: Path) -> None:
        super().__init__(folder)
        self._world = world

    def write(self, rollout: Rollout) -> None:
        self._world.effect("rollout")
        super().write(rollout)


class _Roster(Roster):
    def __init__(self, world: World, path: Path) -> None:
        super().__init__(path)
        self._world = world

    def encode(self) -> bytes:
        self._world.effect("roster")
        return super().encode()
