"""Sees what changed in the store after each commit, and tells the bus."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from embridge_cloud.api.events import EventBus
from embridge_cloud.ingest import Ingester
from embridge_cloud.store.reader import Reader
from embridge_shared.clock import Clock
from embridge_shared.errors import EmbridgeError

logger = logging.getLogger(__name__)

_EVERY_S: Final = 1.0
_QUARANTINE_SHOWN = 100


@dataclass(slots=True)
class _Seen:
    """What was known at the last look."""

    states: dict[UUID, str] = field(default_factory=dict)
    counts: tuple[int, ...] = ()
    edges: dict[str, tuple[bool, str]] = field(default_factory=dict)
    quarantined_ns: int = 0


class StoreWatch:
    """Looks at the store when the ingester has committed or sealed something; an idle store costs nothing.

    Args:
        read: Questions to the store.
        ingester: Whose counters say that something changed.
        events: Told what.
        clock: Time.
    """

    def __init__(self, read: Reader, ingester: Ingester, events: EventBus, clock: Clock) -> None:
        self._read = read
        self._ingester = ingester
        self._events = events
        self._clock = clock
        self._seen: _Seen | None = None
        self._marks: tuple[int, int] = (-1, -1)

    async def run(self, stopping: asyncio.Event) -> None:
        """Look until `stopping` is set."""
        while not stopping.is_set():
            await self.look()
            await self._clock.sleep(_EVERY_S)

    async def look(self) -> None:
        """Compare with the last time; the first look finds nothing new."""
        status = self._ingester.status
        marks = (status.commits, status.sealed)
        if marks == self._marks:
            return
        try:
            found = await asyncio.to_thread(self._take, self._seen)
        except EmbridgeError as error:
            logger.debug("no events: %s", error)
            return
        self._marks = marks
        if self._seen is not None:
            self._tell(self._seen, found)
        self._seen = found[0]

    def _take(self, seen: _Seen | None) -> tuple[_Seen, list[dict[str, Any]], dict[UUID, dict[str, Any]]]:
        """The store now, what came into quarantine since, and the sessions that changed."""
        read = self._read
        tables = ("sessions", "session_ends", "sealed_sessions", "quarantine")
        counts = tuple(read.rows(f"SELECT count(*) FROM {name}")[0][0] for name in tables)  # noqa: S608
        now = _Seen(counts=counts)
        now.edges = {e: (bool(on), r) for e, on, r in read.rows("SELECT edge, online, release FROM edges")}
        ((latest,),) = read.rows("SELECT coalesce(max(received_ns), 0) FROM quarantine")
        now.quarantined_ns = latest
        if seen is not None and counts[:3] == seen.counts[:3]:
            now.states, changed = seen.states, {}
        else:
            now.states = dict(read.rows(_STATES))
            changed = self._changed(seen, now)
        return now, self._quarantined(seen), changed

    def _changed(self, seen: _Seen | None, now: _Seen) -> dict[UUID, dict[str, Any]]:
        if seen is None:
            return {}
        ids = [session for session, state in now.states.items() if seen.states.get(session) != state]
        rows = self._read.records(
            "SELECT session, edge, participant, purpose FROM sessions WHERE list_contains($1, session)", [ids]
        )
        return {row.pop("session"): row for row in rows}

    def _quarantined(self, seen: _Seen | None) -> list[dict[str, Any]]:
        if seen is None:
            return []
        return self._read.records(
            "SELECT reason, edge, count(*) AS messages, any_value(detail) AS detail FROM quarantine "
            "WHERE received_ns > $1 GROUP BY reason, edge ORDER BY reason, edge LIMIT $2",
            [seen.quarantined_ns, _QUARANTINE_SHOWN],
        )

    def _tell(self, seen: _Seen, found: tuple[_Seen, list[dict[str, Any]], dict[UUID, dict[str, Any]]]) -> None:
        now, quarantined, changed = found
        for edge, (online, release) in sorted(now.edges.items()):
            was_online, was_release = seen.edges.get(edge, (False, ""))
            if online != was_online:
                self._events.publish("edge.online" if online else "edge.offline", edge)
            if release != was_release and release:
                self._events.publish("edge.release", edge, release=release)
        for session, data in changed.items():
            for state in _STEPS[_step(seen.states.get(session)) : _step(now.states[session])]:
                self._events.publish(f"session.{_VERBS[state]}", str(session), **data)
        for row in quarantined:
            self._events.publish("quarantine", row.pop("edge"), **row)


_STATES: Final = """
SELECT session, CASE WHEN z.session IS NOT NULL THEN 'sealed' WHEN e.session IS NOT NULL THEN 'ended' ELSE 'open' END
FROM sessions s LEFT JOIN session_ends e USING (session) LEFT JOIN sealed_sessions z USING (session)
"""
_STEPS: Final = ("open", "ended", "sealed")
_VERBS: Final = {"open": "opened", "ended": "ended", "sealed": "sealed"}


def _step(state: str | None) -> int:
    """How many steps a session has gone."""
    return 0 if state is None else _STEPS.index(state) + 1
