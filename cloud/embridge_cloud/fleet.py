"""The part of the cloud that learns and ships: jobs, the registry of releases, and offers to edges."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from embridge_cloud.api import models
from embridge_cloud.api.bodies import body_of, read_body
from embridge_cloud.api.metrics import gauge
from embridge_cloud.api.roles import Role, access
from embridge_cloud.context import CloudContext
from embridge_cloud.job_routes import JobFigures, add_jobs
from embridge_cloud.jobs import Job, Jobs
from embridge_cloud.recipe import Summary
from embridge_cloud.registry import Registry
from embridge_shared.errors import EmbridgeError, OperatorError, Reason
from embridge_shared.manifest import Published
from embridge_shared.wire import topics
from embridge_shared.wire.messages import Desired, pack

logger = logging.getLogger(__name__)

_REFRESH_S = 86_400.0


class Offer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request to roll a release out.

    Attributes:
        edges: Names; every known edge when empty.
    """

    edges: tuple[str, ...] = ()


class Fleet:
    """Trains, publishes and offers releases.

    Args:
        context: The running cloud process.
    """

    def __init__(self, context: CloudContext) -> None:
        self._context = context
        state_dir = context.settings.cloud.state_dir
        self.registry = Registry(context.updates_dir.parent, context.clock)
        self.jobs = Jobs(
            state_dir / "jobs", context.catalogue.directory, context.clock, self._publish, on_change=self._tell
        )

    async def _publish(self, folder: Path, summary: Summary) -> None:
        published = await asyncio.to_thread(self.registry.publish, folder / summary.bundle)
        self._context.events.publish("release", published.name, digest=published.digest)

    def _tell(self, job: Job) -> None:
        self._context.events.publish("job", job.id, state=job.state.value, release=job.release, error=job.error)

    def release(self, name: str) -> Published:
        """A published release.

        Raises:
            OperatorError: There is none of that name.
        """
        for published in self.registry.releases():
            if published.name == name:
                return published
        raise OperatorError(
            f"there is no release {name!r}", reason=Reason.NOT_FOUND, hint="`embridge release list` shows them."
        )

    async def offer(self, name: str, edges: tuple[str, ...]) -> list[str]:
        """Tell edges to run a release: a retained message, so those that are away learn of it later.

        Raises:
            OperatorError: The release or an edge is not known.
            NetworkError: The broker did not take it.
        """
        published = self.release(name)
        known = [row["edge"] for row in self._context.store.read.records("SELECT edge FROM edges ORDER BY edge")]
        unknown = sorted(set(edges) - set(known))
        if unknown or not known:
            raise OperatorError(
                f"{', '.join(unknown) or 'no edge'} has not been seen here",
                reason=Reason.NOT_FOUND,
                hint="An edge is known once it has connected.",
            )
        desired = Desired(
            release=published.name, digest=published.digest, url=f"{self._context.url}/updates", rollout=published.name
        )
        chosen = list(edges) or known
        for edge in chosen:
            await self._context.ingester.publish(topics.desired_topic(edge), pack(desired), retain=True)
        logger.info("offered %s to %s", name, ", ".join(chosen))
        self._context.events.publish("rollout", published.name, edges=chosen)
        return chosen

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


def add_fleet(app: FastAPI, context: CloudContext) -> None:
    """Add the routes of jobs and releases to a cloud process."""
    fleet = Fleet(context)
    context.tasks.create_task(fleet.keep_fresh(), name="fleet")
    context.metrics.registry.register(_Figures(fleet))
    context.metrics.registry.register(JobFigures(fleet.jobs))
    add_jobs(app, fleet.jobs)
    _add_releases(app, fleet)


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

    @app.post(
        "/api/releases/{name}/rollout",
        response_model=list[str],
        tags=["releases"],
        openapi_extra=body_of(app, Offer, required=False),
    )
    @access(Role.OPERATOR, action="release.rollout")
    async def rollout(name: str, request: Request) -> Any:
        """Offer a release to edges; returns their names."""
        body = await request.body()
        chosen = await fleet.offer(name, read_body(body, Offer).edges if body else ())
        request.state.detail = {"edges": len(chosen)}
        return chosen
