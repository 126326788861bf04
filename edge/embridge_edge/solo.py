"""Records one session into a state directory, without delivering it: an agent there sends it later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from embridge_edge import quality
from embridge_edge.courier import Courier
from embridge_edge.digest import Digest, write_digest
from embridge_edge.lock import only_agent
from embridge_edge.plan import QualityGate, SessionPlan
from embridge_edge.recorder import Recorder, begin
from embridge_edge.spool import Spool
from embridge_edge.takes import Take, open_take
from embridge_shared.clock import Clock
from embridge_shared.errors import OperatorError, Reason
from embridge_shared.settings import EdgeSettings


async def record(
    plan: SessionPlan,
    settings: EdgeSettings,
    *,
    clock: Clock,
    base: Path = Path(),
    stop: asyncio.Event | None = None,
    began: Callable[[Take], None] | None = None,
) -> Digest:
    """Record a session to its end.

    Args:
        plan: What and whose.
        settings: State directory, name of the edge, limits.
        clock: Wall and monotonic time.
        base: Folder that the plan's paths start from.
        stop: Ends the session in good order when set.
        began: Called with what is recorded when it begins.

    Raises:
        OperatorError: LOCKED: an agent runs there; INVALID: the session is recorded already; DISK_FULL.
        DataError: The session was begun with other streams.
        ConfigError: The plan asks for what cannot be.
        DeviceError: A device cannot be reached; no session was begun.
        DeviceError: POOR_SIGNAL: the plan requires a good signal, and it is not.
    """
    with only_agent(settings.state_dir):
        courier = Courier(
            Spool(settings.state_dir / "spool.db", settings.spool_max_bytes, reserve_bytes=settings.reserve_bytes)
        )
        try:
            known = await courier.call(courier.spool.session, plan.name)
            if known is not None and known.closed:
                raise OperatorError(
                    f"session {plan.name!r} is recorded already",
                    reason=Reason.INVALID,
                    hint="Nothing is overwritten: give the new one a --name of its own.",
                )
            notes: tuple[str, ...] = ()
            if known is None and plan.quality_gate is not QualityGate.OFF:
                notes = await quality.gate(plan, open_take(plan, base, clock, adapter=settings.adapter), clock)
            take = open_take(plan, base, clock, adapter=settings.adapter)
            await take.reach()
            try:
                begun = await begin(plan, take, edge=settings.name, courier=courier, clock=clock, live=None)
            except BaseException:
                await take.close()
                raise
            recorder = Recorder(
                plan,
                begun,
                take,
                chunk_s=settings.chunk_s,
                courier=courier,
                clock=clock,
                live=None,
                lsl_out=settings.lsl_out if plan.lsl_out is None else plan.lsl_out,
                spooled=lambda: None,
                notes=notes,
            )
            if began is not None:
                began(take)
            digest = await _until(recorder, take, stop)
            write_digest(settings.state_dir, digest)
            return digest
        finally:
            await courier.close()


async def _until(recorder: Recorder, take: Take, stop: asyncio.Event | None) -> Digest:
    """Run a recorder to its end, or until asked to stop."""
    if stop is None:
        return await recorder.run()
    stopping = asyncio.create_task(stop.wait(), name="stop")
    stopping.add_done_callback(lambda task: None if task.cancelled() else take.stop())
    try:
        return await recorder.run()
    finally:
        stopping.cancel()
