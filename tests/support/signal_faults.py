"""Faults put into a sound recording, each named after what the operator would call it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embridge_edge.forearm import CONTROL_HZ, EMG_RATE_HZ, UV_PER_COUNT, Forearm, Performance, Wearer
from embridge_shared import gestures
from embridge_shared.quality import Grade, Judge, Metric, Verdict, Windows
from embridge_shared.signal import Modality, SampleType, StreamSpec

Samples = NDArray[np.float64]
CHANNEL, OTHER = 5, 6

SPEC = StreamSpec(
    name="emg",
    modality=Modality.EMG,
    channels=tuple(f"e{i}" for i in range(16)),
    rate_hz=EMG_RATE_HZ,
    dtype=SampleType.INT16,
    unit="µV",
    scale=UV_PER_COUNT,
    calibrated=True,
    device="synthetic-forearm",
)


def forearm(seed: int = 3, *, names: tuple[str, ...] = ("fist", "open"), repetitions: int = 2) -> Samples:
    """A sound recording of a simulated forearm, counts (T, 16)."""
    wearer = Wearer.random(seed)
    rng = np.random.default_rng(seed)
    performance = Performance(wearer, gestures.find(names), repetitions=repetitions, rng=rng)
    arm = Forearm(wearer, seed=seed)
    t_s = np.arange(int(performance.duration_s * CONTROL_HZ)) / CONTROL_HZ + wearer.lead_s
    return np.concatenate([arm.emg(performance.angles(part)) for part in np.array_split(t_s, 40)]).astype(float)


@dataclass(frozen=True, slots=True)
class Site:
    """Where a fault is put.

    Attributes:
        rate_hz: Rate of the recording.
        level: RMS of the sound channel, counts.
        span: Greatest count the recording can hold.
        rng: Source of randomness.
    """

    rate_hz: float
    level: float
    span: float
    rng: np.random.Generator


Fault = Callable[[Samples, Site], None]


def _t(x: Samples, site: Site) -> Samples:
    return np.arange(len(x)) / site.rate_hz


def flat(x: Samples, site: Site) -> None:
    x[:, CHANNEL] = np.round(x[:, CHANNEL].mean())


def clipped(x: Samples, site: Site) -> None:
    x[:, CHANNEL] = np.clip(
        x[:, CHANNEL] * 0.7 * site.span / np.quantile(np.abs(x[:, CHANNEL]), 0.95), -site.span, site.span
    )


def railed(x: Samples, site: Site) -> None:
    x[:, CHANNEL] = 0.95 * site.span + 0.02 * x[:, CHANNEL]


def hum(x: Samples, site: Site) -> None:
    t = _t(x, site)
    wave = np.sin(2 * np.pi * 50.02 * t) + (0.4 * np.sin(2 * np.pi * 150.06 * t) if site.rate_hz > 400 else 0)
    x[:, CHANNEL] += 4.0 * site.level * wave


def motion(x: Samples, site: Site) -> None:
    t = _t(x, site)
    swing = np.sin(2 * np.pi * 3.0 * t) + 0.5 * np.sin(2 * np.pi * 1.3 * t) + 0.3 * np.sin(2 * np.pi * 7.1 * t)
    x[:, CHANNEL] += 6.0 * site.level * swing


def drift(x: Samples, site: Site) -> None:
    reach = 0.6 * site.span
    x[:, CHANNEL] += np.abs((15.0 * site.level * _t(x, site)) % (2 * reach) - reach)


def stuck(x: Samples, site: Site) -> None:
    for at in range(0, len(x), round(0.9 * site.rate_hz)):
        x[at : at + round(0.2 * site.rate_hz), CHANNEL] = x[at, CHANNEL]


def dropout(x: Samples, site: Site) -> None:
    n = max(13, round(0.012 * site.rate_hz))
    for at in range(0, len(x), round(0.1 * site.rate_hz)):
        x[at : at + n, CHANNEL] = 0.0


def bridged(x: Samples, site: Site) -> None:
    mean = (x[:, CHANNEL] + x[:, OTHER]) / 2
    for c in (CHANNEL, OTHER):
        x[:, c] = mean + site.rng.normal(0, 0.03 * site.level, len(x))


def noisy(x: Samples, site: Site) -> None:
    x[:, CHANNEL] += site.rng.normal(0, 60.0 / UV_PER_COUNT, len(x))


def gain(x: Samples, site: Site) -> None:
    x[:, CHANNEL] *= 20.0


def burst(x: Samples, site: Site) -> None:
    """Radio bursts: a spectrum that no muscle has."""
    t = _t(x, site)
    high_hz = min(430.0, 0.43 * site.rate_hz)
    x[:, CHANNEL] += site.level * (4.0 * np.sin(2 * np.pi * 27.3 * t) + 1.5 * np.sin(2 * np.pi * high_hz * t))


def dead(x: Samples, site: Site) -> None:
    """Nothing but the amplifier's noise."""
    x[:, CHANNEL] = site.rng.normal(0, 0.05 * site.level, len(x))


FAULTS: dict[str, tuple[Fault, Metric]] = {
    "flat": (flat, Metric.FLAT),
    "stuck": (stuck, Metric.FLAT),
    "dropout": (dropout, Metric.DROPOUT),
    "clipped": (clipped, Metric.CLIPPING),
    "railed": (railed, Metric.RAILED),
    "hum": (hum, Metric.MAINS),
    "motion": (motion, Metric.MOTION),
    "drift": (drift, Metric.DRIFT),
    "bridged": (bridged, Metric.BRIDGE),
    "noisy": (noisy, Metric.FLOOR),
    "gain": (gain, Metric.ODD),
    "dead": (dead, Metric.RESPONSE),
    "burst": (burst, Metric.SHAPE),
}
"""Faults of one electrode and the metric that must tell; "lossy" and "weak" are of the whole band."""


def spoil(x: Samples, name: str, rate_hz: float, span: float) -> Samples:
    """A recording (T, C) with a fault in it, whole counts."""
    out = x.copy()
    FAULTS[name][0](out, Site(rate_hz, float(x[:, CHANNEL].std()), span, np.random.default_rng(7)))
    return np.clip(np.round(out), -span, span)


def lossy(x: Samples, rate_hz: float, share: float = 0.03) -> Iterator[tuple[int, Samples]]:
    """Packets of 20 ms of which a share is lost."""
    rng, n = np.random.default_rng(5), round(0.02 * rate_hz)
    for first in range(0, len(x), n):
        if rng.random() >= share:
            yield first, x[first : first + n]


def verdicts(spec: StreamSpec, chunks: list[tuple[int, Samples]], judge: Judge | None = None) -> list[Verdict]:
    """All verdicts over a recording."""
    windows, judge = Windows(spec), judge or Judge(spec)
    return [judge.judge(w) for first, x in chunks for w in windows.push(first, x)]


def bad(found: list[Verdict], channel: int) -> set[Metric]:
    """Metrics that were ever bad on a channel."""
    return {m for v in found for m in v.faults(channel, Grade.BAD)}
