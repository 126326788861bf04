"""A shadow run: a release decodes the same windows beside the one in force, and nobody is told what it says."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from embridge_edge.decode.runtime import Decoder
from embridge_edge.decode.stream import Decoded, StreamDecoder
from embridge_edge.source import Packet
from embridge_edge.update.health import Vitals
from embridge_shared.decision import Decider, DecisionConfig
from embridge_shared.fleet import ReleaseHealth

logger = logging.getLogger(__name__)

_QUEUED: Final = 64  # packets
_KEPT: Final = 256  # answers that wait for the other release's


@dataclass(frozen=True, slots=True)
class Answer:
    """What a release makes of a window.

    Attributes:
        label: A gesture, "rest" or "unknown".
        confidence: Probability of the best gesture; None where nothing is decided.
    """

    label: str
    confidence: float | None


class Fit(Protocol):
    """Fits a release to the band and the wearer of the session that is recorded; it blocks."""

    def __call__(self, decoder: Decoder) -> tuple[StreamDecoder, DecisionConfig | None]:
        """A decoder of the stream, and how it decides.

        Raises:
            EmbridgeError: It cannot decode this session.
        """
        ...


class Comparison:
    """What both releases made of the windows both saw.

    Args:
        release: Name of the one that is tried.
    """

    def __init__(self, release: str) -> None:
        self.vitals = Vitals(ReleaseHealth(release=release))
        self.windows = 0
        self.dropped = 0
        self._alike = 0
        self._before, self._sure = 0.0, 0
        self._waiting: tuple[dict[int, Answer], dict[int, Answer]] = ({}, {})

    def note(self, sample: int, answer: Answer, *, tried: bool) -> None:
        """A release answered.

        Args:
            sample: Index of the newest raw sample the window rests on.
            answer: What it said.
            tried: The one that is tried, or the one in force.
        """
        mine, others = self._waiting if tried else self._waiting[::-1]
        other = others.pop(sample, None)
        if other is None:
            mine[sample] = answer
            if len(mine) > _KEPT:
                del mine[next(iter(mine))]
            return
        self.windows += 1
        self._alike += answer.label == other.label
        before = other if tried else answer
        if before.confidence is not None:
            self._before += before.confidence
            self._sure += 1

    def now(self) -> ReleaseHealth:
        """How the release that is tried fares beside the other."""
        found = self.vitals.now()
        return ReleaseHealth(
            release=found.release,
            windows=self.windows,
            latency_p50_ms=found.latency_p50_ms,
            latency_p99_ms=found.latency_p99_ms,
            confidence=found.confidence,
            shadow_confidence=round(self._before / self._sure, 4) if self._sure else None,
            agreement=round(self._alike / self.windows, 4) if self.windows else None,
            broken=found.broken,
        )

    def reset(self) -> None:
        """Samples are numbered anew: another session begins."""
        for waiting in self._waiting:
            waiting.clear()


class Shadow:
    """Decodes the packets of one session with the release that is tried, as fast as the machine has time for it.

    What it has no time for is left out: the release in force waits for nobody.

    Args:
        stream: Of the release that is tried.
        decision: How it decides.
        comparison: Where answers go.
    """

    def __init__(self, stream: StreamDecoder, decision: DecisionConfig | None, comparison: Comparison) -> None:
        self._stream = stream
        self._decider = None if decision is None else Decider(decision, stream.labels, stream.hop_s)
        self._packets: deque[Packet] = deque()
        self._news = asyncio.Event()
        self._last = -1
        self.comparison = comparison
        comparison.reset()
        rate_hz = stream.decoder.manifest.preprocess.front_end.rate_hz
        comparison.vitals.begin(rate_hz=stream.rate_hz, window_s=stream.window.length / rate_hz, hop_s=stream.hop_s)

    def packet(self, packet: Packet) -> None:
        """Take a packet; returns at once."""
        if len(self._packets) >= _QUEUED:
            self.comparison.dropped += 1
            return
        self._packets.append(packet)
        self._news.set()

    def answered(self, sample: int, answer: Answer) -> None:
        """Take what the release in force made of a window."""
        self.comparison.note(sample, answer, tried=False)

    async def run(self) -> None:
        """Decode until cancelled, or until the release breaks."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._packets:
                packet = self._packets.popleft()
                try:
                    results = await asyncio.to_thread(self._stream.push, packet.samples, packet.first)
                except Exception:  # whatever it is, the recording goes on and the release does not come to run
                    logger.exception("the release on trial cannot decode")
                    self.comparison.vitals.broke()
                    return
                vitals = self.comparison.vitals
                vitals.fed(packet.first, len(packet.samples), results[-1].latency_s if results else 0.0)
                for result in results:
                    answer = self._answer(result)
                    vitals.decoded(result.latency_s, answer.confidence)
                    self.comparison.note(result.sample, answer, tried=True)

    def _answer(self, result: Decoded) -> Answer:
        if self._decider is None:
            return Answer(self._stream.labels[int(np.argmax(result.evidence.log_likelihood))], None)
        if self._last not in (-1, result.end - self._stream.window.hop):
            self._decider.reset()
        self._last = result.end
        decision = self._decider.push(result.evidence)
        return Answer(decision.label, float(decision.probabilities.max()))
