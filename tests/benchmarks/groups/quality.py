"""Signal quality: what a window costs, what the recording path pays, what is told of faults and of real recordings."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import welch

from benchmarks.framework import Row, compared, in_turn, row
from embridge_cloud.quality import recording, wearing_quality
from embridge_edge.capture import Chunker
from embridge_edge.source import Packet
from embridge_shared.quality import Judge, Summary, Windows
from support.sessions import session_of
from support.signal_faults import CHANNEL, FAULTS, SPEC, bad, forearm, spoil, verdicts

GROUP = "quality"
PACKET = 7  # samples of a notification of the open profile
SPAN = 32767.0
SETS = {
    "three_dc/three_dc_Participant*": (1000.0, ""),
    "three_dc/three_dc_myo_*": (200.0, "myo"),
    "longterm_suguru/*": (200.0, ""),
    "myo_readings/*": (200.0, "myo"),
    "ninapro_db1/*": (None, ""),
}


def rows() -> list[Row]:
    emg = forearm(3).astype(np.int16)
    return [*costs(emg), *faults(emg), *recordings()]


def costs(emg: NDArray[np.int16]) -> Iterator[Row]:
    windows = Windows(SPEC).push(0, emg)

    def judged() -> float:
        judge, began = Judge(SPEC), time.perf_counter()
        for window in windows:
            judge.judge(window)
        return (time.perf_counter() - began) / len(windows) * 1e3

    def spectra() -> float:
        began = time.perf_counter()
        for window in windows:
            welch(window.samples, SPEC.rate_hz, nperseg=2000, axis=0)
        return (time.perf_counter() - began) / len(windows) * 1e3

    ours, theirs = in_turn(judged, spectra)
    yield compared(GROUP, "a window of 16 × 2 kHz", "ms", ours, peer="scipy.signal.welch alone", theirs=theirs)
    packets = [Packet(i, emg[i : i + PACKET], i * 500_000) for i in range(0, len(emg), PACKET)]

    def gathered() -> float:
        cut, began = Windows(SPEC), time.perf_counter()
        for packet in packets:
            cut.push(packet.first, packet.samples)
        return (time.perf_counter() - began) / len(packets) * 1e6

    def chunked() -> float:
        chunker, began = Chunker(session_of(SPEC), 0, 0.25), time.perf_counter()
        for packet in packets:
            chunker.push(packet)
        return (time.perf_counter() - began) / len(packets) * 1e6

    ours, theirs = in_turn(gathered, chunked)
    yield compared(GROUP, "a packet on the recording path", "µs", ours, peer="cutting it into chunks", theirs=theirs)


def faults(emg: NDArray[np.int16]) -> Iterator[Row]:
    sound = emg.astype(float)
    told = [FAULTS[n][1] in bad(verdicts(SPEC, [(0, spoil(sound, n, 2000.0, SPAN))]), CHANNEL) for n in FAULTS]
    yield row(GROUP, f"faults of {len(FAULTS)} told, simulated forearm", "faults", [float(sum(told))])


def recordings() -> Iterator[Row]:
    """Share of windows and channels that are bad, a recording; nothing where there are none."""
    folder = Path(os.environ.get("EMBRIDGE_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))
    for pattern, (rate_hz, device) in SETS.items():
        for path in sorted(folder.glob(pattern)):
            found = [wearing_quality(w) for w in recording(path, rate_hz=rate_hz, device=device)]
            yield row(GROUP, f"{path.stem}: bad{_which(found)}", "%", [100 * _share(found)])


def _share(found: list[Summary]) -> float:
    channels = [c for s in found for c in s.channels()]
    return sum(c.bad for c in channels) / sum(c.windows for c in channels)


def _which(found: list[Summary]) -> str:
    told: dict[str, set[str]] = {}
    for summary in found:
        for channel in summary.channels():
            for fault in channel.faults():
                if fault.bad:
                    told.setdefault(fault.metric.value, set()).add(channel.channel.removeprefix("emg_"))
    return "".join(f"; {metric} {','.join(sorted(c, key=int))}" for metric, c in told.items())
