"""The loop, stage by stage: record, train, roll out, decode, judge."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from embridge_cloud.demo.site import Site, open_site
from embridge_cloud.demo.worlds import World
from embridge_cloud.jobs.model import JobRequest
from embridge_cloud.recipe import Summary
from embridge_cloud.rollouts.policy import ONE_WAVE
from embridge_cloud.store.sealed import Catalogue, SealedSession
from embridge_shared.errors import EmbridgeError
from embridge_shared.fleet import RolloutRequest
from embridge_shared.session import Purpose

_SEAL_S = 120.0
_TRAIN_S = 3600.0
_ROLLOUT_S = 120.0


class Watcher(Protocol):
    """Sees how far the demonstration is."""

    def stage(self, name: str, text: str) -> None:
        """A stage begins."""
        ...

    def progress(self, done: float, total: float, text: str) -> None:
        """How far it is."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of the loop left behind.

    Attributes:
        world: It ran in.
        stages: Wall time of each stage, s.
        digests: What the edges say about their sessions.
        sessions: All sealed sessions, by participant.
        ingest: The ingester's counters.
        job: Folder of the training job.
        summary: What it made.
        edges: Last state of every edge that decoded, as the cloud knows it.
        registry_digest: sha256 of the release in the registry.
        controls: Folder of the job that made the controls with broken pairs.
    """

    world: World
    stages: dict[str, float]
    digests: list[dict[str, Any]]
    sessions: list[SealedSession]
    ingest: dict[str, Any]
    job: Path
    summary: Summary
    edges: list[dict[str, Any]]
    registry_digest: str
    controls: Path

    @property
    def decoded(self) -> list[SealedSession]:
        """Evaluation sessions that the release decoded live."""
        return [
            s
            for s in self.sessions
            if s.session.purpose is Purpose.EVALUATION and s.session.release == self.summary.release
        ]

    @property
    def evaluated(self) -> list[SealedSession]:
        """The same with every calibration."""
        return [*(s for s in self.sessions if s.session.purpose is Purpose.CALIBRATION), *self.decoded]


def run_loop(world: World, folder: Path, watcher: Watcher) -> Outcome:
    """Run the whole loop with processes of their own, under `folder`.

    Raises:
        EmbridgeError: A stage failed; the message tells which and why.
    """
    stages: dict[str, float] = {}
    with open_site(folder, world.chunk_s) as site:
        run = Run(site, world, watcher, stages)
        run.timed("record_s", run.record)
        job = run.timed("train_s", run.train)
        run.timed("rollout_s", lambda: run.roll_out(job["release"]))
        run.timed("decode_s", run.decode)
        return gathered(site, world, stages, job["id"])


def gathered(site: Site, world: World, stages: dict[str, float], job: str) -> Outcome:
    """What a site holds once everything is recorded and decoded.

    Args:
        site: It.
        world: It ran in.
        stages: Wall time of each stage, s.
        job: The job that made the release in force.
    """
    summary = msgspec.convert(site.get(f"/api/jobs/{job}/summary"), Summary)
    releases = {r["name"]: r for r in site.get("/api/releases")}
    return Outcome(
        world=world,
        stages=stages,
        digests=site.digests(),
        sessions=sorted(Catalogue(site.sealed).sessions(), key=lambda s: (s.session.participant.id, s.session.purpose)),
        ingest=site.get("/api/ingest"),
        job=site.jobs / job,
        summary=summary,
        edges=[e for e in site.get("/api/edges") if e["edge"] in world.live_edges],
        registry_digest=releases[summary.release]["digest"],
        controls=site.jobs / job,
    )


class Run:
    """The stages of the loop on a site.

    Args:
        site: Its processes.
        world: Who records what.
        watcher: Sees how far it is.
        stages: Takes the wall time of each stage, s.
    """

    def __init__(self, site: Site, world: World, watcher: Watcher, stages: dict[str, float]) -> None:
        self._site = site
        self._world = world
        self._watcher = watcher
        self._stages = stages

    def timed(self, name: str, work: Callable[[], Any]) -> Any:
        """Do some work and add its wall time to a stage's."""
        began = time.monotonic()
        result = work()
        self._stages[name] = round(self._stages.get(name, 0.0) + time.monotonic() - began, 2)
        return result

    def record(self) -> None:
        """Let wearers record until everything is sealed."""
        total, _ = self._world.sessions
        self._watcher.stage("record", f"{total} wearers record with pose; edges publish, the cloud stores and seals")
        before = self._sealed()
        self._site.start_edges("recording", self._world.recording)
        self._finish(before, total)

    def roll_out(self, release: str) -> None:
        """Bring a release to all edges at once, which then begin with what they decode."""
        self._watcher.stage("rollout", f"{release} is signed; the edges fetch, verify, self-test and activate it")
        self._site.post("/api/rollouts", msgspec.json.encode(RolloutRequest(release=release, policy=ONE_WAVE)))
        self._site.start_edges("live", self._world.live)

        def running() -> bool:
            self._site.check_edges()
            known = {e["edge"]: e["release"] for e in self._site.get("/api/edges")}
            return all(known.get(edge) == release for edge in self._world.live_edges)

        self._site.wait_until(running, "the rollout", _ROLLOUT_S)
        self._watcher.progress(1, 1, f"{len(self._world.live_edges)} edges run {release}")

    def decode(self) -> None:
        """Let held-out wearers calibrate and decode until everything is sealed."""
        recorded, total = self._world.sessions
        self._watcher.stage("decode", "held-out wearers calibrate, then every gesture is decoded on the edge")
        self._finish(recorded, total)

    def decode_more(self) -> None:
        """The same of edges that have not begun."""
        _, total = self._world.sessions
        self._watcher.stage("decode", f"{total} sessions of held-out wearers are calibrated and decoded on the edges")
        before = self._sealed()
        self._site.start_edges("live", self._world.live)
        self._finish(before, total)

    def _finish(self, before: int, total: int) -> None:
        def tick() -> None:
            counters = self._site.get("/api/ingest")
            text = f"{counters['chunks']} chunks, {counters['samples'] / 1e6:.1f} M samples stored"
            self._watcher.progress(self._sealed() - before, total, text)

        self._site.wait_for_edges(tick)
        self._site.wait_until(lambda: self._sealed() == before + total, "sealing", _SEAL_S)
        tick()

    def _sealed(self) -> int:
        return len(self._site.get("/api/sessions?state=sealed"))

    def train(self) -> dict[str, Any]:
        """Have a candidate made, judged and published; the job that did.

        Raises:
            EmbridgeError: It failed, or the gate refused what it made.
        """
        job = self.candidate()
        if job["state"] != "done":
            raise EmbridgeError(f"training {job['state']}: {job['error']}")
        return job

    def candidate(self, wish: JobRequest | None = None) -> dict[str, Any]:
        """Have a candidate made and judged; the job, however it ended.

        Args:
            wish: What is asked for; the world's recipe by default.
        """
        self._watcher.stage("train", "masked pre-training, alignment with frozen pose, prototypes, export")
        job: dict[str, Any] = self._site.post(
            "/api/jobs", msgspec.json.encode(wish or JobRequest(recipe=self._world.recipe))
        )
        name = job["id"]

        def ended() -> bool:
            nonlocal job
            job = self._site.get(f"/api/jobs/{name}")
            text = f"{job['stage']} {job['step']}/{job['total']}" + (f", loss {job['loss']:.3f}" if job["loss"] else "")
            self._watcher.progress(job["step"], max(job["total"], 1), text)
            return job["state"] not in ("queued", "running")

        self._site.wait_until(ended, "training", _TRAIN_S)
        return job
