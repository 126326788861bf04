"""`embridge fleet rehearse`: a rollout on simulated edges, before it is one on people's arms."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from embridge_edge.fleet.rehearse import Rehearsed
    from embridge_shared.fleet import RolloutPolicy

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback()
def fleet() -> None:
    """The edges of a cloud, and many at once."""


@app.command()
def rehearse(
    release: Annotated[str, typer.Argument(help="What is rolled out; published already.")],
    edges: Annotated[int, typer.Option("--edges", min=1, help="How many.")] = 100,
    before: Annotated[str, typer.Option("--from", help="Release that all of them run first.")] = "",
    waves: Annotated[str, typer.Option("--waves", help="Shares of the edges in percent, the last one 100.")] = (
        "5,25,100"
    ),
    soak_s: Annotated[float, typer.Option("--soak", min=0.0, help="Seconds a wave soaks, of the cloud's clock.")] = 2.0,
    probation_s: Annotated[float, typer.Option("--probation", min=0.0, help="Seconds on trial, of the edges'.")] = 60.0,
    max_errors: Annotated[float, typer.Option("--max-errors", min=0.0, max=1.0, help="Share that may fail.")] = 0.02,
    trouble: Annotated[
        list[str] | None,
        typer.Option(
            "--trouble",
            help="TROUBLE=SHARE, again for each: slow, flapping, corrupt-disk, stale-clock, mirror, and under the new "
            "release sluggish, starved, broken, crashing.",
        ),
    ] = None,
    speed: Annotated[float, typer.Option("--speed", min=0.1, help="Seconds of the edges' clock a second.")] = 20.0,
    seed: Annotated[int, typer.Option("--seed", help="Of who has which trouble.")] = 0,
    prefix: Annotated[str, typer.Option("--prefix", help="Edges are called PREFIX-0001 and so on.")] = "rehearsal",
    url: Annotated[str | None, typer.Option("--url", help="Of the cloud; by default that of the settings.")] = None,
    folder: Annotated[Path | None, typer.Option("--dir", help="For their state; a temporary one by default.")] = None,
    patience: Annotated[float, typer.Option("--patience", min=1.0, help="Seconds until it must be over.")] = 600.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Roll a release out to simulated edges, some of them in trouble, and say what became of it.

    The broker, the cloud, the protocol and the updater are the real ones: use a cloud that is there for rehearsals. A
    rollout that fails recalls its release there.
    """
    import asyncio

    import msgspec

    from embridge_edge.fleet import troubles
    from embridge_edge.fleet.rehearse import Rehearsal, settings_in
    from embridge_edge.fleet.rehearse import rehearse as run
    from embridge_shared import logs
    from embridge_shared.cloud_client import connect
    from embridge_shared.errors import ModelError, Reason
    from embridge_shared.settings import load

    base = load()
    logs.configure_for(base)
    asked = Rehearsal(
        release=release,
        policy=_policy(waves, soak_s, probation_s, max_errors),
        before=before,
        troubles=troubles.parse(trouble or []),
        patience_s=patience,
        seed=seed,
    )
    names = [f"{prefix}-{i:04d}" for i in range(1, edges + 1)]
    with tempfile.TemporaryDirectory(prefix="embridge-rehearsal-") as temporary:
        fleet = settings_in(base, names, folder or Path(temporary))
        found = asyncio.run(run(fleet, connect(url), asked, speed=speed))
    typer.echo(msgspec.json.encode(found).decode()) if as_json else _tell(found)
    if not found.settled:
        raise ModelError(
            f"the rehearsal of {release} ended {found.state}: {found.reason or '; '.join(found.faults)}",
            reason=Reason.UNHEALTHY,
            hint="`embridge rollout show` names the edges and their reasons.",
        )


def _policy(shares: str, soak_s: float, probation_s: float, max_errors: float) -> RolloutPolicy:
    from embridge_shared.errors import ConfigError
    from embridge_shared.fleet import RolloutPolicy, Trial, Wave

    try:
        found = [float(word) / 100 for word in shares.split(",")]
    except ValueError:
        raise ConfigError(f"{shares!r} are no shares", hint="Give percents, as in 5,25,100.") from None
    names = ["canary", *(f"wave-{i}" for i in range(2, len(found))), "all"][-len(found) :]
    return RolloutPolicy(
        waves=tuple(Wave(name=n, share=s, soak_s=soak_s) for n, s in zip(names, found, strict=True)),
        max_errors=max_errors,
        trial=Trial(probation_s=probation_s, min_windows=20),
    )


def _tell(found: Rehearsed) -> None:
    typer.echo(
        f"{found.release} to {found.edges} edges: {found.state} after {found.wall_s:.1f} s. {found.reason}".rstrip()
    )
    for wave in found.waves:
        typer.echo(f"  {wave.name:<8} {wave.committed}/{wave.edges} committed, {wave.errors} errors")
    typer.echo(f"it ran on {found.ran} edges, {found.back} of them run another one now")
    for trouble, phases in sorted(found.troubles.items()):
        typer.echo(f"  {trouble:<13} {', '.join(f'{n} {phase}' for phase, n in sorted(phases.items()))}")
    typer.echo(
        f"an edge: {found.said:.1f} messages out ({found.said_bytes:.0f} bytes), {found.heard:.1f} in "
        f"({found.heard_bytes:.0f} bytes), {found.http_bytes / 1024:.0f} KiB fetched"
    )
    typer.echo(f"the fleet: {found.cpu_s:.1f} s of processor time, {found.memory_mb:.0f} MB")
    for fault in found.faults:
        typer.echo(fault, err=True)
