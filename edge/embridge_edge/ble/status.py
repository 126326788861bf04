"""What is known about a link, and what a supervisor asks of a driver."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData

from embridge_edge.ble.adapter import LinkReport
from embridge_edge.ble.faults import Fault
from embridge_edge.ble.link import Link


class Phase(StrEnum):
    """Where a band stands."""

    IDLE = "idle"
    SCANNING = "scanning"
    CONNECTING = "connecting"
    SUBSCRIBING = "subscribing"
    STREAMING = "streaming"
    STALLED = "stalled"
    GARBLED = "garbled"
    RESYNCED = "resynced"
    RECONNECTING = "reconnecting"
    LOST = "lost"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def over(self) -> bool:
        """Nothing more will come."""
        return self in (Phase.LOST, Phase.FAILED, Phase.STOPPED)


@dataclass(frozen=True, slots=True)
class Status:
    """What is known about a link.

    Attributes:
        phase: Where it stands.
        reason: Why.
        action: What to do next; empty where nothing is.
        since_ns: Since when, on the host's monotonic clock.
        fault: The last thing that went wrong, or None.
        address: Where the band was found.
        name: What it advertises.
        battery: Charge, percent.
        rssi_dbm: Strength of the signal received.
        report: What both ends agreed on.
        connects: Connections so far.
        attempt: Attempts since it last streamed.
    """

    phase: Phase = Phase.IDLE
    reason: str = ""
    action: str = ""
    since_ns: int = 0
    fault: Fault | None = None
    address: str = ""
    name: str = ""
    battery: int | None = None
    rssi_dbm: int | None = None
    report: LinkReport | None = None
    connects: int = 0
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How patient the supervisor is; all times in seconds.

    Attributes:
        scan_s: Longest scan.
        connect_s: Longest connect.
        silence_s: A connected band that sends nothing for so long is stalled.
        first_s: Give up when it has never streamed for so long.
        give_up_s: Give up when it has not streamed for so long.
        backoff_s: Shortest and longest wait between attempts.
        report_s: Between two looks at signal strength and battery.
    """

    scan_s: float = 10.0
    connect_s: float = 10.0
    silence_s: float = 2.0
    first_s: float = 30.0
    give_up_s: float = 600.0
    backoff_s: tuple[float, float] = (0.25, 30.0)
    report_s: float = 10.0


class Handler(Protocol):
    """What a driver does with a band; all of it runs in the Bluetooth thread."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Characteristics whose notifications go to the mailbox, in the order of `Notification.channel`."""

    @property
    def keep_alive_s(self) -> float | None:
        """Between two signs of life; None needs none."""

    def matches(self, device: BLEDevice, advertisement: AdvertisementData) -> bool:
        """Whether an advertisement is from a band of this kind."""

    async def prepare(self, link: Link) -> None:
        """Check what was connected, before anything is subscribed."""

    async def start(self, link: Link) -> None:
        """Let it stream; everything is subscribed."""

    async def stop(self, link: Link) -> None:
        """Let it stop."""

    async def keep_alive(self, link: Link) -> None:
        """Keep it awake."""

    async def battery(self, link: Link) -> int | None:
        """Charge, percent; None where it does not tell."""
