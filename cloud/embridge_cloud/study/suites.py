"""Which methods meet which runs: the quick look, the full table, or methods named by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from embridge_cloud.study.outcome import Job
from embridge_cloud.study.protocol import SHARES, Regime, Run

SuiteName = Literal["quick", "full"]
SHUFFLES = 2
CLOSED_SHUFFLES = 5
HALF = 2
"""Ablations meet every second group of participants."""

_NEW, _CALIBRATED = Regime.NEW_WEARER.value, Regime.CALIBRATED.value
_ENROLLED = "pose-enrolled"

QUICK = ("embridge", "cpep", "regression", "supervised", "shuffled-pairs", "posture-ceiling")
PAPER = (
    "emg-mae",
    "supervised",
    "regression-net",
    "cpep",
    "cpep+cascle",
    "qformer",
    "qformer+mprl",
    "qformer+cascle",
    "label-smoothing",
    "softclip",
    "embridge",
    "pose-ceiling",
)
CALIBRATING = ("embridge", "cpep", "supervised")
DATA_EFFICIENCY = ("embridge",)


@dataclass(frozen=True, slots=True)
class Unit:
    """One run and its jobs, done one after the other by one process.

    Attributes:
        run: Fold, participants and seed.
        jobs: In order.
    """

    run: Run
    jobs: tuple[Job, ...]


def quick_jobs(closed: Sequence[str]) -> tuple[Job, ...]:
    """Jobs of the quick look, for every run.

    Args:
        closed: Closed-form heads, the best first.
    """
    cheap = ("regression", *closed[:1])
    return (
        *(Job(method=m) for m in _unique((*QUICK, *cheap))),
        Job(method="shuffled-pairs", draw=1),
        *_shuffled(cheap),
        *(Job(method=m, regime=_CALIBRATED) for m in (*cheap, "embridge")),
    )


def full_jobs(closed: Sequence[str]) -> tuple[Job, ...]:
    """Jobs of the full table that every run does.

    Args:
        closed: Closed-form heads, the one that ships first; the others differ for new wearers alone.
    """
    cheap = ("regression", *closed[:1])
    return (
        *(Job(method=m) for m in _unique(("regression", *closed, "posture-ceiling", *PAPER))),
        Job(method="shuffled-pairs"),
        *_shuffled(cheap),
        *(Job(method=m, regime=_CALIBRATED) for m in _unique((*cheap, *CALIBRATING))),
        *(Job(method=m, share=s) for m in cheap for s in SHARES if s < 1),
    )


def ablation_jobs(switches: Sequence[str], enrolling: Sequence[str]) -> tuple[Job, ...]:
    """Jobs that half of the runs do: switches beyond the paper, enrolled poses, fewer participants, more shuffles.

    Args:
        switches: Methods that change one thing of another.
        enrolling: Those of them, and others, that are given poses of unseen gestures.
    """
    return (
        *(Job(method=m) for m in switches if m not in enrolling),
        *(Job(method=m, pose_regime=_ENROLLED) for m in _unique((*enrolling, "cpep", "embridge", "pose-ceiling"))),
        *(Job(method=m, share=s) for m in DATA_EFFICIENCY for s in SHARES if s < 1),
        *(Job(method="shuffled-pairs", draw=d) for d in range(1, SHUFFLES)),
    )


def units_of(
    suite: SuiteName,
    runs: Iterable[Run],
    *,
    closed: Sequence[str],
    switches: Sequence[str] = (),
    enrolling: Sequence[str] = (),
    only: Sequence[str] = (),
) -> tuple[Unit, ...]:
    """Runs with their jobs.

    Args:
        suite: Which jobs.
        runs: Of the plan.
        closed: Closed-form heads, the best first.
        switches: Methods that change one thing of another.
        enrolling: Those that need poses of unseen gestures.
        only: Methods to keep; those that no suite asks for are fitted for new wearers.
    """
    made = []
    for run in runs:
        jobs = quick_jobs(closed)
        if suite == "full":
            jobs = full_jobs(closed)
            jobs += ablation_jobs(switches, enrolling) if run.rotation % HALF == 0 else ()
        if only:
            known = {j.method for j in jobs}
            extra = [m for m in _unique(only) if m not in known]
            jobs = tuple(j for j in jobs if j.method in only) + tuple(
                Job(method=m, pose_regime=_ENROLLED if m in enrolling else "strict") for m in extra
            )
        made.append(Unit(run, jobs))
    return tuple(made)


def _shuffled(heads: Iterable[str]) -> tuple[Job, ...]:
    """Controls of closed forms, drawn several times because they cost next to nothing."""
    return tuple(Job(method=f"shuffled-{m}", draw=d) for m in heads for d in range(CLOSED_SHUFFLES))


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
