"""Runs rollouts: hears edges, asks the engine, and has carried out what it decides.

A round takes in every state that came since the last one, so its cost is one pass over a rollout's edges whatever their
number of messages.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from embridge_cloud.rollouts import orders, verbs
from embridge_cloud.rollouts.carrier import Carrier, Kept, Outlet
from embridge_cloud.rollouts.engine import OPEN, begin_roll_back, step
from embridge_cloud.rollouts.orders import Releases
from embridge_cloud.rollouts.roster import Shadow
from embridge_cloud.rollouts.shelf import number
from embridge_cloud.rollouts.starting import Start, begin, check_free, plan
from embridge_cloud.rollouts.views import EdgeView
from embridge_cloud.waiting import first_of
from embridge_shared.clock import Clock
from embridge_shared.errors import EmbridgeError
from embridge_shared.fleet import EdgeProgress, Rollout, RolloutPolicy, RolloutRequest, RolloutState, UpdatePhase
from embridge_shared.manifest import Published
from embridge_shared.wire.messages import EdgeState

logger = logging.getLogger(__name__)

TICK_S: Final = 1.0
_REST: Final = 4.0  # a round is followed by a pause of so many times its length
_TOLD: Final = 64  # edges told of one by one after a round

replace = msgspec.structs.replace


class Rollouts:
    """All rollouts of a cloud process.

    Args:
        kept: What is on disk.
        outlet: The way out.
        clock: Time.
        url: Base URL of the update repository, as edges reach it.

    Attributes:
        shelf: The rollouts.
        roster: The edges.
        failures: Rounds that could not be completed; each is tried again.
    """

    def __init__(self, kept: Kept, outlet: Outlet, clock: Clock, *, url: str) -> None:
        self.shelf, self.roster, self._registry = kept.shelf, kept.roster, kept.registry
        self._carrier = Carrier(kept, outlet, url=url)
        self._outlet = outlet
        self._clock = clock
        self.failures = 0
        self._turn = asyncio.Lock()
        self._woken = asyncio.Event()
        self._dirty: set[str] = set()
        self._connection = 0
        self._listening_ns = 0

    def hear(self, states: Mapping[str, tuple[EdgeState, int]]) -> None:
        """Take in states that are in the store, by edge, each with when it came (Unix time, ns)."""
        moved = [now for before, now in self.roster.hear(states) if _phase(before) != _phase(now)]
        for shadow in moved[:_TOLD]:
            assert shadow.reported is not None
            update = shadow.reported.update
            self._outlet.event(
                "edge.update",
                shadow.desired.edge,
                phase=update.phase.value,
                release=update.release,
                rollout=update.rollout,
                detail=update.detail,
            )
        if len(moved) > _TOLD:
            self._outlet.event("edge.update", "", edges=len(moved) - _TOLD)
        self._dirty.update(states)
        self._woken.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Go on with rollouts until `stopping` is set."""
        while not stopping.is_set():
            began_ns = self._clock.monotonic_ns()
            await self.round()
            took_s = (self._clock.monotonic_ns() - began_ns) * 1e-9
            await first_of(self._clock.sleep(_REST * took_s), stopping.wait())
            await first_of(self._woken.wait(), self._clock.sleep(TICK_S), stopping.wait())

    async def round(self) -> None:
        """Take in what was heard, let every rollout go on, and tell the edges; what fails is done in the next one."""
        async with self._turn:
            self._woken.clear()
            dirty, self._dirty = self._dirty, set()
            try:
                await self._round(dirty)
            except (EmbridgeError, OSError) as error:
                self.failures += 1
                self._dirty |= dirty
                logger.error("rollouts do not go on: %s", error)

    async def start(self, request: RolloutRequest, policy: RolloutPolicy, by: str) -> Rollout:
        """Start a rollout, or say what it would be.

        Args:
            request: What is wished.
            policy: How, where the request does not say.
            by: Who asks.

        Raises:
            OperatorError: As `plan` and `check_free`.
        """
        async with self._turn:
            start = Start(self.shelf.next_id(), by, self._clock.wall_ns())
            releases = await self._carrier.releases()
            rollout = plan(request, policy, start, roster=self.roster, releases=releases)
            check_free(rollout, self.shelf.open())
            if request.dry_run:
                return replace(rollout, id="")
            rollout, actions = begin(rollout, start)
            await self._carrier.carry_out(None, rollout, actions, releases)
        await self.round()
        return self.shelf.get(rollout.id)

    async def act(self, name: str, verb: str, *, reason: str, keep: bool = False) -> Rollout:
        """Do with a rollout what an operator says; see `verbs.act`."""
        async with self._turn:
            rollout = self.shelf.get(name)
            moved, actions = verbs.act(rollout, verb, self._clock.wall_ns(), reason=reason, keep=keep)
            await self._carrier.carry_out(rollout, moved, actions, await self._carrier.releases())
        await self.round()
        return self.shelf.get(name)

    async def recall(self, name: str, why: str) -> Published:
        """Recall a release: every edge that was asked to run it, by whatever rollout or pin, is returned.

        Raises:
            OperatorError: NOT_FOUND.
        """
        async with self._turn:
            published = await asyncio.to_thread(self._registry.recall, name, why)
            await self._take_back(await self._carrier.releases())
        await self.round()
        return published

    async def decide(self, edge: str, *, cohort: str | None = None, pinned: str | None = None, why: str = "") -> Shadow:
        """Change an edge's cohort, or pin it to a release; an empty string takes either away.

        Args:
            edge: Its name.
            cohort: None leaves it as it is.
            pinned: None leaves it as it is.
            why: Of the pin, and by whom.

        Raises:
            OperatorError: NOT_FOUND; RECALLED.
        """
        async with self._turn:
            shadow, releases = self.roster.get(edge), await self._carrier.releases()
            record = shadow.desired
            if cohort is not None:
                record = replace(record, cohort=cohort)
            if pinned:
                name = releases.need(pinned).name
                record = replace(record, pinned=name, pinned_why=why, release=name, rollout="")
                self._carrier.unsent.add(edge)
            elif pinned is not None:
                record = replace(record, pinned="", pinned_why="", rollout="" if record.pinned else record.rollout)
            self.roster.decide(record)
            await self._carrier.save_roster()
            self._dirty.add(edge)
        await self.round()
        return self.roster.get(edge)

    async def recover(self, states: Mapping[str, tuple[EdgeState, int]]) -> None:
        """Take up what an earlier process left, whatever it was about to do.

        Args:
            states: The last state of every edge that the store holds.
        """
        async with self._turn:
            self.roster.hear(states)
            self._dirty.update(states)
            releases = await self._carrier.releases()
            for rollout in self.shelf.all():
                for progress in rollout.edges:
                    self._reconcile(rollout, progress, releases)
            await self._carrier.save_roster()
            await self._take_back(releases)

    def _reconcile(self, rollout: Rollout, progress: EdgeProgress, releases: Releases) -> None:
        if not progress.asked_ns or progress.left or progress.edge not in self.roster:
            return
        record = self.roster.get(progress.edge).desired
        earlier = number(record.rollout) < number(rollout.id) and not record.pinned and rollout.state in OPEN
        if record.rollout == rollout.id or earlier:
            release = orders.target(rollout, progress, releases)
            self.roster.decide(replace(record, release=release, rollout=rollout.id))

    async def _round(self, dirty: set[str]) -> None:
        connection = self._outlet.connection
        if not connection:
            self._dirty |= dirty
            return
        if connection != self._connection:
            # A broker may have lost what it kept; and nobody could be heard before.
            self._connection, self._listening_ns = connection, self._clock.wall_ns()
            told = (s.desired for s in self.roster.all())
            self._carrier.unsent.update(record.edge for record in told if record.release or record.rollout)
        rollouts = self._concerned(dirty)
        if not rollouts and not self._carrier.unsent:
            return
        releases = await self._carrier.releases()
        for name in rollouts:
            rollout = self.shelf.get(name)
            views = self._views(rollout, dirty, releases)
            moved, actions = step(rollout, self._clock.wall_ns(), views, listening_ns=self._listening_ns)
            if moved is not rollout or actions:
                await self._carrier.carry_out(rollout, moved, actions, releases)
        await self._carrier.flush(await self._carrier.releases())

    def _concerned(self, dirty: Iterable[str]) -> list[str]:
        """Rollouts that may go on: those that are not over, those that asked an edge that was heard of, and the latest
        that an edge nobody asked so far would have been in.
        """
        found = {r.id for r in self.shelf.open()}
        for edge in dirty:
            record = self.roster.get(edge).desired
            if record.rollout:
                found.add(record.rollout)
            elif not record.pinned and (latest := self._latest(record.cohort)):
                found.add(latest)
        return sorted((name for name in found if name in self.shelf), key=number)

    def _latest(self, cohort: str) -> str:
        done = [
            r.id for r in self.shelf.all() if r.state is RolloutState.DONE and not r.closed and r.cohort in ("", cohort)
        ]
        return done[-1] if done else ""

    def _views(self, rollout: Rollout, dirty: Iterable[str], releases: Releases) -> dict[str, EdgeView]:
        asked = {p.edge for p in rollout.edges if p.asked_ns}
        over, views = rollout.state not in OPEN, {}
        for edge in dirty:
            shadow = self.roster.get(edge)
            owner = shadow.desired.rollout
            joins = not owner and rollout.id == self._latest(shadow.desired.cohort) and releases.usable(rollout.release)
            if over and owner != rollout.id and not joins:
                continue
            why = orders.barred(shadow, rollout, releases, asked=edge in asked)
            views[edge] = orders.view_of(shadow, barred=why)
        return views

    async def _take_back(self, releases: Releases) -> None:
        """Return every edge that is asked to run what is recalled."""
        asked_of: dict[str, set[str]] = {}
        for shadow in self.roster.all():
            record = shadow.desired
            if record.release in releases.known and not releases.usable(record.release):
                if record.rollout in self.shelf:
                    asked_of.setdefault(record.rollout, set()).add(record.edge)
                else:
                    await self._unpin(shadow, releases)
        under_way = {r.id for r in self.shelf.open() if r.release in releases.known and not releases.usable(r.release)}
        for name in sorted(under_way | set(asked_of), key=number):
            rollout = self.shelf.get(name)
            if rollout.state in (RolloutState.ROLLING_BACK, RolloutState.ABORTED):
                continue
            edges = tuple(self._with_owner(rollout, p) for p in rollout.edges)
            why = releases.known[rollout.release].recalled
            moved, actions = begin_roll_back(replace(rollout, edges=edges), self._clock.wall_ns(), why)
            await self._carrier.carry_out(rollout, moved, actions, releases)

    def _with_owner(self, rollout: Rollout, progress: EdgeProgress) -> EdgeProgress:
        record = self.roster.get(progress.edge).desired
        if not progress.asked_ns or progress.left or record.rollout == rollout.id:
            return progress
        return replace(progress, left=f"pinned to {record.pinned}" if record.pinned else f"asked by {record.rollout}")

    async def _unpin(self, shadow: Shadow, releases: Releases) -> None:
        """A pin to what is recalled cannot be kept."""
        record = shadow.desired
        line = releases.known[record.release].line
        instead = releases.champion(line) or record.release
        self.roster.decide(replace(record, pinned="", pinned_why="", release=instead))
        await self._carrier.save_roster()
        self._carrier.unsent.add(record.edge)
        detail = {"pinned": record.pinned, "instead": instead, "reason": "recalled"}
        await self._outlet.history("fleet.unpin", f"fleet:{record.edge}", detail)


def _phase(shadow: Shadow | None) -> tuple[UpdatePhase, str] | None:
    if shadow is None or shadow.reported is None:
        return None
    return shadow.reported.update.phase, shadow.reported.update.release
