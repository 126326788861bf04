"""Signal quality while a session is recorded, and before it begins.

Windows are gathered on the path that records and judged in a thread of their own, one at a time and a bounded share of
the time: what cannot be judged in time is left out here and judged later from what was stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge_edge.plan import QualityGate, SessionPlan
from embridge_edge.source import Packet, Source
from embridge_edge.takes import Take
from embridge_shared.clock import Clock
from embridge_shared.errors import DeviceError, Reason
from embridge_shared.quality import LIMITS, Grade, Judge, Summary, Verdict, Window, Windows
from embridge_shared.session import QualityFinding, QualitySeen
from embridge_shared.signal import Modality, StreamSpec
from embridge_shared.wire.messages import StreamQuality

logger = logging.getLogger(__name__)

_SHARE = 0.1
"""Of the time that judging may take."""
_GATE_WINDOWS = 5
"""A signal is good once it was so at the end of this many windows."""
_GATE_MEMORY = 3
"""Windows for which a fault counts after it was last seen: the wearer may hide it by moving."""
_GATE_LIMITS = {m: replace(limit, hold=min(2, limit.hold)) for m, limit in LIMITS.items()}
"""Who is asked to sit still for a moment is judged sooner."""
_SILENT_S = 15.0


class QualityWatch:
    """Judges one stream while it is recorded.

    Args:
        spec: The stream; EMG.
        stream: Its ordinal in the session.
        first: Index of the first sample it will see.
        clock: Bounds how much of the time is spent.
    """

    def __init__(self, spec: StreamSpec, stream: int, *, first: int, clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        self._windows = Windows(spec, first, grid=0)
        self._judge = Judge(spec)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"quality-{spec.name}")
        self._running: Future[tuple[Verdict, int]] | None = None
        self._pending: tuple[Window, int] | None = None
        self._current_t_ns = 0
        self._idle_until_ns = 0
        self._failed = False
        self.summary = Summary(spec)
        """What was seen so far."""
        self.state: StreamQuality | None = None
        """What the channels are worth now."""

    def push(self, packet: Packet, time_ns: Callable[[int], int]) -> None:
        """Take in a packet; returns at once.

        Args:
            packet: Of the stream.
            time_ns: Unix time of a sample, ns.
        """
        if self._failed:
            return
        for window in self._windows.push(packet.first, packet.samples):
            self._pending = (window, time_ns(window.first))
        self._start()

    def ready(self) -> list[QualitySeen]:
        """What was judged since the last call."""
        if self._running is None or not self._running.done():
            return []
        future, self._running = self._running, None
        if (error := future.exception()) is not None:
            # A recording must not end because nobody could judge it.
            logger.error("quality is not watched any more", exc_info=error)
            self._failed = True
            return []
        verdict, cost_ns = future.result()
        self._idle_until_ns = self._clock.monotonic_ns() + round(cost_ns * (1.0 / _SHARE - 1.0))
        self.summary.add(verdict)
        spec = self.summary.spec
        self.state = StreamQuality(
            stream=spec.name,
            grades=tuple(verdict.grade(c) for c in range(spec.n_channels)),
            told=tuple(f"{spec.channels[c]}: {line}" for c, line in told(verdict).items()),
        )
        return [seen(verdict, self._stream, self._current_t_ns)]

    async def finish(self) -> list[QualitySeen]:
        """Wait for what is being judged, and let the thread go."""
        if self._running is not None:
            await asyncio.wait([asyncio.wrap_future(self._running)])
        out = self.ready()
        self._thread.shutdown(wait=False)
        return out

    def _start(self) -> None:
        if self._pending is None or self._running is not None or self._clock.monotonic_ns() < self._idle_until_ns:
            return
        (window, self._current_t_ns), self._pending = self._pending, None
        self._running = self._thread.submit(self._timed, window)

    def _timed(self, window: Window) -> tuple[Verdict, int]:
        began_ns = self._clock.monotonic_ns()
        verdict = self._judge.judge(window)
        return verdict, self._clock.monotonic_ns() - began_ns


def seen(verdict: Verdict, stream: int, t_ns: int) -> QualitySeen:
    """The event that tells of a verdict.

    Args:
        verdict: On a window.
        stream: Ordinal of its stream.
        t_ns: Unix time of its first sample, ns.
    """
    channels = len(next(iter(verdict.values.values())))
    return QualitySeen(
        stream=stream,
        first=verdict.first,
        n=verdict.n,
        t_ns=t_ns,
        values={metric: _short(values) for metric, values in verdict.values.items()},
        findings=tuple(
            QualityFinding(channel=c, metric=m, grade=verdict.grades[m][c], reason=verdict.reason(m, c))
            for c in range(channels)
            for m in verdict.faults(c)
        ),
    )


def told(verdict: Verdict) -> dict[int, str]:
    """Channels that are bad: why, and what to do."""
    bad = {c: verdict.faults(c, Grade.BAD) for c in range(len(next(iter(verdict.values.values()))))}
    return {
        c: f"{'; '.join(verdict.reason(m, c) for m in metrics)}. {verdict.advice(c)}"
        for c, metrics in bad.items()
        if metrics
    }


def _short(values: NDArray[Any]) -> tuple[float | None, ...]:
    """Four digits are enough."""
    return tuple(None if np.isnan(v) else float(f"{v:.4g}") for v in values)


@dataclass(slots=True)
class _Look:
    """What is known of one band before a session."""

    source: Source
    windows: int = 0
    last: Verdict | None = None
    faults: dict[int, str] = field(default_factory=dict)
    """Channels that were bad lately: why, and what to do."""
    judge: Judge = field(init=False)
    _until: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.judge = Judge(self.source.spec, _GATE_LIMITS)

    def see(self, verdict: Verdict) -> None:
        """Take in the next verdict."""
        self.windows += 1
        self.last = verdict
        found = told(verdict)
        self._until |= dict.fromkeys(found, self.windows + _GATE_MEMORY)
        kept = {c: words for c, words in self.faults.items() if self.windows < self._until[c]}
        self.faults = kept | found

    def words(self) -> Iterator[str]:
        """Every fault and what to do about it, a line a channel."""
        spec = self.source.spec
        if self.last is None:
            yield f"{spec.name}: nothing came"
        for c, words in sorted(self.faults.items()):
            yield f"{spec.name} {spec.channels[c]}: {words}"


async def gate(plan: SessionPlan, take: Take, clock: Clock) -> tuple[str, ...]:
    """Look at the bands of a session before it is recorded.

    The bands are opened, watched until they are good or `plan.settle_s` of their signal have passed, and closed: record
    with a take of its own.

    Args:
        plan: What is asked for; with `QualityGate.OFF` nothing is done.
        take: Its sources.
        clock: Tells when a silent band was given enough time.

    Returns:
        What is wrong, a line a channel; each says what to do.

    Raises:
        DeviceError: POOR_SIGNAL: something is wrong and the plan requires that nothing is; a band cannot be reached.
    """
    if plan.quality_gate is QualityGate.OFF:
        return ()
    looks = [_Look(s) for s in take.sources if s.spec.modality is Modality.EMG]
    try:
        async with asyncio.TaskGroup() as tasks:
            for look in looks:
                tasks.create_task(_settle(look, plan.settle_s, clock), name=f"gate-{look.source.spec.name}")
    except* DeviceError as group:
        raise group.exceptions[0] from None
    problems = tuple(line for look in looks for line in look.words())
    for line in problems:
        logger.warning("before session %s: %s", plan.name, line)
    if problems and plan.quality_gate is QualityGate.REQUIRE:
        raise DeviceError(
            f"the signal is not good enough to record session {plan.name!r}: {' '.join(problems)}",
            reason=Reason.POOR_SIGNAL,
            hint='Then start again, or record all the same with quality_gate = "warn".',
        )
    return problems


async def _settle(look: _Look, settle_s: float, clock: Clock) -> None:
    """Watch a band until it is good, has had its time, ends, or is silent."""
    watching = asyncio.create_task(_watch(look, settle_s, clock))
    patience = asyncio.create_task(clock.sleep(settle_s + _SILENT_S))
    try:
        await asyncio.wait({watching, patience}, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            await watching
    finally:
        for task in (watching, patience):
            task.cancel()
        await asyncio.gather(watching, patience, return_exceptions=True)


async def _watch(look: _Look, settle_s: float, clock: Clock) -> None:
    spec = look.source.spec
    windows: Windows | None = None
    start = 0
    try:
        await look.source.open(clock.monotonic_ns())
        async for packet in look.source.packets():
            if windows is None:
                start, windows = packet.first, Windows(spec, packet.first)
            for window in windows.push(packet.first, packet.samples):
                look.see(await asyncio.to_thread(look.judge.judge, window))
            good = look.windows >= _GATE_WINDOWS and not look.faults
            if good or packet.first + len(packet.samples) - start >= settle_s * spec.rate_hz:
                return
    finally:
        await look.source.close()
