"""Collect: from the form over the look before to a session that is recorded, reviewed and sent; with keys alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import partial
from typing import ClassVar, Final

from textual.binding import BindingType
from textual.widget import Widget
from textual.widgets import ContentSwitcher, Static

from embridge_edge.collect.conductor import Conductor
from embridge_edge.collect.leader import Leader
from embridge_edge.collect.preflight import Level, Preflight
from embridge_edge.collect.report import Collected
from embridge_edge.collect.setup import Journal, Setup
from embridge_edge.collect.station import Station
from embridge_edge.collect.steps import Entered, Noted, State, Step
from embridge_edge.source import Packet
from embridge_shared.errors import EmbridgeError
from embridge_shared.gesture_spec import known
from embridge_shared.signal import StreamSpec
from embridge_tui.collecting.conducted import ConductedRoom
from embridge_tui.collecting.form import SetupForm
from embridge_tui.collecting.look import LookView, lanes
from embridge_tui.collecting.review import ReviewView
from embridge_tui.collecting.run import RunView
from embridge_tui.ring import SignalRing
from embridge_tui.screens.collect_dialogs import ConfirmDialog, TextDialog
from embridge_tui.trace import Glyphs
from embridge_tui.widgets.scope import Scope

_SHOW_HZ: Final = 10.0
_LOOK_S: Final = 0.2


class Stage(StrEnum):
    """What the room shows."""

    FORM = "form"
    LOOK = "look"
    RUN = "recording"
    REVIEW = "review"


class CollectScreen(ConductedRoom):
    """Leads an operator through a day of recordings.

    Args:
        station: Records and delivers; None where this machine has no edge.
        missing: Why there is none, and how to get one.
        glyphs: What scope and hand are drawn with.
    """

    ROOM = "collect"
    # A form that can be rested on must not take what is typed first.
    AUTO_FOCUS = "#participant"
    CSS_PATH: ClassVar[str] = "collect.tcss"
    BINDINGS: ClassVar[list[BindingType]] = []

    def __init__(self, station: Station | None, missing: str = "", *, glyphs: Glyphs = Glyphs.BRAILLE) -> None:
        super().__init__(station)
        self._glyphs = glyphs
        self._missing = missing
        self._ring: SignalRing | None = None
        self._preflight: Preflight | None = None
        self._leaving: asyncio.Event | None = None
        self._setup: Setup | None = None
        self._report: Collected | None = None
        self._sealed = False
        self._cut_off: tuple[str, Journal] | None = None

    # what others may ask

    @property
    def busy(self) -> str:
        """What would be cut off by leaving now; empty if nothing."""
        leader = self.leader
        return "" if leader is None else f"session {leader.setup.name} is being recorded"

    @property
    def stage(self) -> Stage:
        """What is shown."""
        return Stage(self.query_one("#stages", ContentSwitcher).current or Stage.FORM)

    # the frame

    def furnish(self) -> Iterable[Widget]:
        """One of four stages, and a line of advice."""
        if self.station is None:
            yield ContentSwitcher(Static("", id=Stage.FORM), initial=Stage.FORM, id="stages")
        else:
            edge = self.station.settings.edge
            form = SetupForm(edge.state_dir, known(edge.state_dir), adapter=edge.adapter, id=Stage.FORM)
            stages = (
                form,
                LookView(self._glyphs, id=Stage.LOOK),
                RunView(self._glyphs, id=Stage.RUN),
                ReviewView(id=Stage.REVIEW),
            )
            yield ContentSwitcher(*stages, initial=Stage.FORM, id="stages")
        yield Static("", id="collect-advice", markup=False)

    async def on_mount(self) -> None:
        """Begin with the form, or with what was cut off."""
        if self.station is None:
            self.advise(self._missing, bad=True)
            return
        self.station.taps.append(self._seen)
        self.station.tell.append(self._hear)
        self.set_interval(1.0 / _SHOW_HZ, self._display)
        self._to_form()
        await self._look_for_interrupted()

    def on_unmount(self) -> None:
        """Hear no more."""
        if self.station is not None:
            self.station.taps.remove(self._seen)
            self.station.tell.remove(self._hear)

    def _go(self, stage: Stage) -> None:
        self.query_one("#stages", ContentSwitcher).current = stage

    def _to_form(self, words: str = "") -> None:
        self._go(Stage.FORM)
        self.query_one(SetupForm).focus_first()
        self.advise(words or "Who is recorded? [enter] goes on, [ctrl+g] looks at the band.")

    # the form

    async def _look_for_interrupted(self) -> None:
        assert self.station is not None
        found = await self.station.interrupted()
        self._cut_off = next(((i.name, i.journal) for i in found), None)
        if self._cut_off is not None:
            name, journal = self._cut_off
            self.advise(
                f"{name} was interrupted with {len(journal.outcomes)} done: [ctrl+r] goes on with it, [ctrl+x] ends it."
            )
            self.app.bell()

    async def on_setup_form_complete(self) -> None:
        """Everything is filled in."""
        await self.action_check()

    async def action_check(self) -> None:
        """Look at the band before the session."""
        assert self.station is not None
        form = self.query_one(SetupForm)
        try:
            name = await self.station.free_name(form.participant or "nobody", form.placement())
            setup = form.setup(name)
            preflight = await self.station.look(setup)
        except EmbridgeError as error:
            self.fail(error)
            return
        self._begin_look(setup, preflight)

    async def action_resume(self) -> None:
        """Go on with an interrupted session."""
        if self._cut_off is None:
            self.advise("No session was interrupted.")
            return
        (_, journal), self._cut_off = self._cut_off, None
        self._begin_run(journal, ())

    async def action_finish(self) -> None:
        """Close an interrupted session with what there is of it."""
        if self._cut_off is None or self.station is None:
            self.advise("No session was interrupted.")
            return
        name, _ = self._cut_off
        words = f"{name} is closed with what was recorded of it; nothing is deleted."
        self.app.push_screen(ConfirmDialog("end it?", words), partial(self._finish, name))

    async def _finish(self, name: str, yes: bool | None) -> None:
        if yes and self.station is not None:
            await self.station.finish(name)
            self._to_form(f"{name} is closed. Who is recorded next?")
            await self._look_for_interrupted()

    # the look before

    def _begin_look(self, setup: Setup, preflight: Preflight) -> None:
        self._setup, self._preflight, self._leaving = setup, preflight, asyncio.Event()
        self._new_ring(preflight.spec)
        self._go(Stage.LOOK)
        view = self.query_one(LookView)
        view.query_one(Scope).show(self._ring)
        view.open(setup)
        self.advise("Let the arm rest on the table.")
        self.run_worker(self._look(preflight, self._leaving), name="preflight", group="collect", exclusive=True)

    async def _look(self, preflight: Preflight, leaving: asyncio.Event) -> None:
        async with preflight:
            while not leaving.is_set():
                self.query_one(LookView).show(preflight.lines())
                if preflight.look is not None and self._ring is not None:
                    self._ring.mark(lanes(preflight.spec.channels, preflight.look.faults()))
                try:
                    async with asyncio.timeout(_LOOK_S):
                        await leaving.wait()
                except TimeoutError:
                    continue
        self._preflight = None

    def action_retest(self) -> None:
        """Forget what was seen of the signal."""
        if self._preflight is not None:
            self._preflight.retest()

    def action_effort(self) -> None:
        """Capture the greatest effort."""
        if self._preflight is not None:
            self._preflight.measure_effort()
            self.advise("Squeeze as hard as you can for three seconds, then rest.")

    async def action_reconnect(self) -> None:
        """Look for the band again."""
        if self._preflight is None or self.station is None or self._setup is None:
            return
        if self._preflight.error is None:
            self._preflight.retry()
            return
        await self._leave_look()
        try:
            self._begin_look(self._setup, await self.station.look(self._setup))
        except EmbridgeError as error:
            self.fail(error)

    async def action_back(self) -> None:
        """To the form."""
        await self._leave_look()
        self._to_form()

    async def action_begin(self) -> None:
        """Record, unless something is red; amber asks for a reason."""
        if self._preflight is None:
            return
        lines = self._preflight.lines()
        blocking = [line for line in lines if line.blocks]
        if blocking:
            first = next((line for line in blocking if line.level is Level.RED), blocking[0])
            self.advise(f"Not yet: {first.key}: {first.what}. {first.action}".strip(), bad=True)
            self.app.bell()
            return
        amber = [line for line in lines if line.needs_reason]
        if not amber:
            await self._record_new(())
            return
        words = "\n".join(f"▲ {line.key}: {line.what}" for line in amber)
        told = [f"preflight {line.key} {line.level}: {line.what}" for line in amber]
        self.app.push_screen(TextDialog("why is it recorded all the same?", words), partial(self._reasoned, told))

    async def _reasoned(self, told: Sequence[str], reason: str | None) -> None:
        if reason:
            await self._record_new([f"{words}; recorded because: {reason}" for words in told])
        else:
            self.advise("Amber lines need a reason, which is kept with the session.", bad=True)

    async def _leave_look(self) -> None:
        """Let the band go: recording opens it anew."""
        if self._leaving is not None:
            self._leaving.set()
        for worker in self.workers:
            if worker.group == "collect" and worker.name == "preflight":
                await worker.wait()

    async def _record_new(self, reasons: Sequence[str]) -> None:
        assert self._setup is not None
        effort = [line for line in self._preflight.lines() if line.key == "MVC"] if self._preflight else []
        measured = [f"preflight MVC: {line.what}" for line in effort if line.level is Level.GREEN]
        await self._leave_look()
        self._begin_run(Journal(setup=self._setup), [*reasons, *measured])

    # the session

    def _begin_run(self, journal: Journal, reasons: Sequence[str]) -> None:
        self._setup, self._report, self._sealed, self._ring = journal.setup, None, False, None
        self._go(Stage.RUN)
        view = self.query_one(RunView)
        view.open()
        view.query_one(Scope).show(None)
        self.advise(f"{journal.setup.name}: the band is connected …")
        self.run_worker(self._record(journal, reasons), name="record", group="collect", exclusive=True)

    async def _record(self, journal: Journal, reasons: Sequence[str]) -> None:
        assert self.station is not None
        try:
            self._report = await self.station.record(journal, reasons=reasons)
        except EmbridgeError as error:
            self.close_lost()
            self._to_form()
            self.fail(error)
            await self._look_for_interrupted()
            self.fail(error)
            return
        self.close_lost()
        self._to_review()
        while self.is_mounted and not self._sealed:
            self._sealed = await self.station.sealed(journal.setup.name)
            self._show_report()
            await asyncio.sleep(0.5)

    def _seen(self, ordinal: int, packet: Packet) -> None:
        """A packet was recorded, or looked at."""
        leader = self.leader
        if leader is not None:
            if self._ring is None:
                self._new_ring(leader.spec)
                self.query_one(RunView).query_one(Scope).show(self._ring)
            if leader.recorder is not None and ordinal != leader.recorder.lead:
                return
        if self._ring is not None and ordinal == 0:
            self._ring.push(packet.first, packet.samples)

    def _new_ring(self, spec: StreamSpec) -> None:
        self._ring = SignalRing(spec)

    def _hear(self, steps: Sequence[Step]) -> None:
        """Something happened in the session."""
        leader = self.leader
        if leader is None or not self.is_mounted:
            return
        self.query_one(RunView).hear(steps, leader)
        for step in steps:
            if isinstance(step, Entered):
                self._entered(step.state, leader)
            elif isinstance(step, Noted) and leader.conductor.state not in (State.LOST, State.READY):
                self.advise(step.text)

    def _entered(self, state: State, leader: Leader) -> None:
        if state not in (State.COUNTDOWN, State.DONE):
            self.app.bell()
        if state is not State.LOST:
            self.close_lost()
        if state is State.REVIEW and leader.conductor.state is State.REVIEW:
            self._to_review()
        elif state is State.PAUSED and self.stage is Stage.REVIEW:
            self._go(Stage.RUN)
            self.query_one("#scope").focus()
        if state is State.READY:
            self.advise("It is recorded. [space] begins when the participant is ready.")
        elif state is State.PAUSED:
            why = leader.conductor.why
            self.advise(f"Paused{': ' + why if why else ''}. [space] goes on.")
        elif state is State.HOLD:
            self.advise("")

    def _display(self) -> None:
        """Show the session, ten times a second while it is seen."""
        if self not in self.app.screen_stack:
            return
        station, leader = self.station, self.leader
        if station is None or leader is None:
            return
        if leader.conductor.state is State.LOST and self.app.screen is self:
            self.open_lost(leader)
        vitals = station.vitals()
        if self._ring is not None:
            for quality in vitals.quality:
                if quality.stream == leader.spec.name:
                    self._ring.judged(quality)
        if self.stage is Stage.RUN:
            self.query_one(RunView).show(leader, vitals)
        elif self.stage is Stage.REVIEW and self._report is None:
            self.query_one(ReviewView).review(leader)

    # the review

    def _to_review(self) -> None:
        if self.stage is not Stage.REVIEW:
            self._go(Stage.REVIEW)
            self.query_one(ReviewView).open()
        self.advise("" if self._report is not None else "Look through it, then [enter].")
        self._show_report()

    def _show_report(self) -> None:
        if self._report is not None and self.station is not None and self.stage is Stage.REVIEW:
            self.query_one(ReviewView).report(self._report, self.station.vitals(), sealed=self._sealed)

    def action_conclude(self) -> None:
        """End the session, or go on to the next one."""
        if self._report is None:
            self.act(Conductor.end)
            return
        assert self._setup is not None
        more = self._setup.donning < self._setup.protocol.placements
        donning = self._setup.donning + 1 if more else 1
        self.query_one(SetupForm).prefill(self._setup, donning=donning)
        words = f"Take the band off and put it on again: placement {donning}. [ctrl+g] looks at it." if more else ""
        self._to_form(words)

    def action_leave(self) -> None:
        """To the form, once the session is over."""
        if self._report is None:
            self.advise("[enter] ends the session first.")
        else:
            self._to_form()
