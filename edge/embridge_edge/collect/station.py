"""The station: an edge agent in this process that records one conducted session after another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from embridge_edge.agent import Agent
from embridge_edge.collect import prompts
from embridge_edge.collect.consent import AskConsent, ConsentSeen, cloud_consent
from embridge_edge.collect.leader import Leader, Tap
from embridge_edge.collect.preflight import Preflight, Surroundings
from embridge_edge.collect.report import Collected, collected, write
from embridge_edge.collect.setup import Journal, Setup, free_name, read_journal
from embridge_edge.collect.steps import State, Step
from embridge_edge.uplink import LinkState
from embridge_shared.clock import Clock
from embridge_shared.disk import DiskLevel
from embridge_shared.doctor import ntp
from embridge_shared.errors import DataError, OperatorError, Reason
from embridge_shared.service import Notifier
from embridge_shared.session import BandState, Placement
from embridge_shared.settings import Settings
from embridge_shared.wire.messages import EdgeState, StreamQuality

logger = logging.getLogger(__name__)

_SILENT_S: Final = 1.5
_LOOK_S: Final = 0.1
_STREAMING: Final = frozenset({"", "streaming", "resynced", "idle", "stopped"})
_BY_HAND: Final = "interrupted: ended without the rest"


@dataclass(frozen=True, slots=True)
class Vitals:
    """What a status line tells of the station.

    Attributes:
        edge: Its name.
        state: Where the session stands; None without one.
        session: Its name, or empty.
        band: What is known of the band; None without one.
        age_s: Since the last packet, s; None before the first.
        stored_bytes: Spooled of this session.
        waiting: Items that wait for the cloud.
        waiting_bytes: Their size.
        link: Where the link to the broker stands.
        disk: How much room there is.
        disk_free: Bytes the spool could still write.
        release: The release that is in force, or empty.
        quality: What the channels are worth now.
    """

    edge: str
    state: State | None
    session: str
    band: BandState | None
    age_s: float | None
    stored_bytes: int
    waiting: int
    waiting_bytes: int
    link: LinkState
    disk: DiskLevel
    disk_free: int
    release: str
    quality: tuple[StreamQuality, ...]


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A session that was cut off.

    Attributes:
        name: Of the session.
        journal: What it goes on from.
    """

    name: str
    journal: Journal


class Station:
    """An edge whose operator says what is recorded.

    Run `run` beside everything else: it delivers, and holds the state directory.

    Args:
        settings: Broker, state directory, limits.
        clock: Wall and monotonic time.
        ask_consent: Asks for a participant's consent; the cloud of the settings when None.
        notifier: Told how the agent is doing.

    Attributes:
        agent: Records and delivers.
        leader: Leads the session that is recorded; None without one.
        taps: Shown every packet, recorded or looked at, with the ordinal of its source.
        tell: Called with every step of the session.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        *,
        ask_consent: AskConsent | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.agent = Agent(settings, clock, notifier=notifier)
        self.leader: Leader | None = None
        self.taps: list[Tap] = []
        self.tell: list[Callable[[Sequence[Step]], None]] = []
        self._ask = ask_consent or cloud_consent(settings)
        self._preflight: Preflight | None = None

    async def run(self) -> None:
        """Deliver for ever.

        Raises:
            OperatorError: LOCKED: another agent runs in the state directory.
        """
        async with prompts.told(self.settings.edge.state_dir, lambda: self.leader):
            await self.agent.run()

    # What is known

    def state(self) -> EdgeState:
        """What the edge is now."""
        return self.agent.state()

    def vitals(self) -> Vitals:
        """What a status line tells."""
        edge, leader = self.agent.state(), self.leader
        looked = self._preflight
        last_ns = leader.last_ns if leader is not None else looked.last_ns if looked is not None else 0
        band = next(iter(edge.bands), None)
        recorder = None if leader is None else leader.recorder
        return Vitals(
            edge=edge.edge,
            state=None if leader is None else leader.conductor.state,
            session="" if leader is None else leader.setup.name,
            band=looked.state() if band is None and looked is not None else band,
            age_s=(self.clock.monotonic_ns() - last_ns) * 1e-9 if last_ns else None,
            stored_bytes=0 if recorder is None else recorder.kept_bytes,
            waiting=edge.spooled,
            waiting_bytes=edge.spooled_bytes,
            link=self.agent.link,
            disk=edge.disk,
            disk_free=edge.disk_free,
            release=edge.release,
            quality=edge.quality,
        )

    async def names(self) -> tuple[str, ...]:
        """Names of the sessions there are on this edge."""
        known = await self.agent.courier.call(self.agent.courier.spool.sessions)
        return tuple(sorted(k.name for k in known))

    async def free_name(self, participant: str, placement: Placement) -> str:
        """The next free name of a participant's session."""
        return free_name(participant, placement, await self.names())

    async def sealed(self, name: str) -> bool:
        """Whether the cloud holds all of a session, verified and sealed."""
        known = await self.agent.courier.call(self.agent.courier.spool.session, name)
        return known is not None and known.sealed

    async def interrupted(self) -> tuple[Interrupted, ...]:
        """Conducted sessions that were cut off and can go on."""
        spool = self.agent.courier.spool
        out = []
        for known in await self.agent.courier.call(spool.sessions):
            note = None if known.closed else await self.agent.courier.call(spool.note, known.session)
            if note is None or (self.leader is not None and self.leader.setup.name == known.name):
                continue
            try:
                out.append(Interrupted(known.name, read_journal(note)))
            except DataError as error:
                logger.error("session %s: %s", known.name, error)
        return tuple(out)

    # What is done

    async def look(self, setup: Setup) -> Preflight:
        """A look before a session: enter it, and it watches the band until it is left.

        Raises:
            ConfigError: The band cannot be, or the setup asks for what cannot be recorded.
        """
        setup.check()
        names = await self.names()
        take = setup.open(self.clock, self.settings.edge)
        asked = asyncio.ensure_future(self._ask(setup.participant))
        edge = self.settings.edge

        def around() -> Surroundings:
            state = self.agent.state()
            return Surroundings(
                edge=state,
                link=self.agent.link,
                names=names,
                spool_left=edge.spool_max_bytes - state.spooled_bytes,
                reserve=edge.reserve_bytes,
                consent=_answer(asked),
                time=ntp.read(),
            )

        self._preflight = Preflight(setup, take, self.clock, around=around, taps=self.taps)
        return self._preflight

    async def record(self, journal: Journal, *, reasons: Sequence[str] = (), block_pause: bool = True) -> Collected:
        """Record a session, new or interrupted, to its end; the operator acts through `leader` meanwhile.

        Args:
            journal: What is recorded, and how far it got.
            reasons: Why it is begun although the preflight warns; kept as markers.
            block_pause: Pause before each block but the first.

        Returns:
            What became of it.

        Raises:
            DeviceError: The band cannot be reached; nothing was begun.
            OperatorError: The spool or its disk is full; LOCKED: a session is recorded already.
        """
        if self.leader is not None:
            raise self._busy()
        setup = journal.setup
        setup.check()
        take = setup.open(self.clock, self.settings.edge)
        leader = Leader(
            journal, take, self.clock, tell=self._told, taps=self.taps, reasons=reasons, block_pause=block_pause
        )
        self.leader, self._preflight = leader, None
        watch = asyncio.create_task(self._watch(leader), name="collect-watch")
        try:
            digest = await self.agent.record(setup.plan(), leader, take=take, note=journal.pack())
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            self.leader = None
        recorder = leader.recorder
        size = 0 if recorder is None else recorder.kept_bytes
        report = collected(leader, digest, payload_bytes=size, reasons=reasons)
        try:
            write(self.settings.edge.state_dir, report)
        except OSError as error:
            logger.warning("the figures of session %s were not written: %s", setup.name, error)
        return report

    async def finish(self, name: str) -> bool:
        """End an interrupted session with what there is of it; whether there was one."""
        return await self.agent.finish(name, _BY_HAND)

    def _busy(self) -> OperatorError:
        name = "" if self.leader is None else self.leader.setup.name
        return OperatorError(f"session {name} is being recorded", reason=Reason.LOCKED, hint="End that one first.")

    def _told(self, steps: Sequence[Step]) -> None:
        for tell in self.tell:
            tell(steps)

    async def _watch(self, leader: Leader) -> None:
        """Tell the conductor when no samples come."""
        while True:
            await asyncio.sleep(_LOOK_S)
            if not leader.last_ns or leader.conductor.state is State.LOST:
                continue
            age_s = (self.clock.monotonic_ns() - leader.last_ns) * 1e-9
            band = next(iter(self.agent.state().bands), None)
            phase = "" if band is None else band.phase
            if age_s > _SILENT_S:
                reason = f"no packet for {age_s:.0f} s" if band is None or phase in _STREAMING else _why(band)
                await leader.silent(reason)
            elif band is not None and phase not in _STREAMING and age_s > 2 * _LOOK_S:
                await leader.silent(_why(band))


def _why(band: BandState) -> str:
    return f"{band.phase}: {band.reason}" if band.reason else band.phase


def _answer(asked: asyncio.Future[ConsentSeen]) -> ConsentSeen | None:
    return asked.result() if asked.done() and not asked.cancelled() else None
