"""Upside Down Labs NPG-Lite (BioAmp): 3 channels, each sample with a counter of its own, big-endian."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge_edge.bands.protocol.octets import malformed, uuid16

SERVICE = "4fafc201-1fb5-459e-8fcc-c5c9c331914b"
DATA = "beb5483e-36e1-4688-b7f5-ea07361b26a8"
"""Notify: data packets."""
CONTROL = uuid16(0xFF01)
"""Write: text."""

START, STOP = b"START", b"STOP"
CHANNELS = 3
RATE_HZ = 500
SAMPLES_PER_PACKET = 10
MODULUS = 256

_SAMPLE = np.dtype([("counter", "u1"), ("values", ">i2", (CHANNELS,))])


def encode(counter: int, samples: NDArray[Any]) -> bytes:
    """Bytes of a packet whose first sample has number `counter`; int16 (n, 3) counts."""
    block = np.zeros(len(samples), _SAMPLE)
    block["counter"] = (counter + np.arange(len(samples))) % MODULUS
    block["values"] = samples
    return block.tobytes()


def decode(data: bytes) -> list[tuple[int, NDArray[np.int16]]]:
    """Runs of consecutive samples: (counter of the first, int16 (n, 3) counts).

    Raises:
        DeviceError: MALFORMED: no whole samples.
    """
    if not data or len(data) % _SAMPLE.itemsize or len(data) > SAMPLES_PER_PACKET * _SAMPLE.itemsize:
        raise malformed("NPG-Lite packet", data)
    block = np.frombuffer(data, _SAMPLE)
    counters, values = block["counter"].astype(np.int64), block["values"].astype(np.int16)
    breaks = [0, *(np.flatnonzero(np.diff(counters) % MODULUS != 1) + 1).tolist(), len(block)]
    return [(int(counters[a]), values[a:b]) for a, b in pairwise(breaks)]
