"""Fleet: edges and what they run, releases, and the training that makes the next one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from textual.containers import Container
from textual.widget import Widget
from textual.widgets import Static

from embridge_shared.fleet import UpdatePhase, UpdateState
from embridge_tui import text
from embridge_tui.model import Edge, Job, Release, Snapshot
from embridge_tui.screens.room import Room
from embridge_tui.view import View
from embridge_tui.widgets.records import Column, Records, Row

EDGES = (
    Column("edge", 9, grows=True),
    Column("state", 6),
    Column("heard UTC", 11),
    Column("release", 11, grows=True),
    Column("records", 8),
    Column("backlog", 9),
    Column("update", 8, grows=True),
)
RELEASES = (
    Column("release", 16, grows=True),
    Column("digest", 16),
    Column("size", 9, right=True),
    Column("agent from", 10),
    Column("runs on", 12, grows=True),
)

_BAR = 30
_NO_EDGE = "No edge has connected yet. Start one: embridge edge run --plan PLAN.toml"
_NO_RELEASE = "Nothing is published yet; a training job publishes what passes its gates."


class FleetScreen(Room):
    """Edges, releases and the running job."""

    ROOM = "fleet"

    def furnish(self) -> Iterable[Widget]:
        """Two tables and the job."""
        edges, releases = Records(EDGES, id="edges"), Records(RELEASES, id="releases")
        edges.border_title, releases.border_title = "edges", "releases"
        job = Static("", id="job", markup=False)
        job.border_title = "training"
        yield Container(edges, releases, job, id="fleet")

    def show(self, view: View, now_ns: int) -> None:
        """Show what the fleet runs."""
        super().show(view, now_ns)
        if view.snapshot is None:
            return
        found = view.snapshot
        edges, releases = self.query_one("#edges", Records), self.query_one("#releases", Records)
        edges.fill([_edge(edge) for edge in found.edges])
        releases.fill([_release(release, found.edges) for release in reversed(found.releases)])
        online = sum(edge.online for edge in found.edges)
        edges.border_title = f"edges: {online} of {len(found.edges)} online" if found.edges else _NO_EDGE
        releases.border_title = f"releases: {len(found.releases)}" if found.releases else _NO_RELEASE
        self.query_one("#job", Static).update(f"{training(found.jobs)}\n{ingest(found)}")


def _edge(edge: Edge) -> Row:
    backlog = f"{text.count(edge.spooled)} {text.size(edge.spooled_bytes)}" if edge.spooled else "0"
    cells = (
        text.plain(edge.edge),
        "● on" if edge.online else "○ away",
        text.moment(edge.seen_at),
        text.plain(edge.release) or "none",
        f"▶{str(edge.recording)[:7]}" if edge.recording else "no",
        backlog,
        _update(edge.update),
    )
    return edge.edge, cells


def _update(state: UpdateState | None) -> str:
    if state is None:
        return "unknown"
    bad = state.phase in (UpdatePhase.FAILED, UpdatePhase.REFUSED, UpdatePhase.ROLLED_BACK)
    return f"{'✕ ' if bad else ''}{text.plain(str(state))}"


def _release(release: Release, edges: Sequence[Edge]) -> Row:
    runs = sum(edge.release == release.name for edge in edges)
    cells = (
        text.plain(release.name),
        text.plain(release.digest[:16]),
        text.size(release.size),
        text.plain(release.min_agent),
        f"{runs} of {len(edges)} edges",
    )
    return release.name, cells


def training(jobs: Sequence[Job]) -> str:
    """The running job with its progress, or how the last one went."""
    for job in reversed(jobs):
        if job.state == "running":
            done = job.step / job.total if job.total else 0.0
            loss = f"  loss {job.loss:.3g}" if job.loss else ""
            steps = f"{job.step}/{job.total}  {100 * done:.0f} %" if job.total else "starting"
            return text.plain(f"▶ {job.id}  {job.stage}  {bar(done)}  {steps}{loss}")
    if not jobs:
        return "No job has run. One starts with POST /api/jobs and a recipe."
    last = jobs[-1]
    outcome = {"done": f"✓ done → {last.release}", "failed": f"✕ failed: {last.error}", "cancelled": "■ cancelled"}
    return text.plain(f"No job runs. Last: {last.id} {outcome.get(last.state, last.state)}")


def bar(done: float) -> str:
    """The progress bar of a job."""
    return text.bar(done, _BAR)


def ingest(found: Snapshot) -> str:
    """What the cloud has taken in since it started."""
    counters = found.ingest
    refused = f"▲ {counters.refused} refused" if counters.refused else "0 refused"
    return (
        f"since start: {text.count(counters.chunks)} chunks, {text.count(counters.samples)} samples, "
        f"{counters.sealed} sealed, {counters.duplicates} twice, {refused}"
    )
