"""One job in one run: fit, evaluate, keep figures and what pictures need."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from embridge_cloud.learn.data import Windows
from embridge_cloud.learn.leakage import PoseRegime
from embridge_cloud.study.evaluation import Fitted, evaluate_fitted
from embridge_cloud.study.methods import Shared, StudyMethod, calibrates_alone
from embridge_cloud.study.outcome import Figure, Job, Outcome
from embridge_cloud.study.protocol import Regime, Run
from embridge_cloud.study.splits import Split, make_split
from embridge_shared.errors import EmbridgeError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Done:
    """A finished job.

    Attributes:
        outcome: Figures, or why there are none.
        fitted: The method; None where it failed.
        split: What it was fitted on; None where it failed.
    """

    outcome: Outcome
    fitted: Fitted | None
    split: Split | None


def do_job(windows: Windows, run: Run, job: Job, method: StudyMethod, shared: Shared, *, digest: str) -> Done:
    """Fit one method on one run and evaluate it; a failure is an outcome too.

    Args:
        windows: Of everybody, cut with the unseen gestures of the run hidden.
        run: Whom and what to hold out.
        job: What to fit.
        method: The one the job names.
        shared: Of the unit.
        digest: For the outcome.
    """
    began, cpu = time.monotonic(), time.process_time()
    figures: tuple[Figure, ...] = ()
    fitted, split, error = None, None, ""
    shared.charged = (0.0, 0.0)
    try:
        split = make_split(
            windows,
            run,
            shared.config.emg.window_s,
            regime=Regime(job.regime),
            pose_regime=PoseRegime(job.pose_regime),
            share=job.share,
        )
        parts = narrowed(split) if calibrates_alone(method, split) else (split,)
        made = []
        for part in parts:
            fitted = method.fit(part, shared, job)
            made.append(evaluate_fitted(fitted, part))
        figures = merged(made)
    except EmbridgeError as failure:
        error = f"{type(failure).__name__}: {failure}"
        logger.warning("%s, %s: %s", run.name, job.name, error)
    except Exception as failure:  # one broken method must not cost the others their runs
        error = f"{type(failure).__name__}: {failure}"
        logger.exception("%s, %s", run.name, job.name)
    outcome = Outcome(
        job=job,
        run=run,
        digest=digest,
        figures=figures,
        wall_s=round(time.monotonic() - began + shared.charged[0], 3),
        cpu_s=round(time.process_time() - cpu + shared.charged[1], 3),
        error=error,
    )
    return Done(outcome, None if error else fitted, None if error else split)


def narrowed(split: Split) -> tuple[Split, ...]:
    """A split for each held-out participant alone."""
    parts = []
    for name in split.run.held_out:
        tested = split.tested.of_participants([name])
        if len(tested) == 0:
            continue
        parts.append(
            replace(
                split,
                run=Run(split.run.fold, split.run.rotation, split.run.seed, (name,)),
                tested=tested,
                tested_pose=split.tested_pose.of_participants([name]),
                calibration=None if split.calibration is None else split.calibration.of_participants([name]),
            )
        )
    return tuple(parts)


def merged(parts: Sequence[Iterable[Figure]]) -> tuple[Figure, ...]:
    """Figures of several people put together, protocol by protocol."""
    if len(parts) == 1:
        return tuple(parts[0])
    by_name: dict[str, list[Figure]] = {}
    for figures in parts:
        for f in figures:
            by_name.setdefault(f.protocol, []).append(f)
    return tuple(
        Figure(
            protocol=name,
            chance=found[0].chance,
            windows=sum(f.windows for f in found),
            per_participant={p: v for f in found for p, v in f.per_participant.items()},
            f1_per_participant={p: v for f in found for p, v in f.f1_per_participant.items()},
            gestures=found[0].gestures,
            confusion=tuple(
                tuple(int(v) for v in row) for row in np.sum([np.array(f.confusion) for f in found], axis=0)
            ),
        )
        for name, found in by_name.items()
    )
