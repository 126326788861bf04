"""OYMotion gForcePro+, gForce200, gForceOct."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from embridge_edge.bands.driver import Driver, Piece, wrong_firmware
from embridge_edge.bands.indexing import Counted, CounterKind, Indexer
from embridge_edge.bands.info import BandInfo, emg_stream
from embridge_edge.bands.protocol import gforce as wire
from embridge_shared.errors import ConfigError, DeviceError, Reason
from embridge_shared.signal import StreamSpec

if TYPE_CHECKING:
    from embridge_edge.ble.link import Link

_KEEP_ALIVE_S = 20.0
_VIBRATION_S = 0.5
_SEQ_BYTES = (1, 2)
"""Widths a packet number may have: the length of the first packet tells."""

INFO = BandInfo(
    kind="gforce",
    title="OYMotion gForce",
    streams=(emg_stream(wire.CHANNELS, 1000.0, "gforce", unit="µV", scale=wire.UV_PER_COUNT_8_BIT),),
    counter=CounterKind.PACKETS,
    services=(wire.SERVICE,),
    names=("gforce",),
    identify="vibrates",
    quirks="8 bit at 1000 Hz or 12 bit at 500 Hz; the scale follows from the maker's formula and was not measured.",
)

_CONFIGS = {8: wire.EmgConfig(), 12: wire.EmgConfig(rate_hz=500, bits=12)}


class GForceDriver(Driver):
    """Reads 8 channels of EMG with numbered packets.

    Args:
        bits: 8 (1000 Hz) or 12 (500 Hz).

    Raises:
        ConfigError: Neither.
    """

    info = INFO
    data = wire.DATA

    def __init__(self, *, bits: int = 8) -> None:
        super().__init__()
        if bits not in _CONFIGS:
            raise ConfigError(f"gForce samples with 8 or 12 bit, not {bits}")
        self._config = _CONFIGS[bits]
        self._seq_bytes: int | None = None
        self._answers: asyncio.Queue[bytes] | None = None
        self._asking = asyncio.Lock()

    @property
    def streams(self) -> tuple[StreamSpec, ...]:
        """EMG at the rate and scale of the resolution chosen."""
        scale = wire.UV_PER_COUNT_8_BIT if self._config.bits == 8 else wire.UV_PER_COUNT_12_BIT
        return (msgspec.structs.replace(INFO.emg, rate_hz=float(self._config.rate_hz), scale=scale),)

    @property
    def keep_alive_s(self) -> float:
        """It switches itself off when nobody asks it anything."""
        return _KEEP_ALIVE_S

    async def _ask(self, link: Link, request: bytes) -> wire.Reply:
        """Send a request and wait for its reply."""
        if self._answers is None:
            raise DeviceError("the gForce is not connected", reason=Reason.UNREACHABLE)
        async with self._asking:
            while not self._answers.empty():
                self._answers.get_nowait()
            await link.write(wire.COMMAND, request)
            while True:
                reply = wire.decode_reply(await link.answer(self._answers))
                if reply.op == request[0] and reply.code is not wire.Code.PARTIAL:
                    return reply

    async def _do(self, link: Link, request: bytes, what: str) -> wire.Reply:
        reply = await self._ask(link, request)
        if reply.code is not wire.Code.OK:
            raise wrong_firmware(INFO.title, f"firmware that cannot {what} ({reply.code.name.lower()})", "the others")
        return reply

    async def prepare(self, link: Link) -> None:
        """Listen to replies."""
        self._answers = await link.listen(wire.COMMAND)

    async def start(self, link: Link) -> None:
        """Choose rate and resolution, number the packets, send EMG.

        Raises:
            DeviceError: UNSUPPORTED_VERSION: it cannot.
        """
        await self._do(link, wire.set_config(self._config), f"sample at {self._config.rate_hz} Hz")
        await self._do(link, wire.package_id(True), "number its packets")
        await self._do(link, wire.data_switch(wire.Notify.EMG), "send raw EMG")

    async def stop(self, link: Link) -> None:
        """Send nothing."""
        await self._ask(link, wire.data_switch(wire.Notify.OFF))

    async def keep_alive(self, link: Link) -> None:
        """Ask for the charge."""
        await self.battery(link)

    async def battery(self, link: Link) -> int | None:
        """Charge, percent."""
        reply = await self._ask(link, wire.encode_request(wire.Request(wire.Op.BATTERY)))
        return reply.body[0] if reply.code is wire.Code.OK and reply.body and reply.body[0] <= 100 else None

    async def identify(self, link: Link) -> None:
        """Vibrate."""
        await self._do(link, wire.motor(True), "vibrate")
        await asyncio.sleep(_VIBRATION_S)
        await self._do(link, wire.motor(False), "vibrate")

    def decode(self, channel: int, data: bytes) -> list[Piece]:
        """EMG of a numbered packet; other packets count for nothing."""
        if wire.decode_frame(data).kind != wire.DataType.EMG:
            return []
        seq_bytes = len(data) - 1 - self._config.packet_bytes
        if self._seq_bytes is None and seq_bytes in _SEQ_BYTES:
            self._seq_bytes = seq_bytes
        frame = wire.decode_frame(data, self._seq_bytes or wire.SEQ_BYTES)
        samples = wire.decode_emg(frame.body, bits=self._config.bits)
        if len(samples) != self._config.samples_per_packet or frame.seq is None:
            raise DeviceError(
                f"a gForce packet held {len(samples)} samples instead of {self._config.samples_per_packet}",
                reason=Reason.MALFORMED,
                hint="Its firmware took another resolution than it was told to.",
            )
        return [Piece(0, Counted(samples, frame.seq * len(samples)))]

    def indexer(self, stream: int, start: int) -> Indexer:
        """By the packet number; what is lost over a whole turn of it, by arrival times."""
        turn = (1 << 8 * (self._seq_bytes or wire.SEQ_BYTES)) * self._config.samples_per_packet
        return Indexer(self._config.rate_hz, turn, start=start)
