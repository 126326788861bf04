"""A band on a simulated forearm."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import numpy as np
from numpy.typing import NDArray

from embridge_edge.forearm import CONTROL_HZ, EMG_RATE_HZ, UV_PER_COUNT, Donning, Forearm, Link, Performance
from embridge_edge.forearm.electrodes import N_ELECTRODES
from embridge_edge.forearm.link import Blocks, Pacer, deliver
from embridge_edge.source import Band, Packet
from embridge_shared.clock import Clock, SystemClock
from embridge_shared.errors import OperatorError
from embridge_shared.signal import Modality, SampleType, StreamSpec

# EMG is made in blocks of this many postures, whatever the size of a packet.
_BLOCK_STEPS = 50


class SyntheticBand(Band):
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
        performance: Performance,
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
        self._performance = performance
        self._donning = donning or Donning()
        self._link = link or Link(drift_ppm=-18.0, start_s=0.012, seed=seed)
        self._seed = seed
        self._packet = packet_samples
        self._speed = speed
        self._clock = clock or SystemClock()
        self._spec = StreamSpec(
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
        self._packets: AsyncIterator[Packet] | None = None

    @property
    def spec(self) -> StreamSpec:
        """16 channels of int16 counts at 2 kHz."""
        return self._spec

    async def open(self, host_ns: int, first: int = 0) -> None:
        """Put the band on.

        Args:
            host_ns: The monotonic clock at the session's start, ns.
            first: Packets before this sample are made, not delivered.
        """
        total = self._link.count(self._performance.duration_s, EMG_RATE_HZ)
        self._packets = deliver(
            Blocks(self._recording()),
            link=self._link,
            pacer=Pacer(self._clock, self._speed, host_ns, resumed=first > 0),
            host_ns=host_ns,
            rate_hz=EMG_RATE_HZ,
            total=total,
            packet=self._packet,
            first=first,
        )

    def _recording(self) -> Callable[[], NDArray[np.int16]]:
        """Makes the next block of a new recording; the band counts time by its own clock."""
        wearer = self._performance.wearer
        forearm = Forearm(wearer, self._donning, seed=self._seed)

        def block() -> NDArray[np.int16]:
            steps = np.arange(forearm.step, forearm.step + _BLOCK_STEPS)
            t_s = self._link.time_s(steps, CONTROL_HZ) + wearer.lead_s
            return forearm.emg(self._performance.angles(t_s))

        return block

    async def packets(self) -> AsyncIterator[Packet]:
        """Deliver packets until the performance is over.

        Raises:
            OperatorError: The band is not open.
        """
        if self._packets is None:
            raise OperatorError("the synthetic band is not open", hint="Open it before taking packets.")
        async for packet in self._packets:
            if self._packets is None:
                return
            yield packet

    async def close(self) -> None:
        """Take the band off; safe to call twice."""
        self._packets = None
