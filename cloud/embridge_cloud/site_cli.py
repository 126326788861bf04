"""`embridge site`: the authority of a site, its broker, its cloud and its edges."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from embridge_cloud.site.site import Site

app = typer.Typer(
    help="Certificates and broker of a site: make them, provision edges, renew, revoke.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Folder = Annotated[Path, typer.Option("--site", help="Folder of the site.")]
Ca = Annotated[Path | None, typer.Option("--ca", help="Folder of the authority's key; by default `ca` in the site's.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_RELOAD = "Give broker/ to the broker and let it read its files again: `systemctl reload mosquitto`, or SIGHUP."


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where to make it; must not exist, or be empty.")],
    broker_host: Annotated[
        list[str] | None, typer.Option(help="Name or address of the broker; the first is what edges are told.")
    ] = None,
    cloud_host: Annotated[
        list[str] | None, typer.Option(help="Name or address of the cloud's HTTP interface; by default the broker's.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the site.")] = "embridge",
    broker_port: Annotated[int, typer.Option(help="Port of the broker.", min=1, max=65535)] = 8883,
    http_port: Annotated[int, typer.Option(help="Port of the HTTP interface.", min=1, max=65535)] = 8470,
    bind: Annotated[
        str | None, typer.Option(help="Address the broker listens on; by default all, or loopback for a local broker.")
    ] = None,
    days: Annotated[int, typer.Option(help="How long a certificate lasts.", min=1)] = 365,
    ca_days: Annotated[int, typer.Option(help="How long the authority lasts.", min=1)] = 3650,
    max_connections: Annotated[int, typer.Option(help="Connections the broker takes.", min=1)] = 4096,
    broker_folder: Annotated[
        Path | None, typer.Option(help="Where the broker will find its files; by default where they are made.")
    ] = None,
    cloud_folder: Annotated[
        Path | None, typer.Option(help="Where the cloud process will find its files; by default where they are made.")
    ] = None,
    ca: Ca = None,
) -> None:
    """Make an authority, the certificates of broker and cloud, and the configuration of both."""
    from embridge_cloud.site import layout
    from embridge_cloud.site.register import Layout
    from embridge_cloud.site.site import check_hosts, make
    from embridge_shared.clock import SystemClock
    from embridge_shared.tls import is_loopback

    brokers = check_hosts(broker_host or ["127.0.0.1"])
    local = all(map(is_loopback, brokers))
    folder = folder.absolute()
    plan = Layout(
        broker_hosts=brokers,
        broker_port=broker_port,
        bind=check_hosts([bind])[0] if bind else "127.0.0.1" if local and bind is None else "",
        broker_folder=layout.check_plain("a folder", str(broker_folder or folder / layout.BROKER)),
        max_connections=max_connections,
        cloud_hosts=check_hosts(cloud_host or brokers),
        http_port=http_port,
        cloud_folder=layout.check_plain("a folder", str(cloud_folder or folder / layout.CLOUD)),
        days=days,
    )
    make(folder, name, plan, clock=SystemClock(), ca=ca, ca_days=ca_days)
    keys = ca if ca is not None else folder / layout.AUTHORITY
    typer.echo(f"The site {name} is in {folder}.", err=True)
    typer.echo(f"broker/  start it with `mosquitto -c {plan.broker_folder}/mosquitto.conf`", err=True)
    if os.geteuid() == 0 and broker_folder is None:
        typer.echo(
            "         Started by root, Mosquitto becomes the user mosquitto, who may not look in there: "
            "make the site with --broker-folder, and `install -o mosquitto` broker/* into it.",
            err=True,
        )
    typer.echo(
        f"cloud/   start it with EMBRIDGE_CONFIG={plan.cloud_folder}/embridge.toml `embridge cloud run`", err=True
    )
    typer.echo(
        f"{keys}/ca.key lets its holder admit anybody: move it to a medium that is not connected, "
        "and bring it to provision, renew or revoke.",
        err=True,
    )


@app.command()
def edge(
    name: Annotated[str, typer.Argument(help="Name of the edge.")],
    out: Annotated[Path | None, typer.Option(help="The bundle; by default NAME.edge.tar.")] = None,
    site: Folder = Path(),
    renew: Annotated[bool, typer.Option("--renew", help="It has a certificate already and is to get another.")] = False,
    days: Annotated[int | None, typer.Option(help="How long it lasts; by default as the site says.", min=1)] = None,
    registry: Annotated[
        Path | None, typer.Option(help="Folder of the registry of releases; by default the cloud's own.")
    ] = None,
    ca: Ca = None,
) -> None:
    """Make the bundle that `embridge edge install` takes; it holds the edge's key, of which no copy is kept."""
    from embridge_cloud.site.site import update_root
    from embridge_shared import settings
    from embridge_shared.archive import write_atomically
    from embridge_shared.errors import OperatorError
    from embridge_shared.provision import SUFFIX
    from embridge_shared.wire.topics import check_edge

    target = out or Path(f"{check_edge(name)}{SUFFIX}")
    if target.exists():
        raise OperatorError(f"{target} is there already", hint="Nothing is overwritten: give another with --out.")
    root = update_root(registry or settings.load().cloud.state_dir / "registry")
    write_atomically(target, _open(site, ca).edge(name, root=root, renew=renew, days=days), mode=0o600)
    typer.echo(str(target))
    if root is None:
        typer.echo("There is no registry of releases yet: this edge will take none until it has a root.", err=True)
    typer.echo(
        f"On the edge: `embridge edge install{' --renew' if renew else ''} {target.name}`. Then remove it.", err=True
    )


@app.command()
def ingester(
    first: Annotated[int, typer.Argument(help="First shard, 0 to 255.")],
    last: Annotated[int, typer.Argument(help="Last shard, 0 to 255.")],
    site: Folder = Path(),
    ca: Ca = None,
) -> None:
    """Make the files of a further cloud process that ingests some shards: two cannot share a certificate."""
    folder = _open(site, ca).ingester(first, last)
    typer.echo(str(folder))
    typer.echo(f"Take it to where its embridge.toml says. {_RELOAD}", err=True)


@app.command("list")
def list_certificates(site: Folder = Path(), as_json: Json = False) -> None:
    """List every certificate with its end and where it stands."""
    rows = [
        {
            "name": c.name,
            "role": c.role.value,
            "serial": c.serial,
            "ends": datetime.fromtimestamp(c.ends_ns // 1_000_000_000, UTC).date().isoformat(),
            "standing": standing.value,
            "reason": c.reason,
        }
        for c, standing in _open(site, None).standing()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        line = f"{row['name']:<24} {row['role']:<7} {row['ends']}  {row['standing']:<9} {row['reason']}"
        typer.echo(line.rstrip())


@app.command()
def renew(
    site: Folder = Path(),
    within_days: Annotated[int, typer.Option(help="Renew what ends within so many days.", min=0)] = 30,
    ca: Ca = None,
) -> None:
    """Renew the certificates of broker and cloud that end soon, and name the edges whose do."""
    from embridge_cloud.site.register import Role, Standing

    opened = _open(site, ca)
    renewed = opened.renew(within_days=within_days)
    for made in renewed:
        typer.echo(f"{made.role.value} {made.name}")
    for found, standing in opened.standing():
        if found.role is Role.EDGE and standing in (Standing.ENDING, Standing.ENDED):
            typer.echo(f"{found.name}: {standing.value}; `embridge site edge {found.name} --renew`", err=True)
    typer.echo(_RELOAD if renewed else "Nothing of broker or cloud ends that soon.", err=True)
    if renewed:
        typer.echo("Restart the cloud process with its new files.", err=True)


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Name of an edge, or another one in `embridge site list`.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the list.")],
    site: Folder = Path(),
    replaced_only: Annotated[
        bool, typer.Option("--replaced-only", help="Only certificates that a newer one has replaced.")
    ] = False,
    ca: Ca = None,
) -> None:
    """Let a name's certificates no longer count."""
    for gone in _open(site, ca).revoke(name, reason, replaced_only=replaced_only):
        typer.echo(f"{gone.role.value} {gone.name} {gone.serial}")
    typer.echo(_RELOAD, err=True)


def _open(folder: Path, ca: Path | None) -> Site:
    from embridge_cloud.site.site import Site
    from embridge_shared.clock import SystemClock

    return Site(folder, SystemClock(), ca=ca)
