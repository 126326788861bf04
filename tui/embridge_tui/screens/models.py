"""Models: releases with gates and lineage, and the training that makes them."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, ClassVar, Final, TypeVar
from urllib.parse import quote

import msgspec
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from embridge_shared.errors import EmbridgeError, NetworkError, OperatorError, Reason
from embridge_shared.fleet import GateCheck, GateReport
from embridge_tui import text
from embridge_tui.client import CloudClient
from embridge_tui.model import Edge, Job, Release, ReleaseDetail
from embridge_tui.screens.asking import Field, FormDialog, PageDialog
from embridge_tui.screens.room import Room
from embridge_tui.view import View
from embridge_tui.widgets.records import Column, Records, Row

T = TypeVar("T")

RELEASES: Final = (
    Column("release", 14, grows=True),
    Column("gates", 10),
    Column("people", 6, right=True),
    Column("size", 8, right=True),
    Column("fleet", 6, right=True),
    Column("state", 15, grows=True),
)
JOBS: Final = (
    Column("job", 11, grows=True),
    Column("state", 11),
    Column("stage", 14, grows=True),
    Column("progress", 14),
    Column("left", 6, right=True),
    Column("data", 8, right=True),
)
_DETAILED: Final = 20
_YES_NO: Final = ("yes", "no")
_BAR: Final = 8
_MARKS: Final = {
    "queued": "○ queued",
    "running": "▶ running",
    "done": "✓ done",
    "refused": "✕ refused",
    "failed": "✕ failed",
    "cancelled": "■ cancelled",
}
_NO_RELEASE: Final = "No release yet: t trains one; the gates decide whether it is published."
_NO_JOB: Final = "No training has run yet: t begins one, h shows the schedule."


class ModelsScreen(Room):
    """Releases above, training below, and what is known of the chosen one beside them.

    Args:
        client: The cloud.
    """

    ROOM = "models"
    OF_CLOUD = True
    CSS: ClassVar[str] = """
    #models { layout: vertical; height: 1fr; }
    #models Records { height: 1fr; }
    #model { height: 7; padding: 0 1; border-top: solid $primary-muted; border-title-color: $text-primary; }
    #model:focus { border-top: heavy $primary; }
    #model-text { width: 1fr; height: auto; }
    #jobs { max-height: 9; }
    #models-advice { height: auto; max-height: 4; padding: 0 1; background: $panel; }
    #models-advice.-bad { color: $text-error; background: $error-muted; text-style: bold; }
    ModelsScreen.-broad #models { layout: grid; grid-size: 2 2; grid-columns: 1fr 70; grid-rows: 2fr 1fr; }
    ModelsScreen.-broad #model { row-span: 2; height: 1fr; }
    ModelsScreen.-broad #jobs { max-height: 100%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "lineage", "Lineage", id="model.lineage", tooltip="Data, people and parents of a release."),
        Binding("d", "diff", "Diff", id="model.diff", tooltip="What changed since the release in force."),
        Binding("c", "card", "Card", id="model.card", tooltip="The model card."),
        Binding("s", "start", "Roll out", id="model.start", tooltip="Roll it out: says first what would happen."),
        Binding("x", "recall", "Recall", id="model.recall", tooltip="Withdraw it for good; every edge leaves it."),
        Binding("t", "train", "Train", id="job.start", tooltip="Continue the release in force with what is new."),
        Binding("X", "cancel", "Stop job", id="job.cancel", tooltip="Stop the chosen training; it can go on later."),
        Binding("r", "resume", "Resume", show=False, id="job.resume", tooltip="Go on with a stopped or failed one."),
        Binding("v", "gate", "Gate", id="job.gate", tooltip="How the chosen training was judged, check by check."),
        Binding("l", "job_log", "Job log", show=False, id="job.log", tooltip="The last words of the chosen training."),
        Binding("f", "force", "Publish", show=False, id="job.force", tooltip="Publish what the gates refused."),
        Binding("h", "schedule", "Schedule", id="job.schedule", tooltip="When training begins by itself; change it."),
    ]

    def __init__(self, client: CloudClient) -> None:
        super().__init__()
        self._client = client
        self._releases: tuple[Release, ...] = ()
        self._edges: tuple[Edge, ...] = ()
        self._jobs: tuple[Job, ...] = ()
        self._details: dict[str, ReleaseDetail] = {}
        self._read_ns = -1

    def furnish(self) -> Iterable[Widget]:
        """Releases, training, and the chosen one."""
        releases, jobs = Records(RELEASES, id="releases"), Records(JOBS, id="jobs")
        releases.border_title, jobs.border_title = "releases", "training"
        detail = VerticalScroll(Static("", id="model-text", markup=False), id="model")
        detail.border_title = "chosen"
        yield Container(releases, detail, jobs, id="models")
        yield Static("", id="models-advice", markup=False)

    def show(self, view: View, now_ns: int) -> None:
        """Show what is published, and ask for the rest when the cloud has answered anew."""
        if view.snapshot is None:
            return
        found = view.snapshot
        self._releases, self._edges = tuple(reversed(found.releases)), found.edges
        self._jobs = tuple(reversed(found.jobs))
        self._draw()
        if view.error is None and view.read_ns != self._read_ns:
            self._read_ns = view.read_ns
            self.background(self._read, "models")

    async def _read(self) -> None:
        """What is known of releases that nobody asked about yet."""
        try:
            for release in self._releases[:_DETAILED]:
                held = self._details.get(release.name)
                if held is None or held.recalled != release.recalled:
                    self._details[release.name] = await self._detail(release.name)
                    self._draw()
        except EmbridgeError as error:
            self._advise(str(error), bad=True)

    async def _detail(self, name: str) -> ReleaseDetail:
        path = _release(name)
        return _typed(await self._client.ask(path), ReleaseDetail, path)

    def _draw(self) -> None:
        if not self.furnished:
            return
        releases, jobs = self.query_one("#releases", Records), self.query_one("#jobs", Records)
        champion = self._champion()
        releases.fill([self._row(release, champion) for release in self._releases])
        releases.border_title = f"releases: {len(self._releases)}" if self._releases else "releases: none yet"
        jobs.fill([job_row(job) for job in self._jobs])
        jobs.border_title = (
            f"training: {sum(j.open for j in self._jobs)} under way" if self._jobs else "training: none yet"
        )
        self._tell_chosen()

    def _champion(self) -> str:
        return next((r.name for r in self._releases if not r.recalled), "")

    def _row(self, release: Release, champion: str) -> Row:
        found = self._details.get(release.name)
        gate = None if found is None else found.gate
        runs = sum(edge.release == release.name for edge in self._edges)
        state = "✕ recalled" if release.recalled else "● in force" if release.name == champion else "○ before"
        if gate is not None and gate.forced_by:
            state = f"{state}, forced"
        cells = (
            text.plain(release.name),
            marks(gate),
            "" if gate is None else str(gate.participants),
            text.size(release.size),
            f"{100 * runs / len(self._edges):.0f} %" if self._edges else "-",
            state,
        )
        return release.name, cells

    def on_data_table_row_highlighted(self, _: Records.RowHighlighted) -> None:
        """Another release or job was chosen."""
        self._tell_chosen()

    def on_descendant_focus(self) -> None:
        """What is told is that of the table that has the keys."""
        self._tell_chosen()

    def on_data_table_row_selected(self, event: Records.RowSelected) -> None:
        """Enter: the lineage of a release, the judgement of a job."""
        if event.data_table.id == "releases":
            self.action_lineage()
        else:
            self.action_gate()

    def _tell_chosen(self) -> None:
        box, line = self.query_one("#model", VerticalScroll), self.query_one("#model-text", Static)
        job = self._job()
        if job is not None and self.app.focused is self.query_one("#jobs"):
            box.border_title, words = job.id, job_words(job)
        else:
            name = self.query_one("#releases", Records).chosen
            found = None if name is None else self._details.get(name)
            box.border_title = name or "chosen"
            words = (
                release_words(found) if found is not None else ("Reading …" if name else f"{_NO_RELEASE}\n{_NO_JOB}")
            )
        line.update("\n".join(map(text.plain, words.splitlines())))

    def _job(self) -> Job | None:
        key = self.query_one("#jobs", Records).chosen
        return next((job for job in self._jobs if job.id == key), None)

    def _chosen(self) -> Release | None:
        key = self.query_one("#releases", Records).chosen
        found = next((r for r in self._releases if r.name == key), None)
        if found is None:
            self._advise(_NO_RELEASE)
        return found

    def _chosen_job(self) -> Job | None:
        found = self._job()
        if found is None:
            self._advise(_NO_JOB)
        return found

    # releases

    def action_lineage(self) -> None:
        """Show where the chosen release comes from and how it was judged."""
        release = self._chosen()
        if release is not None:
            self._page(release.name, lambda: self._lineage(release.name))

    async def _lineage(self, name: str) -> str:
        from embridge_cloud.release_book_cli import ancestor

        found = await self._detail(name)
        return "\n\n".join([release_words(found), *map(ancestor, found.lineage)])

    def action_diff(self) -> None:
        """Show what changed since the release in force, or since its parent where it is that."""
        release = self._chosen()
        if release is not None:
            self._page(f"what {release.name} changed", lambda: self._diff(release))

    async def _diff(self, release: Release) -> str:
        from embridge_cloud.differences import differences
        from embridge_shared.manifest import Manifest

        champion = self._champion()
        rest = [r.name for r in self._releases if r.version < release.version and not r.recalled]
        other = champion if champion and champion != release.name else next(iter(rest), "")
        if not other:
            return f"There is nothing before {release.name} to compare it with."
        found = [(await self._detail(name)).manifest for name in (other, release.name)]
        before, after = (_typed(manifest, Manifest, "the manifest") for manifest in found)
        changes = differences(before, after)
        width = max((len(c.what) for c in changes), default=0)
        lines = [f"{c.what:<{width}}  {c.before}  →  {c.after}" for c in changes]
        return "\n".join([f"from {other} to {release.name}", "", *(lines or ["They say the same of themselves."])])

    def action_card(self) -> None:
        """Show the model card of the chosen release."""
        release = self._chosen()
        if release is not None:
            self._page(f"card of {release.name}", lambda: self._client.text(f"{_release(release.name)}/card"))

    def action_start(self) -> None:
        """Propose to roll the chosen release out, in the room Fleet."""
        release = self._chosen()
        if release is None:
            return
        if release.recalled:
            self._advise(f"{release.name} is recalled: {release.recalled}. It is never offered again.", bad=True)
            return
        self.app.switch_mode("fleet")
        self.app.call_after_refresh(self._propose, release.name)

    def _propose(self, release: str) -> None:
        from embridge_tui.screens.fleet import FleetScreen

        if isinstance(self.app.screen, FleetScreen):
            self.app.screen.propose(release)

    def action_recall(self) -> None:
        """Withdraw the chosen release, once its name was typed."""
        release = self._chosen()
        if release is None:
            return
        if release.recalled:
            self._advise(f"{release.name} is recalled already: {release.recalled}.")
            return
        runs = sum(edge.release == release.name for edge in self._edges)
        words = (
            f"{release.name} is withdrawn for good: the {runs} edges that run it return to the one before, and it is "
            "never offered again."
        )
        fields = (
            Field("name", f"type {release.name}", exactly=release.name),
            Field("reason", "why? edges and people read it", needed=True),
        )

        def answered(said: dict[str, str] | None) -> None:
            if said is not None:
                path = f"{_release(release.name)}/recall"
                self._do("POST", path, {"reason": said["reason"]}, f"{release.name} is recalled.")

        self.app.push_screen(FormDialog(f"recall {release.name}", words, fields), answered)

    # training

    def action_train(self) -> None:
        """Ask for a training that continues the release in force."""
        champion = self._champion() or "the first of its line"
        words = f"A training continues {champion} with the sessions that are new. The gates decide what becomes of it."
        fields = (Field("why", "what for", placeholder="new participants from lab-2"),)

        def answered(said: dict[str, str] | None) -> None:
            if said is not None:
                self._do("POST", "/api/jobs", {"why": said["why"]}, "A training was asked for.")

        self.app.push_screen(FormDialog("train", words, fields), answered)

    def action_cancel(self) -> None:
        """Stop the chosen job, after a question."""
        job = self._chosen_job()
        if job is None:
            return
        if not job.open:
            self._advise(f"{job.id} is over: {job.state}.")
            return
        words = f"{job.id} is stopped. What it has learnt so far is kept: r goes on with it."
        fields = (Field("name", f"type {job.id}", exactly=job.id),)

        def answered(said: dict[str, str] | None) -> None:
            if said is not None:
                self._do("DELETE", _of_job(job.id), None, f"{job.id} is stopped.")

        self.app.push_screen(FormDialog(f"stop {job.id}", words, fields), answered)

    def action_resume(self) -> None:
        """Go on with the chosen job."""
        job = self._chosen_job()
        if job is not None and job.state in ("failed", "cancelled"):
            self._do("POST", f"{_of_job(job.id)}/resume", None, f"{job.id} goes on from its latest checkpoint.")
        elif job is not None:
            self._advise(f"{job.id} is {job.state}: only one that was stopped or failed can go on.")

    def action_force(self) -> None:
        """Publish what the gates refused, with a reason that stays with it."""
        job = self._chosen_job()
        if job is None:
            return
        if job.state != "refused":
            self._advise(f"{job.id} is {job.state}: only one that the gates refused can be published by hand.")
            return
        words = f"The gates refused {job.id}: {job.error}\nIt is published all the same; your name and reason stay."
        fields = (
            Field("name", f"type {job.id}", exactly=job.id),
            Field("reason", "why all the same?", needed=True),
        )

        def answered(said: dict[str, str] | None) -> None:
            if said is not None:
                path = f"{_of_job(job.id)}/publish"
                self._do("POST", path, {"reason": said["reason"]}, f"{job.id} is published against its gates.")

        self.app.push_screen(FormDialog(f"publish {job.id}", words, fields), answered)

    def action_gate(self) -> None:
        """Show how the chosen job was judged."""
        job = self._chosen_job()
        if job is not None:
            self._page(f"how {job.id} was judged", lambda: self._judged(job))

    async def _judged(self, job: Job) -> str:
        path = f"{_of_job(job.id)}/gate"
        try:
            gate = _typed(await self._client.ask(path), GateReport, path)
        except OperatorError as error:
            if error.reason is not Reason.NOT_FOUND:
                raise
            return f"{job_words(job)}\n\nIt was not judged yet."
        return f"{job_words(job)}\n\n{gate_words(gate)}"

    def action_job_log(self) -> None:
        """Show the last words of the chosen job."""
        job = self._chosen_job()
        if job is not None:
            self._page(f"log of {job.id}", lambda: self._client.text(f"{_of_job(job.id)}/log"))

    def action_schedule(self) -> None:
        """Show the schedule, and let it be changed."""
        self.background(self._schedule, "page")

    async def _schedule(self) -> None:
        try:
            found = await self._client.ask("/api/schedule")
        except EmbridgeError as error:
            self._advise(str(error), bad=True)
            return
        plan, waiting = found["schedule"], found["waiting"]
        words = (
            f"{found['why']}.\nNew since the last training: {waiting['sessions']} sessions, "
            f"{waiting['participants']} participants, {waiting['minutes']:.0f} minutes of EMG with hand pose."
        )
        if found["failed"]:
            words += f"\n✕ It could not begin: {found['failed']}"
        fields = (
            Field("enabled", "on? yes or no", "yes" if plan["enabled"] else "no", choices=_YES_NO),
            Field("sessions", "begin with so many new sessions; 0 for never", str(plan["sessions"])),
            Field("timetable", 'and at these times, cron, as in "0 2 * * *"', plan["timetable"]),
            Field("rollout", "roll out what the gates accept?", "yes" if plan["rollout"] else "no", choices=_YES_NO),
        )

        def answered(said: dict[str, str] | None) -> None:
            if said is None:
                return
            if not said["sessions"].isdecimal():
                self._advise(f"{said['sessions']!r} is no number of sessions. Nothing was changed.", bad=True)
                return
            change = {
                "enabled": said["enabled"] == "yes",
                "sessions": int(said["sessions"]),
                "timetable": said["timetable"],
                "rollout": said["rollout"] == "yes",
            }
            changed = {key: value for key, value in change.items() if value != plan[key]}
            if changed:
                self._do("PUT", "/api/schedule", changed, "The schedule is changed.")

        self.app.push_screen(FormDialog("schedule", words, fields), answered)

    # doing

    def _page(self, title: str, coming: Callable[[], Awaitable[str]]) -> None:
        self._advise("Reading …")
        self.background(partial(self._open_page, title, coming), "page")

    async def _open_page(self, title: str, coming: Callable[[], Awaitable[str]]) -> None:
        try:
            words = await coming()
        except EmbridgeError as error:
            self._advise(str(error), bad=True)
            return
        self._advise("")
        self.app.push_screen(PageDialog(title, words))

    def _do(self, method: str, path: str, body: Any, done: str) -> None:
        self.background(partial(self._done, method, path, body, done), "deeds", alone=False)

    async def _done(self, method: str, path: str, body: Any, done: str) -> None:
        self._advise("…")
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
        advice = self.query_one("#models-advice", Static)
        advice.update(f"{'✕ ' if bad else ''}{text.plain(words)}")
        advice.set_class(bad, "-bad")


def _release(name: str) -> str:
    return f"/api/releases/{quote(name, safe='')}"


def _of_job(name: str) -> str:
    return f"/api/jobs/{quote(name, safe='')}"


def _typed(row: Any, kind: type[T], what: str) -> T:
    try:
        return msgspec.convert(row, kind)
    except msgspec.ValidationError as error:
        raise NetworkError(
            f"{what} is not what an EMBridge cloud answers: {error}",
            reason=Reason.FOREIGN,
            hint="Is an `embridge cloud run` of this version there?",
        ) from error


def marks(gate: GateReport | None) -> str:
    """A sign for each check, those that do not hold first; "-" where nobody judged."""
    if gate is None:
        return "-"
    return "".join(sorted(map(_sign, gate.checks), key="✕▲✓".index))


def _sign(check: GateCheck) -> str:
    return "✓" if check.passed else "✕" if check.required else "▲"


def gate_words(gate: GateReport) -> str:
    """A judgement in lines: the decision, then every check with its figures."""
    beside = f", beside {gate.champion}" if gate.champion else ""
    said = "accepted" if gate.accepted else "refused"
    lines = [f"{said} on {gate.participants} people{beside}: {gate.reason}"]
    if gate.forced_by:
        lines.append(f"published all the same by {gate.forced_by}: {gate.forced_why}")
    return "\n".join([*lines, *(f"{_sign(check)} {check.title}: {check.why}" for check in gate.checks)])


def release_words(found: ReleaseDetail) -> str:
    """A release in lines: what it is, how it was judged."""
    manifest, gate = found.manifest, found.gate
    made = manifest["lineage"]
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(manifest["created_ns"] * 1e-9))
    lines = [
        f"made {when} UTC of {len(made['sessions'])} sessions of {len(made['participants'])} people",
        f"head {manifest['head']}, {len(manifest['gestures'])} gestures, data {made['snapshot'][:12] or 'unknown'}",
        f"digest {found.published['digest'][:16]}",
    ]
    if found.recalled:
        lines.insert(0, f"✕ RECALLED: {found.recalled}")
    return "\n".join([*lines, "not judged here" if gate is None else gate_words(gate)])


def job_row(job: Job) -> Row:
    """A job in the table."""
    done = job.step / job.total if job.total else 0.0
    progress = f"{text.bar(done, _BAR)} {100 * done:3.0f} %" if job.state == "running" else ""
    outcome = job.release or ("" if job.open else job.error)
    cells = (
        text.plain(job.id),
        _MARKS.get(job.state, text.plain(job.state)),
        text.plain(job.stage if job.open else outcome),
        progress,
        text.age(job.eta_s) if job.eta_s is not None and job.open else "",
        f"{job.sessions} +{job.new_sessions}" if job.sessions else "",
    )
    return job.id, cells


def job_words(job: Job) -> str:
    """A job in lines: where it stands, what for, and why it was refused."""
    who = f" by {job.by}" if job.by else ""
    lines = [f"{_MARKS.get(job.state, job.state)}{who}{f': {job.why}' if job.why else ''}"]
    if job.state == "running":
        loss = f", loss {job.loss:.3g}" if job.loss else ""
        lines.append(f"{job.stage} {job.step}/{job.total or '?'}{loss}")
    if job.champion:
        lines.append(f"continues {job.champion} with {job.new_sessions} new of {job.sessions} sessions")
    lines += _left_out(list(job.left_out.items()))
    if job.attempts > 1:
        lines.append(f"begun {job.attempts} times")
    if job.error:
        lines.append(f"why: {job.error}")
    if job.forced_by:
        lines.append(f"published against its gates by {job.forced_by}")
    return "\n".join(lines)


def _left_out(rows: Sequence[tuple[str, str]]) -> list[str]:
    return [f"left out {session[:8]}: {why}" for session, why in rows[:5]] + (
        [f"and {len(rows) - 5} more left out"] if len(rows) > 5 else []
    )
