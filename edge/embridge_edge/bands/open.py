"""Bands of the open profile (docs/band-profile.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embridge_edge.bands.driver import Driver, Piece, wrong_firmware
from embridge_edge.bands.indexing import Counted, CounterKind, Indexer
from embridge_edge.bands.info import BandInfo, emg_stream
from embridge_edge.bands.protocol import open_profile as wire

if TYPE_CHECKING:
    from embridge_edge.ble.link import Link

INFO = BandInfo(
    kind="open",
    title="band of the open profile",
    streams=(
        emg_stream(wire.CHANNELS, wire.RATE_HZ, "open-profile", unit="µV", scale=wire.UV_PER_COUNT, calibrated=True),
    ),
    counter=CounterKind.SAMPLES,
    services=(wire.SERVICE,),
    names=("embridge-",),
    identify="blinks",
    quirks="Needs MTU 247 for its full rate; counts on while no host is connected.",
)


class OpenDriver(Driver):
    """Reads 16 channels at 2 kHz with a sample counter and a packet counter."""

    info = INFO
    data = wire.DATA

    async def prepare(self, link: Link) -> None:
        """Check version, layout and scale.

        Raises:
            DeviceError: UNSUPPORTED_VERSION: it is not what version 1 of the profile says.
        """
        info = wire.decode_info(await link.read(wire.INFO))
        if info.version != wire.VERSION:
            raise wrong_firmware("band", f"version {info.version} of the open profile", f"version {wire.VERSION}")
        found = (info.channels, info.rate_hz, round(info.uv_per_count, 6))
        if found != (wire.CHANNELS, wire.RATE_HZ, wire.UV_PER_COUNT):
            raise wrong_firmware(
                "band",
                f"{info.channels} channels at {info.rate_hz} Hz and {info.uv_per_count:.4g} µV a count",
                f"{wire.CHANNELS} at {wire.RATE_HZ} Hz and {wire.UV_PER_COUNT} µV",
            )

    async def start(self, link: Link) -> None:
        """START; without effect on a band that counts already."""
        await link.write(wire.CONTROL, wire.encode_command(wire.Command.START))

    async def stop(self, link: Link) -> None:
        """STOP."""
        await link.write(wire.CONTROL, wire.encode_command(wire.Command.STOP))

    async def identify(self, link: Link) -> None:
        """Blink five times."""
        await link.write(wire.CONTROL, wire.encode_command(wire.Command.IDENTIFY, 5))

    def decode(self, channel: int, data: bytes) -> list[Piece]:
        """One data packet."""
        frame = wire.decode(data)
        restarted = bool(frame.flags & wire.Flags.RESTARTED)
        return [Piece(0, Counted(frame.samples, frame.first, frame.seq, restarted))]

    def indexer(self, stream: int, start: int) -> Indexer:
        """By the sample counter."""
        return Indexer(wire.RATE_HZ, wire.SAMPLE_MODULUS, start=start)
