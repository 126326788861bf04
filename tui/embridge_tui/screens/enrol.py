"""Enrol: a wearer's own gesture, from its name to a model that decodes it, with a reason for every repetition."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Final

from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.suggester import SuggestFromList
from textual.widget import Widget
from textual.widgets import Input, Static

from embridge_shared.errors import EmbridgeError, Reason
from embridge_tui import text
from embridge_tui.screens.room import Room
from embridge_tui.trace import Glyphs
from embridge_tui.widgets.bigword import BigWord
from embridge_tui.widgets.hand import HandView
from embridge_tui.widgets.records import Column, Records

if TYPE_CHECKING:
    from embridge_edge.courier import Courier
    from embridge_edge.enrol.bench import Bench, Sitting
    from embridge_edge.enrol.capture import Capture
    from embridge_edge.enrol.events import EnrolEvent
    from embridge_shared.enrolment import GestureNote
    from embridge_tui.enrolling import Standing

REPETITIONS: Final = 5
HELD = (Column("gesture", 10, grows=True), Column("reps", 4, right=True), Column("shape by", 9, grows=True))
_BAR: Final = 24


class Kind(StrEnum):
    """What a sitting is for."""

    ENROL = "enrol"
    CALIBRATE = "calibrate"
    TEST = "test"


@dataclass(slots=True)
class _Work:
    """A sitting of this screen.

    Attributes:
        kind: What for.
        bench: The wearer.
        note: What makes the gesture a new one.
        stop: Ends it in good order.
        capture: What came of it; None while it goes on.
    """

    kind: Kind
    bench: Bench
    note: GestureNote | None
    stop: asyncio.Event
    capture: Capture | None = None


class EnrolScreen(Room):
    """Leads a wearer through repetitions of a gesture, a calibration or a test round.

    Args:
        make_bench: The wearer of a participant's code, on this edge's band; None where there is no edge.
        missing: Why there is none, and how to get one.
        courier: The spool of the agent in this process; None where none runs.
        glyphs: Characters to draw with.
    """

    ROOM = "enrol"
    CSS: ClassVar[str] = """
    EnrolScreen #asked { height: 3; }
    EnrolScreen #asked Input { border: round $primary-muted; border-title-color: $text-primary; height: 3; }
    EnrolScreen #asked Input:focus { border: round $primary; }
    EnrolScreen #participant { width: 24; }
    EnrolScreen #gesture { width: 1fr; }
    EnrolScreen #repetitions { width: 12; }
    EnrolScreen #enrol { height: 1fr; }
    EnrolScreen #sitting { width: 3fr; }
    EnrolScreen #wearer { width: 2fr; }
    EnrolScreen #word.-act { color: $text-success; }
    EnrolScreen #word.-bad { color: $text-error; }
    EnrolScreen #prompt, EnrolScreen #meter, EnrolScreen #hint, EnrolScreen #advice { height: auto; padding: 0 1; }
    EnrolScreen #prompt { text-align: center; text-style: bold; }
    EnrolScreen #meter { text-align: center; min-height: 2; }
    EnrolScreen #said {
        height: 1fr; padding: 0 1; border-top: solid $primary-muted; border-title-color: $text-primary;
    }
    EnrolScreen #target { height: 1fr; min-height: 4; }
    EnrolScreen #held { height: 1fr; }
    EnrolScreen #advice { text-style: bold; background: $panel; }
    EnrolScreen #advice.-bad { color: $text-error; background: $error-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "capture", "Capture", id="enroll.capture", tooltip="Begin, or stop in good order."),
        Binding("w", "write", "Write", id="enroll.write", tooltip="Keep what was taken; it decodes from then on."),
        Binding("u", "undo", "Undo", id="enroll.undo", tooltip="Take back the last change of this wearer's gestures."),
        Binding("t", "test", "Test", id="enroll.test", tooltip="Ask for gestures in random order; nothing is kept."),
        Binding("c", "calibrate", "Calibrate", id="enroll.calibrate", tooltip="Known gestures, about a minute."),
        Binding("n", "new", "New", id="enroll.new", tooltip="Name another gesture."),
        Binding(
            "escape", "cancel", "Cancel", id="enroll.cancel", tooltip="Stop and keep nothing; the recording stays."
        ),
    ]

    def __init__(
        self,
        make_bench: Callable[[str], Bench] | None,
        missing: str = "",
        *,
        courier: Callable[[], Courier | None] = lambda: None,
        glyphs: Glyphs = Glyphs.BRAILLE,
    ) -> None:
        super().__init__()
        self._make_bench = make_bench
        self._missing = missing
        self._courier = courier
        self._glyphs = glyphs
        self._bench: Bench | None = None
        self._work: _Work | None = None
        self._standing: Standing | None = None

    @property
    def busy(self) -> str:
        """What would be lost by leaving now; empty if nothing."""
        work = self._work
        if work is None:
            return ""
        if work.capture is None:
            return f"{work.bench.participant} is being led through a sitting"
        return "repetitions were taken and not written yet" if work.kind is not Kind.TEST else ""

    def furnish(self) -> Iterable[Widget]:
        """Who and what above, the prompt and what was said on the left, hand and gestures on the right."""
        who = Input(placeholder="participant", id="participant", restrict=r"[A-Za-z0-9._-]*", max_length=64)
        gesture = Input(placeholder="gesture: known, or a new name", id="gesture", max_length=64)
        count = Input(str(REPETITIONS), id="repetitions", type="integer", max_length=2)
        who.border_title, gesture.border_title, count.border_title = "who", "what", "times"
        held = Records(HELD, id="held")
        held.border_title = "gestures of this wearer"
        said = Static("", id="said", markup=False)
        said.border_title = "repetitions"
        yield Horizontal(who, gesture, count, id="asked")
        yield Horizontal(
            Vertical(
                BigWord(id="word"),
                Static("", id="prompt", markup=False),
                Static("", id="meter", markup=False),
                said,
                id="sitting",
            ),
            Vertical(HandView(id="target"), Static("", id="hint", markup=False), held, id="wearer"),
            id="enrol",
        )
        yield Static("", id="advice", markup=False)

    def on_mount(self) -> None:
        """Say what to do first."""
        if self._make_bench is None:
            for field in self.query(Input):
                field.disabled = True
            self._advise(self._missing, bad=True)
            return
        self._advise("Type who wears the band, enter; then the gesture, enter; then space begins.")
        self.query_one("#participant", Input).focus()

    # who and what

    async def on_input_submitted(self, event: Input.Submitted) -> None:
        """Go on to the next field; the last one hands the keys to the sitting."""
        if event.input.id == "participant":
            if await self._know(event.value):
                self.query_one("#gesture", Input).focus()
        elif event.input.id == "gesture":
            self._picture(event.value)
            self.query_one("#repetitions", Input).focus()
        else:
            self.query_one("#held", Records).focus()
            self._advise("space begins. Rest the arm first; the screen says when to make the gesture.")

    async def _know(self, participant: str) -> bool:
        """Fetch what is known of a wearer."""
        if self._make_bench is None or not participant:
            return False
        try:
            self._bench = await asyncio.to_thread(self._make_bench, participant)
        except EmbridgeError as error:
            self._fail(error)
            return False
        self._list()
        known = sorted({*self._bench.titled, *self._bench.desk.store.held().labels})
        self.query_one("#gesture", Input).suggester = SuggestFromList(known)
        self._advise(f"{participant} under {self._bench.desk.release.name}. Which gesture?")
        return True

    def _list(self) -> None:
        assert self._bench is not None
        held = self._bench.desk.store.held()
        rows = []
        for label in held.labels:
            own = held.gestures.get(label)
            by = "known" if own is None else own.source or "repetitions"
            rows.append((label, (text.plain(label), str(len(held.of(label))), text.plain(by))))
        table = self.query_one("#held", Records)
        table.fill(rows)
        table.border_title = f"gestures of {self._bench.participant}: {len(rows) or 'none yet'}"

    def _picture(self, label: str) -> None:
        """Show the hand of a gesture that has a shape."""
        shape = None if self._bench is None else self._bench.titled.get(label)
        hand = self.query_one("#target", HandView)
        hand.display = shape is not None
        if shape is not None:
            hand.show(shape.pose)
        words = shape.hint if shape is not None else "A new gesture: it is learnt from its repetitions alone."
        self.query_one("#hint", Static).update(words if label else "")

    # sittings

    def action_capture(self) -> None:
        """Begin, or stop in good order."""
        if self._work is not None and self._work.capture is None:
            self._work.stop.set()
        elif self._settled():
            self._begin(Kind.ENROL)

    def action_test(self) -> None:
        """Begin a test round."""
        if self._settled():
            self._begin(Kind.TEST)

    def action_calibrate(self) -> None:
        """Begin a calibration."""
        if self._settled():
            self._begin(Kind.CALIBRATE)

    def action_new(self) -> None:
        """Name another gesture."""
        if self._settled():
            self.query_one("#gesture", Input).value = ""
            self.query_one("#gesture", Input).focus()

    def _settled(self) -> bool:
        """Nothing is under way and nothing waits to be written."""
        if self._work is None:
            return True
        self._advise("First w writes what was taken, or esc throws it away." if self._work.capture else "space stops.")
        return False

    def _begin(self, kind: Kind) -> None:
        label = self.query_one("#gesture", Input).value.strip()
        if self._make_bench is None:
            self._advise(self._missing, bad=True)
        elif self._bench is None:
            self._advise("First say who wears the band.", bad=True)
            self.query_one("#participant", Input).focus()
        elif kind is Kind.ENROL and not label:
            self._advise("First name the gesture.", bad=True)
            self.query_one("#gesture", Input).focus()
        else:
            self._work = _Work(kind, self._bench, None, asyncio.Event())
            self.run_worker(self._sit(self._work, label), name="sitting", group="sitting", exclusive=True)

    async def _sit(self, work: _Work, label: str) -> None:
        """Lead through a sitting, from what is typed to what was taken."""
        from embridge_tui.enrolling import Standing

        self._advise("The band is looked for…")
        try:
            sitting = await asyncio.to_thread(self._prepare, work, label)
            self._standing = Standing(wanted=len(sitting.script))
            self._show_standing()
            self._advise("space stops.")
            capture = await work.bench.lead(sitting, self._tell, stop=work.stop, courier=self._courier())
        except EmbridgeError as error:
            self._work = None
            self._fail(error)
            return
        work.capture = capture
        self._concluded(work, len(capture.taken), len(sitting.script))

    def _prepare(self, work: _Work, label: str) -> Sitting:
        bench = work.bench
        if work.kind is Kind.CALIBRATE:
            return bench.calibrate()
        if work.kind is Kind.TEST:
            held = bench.desk.store.held().labels
            return bench.test([label] if label in held else [])
        work.note = bench.note(label)
        repetitions = int(self.query_one("#repetitions", Input).value or REPETITIONS)
        return bench.enrol(label, max(1, repetitions), note=work.note)

    def _tell(self, events: Sequence[EnrolEvent]) -> None:
        """Show what the engine says; called in the loop's thread."""
        assert self._standing is not None
        word = self._standing.word
        self._standing = self._standing.after(events)
        if self._standing.word != word:
            self.app.bell()
        if self.is_mounted:
            self._show_standing()

    def _concluded(self, work: _Work, taken: int, wanted: int) -> None:
        standing = self._standing
        assert standing is not None
        if work.kind is Kind.TEST:
            self._work = None
            done = standing.taken + standing.refused
            self._advise(f"{standing.taken} of {done} right. t tests again, n names another gesture.")
        elif not taken:
            self._work = None
            why = "" if standing.stopped is None else f" {standing.stopped.detail} {standing.stopped.advice}"
            self._advise(f"Nothing was taken, so nothing is kept.{why}", bad=True)
        else:
            self._advise(f"{taken} of {wanted} taken. w writes them, esc throws them away.")

    async def action_write(self) -> None:
        """Keep what was taken."""
        work = self._work
        if work is None or work.capture is None:
            self._advise("There is nothing to write: space begins.")
            return
        self._advise("Writing…")
        try:
            if work.kind is Kind.CALIBRATE:
                _, found = await asyncio.to_thread(work.bench.desk.calibrate, work.capture)
                words = f"Calibrated on {found.duration_s:.0f} s of signal. Now name a gesture."
            else:
                weighed = await asyncio.to_thread(work.bench.keep, work.capture, work.note)
                self._tell(weighed)
                words = "Kept. t tests it, u takes it back, n names another."
            await work.bench.deliver(self._courier())
        except EmbridgeError as error:
            self._fail(error)
            return
        self._work = None
        self._list()
        self._advise(words)

    async def action_undo(self) -> None:
        """Take back the last change."""
        if self._bench is None or not self._settled():
            return
        try:
            entry = await asyncio.to_thread(self._bench.desk.store.undo)
            await self._bench.deliver(self._courier())
        except EmbridgeError as error:
            self._fail(error)
            return
        self._list()
        left = ", ".join(self._bench.desk.store.held().labels) or "nothing"
        self._advise(f"{entry.verb.value}: {self._bench.participant} has {text.plain(left)}.")

    def action_cancel(self) -> None:
        """Stop, or throw away what was taken."""
        work = self._work
        if work is None:
            self.query_one("#held", Records).focus()
            return
        if work.capture is None:
            work.stop.set()
            return
        self._work = None
        self._advise("Nothing was kept. The recording stays, with every repetition and its reason.")

    # what is shown

    def _show_standing(self) -> None:
        s = self._standing
        assert s is not None
        word = self.query_one("#word", BigWord)
        word.say(s.word)
        word.set_class(s.word in ("MAKE IT", "HOLD"), "-act")
        word.set_class(s.word == "STOPPED", "-bad")
        self._picture(s.gesture)
        self.query_one("#prompt", Static).update(f"{text.plain(s.gesture)}  {s.number} of {s.of}    {s.dots}")
        meters = ""
        if s.stopped is None and s.phase is not None:
            left = s.remaining_s / s.lasts_s if s.lasts_s else 0.0
            time = f"{text.bar(left, _BAR)} {s.remaining_s:4.1f} s" if s.lasts_s else ""
            meters = f"effort {text.bar(s.level, _BAR)} {s.level:4.2f}  \n  time {time}"
        self.query_one("#meter", Static).update(meters)
        room = max(1, self.query_one("#said", Static).size.height)
        lines = [f"{said.mark} {text.plain(said.text)}" for said in s.log[-room:]]
        self.query_one("#said", Static).update("\n".join(lines))

    def _fail(self, error: EmbridgeError) -> None:
        calibrate = error.reason is Reason.NOT_FOUND and "calibrat" in error.message
        self._advise(f"{error}{' c calibrates now.' if calibrate else ''}", bad=True)

    def _advise(self, words: str, *, bad: bool = False) -> None:
        """What to do next, in the last line."""
        advice = self.query_one("#advice", Static)
        advice.update(f"{'✕ ' if bad else ''}{text.plain(words)}")
        advice.set_class(bad, "-bad")
