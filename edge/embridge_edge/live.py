"""Live decoding of a session: scores of every gesture, recorded as a stream of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge_edge.decode.stream import StreamDecoder
from embridge_edge.source import Packet
from embridge_shared.session import Session
from embridge_shared.signal import Chunk, Modality, SampleType, StreamSpec

_CHUNK = 20  # results
STREAM = "decode"


class LiveDecoding:
    """Feeds one band's packets to a decoder and gathers the scores into chunks.

    Args:
        decoder: Fitted to the band and the wearer.
        release: Name of the release it runs.
        gestures: Names of the scores, in order.
        hop_s: Time between two results.
    """

    def __init__(self, decoder: StreamDecoder, release: str, gestures: tuple[str, ...], hop_s: float) -> None:
        self._decoder = decoder
        self.release = release
        self.spec = StreamSpec(
            name=STREAM,
            modality=Modality.DECODE,
            channels=gestures,
            rate_hz=1 / hop_s,
            dtype=SampleType.FLOAT32,
            unit="score",
            calibrated=True,
            device=release,
        )
        self.latencies_s: list[float] = []
        self._hop_ns = round(hop_s * 1e9)
        self._rows: list[NDArray[Any]] = []
        self._t0_ns = 0

    def begin(self, session: Session, ordinal: int, until: int) -> None:
        """Write to stream `ordinal`; results before `until` are stored already."""
        self._session = session
        self._ordinal = ordinal
        self._stored = until
        self.until = 0

    async def push(self, packet: Packet, time_ns: Callable[[int], int]) -> list[Chunk]:
        """Decode what a packet completes; return the chunks that are full.

        Args:
            packet: From the band.
            time_ns: Unix time of a sample of the band, ns.
        """
        results = await asyncio.to_thread(self._decoder.push, packet.samples, packet.first)
        done: list[Chunk] = []
        for result in results:
            t_ns = time_ns(result.index)
            self.latencies_s.append(result.latency_s)
            if self.until >= self._stored:
                expected_ns = self._t0_ns + len(self._rows) * self._hop_ns
                if self._rows and abs(t_ns - expected_ns) > self._hop_ns // 2:
                    done += self.flush()
                if not self._rows:
                    self._t0_ns = t_ns
                self._rows.append(result.scores)
            self.until += 1
            if len(self._rows) == _CHUNK:
                done += self.flush()
        return done

    def flush(self) -> list[Chunk]:
        """Close the chunk under way, if there is one."""
        if not self._rows:
            return []
        samples = np.stack(self._rows).astype(self.spec.dtype.numpy)
        self._rows = []
        return [Chunk(self._session.id, self._ordinal, self.until - len(samples), samples, self._t0_ns)]
