"""The look before a session: band, clocks, electrodes, noise, room, cloud, consent; nothing begins while one is red."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from embridge_edge.collect.consent import ConsentSeen, Standing
from embridge_edge.collect.look import SignalLook
from embridge_edge.collect.setup import UNSTATED, Setup
from embridge_edge.source import Packet
from embridge_edge.takes import Take
from embridge_edge.uplink import LinkState
from embridge_shared.clock import Clock
from embridge_shared.disk import mib
from embridge_shared.doctor import ntp
from embridge_shared.errors import EmbridgeError
from embridge_shared.quality import LIMITS, Metric
from embridge_shared.session import BandState
from embridge_shared.signal import StreamSpec
from embridge_shared.wire.messages import EdgeState

_DRIFT_AMBER_PPM, _DRIFT_RED_PPM = 50.0, 190.0
_OFFSET_AMBER_S: Final = 0.1
_GOOD_SHARE: Final = 0.875
_LOW_BATTERY: Final = 20
_HOURS_AMBER: Final = 4.0
_SPARE_H: Final = 0.1
_COMPRESSED: Final = 0.6
_SILENT_S: Final = 1.5


class Level(StrEnum):
    """How a line stands."""

    GREEN = "green"
    AMBER = "amber"
    RED = "red"
    OPEN = "open"
    """Not known yet, or not done; of what is required it stands in the way."""


class Need(StrEnum):
    """How much a line counts."""

    REQUIRED = "required"
    RECOMMENDED = "recommended"
    OPTIONAL = "optional"


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was looked at.

    Attributes:
        key: As in "electrodes".
        level: How it stands.
        what: What was found, with the value.
        action: What to do next, with the key; empty where nothing is.
        need: How much it counts.
    """

    key: str
    level: Level
    what: str
    action: str = ""
    need: Need = Need.REQUIRED

    @property
    def blocks(self) -> bool:
        """Nothing may begin while it stands so."""
        return self.level is Level.RED or (self.level is Level.OPEN and self.need is Need.REQUIRED)

    @property
    def needs_reason(self) -> bool:
        """Somebody has to say why it is recorded all the same."""
        return self.level is Level.AMBER and self.need is Need.REQUIRED


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the lines that are not of the signal are made of.

    Attributes:
        edge: What the edge says of itself.
        link: Where the link to the broker stands.
        names: Names of sessions there are on this edge.
        spool_left: Bytes that the spool may still take by its settings.
        reserve: Bytes of its disk that are kept back.
        consent: What is known of the consent; None before the cloud has answered.
        time: The state of this machine's clock; None where nobody knows.
    """

    edge: EdgeState
    link: LinkState
    names: Sequence[str]
    spool_left: int
    reserve: int
    consent: ConsentSeen | None
    time: ntp.ClockState | None


class Preflight:
    """Looks at a band before it is recorded, with everything around it.

    Args:
        setup: What is to be recorded.
        take: Sources of its own: recording opens others.
        clock: The host's clock.
        around: Tells what surrounds the band now.
        taps: Shown every packet of the band.
    """

    def __init__(
        self,
        setup: Setup,
        take: Take,
        clock: Clock,
        *,
        around: Callable[[], Surroundings],
        taps: Iterable[Callable[[int, Packet], None]] = (),
    ) -> None:
        self._setup = setup
        self._take = take
        self._clock = clock
        self._around = around
        self._taps = taps
        self._task: asyncio.Task[None] | None = None
        self.error: EmbridgeError | None = None
        """Why the band gives nothing; None while it does."""
        self.last_ns = 0
        """When the last packet came, on the host's monotonic clock, ns; 0 before the first."""
        self.look: SignalLook | None = None

    async def __aenter__(self) -> Preflight:
        """Begin."""
        self._task = asyncio.create_task(self._watch(), name="preflight")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let the band go."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self._take.close()

    @property
    def spec(self) -> StreamSpec:
        """The band's stream."""
        return self._take.band.spec

    def state(self) -> BandState | None:
        """What is known of the band."""
        return self._take.band.state()

    def retry(self) -> None:
        """Look for the band now."""
        self._take.retry()

    def retest(self) -> None:
        """Forget what was seen: an electrode was pressed on, the band moved."""
        if self.look is not None:
            effort, self.look = self.look.effort, SignalLook(self.look.spec, self._host_ns)
            self.look.effort = effort

    def measure_effort(self) -> None:
        """Capture the greatest effort from now on, for three seconds."""
        if self.look is not None:
            self.look.measure_effort()

    def lines(self) -> tuple[Line, ...]:
        """Everything, in the order it is shown."""
        around = self._around()
        return (
            self._device(),
            self._clocks(around.time),
            self._electrodes(),
            self._noise(),
            self._effort(),
            self._storage(around),
            _cloud(around),
            _consent(self._setup, around.consent),
            _name(self._setup, around.names),
        )

    async def settled(self, patience_s: float) -> tuple[Line, ...]:
        """The lines once nothing required is open any more, or after `patience_s`."""
        until_ns = self._clock.monotonic_ns() + round(patience_s * 1e9)
        while self._clock.monotonic_ns() < until_ns:
            lines = self.lines()
            if not any(line.blocks and line.level is Level.OPEN for line in lines):
                return lines
            await asyncio.sleep(0.02)
        return self.lines()

    async def _watch(self) -> None:
        band = self._take.band
        self._host_ns = self._clock.monotonic_ns()
        try:
            await self._take.reach()
            await band.open(self._host_ns)
            self.look = SignalLook(band.spec, self._host_ns)
            async for packet in band.packets():
                self.last_ns = self._clock.monotonic_ns()
                for tap in self._taps:
                    tap(0, packet)
                await asyncio.to_thread(self.look.push, packet)
        except EmbridgeError as error:
            self.error = error

    def _device(self) -> Line:
        state = self.state()
        if self.error is not None:
            return Line("device", Level.RED, self.error.message, f"{self.error.hint} [c] reconnect".strip())
        told = "" if state is None else _band(state)
        if self.look is None or not self.look.samples:
            return Line("device", Level.OPEN, told or "connecting …")
        silent_s = (self._clock.monotonic_ns() - self.last_ns) * 1e-9
        if silent_s > _SILENT_S:
            action = (state.action if state is not None else "") or "wake it, bring it nearer"
            return Line("device", Level.RED, f"{told} sends nothing for {silent_s:.0f} s", f"{action}, [c] reconnect")
        if state is not None and state.battery is not None and state.battery < _LOW_BATTERY:
            return Line("device", Level.AMBER, f"{told}: the battery may not last", "charge it, or take another band")
        return Line("device", Level.GREEN, told or self.look.spec.device)

    def _clocks(self, time: ntp.ClockState | None) -> Line:
        skew = None if self.look is None else self.look.skew_ppm
        if skew is None:
            return Line("clock", Level.OPEN, "measuring the band's drift …")
        drift = f"drift {skew:+.0f} ppm (<{_DRIFT_AMBER_PPM:.0f})"
        if abs(skew) >= _DRIFT_RED_PPM:
            return Line("clock", Level.RED, f"{drift}: the band does not keep its rate", "restart the band, [t] retest")
        if time is None:
            return Line("clock", Level.GREEN, f"{drift}; this system does not tell its own offset")
        offset = f"offset {time.offset_s * 1e3:+.1f} ms, {drift}"
        if not time.synchronised:
            words = "nothing keeps this machine's clock right"
            return Line("clock", Level.AMBER, f"{drift}; {words}", "start chrony; [enter] asks for a reason")
        if abs(time.offset_s) > _OFFSET_AMBER_S or abs(skew) > _DRIFT_AMBER_PPM:
            return Line("clock", Level.AMBER, offset, "wait a minute, [t] retest")
        return Line("clock", Level.GREEN, offset)

    def _electrodes(self) -> Line:
        look = self.look
        if look is None or not look.judged:
            return Line("electrodes", Level.OPEN, "looking; let the arm rest …")
        n, faults = look.spec.n_channels, look.faults()
        least, good = math.ceil(_GOOD_SHARE * n), n - len(faults)
        told = "; ".join(f"{look.spec.channels[c]}: {words}" for c, words in sorted(faults.items())[:2])
        what = f"{good}/{n} good (≥{least})" + (f"   {told}" if told else "")
        if good < least:
            return Line("electrodes", Level.RED, what, "press the band on, [t] retest")
        if faults:
            return Line("electrodes", Level.AMBER, what, "press the band on, [t] retest")
        doubtful = look.warnings()
        return Line("electrodes", Level.GREEN, what + (f", {doubtful} to keep an eye on" if doubtful else ""))

    def _noise(self) -> Line:
        look = self.look
        level = None if look is None or not look.judged else look.rest_level
        if look is None or level is None:
            return Line("noise", Level.OPEN, "measuring rest; let the arm lie …")
        hum = look.hum_db
        what = f"rest {level:.1f} {'µV' if look.microvolts else 'counts'} RMS"
        what += "" if hum is None else f", hum {hum:+.0f} dB"
        floor, mains = LIMITS[Metric.FLOOR], LIMITS[Metric.MAINS]
        action = "wet the skin, away from chargers and lamps, let the arm rest, [t] retest"
        if (look.microvolts and level >= floor.bad) or (hum is not None and hum >= mains.bad):
            return Line("noise", Level.RED, what, action)
        if (look.microvolts and level >= floor.warn) or (hum is not None and hum >= mains.warn):
            return Line("noise", Level.AMBER, what, action)
        return Line("noise", Level.GREEN, what)

    def _effort(self) -> Line:
        look, need = self.look, Need.RECOMMENDED
        if look is not None and look.measuring:
            return Line("MVC", Level.OPEN, "squeeze as hard as you can …", need=need)
        if look is None or look.effort is None:
            return Line("MVC", Level.OPEN, "greatest effort not captured", "[m] capture it", need)
        unit = "µV" if look.microvolts else "counts"
        rest = look.rest_level or 0.0
        over = f", {20 * math.log10(look.effort / rest):.0f} dB over rest" if rest > 0 and look.effort > 0 else ""
        if rest > 0 and look.effort < 3.0 * rest:
            return Line("MVC", Level.AMBER, f"{look.effort:.0f} {unit}{over}: hardly any", "[m] again", need)
        return Line("MVC", Level.GREEN, f"greatest effort captured: {look.effort:.0f} {unit}{over}", need=need)

    def _storage(self, around: Surroundings) -> Line:
        spec = self._take.band.spec
        rate = spec.rate_hz * spec.n_channels * spec.dtype.numpy.itemsize * _COMPRESSED
        left = max(0, min(around.edge.disk_free - around.reserve, around.spool_left))
        hours, wanted = left / rate / 3600, self._setup.protocol.duration_s / 3600
        what = f"{mib(left)} free ≈ {hours:.1f} h" if hours < 10 else f"{mib(left)} free ≈ {hours:.0f} h"
        action = "free space, or let the cloud take what waits"
        if hours < wanted + _SPARE_H:
            return Line("storage", Level.RED, f"{what}; the session takes about {60 * wanted:.0f} min", action)
        if hours < _HOURS_AMBER:
            return Line("storage", Level.AMBER, what, action)
        return Line("storage", Level.GREEN, what)


def _band(state: BandState) -> str:
    """A band in a line."""
    parts = [state.kind, state.address]
    parts += [] if state.battery is None else [f"{state.battery} %"]
    parts += [] if state.mtu is None else [f"MTU {state.mtu}"]
    parts += [] if state.rssi_dbm is None else [f"{state.rssi_dbm} dBm"]
    if state.phase not in ("", "streaming"):
        parts += [f"{state.phase}{': ' + state.reason if state.reason else ''}"]
    return "  ".join(p for p in parts if p)


def _cloud(around: Surroundings) -> Line:
    waits = f"{around.edge.spooled} items wait" if around.edge.spooled else "nothing waits"
    if around.link is LinkState.ONLINE:
        return Line("cloud", Level.GREEN, f"online; {waits}", need=Need.OPTIONAL)
    return Line("cloud", Level.OPEN, f"offline → it will queue; {waits}", need=Need.OPTIONAL)


def _consent(setup: Setup, seen: ConsentSeen | None) -> Line:
    key = "consent"
    if setup.simulated:
        return Line(key, Level.GREEN, "a simulated wearer needs none")
    stated = setup.consent_version != UNSTATED
    if seen is None:
        return Line(key, Level.OPEN, "asking the cloud …")
    if seen.standing is Standing.REFUSED:
        what = "withdrawn" if not seen.scopes else f"given for {', '.join(seen.scopes)}, not for being recorded"
        return Line(key, Level.RED, f"{setup.participant}: {what}", "do not record; [esc] another participant")
    if seen.standing is Standing.GIVEN:
        day = datetime.fromtimestamp(seen.given_ns * 1e-9, UTC).date() if seen.given_ns else ""
        what = f"version {seen.version} signed {day}, {', '.join(seen.scopes)}"
        if stated and setup.consent_version != seen.version:
            words = f"{what}; the setup says {setup.consent_version}"
            return Line(key, Level.AMBER, words, "[esc] correct it")
        return Line(key, Level.GREEN, what)
    if seen.standing is Standing.MISSING:
        if stated:
            what = f"version {setup.consent_version} by the operator's word; the cloud has none of {setup.participant}"
            return Line(key, Level.AMBER, what, f"embridge participant add {setup.participant} …")
        what = f"none of {setup.participant} is on record"
        return Line(key, Level.RED, what, "let them sign, then [esc] and enter the version of the text")
    if stated:
        return Line(key, Level.GREEN, f"version {setup.consent_version} by the operator's word; the cloud is not asked")
    return Line(key, Level.RED, f"nothing is stated, and the cloud cannot be asked: {seen.why}",
                "[esc] enter the version of the text they signed")  # fmt: skip


def _name(setup: Setup, names: Sequence[str]) -> Line:
    if setup.name in names:
        return Line("name", Level.RED, f"there is a session {setup.name} already", "[esc] give another name")
    return Line("name", Level.GREEN, f"{setup.name} is free")
