"""Bands in a session plan: which one, where, for how long.

[session.source]
kind = "myo"
address = "D4:..."     # any of its kind when absent
duration_s = 120.0     # until stopped when absent
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec

from embridge_shared.errors import ConfigError


class _Band(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What every band on a plan has.

    Attributes:
        address: Only this band; the first of its kind that is found when empty.
        adapter: Bluetooth adapter: "platform", "hci1", "usb:0", "tcp-client:HOST:PORT"; as in the settings when empty.
        duration_s: Length of the recording; until stopped when absent.
        label: Put before the names of its streams where a session has several bands.
    """

    address: str = ""
    adapter: str = ""
    duration_s: float | None = None
    label: str = ""


class OpenSource(_Band, frozen=True, kw_only=True, tag="open"):
    """A band of the open profile."""


class MyoSource(_Band, frozen=True, kw_only=True, tag="myo"):
    """A Thalmic Myo.

    Attributes:
        motion: Record its motion too.
    """

    motion: bool = False


class GForceSource(_Band, frozen=True, kw_only=True, tag="gforce"):
    """An OYMotion gForce.

    Attributes:
        bits: 8 (1000 Hz) or 12 (500 Hz).
    """

    bits: int = 8


class MudraSource(_Band, frozen=True, kw_only=True, tag="mudra"):
    """A Mudra Link.

    Attributes:
        motion: Record its motion too.
    """

    motion: bool = False


class GanglionSource(_Band, frozen=True, kw_only=True, tag="ganglion"):
    """An OpenBCI Ganglion."""


class NpgSource(_Band, frozen=True, kw_only=True, tag="npg"):
    """An NPG-Lite."""


class UartSource(_Band, frozen=True, kw_only=True, tag="uart"):
    """A band described in TOML.

    Attributes:
        profile: The description; relative to the plan.
    """

    profile: str


class LslSource(_Band, frozen=True, kw_only=True, tag="lsl"):
    """An LSL stream; `address` is its source id.

    Attributes:
        stream: Its name; any when empty.
        type: Its content type.
        channels: Channels it must have.
        rate_hz: Rate it must have.
        unit: Unit of `value * scale`.
        scale: Value times this is `unit`.
        calibrated: The scale is known, not guessed.
    """

    channels: int
    rate_hz: float
    stream: str = ""
    type: str = "EMG"
    unit: str = "µV"
    scale: float = 1.0
    calibrated: bool = False


class BrainflowSource(_Band, frozen=True, kw_only=True, tag="brainflow"):
    """Any board of BrainFlow; `address` is its MAC address.

    Attributes:
        board: Its name in BrainFlow, as in "CYTON_BOARD", or its number.
        serial_port: Where it is plugged in.
        ip_address: Where it is on the network.
        counter_modulus: Where its package number wraps; 0 does not trust it.
    """

    board: str
    serial_port: str = ""
    ip_address: str = ""
    counter_modulus: int = 256


AnyBand = (
    OpenSource
    | MyoSource
    | GForceSource
    | MudraSource
    | GanglionSource
    | NpgSource
    | UartSource
    | LslSource
    | BrainflowSource
)


class BandsSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="bands", tag_field="kind"):
    """Several bands in one session; the first one leads.

    Attributes:
        bands: Each with a label of its own, but the first.
    """

    bands: tuple[AnyBand, ...]


LiveSource = AnyBand | BandsSource


def each(source: LiveSource) -> tuple[AnyBand, ...]:
    """The bands of a source."""
    return source.bands if isinstance(source, BandsSource) else (source,)


def problems(source: LiveSource) -> Iterator[str]:
    """What is wrong with a source, in words."""
    bands = each(source)
    if not bands:
        yield "`bands` is empty"
    labels = [b.label for b in bands]
    if len(set(labels)) < len(labels):
        yield "bands of one session need different labels"
    for band in bands:
        if band.label and not (band.label.replace("_", "").isalnum() and band.label == band.label.lower()):
            yield f"label {band.label!r}: only lower-case letters, digits and underscores"
        if band.duration_s is not None and not 0 < band.duration_s < math.inf:
            yield "duration_s must be positive"


def check(source: LiveSource, where: str) -> None:
    """Refuse a source that cannot be opened.

    Raises:
        ConfigError: What is wrong with it.
    """
    for problem in problems(source):
        raise ConfigError(f"{where}: {problem}")
