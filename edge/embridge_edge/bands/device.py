"""A Bluetooth band as sources: supervised in the Bluetooth thread, consumed wherever the agent runs."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

import msgspec

from embridge_edge.bands.driver import Driver, Piece
from embridge_edge.bands.streams import BandStream, EmgStream
from embridge_edge.ble.faults import Fault
from embridge_edge.ble.mailbox import Mailbox, Notification
from embridge_edge.ble.status import Phase, Policy, Status
from embridge_edge.ble.supervisor import Supervisor
from embridge_edge.ble.thread import BleThread
from embridge_edge.source import Changes
from embridge_shared.clock import Clock
from embridge_shared.errors import DeviceError, Reason
from embridge_shared.session import BandState
from embridge_shared.signal import Modality, StreamSpec

logger = logging.getLogger(__name__)

_GARBAGE_RUN = 32
"""Bad packets in a row that are no accident."""
_WAIT_S = 0.5
_OVERTIME_S = 2.0
_BEFORE = (Phase.IDLE, Phase.SCANNING, Phase.CONNECTING, Phase.SUBSCRIBING, Phase.STALLED, Phase.RECONNECTING)

_GARBAGE = "nothing but malformed packets"
_GARBAGE_ACTION = "It is connected anew; if that does not help, its firmware or the chosen kind is wrong."
_RESTARTED = "the band's counter jumped; the gap is estimated from arrival times"
_CONTINUED = "the band's counter jumped, yet no packet is missing"
_RESTARTED_ACTION = "Recording goes on; if it happens again, charge the band and update its firmware."


class Radio(Protocol):
    """Where Bluetooth threads come from."""

    def acquire(self, spec: str) -> BleThread:
        """The thread of an adapter."""
        ...

    def release(self, spec: str) -> None:
        """Give it back."""
        ...


class BleBand:
    """One band and the streams it delivers.

    Args:
        driver: Its kind.
        clock: Stamps and paces.
        radios: Where Bluetooth threads come from.
        adapter: Which adapter, see `embridge_edge.ble.adapter`.
        address: Only this band; the first of its kind when empty.
        duration_s: Deliver so much of each stream; endless when infinite.
        policy: How patient to be.
        label: Put before the names of its streams, to tell several bands of a session apart.
        changed: Called, in any thread, when what is known of it changes.

    Attributes:
        streams: Its sources, EMG first.
        garbage: Packets that made no sense.
    """

    def __init__(
        self,
        driver: Driver,
        *,
        clock: Clock,
        radios: Radio,
        adapter: str = "",
        address: str = "",
        duration_s: float = math.inf,
        policy: Policy | None = None,
        label: str = "",
        changed: Callable[[], object] | None = None,
    ) -> None:
        self.driver = driver
        self.duration_s = duration_s
        self._clock = clock
        self._radios = radios
        self._adapter = adapter
        self._address = address
        self._policy = policy
        self.changed = changed
        self.streams: tuple[BandStream, ...] = tuple(
            (EmgStream if spec.modality is Modality.EMG else BandStream)(self, i, _labelled(spec, label))
            for i, spec in enumerate(driver.streams)
        )
        self._mailbox = Mailbox()
        self._changes = Changes()
        self._since_ns = 0
        self._thread: BleThread | None = None
        self._supervisor: Supervisor | None = None
        self._running: Future[None] | None = None
        self._news: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._users = 0
        self._advancing = asyncio.Lock()
        self._began_ns = 0
        self._epoch = 0
        self._run = 0
        self._praised = 0
        self._stopped = False
        self.garbage = 0

    # What is known

    @property
    def status(self) -> Status:
        """Of the link."""
        return self._supervisor.status if self._supervisor is not None else Status()

    @property
    def history(self) -> tuple[Status, ...]:
        """The last transitions of the link, oldest first."""
        return self._supervisor.history if self._supervisor is not None else ()

    @property
    def dropped(self) -> int:
        """Notifications dropped because nobody took them in time."""
        return self._mailbox.dropped + sum(s.dropped for s in self.streams)

    @property
    def notifications(self) -> int:
        """Notifications so far."""
        return self._supervisor.notifications if self._supervisor is not None else 0

    @property
    def age_s(self) -> float:
        """Since the last notification; infinite before the first."""
        if self._supervisor is None or not self._supervisor.notifications:
            return math.inf
        return (self._clock.monotonic_ns() - self._supervisor.last_ns) * 1e-9

    def state(self) -> BandState:
        """For the agent's state."""
        status, emg = self.status, self.streams[0]
        report = status.report
        return BandState(
            stream=emg.spec.name,
            kind=self.driver.info.kind,
            address=status.address or self._address,
            phase=status.phase.value,
            reason=status.reason,
            action=status.action,
            battery=status.battery,
            rssi_dbm=status.rssi_dbm,
            mtu=report.mtu if report is not None else None,
            interval_ms=report.interval_ms if report is not None else None,
            phy=report.phy if report is not None else None,
            received=emg.received,
            lost=emg.lost,
            garbage=self.garbage,
            connects=status.connects,
        )

    def changes(self) -> list[tuple[int, BandState]]:
        """States it entered since the last call, each with the host's monotonic time, ns."""
        return self._changes.take()

    # Life

    async def acquire(self) -> None:
        """Begin, for one of the streams; return when samples come.

        Raises:
            DeviceError: The band cannot be reached; the message says why and what to do.
        """
        self._users += 1
        if self._users == 1:
            self._begin()
        while self._supervisor is not None and self.status.phase in _BEFORE and not self._supervisor.notifications:
            await self._news_or(_WAIT_S)
        if self.status.phase in (Phase.LOST, Phase.FAILED):
            raise self.error()

    def _begin(self) -> None:
        self._news = (asyncio.get_running_loop(), asyncio.Event())
        self._thread = self._radios.acquire(self._adapter)
        self._supervisor = Supervisor(
            self.driver,
            self._mailbox,
            self._clock,
            address=self._address,
            policy=self._policy,
            changed=self._told,
            claims=self._thread.claims,
        )
        self._running = self._thread.spawn(self._supervisor.run(self._thread.adapter))

    def _told(self, status: Status) -> None:
        """Something is new; said in the Bluetooth thread."""
        if status.since_ns != self._since_ns:
            self._since_ns = status.since_ns
            self._changes.add(status.since_ns, self.state())
        if self._news is not None and not self._news[0].is_closed():
            self._news[0].call_soon_threadsafe(self._news[1].set)
        if self.changed is not None:
            self.changed()

    async def _news_or(self, seconds: float) -> None:
        if self._news is None:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._news[1].wait()
        except TimeoutError:
            return
        self._news[1].clear()

    def stop(self) -> None:
        """Let every stream end after what has come so far."""
        self._stopped = True
        self._mailbox.nudge()

    def retry(self) -> None:
        """Look for it now, if it is away and the next attempt would be later."""
        if self._supervisor is not None and self._thread is not None:
            self._thread.call(self._supervisor.hurry)

    async def release(self) -> None:
        """End, for one of the streams; the last one lets the band go."""
        self._users -= 1
        if self._users:
            return
        if self._supervisor is not None and self._thread is not None and self._running is not None:
            self._thread.call(self._supervisor.stop)
            await asyncio.wait([asyncio.wrap_future(self._running)], timeout=10)
            await asyncio.to_thread(self._radios.release, self._adapter)
            self._thread = self._running = None

    async def identify(self) -> None:
        """Let the band show which one it is; it must be connected.

        Raises:
            OperatorError: It has nothing to show.
            DeviceError: It is not connected, or does not answer.
        """
        link = self._supervisor.link if self._supervisor is not None else None
        if link is None or self._thread is None:
            raise DeviceError("the band is not connected", reason=Reason.UNREACHABLE, hint=self.status.action)
        await self._thread.run(self.driver.identify(link))

    def error(self) -> DeviceError:
        """Why it is over."""
        status = self.status
        name = status.name or self.driver.info.title
        reason = status.fault.reason if status.fault is not None else Reason.UNREACHABLE
        return DeviceError(f"{name}: {status.phase.value}, {status.reason}", reason=reason, hint=status.action)

    # Samples

    def over(self) -> bool:
        """Whether every stream has to end."""
        late_s = (self.now_ns() - self._began_ns) * 1e-9 - self.duration_s
        return self._stopped or (self._began_ns > 0 and late_s > _OVERTIME_S)

    def now_ns(self) -> int:
        """The host's monotonic clock, ns."""
        return self._clock.monotonic_ns()

    async def advance(self, stream: BandStream) -> None:
        """Wait for more, and hand it to the streams it belongs to."""
        async with self._advancing:
            if stream.waiting:
                return
            for item in await self._mailbox.take(_WAIT_S):
                self._take(item)

    @property
    def exhausted(self) -> bool:
        """Nothing more will come."""
        return self._mailbox.closed and not len(self._mailbox)

    def _take(self, item: Notification) -> None:
        if item.epoch != self._epoch:
            self._epoch, self._run = item.epoch, 0
            self.driver.reconnected()
        try:
            pieces = self.driver.decode(item.channel, item.data)
        except DeviceError as error:
            self._bad(1, str(error.message))
            return
        for piece in pieces:
            if piece.stream < len(self.streams) and self.streams[piece.stream].wants(item.host_ns):
                self._place(self.streams[piece.stream], piece, item)

    def _place(self, stream: BandStream, piece: Piece, item: Notification) -> None:
        if stream.indexer is None:
            stream.indexer = self.driver.indexer(piece.stream, stream.start(item.host_ns, len(piece.counted.samples)))
        indexer = stream.indexer
        strays, jumps, inferred = indexer.strays, indexer.jumps, indexer.inferred
        packets = indexer.push(piece.counted, item.host_ns, item.epoch)
        if indexer.strays > strays:
            self._bad(indexer.strays - strays, "packets whose counter fits nothing")
        if indexer.jumps > jumps and self._thread is not None and self._supervisor is not None:
            exact = indexer.inferred == inferred and not packets[0].inferred
            self._thread.call(self._supervisor.resynced, _CONTINUED if exact else _RESTARTED, _RESTARTED_ACTION)
        if packets:
            self._began_ns = self._began_ns or item.host_ns
            self._good()
        for packet in packets:
            stream.put(packet)

    def _bad(self, n: int, what: str) -> None:
        self.garbage += n
        self._run += n
        if self._run < _GARBAGE_RUN:
            return
        self._run = 0
        if self._thread is not None and self._supervisor is not None:
            fault = Fault(Reason.MALFORMED, f"{_GARBAGE} ({what})", _GARBAGE_ACTION)
            self._thread.call(self._supervisor.complain, fault)

    def _good(self) -> None:
        self._run = 0
        if self._praised != self._epoch and self._thread is not None and self._supervisor is not None:
            self._praised = self._epoch
            self._thread.call(self._supervisor.praise)


def _labelled(spec: StreamSpec, label: str) -> StreamSpec:
    return msgspec.structs.replace(spec, name=f"{label}_{spec.name}") if label else spec
