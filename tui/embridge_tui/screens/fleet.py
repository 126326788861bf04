"""Fleet: releases on their way to edges, what every edge runs, and what an operator may do about it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar, Final

from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.widget import Widget
from textual.widgets import Static

from embridge_shared.errors import EmbridgeError
from embridge_shared.fleet import Rollout, RolloutState, UpdatePhase, UpdateState
from embridge_tui import text
from embridge_tui.client import CloudClient
from embridge_tui.model import Edge, Snapshot
from embridge_tui.screens.collect_dialogs import ConfirmDialog, TextDialog
from embridge_tui.screens.pick import PickDialog
from embridge_tui.screens.room import Room
from embridge_tui.view import View
from embridge_tui.widgets.records import Column, Records, Row

ROLLOUTS = (
    Column("rollout", 7),
    Column("release", 12, grows=True),
    Column("state", 12),
    Column("waves", 16, grows=True),
)
EDGES = (
    Column("edge", 9, grows=True),
    Column("state", 6),
    Column("runs", 11, grows=True),
    Column("wanted", 11, grows=True),
    Column("update", 14, grows=True),
    Column("backlog", 7, right=True),
)
STATES: Final = {
    RolloutState.WAITING: "▲ approve?",
    RolloutState.RUNNING: "▶ running",
    RolloutState.SOAKING: "▶ soaking",
    RolloutState.PAUSED: "▲ paused",
    RolloutState.ROLLING_BACK: "✕ returning",
    RolloutState.DONE: "✓ done",
    RolloutState.ABORTED: "✕ aborted",
}
_BAR: Final = 20
_OPEN: Final = frozenset(RolloutState) - {RolloutState.DONE, RolloutState.ABORTED}
_BAD: Final = frozenset({UpdatePhase.FAILED, UpdatePhase.REFUSED, UpdatePhase.ROLLED_BACK})
_NO_EDGE: Final = "No edge has connected yet. Start one: embridge edge run"
_NO_ROLLOUT: Final = "No rollout yet: n begins one. Training publishes what its gates accept; Models shows it."


class FleetScreen(Room):
    """Rollouts with their waves, and edges with what they run and what they were asked to.

    Args:
        client: The cloud.
    """

    ROOM = "fleet"
    OF_CLOUD = True
    CSS: ClassVar[str] = """
    #fleet { layout: vertical; height: 1fr; }
    #ways { height: 2fr; min-height: 6; }
    #rollouts { height: 1fr; }
    #waves { height: auto; max-height: 8; padding: 0 1; }
    #edges { height: 3fr; }
    #fleet-advice { height: auto; padding: 0 1; background: $panel; }
    #fleet-advice.-bad { color: $text-error; background: $error-muted; text-style: bold; }
    .-broad #ways { layout: horizontal; height: 12; }
    .-broad #rollouts { width: 1fr; height: 1fr; }
    .-broad #waves { width: 76; height: 1fr; max-height: 12; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "new", "New", id="rollout.new", tooltip="Roll a release out; says first what would happen."),
        Binding("p", "pause", "Pause", id="rollout.pause", tooltip="Ask no more edges, or go on."),
        Binding("g", "next", "Next wave", id="rollout.next", tooltip="Approve the wave that waits, or begin it now."),
        Binding("x", "abort", "Abort", id="rollout.abort", tooltip="Recall the release and return every edge."),
        Binding("h", "history", "History", id="rollout.history", tooltip="What happened, and who did it."),
        Binding("i", "pin", "Pin", id="edge.pin", tooltip="Let the chosen edge keep a release, or follow again."),
        Binding("c", "cohort", "Cohort", show=False, id="edge.cohort", tooltip="Put the chosen edge into a group."),
    ]

    def __init__(self, client: CloudClient) -> None:
        super().__init__()
        self._client = client
        self._snapshot: Snapshot | None = None
        self._wanted: dict[str, dict[str, Any]] = {}
        self._read_ns = -1

    def furnish(self) -> Iterable[Widget]:
        """Rollouts over edges."""
        rollouts, edges = Records(ROLLOUTS, id="rollouts"), Records(EDGES, id="edges")
        rollouts.border_title, edges.border_title = "rollouts", "edges"
        yield Container(
            Vertical(rollouts, Static("", id="waves", markup=False), id="ways"),
            edges,
            id="fleet",
        )
        yield Static("", id="fleet-advice", markup=False)

    def show(self, view: View, now_ns: int) -> None:
        """Show what the fleet runs."""
        if view.snapshot is None:
            return
        found = self._snapshot = view.snapshot
        rollouts, edges = self.query_one("#rollouts", Records), self.query_one("#edges", Records)
        rollouts.fill([_rollout(r) for r in reversed(found.rollouts)])
        rollouts.border_title = f"rollouts: {len(found.rollouts)}" if found.rollouts else _NO_ROLLOUT
        edges.fill([_edge(edge, self._wanted.get(edge.edge, {})) for edge in found.edges])
        online = sum(edge.online for edge in found.edges)
        edges.border_title = f"edges: {online} of {len(found.edges)} online" if found.edges else _NO_EDGE
        self._show_waves()
        if view.error is None and view.read_ns != self._read_ns:
            self._read_ns = view.read_ns
            self.run_worker(self._read(), name="shadows", group="shadows", exclusive=True)

    async def _read(self) -> None:
        """What was decided about each edge."""
        try:
            self._wanted = {row["edge"]: row for row in await self._client.ask("/api/fleet")}
        except EmbridgeError:
            return
        if self._snapshot is not None and self.furnished:
            edges = self.query_one("#edges", Records)
            edges.fill([_edge(edge, self._wanted.get(edge.edge, {})) for edge in self._snapshot.edges])

    def on_data_table_row_highlighted(self, _: Records.RowHighlighted) -> None:
        """Another rollout was chosen."""
        self._show_waves()

    @property
    def chosen(self) -> Rollout | None:
        """The rollout under the cursor."""
        key = self.query_one("#rollouts", Records).chosen
        rollouts = () if self._snapshot is None else self._snapshot.rollouts
        return next((r for r in rollouts if r.id == key), None)

    def _show_waves(self) -> None:
        rollout = self.chosen
        self.query_one("#waves", Static).update("" if rollout is None else waves(rollout))

    # what an operator does

    def action_new(self) -> None:
        """Choose a release to roll out."""
        releases = () if self._snapshot is None else self._snapshot.releases
        usable = [r.name for r in reversed(releases) if not r.recalled]
        if not usable:
            self._advise("There is no release to roll out; a training job publishes what passes its gates.", bad=True)
            return
        self.app.push_screen(PickDialog("roll out which release?", usable), self._propose)

    def _propose(self, release: str | None) -> None:
        if release is not None:
            self.propose(release)

    def propose(self, release: str) -> None:
        """Say what rolling a release out would do, and ask."""
        self.run_worker(self._dry(release), group="rollout")

    async def _dry(self, release: str) -> None:
        try:
            plan = await self._client.tell("/api/rollouts", {"release": release, "dry_run": True})
        except EmbridgeError as error:
            self._advise(str(error), bad=True)
            return
        shares = ", ".join(f"{w['name']} {w['edges']} edges" for w in plan["tally"])
        policy = plan["policy"]
        left = [f"{e['edge']}: {e['left']}" for e in plan["edges"] if e.get("left")]
        words = [
            f"{release} goes to {shares}.",
            f"A wave is over when {policy['success']:.0%} have committed and it has soaked; more than",
            f"{policy['max_errors']:.0%} errors: {policy['on_error'].replace('_', ' ')}.",
            *([f"{len(left)} take no part: {'; '.join(left[:3])}"] if left else []),
        ]
        self.app.push_screen(ConfirmDialog(f"roll {release} out?", "\n".join(words)), partial(self._start, release))

    def _start(self, release: str, yes: bool | None) -> None:
        if yes:
            self._do("/api/rollouts", {"release": release}, f"{release} is on its way.")

    def action_pause(self) -> None:
        """Pause the chosen rollout, or let it go on."""
        rollout = self._open()
        if rollout is None:
            return
        if rollout.state is RolloutState.PAUSED:
            self._do(f"/api/rollouts/{rollout.id}/resume", {}, f"{rollout.id} goes on.")
        else:
            self._why(f"why is {rollout.id} paused?", f"/api/rollouts/{rollout.id}/pause", f"{rollout.id} is paused.")

    def action_next(self) -> None:
        """Approve the wave that waits, or begin the next one now."""
        rollout = self._open()
        if rollout is None:
            return
        if rollout.state is RolloutState.WAITING:
            self._do(f"/api/rollouts/{rollout.id}/approve", {}, f"{rollout.id}: the next wave begins.")
            return
        words = "The rest of this wave, its soak time and its errors are not waited for."
        path, done = f"/api/rollouts/{rollout.id}/advance", f"{rollout.id}: the next wave begins."

        def advance(yes: bool | None) -> None:
            if yes:
                self._do(path, {}, done)

        self.app.push_screen(ConfirmDialog("begin the next wave now?", words), advance)

    def action_abort(self) -> None:
        """Abort the chosen rollout, after its id was typed."""
        rollout = self._open()
        if rollout is None:
            return
        words = (
            f"{rollout.release} is recalled: every edge that took it returns to what it ran before, and it is never "
            f"offered again. Type {rollout.id} and why, as in: {rollout.id} windows take too long"
        )

        def typed(answer: str | None) -> None:
            name, _, reason = (answer or "").partition(" ")
            if name != rollout.id or not reason.strip():
                self._advise(f"Nothing was done: that was not {rollout.id} and a reason.")
                return
            said = f"{rollout.id} is aborted; edges return."
            self._do(f"/api/rollouts/{rollout.id}/abort", {"reason": reason.strip()}, said)

        self.app.push_screen(TextDialog(f"abort {rollout.id} and roll back", words), typed)

    def action_history(self) -> None:
        """Show what happened to the chosen rollout."""
        rollout = self.chosen
        if rollout is None:
            self._advise("Choose a rollout first.")
        else:
            self.run_worker(self._history(rollout.id), group="history", exclusive=True)

    async def _history(self, name: str) -> None:
        try:
            rows = await self._client.ask(f"/api/rollouts/{name}/history")
        except EmbridgeError as error:
            self._advise(str(error), bad=True)
            return
        lines = [_happened(row) for row in rows] or ["nothing yet"]
        self.app.push_screen(ConfirmDialog(f"history of {name}", "\n".join(lines[-40:])))

    def action_pin(self) -> None:
        """Pin the chosen edge to the release it runs, or let it follow again."""
        edge = self._edge_chosen()
        if edge is None:
            return
        if self._wanted.get(edge.edge, {}).get("pinned"):
            self._do(f"/api/fleet/{edge.edge}", {"pinned": ""}, f"{edge.edge} follows rollouts again.", method="PUT")
        elif not edge.release:
            self._advise(f"{edge.edge} runs no release that it could keep.", bad=True)
        else:
            done = f"{edge.edge} keeps {edge.release}."
            path, body = f"/api/fleet/{edge.edge}", {"pinned": edge.release}
            self._why(
                f"why does {edge.edge} keep {edge.release}?", path, done, body=body, key="pinned_why", method="PUT"
            )

    def action_cohort(self) -> None:
        """Put the chosen edge into a cohort."""
        edge = self._edge_chosen()
        if edge is None:
            return

        def typed(name: str | None) -> None:
            self._do(f"/api/fleet/{edge.edge}", {"cohort": name or ""}, f"{edge.edge}: cohort changed.", method="PUT")

        self.app.push_screen(TextDialog(f"cohort of {edge.edge}", "Its name, or nothing for none."), typed)

    def _open(self) -> Rollout | None:
        """The chosen rollout, if something can still be done about it."""
        rollout = self.chosen
        if rollout is None:
            self._advise("Choose a rollout first; n begins one.")
        elif rollout.state not in _OPEN:
            self._advise(f"{rollout.id} is over. n begins another one.")
            return None
        return rollout

    def _edge_chosen(self) -> Edge | None:
        key = self.query_one("#edges", Records).chosen
        edges = () if self._snapshot is None else self._snapshot.edges
        found = next((edge for edge in edges if edge.edge == key), None)
        if found is None:
            self._advise("Choose an edge first.")
        return found

    def _why(
        self,
        title: str,
        path: str,
        done: str,
        *,
        body: dict[str, Any] | None = None,
        key: str = "reason",
        method: str = "POST",
    ) -> None:
        """Ask for a reason, then do it."""

        def answered(reason: str | None) -> None:
            if reason:
                self._do(path, {**(body or {}), key: reason}, done, method=method)
            else:
                self._advise("Nothing was done: a reason is kept with it.")

        self.app.push_screen(TextDialog(title), answered)

    def _do(self, path: str, body: dict[str, Any], done: str, *, method: str = "POST") -> None:
        self.run_worker(self._tell(path, body, done, method), group="rollout")

    async def _tell(self, path: str, body: dict[str, Any], done: str, method: str) -> None:
        try:
            await self._client.tell(path, body, method=method)
        except EmbridgeError as error:
            self._advise(str(error), bad=True)
            return
        self._advise(done)
        refresh = getattr(self.app, "action_refresh_now", None)
        if callable(refresh):
            refresh()

    def _advise(self, words: str, *, bad: bool = False) -> None:
        advice = self.query_one("#fleet-advice", Static)
        advice.update(f"{'✕ ' if bad else ''}{text.plain(words)}")
        advice.set_class(bad, "-bad")


def waves(rollout: Rollout) -> str:
    """A rollout's waves in lines, with bars, and what stands against it."""
    lines = []
    for number, wave in enumerate(rollout.tally):
        here = "▶" if number == rollout.wave and rollout.state in _OPEN else " "
        done = wave.committed / wave.edges if wave.edges else 0.0
        more = [f"{wave.errors} errors"] if wave.errors else []
        more += [f"{wave.offline} away"] if wave.offline else []
        more += [f"{wave.waits} wait for a session"] if wave.waits else []
        counts = f"{wave.committed:>5}/{wave.edges:<5}"
        lines.append(
            f"{here} {wave.name:<8}{counts} {text.bar(done, _BAR)} {100 * done:3.0f} %  {', '.join(more)}".rstrip()
        )
    by = f"  by {rollout.started_by}" if rollout.started_by else ""
    lines.append(text.plain(f"{rollout.id} {rollout.release}: {STATES[rollout.state]}{by}"))
    if rollout.reason:
        lines.append(text.plain(rollout.reason))
    return "\n".join(lines)


def _rollout(rollout: Rollout) -> Row:
    shares = " ".join(f"{w.committed}/{w.edges}{'✕' + str(w.errors) if w.errors else ''}" for w in rollout.tally)
    return rollout.id, (rollout.id, text.plain(rollout.release), STATES[rollout.state], shares)


def _edge(edge: Edge, wanted: dict[str, Any]) -> Row:
    pinned = wanted.get("pinned", "")
    asked = f"⚑ {pinned}" if pinned else wanted.get("release", "")
    cells = (
        text.plain(edge.edge),
        "● on" if edge.online else "○ away",
        text.plain(edge.release) or "none",
        text.plain(asked) or "-",
        _update(edge.update),
        text.count(edge.spooled),
    )
    return edge.edge, cells


def _update(state: UpdateState | None) -> str:
    if state is None:
        return "unknown"
    mark = "✕ " if state.phase in _BAD else "▶ " if state.phase not in (UpdatePhase.IDLE, UpdatePhase.COMMITTED) else ""
    return f"{mark}{text.plain(str(state))}"


def _happened(row: dict[str, Any]) -> str:
    detail = row.get("detail") or {}
    more = ", ".join(f"{k} {v}" for k, v in detail.items()) if isinstance(detail, dict) else str(detail)
    when = str(row.get("at") or row.get("wall") or row.get("wall_ns") or "")[:19]
    return text.plain(f"{when}  {row.get('actor', '')}  {row.get('action', '')}  {more}".rstrip())
