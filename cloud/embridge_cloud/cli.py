"""`embridge cloud`: run the cloud process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embridge_shared.errors import ConfigError

if TYPE_CHECKING:
    from embridge_cloud.api.app import Extension

app = typer.Typer(
    no_args_is_help=True, help="The cloud process.", rich_markup_mode=None, pretty_exceptions_enable=False
)


@app.callback()
def cloud() -> None:
    """Ingest, store, HTTP interface and update repository."""


@app.command()
def run(
    embedded_broker: Annotated[
        bool | None, typer.Option("--embedded-broker/--no-embedded-broker", help="Run an MQTT broker inside.")
    ] = None,
    state_dir: Annotated[Path | None, typer.Option(help="Where everything is kept.")] = None,
    mqtt_host: Annotated[str | None, typer.Option(help="Broker.")] = None,
    mqtt_port: Annotated[
        int | None, typer.Option(help="Port of the broker; 0 lets an embedded one take any free port.")
    ] = None,
    http_port: Annotated[int | None, typer.Option(help="Port of the HTTP interface; 0 takes any free one.")] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="Written when ready: JSON with mqtt_host, mqtt_port, http_url, token_file, pid.")
    ] = None,
) -> None:
    """Run the cloud process until SIGTERM or Ctrl-C."""
    from embridge_shared import logs, settings

    typed: dict[str, dict[str, Any]] = {
        "cloud": {"embedded_broker": embedded_broker, "state_dir": state_dir, "http_port": http_port},
        "mqtt": {"host": mqtt_host, "port": mqtt_port or None},
    }
    given = {name: {k: v for k, v in part.items() if v is not None} for name, part in typed.items()}
    configuration = settings.load(**{name: part for name, part in given.items() if part})
    if mqtt_port == 0 and not configuration.cloud.embedded_broker:
        raise ConfigError("port 0 names no broker.", hint="Give its port, or add --embedded-broker.")
    logs.configure_for(configuration)

    from embridge_cloud.server import run_cloud

    run_cloud(configuration, extensions=extensions(), broker_port=mqtt_port, ready_file=ready_file)


def extensions() -> list[Extension]:
    """What a cloud process does besides taking in and answering: learn and ship, hand out, keep."""
    from embridge_cloud.blocks import add_blocks
    from embridge_cloud.exchange.routes import add_exchange
    from embridge_cloud.fleet import add_fleet
    from embridge_cloud.steward import add_steward

    return [add_fleet, add_blocks, add_exchange, add_steward]


@app.command()
def repair(
    state_dir: Annotated[Path | None, typer.Option(help="Where everything is kept.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Save what can be read of a damaged store, keep the rest aside, and say exactly what is missing.

    No cloud process may run. The damaged files stay as they were in a folder beside the store. Edges deliver what they
    still hold by themselves; what they were told to forget and cannot be read is listed by session, stream and sample.
    """
    import json

    import msgspec

    from embridge_cloud.context import CloudPaths
    from embridge_cloud.store.salvage import repair as mend
    from embridge_shared import settings
    from embridge_shared.clock import SystemClock

    configuration = settings.load(**({"cloud": {"state_dir": state_dir}} if state_dir is not None else {}))
    paths = CloudPaths.of(configuration)
    done = mend(paths.hot, paths.sealed, wall_ns=SystemClock().wall_ns())
    if as_json:
        typer.echo(json.dumps(None if done is None else msgspec.to_builtins(done)))
        return
    if done is None:
        typer.echo(f"{paths.hot} is whole: every row can be read, and nothing acknowledged is missing.")
        return
    typer.echo(f"opened      {done.opened}")
    typer.echo(f"rows        {sum(done.rows.values())} taken over, {sum(done.unread.values())} could not be read")
    typer.echo(
        f"sessions    {len(done.adopted)} sealed put on record again, {len(done.reopened)} opened from the ledger"
    )
    typer.echo(f"aside       {done.aside}")
    for part in done.missing:
        spans = ", ".join(f"{a}..{b}" for a, b in part.ranges)
        what = "events" if part.stream < 0 else f"samples of {part.name or f'stream {part.stream}'}"
        typer.echo(f"missing     {part.session}: {part.count} {what}: {spans}")
    if done.missing:
        sessions = sorted({str(p.session) for p in done.missing})
        typer.echo(
            f"Nobody has these any more. Restore a backup that does, or end the session{'s' * (len(sessions) > 1)} as "
            f"incomplete with `embridge session seal --force`.",
            err=True,
        )
    else:
        typer.echo("Nothing that was acknowledged is missing.")
