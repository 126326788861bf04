"""What an operator may do with a rollout; each is a pure function, and says why where it is not possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from embridge_cloud.rollouts.engine import OPEN, begin_roll_back, begin_wave, enter, next_wave
from embridge_cloud.rollouts.judge import RUNS
from embridge_cloud.rollouts.views import Action, Return
from embridge_shared.errors import OperatorError, Reason
from embridge_shared.fleet import Rollout, RolloutState

Moved = tuple[Rollout, tuple[Action, ...]]

replace = msgspec.structs.replace


def act(rollout: Rollout, verb: str, now_ns: int, *, reason: str = "", keep: bool = False) -> Moved:
    """Carry out one of `VERBS`.

    Args:
        rollout: It is done to.
        verb: As in "pause".
        now_ns: Unix time, ns.
        reason: Why; needed to pause and to abort.
        keep: With "abort": leave the release where it runs instead of recalling it.

    Raises:
        OperatorError: NOT_FOUND: no such verb; INVALID: no reason; LOCKED: not in this state.
    """
    if verb not in VERBS:
        raise OperatorError(f"{verb!r} is nothing to do with a rollout", reason=Reason.NOT_FOUND)
    states, work = VERBS[verb]
    if rollout.state not in states:
        wanted = " or ".join(sorted(str(s).replace("_", " ") for s in states))
        raise OperatorError(
            f"{rollout.id} is {str(rollout.state).replace('_', ' ')}: cannot {verb}",
            reason=Reason.LOCKED,
            hint=f"A rollout that is {wanted} can.",
        )
    if verb in ("pause", "abort") and not reason.strip():
        raise OperatorError(f"no reason to {verb}", hint="Say why; it goes into the history.")
    return work(rollout, now_ns, reason.strip(), keep)


def _approve(rollout: Rollout, now_ns: int, reason: str, keep: bool) -> Moved:
    return begin_wave(rollout, rollout.wave, now_ns)


def _advance(rollout: Rollout, now_ns: int, reason: str, keep: bool) -> Moved:
    moved, actions = next_wave(rollout, now_ns)
    if moved.state is RolloutState.WAITING:
        return begin_wave(moved, moved.wave, now_ns)
    return moved, actions


def _pause(rollout: Rollout, now_ns: int, reason: str, keep: bool) -> Moved:
    return enter(rollout, RolloutState.PAUSED, now_ns, reason=reason, before=rollout.state), ()


def _resume(rollout: Rollout, now_ns: int, reason: str, keep: bool) -> Moved:
    """Go on, knowing of the errors so far; a soak begins anew."""
    edges = tuple(replace(p, forgiven=True) if p.error and not p.forgiven else p for p in rollout.edges)
    state = RolloutState.WAITING if rollout.before is RolloutState.WAITING else RolloutState.RUNNING
    return enter(rollout, state, now_ns, reason="", edges=edges), ()


def _abort(rollout: Rollout, now_ns: int, reason: str, keep: bool) -> Moved:
    if not keep:
        return begin_roll_back(rollout, now_ns, reason)
    ended = enter(rollout, RolloutState.ABORTED, now_ns, reason=reason, ended_ns=now_ns)
    asked = [p.edge for p in rollout.edges if p.asked_ns and not p.left and p.phase not in RUNS]
    return ended, tuple(map(Return, asked))


VERBS: Final[dict[str, tuple[frozenset[RolloutState], Callable[[Rollout, int, str, bool], Moved]]]] = {
    "approve": (frozenset({RolloutState.WAITING}), _approve),
    "advance": (frozenset({RolloutState.RUNNING, RolloutState.SOAKING}), _advance),
    "pause": (frozenset({RolloutState.RUNNING, RolloutState.SOAKING, RolloutState.WAITING}), _pause),
    "resume": (frozenset({RolloutState.PAUSED}), _resume),
    "abort": (OPEN - {RolloutState.ROLLING_BACK}, _abort),
}
"""Verb → states of a rollout it is possible in, and what it does."""
