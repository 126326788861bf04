"""Keeps one band connected: finds it, sets it up, watches it, and begins anew when the link is gone.

    scanning ─▶ connecting ─▶ subscribing ─▶ streaming ◀─▶ stalled
        ▲                                        │  ▲ └▶ garbled, resynced
        └────────────── reconnecting ◀───────────┘         (said by the consumer)

It ends in stopped (asked to), lost (patience is over) or failed (trying again is of no use). Every state carries its
reason and what to do next. It runs in the Bluetooth thread; what it tells may be read from any thread.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from bleak import BleakClient
from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from bleak.exc import BleakError

from embridge_edge.ble.adapter import Adapter
from embridge_edge.ble.faults import DROPPED, NOT_SEEN, SILENT, Fault, blame
from embridge_edge.ble.finding import Finder
from embridge_edge.ble.journal import Journal
from embridge_edge.ble.link import Link
from embridge_edge.ble.mailbox import Mailbox, Notification
from embridge_edge.ble.status import Handler, Phase, Policy, Status
from embridge_shared.clock import Clock
from embridge_shared.errors import EmbridgeError, Reason

_TICK_S = 0.25
_DISCONNECT_S = 3.0
_STABLE_S = 5.0
_HOPELESS = 3
"""Connections in a row that brought nothing but garbage, or failed in the same final way."""


class Supervisor:
    """Supervises one band.

    Args:
        handler: The driver's part.
        mailbox: Where notifications go.
        clock: Paces and stamps.
        address: Only this band; the first that matches when empty.
        policy: How patient it is.
        rng: Jitter of the backoff.
        changed: Called in the Bluetooth thread with every new status.
        claims: Addresses that bands of this radio have taken, shared by all of them.

    Attributes:
        notifications: Notifications so far.
    """

    def __init__(
        self,
        handler: Handler,
        mailbox: Mailbox,
        clock: Clock,
        *,
        address: str = "",
        policy: Policy | None = None,
        rng: random.Random | None = None,
        changed: Callable[[Status], None] | None = None,
        claims: set[str] | None = None,
    ) -> None:
        self._handler = handler
        self._mailbox = mailbox
        self._clock = clock
        self._finder = Finder(handler, address, claims if claims is not None else set())
        self._journal = Journal(clock, changed)
        self._policy = policy or Policy()
        self._rng = rng or random.Random()  # noqa: S311
        self._wake = asyncio.Event()
        self._stopping = False
        self._gone = False
        self._complaint: Fault | None = None
        self._epoch = 0
        self._last_ns = 0
        self._armed_ns = 0
        self._streamed_ns = 0
        self._strikes = 0
        self._link: Link | None = None
        self.notifications = 0

    @property
    def status(self) -> Status:
        """What is known of the link; from any thread."""
        return self._journal.status

    @property
    def history(self) -> tuple[Status, ...]:
        """The last transitions, oldest first; from any thread."""
        return tuple(self._journal.history)

    # Said from within the Bluetooth thread

    @property
    def last_ns(self) -> int:
        """When the last notification came, on the host's monotonic clock; 0 before the first."""
        return self._last_ns

    @property
    def link(self) -> Link | None:
        """The connection there is."""
        return self._link

    def stop(self) -> None:
        """End: stop the band, disconnect, let it be."""
        self._stopping = True
        self._wake.set()

    def hurry(self) -> None:
        """Do not wait for the next attempt."""
        if self.status.phase is Phase.RECONNECTING:
            self._wake.set()

    def complain(self, fault: Fault) -> None:
        """The consumer cannot use what comes: connect anew, and give up when that is of no use."""
        if self.status.phase.over or self._gone:
            return
        self._strikes += 1
        if self._strikes >= _HOPELESS:
            fault = replace(fault, fatal=True)
        self._journal.enter(Phase.GARBLED, fault=fault)
        self._complaint = fault
        self._wake.set()

    def praise(self) -> None:
        """The consumer understands what comes."""
        self._strikes = 0

    def resynced(self, reason: str, action: str) -> None:
        """The consumer had to find its place anew; the link is as good as it was."""
        if self.status.phase is Phase.STREAMING:
            self._journal.enter(Phase.RESYNCED, reason=reason, action=action)
            self._journal.enter(Phase.STREAMING, reason=reason, action=action)

    # Life

    async def run(self, open_adapter: Callable[[], Awaitable[Adapter]]) -> None:
        """Keep the band connected until stopped, lost or failed; never raises for what a band or a radio does."""
        began_ns = self._clock.monotonic_ns()
        try:
            while not self._stopping:
                fault = await self._attempt(open_adapter)
                if self._stopping or fault is None:
                    break
                if fault.fatal:
                    self._journal.enter(Phase.FAILED, fault=fault)
                    return
                patience_s = self._policy.give_up_s if self._streamed_ns else self._policy.first_s
                away_s = (self._clock.monotonic_ns() - max(self._last_ns, began_ns)) * 1e-9
                if away_s >= patience_s:
                    self._journal.enter(Phase.LOST, fault=fault)
                    return
                await self._back_off(fault)
            self._journal.enter(Phase.STOPPED, reason="stopped as asked")
        finally:
            if not self.status.phase.over:
                self._journal.enter(Phase.STOPPED, reason="stopped as asked")
            self._finder.forget()
            self._mailbox.close()

    async def _back_off(self, fault: Fault) -> None:
        """Wait: not at all after a link that held, else longer every time."""
        attempt = self.status.attempt
        low_s, high_s = self._policy.backoff_s
        wait_s = 0.0 if attempt == 0 else min(high_s, low_s * 2 ** min(attempt - 1, 30)) * self._rng.uniform(0.5, 1.0)
        again = f", next attempt in {wait_s:.1f} s" if wait_s else ""
        self._journal.enter(Phase.RECONNECTING, fault=fault, reason=f"{fault.text}{again}")
        if wait_s:
            await self._pause(wait_s)

    async def _attempt(self, open_adapter: Callable[[], Awaitable[Adapter]]) -> Fault | None:
        """Find, connect, set up and watch the band once; why that ended, None when asked to stop."""
        doing = "scanning"
        client: BleakClient | None = None
        self._gone, self._complaint = False, None
        try:
            after = self.status.fault
            self._journal.note(attempt=self.status.attempt + 1)
            self._journal.enter(Phase.SCANNING, reason=after.text if after else "")
            adapter = await open_adapter()
            found = await self._find(adapter)
            if found is None:
                return None if self._stopping else NOT_SEEN
            doing = "connecting"
            self._journal.enter(Phase.CONNECTING)
            client = adapter.make_client(found, disconnected=self._disconnected, timeout_s=self._policy.connect_s)
            await client.connect()
            doing = "setting it up"
            self._journal.note(connects=self.status.connects + 1)
            self._journal.enter(Phase.SUBSCRIBING)
            link = await self._set_up(client)
            doing = "streaming"
            return await self._watch(adapter, client, link)
        except Exception as error:  # stacks raise what they like: every error is a fault with a next step
            if self._gone and not isinstance(error, EmbridgeError):
                return DROPPED
            fault = blame(error, doing)
            if fault.reason is Reason.FOREIGN and not fault.fatal:
                self._strikes += 1
                fault = replace(fault, fatal=self._strikes >= _HOPELESS)
            return fault
        finally:
            await self._let_go(client)

    async def _find(self, adapter: Adapter) -> BLEDevice | None:
        """Look for the band: what a stack remembers of it from before may be forgotten."""
        finder = self._finder
        finder.begin()

        def take(device: BLEDevice, advertisement: AdvertisementData) -> None:
            if finder.consider(device, advertisement):
                self._wake.set()

        deadline_ns = self._clock.monotonic_ns() + round(self._policy.scan_s * 1e9)
        self._wake.clear()
        async with adapter.make_scanner(take):
            while not finder.seen and not self._stopping and self._clock.monotonic_ns() < deadline_ns:
                await self._pause((deadline_ns - self._clock.monotonic_ns()) * 1e-9)
        sighting = None if self._stopping else finder.found()
        if sighting is None:
            return None
        rssi_dbm = sighting.advertisement.rssi
        self._journal.note(address=sighting.device.address, name=sighting.name, rssi_dbm=rssi_dbm)
        return sighting.device

    async def _set_up(self, client: BleakClient) -> Link:
        self._epoch += 1
        self._armed_ns = self._clock.monotonic_ns()
        link = Link(client)
        await self._handler.prepare(link)
        for channel, uuid in enumerate(self._handler.channels):
            await client.start_notify(uuid, partial(self._notified, self._epoch, channel))
        self._link = link
        await self._handler.start(link)
        return link

    def _notified(self, epoch: int, channel: int, _: BleakGATTCharacteristic, data: bytearray) -> None:
        now_ns = self._clock.monotonic_ns()
        self._last_ns = now_ns
        self.notifications += 1
        self._mailbox.put(Notification(now_ns, epoch, channel, bytes(data)))
        if self.status.phase in (Phase.SUBSCRIBING, Phase.STALLED):
            self._streamed_ns = self._streamed_ns or now_ns
            self._journal.enter(Phase.STREAMING, reason="samples come", action="")

    def _disconnected(self, _: BleakClient) -> None:
        self._gone = True
        self._wake.set()

    async def _watch(self, adapter: Adapter, client: BleakClient, link: Link) -> Fault | None:
        """Look after a link until it ends."""
        began_ns = self._clock.monotonic_ns()
        alive_ns, report_ns = began_ns, 0
        while True:
            if self._stopping:
                return None
            if self._complaint is not None:
                return self._complaint
            if self._gone or not client.is_connected:
                return DROPPED
            now_ns = self._clock.monotonic_ns()
            if self.status.attempt and now_ns - began_ns >= _STABLE_S * 1e9 and self.status.phase is Phase.STREAMING:
                self._journal.note(attempt=0)
            if await self._silent(link, now_ns):
                return SILENT
            if self._handler.keep_alive_s is not None and now_ns - alive_ns >= self._handler.keep_alive_s * 1e9:
                alive_ns = now_ns
                await self._handler.keep_alive(link)
            if self.status.phase is Phase.STREAMING and now_ns - report_ns >= self._policy.report_s * 1e9:
                report_ns = now_ns
                await self._look(adapter, client, link)
            await self._pause(_TICK_S)

    async def _silent(self, link: Link, now_ns: int) -> bool:
        """Whether the band has fallen silent for good; the first time it is started once more."""
        silence_s = (now_ns - max(self._last_ns, self._armed_ns)) * 1e-9
        if silence_s < self._policy.silence_s:
            return False
        if self.status.phase is not Phase.STALLED:
            self._journal.enter(
                Phase.STALLED,
                fault=Fault(SILENT.reason, f"no samples for {silence_s:.1f} s", "The band is told to start once more."),
            )
            await self._handler.start(link)
            return False
        return silence_s >= 2 * self._policy.silence_s

    async def _look(self, adapter: Adapter, client: BleakClient, link: Link) -> None:
        """Take down battery and link parameters; a band that does not tell is no worse for it."""
        report, battery = self.status.report, self.status.battery
        with suppress(BleakError, TimeoutError, EmbridgeError):
            report = await adapter.report(client)
        with suppress(BleakError, TimeoutError, EmbridgeError):
            battery = await self._handler.battery(link)
        rssi_dbm = report.rssi_dbm if report is not None and report.rssi_dbm is not None else self.status.rssi_dbm
        self._journal.note(report=report, battery=battery, rssi_dbm=rssi_dbm)

    async def _let_go(self, client: BleakClient | None) -> None:
        """Stop the band where it is still there, and disconnect."""
        link, self._link = self._link, None
        if client is None:
            return
        with suppress(BleakError, OSError, TimeoutError, EmbridgeError):
            async with asyncio.timeout(_DISCONNECT_S):
                if link is not None and self._stopping and client.is_connected:
                    await self._handler.stop(link)
        with suppress(BleakError, OSError, TimeoutError, EmbridgeError):
            async with asyncio.timeout(_DISCONNECT_S):
                await client.disconnect()

    async def _pause(self, seconds: float) -> None:
        """Wait for `seconds` or until something happens."""
        sleeping = asyncio.ensure_future(self._clock.sleep(max(seconds, 0.0)))
        waking = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait((sleeping, waking), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sleeping, waking):
                task.cancel()
            await asyncio.gather(sleeping, waking, return_exceptions=True)
            self._wake.clear()
