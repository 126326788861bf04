"""One edge in a rollout: what its state says of the release, and whether that counts as an error."""

from __future__ import annotations

from typing import Final

import msgspec

from embridge_cloud.rollouts.views import EdgeView
from embridge_shared.fleet import EdgeProgress, ReleaseHealth, Rollout, RolloutPolicy, RolloutState, UpdatePhase

UNDER_WAY: Final = frozenset(
    {UpdatePhase.DOWNLOADING, UpdatePhase.TESTING, UpdatePhase.SHADOW, UpdatePhase.WAITING, UpdatePhase.PROBATION}
)
WITHDRAWN: Final = frozenset({RolloutState.ROLLING_BACK, RolloutState.ABORTED})
RUNS: Final = frozenset({UpdatePhase.PROBATION, UpdatePhase.COMMITTED})
_DETAIL_MAX: Final = 240

replace = msgspec.structs.replace


def heard(rollout: Rollout, progress: EdgeProgress, view: EdgeView) -> EdgeProgress:
    """Take in an edge's state.

    What an edge that is gone left as its last will was written when it connected, so it says that it is gone and no
    more.
    """
    if not view.online:
        return replace(progress, online_ns=0) if progress.online_ns else progress
    changes: dict[str, object] = {} if progress.online_ns else {"online_ns": view.heard_ns}
    if not progress.asked_ns:
        if progress.from_release != view.release:
            changes["from_release"] = view.release
        return _changed(progress, changes)
    phase, detail = _words(rollout, progress, view)
    retries = progress.retries
    if phase is UpdatePhase.FAILED:
        retries = max(retries, view.update.attempts, 1)
    if (phase, detail, retries) != (progress.phase, progress.detail, progress.retries):
        changes |= {"phase": phase, "detail": detail, "retries": retries, "heard_ns": view.heard_ns}
    error = fault(rollout, phase, detail, retries) or unwell(rollout, phase, view)
    # That an edge returns when it is asked to is no error of the release.
    if error != progress.error and rollout.state not in WITHDRAWN:
        changes["error"] = error
    return _changed(progress, changes)


def silent(rollout: Rollout, progress: EdgeProgress, now_ns: int, *, listening_ns: int) -> str:
    """Why an edge that is connected counts as an error for its silence; empty if it does not.

    Args:
        rollout: It takes part in.
        progress: Of the edge.
        now_ns: Unix time, ns.
        listening_ns: Unix time since when its words could have come, ns.
    """
    phase = progress.phase
    if not progress.online_ns or phase is UpdatePhase.WAITING or phase not in UNDER_WAY | {UpdatePhase.IDLE}:
        return ""
    policy = rollout.policy
    allowed_s = policy.patience_s
    if phase is UpdatePhase.SHADOW:
        allowed_s += policy.trial.shadow_s
    elif phase is UpdatePhase.PROBATION:
        allowed_s += policy.trial.probation_s
    since_ns = max(progress.asked_ns, progress.heard_ns, progress.online_ns, listening_ns)
    if now_ns - since_ns <= allowed_s * 1e9:
        return ""
    told = "has not answered" if phase is UpdatePhase.IDLE else f"is still {phase.value}"
    return f"{told} after {allowed_s:g} s"


def fault(rollout: Rollout, phase: UpdatePhase, detail: str, retries: int) -> str:
    """Why an edge's phase counts as an error; empty if it does not."""
    if phase in (UpdatePhase.REFUSED, UpdatePhase.ROLLED_BACK):
        return detail
    if phase is UpdatePhase.FAILED and retries >= rollout.policy.retries:
        return detail
    return ""


def unwell(rollout: Rollout, phase: UpdatePhase, view: EdgeView) -> str:
    """Why the health of an edge that runs the release counts as an error; empty if it does not."""
    health = view.health
    if phase not in RUNS or health is None or health.release != rollout.release:
        return ""
    if health.broken:
        return f"{health.broken} windows gave no finite scores"
    if health.windows < rollout.policy.trial.min_windows:
        return ""
    return _limits(health, rollout.policy)


def _limits(health: ReleaseHealth, policy: RolloutPolicy) -> str:
    """The first limit that is passed, in words."""
    p99 = health.latency_p99_ms
    if p99 is not None and p99 > policy.max_p99_ms:
        return f"latency p99 {p99:.0f} ms, allowed {policy.max_p99_ms:g} ms"
    if health.rate < policy.min_rate:
        return f"decodes {health.rate:.0%} of the windows that are due, asked for {policy.min_rate:.0%}"
    before, now = health.shadow_confidence, health.confidence
    if before is not None and now is not None and before - now > policy.max_confidence_loss:
        return f"confidence fell from {before:.2f} to {now:.2f}, allowed {policy.max_confidence_loss:g}"
    return ""


def _words(rollout: Rollout, progress: EdgeProgress, view: EdgeView) -> tuple[UpdatePhase, str]:
    """What an edge says of this release: phase, and words."""
    update = view.update
    if view.digest == rollout.digest and update.phase in (UpdatePhase.IDLE, UpdatePhase.COMMITTED):
        return UpdatePhase.COMMITTED, ""
    if update.rollout == rollout.id and update.release == rollout.release:
        phase, detail = update.phase, str(update)[:_DETAIL_MAX]
    elif progress.phase in RUNS and view.digest != rollout.digest:
        phase, detail = UpdatePhase.ROLLED_BACK, f"rolled back: it runs {view.release or 'no release'}"
    elif progress.phase in UNDER_WAY and rollout.state in WITHDRAWN:
        phase, detail = UpdatePhase.IDLE, "withdrawn before it ran"
    else:
        return progress.phase, progress.detail
    return phase, detail


def _changed(progress: EdgeProgress, changes: dict[str, object]) -> EdgeProgress:
    return replace(progress, **changes) if changes else progress
