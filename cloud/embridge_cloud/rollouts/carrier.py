"""Carries out what the engine decides, and only after it is kept.

The order: the recall, if there is one; the history; the rollout's file; what was decided about edges; the retained
messages; events. After a crash anywhere in it the next process finds a state from which the same is done again, and
every part of it may be done twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from embridge_cloud.rollouts import orders
from embridge_cloud.rollouts.orders import Releases
from embridge_cloud.rollouts.roster import Roster, Shadow
from embridge_cloud.rollouts.shelf import Shelf
from embridge_cloud.rollouts.tally import tally
from embridge_cloud.rollouts.views import Action, Ask, Note, Recall, Return
from embridge_shared.archive import write_atomically
from embridge_shared.errors import NetworkError
from embridge_shared.fleet import Rollout
from embridge_shared.manifest import Published

logger = logging.getLogger(__name__)

replace = msgspec.structs.replace


class ReleaseShelf(Protocol):
    """What is published, and what takes it back."""

    def releases(self) -> tuple[Published, ...]:
        """Every release."""
        ...

    def recall(self, name: str, why: str) -> Published:
        """Sign that a release is recalled."""
        ...


class Outlet(Protocol):
    """The way to the edges, and to everybody who wants to know."""

    @property
    def connection(self) -> int:
        """Number of the connection to the broker; 0 while there is none."""
        ...

    async def publish_all(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish retained messages; raises NetworkError."""
        ...

    def event(self, kind: str, subject: str, **data: Any) -> None:
        """Tell everybody who listens."""
        ...

    async def history(self, action: str, subject: str, detail: Mapping[str, str | int | float]) -> None:
        """Put something into the history that cannot be rewritten."""
        ...


@dataclass(frozen=True, slots=True)
class Kept:
    """What rollouts keep on disk.

    Attributes:
        shelf: The rollouts.
        roster: The edges.
        registry: The releases.
    """

    shelf: Shelf
    roster: Roster
    registry: ReleaseShelf


class Carrier:
    """Keeps and tells.

    Args:
        kept: What is on disk.
        outlet: The way out.
        url: Base URL of the update repository, as edges reach it.

    Attributes:
        unsent: Edges that have not been told what was decided.
    """

    def __init__(self, kept: Kept, outlet: Outlet, *, url: str) -> None:
        self._kept = kept
        self._outlet = outlet
        self._url = url
        self.unsent: set[str] = set()

    async def carry_out(
        self, before: Rollout | None, now: Rollout, actions: Sequence[Action], releases: Releases
    ) -> None:
        """Keep what the engine decided, then do what it asks for; see the module's order.

        Args:
            before: The rollout as it was; None for a new one.
            now: As it is.
            actions: What to do.
            releases: What is published.
        """
        for action in actions:
            if isinstance(action, Recall) and releases.usable(now.release):
                await asyncio.to_thread(self._kept.registry.recall, now.release, action.why)
                releases = await self.releases()
        for action in actions:
            if isinstance(action, Note):
                await self._outlet.history(action.action, f"rollout:{now.id}", action.detail)
        await asyncio.to_thread(self._kept.shelf.write, now)
        self._kept.shelf.put(now)
        asked = {action.edge for action in actions if isinstance(action, Ask | Return)}
        if asked:
            for progress in now.edges:
                if progress.edge in asked:
                    record = self._kept.roster.get(progress.edge).desired
                    release = orders.target(now, progress, releases)
                    self._kept.roster.decide(replace(record, release=release, rollout=now.id))
            await self.save_roster()
            self.unsent |= asked
        self._tell(before, now)

    async def flush(self, releases: Releases) -> None:
        """Tell the edges what was decided; what the broker does not take is told again."""
        if not self.unsent:
            return
        edges = sorted(self.unsent)
        messages = [self._message(self._kept.roster.get(edge), releases) for edge in edges]
        try:
            await self._outlet.publish_all(messages)
        except NetworkError as error:
            logger.warning("%d edges are not told yet: %s", len(edges), error)
            return
        self.unsent.difference_update(edges)
        logger.info("told %d edges what to run", len(edges))

    def _message(self, shadow: Shadow, releases: Releases) -> tuple[str, bytes]:
        record = shadow.desired
        rollout = self._kept.shelf.get(record.rollout) if record.rollout in self._kept.shelf else None
        trial = rollout.policy.trial if rollout is not None and rollout.release == record.release else None
        return orders.message(shadow, releases, url=self._url, trial=trial)

    def _tell(self, before: Rollout | None, now: Rollout) -> None:
        counts = tally(now)
        if before is not None and (before.state, before.wave, tally(before)) == (now.state, now.wave, counts):
            return
        self._outlet.event(
            "rollout",
            now.id,
            release=now.release,
            state=now.state.value,
            wave=now.wave,
            asked=sum(w.asked for w in counts),
            committed=sum(w.committed for w in counts),
            errors=sum(w.errors for w in counts),
            reason=now.reason,
        )

    async def releases(self) -> Releases:
        """What is published now."""
        found = await asyncio.to_thread(self._kept.registry.releases)
        return Releases({p.name: p for p in found})

    async def save_roster(self) -> None:
        """Put what was decided about edges on disk."""
        await asyncio.to_thread(write_atomically, self._kept.roster.path, self._kept.roster.encode())
