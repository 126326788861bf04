"""The session as it is recorded: the word, what is asked for, the signal, and whether all of it is alive."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import ClassVar, Final

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Static

from embridge_edge.collect.conductor import Conductor
from embridge_edge.collect.leader import Leader
from embridge_edge.collect.protocol import Kind
from embridge_edge.collect.station import Vitals
from embridge_edge.collect.steps import Outcome, State, Step
from embridge_edge.collect.telling import hint_of, lines, title_of, word_of
from embridge_edge.uplink import LinkState
from embridge_shared.disk import DiskLevel
from embridge_shared.gestures import vocabulary
from embridge_shared.session import Side
from embridge_tui import text
from embridge_tui.trace import Glyphs
from embridge_tui.widgets.bigword import BigWord
from embridge_tui.widgets.hand import HandView
from embridge_tui.widgets.scope import Scope

_LOG: Final = 200
_STALE_S, _LOST_S = 1.0, 3.0
_COLOURS: Final = {
    State.HOLD: "-act",
    State.LOST: "-bad",
    State.PAUSED: "-wait",
    State.READY: "-wait",
    State.REVIEW: "-wait",
}


class RunView(Vertical):
    """Shows a session that is recorded.

    Args:
        glyphs: What scope and hand are drawn with.
        id: Of the widget.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "screen.start_pause", "Start/Pause", id="collect.start", tooltip="Begin, pause, go on."),
        Binding("enter", "screen.accept", "Accept", id="collect.accept", tooltip="Take the last repetition as it is."),
        Binding(
            "backspace,r", "screen.redo", "Redo", id="collect.redo", tooltip="Do it again; the bad one stays, rejected."
        ),
        Binding("s", "screen.skip", "Skip", id="collect.skip", tooltip="Leave this one out."),
        Binding("m", "screen.mark", "Marker", id="collect.mark", tooltip="Put a marker at this moment."),
        Binding("n", "screen.note", "Note", id="collect.note", tooltip="Write a note at this moment."),
        Binding("q", "screen.detail", "Quality", id="collect.detail", tooltip="What is wrong with each channel."),
        Binding("ctrl+e", "screen.end", "End", id="collect.end", tooltip="Stop prompting; asks first."),
    ]

    def __init__(self, glyphs: Glyphs, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._glyphs = glyphs
        self._log: deque[str] = deque(maxlen=_LOG)
        self._drawn = ""
        self._said: dict[str, str] = {}

    def compose(self) -> ComposeResult:
        """The signal beside the prompt; what was last below."""
        with Horizontal(id="run"):
            yield Scope(glyphs=self._glyphs, id="scope")
            with Vertical(id="panel"):
                yield BigWord(id="word")
                yield Static("", id="what", markup=False)
                yield Static("", id="hint", markup=False)
                yield Static("", id="bar", markup=False)
                yield Static("", id="dots", markup=False)
                yield HandView(id="target")
                yield Static("", id="who", markup=False)
                yield Static("", id="alive", markup=False)
                yield Static("", id="live", markup=False)
                yield Static("", id="log", markup=False)
        yield Static("", id="last", markup=False)

    def open(self) -> None:
        """A session begins."""
        self._log.clear()
        self._drawn = ""
        for part in ("what", "hint", "bar", "dots", "who", "alive", "live", "log", "last"):
            self._say(part, "")
        self.query_one(BigWord).say("CONNECT")
        self.query_one(Scope).focus()

    def hear(self, steps: Sequence[Step], leader: Leader) -> None:
        """Note what happened."""
        seconds = int(leader.now_s)
        stamp = f"{seconds // 60:02d}:{seconds % 60:02d}"
        for line in lines(steps, leader.conductor, leader.setup.protocol):
            if "up next" not in line:
                self._log.append(f"{stamp} {text.plain(line)}")

    def show(self, leader: Leader, vitals: Vitals) -> None:
        """Show where the session stands."""
        at = leader.conductor
        word = self.query_one(BigWord)
        word.say(word_of(at.state, at.trial))
        word.set_classes(_COLOURS.get(at.state, ""))
        self._prompt(leader, at)
        self._alive(leader, vitals)
        live = "  ".join(leader.live[:2]) or at.why
        self._say("live", text.plain(live))
        self.query_one("#live", Static).set_class(bool(leader.live) or at.state is State.LOST, "-bad")
        log = self.query_one("#log", Static)
        self._say("log", "\n".join(list(self._log)[-max(1, log.size.height) :]))
        self._say("last", _last(leader, at))

    def _say(self, part: str, words: str) -> None:
        """Show words; every part has its place, so nothing is laid out anew."""
        if self._said.get(part) != words:
            self._said[part] = words
            self.query_one(f"#{part}", Static).update(words, layout=False)

    def _prompt(self, leader: Leader, at: Conductor) -> None:
        trial = at.trial
        if trial is None:
            self._say("what", "everything was asked for")
            for part in ("hint", "bar", "dots"):
                self._say(part, "")
            return
        following = f"   then {title_of(at.following)}" if at.following is not None else ""
        self._say("what", text.plain(f"{title_of(trial).upper()}{following}"))
        self._say("hint", text.plain(hint_of(trial, leader.setup.protocol)))
        width = max(8, self.query_one("#bar", Static).size.width - 14)
        left = at.remaining_s(leader.now_s)
        share = 1.0 - left / at.length_s if at.length_s else 0.0
        full = round(share * width)
        times = f"  {at.length_s - left:.1f} / {at.length_s:.1f} s" if at.length_s else ""
        self._say("bar", "━" * full + "╌" * (width - full) + times)
        self._say("dots", _dots(at))
        hand = self.query_one(HandView)
        shape = vocabulary().get(trial.gesture) if trial.kind is Kind.GESTURE else None
        if trial.gesture != self._drawn:
            self._drawn = trial.gesture
            if shape is not None:
                hand.show(shape.pose, leader.setup.placement.side)
        hand.set_class(shape is None, "-none")

    def _alive(self, leader: Leader, vitals: Vitals) -> None:
        setup, seconds = leader.setup, int(leader.now_s)
        side = "R" if setup.placement.side is Side.RIGHT else "L"
        who = f"{setup.participant}  {side}  placement {setup.donning}/{setup.protocol.placements}"
        clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        self._say("who", text.plain(f"{who}  {clock}"))
        age = vitals.age_s
        packet = "no packet yet" if age is None else f"packet {age * 1e3:.0f} ms" if age < 1 else f"packet {age:.1f} s"
        link = "●" if vitals.link is LinkState.ONLINE else "○"
        disk = "" if vitals.disk is DiskLevel.OK else f"  DISK {vitals.disk.value.upper()}"
        words = f"stored {text.size(vitals.stored_bytes)}  {packet}  queue {vitals.waiting} {link}{disk}"
        alive = self.query_one("#alive", Static)
        self._say("alive", words)
        full = vitals.disk is DiskLevel.FULL
        alive.set_class((age is not None and age > _STALE_S) or vitals.disk is DiskLevel.LOW, "-stale")
        alive.set_class((age is not None and age > _LOST_S) or full, "-bad")


def _dots(at: Conductor) -> str:
    """The repetitions of the gesture that is asked for."""
    trial = at.trial
    if trial is None or trial.kind is not Kind.GESTURE:
        return ""
    signs = []
    for i, each in enumerate(at.trials):
        if each.gesture != trial.gesture:
            continue
        outcome = at.outcomes.get(i)
        sign = "▶" if each is trial else "·"
        signs.append("✓" if outcome is Outcome.ACCEPTED else "–" if outcome is Outcome.SKIPPED else sign)
    n = len(signs)
    return f"rep {trial.repetition} / {n}   {' '.join(signs) if n <= 16 else ''.join(signs)}"


def _last(leader: Leader, at: Conductor) -> str:
    """The last repetition, and how far the session is."""
    p = at.pending or next(reversed(leader.history), None)
    words = "no repetition yet"
    if p is not None:
        found, trial = p.finding, at.trials[p.index]
        level = "" if found is None or found.level_db is None else f" {found.level_db:.0f} dB"
        rms = "" if found is None or found.rms_uv is None else f" {found.rms_uv:.0f} µV"
        gaps = "" if found is None else f" gaps {found.gaps}"
        if p.rejected:
            words = f"✕ {trial.gesture} {trial.repetition}: {p.rejected}" + (
                "   ⌫ comes again, ⏎ take it" if at.offers_redo else ""
            )
        elif found is None:
            words = f"… {trial.gesture} {trial.repetition}"
        else:
            words = f"✓ {trial.gesture} {trial.repetition}{level}{rms}{gaps}"
    done, n = len(at.trials) - at.left, len(at.trials)
    block = "" if at.trial is None else f"block {at.trial.block}/{at.trials[-1].block}  "
    share = f"{100 * done // n} %" if n else ""
    return text.plain(f"last {words}    {block}{done}/{n}  {share}  rejected {leader.rejected}")
