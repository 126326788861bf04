"""Rollouts and edges as words: rows of tables, waves, pages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from embridge_cloud.rollouts import table
from embridge_shared.durations import spoken
from embridge_shared.fleet import EdgeProgress, Rollout, RolloutState, UpdatePhase
from embridge_tui import text
from embridge_tui.model import Reported, Shadow
from embridge_tui.widgets.records import Row

STATES: Final = {
    RolloutState.WAITING: "▲ approve?",
    RolloutState.RUNNING: "▶ running",
    RolloutState.SOAKING: "▶ soaking",
    RolloutState.PAUSED: "▲ paused",
    RolloutState.ROLLING_BACK: "✕ returning",
    RolloutState.DONE: "✓ done",
    RolloutState.ABORTED: "✕ aborted",
}
OVER: Final = frozenset({RolloutState.DONE, RolloutState.ABORTED})
_BLOCKS: Final = re.compile("[█░]+")
_BLANKS: Final = re.compile(" {3,}")
_BAD: Final = frozenset({UpdatePhase.FAILED, UpdatePhase.REFUSED, UpdatePhase.ROLLED_BACK})
_QUIET: Final = frozenset({UpdatePhase.IDLE, UpdatePhase.COMMITTED})


def rollout_row(rollout: Rollout) -> Row:
    """A rollout in the list."""
    shares = " ".join(f"{w.committed}/{w.edges}{f'✕{w.errors}' if w.errors else ''}" for w in rollout.tally)
    return rollout.id, (rollout.id, text.plain(rollout.release), STATES[rollout.state], shares)


def waves(rollout: Rollout, now_ns: int, *, narrow: bool = False) -> str:
    """The waves of a rollout in lines, with bars and what each waits for.

    Args:
        rollout: With its tally.
        now_ns: Unix time, ns.
        narrow: There are less than 100 columns.
    """
    policy, *lines = list(table.lines(msgspec.structs.replace(rollout, edges=()), now_ns))[1:]
    if narrow:
        lines = [_BLANKS.sub("  ", _BLOCKS.sub(lambda bar: bar[0][::2], line.strip())) for line in lines]
    return "\n".join(text.plain(line) for line in [*lines, policy])


def page(rollout: Rollout, now_ns: int) -> str:
    """All of a rollout in lines, with the edges that are under way or in trouble."""
    return "\n".join(table.lines(rollout, now_ns))


def edge_row(shadow: Shadow, progress: EdgeProgress | None, now_ns: int) -> Row:
    """An edge in the list.

    Args:
        shadow: What was decided about it, and what it says.
        progress: Where it stands in the rollout that is shown; None where it takes no part.
        now_ns: Unix time, ns.
    """
    said = shadow.reported
    cells = (
        text.plain(shadow.edge),
        ("○ never" if said is None else "● on" if said.online else "○ away"),
        text.plain("" if said is None else said.release) or "none",
        text.plain(shadow.release) or "-",
        _seen(shadow, now_ns),
        text.plain(note(shadow, progress)),
    )
    return shadow.edge, cells


def _seen(shadow: Shadow, now_ns: int) -> str:
    return text.age(max(0.0, (now_ns - shadow.heard_ns) * 1e-9)) if shadow.heard_ns else "-"


def note(shadow: Shadow, progress: EdgeProgress | None) -> str:
    """What is to be said of an edge: its trouble first, then its update, its session, its pin, its cohort."""
    said = shadow.reported
    parts = []
    if progress is not None and progress.error:
        tries = f" (try {progress.retries})" if progress.retries else ""
        parts.append(f"✕ {progress.error}{tries}")
    elif progress is not None and progress.left:
        parts.append(f"takes no part: {progress.left}")
    if said is not None and said.update.phase not in _QUIET and not (parts and said.update.phase in _BAD):
        parts.append(f"{'✕' if said.update.phase in _BAD else '▶'} {_update(said)}")
    if shadow.recording is not None:
        parts.append("locked: in session")
    if shadow.pinned:
        parts.append(f"⚑ pinned to {shadow.pinned}: {shadow.pinned_why}")
    if shadow.cohort:
        parts.append(f"cohort {shadow.cohort}")
    if said is not None and said.spooled:
        parts.append(f"holds {text.count(said.spooled)}")
    return " · ".join(parts)


def _update(said: Reported) -> str:
    tries = f", try {said.update.attempts}" if said.update.attempts > 1 else ""
    return f"{said.update}{tries}"


def weight(shadow: Shadow, progress: EdgeProgress | None) -> tuple[int, str]:
    """Trouble before what is under way before all else; then by name."""
    said = shadow.reported
    if (progress is not None and progress.error) or (said is not None and said.update.phase in _BAD):
        return 0, shadow.edge
    return (2 if said is None or said.update.phase in _QUIET else 1), shadow.edge


def edge_page(shadow: Shadow, history: Sequence[dict[str, Any]], now_ns: int) -> str:
    """All that is known of an edge, in lines."""
    said = shadow.reported
    online = (
        "never seen" if said is None else f"{'online' if said.online else 'away'}, heard {_seen(shadow, now_ns)} ago"
    )
    lines = [
        f"edge      {shadow.edge}, {online}",
        f"cohort    {shadow.cohort or 'none'}",
        f"pinned    {f'{shadow.pinned}: {shadow.pinned_why}' if shadow.pinned else 'no'}",
        f"runs      {(said.release if said is not None else '') or 'no release'}",
        f"asked     {shadow.release or 'nothing'}{f' by {shadow.rollout}' if shadow.rollout else ''}",
        f"update    {'idle' if said is None else _update(said)}",
    ]
    if shadow.recording is not None:
        lines.append(f"records   {shadow.recording}: an update waits for its end")
    if said is not None and said.health is not None:
        health = said.health
        known = {
            "windows": health.windows,
            "of those due": f"{health.rate:.0%}",
            "latency p99": None if health.latency_p99_ms is None else f"{health.latency_p99_ms:.0f} ms",
            "confidence": None if health.confidence is None else f"{health.confidence:.2f}",
            "agrees with the one before": None if health.agreement is None else f"{health.agreement:.0%}",
            "crashes": health.crashes or None,
        }
        lines.append("health    " + ", ".join(f"{k} {v}" for k, v in known.items() if v is not None))
    return "\n".join([*lines, "", "decided by hand", *(map(happened, history) if history else ["  nothing yet"])])


def happened(row: dict[str, Any]) -> str:
    """A row of a history in a line."""
    detail = row.get("detail") or {}
    failed = f" [{detail['status']}]" if isinstance(detail.get("status"), int) and detail["status"] >= 400 else ""
    more = ", ".join(f"{k} {v}" for k, v in detail.items() if v != "" and k not in ("status", "request"))
    return f"{str(row.get('at', ''))[:19]}  {row.get('actor', '')}  {row.get('action', '')}{failed}  {more}".rstrip()


def plan_words(rollout: Rollout) -> str:
    """What a dry run found, in lines."""
    policy = rollout.policy
    shares = ", then ".join(f"{w.name} {w.edges}" for w in rollout.tally if w.edges) or "no edge"
    left = [f"{p.edge} takes no part: {p.left}" for p in rollout.edges if p.left]
    lines = [
        f"{rollout.release} goes to {shares}.",
        f"A wave is over when {policy.success:.0%} have committed and {spoken(policy.waves[0].soak_s)} have passed; "
        f"more than {policy.max_errors:.0%} errors: {policy.on_error.replace('_', ' ')}.",
        *left[:5],
        *([f"and {len(left) - 5} more take no part"] if len(left) > 5 else []),
    ]
    return "\n".join(lines)
