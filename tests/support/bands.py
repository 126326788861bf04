"""Virtual bands in a Bluetooth thread of their own, fed with ramps that tell every sample apart."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
from bumble.gatt import Service

from embridge_edge.bands.protocol import ganglion, npg, uart
from embridge_edge.bands.protocol.octets import SOFTWARE_REVISION, uuid16
from embridge_edge.ble.adapter import Adapter
from embridge_edge.ble.thread import BleThread
from embridge_edge.source import Packet
from embridge_edge.virtual import gatt
from embridge_edge.virtual.air import Air
from embridge_edge.virtual.band import Traits, VirtualBand
from embridge_edge.virtual.feed import SampleFeed
from embridge_edge.virtual.rig import Rig

PERIODS = {8: 190, 16: 30_011}
"""Samples after which a ramp repeats, by the bits a count has."""


class Ramp(SampleFeed):
    """Counts that rise by one a sample, from another start in every channel.

    Args:
        unit: µV a count.
        bits: What a count has to fit into.
    """

    def __init__(self, rate_hz: float, channels: int, unit: float, bits: int = 16) -> None:
        self.rate_hz, self.channels, self._unit, self._bits = rate_hz, channels, unit, bits
        self._next = 0

    def take(self, n: int) -> np.ndarray:
        at = np.arange(self._next, self._next + n)
        self._next += n
        return (ramp(at, self.channels, self._bits) * self._unit).astype(np.float32)


def ramp(index: np.ndarray, channels: int, bits: int = 16) -> np.ndarray:
    """Counts of samples by index, int (n, channels)."""
    period = PERIODS[bits]
    return (index[:, None] + 7 * np.arange(channels)) % period - period // 2


def misplaced(packets: list[Packet], bits: int = 16, offset: int = 0) -> int:
    """How many packets do not hold the ramp of the indices they are given."""
    wrong = 0
    for p in packets:
        wanted = ramp(np.arange(p.first, p.first + len(p.samples)) + offset, p.samples.shape[1], bits)
        wrong += not np.array_equal(p.samples, wanted)
    return wrong


class ScriptedBand(VirtualBand):
    """A band of one service with a characteristic that sends and one that takes commands.

    Args:
        encode: Bytes of a packet from the index of its first sample and its counts, int (n, channels).
    """

    kind = "scripted"
    default_name = "Scripted"
    service, data, control = uart.SERVICE, uart.NOTIFY, uart.WRITE
    start_command, stop_command = b"", b""
    per_packet = 10
    software = "3.0.1"
    rate = 500.0

    def encode(self, first: int, counts: np.ndarray) -> bytes:
        raise NotImplementedError

    @property
    def rate_hz(self) -> float:
        return self.rate

    def services(self) -> list[Service]:
        self._data = gatt.characteristic(self.data, gatt.NOTIFY)
        self.commands: list[bytes] = []
        control = gatt.characteristic(self.control, gatt.WRITE | gatt.WRITE_QUICK, written=self._command)
        software = gatt.characteristic(SOFTWARE_REVISION, gatt.READ, read=self.software.encode())
        return [
            gatt.gap(self.name),
            Service(uuid16(0x180A), [software]),
            gatt.battery(self._level),
            Service(self.service, [self._data, control]),
        ]

    def advertisement(self) -> tuple[bytes, bytes]:
        return gatt.advertisement(self.name, self.service)

    def _command(self, data: bytes) -> None:
        self.commands.append(data)
        if data == self.start_command:
            self.stream()
        elif data == self.stop_command:
            self.halt()

    def packet_samples(self) -> int:
        return self.per_packet

    def reset(self) -> None:
        pass

    def send(self, first: int, samples: np.ndarray) -> bool:
        return self.notify(self._data, self.encode(first, np.rint(samples).astype(np.int64)))


class NpgBand(ScriptedBand):
    """An NPG-Lite."""

    kind, default_name, channels, rate = "npg", "NPG-30:30", npg.CHANNELS, float(npg.RATE_HZ)
    service, data, control = npg.SERVICE, npg.DATA, npg.CONTROL
    start_command, stop_command = npg.START, npg.STOP

    def encode(self, first: int, counts: np.ndarray) -> bytes:
        return npg.encode(first % npg.MODULUS, counts)


class GanglionBand(ScriptedBand):
    """A Ganglion of firmware 3; its ramp counts by 64, the step of 18 bits, and leaves out -1."""

    kind, default_name, channels, rate = "ganglion", "Ganglion-1a2b", ganglion.CHANNELS, float(ganglion.RATE_HZ)
    service, data, control = ganglion.SERVICE, ganglion.DATA, ganglion.CONTROL
    start_command, stop_command = ganglion.START, ganglion.STOP
    per_packet = ganglion.SAMPLES_PER_PACKET

    def encode(self, first: int, counts: np.ndarray) -> bytes:
        values = np.where(counts == -1, -2, counts).astype(np.int32) << 6
        return ganglion.encode(ganglion.Frame(first // 2 % 100, 18, values))


class UartBand(ScriptedBand):
    """A band that sends what a profile says."""

    kind, default_name = "uart", "LabBand 1"

    def __init__(self, profile: uart.UartProfile, *arguments: Any) -> None:
        self._codec = uart.Codec(profile)
        self.rate, self.channels, self.per_packet = profile.rate_hz, len(profile.channels), profile.packet.samples
        self.start_command, self.stop_command = uart.command(profile.start), uart.command(profile.stop)
        super().__init__(*arguments)

    def encode(self, first: int, counts: np.ndarray) -> bytes:
        return self._codec.encode(first // self.per_packet, counts)


class StreamingUartBand(UartBand):
    """A band whose packets lie across notifications of 20 bytes, but one in 20, of which the last bytes are lost."""

    def __init__(self, *arguments: Any) -> None:
        self._pending = b""
        super().__init__(*arguments)

    def send(self, first: int, samples: np.ndarray) -> bool:
        packet = self.encode(first, np.rint(samples).astype(np.int64))
        spoiled = first // self.per_packet % 20 == 10
        self._pending += packet[:-5] if spoiled else packet
        while len(self._pending) >= 20:
            self.notify(self._data, self._pending[:20])
            self._pending = self._pending[20:]
        return True


class RigThread:
    """A rig in a Bluetooth thread, and what `BleBand` needs to get at it. Use it as a context manager.

    Every adapter asked for is the same one on the rig's radio.
    """

    def __init__(self, air: Air | None = None) -> None:
        self._air = air
        self.rig: Rig
        self.thread = BleThread(self._open)

    async def _open(self) -> Adapter:
        adapter = self.rig.adapter()
        await adapter.open()
        return adapter

    async def _make(self) -> None:
        self.rig = Rig(self._air)

    def __enter__(self) -> RigThread:
        self.do(self._make())
        return self

    def __exit__(self, *_: object) -> None:
        self.do(self.rig.close())
        self.thread.close()

    def acquire(self, spec: str) -> BleThread:
        return self.thread

    def release(self, spec: str) -> None:
        pass

    def do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run something in the thread and wait for it."""
        return self.thread.spawn(coroutine).result(10)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call something in the thread."""

        async def called() -> Any:
            return function(*arguments)

        return self.do(called())

    def add(self, kind: str, feed: SampleFeed, **traits: Any) -> Any:
        """Switch a virtual band on; its queue outlasts a busy machine."""
        return self.do(self.rig.add(kind, feed, Traits(**{"queue": 2000, **traits})))

    def put(self, make: Callable[..., VirtualBand], feed: SampleFeed, *before: Any) -> Any:
        """Switch a band of a class of one's own on."""

        async def on() -> VirtualBand:
            band = make(*before, self.rig.controller("own"), feed, Traits(queue=2000))
            await band.start()
            self.rig.bands.append(band)
            return band

        return self.do(on())
