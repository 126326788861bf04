"""What a cloud process tells its service manager: ready once it ingests, and alive while the pump moves."""

from __future__ import annotations

import logging
from typing import Final

from embridge_cloud.context import CloudContext
from embridge_cloud.waiting import first_of
from embridge_shared.service import Notifier

logger = logging.getLogger(__name__)

STUCK_S: Final = 60.0
"""Longest time the pump may be at one thing; the worst transaction measured took seconds."""
_BEAT_S: Final = 5.0


async def keep_vigil(context: CloudContext, notifier: Notifier) -> None:
    """Tell until the process is asked to end.

    A store that refuses, a full disk and a broker that is away are told of, and the watchdog is fed: the process tries
    again by itself, and a new one could do no better. It starves when a call into the database does not come back, or
    when what has come is not taken up.

    Args:
        context: The running process.
        notifier: Its manager.
    """
    beat_s = min(_BEAT_S, notifier.watchdog_s / 4 or _BEAT_S)
    ready, faulty = False, False
    while not context.stopping.is_set():
        ingester = context.ingester
        doing = words(context)
        stuck_s = ingester.stuck_s
        if not ready and ingester.status.connected:
            ready = True
            notifier.ready(doing)
        if stuck_s > STUCK_S:
            if not faulty:
                logger.error("the watchdog is not fed: the pump has not moved for %.0f s", stuck_s)
            notifier.status(f"not fed: the pump has not moved for {stuck_s:.0f} s")
        else:
            if ready:
                notifier.watchdog()
            notifier.status(doing)
        faulty = stuck_s > STUCK_S
        await first_of(context.clock.sleep(beat_s if ready else min(beat_s, 0.2)), context.stopping.wait())
    notifier.stopping("a last commit")
    notifier.close()


def words(context: CloudContext) -> str:
    """How the process is doing, in a few words."""
    status, (waiting, size) = context.ingester.status, context.ingester.backlog
    said = f"{status.state.value}; {status.commits} commits, {waiting} messages, {size >> 20} MiB wait"
    return f"{said}; {status.last_error}" if status.last_error and status.state.value != "ready" else said
