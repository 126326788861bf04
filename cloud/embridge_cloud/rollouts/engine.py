"""The engine of rollouts: a pure function of a rollout, the time, and what was heard of edges.

    WAITING ──approve──▶ RUNNING ──enough committed──▶ SOAKING ──soaked, healthy──▶ next wave, or DONE
                            │ too many errors, in any of these states
                            ├─ on_error "pause" ──▶ PAUSED ──resume──▶ RUNNING
                            └─ on_error "roll_back" ──▶ ROLLING_BACK ──all that are connected returned──▶ ABORTED

Whoever runs it keeps what `step` returns before it carries out the actions, and carries out an action as often as it is
told: a crash in between loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from embridge_cloud.rollouts import judge
from embridge_cloud.rollouts.tally import errors, succeeded
from embridge_cloud.rollouts.views import Action, Ask, EdgeView, Note, Recall, Return
from embridge_cloud.rollouts.waves import late_wave
from embridge_shared.fleet import EdgeProgress, Rollout, RolloutState, UpdatePhase

OPEN: Final = frozenset(
    {RolloutState.WAITING, RolloutState.RUNNING, RolloutState.SOAKING, RolloutState.PAUSED, RolloutState.ROLLING_BACK}
)
"""States of a rollout that is not over."""
_JOINABLE: Final = OPEN - {RolloutState.ROLLING_BACK} | {RolloutState.DONE}
_GOES_ON: Final = frozenset({RolloutState.RUNNING, RolloutState.SOAKING})
LISTEN_S: Final = 30.0
"""A wave passes no sooner than this after the broker came back, if its soak is longer: errors have to be heard."""
_NAMED: Final = 12

replace = msgspec.structs.replace


def step(
    rollout: Rollout, now_ns: int, reports: Mapping[str, EdgeView], *, listening_ns: int
) -> tuple[Rollout, tuple[Action, ...]]:
    """Go on as far as what is known allows.

    Args:
        rollout: As the last step left it.
        now_ns: Unix time, ns.
        reports: Edges that were heard of since, by name; others are as they were.
        listening_ns: Unix time since when edges can be heard, ns; while they cannot, nobody calls this.

    Returns:
        The rollout now, and what to do, in order.
    """
    before = errors(rollout.edges).edges
    rollout = _take_in(rollout, reports)
    actions: list[Action] = []
    if rollout.state in OPEN:
        rollout = _judge_silence(rollout, now_ns, listening_ns)
        actions += _news(before, errors(rollout.edges).edges)
    while True:
        moved, more = _move(rollout, now_ns, listening_ns)
        actions += more
        if moved is rollout:
            break
        rollout = moved
    return rollout, tuple(actions)


def begin_roll_back(rollout: Rollout, now_ns: int, why: str) -> tuple[Rollout, tuple[Action, ...]]:
    """Recall the release and return every edge that was asked."""
    rollout = enter(rollout, RolloutState.ROLLING_BACK, now_ns, reason=why, ended_ns=0)
    asked = [p.edge for p in rollout.edges if p.asked_ns and not p.left]
    note = Note("rollout.roll_back", {"reason": why, "asked": len(asked)})
    return rollout, (Recall(why), note, *map(Return, asked))


def begin_wave(rollout: Rollout, number: int, now_ns: int) -> tuple[Rollout, tuple[Action, ...]]:
    """Start a wave, in spite of an approval it needs."""
    rollout = enter(rollout, RolloutState.RUNNING, now_ns, wave=number, reason="")
    return rollout, (_wave_note(rollout),)


def enter(rollout: Rollout, state: RolloutState, now_ns: int, **changes: object) -> Rollout:
    """The rollout in another state."""
    return replace(rollout, state=state, since_ns=now_ns, **changes)


def next_wave(rollout: Rollout, now_ns: int) -> tuple[Rollout, tuple[Action, ...]]:
    """What follows on a wave: the next one that has edges, waiting for it to be approved, or the end."""
    waves = rollout.policy.waves
    peopled = {p.wave for p in rollout.edges if not p.left}
    number = rollout.wave + 1
    # Of a small fleet several shares are the same edges.
    while number < len(waves) and number not in peopled:
        number += 1
    if number >= len(waves):
        committed = sum(1 for p in rollout.edges if p.phase is UpdatePhase.COMMITTED)
        done = enter(rollout, RolloutState.DONE, now_ns, wave=len(waves) - 1, ended_ns=now_ns, reason="")
        return done, (Note("rollout.finish", {"state": "done", "committed": committed, "edges": len(rollout.edges)}),)
    if waves[number].approve:
        waiting = enter(rollout, RolloutState.WAITING, now_ns, wave=number, reason="")
        return waiting, (Note("rollout.wait", {"wave": number + 1, "name": waves[number].name}),)
    return begin_wave(rollout, number, now_ns)


def outstanding(progress: EdgeProgress) -> bool:
    """Whether an edge of a rollout that was taken back runs its release still, or is about to."""
    took = progress.phase in judge.RUNS | judge.UNDER_WAY
    return bool(progress.asked_ns) and not progress.left and took


def _take_in(rollout: Rollout, reports: Mapping[str, EdgeView]) -> Rollout:
    """Every edge's state, and edges that are new."""
    if not reports:
        return rollout
    joinable = rollout.state in _JOINABLE
    edges: list[EdgeProgress] = []
    for progress in rollout.edges:
        view = reports.get(progress.edge)
        edges.append(progress if view is None else _heard(rollout, progress, view))
    if joinable and not rollout.closed:
        known = {p.edge for p in edges}
        edges += [_newcomer(rollout, v) for v in reports.values() if v.edge not in known and not v.barred]
    if len(edges) == len(rollout.edges) and all(a is b for a, b in zip(edges, rollout.edges, strict=True)):
        return rollout
    return replace(rollout, edges=tuple(edges))


def _heard(rollout: Rollout, progress: EdgeProgress, view: EdgeView) -> EdgeProgress:
    if view.barred:
        return progress if progress.left == view.barred else replace(progress, left=view.barred)
    if progress.left:
        if rollout.state not in _JOINABLE:
            return progress
        return _newcomer(rollout, view)
    return judge.heard(rollout, progress, view)


def _newcomer(rollout: Rollout, view: EdgeView) -> EdgeProgress:
    wave = late_wave(view.edge, rollout.policy.waves, rollout.wave)
    fresh = EdgeProgress(edge=view.edge, wave=wave, from_release=view.release)
    return judge.heard(rollout, fresh, view)


def _judge_silence(rollout: Rollout, now_ns: int, listening_ns: int) -> Rollout:
    changed: dict[int, EdgeProgress] = {}
    for place, progress in enumerate(rollout.edges):
        if not progress.asked_ns or progress.left or progress.error:
            continue
        if why := judge.silent(rollout, progress, now_ns, listening_ns=listening_ns):
            changed[place] = replace(progress, error=why)
    if not changed:
        return rollout
    return replace(rollout, edges=tuple(changed.get(place, p) for place, p in enumerate(rollout.edges)))


def _move(rollout: Rollout, now_ns: int, listening_ns: int) -> tuple[Rollout, tuple[Action, ...]]:
    """One transition, or the rollout itself where there is none."""
    state, policy = rollout.state, rollout.policy
    if state is RolloutState.ROLLING_BACK:
        return _rolled_back(rollout, now_ns)
    if state is RolloutState.DONE:
        return _ask(rollout, now_ns)
    if state not in OPEN:
        return rollout, ()
    if not (state is RolloutState.PAUSED and policy.on_error == "pause"):
        found = errors(rollout.edges)
        if found.stop(policy):
            return _stop(rollout, now_ns, f"{len(found.edges)} of {found.asked} edges: {_first(found.edges)}")
    if state not in _GOES_ON:
        return rollout, ()
    asking, actions = _ask(rollout, now_ns)
    if asking is not rollout:
        return asking, actions
    if not succeeded(rollout, rollout.wave, now_ns):
        if state is RolloutState.SOAKING:
            return enter(rollout, RolloutState.RUNNING, now_ns), ()
        return rollout, ()
    if state is RolloutState.RUNNING:
        return _soak(rollout, now_ns)
    soak_s = policy.waves[rollout.wave].soak_s
    soaked = now_ns - rollout.since_ns >= soak_s * 1e9
    listened = now_ns - listening_ns >= min(soak_s, LISTEN_S) * 1e9
    return next_wave(rollout, now_ns) if soaked and listened else (rollout, ())


def _ask(rollout: Rollout, now_ns: int) -> tuple[Rollout, tuple[Action, ...]]:
    """Ask every edge of the waves so far that was not asked yet."""
    edges = list(rollout.edges)
    asked = []
    for place, progress in enumerate(edges):
        if progress.asked_ns or progress.left or progress.wave > rollout.wave:
            continue
        runs = progress.from_release == rollout.release
        phase = UpdatePhase.COMMITTED if runs else UpdatePhase.IDLE
        edges[place] = replace(progress, asked_ns=now_ns, phase=phase)
        asked.append(progress.edge)
    if not asked:
        return rollout, ()
    return replace(rollout, edges=tuple(edges)), tuple(map(Ask, asked))


def _soak(rollout: Rollout, now_ns: int) -> tuple[Rollout, tuple[Action, ...]]:
    wave = rollout.policy.waves[rollout.wave]
    committed = sum(1 for p in rollout.edges if p.wave == rollout.wave and p.phase is UpdatePhase.COMMITTED)
    note = Note("rollout.soak", {"wave": rollout.wave + 1, "name": wave.name, "committed": committed})
    return enter(rollout, RolloutState.SOAKING, now_ns), (note,)


def _stop(rollout: Rollout, now_ns: int, why: str) -> tuple[Rollout, tuple[Action, ...]]:
    if rollout.policy.on_error == "roll_back":
        return begin_roll_back(rollout, now_ns, why)
    paused = enter(rollout, RolloutState.PAUSED, now_ns, reason=why, before=rollout.state)
    return paused, (Note("rollout.pause", {"reason": why}),)


def _rolled_back(rollout: Rollout, now_ns: int) -> tuple[Rollout, tuple[Action, ...]]:
    """The end of a roll back, once nobody who could return is waited for."""
    left = [p for p in rollout.edges if outstanding(p)]
    if now_ns - rollout.since_ns <= rollout.policy.patience_s * 1e9 and any(p.online_ns for p in left):
        return rollout, ()
    aborted = enter(rollout, RolloutState.ABORTED, now_ns, ended_ns=now_ns)
    detail: dict[str, str | int | float] = {"state": "aborted", "not_yet_back": len(left)}
    if left:
        detail["edges"] = _names(left)
    return aborted, (Note("rollout.finish", detail),)


def _wave_note(rollout: Rollout) -> Note:
    wave = rollout.policy.waves[rollout.wave]
    edges = sum(1 for p in rollout.edges if p.wave == rollout.wave and not p.left)
    return Note("rollout.wave", {"wave": rollout.wave + 1, "name": wave.name, "edges": edges})


def _news(before: tuple[EdgeProgress, ...], now: tuple[EdgeProgress, ...]) -> list[Action]:
    """Errors that were not there, as one row."""
    known = {p.edge for p in before}
    fresh = [p for p in now if p.edge not in known]
    if not fresh:
        return []
    return [Note("rollout.error", {"count": len(fresh), "edges": _names(fresh), "first": _first(tuple(fresh))})]


def _names(edges: list[EdgeProgress]) -> str:
    more = f" and {len(edges) - _NAMED} more" if len(edges) > _NAMED else ""
    return ", ".join(p.edge for p in edges[:_NAMED]) + more


def _first(edges: tuple[EdgeProgress, ...]) -> str:
    return f"{edges[0].edge} {edges[0].error}"
