"""`embridge pose`: find what sends hand poses, watch it, calibrate a glove."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from embridge_edge.pose.gloves import GloveFile, GuidedPose
    from embridge_edge.pose.plan import AnyPose

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Find and watch hand poses; calibrate gloves.")

Word = Annotated[str, typer.Argument(help="udp:PORT, osc:PORT, lsl:NAME or camera:MODEL.task.", metavar="SOURCE")]
Rate = Annotated[float, typer.Option("--rate", min=0.1, help="Frames a second it sends.")]
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 hears the network.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def scan(
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to listen.")] = 3.0,
    udp: Annotated[int, typer.Option(help="Port to hear JSON on.")] = 9763,
    osc: Annotated[int, typer.Option(help="Port to hear OSC on.")] = 9000,
    as_json: AsJson = False,
) -> None:
    """List LSL streams and what is sent to the usual ports; what fits comes first."""
    import dataclasses

    from embridge_edge.pose import discovery
    from embridge_shared.clock import SystemClock
    from embridge_shared.errors import DeviceError, Reason

    found, troubles = asyncio.run(discovery.scan(seconds, udp=udp, osc=osc, clock=SystemClock()))
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(f) for f in found], indent=2, ensure_ascii=False))
        return
    for trouble in troubles:
        typer.echo(trouble, err=True)
    if not found:
        raise DeviceError(
            f"nothing sent hand poses within {seconds:g} s",
            reason=Reason.NOT_FOUND,
            hint="docs/examples/send_pose.py is a sender to try with; LSL needs UDP multicast or KnownPeers.",
        )
    for f in found:
        typer.echo(f"{f.measured or '-':7} {f.source:24} {f.what}")


@app.command()
def stream(
    source: Word,
    rate_hz: Rate = 60.0,
    glove: Annotated[bool, typer.Option("--glove", help="It sends glove sensors, not joint angles.")] = False,
    degrees: Annotated[bool, typer.Option("--degrees", help="It sends degrees.")] = False,
    calibration: Annotated[Path | None, typer.Option(help="Glove calibration; implies --glove.")] = None,
    host: Host = "127.0.0.1",
    seconds: Annotated[float | None, typer.Option(min=0.1, help="How long; until Ctrl-C by default.")] = None,
    every: Annotated[float, typer.Option(min=0.1, help="Between two updates, s.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """Show live what comes: frames expected, received, lost, clock, age of the last, what is malformed."""
    from embridge_edge.bands.monitor import Meter, follow, table
    from embridge_edge.pose.catalogue import open_pose
    from embridge_shared.clock import SystemClock
    from embridge_shared.errors import DeviceError

    clock = SystemClock()
    chosen = _source(source, rate_hz=rate_hz, glove=glove, degrees=degrees, calibration=calibration, host=host)
    meter = Meter(open_pose(chosen, Path(), clock), clock)

    def show(rows: list[dict[str, Any]]) -> None:
        if as_json or not sys.stdout.isatty():
            for row in rows:
                typer.echo(json.dumps(row, ensure_ascii=False))
            return
        from rich.console import Console

        Console().print(table(rows))

    asyncio.run(follow([meter], clock, 1e9 if seconds is None else seconds, show, every))
    if meter.error or not meter.received:
        raise DeviceError(meter.error or meter.silent())


@app.command()
def calibrate(
    out: Annotated[Path, typer.Argument(help="File to write; nothing is overwritten.")],
    source: Word,
    participant: Annotated[str, typer.Option(help="Pseudonym of the wearer.")],
    rate_hz: Rate = 60.0,
    host: Host = "127.0.0.1",
    prepare: Annotated[float, typer.Option(min=0.0, help="Time to take a pose, s.")] = 3.0,
    hold: Annotated[float, typer.Option(min=0.1, help="Time to hold it, s.")] = 3.0,
    as_json: AsJson = False,
) -> None:
    """Calibrate a glove: five poses, each held for some seconds; a plan names the file."""
    from embridge_edge.pose import gloves
    from embridge_shared.clock import SystemClock
    from embridge_shared.errors import DataError

    if out.exists():
        raise DataError(f"{out} exists", hint="Nothing is overwritten: choose another name.")
    clock = SystemClock()
    chosen = _source(source, rate_hz=rate_hz, glove=True, host=host)
    poses = asyncio.run(_guided(chosen, clock, prepare, hold))
    file = gloves.fit(poses, participant=participant, created_ns=clock.wall_ns())
    gloves.save(out, file)
    _tell(out, file, as_json=as_json)


def _tell(out: Path, file: GloveFile, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"file": str(out), "inverted": file.inverted, "still": file.still}, indent=2))
        return
    typer.echo(f'{out}: name it in the plan, [session.pose] calibration = "{out.name}", measured = "glove".')
    if file.inverted:
        typer.echo(f"inverted: {', '.join(file.inverted)}")
    if file.still:
        typer.echo(f"hardly moved, their joints stay near rest: {', '.join(file.still)}")


async def _guided(chosen: AnyPose, clock: Any, prepare_s: float, hold_s: float) -> dict[str, Any]:
    from embridge_edge.pose.catalogue import open_pose
    from embridge_edge.pose.guide import guide

    async def ready(pose: GuidedPose) -> None:
        typer.echo(f"{pose.prompt} Hold it in {prepare_s:g} s, for {hold_s:g} s.", err=True)
        await clock.sleep(prepare_s)

    return await guide(open_pose(chosen, Path(), clock), clock, ready, hold_s=hold_s)


def _source(
    word: str,
    *,
    rate_hz: float,
    host: str,
    glove: bool = False,
    degrees: bool = False,
    calibration: Path | None = None,
) -> AnyPose:
    from embridge_edge.pose.naming import parse

    options: dict[str, Any] = {"rate_hz": rate_hz}
    if word.startswith(("udp", "osc")):
        options["host"] = host
    if glove or calibration is not None:
        options["measured"] = "glove"
    if degrees:
        options["unit"] = "deg"
    if calibration is not None:
        options["calibration"] = str(calibration)
    return parse(word, **options)
