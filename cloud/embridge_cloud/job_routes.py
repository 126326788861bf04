"""Routes and figures of jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from embridge_cloud.api import models
from embridge_cloud.api.bodies import body_of, read_body
from embridge_cloud.api.metrics import gauges
from embridge_cloud.api.roles import Role, access
from embridge_cloud.jobs import Jobs, JobState
from embridge_cloud.recipe import Recipe


class JobFigures(Collector):
    """Jobs for a monitor.

    Args:
        jobs: What runs them.
    """

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def describe(self) -> Iterable[Metric]:
        """Nothing: its families depend on what there is."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Families of figures."""
        states = Counter(job.state for job in self._jobs.list())
        yield gauges("jobs", "Jobs by state.", ["state"], {(s.value,): states[s] for s in JobState})


def add_jobs(app: FastAPI, jobs: Jobs) -> None:
    """Add the routes of jobs."""

    @app.post(
        "/api/jobs", status_code=201, response_model=models.Job, tags=["jobs"], openapi_extra=body_of(app, Recipe)
    )
    @access(Role.OPERATOR, action="job.start")
    async def start(request: Request) -> Any:
        """Start a realignment; the body is a recipe."""
        job = jobs.start(read_body(await request.body(), Recipe))
        request.state.subject = (job.id,)
        return msgspec.to_builtins(job)

    @app.get("/api/jobs", response_model=list[models.Job], tags=["jobs"])
    @access(Role.VIEWER)
    async def listing() -> Any:
        """All jobs, the oldest first."""
        return msgspec.to_builtins(jobs.list())

    @app.get("/api/jobs/{name}", response_model=models.Job, tags=["jobs"])
    @access(Role.VIEWER)
    async def one(name: str) -> Any:
        """One job and how far it is."""
        return msgspec.to_builtins(jobs.get(name))

    @app.get("/api/jobs/{name}/summary", response_model=dict[str, Any], tags=["jobs"])
    @access(Role.VIEWER)
    async def summary(name: str) -> Any:
        """What a finished job made."""
        return msgspec.to_builtins(jobs.summary(name))

    @app.delete("/api/jobs/{name}", response_model=models.Job, tags=["jobs"])
    @access(Role.OPERATOR, action="job.cancel")
    async def cancel(name: str) -> Any:
        """Stop a running job."""
        return msgspec.to_builtins(await jobs.cancel(name))
