"""The scheduler of a cloud process: looks at what is new, asks the schedule, and begins a realignment."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any, Final

import msgspec

from embridge_cloud.frozen import SNAPSHOT, FrozenSession, brief_of, not_permitted, read_frozen, unwanted
from embridge_cloud.jobs.model import JobRequest, JobState
from embridge_cloud.jobs.office import suspicious
from embridge_cloud.jobs.runner import Jobs
from embridge_cloud.jobs.schedule import Decision, Memory, Schedule, Waiting, decide, merged
from embridge_cloud.recipe import Recipe
from embridge_cloud.store.consent import read_consents
from embridge_cloud.store.sealed import SealedSession
from embridge_shared.archive import write_atomically
from embridge_shared.clock import Clock
from embridge_shared.errors import EmbridgeError

logger = logging.getLogger(__name__)

LOOK_S: Final = 30.0
BY: Final = "schedule"
_DECIDED: Final = (JobState.DONE, JobState.REFUSED)


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The scheduler's file."""

    schedule: dict[str, Any] = {}
    memory: Memory = Memory()


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How the schedule stands.

    Attributes:
        schedule: It.
        waiting: What is new.
        why: What was decided last, and why.
        next_ns: Unix time of the timetable's next time, ns; 0 without one.
        begun_ns: Unix time it last began something, ns; 0 before.
        failed: Why it could not begin when it last tried; empty if it could.
    """

    schedule: Schedule
    waiting: Waiting
    why: str
    next_ns: int
    begun_ns: int
    failed: str


class Scheduler:
    """Begins realignments.

    Args:
        jobs: Runs them.
        path: File that keeps what was changed of the schedule and what was decided.
        clock: Time.
        schedule: That of the settings.
    """

    def __init__(self, jobs: Jobs, path: Path, clock: Clock, schedule: Schedule) -> None:
        self._jobs = jobs
        self._path = path
        self._clock = clock
        self._base = schedule
        self._briefs: dict[str, tuple[SealedSession, FrozenSession]] = {}
        self._kept = self._read()
        self.waiting = Waiting()
        self._last: Decision | None = None
        self._lock = asyncio.Lock()

    @property
    def schedule(self) -> Schedule:
        """The schedule in force."""
        return merged(self._base, self._kept.schedule)

    def standing(self) -> Standing:
        """How it stands."""
        last, memory = self._last, self._kept.memory
        return Standing(
            schedule=self.schedule,
            waiting=self.waiting,
            why="not looked yet" if last is None else last.why,
            next_ns=0 if last is None else last.next_ns,
            begun_ns=memory.begun_ns,
            failed=memory.failed,
        )

    async def change(self, given: dict[str, Any]) -> Standing:
        """Change the schedule for good: it outlives the process, and the settings.

        Args:
            given: Fields and values; None returns a field to that of the settings.

        Raises:
            OperatorError: They are no schedule.
        """
        changed = {k: v for k, v in (self._kept.schedule | given).items() if v is not None}
        merged(self._base, changed)
        self._keep(msgspec.structs.replace(self._kept, schedule=changed))
        await self.look()
        return self.standing()

    async def run(self, stopping: asyncio.Event) -> None:
        """Look every now and then until the process ends."""
        while not stopping.is_set():
            try:
                await self.look()
            except EmbridgeError as error:
                logger.error("the schedule cannot be looked at: %s", error)
            try:
                async with asyncio.timeout(LOOK_S):
                    await stopping.wait()
            except TimeoutError:
                continue

    async def look(self) -> Decision:
        """Decide, and begin what is decided.

        Raises:
            DataError: What sessions and jobs say of themselves is damaged.
        """
        async with self._lock:
            schedule = self.schedule
            self._jobs.shelf.reload()
            self.waiting = await asyncio.to_thread(self._new, schedule.line)
            jobs = [j for j in self._jobs.shelf.all() if j.line == schedule.line]
            found = decide(
                schedule,
                self.waiting,
                self._kept.memory,
                self._clock.wall_ns(),
                last_ns=max((j.asked_ns for j in jobs), default=0),
                busy=bool(self._jobs.shelf.open()),
            )
            self._last = found
            memory = found.memory
            if found.begin:
                memory = msgspec.structs.replace(memory, failed=await self._begin(schedule, found.why))
            if memory != self._kept.memory:
                self._keep(msgspec.structs.replace(self._kept, memory=memory))
            return found

    async def _begin(self, schedule: Schedule, why: str) -> str:
        """Begin; why it failed, or nothing."""
        try:
            job = await self._jobs.start(JobRequest(line=schedule.line, why=why), by=BY)
        except EmbridgeError as error:
            logger.error("the schedule cannot begin a realignment: %s", error)
            return str(error)
        logger.info("%s begins: %s", job.id, why)
        return ""

    def _new(self, line: str) -> Waiting:
        """What may be learnt from and was in no candidate that was judged."""
        known, recipe = self._learnt(line)
        if recipe is None:
            return Waiting()
        catalogue = self._jobs.office.catalogue
        consents = read_consents(catalogue.directory)
        barred = suspicious(self._jobs.shelf, line)
        names = {s.session for s in known}
        people = {s.participant for s in known}
        new = []
        for sealed, brief in self._sessions():
            if brief.session in names or brief.session in barred:
                continue
            if unwanted(sealed, recipe) == "" and not not_permitted(sealed, consents):
                new.append((sealed, brief))
        return Waiting(
            sessions=len(new),
            participants=len({b.participant for _, b in new} - people),
            minutes=sum(b.paired_s for _, b in new) / 60.0,
            latest_ns=max((s.manifest.sealed_ns for s, _ in new), default=0),
        )

    def _learnt(self, line: str) -> tuple[list[FrozenSession], Recipe | None]:
        """Sessions of every candidate of a line that was judged, and the latest recipe; None before any."""
        shelf, found, recipe = self._jobs.shelf, list[FrozenSession](), None
        for job in shelf.all():
            if job.line != line or job.state not in _DECIDED:
                continue
            folder = shelf.folder(job.id)
            try:
                recipe = shelf.recipe(job.id)
                # after an erasure it is gone: what is left of its data counts as new, and a release without follows
                found += read_frozen(folder).sessions if (folder / SNAPSHOT).is_file() else ()
            except EmbridgeError as error:
                logger.warning("%s is not counted: %s", job.id, error)
        return found, recipe

    def _sessions(self) -> list[tuple[SealedSession, FrozenSession]]:
        """Every sealed session; each is read once, for it never changes."""
        catalogue = self._jobs.office.catalogue
        here = catalogue.ids()
        for session in here:
            if str(session) in self._briefs:
                continue
            try:
                sealed = catalogue.get(session)
            except EmbridgeError as error:
                logger.warning("not counted: %s", error)
                continue
            self._briefs[str(session)] = (sealed, brief_of(sealed))
        wanted = set(map(str, here))
        self._briefs = {name: kept for name, kept in self._briefs.items() if name in wanted}
        return list(self._briefs.values())

    def _read(self) -> _Kept:
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=_Kept)
            merged(self._base, kept.schedule)
        except FileNotFoundError:
            return _Kept()
        except (msgspec.DecodeError, EmbridgeError) as error:
            logger.error("%s is damaged, the schedule of the settings is in force: %s", self._path, error)
            return _Kept()
        return kept

    def _keep(self, kept: _Kept) -> None:
        write_atomically(self._path, msgspec.json.format(msgspec.json.encode(kept)))
        self._kept = kept
