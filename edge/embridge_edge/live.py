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

    Result k of the stream belongs to the k-th window on the release's grid, so a resumed session goes on where it was.

    Args:
        decoder: Fitted to the band and the wearer.
    """

    def __init__(self, decoder: StreamDecoder) -> None:
        manifest = decoder.decoder.manifest
        self._decoder = decoder
        self._window = manifest.preprocess.window
        self.release = manifest.release
        self.spec = StreamSpec(
            name=STREAM,
            modality=Modality.DECODE,
            channels=decoder.decoder.labels,
            rate_hz=1 / manifest.preprocess.hop_s,
            dtype=SampleType.FLOAT32,
            unit="score",
            calibrated=True,
            device=manifest.release,
        )
        self.latencies_s: list[float] = []
        self.until = 0
        self._gap = 0
        self._rows: list[NDArray[Any]] = []
        self._t0_ns = 0

    def begin(self, session: Session, ordinal: int, until: int) -> None:
        """Write to stream `ordinal`; results before `until` are stored already."""
        self._session = session
        self._ordinal = ordinal
        self.until = until

    async def push(self, packet: Packet, time_ns: Callable[[int], int]) -> list[Chunk]:
        """Decode what a packet completes; return the chunks that are full.

        Args:
            packet: From the band.
            time_ns: Unix time of a sample of the band, ns.
        """
        results = await asyncio.to_thread(self._decoder.push, packet.samples, packet.first)
        done: list[Chunk] = []
        for result in results:
            self.latencies_s.append(result.latency_s)
            number = (result.end - self._window.length) // self._window.hop
            if number < self.until:
                continue
            if number > self.until:
                done += self.flush()
                self._gap += number - self.until
            if not self._rows:
                self._t0_ns = time_ns(result.sample)
            self._rows.append(result.scores)
            self.until = number + 1
            if len(self._rows) == _CHUNK:
                done += self.flush()
        return done

    def flush(self) -> list[Chunk]:
        """Close the chunk under way, if there is one."""
        if not self._rows:
            return []
        samples = np.stack(self._rows).astype(self.spec.dtype.numpy)
        gap, self._rows, self._gap = self._gap, [], 0
        return [Chunk(self._session.id, self._ordinal, self.until - len(samples), samples, self._t0_ns, gap)]
