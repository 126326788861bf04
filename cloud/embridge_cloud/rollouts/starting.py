"""The beginning of a rollout: whom it concerns, in which order, and whether it may begin at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from embridge_cloud.rollouts import judge
from embridge_cloud.rollouts.engine import begin_wave, enter
from embridge_cloud.rollouts.orders import Releases, barred, view_of
from embridge_cloud.rollouts.roster import Roster, Shadow, unknown
from embridge_cloud.rollouts.views import Action, Note
from embridge_cloud.rollouts.waves import assign
from embridge_shared.errors import OperatorError, Reason
from embridge_shared.fleet import EdgeProgress, Rollout, RolloutPolicy, RolloutRequest, RolloutState

replace = msgspec.structs.replace


@dataclass(frozen=True, slots=True)
class Start:
    """Who starts a rollout, and when.

    Attributes:
        id: Of the rollout.
        by: Who asked for it.
        now_ns: Unix time, ns.
    """

    id: str
    by: str
    now_ns: int


def plan(
    request: RolloutRequest, policy: RolloutPolicy, start: Start, *, roster: Roster, releases: Releases
) -> Rollout:
    """The rollout that a request means.

    Args:
        request: What is wished.
        policy: How.
        start: Who and when.
        roster: The edges.
        releases: What is published.

    Raises:
        OperatorError: NOT_FOUND: no such release or edge, or nobody to take it; RECALLED; INVALID: an edge that was
            named may take no part.
    """
    published = releases.need(request.release)
    if missing := [edge for edge in request.edges if edge not in roster]:
        raise unknown(missing)
    shadows = [roster.get(edge) for edge in dict.fromkeys(request.edges)] or roster.all()
    blank = Rollout(
        id=start.id,
        release=published.name,
        digest=published.digest,
        policy=request.policy or policy,
        cohort=request.cohort,
        started_ns=start.now_ns,
        started_by=start.by,
        closed=bool(request.edges),
    )
    edges = _members(blank, shadows, releases)
    first = blank.policy.waves[0]
    state = RolloutState.WAITING if first.approve else RolloutState.RUNNING
    return enter(blank, state, start.now_ns, edges=edges)


def begin(rollout: Rollout, start: Start) -> tuple[Rollout, tuple[Action, ...]]:
    """The first wave, unless somebody must approve it, and what the history says of it."""
    concerned = sum(1 for p in rollout.edges if not p.left)
    note = Note("rollout.begin", {"release": rollout.release, "by": start.by, "edges": concerned})
    if rollout.state is RolloutState.WAITING:
        return rollout, (note,)
    begun, actions = begin_wave(rollout, 0, start.now_ns)
    return begun, (note, *actions)


def check_free(rollout: Rollout, others: Sequence[Rollout]) -> None:
    """See to it that no edge is in two rollouts at once.

    Args:
        rollout: One that would begin.
        others: Those under way.

    Raises:
        OperatorError: LOCKED.
    """
    mine = {p.edge for p in rollout.edges if not p.left}
    for other in others:
        theirs = {p.edge for p in other.edges if not p.left}
        both_grow = not rollout.closed and not other.closed
        same = both_grow and (rollout.cohort == other.cohort or not rollout.cohort or not other.cohort)
        if same or mine & theirs:
            raise OperatorError(
                f"{other.id}, {other.release}, is {str(other.state).replace('_', ' ')} on these edges",
                reason=Reason.LOCKED,
                hint="Wait for its end, or abort it.",
            )


def _members(rollout: Rollout, shadows: Sequence[Shadow], releases: Releases) -> tuple[EdgeProgress, ...]:
    why = {s.desired.edge: barred(s, rollout, releases, asked=False) for s in shadows}
    free = [s for s in shadows if not why[s.desired.edge]]
    kept_out = {edge: reason for edge, reason in why.items() if reason and not reason.startswith("in ")}
    if rollout.closed and (refused := {e: r for e, r in why.items() if r}):
        told = ", ".join(f"{edge} is {reason}" for edge, reason in sorted(refused.items()))
        raise OperatorError(f"cannot roll out: {told}", hint="Leave it out, or unpin it.")
    if not free:
        told = f" ({', '.join(f'{e} {r}' for e, r in sorted(kept_out.items())[:5])})" if kept_out else ""
        whom = f"of cohort {rollout.cohort!r} " if rollout.cohort else ""
        raise OperatorError(
            f"no edge {whom}can take {rollout.release}{told}",
            reason=Reason.NOT_FOUND,
            hint="An edge is known once it has connected; `embridge fleet list` shows them.",
        )
    wave_of = assign([s.desired.edge for s in free], rollout.policy.waves)
    fresh = [
        judge.heard(rollout, EdgeProgress(edge=s.desired.edge, wave=wave_of[s.desired.edge]), view_of(s)) for s in free
    ]
    last = len(rollout.policy.waves) - 1
    return (*fresh, *(EdgeProgress(edge=e, wave=last, left=r) for e, r in sorted(kept_out.items())))
