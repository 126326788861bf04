"""After the prompts: what counts and what does not, and whether the cloud holds it."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar, Final

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static

from embridge_edge.collect.leader import Leader
from embridge_edge.collect.report import Collected
from embridge_edge.collect.station import Vitals
from embridge_edge.collect.steps import Attempt, Outcome, State
from embridge_edge.collect.telling import WORDS
from embridge_edge.uplink import LinkState
from embridge_tui import text
from embridge_tui.widgets.bigword import BigWord
from embridge_tui.widgets.records import Column, Records

_COLUMNS: Final = (
    Column("gesture", 14, grows=True),
    Column("accepted", 8, right=True),
    Column("rejected", 8, right=True),
    Column("left out", 8, right=True),
    Column("why", 20, grows=True),
)


class ReviewView(Vertical, can_focus=True):
    """Shows what became of a session."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "screen.conclude", "Done", id="collect.conclude", tooltip="End the session; then the next."),
        Binding("a", "screen.again", "Left out", id="collect.again", tooltip="Ask again for what was left out."),
        Binding("backspace,r", "screen.redo", "Redo last", id="collect.redo_last", tooltip="Do the last one again."),
        Binding("n", "screen.note", "Note", id="collect.review_note", tooltip="Write a note."),
        Binding("escape", "screen.leave", "Setup", id="collect.leave", tooltip="To the form; delivery goes on."),
    ]

    def compose(self) -> ComposeResult:
        """Word, table, figures."""
        yield BigWord(id="review-word")
        table = Records(_COLUMNS, id="tally")
        table.can_focus = False
        yield table
        yield Static("", id="figures", markup=False)
        yield Static("", id="sync", markup=False)

    def open(self) -> None:
        """The review begins."""
        for part in ("figures", "sync"):
            self.query_one(f"#{part}", Static).update("")
        self.query_one(Records).fill(())
        self.focus()

    def review(self, leader: Leader) -> None:
        """Show what a session came to before it ends."""
        at = leader.conductor
        self.query_one(BigWord).say(WORDS[State.REVIEW])
        p = at.pending
        attempts = [*leader.history, *([] if p is None else [p])]
        rows = []
        for gesture in leader.setup.protocol.gestures:
            mine = [i for i, t in enumerate(at.trials) if t.gesture == gesture]
            outcomes = Counter(at.outcomes.get(i) for i in mine)
            rejected = [a for a in attempts if a.rejected and at.trials[a.index].gesture == gesture]
            cells = (
                gesture,
                str(outcomes[Outcome.ACCEPTED]),
                str(len(rejected)),
                str(outcomes[Outcome.SKIPPED]),
                _why(rejected),
            )
            rows.append((gesture, cells))
        self.query_one(Records).fill(rows)
        out = sum(o is Outcome.SKIPPED for o in at.outcomes.values())
        words = f"{out} left out: [a] asks for them again. " if out else "Everything was done. "
        self.query_one("#figures", Static).update(f"{words}[enter] ends the session and sends the rest of it.")

    def report(self, report: Collected, vitals: Vitals, *, sealed: bool) -> None:
        """Show what it came to, and whether the cloud holds it."""
        self.query_one(BigWord).say(WORDS[State.SYNCED if sealed else State.DONE])
        rows = [(t.gesture, (t.gesture, str(t.accepted), str(t.rejected), str(t.skipped), "")) for t in report.gestures]
        self.query_one(Records).fill(rows)
        self.query_one("#figures", Static).update("\n".join(map(text.plain, report.lines())))
        self.query_one("#sync", Static).update(_sync(vitals, sealed=sealed))


def _why(rejected: list[Attempt]) -> str:
    found = Counter(a.rejected.partition(":")[0] if not a.rejected.startswith("operator") else "redo" for a in rejected)
    return text.plain(", ".join(f"{why} {n}" if n > 1 else why for why, n in found.most_common()))


def _sync(vitals: Vitals, *, sealed: bool) -> str:
    if sealed:
        return "✓ the cloud holds all of it, verified and sealed.  [enter] next session"
    waits = f"{vitals.waiting} items, {text.size(vitals.waiting_bytes)} wait"
    if vitals.link is LinkState.ONLINE:
        return f"▶ sending: {waits}.  [enter] next session; it goes on meanwhile"
    return f"○ the cloud is away: {waits} here and are sent when it is back.  [enter] next session"
