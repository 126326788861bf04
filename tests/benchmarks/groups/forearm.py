"""The simulated forearm against filtering as much white noise."""

from __future__ import annotations

import time

import numpy as np
from scipy.signal import butter, sosfilt

from benchmarks.framework import Row, compared, in_turn
from benchmarks.signals import CHANNELS, RATE_HZ, forearm_emg

SECONDS = 20.0


def rows() -> list[Row]:
    sos = butter(4, [20, 450], "bandpass", fs=RATE_HZ, output="sos")

    def noise() -> None:
        shape = (int(SECONDS * RATE_HZ), CHANNELS)
        sosfilt(sos, np.random.default_rng(0).normal(0, 100, shape), axis=0).astype(np.int16)

    def speed(work) -> float:
        began = time.process_time()
        work()
        return SECONDS / (time.process_time() - began)

    ours, theirs = in_turn(lambda: speed(lambda: forearm_emg(SECONDS)), lambda: speed(noise))
    unit = "s of 16 ch × 2 kHz a CPU second"
    return [compared("forearm", "simulator", unit, ours, peer="filtered white noise", theirs=theirs)]
