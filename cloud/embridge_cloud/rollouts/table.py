"""A rollout as lines for people."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from embridge_shared.durations import spoken
from embridge_shared.fleet import EdgeProgress, Rollout, RolloutState, UpdatePhase, WaveTally

_BAR: Final = 20
_SHOWN: Final = 40


def headline(rollout: Rollout) -> str:
    """One line: what, where it stands, and how many have it."""
    committed, edges = sum(w.committed for w in rollout.tally), sum(w.edges for w in rollout.tally)
    errors = sum(w.errors for w in rollout.tally)
    failed = f", {_errors(errors)}" if errors else ""
    whom = f"  cohort {rollout.cohort}" if rollout.cohort else ""
    state = str(rollout.state).replace("_", " ")
    why = f": {rollout.reason}" if rollout.reason else ""
    return (
        f"{rollout.id or 'dry run':<8} {rollout.release:<16} {_moment(rollout.started_ns)}  "
        f"{committed}/{edges} committed{failed}{whom}  {state}{why}"
    )


def lines(rollout: Rollout, now_ns: int, *, every: bool = False) -> Iterator[str]:
    """All of a rollout: its waves and its edges.

    Args:
        rollout: With its tally filled in.
        now_ns: Unix time, ns.
        every: Show edges that are done too, and no matter how many.
    """
    policy = rollout.policy
    yield (
        f"rollout {rollout.id or '(dry run)'}  {rollout.release}  started {_moment(rollout.started_ns)} by "
        f"{rollout.started_by or 'nobody yet'}"
    )
    yield (
        f"policy  {' → '.join(f'{w.share:.0%}' for w in policy.waves)}, {policy.success:.0%} of a wave must commit, "
        f"{policy.max_errors:.0%} may fail, then {policy.on_error.replace('_', ' ')}"
    )
    if rollout.cohort:
        yield f"cohort  {rollout.cohort}"
    yield f"state   {str(rollout.state).replace('_', ' ')}" + (f": {rollout.reason}" if rollout.reason else "")
    for number, counts in enumerate(rollout.tally):
        yield _wave(rollout, number, counts, now_ns)
    yield from _edges(rollout, now_ns, every=every)


def _errors(count: int) -> str:
    return "1 error" if count == 1 else f"{count} errors"


def _wave(rollout: Rollout, number: int, counts: WaveTally, now_ns: int) -> str:
    share = counts.committed / counts.edges if counts.edges else 0.0
    full = round(share * _BAR)
    notes = [_errors(counts.errors)] if counts.errors else []
    notes += [f"{counts.offline} away"] if counts.offline else []
    notes += [f"{counts.waits} record"] if counts.waits else []
    notes.append(_stage(rollout, number, counts, now_ns))
    return (
        f"  wave {number + 1} {counts.name:<8} {counts.committed:>5}/{counts.edges:<5} "
        f"{'█' * full}{'░' * (_BAR - full)} {share:>4.0%}  {', '.join(filter(None, notes))}"
    )


def _stage(rollout: Rollout, number: int, counts: WaveTally, now_ns: int) -> str:
    """What becomes of a wave next."""
    if not counts.edges:
        return "no further edges"
    if rollout.state in (RolloutState.ROLLING_BACK, RolloutState.ABORTED):
        return ""
    if rollout.state is RolloutState.DONE or number < rollout.wave:
        return "passed"
    wave = rollout.policy.waves[number]
    if number > rollout.wave:
        return "waits for approval after the wave before" if wave.approve else "waits for the wave before"
    if rollout.state is RolloutState.WAITING:
        return "waits to be approved"
    if rollout.state is RolloutState.SOAKING:
        soaked_s = min(wave.soak_s, (now_ns - rollout.since_ns) * 1e-9)
        return f"soaks {spoken(soaked_s)} of {spoken(wave.soak_s)}"
    return str(rollout.state)


def _edges(rollout: Rollout, now_ns: int, *, every: bool) -> Iterator[str]:
    chosen = [p for p in rollout.edges if every or _worth_it(rollout, p)]
    if not chosen:
        return
    width = max(4, *(len(p.edge) for p in chosen))
    yield f"{'edge':<{width}}  {'wave':<5} {'ran':<16} {'heard':<10} says"
    for progress in sorted(chosen, key=lambda p: (not p.error, p.wave, p.edge))[: None if every else _SHOWN]:
        heard = "-" if progress.left else _ago(progress, now_ns) if progress.online_ns else "away"
        yield (
            f"{progress.edge:<{width}}  {progress.wave + 1:<5} {progress.from_release or '-':<16} {heard:<10} "
            f"{_words(progress)}"
        )
    if not every and len(chosen) > _SHOWN:
        yield f"and {len(chosen) - _SHOWN} more; --all shows every edge"


def _worth_it(rollout: Rollout, progress: EdgeProgress) -> bool:
    if progress.error or progress.left:
        return True
    return bool(progress.asked_ns) and progress.phase is not UpdatePhase.COMMITTED


def _words(progress: EdgeProgress) -> str:
    if progress.left:
        return f"takes no part: {progress.left}"
    said = progress.error or progress.detail or str(progress.phase).replace("_", " ")
    if said == UpdatePhase.IDLE:
        said = "was asked, has not answered yet"
    marks = ["error" if progress.error else "", "went on in spite of it" if progress.forgiven else ""]
    if progress.retries and progress.phase is UpdatePhase.FAILED:
        marks.append(f"try {progress.retries}")
    if not progress.asked_ns:
        return "not asked yet"
    told = ", ".join(filter(None, marks))
    return f"{said} ({told})" if told else said


def _ago(progress: EdgeProgress, now_ns: int) -> str:
    since_ns = progress.heard_ns or progress.online_ns
    return f"{spoken(max(0.0, (now_ns - since_ns) * 1e-9))}"


def _moment(wall_ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(wall_ns * 1e-9)) if wall_ns else "-"
