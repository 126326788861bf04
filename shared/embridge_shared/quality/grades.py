"""What is measured, where it begins to matter, and what to do then."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Grade(StrEnum):
    """What a channel is worth; `UNKNOWN` where nothing could be measured."""

    GOOD = "good"
    WARN = "warn"
    BAD = "bad"
    UNKNOWN = "unknown"


_ORDER = {Grade.UNKNOWN: 0, Grade.GOOD: 1, Grade.WARN: 2, Grade.BAD: 3}


def worst(grades: Iterable[Grade]) -> Grade:
    """The worst of several; `UNKNOWN` of none."""
    return max(grades, key=_ORDER.__getitem__, default=Grade.UNKNOWN)


class Metric(StrEnum):
    """What is measured of a channel; the value is its column in stored tables."""

    LOSS = "loss"
    CLIPPING = "clipping"
    RAILED = "railed"
    FLAT = "flat_s"
    DROPOUT = "dropout"
    MAINS = "mains_db"
    SNR = "snr_db"
    RESPONSE = "response_db"
    MOTION = "motion_db"
    SHAPE = "shape"
    DRIFT = "drift"
    BRIDGE = "bridge"
    FLOOR = "floor_uv"
    ODD = "odd_db"


@dataclass(frozen=True, slots=True)
class Limit:
    """Where a metric begins to matter.

    Attributes:
        warn: From here on it is a warning.
        bad: From here on it is bad.
        hold: Windows in a row, one a second, it must stay there before it is said.
        low: Small values are the bad ones.
    """

    warn: float
    bad: float
    hold: int = 1
    low: bool = False


LIMITS: dict[Metric, Limit] = {
    Metric.LOSS: Limit(0.001, 0.01),
    Metric.CLIPPING: Limit(0.001, 0.01),
    Metric.RAILED: Limit(0.75, 0.90),
    Metric.FLAT: Limit(0.020, 0.100),
    Metric.DROPOUT: Limit(0.01, 0.05),
    Metric.MAINS: Limit(-6.0, 0.0, hold=3),
    Metric.SNR: Limit(15.0, 10.0, low=True),
    Metric.RESPONSE: Limit(6.0, 3.0, low=True),
    Metric.MOTION: Limit(6.0, 3.0, hold=3, low=True),
    Metric.SHAPE: Limit(1.5, 1.7, hold=3),
    Metric.DRIFT: Limit(3.0, 5.0, hold=3),
    Metric.BRIDGE: Limit(0.97, 0.985, hold=9),
    Metric.FLOOR: Limit(10.0, 30.0),
    Metric.ODD: Limit(12.0, 17.0, hold=3),
}
"""Sources and tuning: docs/quality.md."""

TITLES: dict[Metric, str] = {
    Metric.LOSS: "samples lost",
    Metric.CLIPPING: "clipped",
    Metric.RAILED: "at the rail",
    Metric.FLAT: "stands still",
    Metric.DROPOUT: "drops out",
    Metric.MAINS: "mains hum",
    Metric.SNR: "signal to noise",
    Metric.RESPONSE: "sees no contraction",
    Metric.MOTION: "motion artefact",
    Metric.SHAPE: "shape of the spectrum",
    Metric.DRIFT: "baseline drift",
    Metric.BRIDGE: "same as another channel",
    Metric.FLOOR: "noise at rest",
    Metric.ODD: "unlike the other channels",
}

ADVICE: dict[Metric, str] = {
    Metric.LOSS: "Bring the band closer to the receiver, charge it, and keep other 2.4 GHz radios away.",
    Metric.CLIPPING: "Lower the band's gain if it has one; press the electrode on and let the wearer relax.",
    Metric.RAILED: "The electrode hangs in the air or the reference is off: wet the skin and tighten the band.",
    Metric.FLAT: "The electrode or its wire is off, or the band sends nothing new: reseat it, then restart the band.",
    Metric.DROPOUT: "A loose wire or a band that skips samples: reseat the connector, then restart the band.",
    Metric.MAINS: "Wet or clean the skin, tighten the band, and move away from chargers, lamps and cables.",
    Metric.SNR: "Place the electrodes over muscle and ask for a firmer contraction; let the arm rest before it.",
    Metric.RESPONSE: "The others see the muscles work and it does not: the electrode is dead or its lead is off.",
    Metric.MOTION: "Tighten the band and keep its cable still; hair or dry skin under the electrode makes it worse.",
    Metric.SHAPE: "This is not the spectrum of muscle: reseat the electrode and look for interference.",
    Metric.DRIFT: "Give the electrode a minute to settle; clean the skin if the baseline keeps wandering.",
    Metric.BRIDGE: "Sweat, gel or metal joins two electrodes: dry the skin between them.",
    Metric.FLOOR: "Clean the skin and tighten the band; let the wearer rest the arm on the table.",
    Metric.ODD: "Compare with its neighbours: reseat the electrode, and check its gain and wiring.",
}
"""What to do, in plain words."""
