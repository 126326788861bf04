"""Which release an edge runs: tries what the cloud offers, keeps what fares well, goes back by itself.

Three things go on beside one another: a release that was asked for is fetched, tested, rehearsed and activated
(`Pursuit`); the one that runs on probation is judged (`_judging`); and the registry is asked now and then whether it
recalled what runs here (`_asking`). Each step lies in the journal before it is taken.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

from embridge_edge.decode.runtime import Decoder
from embridge_edge.live import LiveDecoding
from embridge_edge.memory import give_back
from embridge_edge.update.blocks import Ask, fetcher_for
from embridge_edge.update.health import Vitals, ailment
from embridge_edge.update.journal import Journal
from embridge_edge.update.proving import Prover
from embridge_edge.update.pursuit import Call, Means, Pursuit, first
from embridge_edge.update.rehearsal import Rehearsals, Stage
from embridge_edge.update.shadow import Fit
from embridge_edge.update.slots import FOLDER, Slot, Slots
from embridge_edge.update.updater import Updater
from embridge_shared.clock import Clock
from embridge_shared.errors import EmbridgeError, ModelError, OperatorError, Reason
from embridge_shared.fleet import ReleaseHealth, Trial, UpdateState
from embridge_shared.release import Bundle
from embridge_shared.settings import EdgeSettings
from embridge_shared.wire.messages import Desired

logger = logging.getLogger(__name__)

_JUDGE_S: Final = 5.0


class ReleaseKeeper:
    """Runs the updater and hands out the decoder of the release in force.

    Args:
        settings: State directory, root of trust.
        clock: Paces retries, shadow runs and probation.
        changed: Called when what the edge runs, or how an update goes, has changed.
        prover: Reads bundles and tries them; many edges of a process may share one.
        updater: Gives the updater for a repository; by default one by the route of the settings.
        ask: Asks the cloud for blocks of the repository over the broker; None where nobody could.
        load: Opens a verified bundle.
        call: Runs what blocks; a thread by default.
        rng: Jitter of retries.
    """

    def __init__(
        self,
        settings: EdgeSettings,
        clock: Clock,
        *,
        changed: Callable[[], None],
        prover: Prover | None = None,
        updater: Callable[[str], Updater] | None = None,
        ask: Ask | None = None,
        load: Callable[[Bundle], Decoder] | None = None,
        call: Call = asyncio.to_thread,
        rng: random.Random | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._changed = changed
        self._prover = prover or Prover(int8=settings.int8)
        self._ask_blocks = ask
        self._call = call
        self._active, self._stirred = asyncio.Event(), asyncio.Event()
        self.lock = asyncio.Lock()
        self._decoder: Decoder | None = None
        self._vitals: Vitals | None = None
        self._rehearsals = Rehearsals(clock)
        self._root = settings.update_root.read_bytes() if settings.update_root is not None else None
        self._slots = Slots(settings.state_dir / FOLDER, read=self._prover.read)
        self._journal = Journal(self._slots, clock, self._told)
        self._means = Means(
            clock=clock,
            slots=self._slots,
            prover=self._prover,
            updater=updater or self._by_route,
            load=load or (lambda bundle: Decoder(bundle, int8=settings.int8)),
            call=call,
            rng=rng or random.Random(),  # noqa: S311
            backoff_max_s=settings.backoff_max_s,
        )
        self._pursuit = Pursuit(
            self._means,
            self._journal,
            running=self,
            rehearsals=self._rehearsals,
            trusted=self._root is not None,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.get_ident()
        self._on_trial_ns = clock.monotonic_ns()
        self.current = self._slots.current()
        if self.current is not None:
            self._active.set()

    @property
    def progress(self) -> UpdateState:
        """The edge's word on its updates."""
        return self._journal.told

    @property
    def health(self) -> ReleaseHealth | None:
        """How the release loaded last fares; None before any was."""
        return self._vitals.now() if self._vitals is not None else None

    @property
    def vitals(self) -> Vitals | None:
        """Where live decoding tells how the release fares."""
        return self._vitals

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """An agent runs inside; it is the only one of the state directory.

        Whoever ends otherwise than by an error of its own or on request has crashed, and a release on trial is blamed.
        """
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        with _full_disk_told():
            await self._call(self._journal.begin)
        self.run_on(self._slots.current())
        self._on_trial_ns = self._clock.monotonic_ns()
        self._pursuit.resume()
        try:
            yield
        except BaseException as error:
            if _in_good_order(error):
                self._close()
            raise
        self._close()

    async def desire(self, desired: Desired) -> None:
        """Note what the cloud wants this edge to run."""
        self._pursuit.desire(desired)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """No update is activated inside: a session keeps its release."""
        async with self.lock:
            yield

    @contextmanager
    def decoding(self, live: LiveDecoding, fit: Fit) -> Iterator[None]:
        """A session decodes inside, so that another release can be rehearsed on it.

        Args:
            live: Its decoding.
            fit: Fits another release to it.
        """
        with self._rehearsals.on(Stage(live, fit)):
            yield

    @asynccontextmanager
    async def leased(self) -> AsyncIterator[Decoder]:
        """The decoder of the release in force, waiting for the first one; no other is activated inside.

        A release that is damaged on the disk, or no longer loads, gives way to the one before.

        Raises:
            OperatorError: No release came in time, or this edge has no root of trust.
            ModelError: The release in force is damaged, and so is the one before.
        """
        if self._root is None and self.current is None:
            raise OperatorError(
                "this edge takes no releases", reason=Reason.NOT_FOUND, hint="Set edge.update_root to the signed root."
            )
        try:
            async with asyncio.timeout(self._settings.release_wait_s):
                await self._active.wait()
        except TimeoutError:
            raise OperatorError(
                f"no release came within {self._settings.release_wait_s:.0f} s ({self.progress})",
                reason=Reason.TIMEOUT,
                hint="Publish a release and roll it out, or wait longer with edge.release_wait_s.",
            ) from None
        async with self.lock:
            while self._decoder is None:
                await self._load()
            yield self._decoder

    async def run(self) -> NoReturn:
        """Carry out what is desired, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pursuit.run(), name="releases-pursue")
            tasks.create_task(self._judging(), name="releases-judge")
            tasks.create_task(self._asking(), name="releases-ask")
        raise AssertionError("none of them ends")

    async def rollback(self, reason: str) -> str:
        """Return to the release before, for an operator: sessions that begin from now on decode with it.

        Returns:
            Its name.

        Raises:
            OperatorError: NOT_FOUND: there is none.
            ModelError: It is damaged; nothing was changed.
        """
        slot = await self._call(self._journal.rollback, reason)
        self.run_on(slot)
        return slot.name

    # what runs

    async def _load(self) -> None:
        try:
            await self._call(self._journal.loading)
        except OSError as error:
            raise OperatorError(f"nothing can be noted of releases: {error}", reason=Reason.DISK_FULL) from error
        fit = False
        try:
            bundle = await self._call(self._slots.load)
            if bundle is None:
                raise OperatorError("this edge has no release any more", reason=Reason.NOT_FOUND, hint="Await another.")
            fit = True
            self._decoder = await self._call(self._means.load, bundle)
        except ModelError as error:
            await self._return(error.message, Reason.SELF_TEST if fit else Reason.DAMAGED, refuse=fit)
            self._pursuit.again()
            if self.current is None:
                raise
            return
        del bundle
        await self._call(give_back)
        known = self._journal.known()
        self._vitals = None if known is None else Vitals(known)
        self._stirred.set()

    async def _judging(self) -> NoReturn:
        while True:
            self._stirred.clear()
            tried = self._journal.pointer.probation
            if tried is None:
                await self._stirred.wait()
                continue
            trial = tried.desired.trial or Trial()
            left_s = trial.probation_s - self._ran_s()
            judged = (
                self._vitals if self._vitals is not None and self._vitals.release == tried.desired.release else None
            )
            why = ailment(judged.now(), trial) if judged is not None else ""
            with _full_disk_told():
                if why:
                    await self._return(why, Reason.UNHEALTHY)
                    continue
                if left_s <= 0:
                    await self._call(self._journal.commit, tried.desired)
                    continue
            if why or left_s <= 0:
                await self._clock.sleep(_JUDGE_S)
            else:
                await first(self._clock.sleep(min(_JUDGE_S, left_s) if judged else left_s), self._stirred)

    async def _asking(self) -> NoReturn:
        while True:
            await self._clock.sleep(self._settings.update_check_s * self._means.rng.uniform(0.5, 1.5))
            url = self._journal.pointer.url
            if url and self._root is not None and not self._pursuit.busy:
                await self._pursuit.ask(url)

    async def obey(self, recalls: dict[str, str]) -> None:
        """Give up what was recalled, of the releases held here by digest."""
        pointer = self._journal.pointer
        if pointer.current is None or pointer.current.digest not in recalls:
            return
        keep = pointer.previous is not None and pointer.previous.digest not in recalls
        await self._return(f"recalled: {recalls[pointer.current.digest]}", Reason.RECALLED, older=True, keep=keep)

    async def _return(self, why: str, reason: Reason, **how: Any) -> None:
        pointer = await self._call(self._journal.back, why, reason, **how)
        self.run_on(pointer.current)

    def run_on(self, slot: Slot | None) -> None:
        """Decode with this release from the next session on."""
        if self.current is None or slot != self.current:
            self._decoder = None
            self._on_trial_ns = self._clock.monotonic_ns()
        self.current = slot
        if slot is None:
            self._active.clear()
        else:
            self._active.set()
        self._stirred.set()
        self._changed()

    def _ran_s(self) -> float:
        """How long the release in force has been on probation, s."""
        tried = self._journal.pointer.probation
        before_s = 0.0 if tried is None else tried.ran_s
        return before_s + (self._clock.monotonic_ns() - self._on_trial_ns) * 1e-9

    # means

    def _close(self) -> None:
        with _full_disk_told():
            self._journal.close(self._ran_s())

    def _told(self) -> None:
        """The journal has news, maybe in a thread."""
        if threading.get_ident() == self._thread:
            self._changed()
        elif self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._changed)

    def _by_route(self, url: str) -> Updater:
        assert self._root is not None
        return Updater(
            self._settings.state_dir,
            self._root,
            url,
            prover=self._prover,
            fetcher=fetcher_for(url, self._settings, self._ask_blocks),
            now=lambda: datetime.fromtimestamp(self._clock.wall_ns() * 1e-9, UTC),
        )


@contextmanager
def _full_disk_told() -> Iterator[None]:
    """A disk that takes nothing does not stop an agent: what was on it is in force, and the next step tries again."""
    try:
        yield
    except OSError as error:
        logger.error("nothing can be noted of releases: %s", error)


def _in_good_order(error: BaseException) -> bool:
    """Whether an agent ended on request, or with an error that it can name."""
    if isinstance(error, BaseExceptionGroup):
        return all(_in_good_order(e) for e in error.exceptions)
    return isinstance(error, asyncio.CancelledError | KeyboardInterrupt | SystemExit | EmbridgeError)
