"""How the waves of a rollout stand: the counts its decisions and its tables are made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from embridge_shared.fleet import EdgeProgress, Rollout, RolloutPolicy, UpdatePhase, WaveTally


@dataclass(frozen=True, slots=True)
class Errors:
    """Errors of a rollout so far.

    Attributes:
        asked: Edges asked that take part.
        edges: Those that count as an error.
    """

    asked: int
    edges: tuple[EdgeProgress, ...]

    def stop(self, policy: RolloutPolicy) -> bool:
        """Whether they are too many."""
        count = len(self.edges)
        return count > policy.error_floor and count > policy.max_errors * self.asked


def errors(edges: Iterable[EdgeProgress]) -> Errors:
    """Count the errors; edges that left, and those somebody went on in spite of, count neither way."""
    asked = [p for p in edges if p.asked_ns and not p.left and not p.forgiven]
    return Errors(len(asked), tuple(p for p in asked if p.error))


def tally(rollout: Rollout) -> tuple[WaveTally, ...]:
    """The waves, in their order."""
    waves: list[list[EdgeProgress]] = [[] for _ in rollout.policy.waves]
    for progress in rollout.edges:
        if not progress.left:
            waves[progress.wave].append(progress)
    return tuple(_tally(wave.name, edges) for wave, edges in zip(rollout.policy.waves, waves, strict=True))


def _tally(name: str, edges: list[EdgeProgress]) -> WaveTally:
    asked = [p for p in edges if p.asked_ns]
    committed = [p for p in asked if p.phase is UpdatePhase.COMMITTED]
    return WaveTally(
        name=name,
        edges=len(edges),
        asked=len(asked),
        committed=len(committed),
        errors=sum(1 for p in asked if p.error),
        offline=sum(1 for p in asked if not p.online_ns and p.phase is not UpdatePhase.COMMITTED),
        waits=sum(1 for p in asked if p.phase is UpdatePhase.WAITING),
    )


def succeeded(rollout: Rollout, number: int, now_ns: int) -> bool:
    """Whether enough of a wave keeps the release.

    An edge that is not connected is waited for as long as an answer is; after that the wave goes on without it, but
    never with nobody at all, unless it is the last.
    """
    policy = rollout.policy
    wave = [p for p in rollout.edges if p.wave == number and not p.left and not p.forgiven]
    patient_ns = now_ns - policy.patience_s * 1e9
    counted = [p for p in wave if p.phase is UpdatePhase.COMMITTED or p.online_ns or p.asked_ns >= patient_ns]
    committed = sum(1 for p in counted if p.phase is UpdatePhase.COMMITTED and not p.error)
    if not wave or (not counted and number == len(policy.waves) - 1):
        return True
    return committed > 0 and committed >= policy.success * len(counted) - 1e-9
