"""Small folders that look like public data sets: the schema is true, the recordings are made up.

EMG and pose follow the same activations of eight muscles, so what learns beats chance.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat
from scipy.ndimage import gaussian_filter1d

from embridge_cloud.datasets.emg2pose_files import FAITHFUL_SEEN, FAITHFUL_UNSEEN, METADATA
from embridge_shared.ninapro import BASES, NinaproBase

MUSCLES = 8
_WORLD = 7  # the hands are the same in every folder; people, moments and noise are not
_REST_COUNTS = 110.0

Array = NDArray[np.float64]


def codes(n: int, *, seed: int = _WORLD) -> Array:
    """Activation of the muscles in each of n gestures, (n, MUSCLES), in 0..1; no two alike."""
    rng = np.random.default_rng(seed)
    bits = rng.permutation(np.arange(1, 2**MUSCLES - 1))[:n]
    return ((bits[:, None] >> np.arange(MUSCLES)) & 1) * 0.8 + 0.1 * rng.random((n, MUSCLES))


def posture(outputs: int, *, seed: int = _WORLD) -> Array:
    """How muscles move joints or glove sensors, (MUSCLES, outputs)."""
    return np.random.default_rng(seed + 1).normal(size=(MUSCLES, outputs)) / np.sqrt(MUSCLES)


def electrodes(channels: int, person: np.random.Generator) -> Array:
    """How much of each muscle an electrode sees, (MUSCLES, channels): a ring, turned and weighed by the wearer."""
    muscle, electrode = np.arange(MUSCLES) / MUSCLES, np.arange(channels) / channels
    turn = person.normal(0, 0.02)
    distance = np.abs((electrode[None] - muscle[:, None] + turn + 0.5) % 1 - 0.5)
    return np.exp(-((distance / 0.12) ** 2)) * person.uniform(0.8, 1.25, (MUSCLES, channels))


def signal(level: Array, gains: Array, rng: np.random.Generator, *, raw: bool, noise: float = 0.03) -> Array:
    """EMG of activations (T, MUSCLES): an envelope, or noise as strong as the activation."""
    if raw:
        return (level * rng.normal(size=level.shape)) @ gains + noise * rng.normal(size=(len(level), gains.shape[1]))
    return np.abs(level @ gains + noise * rng.normal(size=(len(level), gains.shape[1])))


def write_ninapro(
    folder: Path,
    *,
    base: str = "db1",
    subjects: Sequence[int] = (1, 2, 3),
    exercises: Sequence[int] = (1,),
    acquisitions: Sequence[int] = (1,),
    repetitions: int | None = None,
    movements: int | None = None,
    glove: int | None = None,
    swapped: bool | None = None,
    extra: bool = True,
    short: int = 0,
    buffer: int = 0,
    hold_s: float = 2.5,
    rest_s: float = 1.5,
    seed: int = 0,
) -> list[Path]:
    """Files of one base.

    Args:
        folder: Where; made if need be.
        base: Name of the base.
        subjects: Participants.
        exercises: A file of each.
        acquisitions: And of each of these.
        repetitions: Of a movement; as the base has by default.
        movements: Only the first ones of an exercise; all by default.
        glove: Sensors; as the base has by default. 0 for no glove.
        swapped: True for S1_A1_E1, False for S1_E1_A1; as the base has by default.
        extra: With the variables only this base has.
        short: Samples by which the glove is shorter.
        buffer: Samples at each movement's end that keep its label but have repetition 0.
        hold_s: Length of a movement.
        rest_s: Length of the rest before each.
        seed: Of people, moments and noise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    facts = BASES[base]
    written = []
    for subject, exercise, acquisition in product(subjects, exercises, acquisitions):
        rng = np.random.default_rng([seed, subject, exercise, acquisition])
        n = len(facts.exercises[exercise].gestures[:movements])
        label, rep = _labels(n, repetitions or facts.repetitions, hold_s, rest_s, facts.rate_hz, rng)
        sensors = facts.glove[-1] if glove is None else glove
        mat = {"subject": np.uint8([[subject]]), "exercise": np.uint8([[exercise]])}
        mat |= _streams(facts, np.random.default_rng([seed, subject]), rng, label, exercise, sensors)
        mat["stimulus"] = np.roll(label, -round(0.3 * facts.rate_hz))[:, None].astype(np.uint8)
        mat["repetition"] = rep[:, None].astype(np.uint8)
        for end in np.flatnonzero((label[:-1] > 0) & (label[1:] == 0)) + 1:
            rep[end - buffer : end] = 0
        mat |= {"restimulus": label[:, None].astype(np.uint8), "rerepetition": rep[:, None].astype(np.uint8)}
        mat |= {k: np.zeros((len(label), 2)) for k in facts.marks if extra}
        if sensors and short:
            mat["glove"] = mat["glove"][:-short]
        first_a = facts.name == "db1" if swapped is None else swapped
        parts = (f"A{acquisition}", f"E{exercise}") if first_a else (f"E{exercise}", f"A{acquisition}")
        written.append(folder / f"{'_'.join((f'S{subject}', *parts))}.mat")
        savemat(written[-1], mat, do_compression=facts.rate_hz < 1000)
    return written


def _streams(
    facts: NinaproBase,
    person: np.random.Generator,
    rng: np.random.Generator,
    label: NDArray[np.int64],
    exercise: int,
    sensors: int,
) -> dict[str, Any]:
    """EMG and glove that follow the labels."""
    before = sum(len(e.gestures) for n, e in facts.exercises.items() if n < exercise)
    wanted = np.zeros((len(label), MUSCLES))
    wanted[label > 0] = codes(before + int(label.max()))[before:][label[label > 0] - 1]
    level = gaussian_filter1d(wanted, 0.1 * facts.rate_hz, axis=0)
    out: dict[str, Any] = {"emg": signal(level, electrodes(facts.channels, person), rng, raw=not facts.envelope)}
    if sensors:
        counts = _REST_COUNTS + person.uniform(60, 90, sensors) * (level @ posture(22)[:, :sensors])
        out["glove"] = np.round(counts + rng.normal(0, 0.6, counts.shape))
    return out


def _labels(
    movements: int, repetitions: int, hold_s: float, rest_s: float, rate_hz: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Label and repetition of each sample, all repetitions of a movement in one block."""
    label, rep = [], []
    for movement in range(1, movements + 1):
        for repetition in range(1, repetitions + 1):
            rest = round(rest_s * rate_hz * rng.uniform(0.9, 1.1))
            hold = round(hold_s * rate_hz * rng.uniform(0.9, 1.1))
            label.append(np.repeat([0, movement], [rest, hold]))
            rep.append(np.repeat([0, repetition], [rest, hold]))
    tail = np.zeros(round(rest_s * rate_hz), np.int64)
    return np.concatenate([*label, tail]), np.concatenate([*rep, tail])


def write_emg2pose(
    folder: Path,
    *,
    users: Sequence[str] = ("train0", "train1", "train2", "train3", "val0", "test0"),
    stages: Sequence[str] = (*FAITHFUL_SEEN, *FAITHFUL_UNSEEN),
    sides: Sequence[str] = ("left", "right"),
    takes: int = 1,
    seconds: float = 6.0,
    failures: Sequence[tuple[float, float]] = ((2.0, 2.2),),
    angles: str = "<f8",
    suffix: str = "_both",
    metadata: bool = True,
    still: Sequence[str] = (),
    seed: int = 0,
) -> list[Path]:
    """An emg2pose folder: a file for each user, stage, side and take, and `metadata.csv`.

    Users whose name begins with "val" or "test" are held out, and so are the stages of the published comparison's
    unseen four.

    Args:
        folder: Where; made if need be.
        users: Pseudonyms.
        stages: Names without suffix.
        sides: Hands.
        takes: Files of each stage and hand.
        seconds: Length of a file.
        failures: Stretches (from, to) in which inverse kinematics failed, s.
        angles: Type of the joint angles: "<f8" as in the fixture, "<f4" as in the released files.
        suffix: Of a stage's name in the files.
        metadata: Write `metadata.csv`.
        still: Sides whose hand was not the instructed one.
        seed: Of people, moments and noise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    every = [*dict.fromkeys((*FAITHFUL_SEEN, *FAITHFUL_UNSEEN, *stages))]
    world, hands = codes(len(every)), posture(20)
    rows, written = [], []
    for number, user in enumerate(users):
        person = np.random.default_rng([seed, number])
        for side in sides:
            gains = electrodes(16, person)
            for s, stage in enumerate(stages):
                for take in range(takes):
                    rng = np.random.default_rng([seed, number, s, take, side == "left"])
                    session = f"2022-12-06-{seed}-e{number}-recording-{s}-{take}"
                    name = f"{session}_{side}"
                    start = 1.67e9 + 100.0 * (s * takes + take)
                    values = _take(world[every.index(stage)], gains, hands, rng, seconds, failures, angles, start)
                    attributes = {
                        "filename": name, "session": session, "stage": stage + suffix, "user": user, "side": side,
                        "sample_rate": 2000.0, "num_channels": 16, "start": start, "end": start + seconds,
                    }  # fmt: skip
                    written.append(folder / f"{name}.hdf5")
                    with h5py.File(written[-1], "w") as file:
                        group = file.create_group("emg2pose")
                        group.create_dataset("timeseries", data=values)
                        group.attrs.update(attributes)
                    rows.append(_row(attributes, stage, moving=side not in still))
    if metadata:
        with (folder / METADATA).open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    return written


def _take(
    code: Array,
    gains: Array,
    hands: Array,
    rng: np.random.Generator,
    seconds: float,
    failures: Sequence[tuple[float, float]],
    angles: str,
    start: float,
) -> NDArray[Any]:
    n = round(seconds * 2000)
    t = np.arange(n) / 2000
    beat = 0.6 + 0.4 * np.sin(2 * np.pi * (rng.uniform(0.4, 0.7) * t + rng.random()))
    level = beat[:, None] * code * rng.uniform(0.85, 1.15, MUSCLES)
    out = np.zeros(n, np.dtype([("time", "<f8"), ("joint_angles", angles, (20,)), ("emg", "<f4", (16,))]))
    out["time"] = start + t
    out["emg"] = 10 * signal(level, gains, rng, raw=True, noise=0.1)
    out["joint_angles"] = level @ hands + 0.2 + 0.01 * rng.normal(size=(1, 20))
    for a, b in failures:
        out["joint_angles"][round(a * 2000) : round(b * 2000)] = 0
    return out


def _row(attributes: dict[str, Any], stage: str, *, moving: bool) -> dict[str, Any]:
    user = attributes["user"]
    new_user, new_stage = user.startswith(("val", "test")), stage in FAITHFUL_UNSEEN
    split = "val" if user.startswith("val") else "test" if new_user or new_stage else "train"
    how = "user_stage" if new_user and new_stage else "user" if new_user else "stage" if new_stage else ""
    return {
        **{k: attributes[k] for k in ("user", "session", "stage", "side", "filename", "start", "end")},
        "moving_hand": ("left" if attributes["side"] == "right" else "right") if not moving else "both",
        "held_out_user": new_user,
        "held_out_stage": new_stage,
        "split": split,
        "generalization": how,
    }
