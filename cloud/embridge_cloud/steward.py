"""The steward: keeps a running cloud process's people, views, lake and retention in order, and tells edges to erase."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any
from uuid import UUID

import duckdb
import msgspec
from fastapi import FastAPI, Request

from embridge_cloud.api.roles import Role, access
from embridge_cloud.context import CloudContext
from embridge_cloud.keeper import OPERATIONS, Body, Keeper
from embridge_cloud.registry import Registry
from embridge_cloud.store.views import changes
from embridge_shared.errors import EmbridgeError, OperatorError, Reason
from embridge_shared.wire import topics

logger = logging.getLogger(__name__)

_TICK_S = 2.0
_ORDERS_S = 5.0
_LAKE_S = 30.0
_HOUR_S = 3600.0


class Steward:
    """Does what comes again and again, and operations that are asked for, one at a time.

    Args:
        context: The running cloud process.
    """

    def __init__(self, context: CloudContext) -> None:
        self._context = context
        self._settings = context.settings.store
        self.keeper = Keeper(context.store, context.settings, context.clock)
        self._turn = asyncio.Lock()
        self._seen: tuple[object, ...] | None = None
        self._registry: Registry | None = None
        self._due: dict[str, float] = {}

    async def do(self, name: str, body: Body, actor: str) -> Any:
        """Carry out an operation.

        Raises:
            EmbridgeError: It cannot be carried out as asked.
        """
        operation = OPERATIONS[name]
        async with self._turn:
            work = partial(self.keeper.do, name, body, actor=actor)
            if operation.exclusive and (body.apply or name != "retention"):
                found = await self._context.ingester.exclusively(work)
                self._seen = None
                self._due.clear()
                return found
            return await asyncio.to_thread(work)

    async def run(self) -> None:
        """Until the process ends: go on with erasures, then views, orders, lake and retention when they are due."""
        stopping = self._context.stopping
        await self._try("participants", lambda: asyncio.to_thread(self.keeper.people.publish))
        await self._try("erasures", self._resume)
        while not stopping.is_set():
            await self._when_due("views", self._settings.views_every_s, self._views)
            await self._when_due("orders", _ORDERS_S, self._orders)
            if self.keeper.lake is not None:
                await self._when_due("lake", _LAKE_S, lambda: asyncio.to_thread(self.keeper.sync_lake))
            if self._settings.retain_every_h:
                await self._when_due("retention", self._settings.retain_every_h * _HOUR_S, self._retain)
            try:
                async with asyncio.timeout(_TICK_S):
                    await stopping.wait()
            except TimeoutError:
                continue

    async def _when_due(self, name: str, every_s: float, work: Any) -> None:
        now = self._context.clock.monotonic_ns() * 1e-9
        if now >= self._due.get(name, 0.0):
            await self._try(name, work)
            self._due[name] = self._context.clock.monotonic_ns() * 1e-9 + every_s

    async def _try(self, name: str, work: Any) -> None:
        try:
            async with self._turn:
                await work()
        except (EmbridgeError, OSError, duckdb.Error) as error:
            logger.error("%s: %s; tried again later", name, error)

    async def _resume(self) -> None:
        if await asyncio.to_thread(self._unfinished):
            for erasure in await self._context.ingester.exclusively(self.keeper.eraser.resume):
                logger.info("went on with erasure %s: %s", erasure.id, erasure.stage)

    def _unfinished(self) -> bool:
        sql = "SELECT 1 FROM erasures WHERE stage IN ('begun', 'rewrite') LIMIT 1"
        return bool(self._context.store.read.rows(sql))

    async def _views(self) -> None:
        found = await asyncio.to_thread(changes, self._context.store)
        if found != self._seen:
            await asyncio.to_thread(self.keeper.refresh_views)
            self._seen = found

    async def _retain(self) -> None:
        now = self._context.clock.wall_ns()
        work = partial(self.keeper.retention.apply, now, actor="retention")
        verdicts, _ = await self._context.ingester.exclusively(work)
        logger.info("retention: %d sessions went", sum(not v.kept for v in verdicts))

    async def _orders(self) -> None:
        """Note who has answered, and tell the others again that are there."""
        await asyncio.to_thread(self._take_answers)
        orders = await asyncio.to_thread(self.keeper.eraser.orders)
        if not orders:
            return
        online = {e for (e,) in self._context.store.read.rows("SELECT edge FROM edges WHERE online")}
        if self._registry is None:
            self._registry = await asyncio.to_thread(Registry, self._context.updates_dir.parent, self._context.clock)
        for order in orders:
            if order.edge in online:
                signed = self._registry.signed(order.body())
                await self._context.ingester.publish(topics.orders_topic(order.edge), signed.pack())

    def _take_answers(self) -> None:
        rows = self._context.store.read.rows(
            "SELECT edge, body->>'orders' FROM edges SEMI JOIN erasure_edges USING (edge) "
            "WHERE json_array_length(body->'orders') > 0"
        )
        for edge, orders in rows:
            for erasure in self.keeper.eraser.answered(edge, msgspec.json.decode(orders, type=list[UUID])):
                logger.info("erasure %s is done: every edge has answered", erasure)
        self.keeper.eraser.finish()


def add_steward(app: FastAPI, context: CloudContext) -> None:
    """Add the routes of the store's keeping to a cloud process, and the task that does it."""
    steward = Steward(context)
    context.tasks.create_task(steward.run(), name="steward")
    for name, operation in OPERATIONS.items():
        _add(app, steward, name, Role.ADMIN if operation.admin else Role.OPERATOR, operation.action)


def _add(app: FastAPI, steward: Steward, name: str, role: Role, action: str) -> None:
    about = (OPERATIONS[name].work.__doc__ or name.replace("-", " ").capitalize()) + "."

    @app.post(f"/api/keep/{name}", tags=["keeping"], name=name, description=about)
    @access(role, action=action, stream=True)
    async def operate(request: Request) -> Any:
        payload = await request.body()
        try:
            body = msgspec.json.decode(payload, type=Body) if payload else Body()
        except (msgspec.DecodeError, EmbridgeError) as error:
            raise OperatorError(f"no valid request: {error}", reason=Reason.MALFORMED) from error
        principal = getattr(request.state, "principal", None)
        return await steward.do(name, body, f"token:{principal.name}" if principal is not None else "api")
