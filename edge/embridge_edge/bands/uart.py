"""Any band that sends packets over a UART-like service, described in TOML."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embridge_edge.bands.driver import Driver, Piece
from embridge_edge.bands.indexing import Counted, CounterKind, Indexer
from embridge_edge.bands.info import BandInfo
from embridge_edge.bands.protocol import uart as wire
from embridge_edge.bands.protocol.octets import malformed
from embridge_shared.signal import Modality, StreamSpec

if TYPE_CHECKING:
    from embridge_edge.ble.link import Link

INFO = BandInfo(
    kind="uart",
    title="Nordic-UART band, described in TOML",
    streams=(StreamSpec(name="emg", modality=Modality.EMG, channels=("as described",), rate_hz=1.0, device="uart"),),
    counter=CounterKind.PACKETS,
    services=(wire.SERVICE,),
    quirks="Channels, rate, scale and counter stand in its profile: docs/examples/uart-band.toml.",
)


class UartDriver(Driver):
    """Reads packets laid out as a profile says.

    Args:
        profile: What it sends.

    Raises:
        ConfigError: The profile cannot describe a packet.
    """

    def __init__(self, profile: wire.UartProfile) -> None:
        counted = CounterKind(profile.packet.counts) if profile.packet.seq is not None else CounterKind.NONE
        self.info = BandInfo(
            kind="uart",
            title=profile.name,
            streams=(profile.spec,),
            counter=counted,
            services=() if profile.advertised else (profile.service,),
            names=(profile.advertised.lower(),) if profile.advertised else (),
            identify="as described" if profile.identify else "",
        )
        super().__init__()
        self._profile = profile
        self._codec = wire.Codec(profile)
        self._framer = self._codec.framer()
        self._per_count = profile.packet.samples if profile.packet.counts == "packets" else 1

    @property
    def channels(self) -> tuple[str, ...]:
        """The characteristic that sends."""
        return (self._profile.notify,)

    async def _say(self, link: Link, text: str) -> None:
        if text:
            await link.write(self._profile.write, wire.command(text))

    async def start(self, link: Link) -> None:
        """Write what the profile has to begin."""
        await self._say(link, self._profile.start)

    async def stop(self, link: Link) -> None:
        """Write what it has to end."""
        await self._say(link, self._profile.stop)

    async def identify(self, link: Link) -> None:
        """Write what it has to make the band show itself."""
        if not self._profile.identify:
            await super().identify(link)
        await self._say(link, self._profile.identify)

    def decode(self, channel: int, data: bytes) -> list[Piece]:
        """One packet, or those that a stream's next bytes complete.

        Raises:
            DeviceError: MALFORMED: it is none; bytes of the stream belong to none.
        """
        if self._framer is None:
            return [self._piece(data)]
        skipped = self._framer.skipped
        packets = self._framer.push(data)
        if not packets and self._framer.skipped > skipped:
            raise malformed("part of a packet of the band profile", data)
        return [self._piece(packet) for packet in packets]

    def _piece(self, packet: bytes) -> Piece:
        counter, values = self._codec.decode(packet)
        return Piece(0, Counted(values, None if counter is None else counter * self._per_count))

    def reconnected(self) -> None:
        """The stream begins anew."""
        if self._framer is not None:
            self._framer.reset()

    def indexer(self, stream: int, start: int) -> Indexer:
        """By the counter the profile names, else by arrival times."""
        modulus = self._codec.modulus * self._per_count
        return Indexer(self._profile.rate_hz, modulus, exact=modulus > 0, start=start)
