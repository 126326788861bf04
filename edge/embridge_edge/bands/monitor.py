"""What is told of a band while it streams: samples expected, received and lost, clock, age of the last packet."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from embridge_edge.bands.device import BleBand
from embridge_edge.bands.streams import BandStream
from embridge_edge.source import Packet, Source
from embridge_edge.timing import DeviceClock
from embridge_shared.clock import Clock
from embridge_shared.errors import DeviceError

_CLOCK_SETTLES_S = 5.0
_BAD_LOSS = 0.01


class Meter:
    """Follows one stream.

    Args:
        source: The stream.
        clock: The host's clock.
    """

    def __init__(self, source: Source, clock: Clock) -> None:
        self.source = source
        self._clock = clock
        self._fit: DeviceClock | None = None
        self._first_ns = 0
        self._last_ns = 0
        self._received = 0
        self._end = 0
        self._inferred = 0
        self.error = ""

    def take(self, packet: Packet) -> None:
        """Follow a packet."""
        if self._fit is None:
            self._fit = DeviceClock(self.source.spec.rate_hz, packet.host_ns)
            self._first_ns = packet.host_ns
            self._end = packet.first
        self._inferred += max(0, packet.first - self._end) if packet.inferred else 0
        self._end = packet.first + len(packet.samples)
        self._received += len(packet.samples)
        self._last_ns = packet.host_ns
        self._fit.observe(self._end - 1, packet.host_ns)

    async def run(self, host_ns: int) -> None:
        """Open the stream, follow it to its end, close it; a band that is lost is told of in `error`."""
        try:
            await self.source.open(host_ns)
            async for packet in self.source.packets():
                self.take(packet)
        except DeviceError as error:
            self.error = str(error)
        finally:
            await self.source.close()

    @property
    def received(self) -> int:
        """Samples so far."""
        return self._received

    def silent(self) -> str:
        """Why nothing has come."""
        state = self.source.state()
        if state is None or not state.reason:
            return f"{self.source.spec.name}: nothing came"
        return f"{self.source.spec.name}: {state.phase}, {state.reason}. {state.action}"

    def row(self) -> dict[str, Any]:
        """What is known now, for JSON and for tables; None where it is not known."""
        now_ns = self._clock.monotonic_ns()
        state = self.source.state()
        device = self.source.device if isinstance(self.source, BandStream) else None
        settled = self._fit is not None and self._last_ns - self._first_ns >= _CLOCK_SETTLES_S * 1e9
        expected = self._end
        return {
            "stream": self.source.spec.name,
            "device": self.source.spec.device,
            "address": state.address if state is not None else "",
            "phase": state.phase if state is not None else "",
            "reason": state.reason if state is not None else self.error,
            "action": state.action if state is not None else "",
            "expected": expected,
            "received": self._received,
            "lost": expected - self._received,
            "inferred": self._inferred,
            "loss": (expected - self._received) / expected if expected else 0.0,
            "rate_hz": self._rate(),
            "ppm": round(-self._fit.skew_ppm, 1) if self._fit is not None and settled else None,
            "age_s": round((now_ns - self._last_ns) * 1e-9, 3) if self._last_ns else None,
            "garbage": state.garbage if state is not None else 0,
            "dropped": device.dropped if isinstance(device, BleBand) else 0,
            "connects": state.connects if state is not None else 0,
            "battery": state.battery if state is not None else None,
            "rssi_dbm": state.rssi_dbm if state is not None else None,
            "mtu": state.mtu if state is not None else None,
            "interval_ms": state.interval_ms if state is not None else None,
            "phy": state.phy if state is not None else None,
        }

    def _rate(self) -> float | None:
        """Samples a second over the whole time; None in the first moments."""
        seconds = (self._last_ns - self._first_ns) * 1e-9
        return round(self._received / seconds, 1) if seconds > 1 else None


def table(rows: list[dict[str, Any]]) -> Any:
    """The rows as a rich table that fits 80 columns; links and what to do stand below it."""
    from rich.box import SIMPLE
    from rich.table import Table

    shown = Table(box=SIMPLE, caption=_caption(rows), caption_justify="left", pad_edge=False)
    for column in ("band", "state", "expected", "received", "lost", "loss", "clock", "last packet"):
        shown.add_column(column, no_wrap=True, justify="left" if column in ("band", "state") else "right")
    for row in rows:
        age_s = row["age_s"]
        shown.add_row(
            row["stream"],
            row["phase"],
            str(row["expected"]),
            str(row["received"]),
            f"{'~' if row['inferred'] else ''}{row['lost']}",
            f"{100 * row['loss']:.2f} %",
            f"{row['ppm']:+.0f} ppm" if row["ppm"] is not None else "–",
            f"{age_s * 1e3:.0f} ms ago" if age_s is not None else "–",
            style="red" if row["loss"] >= _BAD_LOSS or row["phase"] not in ("streaming", "stopped") else "",
        )
    return shown


def _caption(rows: list[dict[str, Any]]) -> str:
    """A line about every link, and what to do where something is."""
    lines = []
    for row in rows:
        parts = [
            row["device"],
            f"{row['rssi_dbm']} dBm" if row["rssi_dbm"] is not None else "",
            f"battery {row['battery']} %" if row["battery"] is not None else "",
            f"MTU {row['mtu']}" if row["mtu"] else "",
            f"{row['interval_ms']:g} ms" if row["interval_ms"] else "",
            row["phy"] or "",
        ]
        lines.append(f"{row['stream']}: {', '.join(part for part in parts if part)}")
        if row["action"]:
            lines.append(f"{row['stream']}: {row['reason']}. {row['action']}")
    return "\n".join(lines)


async def follow(meters: list[Meter], clock: Clock, seconds: float, show: Any, every_s: float) -> None:
    """Run meters and call `show` with their rows every so often, for so long or until all have ended."""
    host_ns = clock.monotonic_ns()
    tasks = [asyncio.create_task(m.run(host_ns), name=f"meter-{m.source.spec.name}") for m in meters]
    try:
        deadline_ns = clock.monotonic_ns() + round(min(seconds, 1e9) * 1e9)
        while clock.monotonic_ns() < deadline_ns and not all(t.done() for t in tasks):
            await asyncio.wait(tasks, timeout=min(every_s, max(0.0, (deadline_ns - clock.monotonic_ns()) * 1e-9)))
            show([m.row() for m in meters])
    finally:
        for meter in meters:
            meter.source.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                await asyncio.gather(*tasks)
