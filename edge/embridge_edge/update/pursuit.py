"""What an edge was asked to run: fetched, tested, rehearsed and activated, or refused, or tried again."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol, TypeVar

from embridge_edge.decode.runtime import Decoder
from embridge_edge.update.health import ailment
from embridge_edge.update.journal import Journal
from embridge_edge.update.proving import Prover
from embridge_edge.update.rehearsal import Rehearsals
from embridge_edge.update.slots import Slot, Slots
from embridge_edge.update.updater import Updater
from embridge_shared.clock import Clock
from embridge_shared.errors import EmbridgeError, ModelError, OperatorError, Reason
from embridge_shared.fleet import Trial, UpdatePhase, UpdateState
from embridge_shared.release import Bundle
from embridge_shared.wire.messages import Desired

logger = logging.getLogger(__name__)

_RETRY_MIN_S: Final = 1.0
_FINAL: Final = frozenset({Reason.SELF_TEST, Reason.INCOMPATIBLE, Reason.CRASHED, Reason.UNHEALTHY, Reason.RECALLED})
"""Reasons that no other mirror and no other moment would change."""
_READY: Final = frozenset({UpdatePhase.SHADOW, UpdatePhase.WAITING})

T = TypeVar("T")


class Call(Protocol):
    """Runs what blocks and waits for it."""

    def __call__(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Awaitable[T]:
        """As `asyncio.to_thread`."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Means:
    """What updates are done with.

    Attributes:
        clock: Paces retries, shadow runs and probation.
        slots: The releases on the disk.
        prover: Reads bundles and tries them.
        updater: Gives the updater for a repository.
        load: Opens a verified bundle.
        call: Runs what blocks.
        rng: Jitter of retries.
        backoff_max_s: Longest pause between two tries, s.
    """

    clock: Clock
    slots: Slots
    prover: Prover
    updater: Callable[[str], Updater]
    load: Callable[[Bundle], Decoder]
    call: Call
    rng: random.Random
    backoff_max_s: float


class Running(Protocol):
    """What runs meanwhile."""

    lock: asyncio.Lock
    """Held while a session keeps its release."""
    current: Slot | None
    """The release in force."""

    def run_on(self, slot: Slot | None) -> None:
        """Decode with this release from the next session on."""

    async def obey(self, recalls: dict[str, str]) -> None:
        """Give up what was recalled, of the releases held here by digest."""


class SupersededError(Exception):
    """Another release is wanted by now."""


class Pursuit:
    """Carries out what is desired.

    Args:
        means: What it is done with.
        journal: Where each step is written before it is taken.
        running: What runs meanwhile.
        rehearsals: Shadow runs.
        trusted: Whether this edge has a root of trust.

    Attributes:
        busy: Whether a release is being brought here or tried.
    """

    def __init__(
        self, means: Means, journal: Journal, *, running: Running, rehearsals: Rehearsals, trusted: bool
    ) -> None:
        self._means = means
        self._call = means.call
        self._journal = journal
        self._running = running
        self._rehearsals = rehearsals
        self._trusted = trusted
        self._desired: Desired | None = None
        self._tries = 0
        self._wanted = asyncio.Event()
        self._updating = asyncio.Lock()
        self.busy = False

    def desire(self, desired: Desired) -> None:
        """Note what the cloud wants this edge to run; what is under way or was given up for good is not begun anew."""
        if desired == self._desired and (self.busy or _settled(self._journal.told, desired)):
            return
        self._tries = self._tries if desired == self._desired else 0
        self._desired = desired
        self._wanted.set()

    def resume(self) -> None:
        """Go on with what was under way when the agent ended, unless something else is wanted by now."""
        waiting = self._journal.pointer.attempt
        if waiting is not None and self._desired is None:
            self.desire(waiting.desired)

    def again(self) -> None:
        """Look anew at what is wanted: what runs is not what it was."""
        if self._desired is not None:
            self._wanted.set()

    async def ask(self, url: str) -> None:
        """Go back if what runs here was recalled; nothing comes of it where nobody answers."""
        try:
            async with self._updating:
                await self._running.obey(await self._call(self._means.updater(url).recalls))
        except (EmbridgeError, OSError) as error:
            logger.warning("nobody says whether releases were recalled: %s", error)

    async def run(self) -> NoReturn:
        """Carry out what is desired, for ever."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            desired = self._desired
            if desired is None:
                continue
            if not self._trusted:
                logger.warning("ignored release %s: this edge has no root of trust", desired.release)
                continue
            try:
                await self._pursue(desired)
            except SupersededError:
                logger.info("release %s is let go: another one is wanted", desired.release)
            finally:
                self.busy = False

    async def _pursue(self, desired: Desired) -> None:
        retry_s = _RETRY_MIN_S
        while True:
            self.busy = True
            try:
                await self._update(desired)
                return
            except OSError as error:
                failure: EmbridgeError = OperatorError(f"the disk of releases fails: {error}", reason=Reason.DISK_FULL)
            except EmbridgeError as error:
                if isinstance(error, ModelError) and error.reason is not Reason.EXPIRED:
                    logger.error("release %s is refused: %s", desired.release, error)
                    await self._call(self._journal.refuse, desired, error)
                    return
                failure = error
            self.busy = False
            self._tries += 1
            self._journal.fail(desired, failure, self._tries)
            pause_s = retry_s * self._means.rng.uniform(0.5, 1.0)
            logger.warning("release %s: %s; again in %.1f s", desired.release, failure, pause_s)
            await self._unless_wanted(self._means.clock.sleep(pause_s))
            retry_s = min(2 * retry_s, self._means.backoff_max_s)

    async def _update(self, desired: Desired) -> None:
        pointer = self._journal.pointer
        if pointer.current is not None and pointer.current.digest == desired.digest:
            await self._call(self._journal.confirm, desired)
            await self.ask(desired.url)
            return
        if desired.digest in pointer.refused and _settled(pointer.told, desired):
            return
        path, waits = self._means.slots.path(desired.digest), pointer.attempt
        ready = waits is not None and waits.desired == desired and waits.phase in _READY and path.exists()
        if not ready:
            path = await self._fetched(desired)
        if desired.trial is not None and desired.trial.shadow_windows and self._running.current is not None:
            await self._rehearsed(desired, desired.trial, path)
        if self._running.lock.locked():
            until = "it runs once the session being recorded has ended"
            await self._call(self._journal.step, desired, UpdatePhase.WAITING, detail=until)
        await self._unless_wanted(self._running.lock.acquire())
        try:
            self._running.run_on(await self._call(self._journal.activate, desired, path))
        finally:
            self._running.lock.release()
        logger.info("running release %s (%s)", desired.release, desired.digest[:12])

    async def _fetched(self, desired: Desired) -> Path:
        await self._call(self._journal.open, desired)
        trial, updater = desired.trial, self._means.updater(desired.url)
        async with self._updating:
            await self._running.obey(await self._call(updater.recalls))
            path = await self._call(
                updater.fetch,
                desired.release,
                refreshed=True,
                progress=self._progress,
                testing=lambda: self._journal.step(desired, UpdatePhase.TESTING, loaded=True),
                max_p99_ms=None if trial is None else trial.max_p99_ms,
            )
        if path.stem != desired.digest:
            raise ModelError(
                f"{desired.release} is signed as {path.stem[:12]}, and {desired.digest[:12]} was asked for",
                reason=Reason.HASH_MISMATCH,
                hint="Roll it out again.",
            )
        found = {"self_test_ms": updater.proof.self_test_ms} if updater.proof is not None else {}
        await self._call(self._journal.step, desired, UpdatePhase.WAITING, **found)
        if self._wanted.is_set():
            raise SupersededError
        return path

    async def _rehearsed(self, desired: Desired, trial: Trial, path: Path) -> None:
        async def load() -> Decoder:
            await self._call(self._journal.step, desired, UpdatePhase.SHADOW, loaded=True)
            bundle = await self._call(self._means.prover.read, path, digest=desired.digest)
            return await self._call(self._means.load, bundle)

        await self._call(self._journal.step, desired, UpdatePhase.SHADOW)
        found = await self._unless_wanted(self._rehearsals.run(desired.release, trial, load))
        if why := ailment(found, trial):
            raise ModelError(
                f"{desired.release} was not taken after its shadow run: {why}.",
                reason=Reason.UNHEALTHY,
                hint="The running release stays.",
            )
        seen = {"agreement": found.agreement, "shadow_confidence": found.shadow_confidence}
        await self._call(self._journal.step, desired, UpdatePhase.WAITING, **seen)

    def _progress(self, done: int, size: int) -> None:
        if self._wanted.is_set():
            raise SupersededError
        self._journal.progress(done, size)

    async def _unless_wanted(self, what: Awaitable[T]) -> T:
        """Wait for something, unless another release is wanted before."""
        task = asyncio.ensure_future(what)
        try:
            if not await first(task, self._wanted):
                raise SupersededError
            return task.result()
        finally:
            task.cancel()


async def first(what: Awaitable[object], event: asyncio.Event) -> bool:
    """Wait for either; whether it was the first."""
    tasks = [asyncio.ensure_future(what), asyncio.ensure_future(event.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].done()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _settled(told: UpdateState, desired: Desired) -> bool:
    """Whether a release was refused or given up here for good."""
    if told.digest != desired.digest:
        return False
    return told.phase is UpdatePhase.ROLLED_BACK or (told.phase is UpdatePhase.REFUSED and told.reason in _FINAL)
