"""`embridge edge install` and `check`: from a site's bundle to an edge the broker takes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer


def install(
    bundle: Annotated[Path, typer.Argument(help="What `embridge site edge` made.")],
    folder: Annotated[
        Path | None,
        typer.Option("--dir", help="Where to; by default the user's settings folder, which is always read."),
    ] = None,
    renew: Annotated[
        bool, typer.Option("--renew", help="Replace the certificate of the edge installed there.")
    ] = False,
) -> None:
    """Install the certificate and the settings a site made for this edge; nothing else is overwritten."""
    from embridge_edge.provision import SETTINGS
    from embridge_edge.provision import install as put
    from embridge_shared import settings
    from embridge_shared.clock import SystemClock

    user = settings.config_files()[0]
    place, name = (user.parent, user.name) if folder is None else (folder, SETTINGS)
    done = put(bundle, place, now_ns=SystemClock().wall_ns(), settings_name=name, renew=renew)
    typer.echo(str(done.settings))
    if not done.releases:
        typer.echo("The bundle holds no root of trust: this edge takes no releases.", err=True)
    before = "" if folder is None else f"EMBRIDGE_CONFIG={done.settings} "
    typer.echo(f"{done.site.edge} of {done.site.site}: ask the broker with {before}`embridge edge check`,", err=True)
    typer.echo(f"and remove {bundle}: it holds this edge's key.", err=True)


def check(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Ask the broker whether it takes this edge; the error says why not (2), or that it is away (3)."""
    from embridge_edge.identity import Credentials
    from embridge_edge.lock import is_running
    from embridge_edge.provision import strangers
    from embridge_shared import settings
    from embridge_shared.broker_visit import greet, knock
    from embridge_shared.clock import SystemClock
    from embridge_shared.tls import expiry_warning

    config = settings.load()
    end_ns = Credentials(config).ends_ns
    running = is_running(config.edge.state_dir)
    if running:
        knock(config.mqtt)
    else:
        greet(config.mqtt, f"edge-{config.edge.name}")
    stranded = strangers(config.edge.state_dir, config.edge.name, config.edge.spool_max_bytes)
    ends = datetime.fromtimestamp(end_ns // 1_000_000_000, UTC).date().isoformat() if end_ns else None
    broker = f"{config.mqtt.host}:{config.mqtt.port}"
    if as_json:
        body = {"edge": config.edge.name, "broker": broker, "tls": config.mqtt.ca_file is not None}
        body |= {"certificate_ends": ends, "agent_runs": running, "stranded": stranded}
        typer.echo(json.dumps(body, indent=2))
    else:
        typer.echo(f"{broker} takes {config.edge.name}{f'; its certificate ends on {ends}' if ends else ''}")
    warning = expiry_warning("its certificate", end_ns, SystemClock().wall_ns())
    for line in (
        warning,
        *(f"session {s} waits in the spool and no broker takes it under this name" for s in stranded),
    ):
        if line:
            typer.echo(line, err=True)
