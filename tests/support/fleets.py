"""Scripted edges for tests of rollouts: what each does with a release it is asked to run, and what it says of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from embridge_cloud.rollouts.views import EdgeView
from embridge_cloud.rollouts.waves import assign
from embridge_shared.fleet import EdgeProgress, ReleaseHealth, Rollout, RolloutPolicy, UpdatePhase, UpdateState, Wave
from embridge_shared.manifest import Published
from embridge_shared.wire.messages import Desired, EdgeState, unpack

replace = msgspec.structs.replace

S = 1_000_000_000
T0 = 1_700_000_000 * S
OLD, NEW = "m-1", "m-2"

GOOD = (UpdatePhase.DOWNLOADING, UpdatePhase.TESTING, UpdatePhase.SHADOW, UpdatePhase.PROBATION, UpdatePhase.COMMITTED)


def published(version: int, *, recalled: str = "", line: str = "m") -> Published:
    name = f"{line}-{version}"
    return Published(
        name=name, line=line, version=version, digest=digest(name), size=10, min_agent="0.1.0", preprocess="p",
        recalled=recalled,
    )  # fmt: skip


def digest(release: str) -> str:
    return f"sha-{release}" if release else ""


def policy(*shares: float, soak_s: float = 10.0, **changes: object) -> RolloutPolicy:
    waves = tuple(Wave(name=f"w{n}", share=s, soak_s=soak_s) for n, s in enumerate(shares or (0.25, 1.0)))
    return replace(RolloutPolicy(waves=waves, patience_s=100.0), **changes)


def rollout_of(count: int, how: RolloutPolicy, waves: dict[str, int] | None = None) -> Rollout:
    """A rollout of `NEW` that has begun, over edges "e0"… that run `OLD` and are online."""
    wave_of = waves or assign([f"e{n}" for n in range(count)], how.waves)
    edges = tuple(EdgeProgress(edge=e, wave=w, from_release=OLD, online_ns=T0) for e, w in wave_of.items())
    return Rollout(id="r-0001", release=NEW, digest=digest(NEW), policy=how, since_ns=T0, started_ns=T0, edges=edges)


def says(
    edge: str,
    phase: UpdatePhase,
    *,
    at: int = T0,
    attempts: int = 1,
    health: ReleaseHealth | None = None,
    why: str = "",
) -> EdgeView:
    """An edge's word on `NEW`, of the first rollout."""
    runs = phase in (UpdatePhase.PROBATION, UpdatePhase.COMMITTED)
    release = NEW if runs else OLD
    update = UpdateState(phase=phase, release=NEW, rollout="r-0001", attempts=attempts, detail=why)
    return EdgeView(
        edge=edge, online=True, release=release, digest=digest(release), update=update, health=health, heard_ns=at
    )


def gone(edge: str, at: int = T0) -> EdgeView:
    return EdgeView(edge=edge, online=False, heard_ns=at)


def health(**changes: object) -> ReleaseHealth:
    return replace(ReleaseHealth(release=NEW, windows=1000, latency_p99_ms=20.0, confidence=0.9), **changes)


@dataclass
class ScriptedEdge:
    """An edge that does what it is told over as many words as a release takes, or what its fate says.

    Args:
        name: Its name.
        fate: "good", "refuses", "crashes" (goes back in probation), "sick" (bad health once it runs), "deaf".
    """

    name: str
    fate: str = "good"
    online: bool = True
    release: str = OLD
    update: UpdateState = field(default_factory=UpdateState)
    health: ReleaseHealth | None = None
    todo: list[UpdatePhase] = field(default_factory=list)
    heard: list[Desired] = field(default_factory=list)
    before: str = ""

    def told(self, payload: bytes, recalled: set[str]) -> None:
        """A retained message; `recalled` is what the registry's metadata says."""
        if not payload:
            return
        desired = unpack(payload, Desired)
        self.heard.append(desired)
        if self.release in recalled and desired.release != self.release:
            phase = UpdatePhase.ROLLED_BACK
            self.update = replace(self.update, phase=phase, release=self.release, detail="recalled")
            self.release, self.todo, self.health = desired.release, [], None
        elif desired.release == self.release or desired.release in recalled or self.fate == "deaf":
            if desired.release != self.update.release:
                self.todo, self.update = [], UpdateState(release=desired.release, rollout=desired.rollout)
        elif desired.release != self.update.release or desired.rollout != self.update.rollout:
            self.update = UpdateState(release=desired.release, rollout=desired.rollout, digest=desired.digest)
            self.todo = list(GOOD)

    def work(self) -> bool:
        """One step; whether it has something new to say."""
        if not self.todo or not self.online:
            return False
        phase = self.todo.pop(0)
        if self.fate == "refuses" and phase is UpdatePhase.TESTING:
            phase, self.todo = UpdatePhase.REFUSED, []
        if phase is UpdatePhase.PROBATION:
            self.before, self.release = self.release, self.update.release
            if self.fate == "sick":
                self.health = ReleaseHealth(release=self.release, windows=500, latency_p99_ms=900.0)
        if self.fate == "crashes" and phase is UpdatePhase.COMMITTED:
            phase, self.release = UpdatePhase.ROLLED_BACK, self.before
        self.update = replace(self.update, phase=phase, detail="so it went" if not self.todo else "")
        return True

    def state(self) -> EdgeState:
        return EdgeState(
            edge=self.name,
            online=self.online,
            release=self.release,
            digest=digest(self.release),
            update=self.update,
            health=self.health,
        )
