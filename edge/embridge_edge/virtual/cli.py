"""`embridge band simulate`: virtual bands that any Bluetooth host can attach to."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from embridge_edge.virtual.air import Air
    from embridge_edge.virtual.band import VirtualBand
    from embridge_edge.virtual.feed import SampleFeed
    from embridge_edge.virtual.rig import Rig
    from embridge_edge.virtual.traits import Traits

_GESTURES = "fist,open,point,pinch_index,three,flat"


@dataclasses.dataclass(frozen=True, slots=True)
class _Order:
    """What to simulate."""

    kind: str
    count: int
    feeds: list[SampleFeed]
    traits: list[Traits]
    air: Air
    host: str
    port: int
    controller: str
    drop_every_s: float
    as_json: bool


def simulate(
    kind: Annotated[str, typer.Argument(help="myo, gforce, mudra or open.")],
    count: Annotated[int, typer.Option(min=1, max=32, help="How many bands.")] = 1,
    wearer: Annotated[int, typer.Option(help="Seed of the first wearer's anatomy; each band has the next.")] = 1,
    performance: Annotated[int, typer.Option(help="Seed of what they do.")] = 1,
    gestures: Annotated[str, typer.Option(help="What they perform, over and over.")] = _GESTURES,
    recording: Annotated[Path | None, typer.Option(help="Play a recording file instead.")] = None,
    rate: Annotated[float | None, typer.Option(help="Its sample rate, where the file does not tell, Hz.")] = None,
    name: Annotated[str, typer.Option(help="Advertised name; the device's own by default.")] = "",
    drift_ppm: Annotated[float, typer.Option(help="How much faster than this host's the band's clock runs.")] = 0.0,
    ideal: Annotated[bool, typer.Option("--ideal", help="Deliver at once: no air time, errors or limits.")] = False,
    interval_ms: Annotated[float | None, typer.Option(help="Force this connection interval.")] = None,
    phy: Annotated[int, typer.Option(min=1, max=2, help="Fastest PHY, Mbit/s.")] = 2,
    ll_octets: Annotated[int, typer.Option(min=27, max=251, help="Largest link-layer payload.")] = 251,
    errors: Annotated[float, typer.Option(min=0, max=0.99, help="Share of packets damaged on air.")] = 0.0,
    jitter_ms: Annotated[float, typer.Option(min=0, help="Mean delay between controller and host.")] = 0.0,
    drop_every: Annotated[float, typer.Option(min=0, help="Cut the link this often, s; 0 is never.")] = 0.0,
    host: Annotated[str, typer.Option(help="Address to listen on; whoever reaches it may attach.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free port.")] = 9000,
    controller: Annotated[str, typer.Option(help='Serve on a real controller, such as "usb:1", not over TCP.')] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """Simulate wristbands over a real Bluetooth stack until stopped.

    Hosts attach to the radio by HCI over TCP: give `--adapter tcp-client:HOST:PORT` to the other commands.
    """
    try:
        from embridge_edge.virtual.air import Air
        from embridge_edge.virtual.rig import kind_of
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    air = Air(
        ideal=ideal,
        interval_ms=interval_ms,
        phy=phy,
        ll_octets=ll_octets,
        pdu_errors=errors,
        jitter_ms=jitter_ms,
        seed=performance,
    )
    own_name = name or kind_of(kind).default_name
    order = _Order(
        kind=kind,
        count=1 if controller else count,
        feeds=_feeds(count, wearer, performance=performance, gestures=gestures, recording=recording, rate_hz=rate),
        traits=_traits(count, own_name, drift_ppm, 0.0 if recording is not None else kind_of(kind).typical_noise_uv),
        air=air,
        host=host,
        port=port,
        controller=controller,
        drop_every_s=drop_every,
        as_json=as_json,
    )
    asyncio.run(_run(order))


def _missing(error: ModuleNotFoundError) -> Exception:
    """The error for an install without bumble; others are handed on."""
    from embridge_shared.errors import ConfigError, Reason

    if error.name is None or error.name.partition(".")[0] != "bumble":
        return error
    return ConfigError(
        "`embridge band simulate` needs bumble, which is not installed",
        reason=Reason.MISSING_EXTRA,
        hint='Install it with: pip install "embridge[radio]"',
    )


def _feeds(
    count: int, wearer: int, *, performance: int, gestures: str, recording: Path | None, rate_hz: float | None
) -> list[SampleFeed]:
    """What each band measures: its own wearer, or the same recording."""
    import numpy as np

    from embridge_edge.forearm import Performance, Wearer
    from embridge_edge.virtual.feed import ForearmFeed, LoopFeed, recording_feed
    from embridge_shared.gestures import find

    if recording is not None:
        first = recording_feed(recording, rate_hz=rate_hz)
        return [LoopFeed(first.samples, first.rate_hz) for _ in range(count)]
    wanted = find([g.strip() for g in gestures.split(",") if g.strip()])
    return [
        ForearmFeed(
            Performance(
                Wearer.random(seed),
                wanted,
                repetitions=2,
                rng=np.random.default_rng([seed, performance]),
                shuffled=True,
            ),
            seed=performance,
        )
        for seed in range(wearer, wearer + count)
    ]


def _traits(count: int, name: str, drift_ppm: float, noise_uv: float) -> list[Traits]:
    from embridge_edge.virtual.traits import Traits

    names = [name] if count == 1 else [f"{name} {i}" for i in range(1, count + 1)]
    return [Traits(name=each, drift_ppm=drift_ppm, serial=i, noise_uv=noise_uv) for i, each in enumerate(names, 1)]


async def _run(order: _Order) -> None:
    """Serve until a signal comes, then say what the bands did."""
    from embridge_edge.virtual.rig import Rig

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        async with Rig(order.air) as rig:
            address = await _switch_on(rig, order)
            _announce(rig, address, as_json=order.as_json)
            await _until(stop, rig, order.drop_every_s)
            _sum_up(rig, as_json=order.as_json)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _switch_on(rig: Rig, order: _Order) -> str:
    """Switch the bands on; the adapter that reaches them, empty for those on a real controller."""
    from embridge_edge.virtual.rig import kind_of

    if order.controller:
        band = kind_of(order.kind)(order.controller, order.feeds[0], order.traits[0])
        rig.bands.append(band)
        await band.start()
        return ""
    for feed, traits in zip(order.feeds, order.traits, strict=True):
        await rig.add(order.kind, feed, traits)
    return f"tcp-client:{order.host}:{await rig.serve(order.host, order.port)}"


async def _until(stop: asyncio.Event, rig: Rig, drop_every_s: float) -> None:
    """Wait for the end, cutting links on the way."""
    while not stop.is_set():
        try:
            async with asyncio.timeout(drop_every_s or None):
                await stop.wait()
        except TimeoutError:
            rig.cut()


def _announce(rig: Rig, adapter: str, *, as_json: bool) -> None:
    if as_json:
        bands = [{"kind": b.kind, "name": b.name, "address": b.address, **_shape(b)} for b in rig.bands]
        typer.echo(json.dumps({"adapter": adapter, "bands": bands}))
        return
    for band in rig.bands:
        typer.echo(f"{band.kind:7} {band.address}  {band.name}: {band.channels} channels at {band.rate_hz:g} Hz")
    if adapter:
        typer.echo(f"HCI at {adapter}")
        typer.echo(f"  embridge band scan --adapter {adapter}")
        typer.echo(f"  python -m embridge_edge.ble.launch {adapter} PROGRAM   # any program that uses bleak")
    typer.echo("Ctrl-C stops.")


def _shape(band: VirtualBand) -> dict[str, float]:
    return {"channels": band.channels, "rate_hz": band.rate_hz}


def _sum_up(rig: Rig, *, as_json: bool) -> None:
    tallies = {band.name: dataclasses.asdict(band.tally) for band in rig.bands}
    if as_json:
        typer.echo(json.dumps({"tally": tallies}))
        return
    for name, tally in tallies.items():
        typer.echo(
            f"{name}: {tally['connections']} links, {tally['samples']} samples taken, {tally['packets']} packets sent, "
            f"{tally['dropped_samples']} samples dropped in firmware"
        )
