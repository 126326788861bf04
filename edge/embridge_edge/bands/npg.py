"""Upside Down Labs NPG-Lite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embridge_edge.bands.driver import Driver, Piece
from embridge_edge.bands.indexing import Counted, CounterKind, Indexer
from embridge_edge.bands.info import BandInfo, emg_stream
from embridge_edge.bands.protocol import npg as wire

if TYPE_CHECKING:
    from embridge_edge.ble.link import Link

INFO = BandInfo(
    kind="npg",
    title="NPG-Lite (BioAmp)",
    streams=(emg_stream(wire.CHANNELS, wire.RATE_HZ, "npg-lite"),),
    counter=CounterKind.SAMPLES,
    services=(wire.SERVICE,),
    names=("npg",),
    quirks="Every sample is numbered; its counts have no published scale.",
)


class NpgDriver(Driver):
    """Reads 3 channels at 500 Hz."""

    info = INFO
    data = wire.DATA

    async def start(self, link: Link) -> None:
        """`START`."""
        await link.write(wire.CONTROL, wire.START)

    async def stop(self, link: Link) -> None:
        """`STOP`."""
        await link.write(wire.CONTROL, wire.STOP)

    def decode(self, channel: int, data: bytes) -> list[Piece]:
        """Runs of consecutive samples."""
        return [Piece(0, Counted(values, counter)) for counter, values in wire.decode(data)]

    def indexer(self, stream: int, start: int) -> Indexer:
        """By the sample number; it turns over every half second, the rest is inferred from arrival times."""
        return Indexer(wire.RATE_HZ, wire.MODULUS, start=start)
