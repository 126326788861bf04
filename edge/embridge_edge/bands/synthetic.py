"""A band on a simulated forearm."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from embridge_edge.forearm import CONTROL_HZ, EMG_RATE_HZ, UV_PER_COUNT, Donning, Forearm, Link, Performer
from embridge_edge.forearm.electrodes import N_ELECTRODES
from embridge_edge.forearm.source import Delivery, SimulatedSource
from embridge_edge.source import Band
from embridge_shared.clock import Clock, SystemClock
from embridge_shared.errors import OperatorError
from embridge_shared.signal import Modality, SampleType, StreamSpec

# EMG is made in blocks of this many postures, whatever the size of a packet.
_BLOCK_STEPS = 50


class SyntheticBand(SimulatedSource, Band):
    """16 electrodes at 2 kHz around the arm of a wearer who performs.

    Args:
        performance: What the wearer does.
        donning: How the band sits.
        link: The device's clock and its radio.
        seed: Of the EMG's noise; the same seed records the same counts.
        packet_samples: Samples a packet.
        speed: Seconds of the session a second; `math.inf` is as fast as they are taken.
        clock: The host's clock.
        name: Of the stream.

    Raises:
        OperatorError: Empty packets.
    """

    def __init__(
        self,
        performance: Performer,
        *,
        donning: Donning | None = None,
        link: Link | None = None,
        seed: int = 0,
        packet_samples: int = 32,
        speed: float = 1.0,
        clock: Clock | None = None,
        name: str = "emg",
    ) -> None:
        if packet_samples < 1:
            raise OperatorError(f"a packet of {packet_samples} samples holds nothing", hint="Give 1 or more.")
        self._donning = donning or Donning()
        self._seed = seed
        spec = StreamSpec(
            name=name,
            modality=Modality.EMG,
            channels=tuple(f"e{i}" for i in range(N_ELECTRODES)),
            rate_hz=EMG_RATE_HZ,
            dtype=SampleType.INT16,
            unit="µV",
            scale=UV_PER_COUNT,
            calibrated=True,
            device="synthetic-forearm",
        )
        link = link or Link(drift_ppm=-18.0, start_s=0.012, seed=seed)
        super().__init__(performance, spec, Delivery(link, packet_samples, speed, clock or SystemClock()))

    def _recording(self) -> Callable[[], NDArray[np.int16]]:
        """Makes the next block of a new recording; the band counts time by its own clock."""
        wearer = self._performance.wearer
        forearm = Forearm(wearer, self._donning, seed=self._seed)

        def block() -> NDArray[np.int16]:
            steps = np.arange(forearm.step, forearm.step + _BLOCK_STEPS)
            t_s = self._delivery.link.time_s(steps, CONTROL_HZ) + wearer.lead_s
            return forearm.emg(self._performance.angles(t_s))

        return block
