"""OpenBCI Ganglion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embridge_edge.bands.driver import Driver, Piece
from embridge_edge.bands.indexing import Counted, CounterKind, Indexer
from embridge_edge.bands.info import BandInfo, emg_stream
from embridge_edge.bands.protocol import ganglion as wire
from embridge_edge.bands.protocol.octets import SOFTWARE_REVISION
from embridge_shared.signal import SampleType

if TYPE_CHECKING:
    from embridge_edge.ble.link import Link

INFO = BandInfo(
    kind="ganglion",
    title="OpenBCI Ganglion",
    streams=(
        emg_stream(
            wire.CHANNELS,
            wire.RATE_HZ,
            "ganglion",
            dtype=SampleType.INT32,
            unit="µV",
            scale=wire.UV_PER_COUNT,
            calibrated=True,
        ),
    ),
    counter=CounterKind.PACKETS,
    names=("ganglion", "simblee"),
    quirks="200 Hz is less than EMG needs; with firmware 2 a lost packet costs all up to the next raw sample.",
)


class GanglionDriver(Driver):
    """Reads 4 channels at 200 Hz from firmware 2 or 3."""

    info = INFO
    data = wire.DATA

    def __init__(self) -> None:
        super().__init__()
        self._version = 3
        self._differences = wire.Differences()

    async def prepare(self, link: Link) -> None:
        """Find out which packets it sends."""
        revision = await link.read_if_there(SOFTWARE_REVISION)
        self._version = wire.version_of(revision) if revision else 3

    async def start(self, link: Link) -> None:
        """`b`."""
        await link.write(wire.CONTROL, wire.START, response=False)

    async def stop(self, link: Link) -> None:
        """`s`."""
        await link.write(wire.CONTROL, wire.STOP, response=False)

    def decode(self, channel: int, data: bytes) -> list[Piece]:
        """Two samples; none where firmware 2 has lost its level, or of an impedance."""
        frame = wire.decode(data, self._version)
        if isinstance(frame, wire.Impedance):
            return []
        if self._version == 3:
            return [Piece(0, Counted(frame.values, frame.number * wire.SAMPLES_PER_PACKET))]
        values = self._differences.values(frame)
        if values is None:
            return []
        first = 0 if frame.bits == 24 else 1 + (frame.number - 1) * wire.SAMPLES_PER_PACKET
        return [Piece(0, Counted(values, first))]

    def indexer(self, stream: int, start: int) -> Indexer:
        """By the packet number."""
        turn = wire.MODULUS_V3 if self._version == 3 else wire.MODULUS_V2
        return Indexer(wire.RATE_HZ, turn, start=start)

    def reconnected(self) -> None:
        """Differences begin with a raw sample."""
        self._differences = wire.Differences()
