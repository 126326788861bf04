"""The head a release ships, judged before anything of the release is tested.

Train participants stand in for new wearers and seen gestures for unseen ones: a small study within the training data,
so that neither the held-out participants nor the unseen gestures take part in the choice.
"""

from __future__ import annotations

from collections.abc import Sequence

from embridge_cloud.learn.config import LearnConfig
from embridge_cloud.learn.data import Windows
from embridge_cloud.learn.optim import ProgressCallback, ignore_progress
from embridge_cloud.study.choice import Choice, pick_head
from embridge_cloud.study.compare import paired_differences
from embridge_cloud.study.methods import Shared, method
from embridge_cloud.study.outcome import Job, Outcome
from embridge_cloud.study.protocol import Protocol, Run, folds_of, groups_of, plan
from embridge_cloud.study.rows import make_rows
from embridge_cloud.study.unit import do_job
from embridge_shared.errors import DataError, Reason

CANDIDATES = ("regression", "closed", "cpep", "embridge")


def judge_heads(
    windows: Windows,
    config: LearnConfig,
    *,
    candidates: Sequence[str] = CANDIDATES,
    runs: int = 3,
    progress: ProgressCallback = ignore_progress,
) -> Choice:
    """Choose among heads on pseudo-unseen gestures of train participants.

    Closed forms cost little and meet every parting there is; the best of them is what a deep head must beat, on the
    few partings it is trained for, by more than twice the standard error of the paired difference.

    Args:
        windows: EMG and pose of the train participants, seen gestures alone, repetitions counted from 1.
        config: Of deep heads, with the shapes of the windows.
        candidates: Heads, the simplest first.
        runs: Partings that deep heads are judged on.
        progress: Told after every step.

    Raises:
        DataError: A head failed, or no head could be judged.
        ConfigError: Too few gestures or participants to part, or there is no such head.
    """
    every = _partings(windows)
    # spread over folds and groups alike
    few = dict.fromkeys(every[round(i * (len(every) - 1) / max(1, runs - 1))] for i in range(min(runs, len(every))))
    deep = [c for c in candidates if method(c).deep]
    cheap = [c for c in candidates if c not in deep]
    outcomes: list[Outcome] = []
    for run in every:
        asked = [*cheap, *(deep if run in few else ())]
        shared = Shared(config, progress)
        outcomes += [_judged(windows, run, name, shared) for name in asked]
    pairs = [(a, b) for a in candidates for b in candidates if a != b]
    differences = [d for d in paired_differences(outcomes, pairs) if d.protocol == Protocol.ZS_UNSEEN]
    if not cheap or not deep:
        return pick_head(make_rows(outcomes), candidates=candidates, differences=differences)
    best = pick_head([r for r in make_rows(outcomes) if r.method in cheap], candidates=cheap, differences=differences)
    ahead = [d for d in differences if d.b == best.method and d.a in deep]
    table = (*best.table, *pick_head(make_rows(outcomes), candidates=deep).table)
    won = max((d for d in ahead if d.mean > 2 * max(d.se, d.se_participants)), key=lambda d: d.mean, default=None)
    said = "; ".join(f"{d.a} {d.mean:+.3f} ± {max(d.se, d.se_participants):.3f}" for d in ahead)
    reason = f"{best.reason} Deep heads against {best.method}, {len(few)} runs: {said}."
    if won is None:
        return Choice(method=best.method, reason=reason, table=table)
    return Choice(method=won.a, reason=f"{won.a} beats the best closed form. {reason}", table=table)


def _partings(windows: Windows) -> list[Run]:
    """Every pair of pseudo-unseen gestures and held-out train participants."""
    present = windows.present("gestures")
    folds = folds_of([g for g in windows.gestures if g in present])
    return list(plan(folds, groups_of(sorted(windows.present("participants"))), seeds=1))


def _judged(windows: Windows, run: Run, name: str, shared: Shared) -> Outcome:
    """What one head did on one parting."""
    outcome = do_job(windows, run, Job(method=name), method(name), shared, digest="").outcome
    if outcome.error:
        raise DataError(
            f"{name} could not be judged: {outcome.error}",
            reason=Reason.TOO_LITTLE_DATA,
            hint="Leave it out of the candidates, or record more repetitions.",
        )
    return outcome
