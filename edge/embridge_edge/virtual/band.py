"""What all virtual bands share: advertising, one connection, battery, a device clock, and a queue that overflows.

A band takes samples at its own clock's pace while it streams. Each packet goes to the radio if the queue of packets
the radio has not taken yet has room, else it is dropped and counted, as firmware does. Where this process was not
run for a moment, the air stood still as well: before anything is dropped it gets that time back.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from abc import ABC, abstractmethod
from contextlib import suppress

import numpy as np
from bumble import core, hci
from bumble.device import Connection, Device, DeviceConfiguration
from bumble.gatt import Service
from bumble.host import Host
from bumble.transport.common import Transport

from embridge_edge.ble.host import open_hci, unreachable
from embridge_edge.virtual import gatt
from embridge_edge.virtual.controller import VirtualController
from embridge_edge.virtual.feed import Array32, SampleFeed, fit
from embridge_edge.virtual.traits import Tally, Traits, address_of
from embridge_shared.errors import DeviceError, Reason

logger = logging.getLogger(__name__)

_ATT_NOTIFICATION = 0x1B
_ANSWER_S = 5.0
_CCCD_NOTIFY = 0x01
_UNREADY_S = 0.005
_STALL_S = 0.05
"""A timer that comes so late was held up by a busy machine."""


class VirtualBand(ABC):
    """A band on a controller.

    Args:
        where: A controller on a simulated radio, or a transport of bumble such as "usb:1".
        feed: What it measures.
        traits: How it differs from others of its kind.
    """

    kind: str
    """As in `embridge band simulate`."""
    default_name: str
    channels: int
    interval_ms: float = 15.0
    """Connection interval it asks its host for."""
    typical_noise_uv: float = 0.0
    """RMS of the noise of such a band's own electronics, where it is more than that of skin and muscle."""
    counts_on: bool = False
    """It takes samples and counts them while no host is connected."""

    def __init__(self, where: VirtualController | str, feed: SampleFeed, traits: Traits | None = None) -> None:
        self.traits = traits or Traits()
        self.name = self.traits.name or self.default_name
        self.address = self.traits.address or address_of(self.name)
        self.tally = Tally()
        self.connection: Connection | None = None
        self.battery = self.traits.battery
        self.began_s = math.nan
        self._where = where
        self._feed = feed
        self._fitted: SampleFeed | None = None
        self._transport: Transport | None = None
        self._device: Device | None = None
        self._level = gatt.battery_level(lambda: self.battery)
        self._streaming: asyncio.Task[None] | None = None
        self._asking: set[asyncio.Task[None]] = set()

    # What a kind of band decides

    @property
    @abstractmethod
    def rate_hz(self) -> float:
        """Nominal rate of EMG."""

    @abstractmethod
    def services(self) -> list[Service]:
        """Its attributes, in the order of their handles."""

    @abstractmethod
    def advertisement(self) -> tuple[bytes, bytes]:
        """Advertising data and scan response."""

    @abstractmethod
    def packet_samples(self) -> int:
        """Samples of the next packet on the link there is."""

    @abstractmethod
    def send(self, first: int, samples: Array32) -> bool:
        """Send samples, float32 (n, channels) µV; False when there was no room."""

    def ready(self) -> bool:
        """Whether somebody wants the samples; the clock of the samples stands still until then."""
        return True

    @abstractmethod
    def reset(self) -> None:
        """Forget what the last host asked for."""

    # Life

    @property
    def device(self) -> Device:
        """The bumble device.

        Raises:
            DeviceError: The band is off.
        """
        if self._device is None:
            raise DeviceError(f"the virtual band {self.name} is switched off", reason=Reason.UNREACHABLE)
        return self._device

    @property
    def _where_name(self) -> str:
        return self._where.name if isinstance(self._where, VirtualController) else self._where

    @property
    def controller_name(self) -> str:
        """Name of its controller on the simulated radio; empty on a real one."""
        return self._where.name if isinstance(self._where, VirtualController) else ""

    async def start(self) -> None:
        """Switch it on: it advertises, and again whenever its host is gone.

        Raises:
            DeviceError: Its controller cannot be reached.
        """
        config = DeviceConfiguration(
            name=self.name,
            address=hci.Address(self.address),
            gap_service_enabled=False,
            gatt_service_enabled=False,
        )
        try:
            device = Device(config=config, host=await self._host())
            device.add_services(self.services())
            async with asyncio.timeout(_ANSWER_S):
                await device.power_on()
        except (OSError, ValueError, core.BaseBumbleError, TimeoutError) as error:
            await self.stop()
            raise unreachable(f"{self._where_name} for the virtual band {self.name}", error) from error
        self._device = device
        device.on(Device.EVENT_CONNECTION, self._connected)
        data, response = self.advertisement()
        await device.start_advertising(
            auto_restart=True,
            advertising_data=data,
            scan_response_data=response,
            advertising_interval_min=self.traits.advertising_ms,
            advertising_interval_max=self.traits.advertising_ms,
        )

    async def _host(self) -> Host:
        if isinstance(self._where, VirtualController):
            host = Host(None, self._where)
            self._where.set_packet_sink(host)
            return host
        self._transport = await open_hci(self._where)
        return Host(self._transport.source, self._transport.sink)

    async def stop(self) -> None:
        """Switch it off; safe to call twice."""
        self.halt()
        for task in list(self._asking):
            task.cancel()
        device, self._device = self._device, None
        if device is not None:
            with suppress(core.BaseBumbleError, hci.HCI_Error, TimeoutError):
                async with asyncio.timeout(_ANSWER_S):
                    await device.stop_advertising()
                    if self.connection is not None:
                        await self.connection.disconnect()
                    await device.power_off()
            self.connection = None
            self.reset()
        if isinstance(self._where, VirtualController):
            self._where.quiet()
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()

    def _connected(self, connection: Connection) -> None:
        self.connection = connection
        self.tally.connections += 1
        connection.once(Connection.EVENT_DISCONNECTION, lambda _: self._disconnected(connection))
        task = asyncio.get_running_loop().create_task(self._ask(connection), name=f"{self.name} parameters")
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)
        if not self.counts_on:
            self.reset()

    async def _ask(self, connection: Connection) -> None:
        """Ask for the connection interval; hosts may refuse, and no library on the host can ask instead."""
        if connection.parameters.connection_interval <= self.interval_ms:
            return
        with suppress(core.BaseBumbleError, hci.HCI_Error):
            await connection.update_parameters(
                self.interval_ms, self.interval_ms, 0, connection.parameters.supervision_timeout, use_l2cap=True
            )

    def _disconnected(self, connection: Connection) -> None:
        if self.connection is not connection:
            return
        self.connection = None
        if not self.counts_on:
            self.halt()
            self.reset()

    async def disconnect(self) -> None:
        """End the link from the band's side, as a band does that falls asleep."""
        if self.connection is not None:
            await self.connection.disconnect()

    def set_battery(self, percent: int) -> None:
        """Change the charge; a host that wants to know is told."""
        self.battery = percent
        self.notify(self._level, bytes((percent,)))

    # Streaming

    @property
    def streaming(self) -> bool:
        """Whether it takes samples."""
        return self._streaming is not None

    def stream(self) -> None:
        """Begin to take samples, from index 0 on."""
        self.halt()
        self._fitted = fit(self._feed, rate_hz=self.rate_hz, channels=self.channels)
        self._streaming = asyncio.get_running_loop().create_task(self._stream(self._fitted), name=f"{self.name} EMG")

    def halt(self) -> None:
        """Take no more samples."""
        if self._streaming is not None:
            self._streaming.cancel()
            self._streaming = None

    def sample_s(self, index: int) -> float:
        """When a sample of the present stream is taken, on this host's monotonic clock, s."""
        return self.began_s + index / (self.rate_hz * (1 + 1e-6 * self.traits.drift_ppm))

    async def _stream(self, feed: SampleFeed) -> None:
        self.began_s = time.monotonic()
        first, owed_s = 0, 0.0
        rng = np.random.default_rng([self.traits.serial, 0xE1])
        while True:
            if not self.ready():
                await asyncio.sleep(_UNREADY_S)
                self.began_s += time.monotonic() - self.sample_s(first)
                continue
            n = self.packet_samples()
            wait_s = self.sample_s(first + n - 1) - time.monotonic()
            held_up_s = await _sleep(max(wait_s, 0.0))
            owed_s = held_up_s if wait_s > 0 else owed_s + held_up_s
            while owed_s > 0 and 2 * self.backlog >= self.traits.queue:
                owed_s += await _sleep(_UNREADY_S) - _UNREADY_S
            samples = feed.take(n)
            if self.traits.noise_uv:
                samples = samples + rng.normal(0.0, self.traits.noise_uv, samples.shape).astype(np.float32)
            self.tally.samples += n
            if self.send(first, samples):
                self.tally.packets += 1
            else:
                self.tally.dropped_packets += 1
                self.tally.dropped_samples += n
            first += n

    # Notifying

    @property
    def payload(self) -> int:
        """Bytes a notification holds on the present link."""
        return (self.connection.att_mtu if self.connection is not None else 23) - 3

    @property
    def backlog(self) -> int:
        """Packets the radio has not taken yet."""
        queue = self.connection.data_packet_queue if self.connection is not None else None
        return queue.pending if queue is not None else 0

    def subscribed(self, characteristic: gatt.Bytes) -> bool:
        """Whether the host wants notifications of it."""
        if self.connection is None:
            return False
        state = self.device.gatt_server.subscribers.get(self.connection, {}).get(characteristic.handle, b"\0\0")
        return bool(state[0] & _CCCD_NOTIFY)

    def notify(self, characteristic: gatt.Bytes, value: bytes) -> bool:
        """Notify if it is wanted; False when the queue has no room."""
        if self.connection is None or not self.subscribed(characteristic):
            return True
        if self.backlog >= self.traits.queue:
            return False
        pdu = bytes((_ATT_NOTIFICATION, characteristic.handle & 0xFF, characteristic.handle >> 8)) + value
        self.device.gatt_server.send_gatt_pdu(self.connection, pdu)
        return True


async def _sleep(seconds: float) -> float:
    """Sleep; how much longer than that this process was held up, s."""
    until_s = time.monotonic() + seconds
    await asyncio.sleep(seconds)
    late_s = time.monotonic() - until_s
    return late_s if late_s >= _STALL_S else 0.0
