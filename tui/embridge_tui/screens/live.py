"""Live: what the hand does as a release decodes it, how soon, how well, and what it really was."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar, Final

from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widget import Widget
from textual.widgets import Input, Static

from embridge_shared.errors import EmbridgeError, Reason
from embridge_shared.gestures import REST_LABEL, vocabulary
from embridge_shared.hand import REST
from embridge_tui import text
from embridge_tui.living import UNKNOWN, Living, Scene, scene_of
from embridge_tui.screens.pick import PickDialog
from embridge_tui.screens.room import Room
from embridge_tui.trace import Glyphs
from embridge_tui.widgets.bigword import BigWord
from embridge_tui.widgets.hand import HandView
from embridge_tui.widgets.probabilities import Probabilities
from embridge_tui.widgets.scope import Scope

if TYPE_CHECKING:
    from embridge_edge.live_seat import Told

FRAME_S: Final = 0.1
_STALE_S: Final = 1.0
_LOST_S: Final = 3.0


class LiveScreen(Room):
    """Decodes a band, and records what it decodes.

    Args:
        make: A sitting of a participant's code, on this edge's band; None where there is no edge.
        missing: Why there is none, and how to get one.
        glyphs: Characters to draw with; those of the application by default.
    """

    ROOM = "live"
    CSS: ClassVar[str] = """
    LiveScreen #who { height: 3; }
    LiveScreen #participant { width: 1fr; border: round $primary-muted; border-title-color: $text-primary; height: 3; }
    LiveScreen #participant:focus { border: round $primary; }
    LiveScreen #stage { height: 1fr; }
    LiveScreen #scope { width: 3fr; }
    LiveScreen #decoded { width: 2fr; padding: 0 0 0 1; }
    LiveScreen #said { height: 5; margin: 0 0 1 0; }
    LiveScreen #said.-gesture { color: $text-success; }
    LiveScreen #said.-bad { color: $text-error; }
    LiveScreen #ticker { height: 7; padding: 0 1; border-top: solid $primary-muted; border-title-color: $text-primary; }
    LiveScreen.-broad #ticker { height: 9; }
    LiveScreen #shape { display: none; border: none; }
    LiveScreen.-broad #shape { display: block; height: 12; }
    LiveScreen #latency, LiveScreen #worth { height: 1; padding: 0 1; text-overflow: ellipsis; }
    LiveScreen #worth.-warn { color: $text-warning; }
    LiveScreen #worth.-bad { color: $text-error; }
    LiveScreen #advice { height: auto; padding: 0 1; text-style: bold; background: $panel; }
    LiveScreen #advice.-bad { color: $text-error; background: $error-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "freeze", "Freeze", id="live.freeze", tooltip="Hold what is shown; decoding goes on."),
        Binding("l", "label", "Label", id="live.label", tooltip="Say what the last movement was; kept in the session."),
        Binding("t", "threshold(1)", "Threshold", id="live.threshold", tooltip="More gestures, more false ones."),
        Binding(
            "T",
            "threshold(-1)",
            "Stricter",
            show=False,
            id="live.stricter",
            tooltip="Fewer false ones, fewer gestures.",
        ),
        Binding("a", "model('a')", "Model A", id="live.a", tooltip="Show the release that runs."),
        Binding("b", "model('b')", "Model B", id="live.b", tooltip="Show the one before, which decodes beside it."),
        Binding("ctrl+e", "end", "End", id="live.end", tooltip="End the session in good order."),
        Binding("escape", "who", "Who", show=False, id="live.who", tooltip="Name who wears the band."),
    ]

    def __init__(
        self, make: Callable[[str], Living] | None, missing: str = "", *, glyphs: Glyphs | None = None
    ) -> None:
        super().__init__()
        self._make = make
        self._missing = missing
        self._glyphs = glyphs
        self._living: Living | None = None
        self._which = "a"
        self._frozen = False
        self._scene: Scene | None = None
        self._shapes = vocabulary()

    @property
    def busy(self) -> str:
        """What would be cut off by leaving now; empty if nothing."""
        return "" if self._living is None else f"a session of {self._living.participant} is recorded and decoded"

    @property
    def scene(self) -> Scene | None:
        """What is shown of decoding; None before anything is."""
        return self._scene

    def furnish(self) -> Iterable[Widget]:
        """Who wears the band, the scope beside what it is decoded to, and below how well."""
        who = Input(placeholder="participant", id="participant", restrict=r"[A-Za-z0-9._-]*", max_length=64)
        who.border_title = "who"
        ticker = Static("", id="ticker", markup=False)
        ticker.border_title = "events"
        yield Horizontal(who, id="who")
        yield Horizontal(
            Scope(glyphs=self._glyphs, id="scope"),
            Vertical(
                BigWord(id="said"),
                Probabilities(id="bars"),
                HandView(glyphs=self._glyphs, id="shape"),
                ticker,
                id="decoded",
            ),
            id="stage",
        )
        yield Static("", id="latency", markup=False)
        yield Static("", id="worth", markup=False)
        yield Static("", id="advice", markup=False)

    def on_mount(self) -> None:
        """Say what to do first, and follow what is decoded."""
        self.set_interval(FRAME_S, self.follow, name="live")
        if self._make is None:
            self.query_one("#participant", Input).disabled = True
            self._advise(self._missing, bad=True)
            return
        self._advise("Type who wears the band; enter begins. What is decoded is recorded.")
        self.query_one("#participant", Input).focus()

    # the session

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Begin."""
        if self._living is not None:
            self._advise("First end this session: ctrl+e.", bad=True)
        elif event.value and self._make is not None:
            self.run_worker(self._run(event.value), name="live", group="live", exclusive=True)

    async def _run(self, participant: str) -> None:
        assert self._make is not None
        self._advise("The band is looked for…")
        try:
            living = await asyncio.to_thread(self._make, participant)
            self._seat(living)
            reason = await living.run()
        except EmbridgeError as error:
            self._seat(None)
            self._fail(error)
            return
        self._seat(None)
        ended = "Ended in good order" if reason == "complete" else f"Ended: {reason}"
        self._advise(f"{ended}. The session is kept, with every label. Enter begins another.", bad=reason != "complete")

    def _seat(self, living: Living | None) -> None:
        """Give the room to a session, or back to who names the next wearer."""
        self._living, self._which, self._frozen = living, "a", False
        self.query_one("#who").display = living is None
        if living is not None:
            self._scene = None
            self.query_one(Scope).show(living.ring)
        (self.query_one("#participant", Input) if living is None else self.query_one(Scope)).focus()

    def action_end(self) -> None:
        """End in good order."""
        if self._living is None:
            self._advise("Nothing is decoded. Type who wears the band; enter begins.")
        else:
            self._advise("Ending…")
            self._living.stop()

    def action_who(self) -> None:
        """Name who wears the band."""
        if self._living is None:
            self.query_one("#participant", Input).focus()

    # what is shown

    def action_freeze(self) -> None:
        """Hold the picture, the bars and the events; or go on."""
        scope = self.query_one(Scope)
        scope.action_freeze()
        self._frozen = scope.frozen
        self._advise("Frozen; decoding and recording go on. space goes on." if self._frozen else "")

    def follow(self) -> None:
        """Show what is decoded now, unless nobody would see it."""
        living = self._living
        if living is None or self._frozen or self.app.screen is not self or not self.furnished:
            return
        scene = scene_of(living, self._which)
        if scene is None:
            return
        begins = self._scene is None
        self._scene = scene
        if begins:
            self._advise("")
        self._say(scene)
        self.query_one(Probabilities).show(scene.likelihoods)
        shape = self._shapes.get(scene.said)
        self.query_one(HandView).show(REST if shape is None else shape.pose)
        ticker = self.query_one("#ticker", Static)
        rows = max(0, ticker.size.height)
        ticker.update("\n".join(_line(told) for told in scene.lines[-rows:][::-1]) if rows else "")
        ticker.border_title = f"events of {scene.release}"
        self.query_one("#latency", Static).update(scene.latency)
        worth = self.query_one("#worth", Static)
        worth.update(scene.worth)
        worth.set_class(_STALE_S < scene.age_s <= _LOST_S, "-warn")
        worth.set_class(scene.age_s > _LOST_S, "-bad")

    def _say(self, scene: Scene) -> None:
        said = self.query_one("#said", BigWord)
        lost = scene.age_s > _LOST_S
        word = "LOST" if lost else scene.said.replace("_", " ").upper()
        if lost and said.word != word:
            self.app.bell()
        said.say(word)
        said.set_class(lost, "-bad")
        said.set_class(not lost and scene.said not in (REST_LABEL, UNKNOWN, ""), "-gesture")

    # what is said of it

    def action_label(self) -> None:
        """Say what the last movement was."""
        living = self._living
        if living is None or self._scene is None:
            self._advise("Nothing is decoded yet, so there is nothing to label.", bad=True)
            return
        t_ns = living.now_ns

        def chosen(gesture: str | None) -> None:
            if gesture is not None:
                self.run_worker(self._label(living, gesture, t_ns), name="label", group="label")

        asked = "what was the last movement, when l was pressed?"
        self.app.push_screen(PickDialog(asked, (*self._scene.likelihoods.labels, REST_LABEL)), chosen)

    async def _label(self, living: Living, gesture: str, t_ns: int) -> None:
        try:
            words = await living.label(gesture, t_ns)
        except EmbridgeError as error:
            self._fail(error)
            return
        self._advise(words)

    async def action_threshold(self, by: int) -> None:
        """Take the next operating point of the release."""
        if self._living is None:
            self._advise("Nothing is decoded, so there is no threshold to change.", bad=True)
            return
        try:
            target = await self._living.retune(by)
        except EmbridgeError as error:
            self._fail(error)
            return
        self._advise(
            f"Thresholds for {target:g} false activations an hour until this session ends; "
            f"edge.false_per_hour = {target:g} keeps it."
        )

    async def action_model(self, which: str) -> None:
        """Show one of the two releases this edge holds."""
        living = self._living
        if living is None:
            self._advise("Nothing is decoded, so there is nothing to compare.", bad=True)
            return
        if which == "b":
            self._advise("The release before is loaded…")
            try:
                await living.compare()
            except EmbridgeError as error:
                self._fail(error)
                return
        self._which = which
        scene = scene_of(living, which)
        self._advise("" if scene is None else f"{which.upper()}: {scene.release}. {scene.beside}".strip())

    def _fail(self, error: EmbridgeError) -> None:
        calibrate = error.reason is Reason.NOT_FOUND and "calibrat" in error.message
        self._advise(f"{error}{' The room Enrol calibrates: c there.' if calibrate else ''}", bad=True)

    def _advise(self, words: str, *, bad: bool = False) -> None:
        """What to do next, in the last line."""
        advice = self.query_one("#advice", Static)
        advice.update(f"{'✕ ' if bad else ''}{text.plain(words)}")
        advice.set_class(bad, "-bad")


def _line(told: Told) -> str:
    mark = {True: "✓ ", False: "✕ ", None: ""}[told.good]
    moment = datetime.fromtimestamp(told.t_ns * 1e-9, UTC).astimezone()
    return f"{moment:%H:%M:%S}.{told.t_ns // 1_000_000 % 1000:03d} {mark}{text.plain(told.text)}"
