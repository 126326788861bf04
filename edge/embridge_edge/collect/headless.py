"""A conducted session without a screen: prompts as lines, keys as lines, or nobody at the keyboard."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import typer

from embridge_edge.collect.conductor import Conductor
from embridge_edge.collect.preflight import Level
from embridge_edge.collect.report import Collected
from embridge_edge.collect.setup import Journal
from embridge_edge.collect.station import Station
from embridge_edge.collect.steps import Entered, State, Step
from embridge_edge.collect.telling import line_of, lines
from embridge_edge.uplink import LinkState
from embridge_shared.errors import OperatorError, Reason

Action = Callable[[Conductor, float], list[Step]]

_PATIENCE_S: Final = 45.0
_POLL_S: Final = 0.1
_LINK_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Asked:
    """How a session without a screen is led.

    Attributes:
        yes: Ask nothing.
        reason: Why it is recorded although the preflight warns.
        wait_s: How long the cloud may take to hold it, s.
        as_json: The figures go to stdout as JSON.
    """

    yes: bool = False
    reason: str = ""
    wait_s: float = 30.0
    as_json: bool = False


async def lead(station: Station, journal: Callable[[], Awaitable[Journal]], asked: Asked) -> Collected:
    """Look, record, deliver.

    Args:
        station: Not running yet.
        journal: Says what is recorded, once the station runs.
        asked: How.

    Raises:
        OperatorError: The preflight forbids it, or nobody could be asked.
        DeviceError: The band cannot be reached.
    """
    if not asked.yes and not sys.stdin.isatty():
        raise OperatorError("nobody is at the keyboard.", hint="Give --yes to begin without asking.")
    async with _running(station):
        told = await journal()
        reasons = await _preflight(station, told, asked)
        report = await _record(station, told, asked, reasons)
        await _deliver(station, report, asked)
    if asked.as_json:
        typer.echo(msgspec.json.encode(report).decode())
    else:
        for line in report.lines():
            typer.echo(line)
    return report


async def end_interrupted(station: Station, name: str) -> None:
    """End an interrupted session, or list them all where no name is given.

    Raises:
        OperatorError: NOT_FOUND: there is none of that name.
    """
    async with _running(station):
        found = await station.interrupted()
        if not name:
            for each in found:
                j = each.journal
                typer.echo(f"{each.name}\t{j.setup.participant}\t{j.setup.protocol.ref}\t{len(j.outcomes)} done")
            return
        if not await station.finish(name):
            raise OperatorError(
                f"there is no interrupted session {name!r}", reason=Reason.NOT_FOUND, hint="`--list` shows them."
            )
        typer.echo(f"{name} is closed with what was recorded of it", err=True)


@contextlib.asynccontextmanager
async def _running(station: Station) -> AsyncIterator[None]:
    """Run the station inside; what ends it ends the context."""
    inner = asyncio.current_task()
    running = asyncio.create_task(station.run(), name="station")

    def ended(_: asyncio.Task[None]) -> None:
        if inner is not None and not inner.done():
            inner.cancel()

    running.add_done_callback(ended)
    try:
        yield
    except asyncio.CancelledError:
        if running.done() and not running.cancelled() and (error := running.exception()) is not None:
            raise error from None
        raise
    finally:
        running.remove_done_callback(ended)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _preflight(station: Station, journal: Journal, asked: Asked) -> tuple[str, ...]:
    """Look before the session; why it is recorded although something is amber.

    Raises:
        OperatorError: POOR_SIGNAL: something required is red, or amber without a reason.
    """
    resumed = bool(journal.outcomes or journal.attempts)
    if resumed:
        typer.echo(f"goes on with {journal.setup.name}", err=True)
        return ()
    async with await station.look(journal.setup) as preflight:
        found = await preflight.settled(_PATIENCE_S)
    for line in found:
        typer.echo(line_of(line), err=True)
    if red := [line for line in found if line.blocks]:
        words = "; ".join(f"{line.key}: {line.what}" for line in red)
        raise OperatorError(
            f"the preflight does not pass: {words}", reason=Reason.POOR_SIGNAL, hint=red[0].action or "Try again."
        )
    amber = [line for line in found if line.needs_reason]
    if not amber:
        return ()
    reason = asked.reason or ("--yes" if asked.yes else typer.prompt("why is it recorded all the same?", err=True))
    return tuple(f"preflight {line.key} {Level.AMBER}: {line.what}; recorded because: {reason}" for line in amber)


async def _record(station: Station, journal: Journal, asked: Asked, reasons: Sequence[str]) -> Collected:
    say = _Saying(station, asked)
    station.tell.append(say)
    loop = asyncio.get_running_loop()
    if not asked.yes:
        loop.add_reader(sys.stdin.fileno(), say.key)
    try:
        return await station.record(journal, reasons=reasons, block_pause=not asked.yes)
    finally:
        station.tell.remove(say)
        if not asked.yes:
            loop.remove_reader(sys.stdin.fileno())


class _Saying:
    """Prints what happens; without anybody at the keyboard it also goes on where one would."""

    def __init__(self, station: Station, asked: Asked) -> None:
        self._station = station
        self._yes = asked.yes
        self._tasks: set[asyncio.Task[str]] = set()

    def __call__(self, steps: Sequence[Step]) -> None:
        leader = self._station.leader
        if leader is None:
            return
        at = leader.conductor
        for line in lines(steps, at, leader.setup.protocol):
            typer.echo(line, err=True)
        if not self._yes:
            return
        for step in steps:
            if isinstance(step, Entered) and step.state is at.state:
                for action in _next(at):
                    self.do(action)

    def do(self, action: Action) -> None:
        """Do it as soon as the session's loop comes to it."""
        leader = self._station.leader
        if leader is not None:
            task = asyncio.get_running_loop().create_task(leader.act(action))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def key(self) -> None:
        """A line came from the keyboard."""
        text = sys.stdin.readline()
        leader = self._station.leader
        if leader is None:
            return
        word, _, rest = text.strip().partition(" ")
        action = _enter(leader.conductor) if not word else _KEYS.get(word)
        if word == "n" and rest:
            action = functools.partial(Conductor.mark, text=rest)
        if action is None:
            typer.echo("enter starts, pauses, accepts; r redo, s skip, m marker, n TEXT note, e end", err=True)
        else:
            self.do(action)


def _next(at: Conductor) -> tuple[Action, ...]:
    """What nobody at the keyboard would do."""
    match at.state:
        case State.READY:
            return (Conductor.start,)
        case State.PAUSED:
            return (Conductor.skip, Conductor.start) if at.stuck else (Conductor.start,)
        case State.REVIEW:
            return (Conductor.end,)
    return ()


def _enter(at: Conductor) -> Action:
    """What the one key does that most is done with."""
    if at.state in (State.READY, State.PAUSED):
        return Conductor.start
    if at.state is State.REVIEW or at.offers_redo:
        return Conductor.accept
    return Conductor.pause


_KEYS: Final[dict[str, Action]] = {
    "r": Conductor.redo,
    "s": Conductor.skip,
    "m": Conductor.mark,
    "p": Conductor.pause,
    "e": Conductor.end,
}


async def _deliver(station: Station, report: Collected, asked: Asked) -> None:
    """Wait until the cloud holds it, as long as there is a link."""
    loop = asyncio.get_running_loop()
    until_s, linked_s = loop.time() + asked.wait_s, loop.time() + min(_LINK_S, asked.wait_s)
    while loop.time() < until_s:
        if await station.sealed(report.name):
            typer.echo("the cloud holds all of it, verified and sealed", err=True)
            return
        if station.agent.link is not LinkState.ONLINE and loop.time() > linked_s:
            break
        await asyncio.sleep(_POLL_S)
    waiting = station.state().spooled
    typer.echo(f"{waiting} items wait in the spool; `embridge edge run` delivers them", err=True)
