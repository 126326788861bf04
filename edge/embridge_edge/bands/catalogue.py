"""Every kind of band there is a driver for, and how one of a plan is opened."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from embridge_edge import band_plan as plans
from embridge_edge.bands import brainflow, ganglion, gforce, lsl, mudra, myo, npg, uart
from embridge_edge.bands import open as open_band
from embridge_edge.bands.device import BleBand, Radio
from embridge_edge.bands.driver import Driver
from embridge_edge.bands.info import BandInfo
from embridge_edge.bands.protocol import uart as uart_profile
from embridge_edge.ble.status import Policy
from embridge_edge.source import Source
from embridge_shared.clock import Clock
from embridge_shared.errors import ConfigError

CATALOGUE: dict[str, BandInfo] = {
    info.kind: info
    for info in (
        open_band.INFO,
        myo.INFO,
        gforce.INFO,
        mudra.INFO,
        ganglion.INFO,
        npg.INFO,
        uart.INFO,
        lsl.INFO,
        brainflow.INFO,
    )
}
"""By kind."""


def info_of(kind: str) -> BandInfo:
    """What is known of a kind.

    Raises:
        ConfigError: There is no such kind.
    """
    if kind not in CATALOGUE:
        raise ConfigError(f"there is no band kind {kind!r}", hint=f"Known: {', '.join(CATALOGUE)}.")
    return CATALOGUE[kind]


def recognise(name: str, services: tuple[str, ...]) -> BandInfo | None:
    """The kind of band an advertisement is from; the service tells more than the name."""
    candidates = [i for i in CATALOGUE.values() if i.matches(name, services)]
    by_service = [i for i in candidates if i.matches("", services)]
    return next(iter(by_service or candidates), None)


def driver_of(source: plans.AnyBand, base: Path = Path()) -> Driver:
    """The driver of a Bluetooth band.

    Args:
        source: Which band.
        base: Folder that its profile's path starts from.

    Raises:
        ConfigError: Its profile or an option is wrong, or it is no Bluetooth band.
    """
    makers: dict[type, Callable[[], Driver]] = {
        plans.OpenSource: open_band.OpenDriver,
        plans.GanglionSource: ganglion.GanglionDriver,
        plans.NpgSource: npg.NpgDriver,
    }
    match source:
        case plans.MyoSource():
            return myo.MyoDriver(motion=source.motion)
        case plans.GForceSource():
            return gforce.GForceDriver(bits=source.bits)
        case plans.MudraSource():
            return mudra.MudraDriver(motion=source.motion)
        case plans.UartSource():
            return uart.UartDriver(uart_profile.load(base / source.profile))
        case _ if type(source) in makers:
            return makers[type(source)]()
    raise ConfigError(f"{type(source).__name__} is no Bluetooth band")


def open_bands(
    source: plans.LiveSource,
    base: Path,
    clock: Clock,
    *,
    radios: Radio,
    policy: Policy | None = None,
    adapter: str = "",
) -> tuple[Source, ...]:
    """The sources of one or several bands; none is connected yet.

    Args:
        source: Which bands.
        base: Folder that paths start from.
        clock: Paces and stamps.
        radios: Where Bluetooth threads come from.
        policy: How patient to be.
        adapter: Of bands that name none.

    Raises:
        ConfigError: Something in the plan is wrong, or an extra is not installed.
    """
    plans.check(source, "the plan")
    sources: list[Source] = []
    for band in plans.each(source):
        duration_s = math.inf if band.duration_s is None else band.duration_s
        if isinstance(band, plans.LslSource):
            sources.append(lsl.LslBand(band, clock=clock, duration_s=duration_s))
        elif isinstance(band, plans.BrainflowSource):
            sources.append(brainflow.BrainflowBand(band, clock=clock, duration_s=duration_s))
        else:
            device = BleBand(
                driver_of(band, base),
                clock=clock,
                radios=radios,
                adapter=band.adapter or adapter,
                address=band.address,
                duration_s=duration_s,
                policy=policy,
                label=band.label,
            )
            sources.extend(device.streams)
    return tuple(sources)
