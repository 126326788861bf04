"""Thalmic Myo."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from embridge_edge.bands.driver import Driver, Piece, wrong_firmware
from embridge_edge.bands.indexing import Counted, CounterKind, Indexer
from embridge_edge.bands.info import BandInfo, emg_stream
from embridge_edge.bands.protocol import myo as wire
from embridge_shared.signal import Modality, SampleType, StreamSpec

if TYPE_CHECKING:
    from embridge_edge.ble.link import Link

_FIRMWARE_MAJOR = 1
_KEEP_ALIVE_S = 10.0
_TURN = len(wire.EMG) * wire.SAMPLES_PER_PACKET

INFO = BandInfo(
    kind="myo",
    title="Thalmic Myo",
    streams=(
        emg_stream(wire.CHANNELS, wire.RATE_HZ, "myo"),
        StreamSpec(
            name="imu",
            modality=Modality.IMU,
            channels=("qw", "qx", "qy", "qz", "ax", "ay", "az", "gx", "gy", "gz"),
            rate_hz=wire.IMU_RATE_HZ,
            dtype=SampleType.INT16,
            device="myo",
        ),
    ),
    counter=CounterKind.ROTATION,
    services=(wire.CONTROL_SERVICE,),
    names=("myo",),
    identify="vibrates",
    quirks="Sleeps after 30 s unless told not to; no counter, so gaps are inferred from rotation and arrival times.",
)


class MyoDriver(Driver):
    """Reads raw EMG, 8 channels at 200 Hz, and motion at 50 Hz."""

    info = INFO

    @property
    def channels(self) -> tuple[str, ...]:
        """The four EMG characteristics, in the order of their rotation, then motion."""
        return (*wire.EMG, wire.IMU) if self.motion else wire.EMG

    @property
    def keep_alive_s(self) -> float:
        """Much less than the 30 s after which it sleeps."""
        return _KEEP_ALIVE_S

    async def prepare(self, link: Link) -> None:
        """Check the firmware.

        Raises:
            DeviceError: UNSUPPORTED_VERSION: not firmware 1.
        """
        firmware = wire.decode_firmware(await link.read(wire.FIRMWARE))
        if firmware.major != _FIRMWARE_MAJOR:
            found = f"firmware {firmware.major}.{firmware.minor}.{firmware.patch}"
            raise wrong_firmware(INFO.title, found, f"firmware {_FIRMWARE_MAJOR}")

    async def start(self, link: Link) -> None:
        """Never sleep, then send raw EMG."""
        await link.write(wire.COMMAND, wire.never_sleep())
        motion = wire.ImuMode.DATA if self.motion else wire.ImuMode.OFF
        await link.write(wire.COMMAND, wire.set_mode(wire.EmgMode.RAW, motion))

    async def stop(self, link: Link) -> None:
        """Send nothing."""
        await link.write(wire.COMMAND, wire.set_mode(wire.EmgMode.OFF))

    async def keep_alive(self, link: Link) -> None:
        """Never sleep, once more: a still arm lets it forget."""
        await link.write(wire.COMMAND, wire.never_sleep())

    async def identify(self, link: Link) -> None:
        """Vibrate."""
        await link.write(wire.COMMAND, wire.vibrate(3))

    def decode(self, channel: int, data: bytes) -> list[Piece]:
        """Two samples of EMG, or one of motion."""
        if channel == len(wire.EMG):
            return [Piece(1, Counted(wire.decode_imu(data)))]
        return [Piece(0, Counted(wire.decode_emg(data).astype(np.int16), channel * wire.SAMPLES_PER_PACKET))]

    def indexer(self, stream: int, start: int) -> Indexer:
        """By the rotation and by arrival times."""
        if stream == 0:
            return Indexer(wire.RATE_HZ, _TURN, exact=False, start=start)
        return Indexer(wire.IMU_RATE_HZ, 0, exact=False, start=start)
