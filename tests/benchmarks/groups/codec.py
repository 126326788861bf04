"""Chunks to bytes and back against zstd alone on the same bytes; size against the signal's order-0 entropy."""

from __future__ import annotations

import time
from collections.abc import Callable
from uuid import UUID

import numpy as np
import zstandard

from benchmarks.framework import Row, compared, in_turn
from benchmarks.signals import CHUNK, entropy_bits, forearm_emg
from embridge_shared.signal import Chunk
from embridge_shared.wire import codec

GROUP = "codec"


def rows() -> list[Row]:
    emg = forearm_emg(40.0)
    parts = [np.ascontiguousarray(emg[i : i + CHUNK]) for i in range(0, len(emg) - CHUNK + 1, CHUNK)]
    chunks = [Chunk(UUID(int=1), 0, i * CHUNK, p, 0) for i, p in enumerate(parts)]
    plain = [p.tobytes() for p in parts]
    encoded = [codec.encode(c) for c in chunks]
    packed = [zstandard.ZstdCompressor(level=1).compress(b) for b in plain]
    size = sum(map(len, plain))

    def speed(work: Callable[[], object]) -> Callable[[], float]:
        """Raw megabytes a second of processor time."""

        def measure() -> float:
            began = time.process_time()
            work()
            return size / 1e6 / (time.process_time() - began)

        return measure

    encoding, compressing, decoding, expanding = in_turn(
        speed(lambda: [codec.encode(c) for c in chunks]),
        speed(lambda: [zstandard.ZstdCompressor(level=1).compress(b) for b in plain]),
        speed(lambda: [codec.decode(p) for p in encoded]),
        speed(lambda: [zstandard.ZstdDecompressor().decompress(p) for p in packed]),
    )
    bound = 16 / entropy_bits(emg)
    ratio, bare = size / sum(map(len, encoded)), size / sum(map(len, packed))
    return [
        compared(GROUP, "encode", "MB/s", encoding, peer="zstd level 1", theirs=compressing),
        compared(GROUP, "decode", "MB/s", decoding, peer="zstd", theirs=expanding),
        compared(GROUP, "compression", "×", [ratio], peer="zstd level 1", theirs=[bare]),
        compared(GROUP, "compression", "×", [ratio], peer="order-0 entropy", theirs=[bound]),
    ]
