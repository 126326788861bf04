"""`embridge edge don`: say how the band sits after it was put on again, and correct for it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from embridge_edge.decode.donning import Look
    from embridge_edge.takes import Take
    from embridge_shared.clock import Clock
    from embridge_shared.settings import EdgeSettings

_SHAPES = ("fist", "open", "point", "thumbs_up", "pinch_index", "pinky_up", "three", "hook")


def don(
    participant: Annotated[str, typer.Option("--participant", "-p", help="Pseudonym of the wearer.")],
    band: Annotated[str, typer.Option("--band", help="KIND, KIND@ADDRESS or uart:PROFILE.toml.")] = "",
    adapter: Annotated[str, typer.Option(help="Bluetooth adapter; edge.adapter by default.")] = "",
    replay: Annotated[Path | None, typer.Option(help="A recording to look at instead of a band.")] = None,
    forearm: Annotated[int | None, typer.Option("--forearm", help="Let simulated wearer number SEED do it.")] = None,
    rotation_deg: Annotated[float, typer.Option("--rotation", help="How the simulated band is turned.")] = 0.0,
    seconds: Annotated[float, typer.Option(min=2, max=300, help="How long to look.")] = 20.0,
    lasts_h: Annotated[float, typer.Option("--lasts", min=0.1, help="Hours this donning counts.")] = 12.0,
    release: Annotated[
        Path | None, typer.Option("--release", help="A release in a file; by default this edge's.")
    ] = None,
    state_dir: Annotated[Path | None, typer.Option("--state-dir", help="State directory of the agent.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is found and keep nothing.")] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Forget what was found last: the band was taken off.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find how the band sits from some seconds of any gestures, and correct for it until it is taken off.

    Make the gestures you calibrated with, or many different ones; no labels are needed and nothing is recorded.
    """
    from embridge_edge.decode.calibration import load_calibration
    from embridge_edge.decode.donning import FOLDER, DonningStore, look
    from embridge_edge.decode.donning import don as keep
    from embridge_edge.enrol.desk import bundle_here
    from embridge_shared.clock import SystemClock
    from embridge_shared.errors import OperatorError
    from embridge_shared.preprocess import run_chunks
    from embridge_shared.settings import load

    if sum((bool(band), replay is not None, forearm is not None)) != 1:
        raise OperatorError(
            "say what is worn: one band, recording or simulated wearer.",
            hint="Give --band KIND, --replay or --forearm.",
        )
    settings = load(**({"edge": {"state_dir": state_dir}} if state_dir is not None else {})).edge
    clock = SystemClock()
    preprocess = bundle_here(settings.state_dir, release).manifest.preprocess
    take = _open(settings, clock, participant, _source(band, adapter, replay, forearm, rotation_deg))
    spec = take.band.spec
    calibration = load_calibration(settings.state_dir, participant, preprocess, spec)
    store = DonningStore(settings.state_dir / FOLDER)
    if forget:
        known = store.take_off(calibration)
        typer.echo("Forgotten." if known else "Nothing was known of how the band sits.", err=True)
        return
    if not as_json:
        typer.echo(f"Make different gestures for {seconds:g} s, a second or two each.", err=True)
    chunks = asyncio.run(_read(take, clock, seconds))
    found = look(calibration, preprocess, run_chunks(preprocess.front_end, spec, chunks))
    if found.useful and not dry_run:
        keep(store, calibration, found, now_ns=clock.wall_ns(), lasts_h=lasts_h)
    _tell(found, as_json=as_json, kept=found.useful and not dry_run)


def _source(band: str, adapter: str, replay: Path | None, forearm: int | None, rotation_deg: float) -> Any:
    from embridge_edge.bands.naming import parse
    from embridge_edge.plan import ReplaySource, SyntheticSource

    if band:
        return parse([band], adapter=adapter)
    if replay is not None:
        return ReplaySource(path=str(replay.absolute()), speed=0.0, pose=False)
    return SyntheticSource(
        wearer=forearm or 0,
        performance=7,
        gestures=_SHAPES,
        repetitions=2,
        shuffled=True,
        speed=0.0,
        rotation_deg=rotation_deg,
        pose=False,
    )


def _open(settings: EdgeSettings, clock: Clock, participant: str, source: Any) -> Take:
    from embridge_edge.plan import SessionPlan, check_participant
    from embridge_edge.takes import open_take

    check_participant(participant, "--participant")
    plan = SessionPlan(name="donning", participant=participant, source=source)
    return open_take(plan, Path(), clock, adapter=settings.adapter)


async def _read(take: Take, clock: Clock, seconds: float) -> list[tuple[int, Any]]:
    """Samples of the band for so long; fewer where it ends by itself."""
    band, chunks = take.band, []
    await take.reach()
    try:
        await band.open(clock.monotonic_ns())
        async for packet in band.packets():
            chunks.append((packet.first, packet.samples))
            if packet.first + len(packet.samples) >= chunks[0][0] + seconds * band.spec.rate_hz:
                break
    finally:
        await take.close()
    return chunks


def _tell(found: Look, *, as_json: bool, kept: bool) -> None:
    import msgspec

    from embridge_shared.errors import ExitCode

    if as_json:
        typer.echo(json.dumps({**msgspec.to_builtins(found), "kept": kept}))
    else:
        typer.echo(found.said, err=True)
        if found.advice:
            typer.echo(found.advice, err=True)
    if not found.useful:
        raise typer.Exit(ExitCode.FAILED)
