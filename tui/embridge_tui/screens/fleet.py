"""Fleet: releases on their way to edges, what every edge runs, and what an operator may do about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, ClassVar, Final
from urllib.parse import quote

import msgspec
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.widget import Widget
from textual.widgets import Static

from embridge_shared.clock import Clock, SystemClock
from embridge_shared.durations import seconds
from embridge_shared.errors import EmbridgeError, OperatorError
from embridge_shared.fleet import EdgeProgress, Rollout, RolloutPolicy, RolloutState
from embridge_tui import rolling, text
from embridge_tui.client import CloudClient
from embridge_tui.model import Shadow, Snapshot
from embridge_tui.screens.asking import Field, FormDialog, PageDialog
from embridge_tui.screens.collect_dialogs import ConfirmDialog
from embridge_tui.screens.room import Room
from embridge_tui.view import View
from embridge_tui.widgets.records import Column, Records

ROLLOUTS = (
    Column("rollout", 7),
    Column("release", 12, grows=True),
    Column("state", 12),
    Column("waves", 16, grows=True),
)
EDGES = (
    Column("edge", 9, grows=True),
    Column("state", 7),
    Column("runs", 11),
    Column("wanted", 11),
    Column("seen", 6, right=True),
    Column("note", 20, grows=True),
)
_SHOWN: Final = 500
_WIDE: Final = 100
_NO_EDGE: Final = "No edge has connected yet. Start one: embridge edge run"
_NO_ROLLOUT: Final = "No rollout yet: n begins one. Training publishes what its gates accept; Models shows it."


class FleetScreen(Room):
    """Rollouts with their waves, and edges with what they run and what they were asked to.

    Args:
        client: The cloud.
        clock: Tells how long ago something was.
    """

    ROOM = "fleet"
    OF_CLOUD = True
    CSS: ClassVar[str] = """
    #fleet { layout: vertical; height: 1fr; }
    #ways { height: auto; max-height: 60%; }
    #rollouts { height: 5; }
    #waves { height: auto; max-height: 8; padding: 0 1; }
    #edges { height: 1fr; min-height: 4; }
    #fleet-advice { height: auto; max-height: 4; padding: 0 1; background: $panel; }
    #fleet-advice.-bad { color: $text-error; background: $error-muted; text-style: bold; }
    FleetScreen.-broad #ways { layout: horizontal; height: 9; max-height: 9; }
    FleetScreen.-broad #rollouts { width: 1fr; height: 1fr; }
    FleetScreen.-broad #waves { width: 92; height: 1fr; max-height: 12; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open", id="fleet.open", tooltip="All of the chosen rollout, or of the chosen edge."),
        Binding("n", "new", "New", id="rollout.new", tooltip="Roll a release out; says first what would happen."),
        Binding("p", "pause", "Pause", id="rollout.pause", tooltip="Ask no more edges, or go on."),
        Binding("g", "next", "Next wave", id="rollout.next", tooltip="Approve the wave that waits, or begin it now."),
        Binding("x", "abort", "Abort", id="rollout.abort", tooltip="Recall the release and return every edge."),
        Binding("h", "history", "History", id="rollout.history", tooltip="What happened, and who did it."),
        Binding("i", "pin", "Pin", id="edge.pin", tooltip="Let the chosen edge keep a release, or follow again."),
        Binding("c", "cohort", "Cohort", show=False, id="edge.cohort", tooltip="Put the chosen edge into a group."),
    ]

    def __init__(self, client: CloudClient, clock: Clock | None = None) -> None:
        super().__init__()
        self._client = client
        self._clock = clock or SystemClock()
        self._snapshot: Snapshot | None = None
        self._shadows: tuple[Shadow, ...] | None = None
        self._progress: dict[str, EdgeProgress] = {}
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
        """Show what the fleet runs, and ask for the rest when the cloud has answered anew."""
        if view.snapshot is None:
            return
        found = self._snapshot = view.snapshot
        rollouts = self.query_one("#rollouts", Records)
        rollouts.fill([rolling.rollout_row(r) for r in reversed(found.rollouts)])
        rollouts.border_title = f"rollouts: {len(found.rollouts)}" if found.rollouts else "rollouts: none yet"
        self._show_waves()
        self._show_edges()
        if view.error is None and view.read_ns != self._read_ns:
            self._read_ns = view.read_ns
            self._reread()

    def _reread(self) -> None:
        self.background(self._read, "shadows")

    async def _read(self) -> None:
        """What was decided about each edge, and where it stands in the chosen rollout."""
        rollout = self.chosen
        try:
            self._shadows = msgspec.convert(await self._client.ask("/api/fleet"), tuple[Shadow, ...])
            self._progress = {}
            if rollout is not None:
                whole = msgspec.convert(await self._client.ask(_path(rollout.id)), Rollout)
                self._progress = {p.edge: p for p in whole.edges}
        except (EmbridgeError, msgspec.ValidationError) as error:
            self._advise(str(error), bad=True)
        if self.furnished:
            self._show_edges()

    def _show_edges(self) -> None:
        edges, shadows = self.query_one("#edges", Records), self._shadows
        if shadows is None:
            return
        order = sorted(shadows, key=lambda s: rolling.weight(s, self._progress.get(s.edge)))[:_SHOWN]
        now_ns = self._clock.wall_ns()
        edges.fill([rolling.edge_row(s, self._progress.get(s.edge), now_ns) for s in order])
        online = sum(s.reported is not None and s.reported.online for s in shadows)
        more = f", the first {_SHOWN} are shown" if len(shadows) > _SHOWN else ""
        edges.border_title = f"edges: {online} of {len(shadows)} online{more}" if shadows else _NO_EDGE

    def on_data_table_row_highlighted(self, event: Records.RowHighlighted) -> None:
        """Another rollout was chosen."""
        if event.data_table.id == "rollouts":
            self._show_waves()
            if self._snapshot is not None and self._shadows is not None:
                self._reread()

    def on_data_table_row_selected(self, _: Records.RowSelected) -> None:
        """Enter."""
        self.action_open()

    @property
    def chosen(self) -> Rollout | None:
        """The rollout under the cursor."""
        key = self.query_one("#rollouts", Records).chosen
        rollouts = () if self._snapshot is None else self._snapshot.rollouts
        return next((r for r in rollouts if r.id == key), None)

    def _show_waves(self) -> None:
        rollout = self.chosen
        words = _NO_ROLLOUT if rollout is None else self._waves(rollout)
        self.query_one("#waves", Static).update(words)

    def _waves(self, rollout: Rollout) -> str:
        return rolling.waves(rollout, self._clock.wall_ns(), narrow=self.query_one("#waves").size.width < _WIDE)

    # what an operator does

    def action_open(self) -> None:
        """Show all of the chosen edge, or of the chosen rollout."""
        edges, rollout = self.query_one("#edges", Records), self.chosen
        name = edges.chosen if edges.has_focus else None
        if name is not None:
            self._page(name, partial(self._edge_page, name))
        elif rollout is not None:
            self._page(f"rollout {rollout.id}", partial(self._rollout_page, rollout.id))

    async def _edge_page(self, name: str) -> str:
        shadow = msgspec.convert(await self._client.ask(_edge(name)), Shadow)
        return rolling.edge_page(shadow, await self._client.ask(f"{_edge(name)}/history"), self._clock.wall_ns())

    async def _rollout_page(self, name: str) -> str:
        return rolling.page(msgspec.convert(await self._client.ask(_path(name)), Rollout), self._clock.wall_ns())

    def action_history(self) -> None:
        """Show what happened to the chosen rollout."""
        rollout = self.chosen
        if rollout is None:
            self._advise("Choose a rollout first.")
        else:
            self._page(f"history of {rollout.id}", lambda: self._history(rollout.id))

    async def _history(self, name: str) -> str:
        rows = await self._client.ask(f"{_path(name)}/history")
        return "\n".join(map(rolling.happened, rows)) or "Nothing yet."

    def action_new(self) -> None:
        """Ask what to roll out, and how."""
        releases = () if self._snapshot is None else self._snapshot.releases
        usable = [r.name for r in reversed(releases) if not r.recalled]
        if not usable:
            self._advise("There is no release to roll out; a training job publishes what passes its gates.", bad=True)
        else:
            self.propose(usable[0])

    def propose(self, release: str) -> None:
        """Ask how to roll a release out, say what that would do, and ask again."""
        self.background(partial(self._ask_how, release), "rollout", alone=False)

    async def _ask_how(self, release: str) -> None:
        try:
            policy = msgspec.convert(await self._client.ask("/api/rollout-policy"), RolloutPolicy)
        except (EmbridgeError, msgspec.ValidationError) as error:
            self._advise(str(error), bad=True)
            return
        shares = ",".join(f"{100 * wave.share:g}" for wave in policy.waves)
        words = "Nothing is done yet: what would happen is shown first."
        fields = (
            Field("release", "release", release, needed=True),
            Field("waves", "per cent of the edges after each wave", shares, needed=True),
            Field("soak", "how long each wave soaks, as in 10min", f"{policy.waves[-1].soak_s:g}", needed=True),
            Field("cohort", "edges of this cohort only; empty for all"),
            Field("edges", "these edges only, with spaces between; empty for all"),
        )
        asked = FormDialog("roll out", words, fields)
        self.app.push_screen(asked, partial(self._asked_how, policy))

    def _asked_how(self, policy: RolloutPolicy, said: dict[str, str] | None) -> None:
        if said is None:
            return
        try:
            how = _policy(policy, said["waves"], said["soak"])
        except EmbridgeError as error:
            self._advise(str(error), bad=True)
            return
        wish = {"release": said["release"], "cohort": said["cohort"], "edges": said["edges"].split()}
        body = {**wish, "policy": msgspec.to_builtins(how)}
        self.background(partial(self._dry, body), "rollout", alone=False)

    async def _dry(self, body: dict[str, Any]) -> None:
        try:
            plan = msgspec.convert(await self._client.tell("/api/rollouts", {**body, "dry_run": True}), Rollout)
        except (EmbridgeError, msgspec.ValidationError) as error:
            self._advise(str(error), bad=True)
            return
        question = ConfirmDialog(f"roll {plan.release} out?", rolling.plan_words(plan))
        self.app.push_screen(question, partial(self._start, body, plan.release))

    def _start(self, body: dict[str, Any], release: str, yes: bool | None) -> None:
        if yes:
            self._do("/api/rollouts", body, f"{release} is on its way.")

    def action_pause(self) -> None:
        """Pause the chosen rollout, or let it go on."""
        rollout = self._open()
        if rollout is None:
            return
        if rollout.state is RolloutState.PAUSED:
            self._do(f"{_path(rollout.id)}/resume", {}, f"{rollout.id} goes on.")
        else:
            words = "No more edges are asked; those that were asked go on."
            fields = (Field("reason", "why? it goes into the history", needed=True),)
            self._form(f"pause {rollout.id}", words, fields, f"{_path(rollout.id)}/pause", f"{rollout.id} is paused.")

    def action_next(self) -> None:
        """Approve the wave that waits, or begin the next one now."""
        rollout = self._open()
        if rollout is None:
            return
        waits = rollout.state is RolloutState.WAITING
        verb = "approve" if waits else "advance"
        words = f"{rolling.waves(rollout, self._clock.wall_ns())}\n\n" + (
            "It waits for somebody to say that this is well." if waits else "The rest of this wave is not waited for."
        )
        done = f"{rollout.id}: the next wave begins."

        def answered(yes: bool | None) -> None:
            if yes:
                self._do(f"{_path(rollout.id)}/{verb}", {}, done)

        self.app.push_screen(ConfirmDialog(f"{verb} the next wave of {rollout.id}?", words), answered)

    def action_abort(self) -> None:
        """Abort the chosen rollout, once its id was typed."""
        rollout = self._open()
        if rollout is None:
            return
        words = (
            f"{rollout.release} is recalled: every edge that took it returns to what it ran before, and it is never "
            "offered again."
        )
        fields = (
            Field("id", f"type {rollout.id}", exactly=rollout.id),
            Field("reason", "why? edges and people read it", needed=True),
        )
        done = f"{rollout.id} is aborted; edges return."
        self._form(f"abort {rollout.id} and roll back", words, fields, f"{_path(rollout.id)}/abort", done)

    def action_pin(self) -> None:
        """Pin the chosen edge to the release it runs, or let it follow again."""
        shadow = self._edge_chosen()
        if shadow is None:
            return
        if shadow.pinned:
            self._do(_edge(shadow.edge), {"pinned": ""}, f"{shadow.edge} follows rollouts again.", method="PUT")
            return
        runs = "" if shadow.reported is None else shadow.reported.release
        words = "It keeps this release whatever is rolled out, until i is pressed again."
        fields = (
            Field("pinned", "release", runs, needed=True),
            Field("pinned_why", "why? whoever meets the pin later reads it", needed=True),
        )
        self._form(f"pin {shadow.edge}", words, fields, _edge(shadow.edge), f"{shadow.edge} is pinned.", method="PUT")

    def action_cohort(self) -> None:
        """Put the chosen edge into a cohort."""
        shadow = self._edge_chosen()
        if shadow is not None:
            fields = (Field("cohort", "cohort; empty for none", shadow.cohort, placeholder="lab-2"),)
            words, done = "A rollout can be limited to a cohort.", f"{shadow.edge}: cohort changed."
            self._form(f"cohort of {shadow.edge}", words, fields, _edge(shadow.edge), done, method="PUT")

    def _open(self) -> Rollout | None:
        """The chosen rollout, if something can still be done about it."""
        rollout = self.chosen
        if rollout is None:
            self._advise("Choose a rollout first; n begins one.")
        elif rollout.state in rolling.OVER:
            self._advise(f"{rollout.id} is over. n begins another one.")
            return None
        return rollout

    def _edge_chosen(self) -> Shadow | None:
        key = self.query_one("#edges", Records).chosen
        found = next((s for s in self._shadows or () if s.edge == key), None)
        if found is None:
            self._advise("Choose an edge first.")
        return found

    def _form(
        self, title: str, words: str, fields: tuple[Field, ...], path: str, done: str, *, method: str = "POST"
    ) -> None:
        """Ask, then do it with the answers that are no check of what was typed."""
        checks = {field.name for field in fields if field.exactly}

        def answered(said: dict[str, str] | None) -> None:
            if said is not None:
                body = {name: value for name, value in said.items() if name not in checks}
                self._do(path, body, done, method=method)

        self.app.push_screen(FormDialog(title, words, fields), answered)

    def _page(self, title: str, coming: Callable[[], Awaitable[str]]) -> None:
        self.background(partial(self._open_page, title, coming), "page")

    async def _open_page(self, title: str, coming: Callable[[], Awaitable[str]]) -> None:
        try:
            words = await coming()
        except (EmbridgeError, msgspec.ValidationError) as error:
            self._advise(str(error), bad=True)
            return
        self.app.push_screen(PageDialog(title, words))

    def _do(self, path: str, body: dict[str, Any], done: str, *, method: str = "POST") -> None:
        self.background(partial(self._tell, path, body, done, method), "deeds", alone=False)

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


def _path(rollout: str) -> str:
    return f"/api/rollouts/{quote(rollout, safe='')}"


def _edge(name: str) -> str:
    return f"/api/fleet/{quote(name, safe='')}"


def _policy(policy: RolloutPolicy, shares: str, soak: str) -> RolloutPolicy:
    """The cloud's policy with other waves, where other ones are asked for.

    Raises:
        OperatorError: They are no waves.
        ConfigError: They do not grow to 100 per cent.
    """
    from embridge_cloud.rollouts.policy import waves

    try:
        parts = [float(part.strip().removesuffix("%")) / 100 for part in shares.split(",")]
    except ValueError:
        raise OperatorError(f"{shares!r} are no waves.", hint='Give per cent, as in "5,25,100".') from None
    soak_s = seconds(soak)
    if parts == [w.share for w in policy.waves]:
        kept = tuple(msgspec.structs.replace(wave, soak_s=soak_s) for wave in policy.waves)
        return msgspec.structs.replace(policy, waves=kept)
    return msgspec.structs.replace(policy, waves=waves(parts, soak_s=soak_s))
