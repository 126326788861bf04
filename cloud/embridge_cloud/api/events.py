"""What happens, as it happens: one bus, bounded queues, and a short memory for those who come back."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from embridge_shared.clock import Clock

KINDS: Final = (
    "session.opened",
    "session.ended",
    "session.sealed",
    "edge.online",
    "edge.offline",
    "edge.release",
    "quarantine",
    "job",
    "job.progress",
    "release",
    "rollout",
    "edge.update",
    "lost",
)
"""Kinds of events; an extension may publish others."""

REMEMBERED: Final = 1024
QUEUED: Final = 256
KEEP_ALIVE_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Attributes:
        id: Where it stands, as in "18f2a-42"; a listener that comes back shows the last one it had.
        kind: One of `KINDS`, or an extension's.
        subject: To what: a session, an edge, a job, a release.
        wall_ns: Unix time, ns.
        data: What a listener may want without asking.
    """

    id: str
    kind: str
    subject: str
    wall_ns: int
    data: Mapping[str, Any]


class EventBus:
    """Hands events to everybody who listens. A listener that is too slow loses the oldest and is told how many.

    Args:
        clock: Dates events, and names this process's ones.
        remembered: Events kept for listeners that come back.
        queued: Events that wait for one listener.
    """

    def __init__(self, clock: Clock, *, remembered: int = REMEMBERED, queued: int = QUEUED) -> None:
        self._clock = clock
        self._epoch = f"{clock.wall_ns() // 1_000_000:x}"
        self._count = 0
        self._past: deque[Event] = deque(maxlen=remembered)
        self._queued = queued
        self._listeners: set[_Listener] = set()
        self._closed = False

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def publish(self, kind: str, subject: str, **data: Any) -> Event:
        """Tell everybody; called in the event loop's thread."""
        self._count += 1
        event = Event(f"{self._epoch}-{self._count}", kind, subject, self._clock.wall_ns(), data)
        self._past.append(event)
        for listener in self._listeners:
            listener.put(event)
        return event

    def close(self) -> None:
        """End every listener's stream: the process ends."""
        self._closed = True
        for listener in self._listeners:
            listener.wake()

    async def listen(self, last_id: str = "") -> AsyncGenerator[Event | None, None]:
        """Events from now on, or after `last_id` where they are still known; None every `KEEP_ALIVE_S` of silence.

        Args:
            last_id: Of the last event a listener had; one of another process, or too old, gives a "lost" event first.
        """
        with self._listening() as listener:
            for event in self._missed(last_id):
                yield event
            while not self._closed:
                heard = await listener.get()
                if not self._closed:
                    yield heard

    def _missed(self, last_id: str) -> list[Event]:
        if not last_id:
            return []
        epoch, _, number = last_id.partition("-")
        past = list(self._past)
        oldest = self._count - len(past)
        if epoch != self._epoch or not number.isdecimal() or not oldest <= int(number) <= self._count:
            return [self._lost(-1)]
        return past[int(number) - oldest :]

    def _lost(self, count: int) -> Event:
        data = {} if count < 0 else {"events": count}
        return Event(f"{self._epoch}-{self._count}", "lost", "", self._clock.wall_ns(), data)

    @contextmanager
    def _listening(self) -> Iterator[_Listener]:
        listener = _Listener(self)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)


class _Listener:
    def __init__(self, bus: EventBus) -> None:
        self._bus = bus
        self._waiting: deque[Event] = deque()
        self._lost = 0
        self._filled = asyncio.Event()

    def put(self, event: Event) -> None:
        if len(self._waiting) >= self._bus._queued:
            self._waiting.popleft()
            self._lost += 1
        self._waiting.append(event)
        self._filled.set()

    def wake(self) -> None:
        self._filled.set()

    async def get(self) -> Event | None:
        if self._lost:
            lost, self._lost = self._lost, 0
            return self._bus._lost(lost)
        if not self._waiting:
            self._filled.clear()
            try:
                async with asyncio.timeout(KEEP_ALIVE_S):
                    await self._filled.wait()
            except TimeoutError:
                return None
        return self._waiting.popleft() if self._waiting else None


def as_server_sent(event: Event | None) -> bytes:
    """An event in the form of server-sent events; None as a comment that keeps the connection open."""
    if event is None:
        return b": still here\n\n"
    body = msgspec.json.encode(
        {"kind": event.kind, "subject": event.subject, "wall_ns": event.wall_ns, "data": dict(event.data)}
    )
    # JSON has no bare line ends, and neither kinds nor ids come from outside.
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (event.id.encode(), event.kind.encode(), body)
