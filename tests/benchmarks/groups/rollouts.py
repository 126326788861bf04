"""Rounds of a rollout at 100, 1 000 and 5 000 edges, against the tick of a second that a round has to fit into."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks.framework import Row, compared, in_turn, row
from embridge_cloud.rollouts.driver import TICK_S
from embridge_cloud.rollouts.engine import step
from embridge_shared.archive import write_atomically
from embridge_shared.fleet import Rollout, RolloutState, UpdatePhase
from support.fleets import T0, S, policy, rollout_of, says
from support.rollouts import World

GROUP = "rollouts"
SIZES = (100, 1000, 5000)


def rows() -> list[Row]:
    return [row for size in SIZES for row in _steps(size)] + [row for size in SIZES for row in _whole(size)]


def _steps(size: int) -> list[Row]:
    begun, _ = step(rollout_of(size, policy(1.0, soak_s=60.0)), T0, {}, listening_ns=T0 - S)
    half = begun.edges[: size // 2]
    one = {half[0].edge: says(half[0].edge, UpdatePhase.TESTING)}
    everybody = {p.edge: says(p.edge, UpdatePhase.TESTING) for p in begun.edges}

    def timed(work: Callable[[], object]) -> Callable[[], float]:
        def measure() -> float:
            began = time.process_time()
            for _ in range(5):
                work()
            return (time.process_time() - began) / 5 * 1e3

        return measure

    def kept() -> None:
        write_atomically(folder / "r-0001.json", msgspec.json.encode(begun))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        quiet, first, all_of_them, writing = in_turn(
            timed(lambda: step(begun, T0 + S, {}, listening_ns=T0 - S)),
            timed(lambda: step(begun, T0 + S, one, listening_ns=T0 - S)),
            timed(lambda: step(begun, T0 + S, everybody, listening_ns=T0 - S)),
            timed(kept),
        )
        mib = len(msgspec.json.encode(begun)) / 2**20
    named = f"{size} edges"
    tick = [TICK_S * 1e3] * len(quiet)
    return [
        compared(GROUP, f"step, nothing heard, {named}", "ms CPU", quiet, peer="a tick", theirs=tick),
        compared(GROUP, f"step, one heard, {named}", "ms CPU", first, peer="a tick", theirs=tick),
        compared(GROUP, f"step, all heard, {named}", "ms CPU", all_of_them, peer="a tick", theirs=tick),
        compared(GROUP, f"file written, {named}", "ms CPU", writing, peer="a tick", theirs=tick),
        row(GROUP, f"file, {named}", "MiB", [mib]),
    ]


def _whole(size: int) -> list[Row]:
    """A rollout from its start to its end, every edge with five words, all edges at once and one after another."""

    def whole(at_once: int) -> Callable[[], float]:
        def measure() -> float:
            with tempfile.TemporaryDirectory() as folder:
                began = time.process_time()
                ended = asyncio.run(_play(Path(folder), size, at_once))
                took = time.process_time() - began
            if ended.state is not RolloutState.DONE:
                raise RuntimeError(f"it is {ended.state}")
            return took / size * 1e3

        return measure

    together, spread = in_turn(whole(size), whole(max(1, size // 50)), repeats=3)
    named = f"{size} edges"
    return [
        row(GROUP, f"whole rollout, all at once, {named}", "ms CPU an edge", together),
        row(GROUP, f"whole rollout, 2 % a round, {named}", "ms CPU an edge", spread),
    ]


async def _play(folder: Path, size: int, at_once: int) -> Rollout:
    world = await World(folder, dict.fromkeys((f"e{n:04d}" for n in range(size)), "good")).begin()
    await world.start(policy(1.0, soak_s=0.0, patience_s=1e6))
    while any(edge.todo for edge in world.edges.values()):
        moving = [name for name, edge in world.edges.items() if edge.todo][:at_once]
        for name in moving:
            world.edges[name].work()
        world.clock.now_ns += S
        world.speak(*moving)
        await world.rollouts.round()
    return world.rollouts.shelf.get("r-0001")
