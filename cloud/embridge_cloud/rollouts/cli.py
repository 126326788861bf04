"""`embridge rollout`: bring a release to the fleet in waves, watch it, stop it, take it back."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

if TYPE_CHECKING:
    from embridge_shared.cloud_client import CloudApi
    from embridge_shared.fleet import Rollout, RolloutPolicy

app = typer.Typer(
    no_args_is_help=True,
    help="Rollouts: a release reaches the fleet in waves.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

_STREAM_S = 40.0

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Url = Annotated[
    str | None, typer.Option(help="Address of the cloud's HTTP interface; by default that of the settings.")
]
Which = Annotated[str, typer.Argument(help='Id of the rollout, as in "r-0007".')]
Reason = Annotated[str, typer.Option(help="Why; it goes into the history.")]


@app.command()
def start(
    release: Annotated[str, typer.Argument(help='Name of the release, as in "embridge-3".')],
    policy: Annotated[Path | None, typer.Option(help="TOML file that says how; what it lacks is the cloud's.")] = None,
    waves: Annotated[str, typer.Option(help='Per cent of the edges after each wave, as in "5,25,100".')] = "",
    soak: Annotated[str, typer.Option(help='How long each wave soaks, as in "2h".')] = "",
    cohort: Annotated[str, typer.Option(help="Edges of this cohort only.")] = "",
    edge: Annotated[list[str] | None, typer.Option(help="This edge only; again for each.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would happen, and do nothing.")] = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Roll a release out."""
    import msgspec

    from embridge_shared.cloud_client import connect
    from embridge_shared.fleet import RolloutRequest

    api = connect(url)
    how = _policy(api, policy, waves, soak) if policy or waves or soak else None
    wish = RolloutRequest(release=release, policy=how, cohort=cohort, edges=tuple(edge or ()), dry_run=dry_run)
    found = api.post("/api/rollouts", msgspec.json.encode(wish))
    _tell(found, as_json=as_json, every=dry_run)


@app.command("list")
def list_rollouts(url: Url = None, as_json: Json = False) -> None:
    """List all rollouts, the oldest first."""
    from embridge_cloud.rollouts.table import headline
    from embridge_shared.cloud_client import connect

    rows = connect(url).get("/api/rollouts")
    if as_json:
        typer.echo(json.dumps(rows))
        return
    if not rows:
        typer.echo("Nothing was rolled out yet.", err=True)
    for row in rows:
        typer.echo(headline(_read(row)))


@app.command()
def show(
    rollout: Which,
    every: Annotated[bool, typer.Option("--all", help="Every edge, those that are done too.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Again whenever something changes, until it is over.")] = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Show a rollout: its waves, and the edges that are under way or failed."""
    from embridge_shared.cloud_client import connect

    api = connect(url)
    found = api.get(_path(rollout))
    _tell(found, as_json=as_json, every=every)
    if watch:
        _watch(api, rollout, found, as_json=as_json, every=every)


@app.command()
def history(rollout: Which, url: Url = None, as_json: Json = False) -> None:
    """Print what happened to a rollout, from the log that cannot be rewritten."""
    from embridge_shared.cloud_client import connect

    rows = connect(url).get(_path(rollout) + "/history")
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        said = ", ".join(f"{k} {v}" for k, v in row["detail"].items() if v != "" and k not in ("status", "request"))
        failed = f" [{row['detail']['status']}]" if row["detail"].get("status", 200) >= 400 else ""
        typer.echo(f"{row['at'][:19]}  {row['actor']:<20} {row['action']}{failed}  {said}".rstrip())


@app.command()
def approve(rollout: Which, reason: Reason = "", url: Url = None, as_json: Json = False) -> None:
    """Let the wave begin that waits for it."""
    _act(rollout, "approve", {"reason": reason}, url, as_json=as_json)


@app.command()
def advance(rollout: Which, reason: Reason = "", url: Url = None, as_json: Json = False) -> None:
    """Begin the next wave at once, without the rest of this one and without its approval."""
    _act(rollout, "advance", {"reason": reason}, url, as_json=as_json)


@app.command()
def pause(
    rollout: Which,
    reason: Annotated[str, typer.Option(help="Why; it goes into the history.", prompt=True)],
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Ask no more edges; those that were asked go on."""
    _act(rollout, "pause", {"reason": reason}, url, as_json=as_json)


@app.command()
def resume(rollout: Which, reason: Reason = "", url: Url = None, as_json: Json = False) -> None:
    """Go on after a pause; errors so far no longer count, and the soak begins anew."""
    _act(rollout, "resume", {"reason": reason}, url, as_json=as_json)


@app.command()
def abort(
    rollout: Which,
    reason: Annotated[str, typer.Option(help="Why; it goes into the history.", prompt=True)],
    keep: Annotated[bool, typer.Option("--keep", help="Leave the release where it runs; nothing is recalled.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Stop a rollout for good: its release is recalled, and every edge that took it returns to the one before."""
    from embridge_shared.errors import OperatorError

    if not yes:
        what = "stop it and leave the release where it runs" if keep else "recall its release and return every edge"
        typed = typer.prompt(f"This will {what}. Type {rollout} to go on", err=True)
        if typed.strip() != rollout:
            raise OperatorError("nothing was done: another id was typed.", hint=f"Type {rollout}, or give --yes.")
    _act(rollout, "abort", {"reason": reason, "keep": keep}, url, as_json=as_json)


def _act(rollout: str, verb: str, body: dict[str, Any], url: str | None, *, as_json: bool) -> None:
    from embridge_shared.cloud_client import connect

    _tell(connect(url).post(f"{_path(rollout)}/{verb}", body), as_json=as_json, every=False)


def _path(rollout: str) -> str:
    return f"/api/rollouts/{quote(rollout, safe='')}"


def _policy(api: CloudApi, path: Path | None, shares: str, soak: str) -> RolloutPolicy:
    """The cloud's policy, with what a file and then the options say instead."""
    import msgspec

    from embridge_cloud.rollouts.policy import merged, read_policy, waves
    from embridge_shared.durations import seconds
    from embridge_shared.errors import OperatorError
    from embridge_shared.fleet import RolloutPolicy

    policy = msgspec.convert(api.get("/api/rollout-policy"), RolloutPolicy)
    if path is not None:
        policy = read_policy(path, policy)
    soak_s = seconds(soak) if soak else policy.waves[-1].soak_s
    if shares:
        try:
            percent = [float(part.strip().removesuffix("%")) for part in shares.split(",")]
        except ValueError:
            raise OperatorError(f"{shares!r} are no waves.", hint='Give per cent, as in "5,25,100".') from None
        found = msgspec.to_builtins(waves([p / 100 for p in percent], soak_s=soak_s))
        policy = merged(policy, {"waves": found}, "--waves")
    elif soak:
        kept = [msgspec.structs.replace(wave, soak_s=soak_s) for wave in policy.waves]
        policy = msgspec.structs.replace(policy, waves=tuple(kept))
    return policy


def _read(row: dict[str, Any]) -> Rollout:
    import msgspec

    from embridge_shared.fleet import Rollout

    return msgspec.convert(row, Rollout)


def _tell(row: dict[str, Any], *, as_json: bool, every: bool) -> None:
    from embridge_cloud.rollouts.table import lines

    if as_json:
        typer.echo(json.dumps(row))
        return
    for line in lines(_read(row), time.time_ns(), every=every):
        typer.echo(line)


def _watch(api: CloudApi, rollout: str, shown: dict[str, Any], *, as_json: bool, every: bool) -> None:
    """Show it again after events, until it is over."""
    from dataclasses import replace

    if shown["ended_ns"]:
        return
    for line in replace(api, timeout_s=_STREAM_S).lines("/api/events"):
        if line not in ("event: rollout", "event: edge.update", "event: lost"):
            continue
        found = api.get(_path(rollout))
        if found != shown:
            shown = found
            if not as_json:
                typer.echo("")
            _tell(found, as_json=as_json, every=every)
        if found["ended_ns"]:
            return
