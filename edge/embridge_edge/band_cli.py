"""`embridge band`: find wristbands, see what they deliver, watch, record and tell them apart, and simulate them."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from embridge_edge.virtual.cli import simulate

if TYPE_CHECKING:
    from embridge_edge.bands.device import BleBand
    from embridge_edge.bands.info import BandInfo
    from embridge_edge.digest import Digest
    from embridge_shared.signal import StreamSpec

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Find, watch, record and simulate wristbands.")

_ADAPTER_HELP = 'Bluetooth adapter: "platform", "hci1", "usb:0", "tcp-client:HOST:PORT"; edge.adapter by default.'
_BANDS_HELP = "KIND, KIND@ADDRESS or uart:PROFILE.toml; several are read at once."

_TOLD = ("reconnecting", "stalled", "garbled", "resynced", "lost", "failed")
"""States of a link that are told of at the end of a recording."""

Adapter = Annotated[str, typer.Option(help=_ADAPTER_HELP)]
Gate = Literal["off", "warn", "require"]
Words = Annotated[list[str], typer.Argument(help=_BANDS_HELP, metavar="BAND...")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def scan(
    adapter: Adapter = "",
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to listen.")] = 5.0,
    everything: Annotated[bool, typer.Option("--all", help="Show devices of unknown kind too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the bands that advertise, the strongest first."""
    import dataclasses

    from embridge_edge.bands import discovery
    from embridge_shared.errors import DeviceError, Reason

    found = asyncio.run(discovery.scan(_adapter(adapter), seconds, everything=everything))
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(f) for f in found], indent=2))
        return
    if not found:
        raise DeviceError(
            f"no band advertised within {seconds:g} s",
            reason=Reason.NOT_FOUND,
            hint="Switch it on and wake it; a band that a phone or another computer holds does not advertise. "
            "--all shows what else is there.",
        )
    for f in found:
        typer.echo(f"{f.kind or '?':9} {f.address}  {f.rssi_dbm:4} dBm  {f.name}")


def _adapter(given: str) -> str:
    """The adapter given, or that of the settings."""
    from embridge_shared import settings

    return given or settings.load().edge.adapter


@app.command()
def info(
    kind: Annotated[str | None, typer.Argument(help="One kind; all of them by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Tell what each kind of band delivers; no band is connected."""
    from embridge_edge.bands.catalogue import CATALOGUE, info_of

    chosen = [info_of(kind)] if kind is not None else list(CATALOGUE.values())
    if as_json:
        typer.echo(json.dumps([_features(i) for i in chosen], indent=2, ensure_ascii=False))
        return
    for each in chosen:
        _tell(each)


def _features(each: BandInfo) -> dict[str, Any]:
    import msgspec

    return {
        "kind": each.kind,
        "title": each.title,
        "transport": each.transport,
        "counter": each.counter.value,
        "identify": each.identify,
        "quirks": each.quirks,
        "streams": [msgspec.to_builtins(s) for s in each.streams],
    }


def _tell(each: BandInfo) -> None:
    typer.echo(f"{each.kind:10} {each.title} over {each.transport}; counter: {each.counter.value}")
    for spec in each.streams:
        typer.echo(f"           {spec.name}: {_shape(spec)}")
    typer.echo(f"           {each.quirks}{f' It {each.identify} on request.' if each.identify else ''}")


def _shape(spec: StreamSpec) -> str:
    if spec.rate_hz == 1:
        return spec.channels[0]
    scale = f"{spec.scale:.4g} {spec.unit} a count" if spec.unit != "count" else "counts"
    grade = "calibrated" if spec.calibrated else "scale not calibrated"
    return f"{spec.n_channels} channels at {spec.rate_hz:g} Hz, {spec.dtype.value}, {scale}, {grade}"


@app.command()
def stream(
    bands: Words,
    adapter: Adapter = "",
    seconds: Annotated[float | None, typer.Option(min=0.1, help="How long; until Ctrl-C by default.")] = None,
    motion: Annotated[bool, typer.Option("--motion", help="Read motion too, where the band has it.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Between two updates, s.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """Show live what comes from bands: expected, received, lost, clock, age of the last packet."""
    from embridge_edge.bands.catalogue import open_bands
    from embridge_edge.bands.monitor import Meter, follow
    from embridge_edge.bands.naming import parse
    from embridge_edge.ble.thread import RADIOS
    from embridge_shared.clock import SystemClock
    from embridge_shared.errors import DeviceError

    clock = SystemClock()
    sources = open_bands(parse(bands, adapter=_adapter(adapter), motion=motion), Path(), clock, radios=RADIOS)
    meters = [Meter(s, clock) for s in sources]
    lines = as_json or not sys.stdout.isatty()
    with _Display(lines) as show:
        asyncio.run(follow(meters, clock, 1e9 if seconds is None else seconds, show, every))
    for meter in meters:
        if meter.error or not meter.received:
            raise DeviceError(meter.error or meter.silent())


class _Display:
    """Where rows go: JSON lines, or a table that is drawn anew."""

    def __init__(self, lines: bool) -> None:
        self._lines = lines
        self._live: Any = None

    def __enter__(self) -> Callable[[list[dict[str, Any]]], None]:
        if not self._lines:
            from rich.live import Live

            self._live = Live(auto_refresh=False)
            self._live.start()
        return self._show

    def _show(self, rows: list[dict[str, Any]]) -> None:
        if self._live is None:
            for row in rows:
                typer.echo(json.dumps(row, ensure_ascii=False))
            return
        from embridge_edge.bands.monitor import table

        self._live.update(table(rows), refresh=True)

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()


@app.command()
def record(
    out: Annotated[Path, typer.Argument(help="State directory to record into; nothing in it is overwritten.")],
    bands: Words,
    participant: Annotated[str, typer.Option(help="Pseudonym of the wearer.")],
    name: Annotated[str | None, typer.Option(help="Name of the session; made from the time by default.")] = None,
    adapter: Adapter = "",
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Length; until Ctrl-C by default.")] = None,
    motion: Annotated[bool, typer.Option("--motion", help="Record motion too, where the band has it.")] = False,
    quality_gate: Annotated[Gate, typer.Option(help="What is done when the signal is poor before it.")] = "off",
    settle: Annotated[float, typer.Option(min=1, help="How long the signal may take to become good, s.")] = 10.0,
    lsl_out: Annotated[bool | None, typer.Option(help="Republish it as LSL outlets; edge.lsl_out by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Record a session; `embridge edge run --state-dir OUT` delivers it.

    Every second the signal of each channel is judged; what was found is stored with the session and told at the end.
    """
    import msgspec

    from embridge_edge.bands.naming import parse
    from embridge_edge.plan import QualityGate, SessionPlan, check_participant
    from embridge_shared import logs, settings
    from embridge_shared.clock import SystemClock
    from embridge_shared.errors import DeviceError

    check_participant(participant, "--participant")
    config = settings.load(edge={"state_dir": out})
    logs.configure_for(config)
    clock = SystemClock()
    plan = SessionPlan(
        name=name or f"{participant}-{clock.wall_ns() // 1_000_000_000}",
        participant=participant,
        source=parse(bands, adapter=adapter, duration_s=seconds, motion=motion),
        quality_gate=QualityGate(quality_gate),
        settle_s=settle,
        lsl_out=lsl_out,
    )
    digest = asyncio.run(_record(plan, config.edge, clock))
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(digest)).decode())
    else:
        _sum_up(digest)
    if digest.reason != "complete":
        raise DeviceError(f"the recording ended early, {digest.reason}")


def _sum_up(digest: Digest) -> None:
    """Print what became of a recording: its streams, what befell the links, channels that are not good."""
    from embridge_shared.quality import Grade

    for s in digest.streams:
        typer.echo(f"{digest.name}: {s.name} {s.samples} samples, {s.lost} lost, {s.chunks} chunks")
    for change in digest.bands:
        band = change.band
        if band.phase in _TOLD:
            typer.echo(f"{digest.name}: {band.stream} {band.phase}, {band.reason}. {band.action}".rstrip())
    for judged in digest.quality:
        good = sum(c.grade is Grade.GOOD for c in judged.channels)
        if judged.windows:
            typer.echo(f"{digest.name}: {judged.name} {good} of {len(judged.channels)} channels good")
        for one in judged.channels:
            if one.grade in (Grade.WARN, Grade.BAD):
                first, *others = one.faults()
                more = f" ({len(others)} more)" if others else ""
                told = f"{first.reason}. {first.advice}{more}"
                typer.echo(f"{digest.name}: {judged.name} {one.channel} {one.grade.value}: {told}")


async def _record(plan: Any, config: Any, clock: Any) -> Digest:
    import signal

    from embridge_edge import solo

    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        return await solo.record(plan, config, clock=clock, stop=stop)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


@app.command()
def identify(
    band: Annotated[str, typer.Argument(help="KIND or KIND@ADDRESS.")],
    adapter: Adapter = "",
) -> None:
    """Let a band vibrate or blink, where it can."""
    from embridge_edge.bands.catalogue import open_bands
    from embridge_edge.bands.naming import parse
    from embridge_edge.ble.thread import RADIOS
    from embridge_shared.clock import SystemClock

    source, *_ = open_bands(parse([band], adapter=_adapter(adapter)), Path(), SystemClock(), radios=RADIOS)
    typer.echo(asyncio.run(_identify(source)))


async def _identify(source: Any) -> str:
    import time

    device: BleBand = source.device
    await source.open(time.monotonic_ns())
    try:
        await device.identify()
        return f"{device.status.name} {device.status.address} {device.driver.info.identify}"
    finally:
        await source.close()


app.command()(simulate)
