"""Mudra Link."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embridge_edge.bands.driver import Driver, Piece
from embridge_edge.bands.indexing import Counted, CounterKind, Indexer
from embridge_edge.bands.info import BandInfo
from embridge_edge.bands.protocol import mudra as wire
from embridge_shared.signal import Modality, SampleType, StreamSpec

if TYPE_CHECKING:
    from embridge_edge.ble.link import Link

_MODULUS = 1 << 32
_FOLLOW = 0.01

INFO = BandInfo(
    kind="mudra",
    title="Mudra Link",
    streams=(
        StreamSpec(
            name="emg",
            modality=Modality.EMG,
            channels=wire.CHANNELS,
            rate_hz=wire.RATE_HZ,
            dtype=SampleType.INT16,
            unit="µV",
            scale=wire.UV_PER_COUNT,
            device="mudra-link",
        ),
        StreamSpec(
            name="imu",
            modality=Modality.IMU,
            channels=("ax", "ay", "az", "gx", "gy", "gz"),
            rate_hz=wire.IMU_RATE_HZ,
            dtype=SampleType.INT16,
            device="mudra-link",
        ),
    ),
    counter=CounterKind.DEVICE_CLOCK,
    names=("mudra",),
    quirks="No counter, but its own clock in µs in every packet; the scale is unverified.",
)


class ClockCount:
    """Counts samples by a device clock that is read at the end of every packet."""

    def __init__(self, rate_hz: float) -> None:
        self._us_per_sample = 1e6 / rate_hz
        self._last_us: int | None = None
        self._count = 0

    def first(self, device_us: int, n: int) -> int:
        """Number of the first of `n` samples that end at `device_us`, modulo 2^32; loss is whole packets."""
        last_us, self._last_us = self._last_us, device_us
        if last_us is None:
            return 0
        elapsed_us = (device_us - last_us) % wire.CLOCK_MODULUS
        if elapsed_us >= wire.CLOCK_MODULUS // 2:
            elapsed_us -= wire.CLOCK_MODULUS
        packets = round(elapsed_us / (self._us_per_sample * n))
        if packets == 1:
            # The device's own rate is a little off the nominal one; long gaps need the true one.
            self._us_per_sample += _FOLLOW * (elapsed_us / n - self._us_per_sample)
        self._count = (self._count + n * packets) % _MODULUS
        return self._count


class MudraDriver(Driver):
    """Reads 3 channels of EMG at 834 Hz, and motion."""

    info = INFO

    def __init__(self, *, motion: bool = False) -> None:
        super().__init__(motion=motion)
        self._clock = ClockCount(wire.RATE_HZ)

    @property
    def channels(self) -> tuple[str, ...]:
        """EMG, then motion."""
        return (wire.SNC, wire.IMU) if self.motion else (wire.SNC,)

    async def start(self, link: Link) -> None:
        """Turn EMG on, and motion."""
        await link.write(wire.COMMAND, wire.enable_snc())
        if self.motion:
            for command in wire.enable_motion():
                await link.write(wire.COMMAND, command)

    async def stop(self, link: Link) -> None:
        """Turn both off."""
        await link.write(wire.COMMAND, wire.enable_snc(False))
        if self.motion:
            for command in wire.enable_motion(False):
                await link.write(wire.COMMAND, command)

    def decode(self, channel: int, data: bytes) -> list[Piece]:
        """An EMG packet, or one of motion."""
        if channel == 1:
            return [Piece(1, Counted(wire.decode_imu(data)))]
        frame = wire.decode(data)
        return [Piece(0, Counted(frame.samples, self._clock.first(frame.device_us, len(frame.samples))))]

    def indexer(self, stream: int, start: int) -> Indexer:
        """EMG by the device's clock, motion by arrival times."""
        if stream == 0:
            return Indexer(wire.RATE_HZ, _MODULUS, start=start)
        return Indexer(wire.IMU_RATE_HZ, 0, exact=False, start=start)
