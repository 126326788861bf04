"""A model of the air between a host and its bands.

Link-layer packets travel in connection events. In each exchange of an event both sides send one packet, 150 µs apart;
an exchange that would outlast the event waits for the next one. A packet that is damaged closes the event and is sent
again in the next: on a link that stands nothing is lost, it is late. What is lost is lost where a queue is full, in
the band's firmware, because a controller gives a buffer back only when its packet was acknowledged.

One radio serves one link at a time, so several bands share the air time of their host.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bumble import hci, ll
from bumble.controller import Connection, Controller

from embridge_shared.errors import OperatorError

if TYPE_CHECKING:
    from embridge_edge.virtual.controller import VirtualController
    from embridge_edge.virtual.radio import Radio

IFS_S = 150e-6
"""Pause between two packets of an exchange."""

_LL_HEADER = 2
_US = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Air:
    """What the radio is like.

    Attributes:
        ideal: Packets arrive at once and nothing else here counts.
        interval_ms: Connection interval forced on every link, as telephones do; None grants what is asked.
        phy: Fastest PHY, Mbit/s: 1 or 2.
        ll_octets: Largest payload of a link-layer packet, 27 (no data length extension) to 251.
        pdu_errors: Probability that a packet with data is damaged.
        jitter_ms: Mean of the exponential delay from controller to host.
        rssi_dbm: Strength of the signal at either end.
        seed: Of errors and jitter.
    """

    ideal: bool = False
    interval_ms: float | None = None
    phy: int = 2
    ll_octets: int = 251
    pdu_errors: float = 0.0
    jitter_ms: float = 0.0
    rssi_dbm: int = -52
    seed: int = 0

    def __post_init__(self) -> None:
        bad_interval = self.interval_ms is not None and not 7.5 <= self.interval_ms <= 4000
        if (
            bad_interval
            or self.phy not in (1, 2)
            or not 27 <= self.ll_octets <= 251
            or not 0 <= self.pdu_errors < 1
            or self.jitter_ms < 0
        ):
            raise OperatorError(
                f"no radio is like this: {self}",
                hint="Interval 7.5 to 4000 ms, PHY 1 or 2, payload 27 to 251 bytes, errors 0 to below 1.",
            )


def air_time_s(payload: int, phy: int) -> float:
    """Time on air of a link-layer packet, s.

    Args:
        payload: Bytes of payload; 0 is an empty packet.
        phy: 1 or 2 Mbit/s.
    """
    preamble, per_byte_us = (1, 8) if phy == 1 else (2, 4)
    return (preamble + 4 + _LL_HEADER + payload + 3) * per_byte_us * _US


class Fragment:
    """An HCI data packet on its way, sent in link-layer packets."""

    __slots__ = ("data", "left", "start")

    def __init__(self, packet: bytes) -> None:
        self.start = (packet[2] >> 4) & 3 != 1
        self.data = packet[5:]
        self.left = len(self.data)


class Side:
    """One end of a link."""

    __slots__ = ("arrived_s", "connection", "controller", "queue")

    def __init__(self, controller: VirtualController, connection: Connection) -> None:
        self.controller = controller
        self.connection = connection
        self.queue: deque[Fragment] = deque()
        self.arrived_s = 0.0


class AirLink:
    """One connection: two queues, a grid of events, and who hears whom."""

    def __init__(self, radio: Radio, central: Side, peripheral: Side, indication: ll.ConnectInd) -> None:
        self.radio = radio
        self.central = central
        self.peripheral = peripheral
        self.phy = 1
        self.ll_octets = radio.air.ll_octets
        self.interval_s = indication.interval * 1.25e-3
        self.supervision_s = indication.timeout * 10e-3
        self.open = True
        self._loop = asyncio.get_running_loop()
        self._anchor_s = self._loop.time()
        self._clock_s = self._anchor_s
        self._ends_s = self._anchor_s
        self._in_air: tuple[float, bool] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._silence: asyncio.TimerHandle | None = None

    def send(self, sender: Controller, packet: bytes) -> None:
        """Take an HCI data packet from a host."""
        if not self.open:
            return
        side = self.central if sender is self.central.controller else self.peripheral
        fragment = Fragment(packet)
        if self.radio.air.ideal and not side.queue and self.radio.hears(self):
            self._deliver(side, fragment)
            return
        side.queue.append(fragment)
        self.wake()

    def wake(self) -> None:
        """See whether there is something to send."""
        if self._timer is None and self.open:
            if self._in_air is None:
                self._next_event(self._loop.time())
            self._run()

    def set_interval(self, interval_s: float) -> None:
        """Use another connection interval from now on."""
        self.interval_s = interval_s
        self._anchor_s = self._loop.time()

    def close(self) -> None:
        """The connection is over; what was queued is gone."""
        self.open = False
        for timer in (self._timer, self._silence):
            if timer is not None:
                timer.cancel()

    def lose(self, after_s: float) -> None:
        """Let the link fail after so long of silence, unless `regain` comes first."""
        if self._silence is None:
            self._silence = self._loop.call_later(after_s, self.fail)

    def regain(self) -> None:
        """The ends hear each other again."""
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None
        self.wake()

    def fail(self) -> None:
        """Both ends take the link for lost."""
        if not self.open:
            return
        self.close()
        for side in (self.central, self.peripheral):
            if side.connection.peer_address in side.controller.le_connections:
                side.controller.on_le_disconnected(side.connection, int(hci.HCI_ErrorCode.CONNECTION_TIMEOUT_ERROR))

    def _next_event(self, after_s: float) -> None:
        """Set the clock to the first event that begins at or after a time."""
        k = math.ceil((after_s - self._anchor_s) / self.interval_s - 1e-9)
        self._clock_s = self._anchor_s + k * self.interval_s
        self._ends_s = self._clock_s + self.interval_s

    def _run(self) -> None:
        """Carry out every exchange that is over by now, and wait for the next."""
        self._timer = None
        now_s = self._loop.time()
        while self.open:
            if self._in_air is not None:
                end_s, good = self._in_air
                if end_s > now_s:
                    self._timer = self._loop.call_at(end_s, self._run)
                    return
                self._in_air = None
                self._finish(end_s, good)
            if not (self.central.queue or self.peripheral.queue) or not self.radio.hears(self):
                return
            self._begin()

    def _payload(self, side: Side) -> int:
        return min(side.queue[0].left, self.ll_octets) if side.queue else 0

    def _begin(self) -> None:
        """Put the next exchange on air, in this event or the next that has room."""
        sizes = self._payload(self.central), self._payload(self.peripheral)
        needs_s = sum(air_time_s(size, self.phy) + IFS_S for size in sizes)
        host = self.central.controller
        while True:
            start_s = max(self._clock_s, host.busy_until_s)
            if start_s + needs_s <= self._ends_s:
                break
            self._next_event(max(self._ends_s, start_s - self.interval_s))
        host.busy_until_s = start_s + needs_s
        self._in_air = start_s + needs_s, not self.radio.damages(sum(size > 0 for size in sizes))

    def _finish(self, end_s: float, good: bool) -> None:
        """An exchange is over: deliver what is complete; the event closes on an error and when there is no more."""
        self._clock_s = end_s
        if good:
            for side in (self.central, self.peripheral):
                self._sent(side)
        if not good or not (self.central.queue or self.peripheral.queue):
            self._next_event(self._ends_s)

    def _sent(self, side: Side) -> None:
        if not side.queue:
            return
        fragment = side.queue[0]
        fragment.left -= self._payload(side)
        if fragment.left <= 0:
            side.queue.popleft()
            self._deliver(side, fragment)

    def _deliver(self, sender: Side, fragment: Fragment) -> None:
        """Hand a packet to the other host, and its buffer back to this one."""
        sender.controller.buffer_free(sender.connection.handle)
        other = self.peripheral if sender is self.central else self.central
        packet = hci_data(other.connection.handle, fragment.data, start=fragment.start)
        late_s = self.radio.host_delay_s()
        if late_s == 0.0 and other.arrived_s <= self._loop.time():
            other.controller.to_host(packet)
            return
        other.arrived_s = max(self._loop.time() + late_s, other.arrived_s + 1e-6)
        self._loop.call_at(other.arrived_s, other.controller.to_host, packet)


def hci_data(handle: int, data: bytes, *, start: bool) -> bytes:
    """An HCI data packet from a controller to its host."""
    flags = handle | (0x2000 if start else 0x1000)
    return bytes((2, flags & 0xFF, flags >> 8, len(data) & 0xFF, len(data) >> 8)) + data
