"""A rehearsal: many edges take a release from a real cloud, some of them in trouble, and what became of it."""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from embridge_edge.fleet.pace import ScaledClock
from embridge_edge.fleet.troubles import Trouble, assign, malicious_mirror
from embridge_edge.fleet.updating import Means, UpdatingEdge
from embridge_edge.uplink import LinkState
from embridge_shared.cloud_client import CloudApi
from embridge_shared.errors import NetworkError, OperatorError, Reason
from embridge_shared.fleet import Rollout, RolloutPolicy, RolloutRequest, RolloutState, Trial, UpdatePhase, Wave
from embridge_shared.settings import Settings

logger = logging.getLogger(__name__)

_BURST: Final = 50
_BURST_S: Final = 0.05
_LOOK_S: Final = 0.25
_SPARE_FILES: Final = 512
_OVER: Final = frozenset({RolloutState.DONE, RolloutState.ABORTED, RolloutState.PAUSED})
_AT_ONCE: Final = RolloutPolicy(
    waves=(Wave(name="all", share=1.0, soak_s=0.0),), max_errors=1.0, trial=Trial(probation_s=0.0), on_error="pause"
)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What is rehearsed.

    Attributes:
        release: The release.
        policy: How it is rolled out.
        before: The release that all run first; empty for whatever they have.
        troubles: Shares of the edges with each trouble.
        patience_s: Until it must be over, s.
        seed: Of who has which trouble.
    """

    release: str
    policy: RolloutPolicy
    before: str = ""
    troubles: Mapping[Trouble, float] = field(default_factory=dict)
    patience_s: float = 600.0
    seed: int = 0


class WaveFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How a wave went: edges of it, asked, committed, errors."""

    name: str
    edges: int
    asked: int
    committed: int
    errors: int


class Rehearsed(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a rehearsal.

    Attributes:
        edges: Edges.
        release: The release.
        rollout: Id of the rollout.
        state: How it ended.
        reason: Why, where it did not end well.
        waves: How each went.
        ran: Edges on which the release ever ran.
        back: Of these, edges that run another one now.
        phases: Edges by what they last said.
        troubles: For each trouble, edges by what they last said.
        crashes: Simulated crashes.
        faults: Edges that ended with an error nobody simulated.
        wall_s: From the request to its end, s.
        virtual_s: The same by the edges' clock, s.
        said: Messages of an edge to the broker, mean.
        said_bytes: Their payloads, mean of an edge.
        heard: Messages to an edge, mean.
        heard_bytes: Their payloads, mean of an edge.
        http_bytes: Bodies an edge fetched, mean.
        cpu_s: Processor time of this process.
        memory_mb: Largest memory of this process, MB.
    """

    edges: int
    release: str
    rollout: str
    state: str
    reason: str
    waves: tuple[WaveFigures, ...]
    ran: int
    back: int
    phases: dict[str, int]
    troubles: dict[str, dict[str, int]]
    crashes: int
    faults: tuple[str, ...]
    wall_s: float
    virtual_s: float
    said: float
    said_bytes: float
    heard: float
    heard_bytes: float
    http_bytes: float
    cpu_s: float
    memory_mb: float

    @property
    def settled(self) -> bool:
        """It ended, and no edge is left in between."""
        over = self.state in (RolloutState.DONE, RolloutState.ABORTED)
        return over and not self.faults and (self.state == RolloutState.DONE or self.ran == self.back)


async def rehearse(settings: Sequence[Settings], cloud: CloudApi, asked: Rehearsal, *, speed: float = 1.0) -> Rehearsed:
    """Let edges take a release from a cloud.

    Args:
        settings: Of each edge: broker, name, state directory, root of trust.
        cloud: Where rollouts are asked for; its process may be restarted meanwhile.
        asked: What is rehearsed.
        speed: Seconds of the edges' clock a second.

    Raises:
        OperatorError: The cloud does not know the release; the edges have no root of trust.
        NetworkError: TIMEOUT: the edges did not connect, or it was not over in time.
    """
    room_for(len(settings))
    clock = ScaledClock(speed)
    root = settings[0].edge.update_root
    if root is None:
        raise OperatorError(
            "edges need the root of the registry.",
            reason=Reason.NOT_FOUND,
            hint="Set edge.update_root to metadata/1.root.json of the cloud's registry.",
        )
    means = Means(root.read_bytes(), clock, asked.release)
    troubles = assign([s.edge.name for s in settings], asked.troubles, asked.seed)
    edges = [UpdatingEdge(s, means, troubles.get(s.edge.name), seed=i) for i, s in enumerate(settings)]
    conductor = _Conductor(edges, cloud, asked)
    with malicious_mirror(conductor.repository) as mirror:
        means.mirror = mirror
        try:
            await conductor.gather()
            if asked.before:
                await conductor.roll_out(asked.before, _AT_ONCE)
            means.traffic = type(means.traffic)()
            began_s, virtual_ns, cpu_s = time.monotonic(), clock.monotonic_ns(), _cpu_s()
            found = await conductor.roll_out(asked.release, asked.policy)
            wall_s = time.monotonic() - began_s
            await conductor.settle()
        finally:
            await asyncio.gather(*(edge.stop() for edge in edges))
            means.close()
    return _told(edges, found, means, wall_s, (clock.monotonic_ns() - virtual_ns) * 1e-9, _cpu_s() - cpu_s)


class _Conductor:
    """Drives a rehearsal through the cloud's interface."""

    def __init__(self, edges: Sequence[UpdatingEdge], cloud: CloudApi, asked: Rehearsal) -> None:
        self._edges, self._cloud, self._asked = edges, cloud, asked
        self._ends_s = time.monotonic() + asked.patience_s
        self.repository = f"{cloud.address}/updates"

    async def gather(self) -> None:
        """Let all edges connect, a few at a time."""
        for i, edge in enumerate(self._edges):
            edge.start()
            if i % _BURST == _BURST - 1:
                await asyncio.sleep(_BURST_S)
        names = {edge.name for edge in self._edges}
        while True:
            known = await self._ask("/api/fleet")
            missing = names - {row["edge"] for row in known or ()}
            if not missing:
                return
            await self._pause(f"{len(missing)} of {len(names)} edges are not known to the cloud")

    async def roll_out(self, release: str, policy: RolloutPolicy) -> Rollout:
        """Roll a release out to these edges, to its end."""
        names = tuple(edge.name for edge in self._edges)
        wish = msgspec.json.encode(RolloutRequest(release=release, policy=policy, edges=names))
        begun = await asyncio.to_thread(self._cloud.post, "/api/rollouts", wish)
        while True:
            # The list is light; the edges are asked for once.
            state = await self._ask(f"/api/rollouts/{begun['id']}")
            if state is not None and RolloutState(state["state"]) in _OVER:
                return msgspec.convert(state, Rollout, strict=False)
            await self._pause(f"rollout {begun['id']} is not over")

    async def settle(self) -> None:
        """Wait until no edge is on its way."""
        calm = {
            UpdatePhase.IDLE,
            UpdatePhase.COMMITTED,
            UpdatePhase.ROLLED_BACK,
            UpdatePhase.REFUSED,
            UpdatePhase.FAILED,
        }
        for _ in range(40):
            if all(edge.keeper.progress.phase in calm for edge in self._edges):
                return
            await asyncio.sleep(_LOOK_S)

    async def _ask(self, path: str) -> Any:
        """An answer, or None while the cloud is away."""
        try:
            return await asyncio.to_thread(self._cloud.get, path)
        except NetworkError as error:
            logger.debug("%s", error)
            return None

    async def _pause(self, waits_for: str) -> None:
        if time.monotonic() > self._ends_s:
            online = sum(edge.link is LinkState.ONLINE for edge in self._edges)
            raise NetworkError(
                f"{waits_for} after {self._asked.patience_s:.0f} s; {online} edges are connected",
                reason=Reason.TIMEOUT,
                hint="Look at the logs of cloud and broker, or give --patience.",
            )
        await asyncio.sleep(max(_LOOK_S, len(self._edges) / 4000))


def _told(
    edges: Sequence[UpdatingEdge], rollout: Rollout, means: Means, wall_s: float, virtual_s: float, cpu_s: float
) -> Rehearsed:
    release, traffic, n = rollout.release, means.traffic, len(edges)
    ran = [edge for edge in edges if release in edge.ran]
    by_trouble: dict[str, Counter[str]] = {}
    for edge in edges:
        if edge.trouble is not None:
            by_trouble.setdefault(edge.trouble, Counter())[edge.keeper.progress.phase] += 1
    return Rehearsed(
        edges=n,
        release=release,
        rollout=rollout.id,
        state=rollout.state.value,
        reason=rollout.reason,
        waves=tuple(
            WaveFigures(name=w.name, edges=w.edges, asked=w.asked, committed=w.committed, errors=w.errors)
            for w in rollout.tally
        ),
        ran=len(ran),
        back=sum(edge.running != release for edge in ran),
        phases=dict(Counter(edge.keeper.progress.phase.value for edge in edges)),
        troubles={name: dict(found) for name, found in by_trouble.items()},
        crashes=sum(edge.crashes for edge in edges),
        faults=tuple(f"{edge.name}: {edge.fault}" for edge in edges if edge.fault)[:10],
        wall_s=round(wall_s, 2),
        virtual_s=round(virtual_s, 1),
        said=round(traffic.said / n, 2),
        said_bytes=round(traffic.said_bytes / n, 1),
        heard=round(traffic.heard / n, 2),
        heard_bytes=round(traffic.heard_bytes / n, 1),
        http_bytes=round(traffic.http_bytes / n, 1),
        cpu_s=round(cpu_s, 2),
        memory_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    )


def room_for(edges: int) -> None:
    """Let this process hold a connection an edge.

    Raises:
        OperatorError: The system does not allow so many.
    """
    wanted = 2 * edges + _SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise OperatorError(
            f"{edges} edges need {wanted} open files, {hard} are allowed", hint="Raise `ulimit -Hn`, or take fewer."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def settings_in(base: Settings, names: Sequence[str], folder: Path) -> list[Settings]:
    """Settings of edges that keep their state under a folder."""
    return [
        base.model_copy(update={"edge": base.edge.model_copy(update={"name": name, "state_dir": folder / name})})
        for name in names
    ]


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
