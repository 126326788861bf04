"""The edge agent: one supervised process that records, delivers, decodes and updates itself."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path

from embridge_edge import quality
from embridge_edge.control import Request, door
from embridge_edge.courier import Courier
from embridge_edge.decode.added import with_added
from embridge_edge.decode.calibration import calibrate, save_calibration
from embridge_edge.decode.decision import Sinks
from embridge_edge.decode.runtime import Decoder
from embridge_edge.decode.stream import StreamDecoder
from embridge_edge.digest import Digest, write_digest
from embridge_edge.erasures import Erasures
from embridge_edge.identity import Credentials
from embridge_edge.live import LiveDecoding
from embridge_edge.live_fit import fit
from embridge_edge.lock import only_agent
from embridge_edge.outputs.catalogue import Means
from embridge_edge.outputs.messages import Notice
from embridge_edge.outputs.notices import Watcher
from embridge_edge.outputs.session import telling
from embridge_edge.plan import Plan, QualityGate, SessionPlan
from embridge_edge.recorder import Company, Recorder, begin, close
from embridge_edge.releases import ReleaseKeeper
from embridge_edge.spool import Spool
from embridge_edge.takes import Take, Tap, open_take
from embridge_edge.update.blocks import Post
from embridge_edge.uplink import LinkState, Uplink
from embridge_edge.vigil import Vigil
from embridge_shared import logs
from embridge_shared.clock import Clock
from embridge_shared.decision import DecisionConfig
from embridge_shared.disk import DiskLevel, mib
from embridge_shared.disk import level as disk_level
from embridge_shared.errors import DataError, EmbridgeError, OperatorError, Reason
from embridge_shared.service import Notifier
from embridge_shared.session import Purpose
from embridge_shared.settings import Settings
from embridge_shared.wearer.worn import ring_of
from embridge_shared.wire import topics
from embridge_shared.wire.messages import EdgeState

logger = logging.getLogger(__name__)

_VERSION = version("embridge")
_SYNC_EVERY_S = 5.0
_POLL_S = 0.2
_NEARLY_FULL = 0.9
_ROOM_AGAIN = 0.5
_ROOM_TO_BEGIN = 1.25


class Agent:
    """One edge.

    Args:
        settings: Broker, state directory, limits.
        clock: Wall and monotonic time.
        plan: Sessions to record.
        base: Folder that the plan's paths start from.
        notifier: Told when the agent is ready, how it is doing, and that it works.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        plan: Plan | None = None,
        base: Path = Path(),
        *,
        notifier: Notifier | None = None,
    ) -> None:
        self._settings = settings
        self._edge = settings.edge
        self._clock = clock
        self._plan = plan
        self._base = base
        self._state_dir = settings.edge.state_dir
        edge = settings.edge
        self._courier = Courier(
            Spool(self._state_dir / "spool.db", edge.spool_max_bytes, reserve_bytes=edge.reserve_bytes)
        )
        self._disk = DiskLevel.OK
        self._recorder: Recorder | None = None
        self._take: Take | None = None
        self._credentials = Credentials(settings)
        self._post = Post(self._ask)
        self._releases = ReleaseKeeper(settings.edge, clock, changed=self._changed, ask=self._post.ask)
        self._vigil = Vigil(
            notifier or Notifier(), self._courier, clock, chunk_s=edge.chunk_s, status=self._in_a_few_words
        )
        self._erasures = Erasures(settings.edge, self._courier, clock, changed=self._changed)
        self._uplink = Uplink(
            settings,
            self._courier,
            clock,
            state=self.state,
            on_desired=self._releases.desire,
            on_order=self._erasures.take,
            on_block=self._post.answered,
        )
        self.digests: list[Digest] = []
        self.decisions = Sinks()
        """Who is told what is decided while a session decodes."""
        self._one = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, *, until_done: bool = False) -> None:
        """Run until cancelled; with `until_done` until the plan is recorded and the cloud holds all of it.

        Raises:
            OperatorError: LOCKED: another agent runs in the state directory.
            DataError: With `until_done`: the cloud refused some of it.
            EmbridgeError: Recording cannot go on; what was recorded is in the spool.
        """
        failure: EmbridgeError | None = None
        self._loop = asyncio.get_running_loop()
        try:
            with only_agent(self._state_dir):
                async with self._releases.running(), door(self._state_dir, {"rollback": self._roll_back}):
                    await self._run(until_done=until_done)
        except* EmbridgeError as group:
            failure = _innermost(group)
        finally:
            await self._courier.close()
        if failure is not None:
            raise failure

    async def _run(self, *, until_done: bool) -> None:
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(self._uplink.run(), name="uplink"),
                tasks.create_task(self._releases.run(), name="releases"),
                tasks.create_task(self._erasures.run(), name="erasures"),
                tasks.create_task(self._sync(), name="sync"),
                tasks.create_task(self._vigil.run(), name="vigil"),
            ]
            await self._record_all(until_done=until_done)
            while until_done and self._courier.spool.backlog().items:
                await self._clock.sleep(_POLL_S)
            if until_done:
                for task in background:
                    task.cancel()
                await self._check_refused()

    @property
    def courier(self) -> Courier:
        """The way to its spool."""
        return self._courier

    @property
    def link(self) -> LinkState:
        """Where the link to the broker stands."""
        return self._uplink.link

    async def record(
        self, entry: SessionPlan, company: Company, *, take: Take | None = None, note: bytes | None = None
    ) -> Digest:
        """Record one session while the agent runs, or go on with the one that was begun under its name.

        Args:
            entry: The session.
            company: Goes along with it, and ends it by stopping the take.
            take: Its sources; those of the plan when None.
            note: Kept with the opening of a new session; see `Spool.note`.

        Returns:
            What became of it.

        Raises:
            DeviceError: The band cannot be reached; nothing was begun.
            OperatorError: The spool or its disk is full: what was recorded is kept, and goes on once there is room.
        """
        async with self._one, self._erasures.held():
            with logs.context(session=entry.name):
                await self._record(entry, (), take=take, company=company, note=note)
        return self.digests[-1]

    async def finish(self, name: str, reason: str) -> bool:
        """Close a session that was begun and cut off, with what there is of it.

        Args:
            name: Of the session.
            reason: Why it ends without the rest.

        Returns:
            Whether there was such a session and it was open.
        """
        async with self._one:
            known = await self._courier.call(self._courier.spool.session, name)
            if known is None or known.closed:
                return False
            await self._courier.call(close, self._courier.spool, known, reason, self._clock.wall_ns())
        self._uplink.notify()
        return True

    async def _check_refused(self) -> None:
        refused = await self._courier.call(self._courier.spool.refused)
        if refused:
            raise DataError(
                f"the cloud refused {len(refused)} items; they are kept in the spool",
                reason=Reason(refused[-1][3]) if refused[-1][3] in set(Reason) else Reason.INVALID,
                hint="`embridge edge status` tells which and why.",
            )

    async def _record_all(self, *, until_done: bool) -> None:
        for entry in self._plan.session if self._plan is not None else ():
            with logs.context(session=entry.name):
                await self._record_whole(entry, until_done=until_done)

    async def _record_whole(self, entry: SessionPlan, *, until_done: bool) -> None:
        while (full := await self._record_planned(entry)) is not None:
            if until_done:
                raise full
            # What is recorded is delivered meanwhile; the session goes on where it was once there is room.
            logger.error("session %s stops: %s", entry.name, full)
            await self._room(again=True)

    async def _record_planned(self, entry: SessionPlan) -> OperatorError | None:
        """Record a session to its end; what is full when there was no room for all of it."""
        known = await self._courier.call(self._courier.spool.session, entry.name)
        if known is not None and known.closed:
            logger.info("session %s is recorded already", entry.name)
            return None
        await self._room()
        notes: tuple[str, ...] = ()
        if known is None and entry.quality_gate is not QualityGate.OFF:
            notes = await quality.gate(entry, self._open(entry), self._clock)
        try:
            async with self._one, self._erasures.held():
                await self._record(entry, notes)
        except OperatorError as error:
            if error.reason is not Reason.DISK_FULL:
                raise
            return error
        return None

    async def _room(self, *, again: bool = False) -> None:
        """Let a spool that is nearly full drain, and a full disk be cleared: what begins before fails at once."""
        spool, reserve = self._courier.spool, self._edge.reserve_bytes
        if again:
            await self._clock.sleep(_SYNC_EVERY_S)
        if spool.fill >= (_ROOM_AGAIN if again else _NEARLY_FULL):
            logger.warning("the spool is %.0f %% full: recording waits for the cloud", 100 * spool.fill)
            while spool.fill > _ROOM_AGAIN:
                await self._clock.sleep(_POLL_S)
        if reserve and spool.room <= reserve * _ROOM_TO_BEGIN:
            logger.warning(
                "%s are free on the spool's disk, edge.reserve_bytes keeps %s back: recording waits for room",
                mib(spool.room),
                mib(reserve),
            )
            while spool.room <= reserve * _ROOM_TO_BEGIN:
                await self._clock.sleep(_POLL_S)

    def _open(self, entry: SessionPlan) -> Take:
        return open_take(entry, self._base, self._clock, adapter=self._edge.adapter)

    async def _record(
        self,
        entry: SessionPlan,
        notes: tuple[str, ...],
        *,
        take: Take | None = None,
        company: Company | None = None,
        note: bytes | None = None,
    ) -> None:
        # An update waits for the session's end: the session keeps its release.
        async with self._lease(entry) as decoder:
            await self._record_with(decoder, entry, notes, take=take, company=company, note=note)

    @asynccontextmanager
    async def _lease(self, entry: SessionPlan) -> AsyncIterator[Decoder | None]:
        """The decoder that a session needs, if any, kept for as long as it lasts."""
        if entry.decode or entry.purpose is Purpose.CALIBRATION:
            async with self._releases.leased() as decoder:
                yield decoder
        else:
            async with self._releases.held():
                yield None

    async def _record_with(
        self,
        decoder: Decoder | None,
        entry: SessionPlan,
        notes: tuple[str, ...],
        *,
        take: Take | None,
        company: Company | None,
        note: bytes | None,
    ) -> None:
        self._take = take = take or self._open(entry)
        take.watch(functools.partial(asyncio.get_running_loop().call_soon_threadsafe, self._changed))
        tap: Tap | None = None
        if decoder is not None and entry.decode:
            decoder = await asyncio.to_thread(with_added, decoder, self._state_dir, entry.participant)
        if entry.purpose is Purpose.CALIBRATION:
            tap, take = Tap.on_band(take)
        live = await self._live(entry, take, decoder) if decoder is not None and entry.decode else None
        await take.reach()
        try:
            begun = await begin(
                entry, take, edge=self._edge.name, courier=self._courier, clock=self._clock, live=live, note=note
            )
        except BaseException:
            await take.close()
            raise
        if live is not None and live.release != begun.session.release:
            live = None
        self._recorder = Recorder(
            entry,
            begun,
            take,
            chunk_s=self._edge.chunk_s,
            courier=self._courier,
            clock=self._clock,
            live=live,
            lsl_out=self._edge.lsl_out if entry.lsl_out is None else entry.lsl_out,
            spooled=self._uplink.notify,
            kept=self._vigil.kept,
            notes=notes,
            company=company,
        )
        self._changed()
        try:
            async with self._telling(entry, live):
                with self._vigil.over(take), self._rehearsed(entry, take, live):
                    digest = await self._recorder.run()
        finally:
            self._recorder = self._take = None
            self._changed()
        if tap is not None and decoder is not None:
            await self._calibrate(entry.participant, decoder, tap)
        self._note(digest)

    async def _calibrate(self, participant: str, decoder: Decoder, tap: Tap) -> None:
        calibration = await asyncio.to_thread(
            calibrate,
            participant,
            decoder.manifest.preprocess,
            tap.spec,
            tap.chunks,
            created_ns=self._clock.wall_ns(),
            ring=ring_of(tap.spec, self._edge.rings),
        )
        save_calibration(self._state_dir, calibration)
        # A log is no place for who it was: it outlives their data.
        logger.info("calibrated on %.0f s of signal", calibration.duration_s)

    async def _live(self, entry: SessionPlan, take: Take, decoder: Decoder) -> LiveDecoding:
        stream, decision = await asyncio.to_thread(self._fitted, entry, take, decoder)
        return LiveDecoding(stream, decision, sinks=self.decisions, vitals=self._releases.vitals)

    def _fitted(self, entry: SessionPlan, take: Take, decoder: Decoder) -> tuple[StreamDecoder, DecisionConfig | None]:
        """A release fitted to the band and the wearer of a session, and how it decides."""
        return fit(decoder, take.band.spec, entry, self._edge, self._clock)

    def _rehearsed(self, entry: SessionPlan, take: Take, live: LiveDecoding | None) -> AbstractContextManager[object]:
        """Let a release that is tried see what a session decodes."""
        if live is None:
            return nullcontext()

        def fitted(decoder: Decoder) -> tuple[StreamDecoder, DecisionConfig | None]:
            return self._fitted(entry, take, with_added(decoder, self._state_dir, entry.participant))

        return self._releases.decoding(live, fitted)

    async def _roll_back(self, request: Request) -> str:
        name = await self._releases.rollback(request.reason)
        return f"{name} runs from the next session on."

    def _telling(self, entry: SessionPlan, live: LiveDecoding | None) -> AbstractAsyncContextManager[object]:
        """Tell applications what is decided, if anything is."""
        words = self._settings.outputs.enabled if entry.outputs is None else entry.outputs
        means = Means(self._settings.outputs, self._edge.name, self._clock, self._base, say=self._uplink.say)
        return telling(words if live is not None else (), means, self.decisions, self._notices)

    def _notices(self, watcher: Watcher) -> list[Notice]:
        if self._take is None or self._recorder is None:
            return []
        found = watcher.bands(self._take.states()) + watcher.quality(self._recorder.quality())
        return found + watcher.wearing(self._recorder.wearing())

    def _note(self, digest: Digest) -> None:
        try:
            write_digest(self._state_dir, digest)
        except OSError as error:
            # It only repeats what the spool holds.
            logger.warning("the digest of session %s was not written: %s", digest.name, error)
        self.digests.append(digest)
        logger.info(
            "session %s: %s; %s",
            digest.name,
            digest.reason,
            ", ".join(f"{s.name} {s.samples} samples, {s.lost} lost, {s.chunks} chunks" for s in digest.streams),
        )

    async def _sync(self) -> None:
        while True:
            self._watch_disk()
            await self._clock.sleep(_SYNC_EVERY_S)
            try:
                await self._courier.call(self._courier.spool.sync)
            except EmbridgeError as error:
                logger.error("%s", error)

    def _watch_disk(self) -> None:
        """Tell when the room on the spool's disk gets little, and when there is enough of it again."""
        room, before = self._courier.spool.room, self._disk
        self._disk = disk_level(room, self._edge.reserve_bytes)
        if self._disk is before:
            return
        told = logger.info if self._disk is DiskLevel.OK else logger.warning
        told("the spool's disk is %s: %s are free", self._disk.value, mib(room))
        self._changed()

    def _ask(self, request: bytes) -> None:
        """Send a request of the updater's thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._uplink.say, topics.ask_topic(self._edge.name), request, 1)

    def _changed(self) -> None:
        self._uplink.state_changed()

    def _in_a_few_words(self) -> str:
        waiting = self._courier.spool.backlog()
        doing = f"recording session {self._recorder.session.id}" if self._recorder is not None else "idle"
        return (
            f"{doing}; {self._uplink.link.value}; {waiting.items} items, {waiting.bytes >> 20} MiB wait for the cloud"
        )

    def state(self) -> EdgeState:
        """What the edge is now, as it tells the cloud."""
        backlog = self._courier.spool.backlog()
        current = self._releases.current
        return EdgeState(
            edge=self._edge.name,
            online=True,
            agent=_VERSION,
            release=current.name if current else "",
            digest=current.digest if current else "",
            recording=self._recorder.session.id if self._recorder else None,
            spooled=backlog.items,
            spooled_bytes=backlog.bytes,
            update=self._releases.progress,
            health=self._releases.health,
            bands=self._take.states() if self._take is not None else (),
            quality=self._recorder.quality() if self._recorder is not None else (),
            wearing=self._recorder.wearing() if self._recorder is not None else None,
            disk=disk_level(self._courier.spool.room, self._edge.reserve_bytes),
            disk_free=self._courier.spool.room,
            certificate_ends_ns=self._credentials.watch(self._clock.wall_ns()),
            orders=self._erasures.done,
            t_ns=self._clock.wall_ns(),
        )


def _innermost(group: BaseExceptionGroup[EmbridgeError]) -> EmbridgeError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, EmbridgeError)
    return error
