"""Routes of jobs and of the schedule that begins them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from starlette.responses import PlainTextResponse, Response

from embridge_cloud.api import models
from embridge_cloud.api.bodies import body_of, read_body
from embridge_cloud.api.roles import Role, access
from embridge_cloud.jobs.model import JobRequest
from embridge_cloud.jobs.runner import Jobs
from embridge_cloud.jobs.schedule import Schedule
from embridge_cloud.jobs.scheduler import Scheduler


class Overrule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A word against the gates.

    Attributes:
        reason: Why; kept with the decision.
    """

    reason: str


def add_jobs(app: FastAPI, jobs: Jobs, scheduler: Scheduler) -> None:
    """Add the routes."""
    _add_looks(app, jobs)
    _add_changes(app, jobs)
    _add_schedule(app, scheduler)


def _add_looks(app: FastAPI, jobs: Jobs) -> None:
    @app.get("/api/jobs", response_model=list[models.Job], tags=["jobs"])
    @access(Role.VIEWER)
    async def listing() -> Any:
        """All jobs, the oldest first."""
        return msgspec.to_builtins(jobs.shelf.all())

    @app.get("/api/jobs/{name}", response_model=models.Job, tags=["jobs"])
    @access(Role.VIEWER)
    async def one(name: str) -> Any:
        """One job and how far it is."""
        return msgspec.to_builtins(jobs.shelf.get(name))

    @app.get("/api/jobs/{name}/summary", response_model=dict[str, Any], tags=["jobs"])
    @access(Role.VIEWER)
    async def summary(name: str) -> Any:
        """What a finished job made."""
        return msgspec.to_builtins(await asyncio.to_thread(jobs.shelf.summary, name))

    @app.get("/api/jobs/{name}/recipe", response_model=dict[str, Any], tags=["jobs"])
    @access(Role.VIEWER)
    async def recipe(name: str) -> Any:
        """What a job makes: its whole recipe."""
        return msgspec.to_builtins(await asyncio.to_thread(jobs.shelf.recipe, name))

    @app.get("/api/jobs/{name}/log", response_class=PlainTextResponse, tags=["jobs"])
    @access(Role.VIEWER)
    async def log(name: str) -> Response:
        """The latest words of a job's child."""
        return PlainTextResponse(await asyncio.to_thread(jobs.shelf.log, name))


def _add_changes(app: FastAPI, jobs: Jobs) -> None:
    @app.post(
        "/api/jobs", status_code=201, response_model=models.Job, tags=["jobs"], openapi_extra=body_of(app, JobRequest)
    )
    @access(Role.OPERATOR, action="job.start")
    async def start(request: Request) -> Any:
        """Begin a realignment: of a recipe, or of what continues the champion of a line."""
        wish = read_body(await request.body(), JobRequest)
        job = await jobs.start(wish, by=request.state.principal.name)
        request.state.subject = (job.id,)
        request.state.detail = {"line": job.line, "version": job.version, "major": int(wish.major), "why": job.why}
        return msgspec.to_builtins(job)

    @app.delete("/api/jobs/{name}", response_model=models.Job, tags=["jobs"])
    @access(Role.OPERATOR, action="job.cancel")
    async def cancel(name: str) -> Any:
        """Stop a job that runs or waits."""
        return msgspec.to_builtins(await jobs.cancel(name))

    @app.post("/api/jobs/{name}/resume", response_model=models.Job, tags=["jobs"])
    @access(Role.OPERATOR, action="job.resume")
    async def resume(name: str) -> Any:
        """Go on with a job that failed or was cancelled, from its latest checkpoint."""
        return msgspec.to_builtins(await jobs.resume(name))

    @app.post(
        "/api/jobs/{name}/publish", response_model=models.Job, tags=["jobs"], openapi_extra=body_of(app, Overrule)
    )
    @access(Role.OPERATOR, action="job.publish")
    async def publish(name: str, request: Request) -> Any:
        """Publish a candidate that the gates refused."""
        said = read_body(await request.body(), Overrule)
        request.state.detail = {"reason": said.reason, "forced": 1}
        return msgspec.to_builtins(await jobs.publish(name, reason=said.reason, by=request.state.principal.name))


def _add_schedule(app: FastAPI, scheduler: Scheduler) -> None:
    @app.get("/api/schedule", response_model=models.ScheduleStanding, tags=["jobs"])
    @access(Role.VIEWER)
    async def schedule() -> Any:
        """When realignments begin by themselves, and what waits for the next one."""
        return msgspec.to_builtins(scheduler.standing())

    @app.put(
        "/api/schedule",
        response_model=models.ScheduleStanding,
        tags=["jobs"],
        openapi_extra=body_of(app, Schedule),
    )
    @access(Role.OPERATOR, action="schedule.change")
    async def change(request: Request) -> Any:
        """Change fields of the schedule; null returns one to that of the settings."""
        given = read_body(await request.body(), dict[str, Any])
        request.state.detail = {key: str(value) for key, value in given.items()}
        return msgspec.to_builtins(await scheduler.change(given))
