"""The ingester: broker to database, acknowledged both ways only after the commit.

    link   keeps a connection, hands deliveries to the inbox, publishes commit reports
    sift   a batch every `commit_s` or `commit_chunks`: reads and checks its messages while the one before is committed
    pump   sorts a batch, commits it, acknowledges to the broker, reports to the edges
    seal   seals sessions that are complete

All work on the database is done in one thread, and reading of messages in another, so the loop keeps receiving. What is
in memory is bounded: a batch being committed, one that waits for it, and 48 MiB received; beyond that nothing is read
from the socket and the broker keeps the rest. When a commit fails, nothing is acknowledged and the batch is tried
again; when it cannot be saved the process ends with the error, and the edges keep everything.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any, TypeVar
from uuid import UUID

from embridge_cloud.intake import Intake
from embridge_cloud.outbox import Outbox
from embridge_cloud.parcels import STATE_PREFIX, Incoming, Sifted, sift
from embridge_cloud.rounds import Counters, Taken
from embridge_cloud.status import IngestState, IngestStatus
from embridge_cloud.store.failures import StoreError
from embridge_cloud.store.forcing import Lacking, end_incomplete
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.sealing import Sealer
from embridge_cloud.transport import Connection, Delivery, Transport
from embridge_cloud.waiting import first_of, root_cause
from embridge_shared import logs
from embridge_shared.clock import Clock
from embridge_shared.errors import EmbridgeError, NetworkError, Reason
from embridge_shared.settings import CloudSettings
from embridge_shared.wire import topics
from embridge_shared.wire.messages import EdgeState, pack

logger = logging.getLogger(__name__)

T = TypeVar("T")

BACKLOG_BYTES = 48 << 20
GIVE_UP_S = 60.0
SEAL_AGAIN_S = 60.0
_BACKOFF_S = (0.25, 10.0)
_GOODBYE_S = 5.0
_ASK = f"{topics.ROOT}/ask/"
# So many, and none for so long: the broker waits for acknowledgements.
_MANY, _QUIET_S = 200, 0.02


class Ingester:
    """Takes in what the edges of its shards send.

    Args:
        store: Open hot store.
        settings: Shards and batch sizes.
        transport: The way to the broker.
        sealer: Seals complete sessions.
        clock: Time.
        rng: Jitter of the reconnects.

    Attributes:
        status: How it is doing.
        on_ask: Given requests of edges of these shards for blocks of the update repository; they are not kept.
        on_states: Told of edges' states once they are committed, with when each came (Unix time, ns).
    """

    def __init__(
        self,
        store: HotStore,
        settings: CloudSettings,
        *,
        transport: Transport,
        sealer: Sealer,
        clock: Clock,
        rng: random.Random | None = None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._transport = transport
        self._sealer = sealer
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="sift")
        self._sifted: asyncio.Queue[tuple[list[Delivery], Sifted] | None] = asyncio.Queue(1)
        self._intake: Intake | None = None
        self._connection: Connection | None = None
        self._inbox: list[Delivery] = []
        self._inbox_bytes = 0
        self._arrived, self._full, self._empty = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._stopping, self._drained = asyncio.Event(), asyncio.Event()
        self._outbox = Outbox()
        self._to_seal: set[UUID] = set()
        self._sealable = asyncio.Event()
        self._round_turn, self._seal_turn = asyncio.Lock(), asyncio.Lock()
        self._failing: IngestState | None = None
        self._asked = 0
        self._moved_ns = clock.monotonic_ns()
        self.status = IngestStatus()
        self.on_ask: Callable[[str, bytes], None] | None = None
        self.on_states: Callable[[Mapping[str, tuple[EdgeState, int]]], None] | None = None

    @property
    def counters(self) -> Counters:
        """What came since the start."""
        return self._intake.counters if self._intake is not None else Counters()

    @property
    def backlog(self) -> tuple[int, int]:
        """Messages received and not yet taken to the database, and their bytes."""
        return len(self._inbox), self._inbox_bytes

    @property
    def stuck_s(self) -> float:
        """How long the pump has been at one and the same thing, s; 0 while nothing waits for it."""
        if not self._asked and not self._inbox:
            return 0.0
        return (self._clock.monotonic_ns() - self._moved_ns) * 1e-9

    def stop(self) -> None:
        """End `run` after a last commit."""
        self._stopping.set()

    async def run(self) -> None:
        """Run until `stop`.

        Raises:
            StoreError: The database takes nothing any more.
        """
        try:
            await self._begin()
            async with asyncio.TaskGroup() as tasks:
                for work in (self._stay_connected, self._sift, self._pump, self._seal):
                    tasks.create_task(work(), name=f"ingest-{work.__name__.strip('_')}")
        except BaseExceptionGroup as group:
            self.status.state = IngestState.FAILED
            raise root_cause(group) from None
        finally:
            self._readers.shutdown()
            self._pool.shutdown()
        self.status.state = IngestState.STOPPED

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish something else over the ingester's connection.

        Raises:
            NetworkError: There is none now, or it was lost.
        """
        await self._connected(topic).publish(topic, payload, retain=retain)

    async def publish_all(self, messages: Sequence[tuple[str, bytes]], *, retain: bool = False) -> None:
        """Publish topics and payloads, many on their way at once; raises as `publish`, when some may have gone out."""
        if messages:
            await self._connected(messages[0][0]).publish_all(messages, retain=retain)

    def _connected(self, topic: str) -> Connection:
        if self._connection is None:
            raise NetworkError(
                f"{topic} was not published: the broker is not connected",
                reason=Reason.UNREACHABLE,
                hint="Try again when it is.",
            )
        return self._connection

    async def exclusively(self, work: Callable[[], T]) -> T:
        """Run work that takes sessions away, between rounds and seals; what is known of sessions is read anew after."""
        async with self._seal_turn, self._round_turn:
            try:
                return await self._in_store(work)
            finally:
                if self._intake is not None:
                    await self._in_store(self._intake.reload)

    async def end_incomplete(self, session: UUID, reason: str, *, force: bool) -> Lacking:
        """End a session as it is and have it sealed; raises as `forcing.end_incomplete`."""
        now = self._clock.wall_ns()
        ended = await self.exclusively(partial(end_incomplete, self._store, session, reason, wall_ns=now, force=force))
        self._mark_complete([session])
        return ended

    async def _begin(self) -> None:
        first, last = self._settings.first_shard, self._settings.last_shard
        make = partial(Intake, self._store.read, first_shard=first, last_shard=last)
        self._intake = await self._in_store(make)
        await self._in_store(self._sealer.prepare)
        self._mark_complete(await self._in_store(self._intake.complete))

    # link

    async def _stay_connected(self) -> None:
        wait_s, longest_s = _BACKOFF_S
        while not self._stopping.is_set():
            self._note_state()
            try:
                await first_of(self._serve(), self._goodbye())
                wait_s = _BACKOFF_S[0]
            except NetworkError as error:
                logger.warning("%s", error)
                self.status.last_error = str(error)
                if self.status.connected:
                    wait_s = _BACKOFF_S[0]
            finally:
                self.status.connected = False
                self._connection = None
            await self._unless_stopping(self._clock.sleep(wait_s * self._rng.uniform(0.5, 1.0)))
            wait_s = min(2 * wait_s, longest_s)

    async def _serve(self) -> None:
        """One connection, for as long as it lasts."""
        first, last = self._settings.first_shard, self._settings.last_shard
        filters = [*topics.ingest_filters(first, last), STATE_PREFIX + "+", _ASK + "+"]
        async with self._transport.connect(filters) as connection:
            self._connection = connection
            self.status.connected = True
            self._note_state()
            self.status.connections += 1
            logger.info("ingesting shards %d..%d", first, last)
            self._outbox.add(await self._persist(self._core.greet))
            await first_of(self._read(connection), self._tell(connection))

    async def _goodbye(self) -> None:
        """The longest a connection lasts after the last commit."""
        await self._drained.wait()
        await self._clock.sleep(_GOODBYE_S)

    async def _read(self, connection: Connection) -> None:
        async for arrived in connection.deliveries():
            deliveries = self._answered(arrived)
            if not deliveries:
                continue
            if not self._inbox and not self._asked:
                self._moved_ns = self._clock.monotonic_ns()
            self._inbox += deliveries
            self._inbox_bytes += sum(len(d.payload) for d in deliveries)
            self._empty.clear()
            self._arrived.set()
            if len(self._inbox) >= self._settings.commit_chunks:
                self._full.set()
            if self._inbox_bytes > BACKLOG_BYTES:
                # As long as nobody asks for more the connection reads no more.
                logger.info("%d messages wait for the database: the broker keeps the rest", len(self._inbox))
                await self._empty.wait()

    def _answered(self, deliveries: list[Delivery]) -> list[Delivery]:
        """Hand on requests for blocks; what is left is for the database."""
        asked = [d for d in deliveries if d.topic.startswith(_ASK)]
        if not asked:
            return deliveries
        for delivery in asked:
            edge = delivery.topic.removeprefix(_ASK)
            if (
                self.on_ask is not None
                and self._settings.first_shard <= topics.shard(edge) <= self._settings.last_shard
            ):
                self.on_ask(edge, delivery.payload)
            delivery.source.acknowledge([delivery])
        return [d for d in deliveries if not d.topic.startswith(_ASK)]

    async def _tell(self, connection: Connection) -> None:
        """Publish reports until the last is out. What a lost connection takes with it, the next account covers."""
        while not self._drained.is_set() or self._outbox:
            await first_of(self._outbox.wait(), self._drained.wait())
            reports = [(topics.commit_topic(edge), pack(report)) for edge, report in self._outbox.take()]
            try:
                await connection.publish_all(reports)
                self.status.reports += len(reports)
            except NetworkError as error:
                logger.debug("%s", error)

    # pump

    async def _sift(self) -> None:
        """Read and check a batch while the one before it is committed."""
        while self._inbox or not self._stopping.is_set():
            await self._unless_stopping(self._ripe())
            if deliveries := self._collect():
                now = self._clock.wall_ns()
                messages = [Incoming(d.topic, d.payload, now) for d in deliveries]
                sifted = await asyncio.get_running_loop().run_in_executor(self._readers, sift, messages)
                await self._sifted.put((deliveries, sifted))
        await self._sifted.put(None)

    async def _ripe(self) -> None:
        """Wait for a batch: large, or old enough, or all that the broker sends before the first is acknowledged."""
        await self._arrived.wait()
        await first_of(self._full.wait(), self._clock.sleep(self._settings.commit_s), self._quiet())

    async def _quiet(self) -> None:
        before = 0
        while len(self._inbox) < _MANY or len(self._inbox) > before:
            before = len(self._inbox)
            await self._clock.sleep(_QUIET_S)

    async def _pump(self) -> None:
        more, last = False, False
        while more or not last:
            batch = None
            if not last and not (more and self._sifted.empty()):
                batch = await self._sifted.get()
                last = batch is None
            async with self._round_turn:
                more = await self._round(*(batch or ([], Sifted())))
        self._drained.set()

    def _collect(self) -> list[Delivery]:
        """What arrived; of much, so many whole batches: row groups that are full skip the write-ahead log."""
        size = self._settings.commit_chunks
        end = len(self._inbox) // size * size or len(self._inbox)
        deliveries, self._inbox = self._inbox[:end], self._inbox[end:]
        self._inbox_bytes = sum(len(d.payload) for d in self._inbox)
        if not self._inbox:
            self._arrived.clear()
        self._full.clear()
        self._empty.set()
        return deliveries

    async def _round(self, deliveries: Sequence[Delivery], sifted: Sifted) -> bool:
        """Take a batch through; returns whether held messages are left for another round."""
        taken = await self._persist(partial(self._sort, sifted))
        began_ns = self._clock.monotonic_ns()
        if taken.batch:
            await self._persist(partial(self._store.commit, taken.batch))
            self.status.note_commit((self._clock.monotonic_ns() - began_ns) * 1e-6)
        if taken.batch.edges and self.on_states is not None:
            self.on_states(taken.batch.edges)
        self._outbox.add(await self._persist(partial(self._core.committed, taken)))
        for source, some in groupby(deliveries, key=attrgetter("source")):
            source.acknowledge(some)
        for edge in taken.appeared:
            self._outbox.add(await self._persist(partial(self._core.coverage, edge)))
        self._mark_complete(await self._in_store(self._core.complete, {s for _, s in taken.replies}))
        return taken.more

    def _sort(self, sifted: Sifted) -> Taken:
        if self._core.unsettled:
            self._core.reload()
        return self._core.take(sifted)

    async def _persist(self, work: Callable[[], T]) -> T:
        """Work on the database until it succeeds or has failed for too long; for room on its disk without end."""
        began_ns, wait_s = self._clock.monotonic_ns(), _BACKOFF_S[0]
        while True:
            try:
                result = await self._in_store(work)
            except StoreError as error:
                waited_s = (self._clock.monotonic_ns() - began_ns) * 1e-9
                full = error.reason is Reason.DISK_FULL
                self._failing = IngestState.DISK_FULL if full else IngestState.STORE_FAILING
                self.status.last_error = str(error)
                self._note_state()
                logger.error("%s Nothing is acknowledged; failing for %.0f s.", error, waited_s)
                hopeless = error.reason is Reason.DAMAGED or (waited_s > GIVE_UP_S and not full)
                if hopeless or self._stopping.is_set():
                    raise
                await self._unless_stopping(self._clock.sleep(wait_s))
                wait_s = min(2 * wait_s, _BACKOFF_S[1])
                if error.reopen:
                    work = partial(self._after_reopening, work)
            else:
                if self._failing is not None:
                    logger.info("the store takes again")
                    self._failing = None
                    self._note_state()
                return result

    def _note_state(self) -> None:
        """A store that takes nothing is what matters, whatever the link does."""
        link = IngestState.READY if self.status.connected else IngestState.CONNECTING
        self.status.state = self._failing or link

    def _after_reopening(self, work: Callable[[], T]) -> T:
        self._store.reopen()
        return work()

    # seal

    def _mark_complete(self, sessions: Sequence[UUID]) -> None:
        self._to_seal.update(sessions)
        if sessions:
            self._sealable.set()

    async def _seal(self) -> None:
        failed: set[UUID] = set()
        while not self._stopping.is_set():
            again = [self._clock.sleep(SEAL_AGAIN_S)] if failed else []
            await first_of(self._sealable.wait(), self._stopping.wait(), *again)
            self._sealable.clear()
            sessions, self._to_seal = self._to_seal or failed, set()
            for session in sorted(sessions):
                failed.discard(session)
                if not self._stopping.is_set() and not await self._seal_one(session):
                    failed.add(session)
            self.status.unsealable = {str(s) for s in failed}

    async def _seal_one(self, session: UUID) -> bool:
        with logs.context(session=session):
            async with self._seal_turn:
                return await self._seal_now(session)

    async def _seal_now(self, session: UUID) -> bool:
        try:
            sealed = await asyncio.to_thread(self._sealer.write, session)
            await self._in_store(self._sealer.register, sealed)
        except (EmbridgeError, OSError) as error:
            logger.error("session %s is not sealed: %s", session, error)
            self.status.last_error = str(error)
            return False
        report = await self._in_store(self._core.sealed, session)
        if report is not None:
            self.status.sealed += 1
            logger.info("sealed session %s", session)
            self._outbox.add([report])
        return True

    # common

    @property
    def _core(self) -> Intake:
        assert self._intake is not None
        return self._intake

    async def _in_store(self, work: Callable[..., T], *args: Any) -> T:
        if not self._asked and not self._inbox:
            self._moved_ns = self._clock.monotonic_ns()
        self._asked += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, partial(work, *args))
        finally:
            self._asked -= 1
            self._moved_ns = self._clock.monotonic_ns()

    async def _unless_stopping(self, work: Awaitable[Any]) -> None:
        await first_of(work, self._stopping.wait())
