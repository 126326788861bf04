"""Bands as words on a command line: `myo`, `gforce@C4:64:E3:00:00:01`, `uart:profile.toml`."""

from __future__ import annotations

from typing import Any

import msgspec

from embridge_edge import band_plan as plans
from embridge_shared.errors import ConfigError, DataError

_HINT = "Give KIND, KIND@ADDRESS or uart:PROFILE[@ADDRESS]; `embridge band info` lists the kinds."
_IN_A_PLAN = ("lsl", "brainflow")


def parse(
    words: list[str],
    *,
    adapter: str = "",
    duration_s: float | None = None,
    motion: bool = False,
) -> plans.BandsSource:
    """The bands that words name; from the second on each gets a label.

    Args:
        words: One a band.
        adapter: Bluetooth adapter of all of them.
        duration_s: Length of the recording; until stopped when None.
        motion: Read motion too where the band has it.

    Raises:
        ConfigError: A word names nothing.
    """
    bands = []
    for number, word in enumerate(words, 1):
        kind, _, address = word.partition("@")
        kind, _, profile = kind.partition(":")
        given: dict[str, Any] = {"kind": kind, "address": address, "adapter": adapter, "duration_s": duration_s}
        if kind in _IN_A_PLAN:
            raise ConfigError(
                f"a {kind} band needs more than a word",
                hint="Describe it in a plan: `embridge edge run --plan`; docs/bands.md has an example.",
            )
        if profile:
            given["profile"] = profile
        if motion and kind in ("myo", "mudra"):
            given["motion"] = True
        if number > 1:
            given["label"] = f"b{number}"
        try:
            bands.append(msgspec.convert(given, plans.AnyBand))
        except (msgspec.ValidationError, DataError) as error:
            raise ConfigError(f"{word!r} names no band: {error}", hint=_HINT) from error
    source = plans.BandsSource(bands=tuple(bands))
    plans.check(source, "the command line")
    return source
