"""A small study: synthetic wearers whose EMG follows their hands, given as a source of windows."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from embridge_cloud.learn.config import LearnConfig
from embridge_cloud.learn.data import Windows
from embridge_cloud.learn.presets import quick
from embridge_cloud.study.outcome import Job, Outcome
from embridge_cloud.study.protocol import Fold, Run
from embridge_cloud.study.runner import Study
from embridge_cloud.study.suites import Unit
from support.learn_world import paired

PEOPLE, GESTURES, REPETITIONS, CHANNELS = 5, 8, 10, 6
WINDOW_S = 1.6


def windows(*, people: int = PEOPLE, repetitions: int = REPETITIONS, seed: int = 0) -> Windows:
    """Every repetition of every gesture by everybody, repetitions counted from 1."""
    made = paired(
        windows=people * GESTURES * repetitions, people=people, gestures=GESTURES, channels=CHANNELS, seed=seed
    )
    emg = np.array(made.emg)
    for person in np.unique(made.participant):  # the wearer's scale
        emg[made.participant == person] /= emg[made.participant == person].mean(axis=(0, 1))
    return replace(made, emg=emg, repetition=made.repetition + 1)


def run(*, fold: str = "A", rotation: int = 0, held_out: Sequence[str] = ("p0", "p1"), seed: int = 0) -> Run:
    unseen = {"A": ("g6", "g7"), "B": ("g0", "g3")}[fold]
    return Run(Fold(fold, unseen), rotation, seed, tuple(held_out))


def config(*, steps: int = 8) -> LearnConfig:
    """A deep method that trains for a second."""
    base = quick(channels=CHANNELS, patch=40)
    change = msgspec.structs.replace
    return change(
        base,
        threads=1,
        encoder=change(base.encoder, width=32),
        emg_mae=change(base.emg_mae, steps=steps, decoder_width=32, batch=32),
        pose_mae=change(base.pose_mae, steps=steps, decoder_width=32, batch=32),
        qformer=change(base.qformer, queries=4),
        align=change(base.align, steps=steps, batch=32),
        evaluate=change(base.evaluate, bootstrap=50),
    )


@dataclass(frozen=True)
class World:
    """A source that needs no files; `name` stands for what the data are."""

    name: str = "world"

    def participants(self) -> tuple[str, ...]:
        return tuple(f"p{i}" for i in range(PEOPLE))

    def gestures(self) -> tuple[str, ...]:
        return tuple(f"g{i}" for i in range(GESTURES))

    def windows(self, unseen: Sequence[str]) -> Windows:
        return windows()

    def fingerprint(self) -> str:
        return self.name


def noise(made: Windows, *, seed: int = 0) -> Windows:
    """The same windows with EMG that says nothing."""
    emg = np.random.default_rng(seed).random(np.shape(made.emg))
    return replace(made, emg=emg.astype(np.float32))


JOBS = (Job(method="regression"), Job(method="closed"), Job(method="posture-ceiling"))


def study(folder: Path, *, jobs: int = 0, source: World | None = None, todo: tuple[Job, ...] = JOBS) -> Study:
    units = (Unit(run(), todo), Unit(run(fold="B", rotation=1, held_out=("p2", "p3")), todo))
    return Study(source or World(), config(), units, folder, jobs)


def figures_of(outcomes: Sequence[Outcome]) -> list[object]:
    """What must not depend on how a study was run."""
    return [(o.run.name, o.job.name, o.figures) for o in outcomes]


@dataclass(frozen=True)
class Dying(World):
    """A source that takes its process down for one fold."""

    def windows(self, unseen):
        if "g0" in unseen:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().windows(unseen)
