"""A real release of the closed-form head, trained on simulated forearms, and raw EMG of people it never met."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from embridge_cloud import realign
from embridge_cloud.learn.data import Windows, concatenate
from embridge_cloud.learn.heads import fit_head
from embridge_cloud.learn.presets import envelope
from embridge_cloud.recipe import Recipe
from embridge_cloud.snapshot import Snapshot
from embridge_cloud.study.choice import Choice
from embridge_edge.forearm import CONTROL_HZ, EMG_RATE_HZ, UV_PER_COUNT, Donning, Forearm, Performance, Timing, Wearer
from embridge_shared.clock import SystemClock
from embridge_shared.gestures import find
from embridge_shared.preprocess import FrontEnd, FrontEndConfig, PreprocessConfig, WearerScale, WindowConfig, fit_scale
from embridge_shared.signal import Modality, SampleType, StreamSpec

SEEN = ("fist", "open", "point", "thumbs_up", "pinch_index", "pinky_up", "three", "hook")
UNSEEN = ("peace", "horns", "pinch_middle", "shaka")
WEARERS = range(8)
LENGTH, HOP, RATE_HZ = 60, 10, 100.0
PREPROCESS = PreprocessConfig(
    front_end=FrontEndConfig(mode="envelope", rate_hz=RATE_HZ), window=WindowConfig(length=LENGTH, hop=HOP, patch=20)
)
SPEC = StreamSpec(
    name="emg",
    modality=Modality.EMG,
    channels=tuple(f"ch{i}" for i in range(16)),
    rate_hz=float(EMG_RATE_HZ),
    dtype=SampleType.INT16,
    unit="uV",
    scale=UV_PER_COUNT,
)


@cache
def perform(seed: int, names: tuple[str, ...], repetitions: int) -> tuple[np.ndarray, Performance]:
    """Raw EMG, int16 (T, 16), of one wearer, and what they did."""
    rng = np.random.default_rng([seed, len(names)])
    performance = Performance(
        Wearer.random(seed),
        find(names),
        repetitions=repetitions,
        rng=rng,
        timing=Timing(lead_in_s=1.0, cue_s=1.6, rest_s=1.0, jitter_s=0.2),
        shuffled=True,
    )
    forearm = Forearm(performance.wearer, Donning(rotation_deg=float(rng.normal(0, 3))), seed=seed)
    steps = np.arange(int(performance.duration_s * CONTROL_HZ))
    return forearm.emg(performance.angles(steps / CONTROL_HZ + forearm.wearer.lead_s)), performance


def scale_of(seed: int) -> WearerScale:
    """The scale of a wearer, from unlabelled seen gestures."""
    emg, _ = perform(seed, SEEN, 2)
    return fit_scale(PREPROCESS.scale, FrontEnd(PREPROCESS.front_end, SPEC).feed(emg).values)


def windows(seed: int, names: tuple[str, ...], repetitions: int, stride: int = 20) -> Windows:
    """Labelled windows of one wearer, inside the movements."""
    emg, performance = perform(seed, names, repetitions)
    features = FrontEnd(PREPROCESS.front_end, SPEC).feed(emg)
    values = scale_of(seed).apply(features.values)
    parts, poses, labels, numbers = [], [], [], []
    for prompt in performance.prompts:
        first, last = round(prompt.held_s * RATE_HZ) - features.first, round(prompt.release_s * RATE_HZ)
        for start in range(max(0, first - 10), last - features.first - LENGTH, stride):
            parts.append(values[start : start + LENGTH])
            poses.append(performance.angles((features.first + start + np.arange(LENGTH)) / RATE_HZ))
            labels.append(names.index(prompt.gesture.name))
            numbers.append(prompt.repetition)
    n = len(parts)
    return Windows(
        emg=np.stack(parts).astype(np.float32),
        pose=np.stack(poses).astype(np.float32),
        label=np.array(labels, np.int64),
        participant=np.zeros(n, np.int64),
        session=np.zeros(n, np.int64),
        repetition=np.array(numbers, np.int64),
        start_s=np.arange(n, dtype=np.float64),
        gestures=names,
        participants=(f"p{seed}",),
        sessions=(f"s{seed}",),
    )


def release(folder: Path, *, unseen: tuple[str, ...] = (), version: int = 1) -> Path:
    """Train and write a release of `SEEN`, and of `unseen` by their templates."""
    recipe = Recipe(
        version=version,
        seen=SEEN,
        unseen=unseen,
        preprocess=PREPROCESS,
        learn=envelope(channels=16, window=LENGTH, patch=20),
        heads=("closed",),
        controls=0,
    )
    train = concatenate([windows(seed, SEEN, 3) for seed in WEARERS])
    snapshot = Snapshot(train, None, None, "0" * 64, tuple(train.sessions))
    head = fit_head("closed", train, recipe.learn, seed=0, unseen=unseen)
    folder.mkdir(parents=True, exist_ok=True)
    choice = Choice(method="closed", reason="The only one.", table=())
    summary = realign._release(snapshot, recipe, choice, head, folder, SystemClock())
    return folder / summary.bundle
