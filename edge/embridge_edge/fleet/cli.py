"""`embridge fleet simulate`: the load a cloud is measured with."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embridge_shared.errors import ConfigError, DataError, Reason

if TYPE_CHECKING:
    from embridge_edge.fleet.simulate import Outcome
    from embridge_shared.settings import Settings

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback()
def fleet() -> None:
    """Many edges at once."""


@app.command()
def simulate(
    edges: Annotated[int, typer.Option("--edges", min=1, help="How many; each has a connection and a spool.")] = 10,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="How long each records.")] = 30.0,
    channels: Annotated[int, typer.Option("--channels", min=1, max=1024, help="Channels of a band.")] = 16,
    rate: Annotated[float, typer.Option("--rate", min=1.0, help="Samples a second and channel.")] = 2000.0,
    chunk_s: Annotated[float, typer.Option("--chunk-s", min=0.01, max=5.0, help="Length of a chunk.")] = 0.5,
    outage: Annotated[float, typer.Option("--outage", min=0.0, help="Seconds without a network, amid the run.")] = 0.0,
    patience: Annotated[float, typer.Option("--patience", min=1.0, help="Seconds the cloud may lag behind.")] = 60.0,
    prefix: Annotated[str, typer.Option("--prefix", help="Edges are called PREFIX-0001 and so on.")] = "sim",
    identities: Annotated[
        Path | None,
        typer.Option(
            "--identities",
            help="Folder with NAME/embridge.toml an edge, as `embridge edge install --dir FOLDER/NAME` makes.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the signal, the sessions and the edges' phases.")] = 0,
    folder: Annotated[Path | None, typer.Option("--dir", help="For the spools; a temporary one by default.")] = None,
    verify: Annotated[str, typer.Option("--verify", help="Ask the cloud at this URL for every session.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Let simulated edges record and deliver: the real codec, spool and protocol, EMG of a simulated forearm."""
    import asyncio

    import msgspec

    from embridge_edge.fleet.edge import SimulatedEdge
    from embridge_edge.fleet.simulate import Load, run, signal
    from embridge_edge.fleet.simulate import verify as ask
    from embridge_shared import logs
    from embridge_shared.broker_visit import greet
    from embridge_shared.clock import SystemClock
    from embridge_shared.cloud_client import connect
    from embridge_shared.settings import load as load_settings

    base = load_settings()
    logs.configure_for(base)
    load = Load(seconds, rate, chunk_s, outage, patience)
    clock, emg = SystemClock(), signal(channels, seed)
    names = [f"{prefix}-{i:04d}" for i in range(1, edges + 1)]
    of = [_settings_of(base, name, identities) for name in names]
    greet(of[0].mqtt, f"edge-{names[0]}")

    async def everything(root: Path) -> Outcome:
        fleet = [
            SimulatedEdge(s, emg, rate, chunk_s, folder=root, clock=clock, seed=hash_of(seed, i))
            for i, s in enumerate(of)
        ]
        outcome = await run(fleet, load, clock)
        if verify:
            wanted = {e.session.id: e.samples for e in fleet}
            outcome = await ask(outcome, wanted, connect(verify, settings=base), clock, patience)
        return outcome

    with tempfile.TemporaryDirectory(prefix="embridge-fleet-") as temporary:
        outcome = asyncio.run(everything(folder or Path(temporary)))
    typer.echo(msgspec.json.encode(outcome).decode()) if as_json else _tell(outcome)
    if not outcome.whole:
        raise DataError(
            f"{outcome.lost} messages were not committed in time, {outcome.refused} refused"
            + (f"; {outcome.faults[0]}" if outcome.faults else ""),
            reason=Reason.TIMEOUT if outcome.lost else Reason.INVALID,
            hint="Look at the cloud's log, or give --patience.",
        )


def hash_of(seed: int, number: int) -> int:
    """A seed for the edge of a number."""
    return seed * 1_000_003 + number


def _settings_of(base: Settings, name: str, identities: Path | None) -> Settings:
    """The settings of one edge of the fleet."""
    import tomllib

    from embridge_shared.settings import MqttSettings

    edge = base.edge.model_copy(update={"name": name})
    if identities is None:
        if base.mqtt.cert_file is not None:
            raise ConfigError(
                f"one certificate ({base.mqtt.cert_file}) is one connection: edges that share it, and who else has it, "
                "push each other out.",
                hint=f"Give each an identity: `embridge site edge {name}`, `embridge edge install --dir FOLDER/{name} "
                f"{name}.edge.tar`, and so on; then --identities FOLDER.",
            )
        return base.model_copy(update={"edge": edge})
    path = identities / name / "embridge.toml"
    try:
        mqtt = MqttSettings(**tomllib.loads(path.read_text(encoding="utf-8")).get("mqtt", {}))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} does not say how edge {name} reaches the broker: {error}",
            hint=f"`embridge site edge {name}`, then `embridge edge install --dir {path.parent} {name}.edge.tar`.",
        ) from None
    return base.model_copy(update={"edge": edge, "mqtt": mqtt})


def _tell(found: Outcome) -> None:
    typer.echo(
        f"{found.edges} edges, {found.seconds:g} s: {found.chunks} chunks and {found.events} events, "
        f"{found.committed} committed, {found.resent} sent again, {found.refused} refused, {found.lost} lost"
    )
    if found.committed:
        typer.echo(f"commit after {found.commit_ms_p50:.0f} ms (median), {found.commit_ms_p99:.0f} ms (99 %)")
    if found.drain_s is not None:
        typer.echo(f"the outage's backlog was committed {found.drain_s:.1f} s after its end")
    typer.echo(f"processor time of the fleet: {found.cpu_s:.1f} s")
    if found.verified is not None:
        typer.echo(f"the cloud holds {found.verified} of {found.edges} sessions whole")
    for fault in found.faults:
        typer.echo(fault, err=True)
