"""`embridge live --record`: decode and record, and keep what is typed as labels."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import typer

from embridge_edge.agent import Agent
from embridge_edge.live_seat import Which
from embridge_edge.live_sitting import LiveSitting, sitting_of
from embridge_edge.live_view import View
from embridge_edge.outputs.base import Outputs
from embridge_edge.plan import SessionPlan
from embridge_shared.clock import Clock
from embridge_shared.errors import EmbridgeError, OperatorError
from embridge_shared.settings import Settings

HELP = "Type what the last movement was, and enter, to label it; `+` and `-` change the thresholds."


def record(
    plan: SessionPlan,
    base: Path,
    config: Settings,
    clock: Clock,
    view: View,
    *,
    seconds: float | None = None,
    beside: bool = False,
    lines: TextIO | None = None,
) -> None:
    """Record and decode a band until its end, the time's, or a signal.

    Args:
        plan: The band, and who wears it.
        base: Folder that the plan's paths start from.
        config: Of this machine.
        clock: Wall and monotonic time.
        view: Shows decisions.
        seconds: How long; until the end when None, s.
        beside: Let the release that ran before decode too.
        lines: Where labels are typed; standard input by default.

    Raises:
        OperatorError: Nobody is named; LOCKED: an agent runs on this machine.
        EmbridgeError: As `LiveSitting.run`.
    """
    if not plan.participant:
        raise OperatorError("what is recorded has a participant.", hint="Name who wears the band with --participant.")
    asyncio.run(_record(plan, base, config, clock, view, seconds, beside, lines or sys.stdin))


async def _record(
    plan: SessionPlan,
    base: Path,
    config: Settings,
    clock: Clock,
    view: View,
    seconds: float | None,
    beside: bool,
    lines: TextIO,
) -> None:
    agent = Agent(config, clock)
    sitting = sitting_of(agent, config.edge, plan.participant, plan.source, clock, base=base)
    typer.echo(HELP, err=True)
    async with Outputs([view], clock=clock) as outputs:
        agent.decisions.add(outputs)
        running = asyncio.create_task(agent.run(), name="agent")
        leading = asyncio.create_task(sitting.run(), name="live")
        helping = [asyncio.create_task(_hear(sitting, lines), name="labels")]
        helping += [asyncio.create_task(_compare(sitting), name="compare")] if beside else []
        stop = _stops(sitting, seconds)
        try:
            await asyncio.wait({running, leading}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop()
            for task in (leading, running, *helping):
                task.cancel()
            await asyncio.gather(leading, running, *helping, return_exceptions=True)
    if running.done() and not running.cancelled() and (error := running.exception()) is not None:
        raise error
    if not leading.cancelled():
        typer.echo(f"session {sitting.plan.name}: {leading.result().reason}", err=True)
    _sum_up(sitting)


async def _hear(sitting: LiveSitting, lines: TextIO) -> None:
    """Take labels as they are typed."""
    loop, typed = asyncio.get_running_loop(), asyncio.Queue[str]()

    def read() -> None:
        for line in lines:
            with suppress(RuntimeError):  # nobody listens any more
                loop.call_soon_threadsafe(typed.put_nowait, line.strip())

    # A daemon: nothing ends a read of a terminal, and nobody waits for it.
    threading.Thread(target=read, name="typed", daemon=True).start()
    while True:
        word = await typed.get()
        if not word:
            continue
        try:
            if word in ("+", "-"):
                target = await sitting.retune(1 if word == "+" else -1)
                typer.echo(f"thresholds for {target:g} false activations an hour", err=True)
                continue
            found = await sitting.label(word)
            typer.echo(f"{found.outcome.value}: labelled {word}, decoded {found.said or 'nothing'}", err=True)
        except EmbridgeError as error:
            typer.echo(str(error), err=True)


async def _compare(sitting: LiveSitting) -> None:
    """Let the release before decode, once anything does."""
    await sitting.begun.wait()
    try:
        await sitting.compare()
    except EmbridgeError as error:
        typer.echo(str(error), err=True)


def _stops(sitting: LiveSitting, seconds: float | None) -> Callable[[], None]:
    """End on a signal or when the time is over; what takes that back."""
    loop = asyncio.get_running_loop()
    timer = None if seconds is None else loop.call_later(seconds, sitting.stop)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, sitting.stop)

    def undo() -> None:
        if timer is not None:
            timer.cancel()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    return undo


def _sum_up(sitting: LiveSitting) -> None:
    for which in Which:
        view = sitting.view(which)
        if view is None:
            continue
        score, latency = view.score, view.latency
        typer.echo(
            f"{view.release}: right {score.right} of {score.labelled} labelled, {score.missed} missed, "
            f"{score.false} false",
            err=True,
        )
        if latency is not None:
            typer.echo(f"  {latency.total_ms:.0f} ms in the middle, 99 of 100 in {latency.worst_ms:.0f} ms", err=True)
