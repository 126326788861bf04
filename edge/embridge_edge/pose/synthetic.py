"""A hand tracker that watches a simulated wearer."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge_edge.forearm import Link, Performance
from embridge_edge.forearm.source import Delivery, SimulatedSource
from embridge_edge.source import PoseSource
from embridge_shared.clock import Clock, SystemClock
from embridge_shared.errors import OperatorError
from embridge_shared.hand import JOINTS, N_JOINTS
from embridge_shared.signal import Modality, SampleType, StreamSpec

_RAD_PER_COUNT = 1e-4
_BLIND_S = 0.2
_BLOCK_FRAMES = 100


class SyntheticPose(SimulatedSource, PoseSource):
    """20 joint angles of the hand that performs, on the tracker's own clock.

    Args:
        performance: What the hand does; the one the band records.
        link: The tracker's clock and its link.
        rate_hz: Frames a second.
        dtype: float32 radians or int16 counts of 0.1 mrad.
        noise_deg: Standard deviation of the tracker's error.
        failures_per_min: How often the tracker loses the hand for 0.2 s; all angles are exactly 0 then.
        seed: Of noise and failures.
        packet_frames: Frames a packet.
        speed: Seconds of the session a second; `math.inf` is as fast as they are taken.
        clock: The host's clock.
        name: Of the stream.

    Raises:
        OperatorError: A rate, a packet or a type that cannot be.
    """

    def __init__(
        self,
        performance: Performance,
        *,
        link: Link | None = None,
        rate_hz: float = 120.0,
        dtype: SampleType = SampleType.FLOAT32,
        noise_deg: float = 0.3,
        failures_per_min: float = 0.0,
        seed: int = 0,
        packet_frames: int = 1,
        speed: float = 1.0,
        clock: Clock | None = None,
        name: str = "pose",
    ) -> None:
        if packet_frames < 1 or not rate_hz > 0 or dtype is SampleType.INT32 or min(noise_deg, failures_per_min) < 0:
            raise OperatorError(
                f"no tracker sends {packet_frames} frames of {dtype.value} at {rate_hz} Hz",
                hint="Give 1 frame or more, a positive rate, float32 or int16, noise and failures from 0.",
            )
        self._noise_rad = float(np.deg2rad(noise_deg))
        self._failures_per_min = failures_per_min
        self._seed = seed
        spec = StreamSpec(
            name=name,
            modality=Modality.POSE,
            channels=JOINTS,
            rate_hz=rate_hz,
            dtype=dtype,
            unit="rad",
            scale=_RAD_PER_COUNT if dtype is SampleType.INT16 else 1.0,
            calibrated=True,
            device="synthetic-tracker",
        )
        link = link or Link(drift_ppm=35.0, start_s=0.137, delay_s=0.020, jitter_s=0.003, seed=seed + 1)
        super().__init__(performance, spec, Delivery(link, packet_frames, speed, clock or SystemClock()))

    def _recording(self) -> Callable[[], NDArray[Any]]:
        """Makes the next block of a new recording; the tracker counts time by its own clock."""
        rng = np.random.default_rng([self._seed, 0x90])
        made, spec = itertools.count(), self._spec
        blind, chance = round(_BLIND_S * spec.rate_hz), self._failures_per_min / 60.0 / spec.rate_hz

        def block() -> NDArray[Any]:
            first = next(made) * _BLOCK_FRAMES
            t_s = self._delivery.link.time_s(np.arange(first, first + _BLOCK_FRAMES), spec.rate_hz)
            angles = self._performance.angles(t_s) + rng.normal(0.0, self._noise_rad, (_BLOCK_FRAMES, N_JOINTS))
            for start in np.flatnonzero(rng.random(_BLOCK_FRAMES) < chance):
                angles[start : start + blind] = 0.0
            raw = np.rint(angles / spec.scale) if spec.dtype is SampleType.INT16 else angles
            return raw.astype(spec.dtype.numpy)

        return block
