"""Collect: from the form over the look before to a session that is recorded, reviewed and sent; with keys alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

from textual.binding import BindingType
from textual.widget import Widget
from textual.widgets import ContentSwitcher, Static

from embridge_shared.errors import EmbridgeError
from embridge_shared.gesture_spec import known
from embridge_tui import text
from embridge_tui.ring import SignalRing
from embridge_tui.screens.collect_dialogs import ConfirmDialog, LostDialog, TextDialog
from embridge_tui.screens.room import Room
from embridge_tui.trace import Glyphs
from embridge_tui.widgets.scope import Scope

if TYPE_CHECKING:
    from embridge_edge.collect.conductor import Conductor, Step
    from embridge_edge.collect.leader import Leader
    from embridge_edge.collect.preflight import Preflight
    from embridge_edge.collect.report import Collected
    from embridge_edge.collect.setup import Journal, Setup
    from embridge_edge.collect.station import Station
    from embridge_edge.source import Packet
    from embridge_shared.signal import StreamSpec

_SHOW_HZ: Final = 10.0
_LOOK_S: Final = 0.2


class Stage(StrEnum):
    """What the room shows."""

    FORM = "form"
    LOOK = "look"
    RUN = "recording"
    REVIEW = "review"


class CollectScreen(Room):
    """Leads an operator through a day of recordings.

    Args:
        station: Records and delivers; None where this machine has no edge.
        missing: Why there is none, and how to get one.
        glyphs: What scope and hand are drawn with.
    """

    ROOM = "collect"
    CSS: ClassVar[str] = """
    #stages { height: 1fr; }
    #form { padding: 0 1; }
    #fields { grid-size: 3; grid-rows: 3; grid-gutter: 0 1; height: auto; }
    #fields Input, #fields Select { border: none; height: 3; width: 1fr; }
    #fields Input { border: round $primary-muted; border-title-color: $text-primary; }
    #fields Input:focus { border: round $primary; }
    #fields Select { border: round $primary-muted; border-title-color: $text-primary; }
    #fields Select:focus-within { border: round $primary; }
    #fields SelectCurrent { border: none; height: 1; padding: 0 1; }
    #fields Select > SelectOverlay { border: round $primary; }
    #go { margin: 0 1; width: auto; }
    #about { height: 1fr; padding: 0 1; color: $text-muted; }
    #look-title { text-style: bold; padding: 0 1; color: $text-primary; height: 1; margin-top: 1; }
    #look-lines { height: auto; padding: 0; margin-bottom: 1; }
    #look-scope { height: 1fr; min-height: 3; }
    #run { height: 1fr; layout: vertical; }
    #scope { height: 1fr; }
    #panel { height: auto; width: 1fr; }
    #word, #review-word { height: 5; color: $text-primary; }
    #word.-act { color: $text-success; }
    #word.-wait { color: $text-warning; }
    #word.-bad { color: $text-error; }
    #what { text-align: center; text-style: bold; height: 1; }
    #hint, #bar, #dots, #who, #alive { text-align: center; height: 1; }
    #hint { color: $text-muted; display: none; }
    #who { display: none; }
    #bar { color: $text-success; }
    #alive.-stale { color: $text-warning; text-style: bold; }
    #alive.-bad { color: $text-error; text-style: bold; }
    #live { height: 1; text-align: center; color: $text-warning; }
    #live.-bad { color: $text-error; }
    #target, #log { display: none; }
    #last { height: 1; padding: 0 1; background: $panel; }
    CollectScreen.-wide #run, CollectScreen.-broad #run { layout: horizontal; }
    CollectScreen.-wide #panel { width: 52; height: 1fr; padding: 0 1; }
    CollectScreen.-broad #panel { width: 60; height: 1fr; padding: 0 1; }
    CollectScreen.-wide #who, CollectScreen.-broad #who { display: block; }
    CollectScreen.-wide #hint, CollectScreen.-broad #hint { display: block; }
    CollectScreen.-wide #hint, CollectScreen.-broad #hint { height: 2; }
    CollectScreen.-wide #log, CollectScreen.-broad #log {
        display: block; height: 1fr; border-top: solid $primary-muted; color: $text-muted; overflow: hidden;
    }
    CollectScreen.-wide #live, CollectScreen.-broad #live { height: 2; }
    CollectScreen.-broad #target { display: block; height: 14; }
    CollectScreen.-broad #target.-none { display: none; }
    #tally { height: 1fr; min-height: 4; }
    #figures { height: auto; padding: 0 1; margin-top: 1; }
    #sync { height: auto; padding: 0 1; text-style: bold; }
    #collect-advice { height: auto; max-height: 3; padding: 0 1; text-style: bold; background: $panel; }
    #collect-advice.-bad { color: $text-error; background: $error-muted; }
    TextDialog, ConfirmDialog, LostDialog { align: center middle; background: $background 60%; }
    .dialog.-lost { border: heavy $error; }
    #lost-word { color: $text-error; }
    """
    BINDINGS: ClassVar[list[BindingType]] = []

    def __init__(self, station: Station | None, missing: str = "", *, glyphs: Glyphs = Glyphs.BRAILLE) -> None:
        super().__init__()
        self._glyphs = glyphs
        self._station = station
        self._missing = missing
        self._ring: SignalRing | None = None
        self._preflight: Preflight | None = None
        self._leaving: asyncio.Event | None = None
        self._setup: Setup | None = None
        self._report: Collected | None = None
        self._sealed = False
        self._lost: LostDialog | None = None
        self._cut_off: tuple[str, Journal] | None = None
        self._word = ""

    # what others may ask

    @property
    def busy(self) -> str:
        """What would be cut off by leaving now; empty if nothing."""
        leader = self._leader
        if leader is None:
            return ""
        return f"session {leader.setup.name} is being recorded; it goes on where it was when you are back"

    @property
    def stage(self) -> Stage:
        """What is shown."""
        return Stage(self.query_one("#stages", ContentSwitcher).current or Stage.FORM)

    @property
    def _leader(self) -> Leader | None:
        return None if self._station is None else self._station.leader

    # the frame

    def furnish(self) -> Iterable[Widget]:
        """One of four stages, and a line of advice."""
        if self._station is None:
            yield ContentSwitcher(Static("", id=Stage.FORM), initial=Stage.FORM, id="stages")
        else:
            from embridge_tui.collecting.form import SetupForm
            from embridge_tui.collecting.look import LookView
            from embridge_tui.collecting.review import ReviewView
            from embridge_tui.collecting.run import RunView

            edge = self._station.settings.edge
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
        if self._station is None:
            self._advise(self._missing, bad=True)
            return
        self._station.taps.append(self._seen)
        self._station.tell.append(self._hear)
        self.set_interval(1.0 / _SHOW_HZ, self._display)
        self._to_form()
        await self._look_for_interrupted()

    def on_unmount(self) -> None:
        """Hear no more."""
        if self._station is not None:
            self._station.taps.remove(self._seen)
            self._station.tell.remove(self._hear)

    def _advise(self, words: str, *, bad: bool = False) -> None:
        line = self.query_one("#collect-advice", Static)
        line.update(text.plain(words))
        line.set_class(bad, "-bad")

    def _fail(self, error: EmbridgeError) -> None:
        self._advise(str(error), bad=True)
        self.app.bell()

    def _go(self, stage: Stage) -> None:
        self.query_one("#stages", ContentSwitcher).current = stage

    def _to_form(self, words: str = "") -> None:
        from embridge_tui.collecting.form import SetupForm

        self._go(Stage.FORM)
        self.query_one(SetupForm).focus_first()
        self._advise(words or "Who is recorded? [enter] goes on, [ctrl+g] looks at the band.")

    # the form

    async def _look_for_interrupted(self) -> None:
        assert self._station is not None
        found = await self._station.interrupted()
        self._cut_off = next(((i.name, i.journal) for i in found), None)
        if self._cut_off is not None:
            name, journal = self._cut_off
            self._advise(
                f"{name} was interrupted with {len(journal.outcomes)} done: [ctrl+r] goes on with it, [ctrl+x] ends it."
            )
            self.app.bell()

    async def on_setup_form_complete(self) -> None:
        """Everything is filled in."""
        await self.action_check()

    async def action_check(self) -> None:
        """Look at the band before the session."""
        from embridge_tui.collecting.form import SetupForm

        assert self._station is not None
        form = self.query_one(SetupForm)
        try:
            name = await self._station.free_name(form.participant or "nobody", form.placement())
            setup = form.setup(name)
            preflight = await self._station.look(setup)
        except EmbridgeError as error:
            self._fail(error)
            return
        self._begin_look(setup, preflight)

    async def action_resume(self) -> None:
        """Go on with an interrupted session."""
        if self._cut_off is None:
            self._advise("No session was interrupted.")
            return
        (_, journal), self._cut_off = self._cut_off, None
        self._begin_run(journal, ())

    async def action_finish(self) -> None:
        """Close an interrupted session with what there is of it."""
        if self._cut_off is None or self._station is None:
            self._advise("No session was interrupted.")
            return
        name, _ = self._cut_off
        words = f"{name} is closed with what was recorded of it; nothing is deleted."
        self.app.push_screen(ConfirmDialog("end it?", words), partial(self._finish, name))

    async def _finish(self, name: str, yes: bool | None) -> None:
        if yes and self._station is not None:
            await self._station.finish(name)
            self._to_form(f"{name} is closed. Who is recorded next?")
            await self._look_for_interrupted()

    # the look before

    def _begin_look(self, setup: Setup, preflight: Preflight) -> None:
        from embridge_tui.collecting.look import LookView

        self._setup, self._preflight, self._leaving = setup, preflight, asyncio.Event()
        self._new_ring(preflight.spec)
        self._go(Stage.LOOK)
        view = self.query_one(LookView)
        view.query_one(Scope).show(self._ring)
        view.open(setup)
        self._advise("Let the arm rest on the table.")
        self.run_worker(self._look(preflight, self._leaving), name="preflight", group="collect", exclusive=True)

    async def _look(self, preflight: Preflight, leaving: asyncio.Event) -> None:
        from embridge_tui.collecting.look import LookView, lanes

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
            self._advise("Squeeze as hard as you can for three seconds, then rest.")

    async def action_reconnect(self) -> None:
        """Look for the band again."""
        if self._preflight is None or self._station is None or self._setup is None:
            return
        if self._preflight.error is None:
            self._preflight.retry()
            return
        await self._leave_look()
        try:
            self._begin_look(self._setup, await self._station.look(self._setup))
        except EmbridgeError as error:
            self._fail(error)

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
            first = next((line for line in blocking if line.level == "red"), blocking[0])
            self._advise(f"Not yet: {first.key}: {first.what}. {first.action}".strip(), bad=True)
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
            self._advise("Amber lines need a reason, which is kept with the session.", bad=True)

    async def _leave_look(self) -> None:
        """Let the band go: recording opens it anew."""
        if self._leaving is not None:
            self._leaving.set()
        for worker in self.workers:
            if worker.group == "collect" and worker.name == "preflight":
                await worker.wait()

    async def _record_new(self, reasons: Sequence[str]) -> None:
        from embridge_edge.collect.setup import Journal

        assert self._setup is not None
        effort = [line for line in self._preflight.lines() if line.key == "MVC"] if self._preflight else []
        measured = [f"preflight MVC: {line.what}" for line in effort if line.level == "green"]
        await self._leave_look()
        self._begin_run(Journal(setup=self._setup), [*reasons, *measured])

    # the session

    def _begin_run(self, journal: Journal, reasons: Sequence[str]) -> None:
        from embridge_tui.collecting.run import RunView

        self._setup, self._report, self._sealed, self._ring = journal.setup, None, False, None
        self._go(Stage.RUN)
        view = self.query_one(RunView)
        view.open()
        view.query_one(Scope).show(None)
        self._advise(f"{journal.setup.name}: the band is connected …")
        self.run_worker(self._record(journal, reasons), name="record", group="collect", exclusive=True)

    async def _record(self, journal: Journal, reasons: Sequence[str]) -> None:
        assert self._station is not None
        try:
            self._report = await self._station.record(journal, reasons=reasons)
        except EmbridgeError as error:
            self._close_lost()
            self._to_form()
            self._fail(error)
            await self._look_for_interrupted()
            self._fail(error)
            return
        self._close_lost()
        self._to_review()
        while self.is_mounted and not self._sealed:
            self._sealed = await self._station.sealed(journal.setup.name)
            self._show_report()
            await asyncio.sleep(0.5)

    def _seen(self, ordinal: int, packet: Packet) -> None:
        """A packet was recorded, or looked at."""
        leader = self._leader
        if leader is not None:
            if self._ring is None:
                from embridge_tui.collecting.run import RunView

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
        from embridge_edge.collect.conductor import Entered, Noted, State
        from embridge_tui.collecting.run import RunView

        leader = self._leader
        if leader is None or not self.is_mounted:
            return
        self.query_one(RunView).hear(steps, leader)
        for step in steps:
            if isinstance(step, Entered):
                self._entered(step.state, leader)
            elif isinstance(step, Noted) and leader.conductor.state is not State.LOST:
                self._advise(step.text)

    def _entered(self, state: object, leader: Leader) -> None:
        from embridge_edge.collect.conductor import State

        if state not in (State.COUNTDOWN, State.DONE):
            self.app.bell()
        if state is not State.LOST:
            self._close_lost()
        if state is State.REVIEW and leader.conductor.state is State.REVIEW:
            self._to_review()
        elif state is State.PAUSED and self.stage is Stage.REVIEW:
            self._go(Stage.RUN)
            self.query_one("#scope").focus()
        if state is State.READY:
            self._advise("It is recorded. [space] begins when the participant is ready.")
        elif state is State.PAUSED:
            why = leader.conductor.why
            self._advise(f"Paused{': ' + why if why else ''}. [space] goes on.")
        elif state is State.HOLD:
            self._advise("")

    def _display(self) -> None:
        """Show the session, ten times a second while it is seen."""
        from embridge_tui.collecting.review import ReviewView
        from embridge_tui.collecting.run import RunView

        if self.app.screen is not self and self.app.screen is not self._lost:
            return
        station, leader = self._station, self._leader
        if station is None or leader is None:
            return
        if leader.conductor.state == "lost" and self.app.screen is self:
            self._open_lost(leader)
        vitals = station.vitals()
        if self._ring is not None:
            for quality in vitals.quality:
                if quality.stream == leader.spec.name:
                    self._ring.judged(quality)
        if self.stage is Stage.RUN:
            self.query_one(RunView).show(leader, vitals)
        elif self.stage is Stage.REVIEW and self._report is None:
            self.query_one(ReviewView).review(leader)

    def _act(self, action: Callable[[Conductor, float], list[Step]]) -> None:
        leader = self._leader
        if leader is not None:
            self.run_worker(self._acted(leader, action), name="key", group="keys")

    async def _acted(self, leader: Leader, action: Callable[[Conductor, float], list[Step]]) -> None:
        try:
            refused = await leader.act(action)
        except EmbridgeError as error:
            self._fail(error)
            return
        if refused:
            self._advise(f"Not now: {refused}.")

    def action_start_pause(self) -> None:
        """Begin, pause, go on."""
        from embridge_edge.collect.conductor import RUNNING, Conductor

        leader = self._leader
        if leader is not None:
            running = leader.conductor.state in RUNNING
            self._act(Conductor.pause if running else Conductor.start)

    def action_accept(self) -> None:
        """Take the last repetition."""
        from embridge_edge.collect.conductor import Conductor, State

        leader = self._leader
        if leader is not None and leader.conductor.state is State.READY:
            self._act(Conductor.start)
        else:
            self._act(Conductor.accept)

    def action_redo(self) -> None:
        """Do it again."""
        from embridge_edge.collect.conductor import Conductor

        self._act(Conductor.redo)

    def action_skip(self) -> None:
        """Leave it out."""
        from embridge_edge.collect.conductor import Conductor

        self._act(Conductor.skip)

    def action_mark(self) -> None:
        """Put a marker."""
        from embridge_edge.collect.conductor import Conductor

        self._act(Conductor.mark)

    def action_again(self) -> None:
        """Ask again for what was left out."""
        from embridge_edge.collect.conductor import Conductor

        self._act(Conductor.again)

    def action_note(self) -> None:
        """Write a note; it belongs to the moment the key was pressed."""
        leader = self._leader
        if leader is None:
            return
        at_s = leader.now_s

        def written(words: str | None) -> None:
            if words:
                self._act(lambda conductor, _: conductor.mark(at_s, f"note: {words}"))

        self.app.push_screen(TextDialog("note"), written)

    def action_detail(self) -> None:
        """What is wrong with each channel."""
        vitals = None if self._station is None else self._station.vitals()
        told = [line for q in vitals.quality for line in q.told] if vitals is not None else []
        self.app.push_screen(ConfirmDialog("quality", "\n".join(told) or "Every channel that was judged is good."))

    def action_end(self) -> None:
        """Stop prompting; asks first."""
        leader = self._leader
        if leader is None:
            return
        left = leader.conductor.left
        words = f"{left} of {len(leader.conductor.trials)} are not done.\nWhat was recorded stays; the review follows."
        self.app.push_screen(ConfirmDialog("end the session?", words), self._end)

    def _end(self, yes: bool | None) -> None:
        from embridge_edge.collect.conductor import Conductor

        if yes:
            self._act(Conductor.end)

    # a lost band

    def _open_lost(self, leader: Leader) -> None:
        from embridge_edge.collect.conductor import Conductor

        if self._lost is not None:
            return
        self._lost = LostDialog(partial(self._lost_words, leader), leader.retry, lambda: self._act(Conductor.pause))
        self.app.push_screen(self._lost, self._lost_answer)

    def _lost_words(self, leader: Leader) -> str:
        assert self._station is not None
        vitals, trial = self._station.vitals(), leader.conductor.trial
        band, age_s = vitals.band, int(vitals.age_s or 0)
        name = leader.spec.device if band is None else " ".join(x for x in (band.kind, band.address) if x)
        again = "" if trial is None else f"{trial.gesture} {trial.repetition} comes again when it is back.\n"
        known_of = "" if band is None else ". ".join(x for x in (band.reason, band.action) if x)
        return f"{name}  {age_s // 60:02d}:{age_s % 60:02d}  ·  the file is kept\n{again}{known_of}"

    def _close_lost(self) -> None:
        lost, self._lost = self._lost, None
        if lost is not None and lost.is_attached and lost.is_current:
            lost.dismiss("")

    def _lost_answer(self, choice: str | None) -> None:
        from embridge_edge.collect.conductor import Conductor

        self._lost = None
        if choice in ("end", "another"):
            self._act(Conductor.end)
            if choice == "another":
                self._act(Conductor.end)

    # the review

    def _to_review(self) -> None:
        from embridge_tui.collecting.review import ReviewView

        if self.stage is not Stage.REVIEW:
            self._go(Stage.REVIEW)
            self.query_one(ReviewView).open()
        self._advise("" if self._report is not None else "Look through it, then [enter].")
        self._show_report()

    def _show_report(self) -> None:
        from embridge_tui.collecting.review import ReviewView

        if self._report is not None and self._station is not None and self.stage is Stage.REVIEW:
            self.query_one(ReviewView).report(self._report, self._station.vitals(), sealed=self._sealed)

    def action_conclude(self) -> None:
        """End the session, or go on to the next one."""
        from embridge_edge.collect.conductor import Conductor
        from embridge_tui.collecting.form import SetupForm

        if self._report is None:
            self._act(Conductor.end)
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
            self._advise("[enter] ends the session first.")
        else:
            self._to_form()
