"""The part of the cloud that learns and ships: jobs, the registry of releases, and rollouts to edges."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from fastapi import FastAPI
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from embridge_cloud.api import models
from embridge_cloud.api.metrics import gauge
from embridge_cloud.api.roles import Role, access
from embridge_cloud.context import CloudContext
from embridge_cloud.gates.policy import policy_of as gate_policy
from embridge_cloud.jobs.figures import JobFigures
from embridge_cloud.jobs.model import Job, Limits
from embridge_cloud.jobs.office import Office
from embridge_cloud.jobs.routes import add_jobs
from embridge_cloud.jobs.runner import Jobs
from embridge_cloud.jobs.schedule import schedule_of
from embridge_cloud.jobs.scheduler import Scheduler
from embridge_cloud.jobs.shelf import Shelf as JobShelf
from embridge_cloud.registry import Registry
from embridge_cloud.release_routes import ReleaseBook, add_job_gate, add_release_book
from embridge_cloud.rollouts.carrier import Kept
from embridge_cloud.rollouts.driver import Rollouts
from embridge_cloud.rollouts.figures import RolloutFigures
from embridge_cloud.rollouts.policy import policy_of as rollout_policy
from embridge_cloud.rollouts.roster import Roster, stored_states
from embridge_cloud.rollouts.routes import add_rollouts
from embridge_cloud.rollouts.shelf import Shelf
from embridge_shared.errors import EmbridgeError
from embridge_shared.fleet import RolloutRequest
from embridge_shared.manifest import Published

logger = logging.getLogger(__name__)

_REFRESH_S = 86_400.0
_ACTOR = "rollouts"


class Fleet:
    """Trains, publishes and rolls out releases.

    Args:
        context: The running cloud process.
    """

    def __init__(self, context: CloudContext) -> None:
        self._context = context
        state_dir = context.settings.cloud.state_dir
        self.registry = Registry(context.updates_dir.parent, context.clock)
        self.jobs = self._jobs(state_dir)
        schedule = schedule_of(context.settings.realign)
        self.scheduler = Scheduler(self.jobs, state_dir / "schedule.json", context.clock, schedule)
        kept = Kept(Shelf(state_dir / "rollouts"), Roster(state_dir / "fleet.json"), self.registry)
        self.rollouts = Rollouts(kept, _Outlet(context), context.clock, url=f"{context.url}/updates")
        context.ingester.on_states = self.rollouts.hear

    def _jobs(self, state_dir: Path) -> Jobs:
        context, settings = self._context, self._context.settings.realign
        office = Office(
            self.registry,
            context.catalogue,
            context.clock,
            policy=gate_policy(context.settings.gate),
            replay=settings.replay,
            distil=settings.distil,
        )
        limits = Limits(
            nice=settings.nice,
            memory_bytes=settings.memory_mb << 20,
            threads=settings.threads,
            wall_s=settings.wall_s,
            attempts=settings.attempts,
            every=settings.checkpoint_steps,
        )
        return Jobs(JobShelf(state_dir / "jobs"), office, context.clock, ears=self, limits=limits)

    def changed(self, job: Job) -> None:
        """Tell of a job that began, went on or ended."""
        told = {"release": job.release, "candidate": job.candidate, "error": job.error, "accepted": job.accepted}
        self._context.events.publish("job", job.id, state=job.state.value, stage=job.stage, **told)

    def progressed(self, job: Job) -> None:
        """Tell how far a job is."""
        done = {"stage": job.stage, "step": job.step, "total": job.total, "loss": job.loss, "eta_s": job.eta_s}
        self._context.events.publish("job.progress", job.id, **done)

    async def published(self, job: Job, release: Published) -> None:
        """Tell of a new release, and roll it out where the schedule says so."""
        self._context.events.publish("release", release.name, digest=release.digest)
        if not self.scheduler.schedule.rollout or job.forced_by:
            return
        policy = rollout_policy(self._context.settings.rollout)
        rollout = await self.rollouts.start(RolloutRequest(release=release.name), policy, by=job.id)
        logger.info("%s is rolled out as %s", release.name, rollout.id)

    async def learn(self) -> None:
        """Go on with jobs of an earlier process, and begin those that are due."""
        await self.jobs.recover()
        await self.scheduler.run(self._context.stopping)

    async def roll_out(self) -> None:
        """Take up rollouts where an earlier process left them, and go on with them."""
        await self.rollouts.recover(await asyncio.to_thread(stored_states, self._context.store.read))
        await self.rollouts.run(self._context.stopping)

    async def keep_fresh(self) -> None:
        """Sign the timestamp anew every day, and end the job under way when the process ends."""
        stopping = self._context.stopping
        while not stopping.is_set():
            try:
                await asyncio.to_thread(self.registry.refresh_timestamp)
            except EmbridgeError as error:
                logger.error("the update repository was not refreshed: %s", error)
            try:
                async with asyncio.timeout(_REFRESH_S):
                    await stopping.wait()
            except TimeoutError:
                continue
        await self.jobs.close()


class _Outlet:
    """The way of rollouts to edges, listeners and the audit log of a running process."""

    def __init__(self, context: CloudContext) -> None:
        self._context = context

    @property
    def connection(self) -> int:
        status = self._context.ingester.status
        return status.connections if status.connected else 0

    async def publish_all(self, messages: Sequence[tuple[str, bytes]]) -> None:
        await self._context.ingester.publish_all(messages, retain=True)

    def event(self, kind: str, subject: str, **data: Any) -> None:
        self._context.events.publish(kind, subject, **data)

    async def history(self, action: str, subject: str, detail: Mapping[str, str | int | float]) -> None:
        record, now = self._context.audit.record, self._context.clock.wall_ns()
        try:
            await asyncio.to_thread(record, _ACTOR, action, subject, detail, now)
        except EmbridgeError as error:
            # A full disk must not keep a bad release on the edges.
            self._context.metrics.http.audit_failures.inc()
            logger.error("%s %s is not in the audit log: %s", action, subject, error)


def add_fleet(app: FastAPI, context: CloudContext) -> None:
    """Add jobs, releases and rollouts to a cloud process."""
    fleet = Fleet(context)
    context.tasks.create_task(fleet.keep_fresh(), name="fleet")
    context.tasks.create_task(fleet.roll_out(), name="rollouts")
    context.tasks.create_task(fleet.learn(), name="jobs")
    for figures in (
        _Figures(fleet),
        JobFigures(fleet.jobs, fleet.scheduler),
        RolloutFigures(fleet.rollouts, context.clock),
    ):
        context.metrics.registry.register(figures)
    add_jobs(app, fleet.jobs, fleet.scheduler)
    _add_releases(app, fleet)
    jobs = context.settings.cloud.state_dir / "jobs"
    add_release_book(app, ReleaseBook(fleet.registry, jobs, context.catalogue))
    add_job_gate(app, lambda name: jobs / fleet.jobs.shelf.get(name).id)
    add_rollouts(app, context, fleet.rollouts)


class _Figures(Collector):
    """Releases for a monitor."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        try:
            yield gauge("releases", "Releases published.", len(self._fleet.registry.releases()))
        except EmbridgeError as error:
            logger.warning("metrics are incomplete: %s", error)


def _add_releases(app: FastAPI, fleet: Fleet) -> None:
    @app.get("/api/releases", response_model=list[models.Release], tags=["releases"])
    @access(Role.VIEWER)
    async def releases() -> Any:
        """All releases."""
        return msgspec.to_builtins(fleet.registry.releases())
