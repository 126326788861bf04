"""A recording in a table: for each channel what was wrong, for how long, and what to do."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from embridge_shared.quality.grades import ADVICE, LIMITS, TITLES, Grade, Metric, worst
from embridge_shared.quality.judge import Judge, Verdict
from embridge_shared.signal import StreamSpec


class MetricSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of one channel over a recording.

    Attributes:
        metric: Which.
        windows: Windows in which it could be computed.
        warn: Those it warned in.
        bad: Those it was bad in.
        median: Middle value.
        extreme: Worst value.
        reason: The worst of it in words, where it was not always good.
        advice: What to do about it, where it was not always good.
    """

    metric: Metric
    windows: int
    warn: int
    bad: int
    median: float
    extreme: float
    reason: str = ""
    advice: str = ""


class ChannelSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One channel over a recording.

    Attributes:
        channel: Its name.
        grade: Bad or warned in at least a tenth of the windows, or good.
        windows: Windows judged.
        warn: Windows whose worst grade was a warning.
        bad: Windows that were bad.
        metrics: What was computed.
    """

    channel: str
    grade: Grade
    windows: int
    warn: int
    bad: int
    metrics: tuple[MetricSummary, ...]

    def faults(self) -> tuple[MetricSummary, ...]:
        """Metrics that were not always good, the worst first."""
        return tuple(sorted((m for m in self.metrics if m.bad or m.warn), key=lambda m: (-m.bad, -m.warn)))


_SHARE = 0.1


class Summary:
    """Gathers verdicts.

    Args:
        spec: The stream they are of.
    """

    def __init__(self, spec: StreamSpec) -> None:
        self.spec = spec
        self.windows = 0
        self.skipped = Judge(spec).profile.skipped
        channels = spec.n_channels
        self._worst = {g: np.zeros(channels, np.int64) for g in Grade}
        self._grades = {m: {g: np.zeros(channels, np.int64) for g in Grade} for m in Metric}
        self._values: dict[Metric, list[np.ndarray[tuple[int], np.dtype[np.float64]]]] = {m: [] for m in Metric}
        self._reasons: dict[tuple[Metric, int], tuple[float, str]] = {}

    def add(self, verdict: Verdict) -> None:
        """Take in the next verdict."""
        self.windows += 1
        for metric, grades in verdict.grades.items():
            values = verdict.values[metric]
            self._values[metric].append(values)
            for c, grade in enumerate(grades):
                self._grades[metric][grade][c] += 1
                if grade in (Grade.WARN, Grade.BAD):
                    size = -float(values[c]) if LIMITS[metric].low else abs(float(values[c]))
                    if size > self._reasons.get((metric, c), (-np.inf, ""))[0]:
                        self._reasons[metric, c] = (size, verdict.reason(metric, c))
        for c in range(self.spec.n_channels):
            self._worst[verdict.grade(c)][c] += 1

    def channels(self) -> tuple[ChannelSummary, ...]:
        """Every channel."""
        return tuple(self._channel(c) for c in range(self.spec.n_channels))

    @property
    def grade(self) -> Grade:
        """Of the stream: that of its worst channel."""
        return worst(c.grade for c in self.channels())

    def _channel(self, c: int) -> ChannelSummary:
        bad, warn = int(self._worst[Grade.BAD][c]), int(self._worst[Grade.WARN][c])
        grade = Grade.UNKNOWN if not self.windows else Grade.GOOD
        if bad + warn and bad + warn >= _SHARE * self.windows:
            grade = Grade.BAD if bad >= _SHARE * self.windows else Grade.WARN
        return ChannelSummary(
            channel=self.spec.channels[c],
            grade=grade,
            windows=self.windows,
            warn=warn,
            bad=bad,
            metrics=tuple(self._metrics(c)),
        )

    def _metrics(self, c: int) -> Iterator[MetricSummary]:
        for metric, series in self._values.items():
            values = np.array([v[c] for v in series])
            values = values[~np.isnan(values)]
            if not len(values):
                continue
            counts = {g: int(n[c]) for g, n in self._grades[metric].items()}
            at = np.argmin(values) if LIMITS[metric].low else np.argmax(np.abs(values))
            faulty = counts[Grade.WARN] + counts[Grade.BAD] > 0
            yield MetricSummary(
                metric=metric,
                windows=len(values),
                warn=counts[Grade.WARN],
                bad=counts[Grade.BAD],
                median=float(np.median(values)),
                extreme=float(values[at]),
                reason=self._reasons.get((metric, c), (0.0, ""))[1] if faulty else "",
                advice=ADVICE[metric] if faulty else "",
            )

    def lines(self) -> Iterator[str]:
        """The table as text."""
        for one in self.channels():
            yield f"{one.channel:<10} {one.grade.value:<5} {one.bad} bad, {one.warn} warned of {one.windows} windows"
            for m in one.faults():
                told = f"{TITLES[m.metric]}: {m.reason} at worst ({m.bad} bad, {m.warn} warned)"
                yield f"{'':<10} {told}. {m.advice}"
        for metric, why in self.skipped.items():
            yield f"not computed: {TITLES[metric]}, because {why}"
