"""`embridge fleet`: what was decided about every edge, and what it says."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any
from urllib.parse import quote

import typer

app = typer.Typer(
    no_args_is_help=True,
    help="The fleet: releases, pins and cohorts of edges.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Url = Annotated[
    str | None, typer.Option(help="Address of the cloud's HTTP interface; by default that of the settings.")
]
Which = Annotated[str, typer.Argument(help="Name of the edge.")]


@app.command("list")
def list_edges(
    cohort: Annotated[str, typer.Option(help="Edges of this cohort only.")] = "",
    release: Annotated[str, typer.Option(help="Edges that run this release only.")] = "",
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List every edge: the release it runs, the one it was asked to run, and where its update stands."""
    from embridge_shared.cloud_client import connect

    rows = [
        row
        for row in connect(url).get("/api/fleet")
        if (not cohort or row["cohort"] == cohort)
        and (not release or (row["reported"] or {}).get("release") == release)
    ]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    if not rows:
        typer.echo("No edge has been seen yet." if not cohort and not release else "No edge is like that.", err=True)
    width = max([4, *(len(row["edge"]) for row in rows)])
    for row in rows:
        typer.echo(_line(row, width))


@app.command()
def show(edge: Which, url: Url = None, as_json: Json = False) -> None:
    """Show an edge: what was decided about it and why, what it says, and the history of both."""
    from embridge_shared.cloud_client import connect

    api = connect(url)
    row, rows = api.get(_path(edge)), api.get(_path(edge) + "/history")
    if as_json:
        typer.echo(json.dumps(row | {"history": rows}))
        return
    state = row["reported"] or {}
    update, health = state.get("update") or {}, state.get("health")
    typer.echo(f"edge      {row['edge']}, {_presence(row)}")
    typer.echo(f"cohort    {row['cohort'] or 'none'}")
    if row["pinned"]:
        typer.echo(f"pinned    {row['pinned']}: {row['pinned_why']}")
    typer.echo(f"runs      {state.get('release') or 'no release'}")
    typer.echo(f"asked     {row['release'] or 'nothing'}" + (f" by {row['rollout']}" if row["rollout"] else ""))
    typer.echo(f"update    {_update(row)}" + (f", try {update['attempts']}" if update.get("attempts", 0) > 1 else ""))
    if health:
        typer.echo(f"health    {_health(health)}")
    if row["recording"]:
        typer.echo(f"records   {row['recording']}: an update waits for its end")
    for entry in rows:
        said = ", ".join(f"{k} {v}" for k, v in entry["detail"].items() if k not in ("status", "request"))
        typer.echo(f"{entry['at'][:19]}  {entry['actor']:<20} {entry['action']}  {said}")


@app.command()
def pin(
    edge: Which,
    reason: Annotated[str, typer.Option(help="Why; whoever meets the pin later reads it.", prompt=True)],
    release: Annotated[str, typer.Option(help="The release it keeps; by default the one it runs.")] = "",
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Have an edge keep a release, whatever is rolled out."""
    from embridge_shared.cloud_client import connect
    from embridge_shared.errors import OperatorError

    api = connect(url)
    name = release or (api.get(_path(edge))["reported"] or {}).get("release", "")
    if not name:
        raise OperatorError(f"{edge} runs no release.", hint="Name one with --release.")
    _tell(api.put(_path(edge), {"pinned": name, "pinned_why": reason}), as_json=as_json)


@app.command()
def unpin(edge: Which, url: Url = None, as_json: Json = False) -> None:
    """Have an edge follow rollouts again, beginning with the latest."""
    from embridge_shared.cloud_client import connect

    _tell(connect(url).put(_path(edge), {"pinned": ""}), as_json=as_json)


@app.command()
def cohort(
    edges: Annotated[list[str], typer.Argument(help="Names of edges.")],
    name: Annotated[str, typer.Option(help='The cohort, as in "lab-2"; empty takes them out of theirs.')],
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Put edges into a cohort: rollouts can be limited to it."""
    from embridge_shared.cloud_client import connect

    api = connect(url)
    rows = [api.put(_path(edge), {"cohort": name}) for edge in edges]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        typer.echo(_line(row, max(len(edge) for edge in edges)))


def _path(edge: str) -> str:
    return f"/api/fleet/{quote(edge, safe='')}"


def _tell(row: dict[str, Any], *, as_json: bool) -> None:
    typer.echo(json.dumps(row) if as_json else _line(row, len(row["edge"])))


def _line(row: dict[str, Any], width: int) -> str:
    state = row["reported"] or {}
    marks = [f"cohort {row['cohort']}"] if row["cohort"] else []
    marks += [f"pinned: {row['pinned_why']}"] if row["pinned"] else []
    marks += ["records"] if row["recording"] else []
    running, target = state.get("release") or "-", row["release"] or "-"
    said = f"{row['edge']:<{width}}  {running:<16} {target:<16} {_presence(row):<14} {_update(row):<28}"
    return f"{said} {', '.join(marks)}".rstrip()


def _presence(row: dict[str, Any]) -> str:
    from embridge_shared.durations import spoken

    if row["reported"] is None:
        return "never seen"
    age = spoken(max(0.0, time.time() - row["heard_ns"] * 1e-9))
    return f"online {age}" if row["reported"]["online"] else f"away {age}"


def _update(row: dict[str, Any]) -> str:
    import msgspec

    from embridge_shared.fleet import UpdateState

    said = (row["reported"] or {}).get("update")
    return str(msgspec.convert(said, UpdateState)) if said else "idle"


def _health(health: dict[str, Any]) -> str:
    p99, sure = health["latency_p99_ms"], health["confidence"]
    parts = [f"{health['windows']} windows", f"{health['rate']:.0%} of those due"]
    parts += [] if p99 is None else [f"latency p99 {p99:.0f} ms"]
    parts += [] if sure is None else [f"confidence {sure:.2f}"]
    parts += [f"{health['crashes']} crashes"] if health["crashes"] else []
    return ", ".join(parts)
