"""Live decoding of a session: scores of every gesture and what is decided, recorded as streams of their own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_edge.decode.decision import Decided, Sinks
from embridge_edge.decode.drift import Drift
from embridge_edge.decode.stream import Decoded, StreamDecoder
from embridge_edge.source import Packet
from embridge_edge.update.health import Vitals
from embridge_edge.update.shadow import Answer, Shadow
from embridge_shared.decision import UNKNOWN, Decider, Decision, DecisionConfig, GestureEvent
from embridge_shared.errors import ModelError
from embridge_shared.gestures import REST_LABEL
from embridge_shared.session import GestureDecoded, Session, WearingChanged
from embridge_shared.signal import Chunk, Modality, SampleType, StreamSpec

logger = logging.getLogger(__name__)

_CHUNK = 20  # results
STREAM: Final = "decode"
DECISIONS: Final = "decision"
ANSWER: Final = "answer"
ACTIVITY: Final = "activity"
_NO_GESTURE: Final = {REST_LABEL: -1, UNKNOWN: -2}


@dataclass(slots=True)
class Outcome:
    """What a packet gave: chunks that are full and gestures that changed, to be kept together or not at all."""

    chunks: list[Chunk] = field(default_factory=list)
    events: list[GestureDecoded | WearingChanged] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.chunks or self.events)


class LiveDecoding:
    """Feeds one band's packets to a decoder, decides, and gathers scores and decisions into chunks.

    Result k of either stream belongs to the k-th window on the release's grid, so a resumed session goes on where it
    was. Chunks end where a gesture changes and are kept with its event, so no event is there twice or missing.

    A row of decisions is `answer` (index of the gesture among the channels from the third on, -1 rest, -2 unknown), the
    activity, and the probability of each gesture.

    Args:
        decoder: Fitted to the band and the wearer.
        decision: How evidence becomes decisions; without it scores are recorded alone.
        sinks: Told of every decision.
        vitals: Gathers how the release fares.
    """

    def __init__(
        self,
        decoder: StreamDecoder,
        decision: DecisionConfig | None = None,
        *,
        sinks: Sinks | None = None,
        vitals: Vitals | None = None,
    ) -> None:
        manifest = decoder.decoder.manifest
        self._decoder = decoder
        self._window = decoder.window
        self._sinks = sinks or Sinks()
        self._decider = None if decision is None else Decider(decision, decoder.labels, decoder.hop_s)
        self._vitals = vitals
        if vitals is not None:
            window_s = decoder.window.length / manifest.preprocess.front_end.rate_hz
            vitals.begin(rate_hz=decoder.rate_hz, window_s=window_s, hop_s=decoder.hop_s)
        self._failing = False
        self.shadow: Shadow | None = None
        """Another release that sees the same packets."""
        self.release = manifest.release
        scores = StreamSpec(
            name=STREAM,
            modality=Modality.DECODE,
            channels=decoder.decoder.labels,
            rate_hz=1 / decoder.hop_s,
            dtype=SampleType.FLOAT32,
            unit="score",
            calibrated=True,
            device=manifest.release,
        )
        self.specs = (scores,) if self._decider is None else (scores, decision_spec(scores, decoder.labels))
        """Its streams, in the order of their ordinals."""
        self.latencies_s: list[float] = []
        self.until = 0
        self._gap = 0
        self._rows: list[tuple[NDArray[Any], ...]] = []
        self._t0_ns = 0
        self._last: Decided | None = None

    def begin(self, session: Session, ordinal: int, until: int) -> None:
        """Write to the streams from `ordinal` on; results before `until` are stored already."""
        self._session = session
        self._ordinal = ordinal
        self.until = until

    async def push(self, packet: Packet, time_ns: Callable[[int], int]) -> Outcome:
        """Decode what a packet completes.

        Args:
            packet: From the band.
            time_ns: Unix time of a sample of the band, ns.
        """
        results = await self._decoded(packet)
        out = Outcome()
        again = bool(results) and self._number(results[-1]) < self.until
        for result in results:
            self.latencies_s.append(result.latency_s)
            number = self._number(result)
            known = number < self.until
            t_ns = time_ns(result.sample)
            events: list[GestureDecoded | WearingChanged] = []
            events += [] if self._last is None or number == self._last.number + 1 else self._ended(tell=not known)
            decided = self._decide(result, number, t_ns, packet.host_ns)
            self._watched(result, decided)
            if known:
                continue
            if number > self.until:
                out.chunks += self.flush()
                self._gap, self.until = number - self.until, number
            row: tuple[NDArray[Any], ...] = (result.scores,)
            if decided is not None:
                row = (result.scores, _row(result, decided))
                events += [_told(e, decided) for e in decided.decision.events]
                self._sinks.tell(decided)
            self._keep(row, t_ns, out, whole=bool(events))
            out.events += events
        worn = self._worn(time_ns(packet.first + len(packet.samples) - 1))
        if worn and not again:
            out.chunks += self.flush()
            out.events += worn
        return out

    async def _decoded(self, packet: Packet) -> list[Decoded]:
        """The windows that a packet completes; none where the release fails, for the recording goes on."""
        results: list[Decoded] = []
        try:
            results = await asyncio.to_thread(self._decoder.push, packet.samples, packet.first)
            self._failing = self._failing and not results
        except ModelError as error:
            if not self._failing:
                logger.error("windows are left out: %s", error)
            self._failing = True
            if self._vitals is not None:
                self._vitals.broke()
        if self._vitals is not None:
            self._vitals.fed(packet.first, len(packet.samples), results[-1].latency_s if results else 0.0)
        if self.shadow is not None:
            self.shadow.packet(packet)
        return results

    def _watched(self, result: Decoded, decided: Decided | None) -> None:
        confidence = None if decided is None else float(decided.decision.probabilities.max())
        if self._vitals is not None:
            self._vitals.decoded(result.latency_s, confidence)
        if self.shadow is not None:
            best = self._decoder.labels[int(result.evidence.log_likelihood.argmax())]
            said = best if decided is None else decided.decision.label
            self.shadow.answered(result.sample, Answer(said, confidence))

    def flush(self) -> list[Chunk]:
        """Close the chunks under way, if there are any."""
        if not self._rows:
            return []
        gap, rows, self._rows, self._gap = self._gap, self._rows, [], 0
        first = self.until - len(rows)
        return [
            Chunk(self._session.id, self._ordinal + i, first, np.stack(each).astype(spec.dtype.numpy), self._t0_ns, gap)
            for i, (spec, each) in enumerate(zip(self.specs, zip(*rows, strict=True), strict=True))
        ]

    def finish(self) -> Outcome:
        """End what is on and close the chunks under way: the session is over."""
        return Outcome(self.flush(), [*self._ended(tell=True)])

    @property
    def decision(self) -> DecisionConfig | None:
        """How evidence becomes decisions now; None where scores are recorded alone."""
        return None if self._decider is None else self._decider.config

    def retune(self, decision: DecisionConfig) -> None:
        """Decide otherwise from the next window on; nothing where scores are recorded alone."""
        if self._decider is not None:
            self._decider.config = decision

    @property
    def labels(self) -> tuple[str, ...]:
        """Gestures in the order of the probabilities."""
        return self._decoder.labels

    @property
    def hop_s(self) -> float:
        """Time between two windows, s."""
        return self._decoder.hop_s

    @property
    def drift(self) -> Drift | None:
        """How well the wearer's calibration holds; None where nobody watches."""
        return None if self._decoder.wearing is None else self._decoder.wearing.now

    def _worn(self, t_ns: int) -> list[WearingChanged]:
        """What was found since the last packet of how the band sits."""
        told = [] if self._decoder.wearing is None else self._decoder.wearing.told()
        return [msgspec.structs.replace(event, t_ns=t_ns) for event in told]

    def _number(self, result: Decoded) -> int:
        return (result.end - self._window.length) // self._window.hop

    def _ended(self, *, tell: bool) -> list[GestureDecoded]:
        """What was on ended with the last window: windows are missing after it."""
        last, self._last = self._last, None
        events = () if self._decider is None else self._decider.reset()
        if last is None or not events:
            return []
        if tell:
            d = last.decision
            said = Decision(REST_LABEL, d.probability, d.best, d.probabilities, events)
            self._sinks.tell(replace(last, decision=said), ended=True)
        return [_told(e, last) for e in events]

    def _decide(self, result: Decoded, number: int, t_ns: int, arrived_ns: int) -> Decided | None:
        if self._decider is None:
            return None
        self._last = Decided(
            session=self._session.id,
            release=self.release,
            labels=self._decoder.labels,
            number=number,
            t_ns=t_ns,
            arrived_ns=arrived_ns,
            latency_s=result.latency_s,
            decision=self._decider.push(result.evidence),
        )
        return self._last

    def _keep(self, row: tuple[NDArray[Any], ...], t_ns: int, out: Outcome, *, whole: bool) -> None:
        """Put a row to the chunks under way, and close them when they are full or `whole`."""
        if not self._rows:
            self._t0_ns = t_ns
        self._rows.append(row)
        self.until += 1
        if whole or len(self._rows) == _CHUNK:
            out.chunks += self.flush()


def decision_spec(scores: StreamSpec, labels: tuple[str, ...]) -> StreamSpec:
    """The stream of decisions beside a stream of scores."""
    return StreamSpec(
        name=DECISIONS,
        modality=Modality.DECISION,
        channels=(ANSWER, ACTIVITY, *labels),
        rate_hz=scores.rate_hz,
        dtype=SampleType.FLOAT32,
        unit="probability",
        calibrated=True,
        device=scores.device,
    )


def _row(result: Decoded, decided: Decided) -> NDArray[np.float32]:
    said = decided.decision.label
    answer = _NO_GESTURE[said] if said in _NO_GESTURE else decided.labels.index(said)
    return np.array([answer, result.evidence.activity, *decided.decision.probabilities], np.float32)


def _told(event: GestureEvent, decided: Decided) -> GestureDecoded:
    return GestureDecoded(
        change=event.kind,
        gesture=event.label,
        t_ns=decided.t_ns,
        number=decided.number,
        probability=event.probability,
        lasted_s=event.lasted_s,
    )
