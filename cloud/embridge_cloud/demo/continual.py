"""The loop again and again: data arrive in drops, and the fleet takes of each what the gate lets through.

Nothing is helped along: what continues a release leaves out by itself the sessions that were named in a refused one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from embridge_cloud.demo.drops import Arrivals, Drop
from embridge_cloud.demo.loop import Outcome, Run, Watcher, gathered
from embridge_cloud.demo.site import Site, open_site
from embridge_cloud.demo.worlds import World
from embridge_cloud.gates.files import read_guard
from embridge_cloud.jobs.model import JobRequest
from embridge_shared.errors import EmbridgeError
from embridge_shared.fleet import GateReport, Rollout, RolloutPolicy, RolloutRequest, RolloutState, Trial, Wave

POLICY: Final = RolloutPolicy(
    waves=(Wave(name="canary", share=0.25, soak_s=2.0), Wave(name="all", share=1.0, soak_s=1.0)),
    success=1.0,
    trial=Trial(shadow_windows=0, probation_s=2.0),
)
"""One edge of four first; short waits, because nobody is there to see more in longer ones."""

_ROLLOUT_S = 180.0
_ONLINE_S = 60.0
_OVER = (RolloutState.DONE, RolloutState.ABORTED, RolloutState.PAUSED)


@dataclass(frozen=True, slots=True)
class Step:
    """What became of one drop.

    Attributes:
        drop: It.
        job: The job's name.
        release: What it made.
        gate: How that was judged.
        suspicious: Sessions that were named, and why.
        rollout: How it reached the fleet; None where it was refused.
        bundle: The release in force afterwards.
        in_force: Its name; empty before the first.
    """

    drop: Drop
    job: str
    release: str
    gate: GateReport
    suspicious: dict[str, str]
    rollout: Rollout | None
    bundle: Path | None
    in_force: str

    @property
    def shipped(self) -> bool:
        """Whether the fleet runs it."""
        return self.rollout is not None and self.rollout.state is RolloutState.DONE


def run_continual(arrivals: Arrivals, folder: Path, watcher: Watcher) -> tuple[Outcome, tuple[Step, ...]]:
    """Let every drop arrive, under `folder`; what is left at the end, and what became of each drop.

    Raises:
        EmbridgeError: A stage failed; the message tells which and why.
    """
    stages: dict[str, float] = {}
    steps: list[Step] = []
    with open_site(folder, arrivals.world.chunk_s) as site:
        for drop in arrivals.drops:
            steps.append(_Drop(site, arrivals, drop, watcher, stages).step(steps))
        shipped = [s for s in steps if s.shipped]
        if not shipped:
            raise EmbridgeError("no drop made a release that reached the fleet: " + steps[-1].gate.reason)
        outcome = gathered(site, arrivals.world, stages, shipped[-1].job)
        # A release that continues another has no controls of its own: the first one's stand for the windows.
        return replace(outcome, controls=site.jobs / steps[0].job), tuple(steps)


class _Drop:
    """One drop on its way."""

    def __init__(self, site: Site, arrivals: Arrivals, drop: Drop, watcher: Watcher, stages: dict[str, float]) -> None:
        self._site = site
        self._arrivals = arrivals
        self._drop = drop
        self._watcher = watcher
        self._stages = stages

    def step(self, before: Sequence[Step]) -> Step:
        """Record, train, judge, roll out, decode."""
        run = self._run(replace(self._arrivals.world, recording=self._drop.recording, live={}))
        run.timed("record_s", run.record)
        wish = self._wish(before)
        job = run.timed("train_s", lambda: run.candidate(wish))
        gate = msgspec.convert(self._site.get(f"/api/jobs/{job['id']}/gate"), GateReport)
        named = {s.session: s.suspicious for s in read_guard(self._site.jobs / job["id"]) if s.suspicious}
        rollout = run.timed("rollout_s", lambda: self._roll_out(gate.candidate)) if gate.accepted else None
        last = before[-1] if before else None
        step = Step(
            drop=self._drop,
            job=job["id"],
            release=gate.candidate,
            gate=gate,
            suspicious=named,
            rollout=rollout,
            bundle=last.bundle if last else None,
            in_force=last.in_force if last else "",
        )
        if not step.shipped:
            self._watcher.progress(1, 1, f"{gate.candidate} goes nowhere: {_short(gate.reason)}")
            return step
        summary = self._site.get(f"/api/jobs/{job['id']}/summary")
        self._decode()
        return replace(step, bundle=self._site.jobs / job["id"] / summary["bundle"], in_force=gate.candidate)

    def _wish(self, before: Sequence[Step]) -> JobRequest:
        """The first release is made by a recipe; every later one continues the champion, without what was named."""
        recipe = None if any(s.shipped for s in before) else self._arrivals.world.recipe
        return JobRequest(recipe=recipe, why=f"drop {self._drop.number} arrived")

    def _run(self, world: World) -> Run:
        return Run(self._site, world, self._watcher, self._stages)

    def _roll_out(self, release: str) -> Rollout:
        """Wave after wave to edges that are there; however it ends."""
        edges = tuple(self._arrivals.drops[0].live)
        self._watcher.stage("rollout", f"{release} goes to {len(edges)} edges, one of them first")
        self._site.serve_edges(f"drop-{self._drop.number}", edges)
        self._site.wait_until(lambda: self._online(edges), "the edges", _ONLINE_S)
        wish = RolloutRequest(release=release, policy=POLICY, edges=edges)
        name = self._site.post("/api/rollouts", msgspec.json.encode(wish))["id"]
        found: list[Rollout] = []

        def over() -> bool:
            self._site.check_edges()
            found[:] = [_rollout(self._site.get(f"/api/rollouts/{name}"))]
            rollout = found[0]
            done = sum(p.phase == "committed" for p in rollout.edges)
            self._watcher.progress(done, len(edges), f"{rollout.state} in wave {rollout.wave + 1}, {done} committed")
            return rollout.state in _OVER

        self._site.wait_until(over, "the rollout", _ROLLOUT_S)
        self._site.stop_edges()
        return found[0]

    def _online(self, edges: Sequence[str]) -> bool:
        self._site.check_edges()
        known = {e["edge"] for e in self._site.get("/api/edges") if e["online"]}
        return known >= set(edges)

    def _decode(self) -> None:
        """Held-out wearers of this drop and of those before it decode with the new release."""
        live: dict[str, list[dict[str, Any]]] = {}
        for drop in self._arrivals.judged(self._drop):
            for edge, entries in drop.live.items():
                named = [e | {"name": f"{e['name']}-{self._drop.number}"} for e in entries]
                live.setdefault(edge, []).extend(named)
        run = self._run(replace(self._arrivals.world, recording={}, live=live))
        run.timed("decode_s", run.decode_more)


def _rollout(body: dict[str, Any]) -> Rollout:
    known = {name: body[name] for name in Rollout.__struct_fields__ if name in body}
    return msgspec.convert(known, Rollout)


def _short(reason: str) -> str:
    return reason if len(reason) < 160 else f"{reason[:157]} …"
