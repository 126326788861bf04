"""Models: releases with how they were judged and where they come from, and the training that makes the next one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final

import msgspec
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from embridge_shared.errors import EmbridgeError
from embridge_shared.fleet import GateCheck, GateReport
from embridge_tui import text
from embridge_tui.client import CloudClient
from embridge_tui.model import Job, Release, Snapshot
from embridge_tui.screens.collect_dialogs import ConfirmDialog, TextDialog
from embridge_tui.screens.room import Room
from embridge_tui.view import View
from embridge_tui.widgets.records import Column, Records, Row

RELEASES = (
    Column("release", 14, grows=True),
    Column("state", 11),
    Column("size", 8, right=True),
    Column("runs on", 11, grows=True),
)
JOBS = (
    Column("job", 11, grows=True),
    Column("state", 11),
    Column("what", 16, grows=True),
)
_STATES: Final = {
    "waiting": "◐ waiting",
    "running": "▶ running",
    "done": "✓ done",
    "refused": "▲ refused",
    "failed": "✕ failed",
    "cancelled": "■ cancelled",
}
_RUNNING: Final = frozenset({"waiting", "running"})
_BAR: Final = 16
_NO_RELEASE: Final = "Nothing is published yet; a job publishes what its gates accept."
_NO_JOB: Final = "No job has run. s begins one; `embridge job schedule` lets them begin by themselves."


class ModelsScreen(Room):
    """Releases and jobs, and what is known of the chosen one.

    Args:
        client: The cloud.
    """

    ROOM = "models"
    OF_CLOUD = True
    CSS: ClassVar[str] = """
    #models { layout: vertical; height: 1fr; }
    #lists { height: 1fr; }
    #releases, #jobs { height: 1fr; min-height: 4; }
    #about-model { height: 1fr; padding: 0 1; border-top: solid $primary-muted; border-title-color: $text-primary; }
    #about-model:focus { border-top: heavy $primary; }
    #about-text { width: 1fr; height: auto; }
    #models-advice { height: auto; padding: 0 1; background: $panel; }
    #models-advice.-bad { color: $text-error; background: $error-muted; text-style: bold; }
    .-wide #models, .-broad #models { layout: horizontal; }
    .-wide #lists, .-broad #lists { width: 1fr; height: 1fr; }
    .-wide #about-model { width: 60; height: 1fr; }
    .-broad #about-model { width: 84; height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "roll_out", "Roll out", id="model.rollout", tooltip="Send the chosen release to the fleet."),
        Binding("d", "diff", "Diff", id="model.diff", tooltip="The chosen release against the one before it."),
        Binding("v", "card", "Card", id="model.card", tooltip="The model card."),
        Binding("x", "recall", "Recall", id="model.recall", tooltip="Withdraw the chosen release everywhere."),
        Binding("s", "start", "Train", id="job.start", tooltip="Begin a training from the champion."),
        Binding("k", "cancel", "Cancel job", id="job.cancel", tooltip="Stop the job that runs."),
    ]

    def __init__(self, client: CloudClient) -> None:
        super().__init__()
        self._client = client
        self._snapshot: Snapshot | None = None
        self._told: dict[str, dict[str, Any]] = {}
        self._wanted = ""

    def furnish(self) -> Iterable[Widget]:
        """Lists on the left, what is known on the right."""
        releases, jobs = Records(RELEASES, id="releases"), Records(JOBS, id="jobs")
        releases.border_title, jobs.border_title = "releases", "training"
        about = VerticalScroll(Static("", id="about-text", markup=False), id="about-model")
        about.border_title = "chosen"
        yield Container(Container(releases, jobs, id="lists"), about, id="models")
        yield Static("", id="models-advice", markup=False)

    def show(self, view: View, now_ns: int) -> None:
        """Show releases and jobs."""
        if view.snapshot is None:
            return
        found = self._snapshot = view.snapshot
        releases, jobs = self.query_one("#releases", Records), self.query_one("#jobs", Records)
        champion = next((r.name for r in reversed(found.releases) if not r.recalled), "")
        releases.fill([_release(r, found, champion) for r in reversed(found.releases)])
        releases.border_title = f"releases: {len(found.releases)}" if found.releases else _NO_RELEASE
        jobs.fill([_job(job) for job in reversed(found.jobs)])
        jobs.border_title = f"training: {len(found.jobs)} jobs" if found.jobs else _NO_JOB
        if not self._wanted:
            self._choose(releases)

    def on_data_table_row_highlighted(self, event: Records.RowHighlighted) -> None:
        """Another release or job was chosen."""
        table = event.data_table
        if isinstance(table, Records) and table.has_focus:
            self._choose(table)

    def on_descendant_focus(self) -> None:
        """The other list has the cursor now."""
        if isinstance(self.focused, Records):
            self._choose(self.focused)

    def _choose(self, table: Records) -> None:
        key = table.chosen
        if key is None:
            return
        self._wanted = key
        if table.id == "jobs":
            self.run_worker(self._about_job(key), name="about", group="about", exclusive=True)
        else:
            self.run_worker(self._about_release(key), name="about", group="about", exclusive=True)

    async def _about_release(self, name: str) -> None:
        try:
            told = await self._detail(name)
        except EmbridgeError as error:
            self._say(f"✕ {text.plain(str(error))}")
            return
        self.query_one("#about-model").border_title = f"{name}: gates and lineage"
        self._say(describe_release(told))

    async def _detail(self, name: str) -> dict[str, Any]:
        if name not in self._told:
            self._told[name] = await self._client.ask(f"/api/releases/{name}")
        return self._told[name]

    async def _about_job(self, name: str) -> None:
        job = next((j for j in (() if self._snapshot is None else self._snapshot.jobs) if j.id == name), None)
        if job is None:
            return
        self.query_one("#about-model").border_title = f"{name}"
        lines = describe_job(job)
        try:
            gate = msgspec.convert(await self._client.ask(f"/api/jobs/{name}/gate"), GateReport, strict=False)
        except (EmbridgeError, msgspec.ValidationError):
            gate = None
        self._say("\n".join([*lines, *([] if gate is None else ["", *describe_gate(gate)])]))

    def _say(self, words: str) -> None:
        self.query_one("#about-text", Static).update(words)

    # what an operator does

    @property
    def release(self) -> Release | None:
        """The release under the cursor."""
        key = self.query_one("#releases", Records).chosen
        releases = () if self._snapshot is None else self._snapshot.releases
        return next((r for r in releases if r.name == key), None)

    def action_roll_out(self) -> None:
        """Go to Fleet and say there what rolling it out would do."""
        release = self._need()
        if release is None:
            return
        self.app.switch_mode("fleet")

        def propose() -> None:
            from embridge_tui.screens.fleet import FleetScreen

            if isinstance(self.app.screen, FleetScreen):
                self.app.screen.propose(release.name)

        self.app.call_after_refresh(propose)

    def action_diff(self) -> None:
        """Compare the chosen release with its parent, figure by figure."""
        release = self._need()
        if release is not None:
            self.run_worker(self._diff(release), group="diff", exclusive=True)

    async def _diff(self, release: Release) -> None:
        releases = () if self._snapshot is None else self._snapshot.releases
        older = [r for r in releases if r.version < release.version]
        if not older:
            self._advise(f"{release.name} is the first: there is nothing to compare it with.")
            return
        before = max(older, key=lambda r: r.version)
        try:
            new, old = await self._detail(release.name), await self._detail(before.name)
        except EmbridgeError as error:
            self._advise(str(error), bad=True)
            return
        self.app.push_screen(ConfirmDialog(f"{before.name} → {release.name}", "\n".join(difference(old, new))))

    def action_card(self) -> None:
        """Show the model card."""
        release = self._need()
        if release is not None:
            self.run_worker(self._card(release.name), group="card", exclusive=True)

    async def _card(self, name: str) -> None:
        try:
            card = await self._client.text(f"/api/releases/{name}/card")
        except EmbridgeError as error:
            self._advise(str(error), bad=True)
            return
        self.query_one("#about-model").border_title = f"card of {name}"
        self._say("\n".join(text.plain(line) for line in card.splitlines()))
        self.query_one("#about-model").focus()

    def action_recall(self) -> None:
        """Recall the chosen release, after its name was typed."""
        release = self._need()
        if release is None:
            return
        words = (
            f"Every edge that runs {release.name} returns to what it ran before, and it is never offered again. "
            f"Type {release.name} and why."
        )

        def typed(answer: str | None) -> None:
            name, _, reason = (answer or "").partition(" ")
            if name != release.name or not reason.strip():
                self._advise(f"Nothing was done: that was not {release.name} and a reason.")
                return
            self._told.pop(name, None)
            path, body = f"/api/releases/{name}/recall", {"reason": reason.strip()}
            self._do(lambda: self._client.tell(path, body), f"{name} is recalled.")

        self.app.push_screen(TextDialog(f"recall {release.name}", words), typed)

    def action_start(self) -> None:
        """Begin a training from the champion."""
        words = (
            "It learns from every session that was sealed since, and from those before. The gates decide what ships."
        )

        def answered(yes: bool | None) -> None:
            if yes:
                body = {"from_champion": True}
                self._do(lambda: self._client.tell("/api/jobs", body), "The training begins.")

        self.app.push_screen(ConfirmDialog("train from the champion?", words), answered)

    def action_cancel(self) -> None:
        """Cancel the job that runs."""
        jobs = () if self._snapshot is None else self._snapshot.jobs
        job = next((j for j in jobs if j.state in _RUNNING), None)
        if job is None:
            self._advise("No job runs.")
            return
        name = job.id

        def answered(yes: bool | None) -> None:
            if yes:
                self._do(lambda: self._client.tell(f"/api/jobs/{name}", method="DELETE"), f"{name} is cancelled.")

        self.app.push_screen(ConfirmDialog(f"cancel {name}?", "What it learnt so far is not published."), answered)

    def _need(self) -> Release | None:
        release = self.release
        if release is None:
            self._advise("Choose a release first.")
        return release

    def _do(self, work: Callable[[], Any], done: str) -> None:
        self.run_worker(self._tell(work, done), group="models")

    async def _tell(self, work: Callable[[], Any], done: str) -> None:
        try:
            await work()
        except EmbridgeError as error:
            self._advise(str(error), bad=True)
            return
        self._advise(done)
        refresh = getattr(self.app, "action_refresh_now", None)
        if callable(refresh):
            refresh()

    def _advise(self, words: str, *, bad: bool = False) -> None:
        advice = self.query_one("#models-advice", Static)
        advice.update(f"{'✕ ' if bad else ''}{text.plain(words)}")
        advice.set_class(bad, "-bad")


def _release(release: Release, found: Snapshot, champion: str) -> Row:
    runs = sum(edge.release == release.name for edge in found.edges)
    state = "✕ recalled" if release.recalled else "✓ champion" if release.name == champion else "· earlier"
    cells = (text.plain(release.name), state, text.size(release.size), f"{runs} of {len(found.edges)} edges")
    return release.name, cells


def _job(job: Job) -> Row:
    if job.state == "running":
        done = job.step / job.total if job.total else 0.0
        eta = f" {text.age(job.eta_s)} left" if job.eta_s is not None else ""
        what = f"{job.stage} {text.bar(done, _BAR)} {100 * done:.0f} %{eta}"
    elif job.state == "done":
        what = f"→ {job.release}" if job.release else "made nothing"
    else:
        what = job.error or job.why
    return job.id, (text.plain(job.id), _STATES.get(job.state, text.plain(job.state)), text.plain(what))


def describe_job(job: Job) -> list[str]:
    """A job in lines."""
    lines = [f"{_STATES.get(job.state, job.state)}  {job.stage} {job.step}/{job.total}".rstrip(" 0/")]
    if job.by or job.why:
        lines.append(f"asked for by {job.by or 'nobody'}: {job.why or 'no reason given'}")
    if job.sessions:
        lines.append(f"learns from {job.sessions} sessions, {job.new_sessions} of them new")
    if job.champion:
        lines.append(f"continues {job.champion}")
    if job.error:
        lines.append(f"✕ {job.error}")
    return [text.plain(line) for line in lines]


def describe_gate(gate: GateReport) -> list[str]:
    """How a candidate was judged, a line a check."""
    head = f"{'✓ accepted' if gate.accepted else '✕ refused'}: {gate.reason}"
    forced = [f"▲ published all the same by {gate.forced_by}: {gate.forced_why}"] if gate.forced_by else []
    return [text.plain(line) for line in [head, *forced, "", *map(_check, gate.checks)]]


def _check(check: GateCheck) -> str:
    mark = "✓" if check.passed else "✕" if check.required else "▲"
    against = "" if check.champion is None else f" (before {check.champion:.3g})"
    return f"{mark} {check.title}: {check.candidate:.3g}{against}{'' if check.passed else '. ' + check.why}"


def describe_release(told: dict[str, Any]) -> str:
    """A release in lines: state, gates, lineage."""
    manifest = told.get("manifest") or {}
    lines = []
    if told.get("recalled"):
        lines += [f"✕ recalled: {told['recalled']}", ""]
    gate = told.get("gate")
    if gate:
        lines += [*describe_gate(msgspec.convert(gate, GateReport, strict=False)), ""]
    else:
        lines += ["no gate judged it", ""]
    lines.append(f"head {manifest.get('head', '?')}: {manifest.get('head_reason', '')}".rstrip(": "))
    gestures = manifest.get("gestures") or []
    unseen = [g["label"] for g in gestures if not g.get("emg_seen")]
    lines.append(f"{len(gestures)} gestures, {len(unseen)} by pose alone: {', '.join(unseen) or 'none'}")
    lines += ["", "lineage"]
    for step in told.get("lineage") or []:
        name, people = step.get("release", "?"), step.get("participants") or []
        sessions = step.get("sessions") or []
        snapshot = str(step.get("snapshot", ""))[:12]
        lines.append(f"  {name}  snapshot {snapshot}  {len(sessions)} sessions of {len(people)} people")
    return "\n".join(text.plain(line) for line in lines)


def difference(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What changed between two releases, figure by figure."""
    before, after = old["manifest"].get("metrics") or {}, new["manifest"].get("metrics") or {}
    lines = []
    for name in sorted({*before, *after}):
        a, b = before.get(name), after.get(name)
        if a is None or b is None:
            lines.append(f"{name}: {'new' if a is None else 'gone'} {b if a is None else a:.4g}")
        elif a != b:
            lines.append(f"{name}: {a:.4g} → {b:.4g} ({b - a:+.4g})")
    known = ({g["label"] for g in m["manifest"].get("gestures") or []} for m in (old, new))
    was, now = known
    lines += [f"gesture {name}: new" for name in sorted(now - was)]
    lines += [f"gesture {name}: gone" for name in sorted(was - now)]
    return lines or ["nothing that was measured differs"]
