"""`embridge job`: realignments, from wish to release, and when they begin by themselves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote

import typer

from embridge_cloud.jobs import schedule_cli
from embridge_cloud.jobs.told import line_of, one
from embridge_shared.errors import EmbridgeError, OperatorError, Reason

if TYPE_CHECKING:
    from embridge_shared.cloud_client import CloudApi

app = typer.Typer(
    help="Jobs: make the next release, follow it, overrule or stop it.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(schedule_cli.app, name="schedule")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Url = Annotated[
    str | None, typer.Option(help="Address of the cloud's HTTP interface; by default that of the settings.")
]
Name = Annotated[str, typer.Argument(help="A job, as in realign-3.")]

_OPEN: Final = ("queued", "running")
_LOOK_S: Final = 1.0


@app.command()
def start(
    recipe: Annotated[Path | None, typer.Option(help="Recipe of the release, JSON; for the first of a line.")] = None,
    from_champion: Annotated[
        bool, typer.Option("--from-champion", help="Continue the newest release; what is done without --recipe.")
    ] = False,
    line: Annotated[str, typer.Option(help="Line of releases to continue.")] = "embridge",
    major: Annotated[
        bool, typer.Option("--major", help="Begin anew: pose encoder, communities and choice of head too.")
    ] = False,
    include: Annotated[
        list[str] | None, typer.Option(help="A suspicious session to use all the same; `*` for all of them.")
    ] = None,
    replay: Annotated[int | None, typer.Option(min=0, help="Windows of old sessions; 0 for all.")] = None,
    distil: Annotated[float | None, typer.Option(min=0, help="Weight of staying near the champion.")] = None,
    reason: Annotated[str, typer.Option(help="What for.")] = "",
    watch: Annotated[bool, typer.Option("--watch", help="Follow it to its end.")] = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Begin a realignment; one runs at a time, and one more may wait."""
    import msgspec

    from embridge_cloud.jobs.model import JobRequest
    from embridge_cloud.recipe import Recipe

    if recipe is not None and (from_champion or major or include or replay is not None or distil is not None):
        raise OperatorError("a recipe says all of that itself", hint="Give --recipe alone, or leave it out.")
    try:
        wanted = None if recipe is None else msgspec.json.decode(recipe.read_bytes(), type=Recipe)
    except (OSError, msgspec.DecodeError) as error:
        raise OperatorError(f"{recipe} is no recipe: {error}", reason=Reason.MALFORMED) from None
    wish = JobRequest(
        recipe=wanted, line=line, major=major, include=tuple(include or ()), replay=replay, distil=distil, why=reason
    )
    api = _api(url)
    job = api.post("/api/jobs", msgspec.json.encode(wish))
    if watch:
        job = _followed(api, job["id"], quiet=as_json)
    _tell(job, as_json)
    if watch:
        _judge(job)


@app.command("list")
def list_jobs(url: Url = None, as_json: Json = False) -> None:
    """List jobs, the oldest first."""
    rows = _api(url).get("/api/jobs")
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        typer.echo("No job has run.", err=True)
    for row in rows:
        typer.echo(line_of(row))


@app.command()
def show(name: Name, url: Url = None, as_json: Json = False) -> None:
    """Show a job: what it makes and of what, how it went, and what the gates said."""
    api = _api(url)
    job, gate = api.get(_path(name)), _or_nothing(lambda: api.get(f"{_path(name)}/gate"))
    if as_json:
        typer.echo(json.dumps({"job": job, "gate": gate}, ensure_ascii=False, indent=2))
        return
    typer.echo(one(job, gate))


@app.command()
def watch(name: Name, url: Url = None, as_json: Json = False) -> None:
    """Follow a job to its end; fails where it did, and ends with 5 where it was refused."""
    job = _followed(_api(url), name, quiet=as_json)
    _tell(job, as_json)
    _judge(job)


@app.command()
def cancel(name: Name, url: Url = None, as_json: Json = False) -> None:
    """Stop a job that runs or waits; `resume` goes on with it."""
    _tell(_api(url).delete(_path(name)), as_json)


@app.command()
def resume(name: Name, url: Url = None, as_json: Json = False) -> None:
    """Go on with a job that failed or was cancelled, from its latest checkpoint and on the same data."""
    _tell(_api(url).post(f"{_path(name)}/resume"), as_json)


@app.command()
def publish(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why; kept with the decision and in the audit log.")],
    force: Annotated[bool, typer.Option("--force", help="Overrule the gates.")] = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Publish a candidate that the gates refused."""
    if not force:
        raise OperatorError(f"the gates refused {name}", hint="`--force` overrules them, with your name.")
    _tell(_api(url).post(f"{_path(name)}/publish", {"reason": reason}), as_json)


@app.command()
def log(name: Name, url: Url = None) -> None:
    """Print the latest words of a job's training process."""
    typer.echo(_api(url).read(f"{_path(name)}/log").decode("utf-8", "replace"), nl=False)


@app.command()
def recipe(name: Name, url: Url = None) -> None:
    """Print the recipe of a job, JSON; changed, it serves `start --recipe`."""
    typer.echo(json.dumps(_api(url).get(f"{_path(name)}/recipe"), ensure_ascii=False, indent=2))


def _api(url: str | None) -> CloudApi:
    from embridge_shared.cloud_client import connect

    return connect(url)


def _path(name: str) -> str:
    return f"/api/jobs/{quote(name, safe='')}"


def _or_nothing(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except OperatorError as error:
        if error.reason is not Reason.NOT_FOUND:
            raise
        return None


def _followed(api: CloudApi, name: str, *, quiet: bool) -> dict[str, Any]:
    """A job once it is over; its stages are told on standard error meanwhile."""
    told = ""
    while True:
        job: dict[str, Any] = api.get(_path(name))
        now = line_of(job)
        if not quiet and now != told:
            at = datetime.now(UTC).strftime("%H:%M:%S")
            typer.echo(f"{at}  {now}", err=True)
            told = now
        if job["state"] not in _OPEN:
            return job
        time.sleep(_LOOK_S)


def _tell(job: dict[str, Any], as_json: bool) -> None:
    typer.echo(json.dumps(job) if as_json else line_of(job))


def _judge(job: dict[str, Any]) -> None:
    """End as the job did."""
    from embridge_shared.errors import ModelError

    if job["state"] == "refused":
        raise ModelError(f"{job['line']}-{job['version']} was refused.", reason=Reason.UNHEALTHY, hint=job["error"])
    if job["state"] != "done":
        raise EmbridgeError(
            f"{job['id']} {job['state']}: {job['error']}" if job["error"] else f"{job['id']} {job['state']}"
        )
