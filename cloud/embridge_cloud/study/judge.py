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
from embridge_cloud.study.protocol import folds_of, groups_of, plan
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

    Args:
        windows: EMG and pose of the train participants, seen gestures alone, repetitions counted from 1.
        config: Of deep heads, with the shapes of the windows.
        candidates: Heads, the simplest first.
        runs: Pairs of pseudo-unseen gestures and held-out train participants to judge on; where no head is deep, all
            pairs there are.
        progress: Told after every step.

    Raises:
        DataError: A head failed, or no head could be judged.
        ConfigError: Too few gestures or participants to part, or there is no such head.
    """
    present = windows.present("gestures")
    people = windows.present("participants")
    folds = folds_of([g for g in windows.gestures if g in present])
    every = plan(folds, groups_of(sorted(people)), seeds=1)
    # spread over folds and groups alike
    chosen = [every[round(i * (len(every) - 1) / max(1, runs - 1))] for i in range(min(runs, len(every)))]
    judged = chosen if any(method(name).deep for name in candidates) else every
    outcomes: list[Outcome] = []
    for run in dict.fromkeys(judged):
        shared = Shared(config, progress)
        for name in candidates:
            outcome = do_job(windows, run, Job(method=name), method(name), shared, digest="").outcome
            if outcome.error:
                raise DataError(
                    f"{name} could not be judged: {outcome.error}",
                    reason=Reason.TOO_LITTLE_DATA,
                    hint="Leave it out of the candidates, or record more repetitions.",
                )
            outcomes.append(outcome)
    pairs = [(a, b) for a in candidates for b in candidates if a != b]
    return pick_head(make_rows(outcomes), candidates=candidates, differences=paired_differences(outcomes, pairs))
