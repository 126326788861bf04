"""Worlds a demonstration can run in: synthetic wearers, or the participants of a recorded data base."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embridge_cloud.learn.presets import quick
from embridge_cloud.recipe import PairingConfig, Recipe
from embridge_shared.errors import ConfigError, Reason
from embridge_shared.gestures import NINAPRO_DB1_E1
from embridge_shared.preprocess import FrontEndConfig, PreprocessConfig, WindowConfig
from embridge_shared.session import Purpose

EDGES = ("edge-a", "edge-b")
_NINAPRO_FILE = re.compile(r"S(\d+)_A1_E1\.mat")
_NINAPRO_UNSEEN = (1, 4, 7, 11)
CALIBRATION_REPETITIONS = (1, 2, 3)

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class World:
    """Who records what, and what is learnt from it.

    Attributes:
        name: For the report.
        recording: Plan entries of the training sessions, a list an edge.
        live: Plan entries of the held-out wearers' calibration and decoding sessions, a list an edge.
        recipe: Of the release.
        skip_repetitions: Repetitions the calibration used, left out of the verdict.
        chunk_s: Length of a chunk.
        notes: What a reader of the figures must know.
    """

    name: str
    recording: dict[str, list[Entry]]
    live: dict[str, list[Entry]]
    recipe: Recipe
    skip_repetitions: tuple[int, ...]
    chunk_s: float
    notes: tuple[str, ...]

    @property
    def sessions(self) -> tuple[int, int]:
        """Number of training sessions and of live ones."""
        return sum(map(len, self.recording.values())), sum(map(len, self.live.values()))

    @property
    def live_edges(self) -> tuple[str, ...]:
        """Edges that decode."""
        return tuple(edge for edge, sessions in self.live.items() if sessions)


# The seen shapes move every digit on its own or against the others; the unseen ones combine these movements anew.
SYNTHETIC_SEEN = ("fist", "open", "point", "pinky_up", "thumbs_up", "peace", "three", "pinch_index")
SYNTHETIC_UNSEEN = ("gun", "horns", "shaka", "four")


def synthetic(*, seed: int = 0, wearers: int = 12, held_out: int = 4) -> World:
    """Simulated wearers; unseen gestures are known from the vocabulary's templates alone.

    Args:
        seed: Of every wearer and performance.
        wearers: Who record for the training; the last one validates.
        held_out: Who are decoded.
    """
    rng = np.random.default_rng(seed)

    def turned() -> float:
        return round(float(rng.normal(0.0, 6.0)), 1)

    train = [performed(seed, w, Purpose.TRAINING, SYNTHETIC_SEEN, 4, turned()) for w in range(1, wearers + 1)]
    live = []
    for w in range(101, 101 + held_out):
        worn = turned()
        live.append(
            [
                performed(seed, w, Purpose.CALIBRATION, SYNTHETIC_SEEN, 2, worn),
                performed(seed, w, Purpose.EVALUATION, SYNTHETIC_SEEN + SYNTHETIC_UNSEEN, 4, worn),
            ]
        )
    return World(
        name="synthetic",
        recording=deal([[e] for e in train]),
        live=deal(live),
        recipe=Recipe(
            seen=SYNTHETIC_SEEN,
            unseen=SYNTHETIC_UNSEEN,
            unseen_from="templates",
            validation=(f"wearer-{wearers}",),
            held_out=tuple(f"wearer-{w}" for w in range(101, 101 + held_out)),
            preprocess=PreprocessConfig(window=WindowConfig(length=100, hop=10, patch=20)),
            learn=quick(channels=16, window=100, patch=20),
            seed=seed,
            controls=5,
        ),
        skip_repetitions=(),
        chunk_s=0.5,
        notes=(
            "EMG and pose are simulated: a forearm of 16 electrodes at 2 kHz, another anatomy for every wearer.",
            "Unseen gestures are known from hand-authored pose templates alone; no EMG of them exists in the training.",
            "Held-out wearers calibrate with an unlabelled recording of seen gestures, two repetitions each.",
        ),
    )


def performed(
    seed: int, who: int, purpose: Purpose, gestures: tuple[str, ...], repetitions: int, rotation_deg: float
) -> Entry:
    """A session of a simulated wearer."""
    return {
        "name": f"wearer-{who}-{purpose}",
        "participant": f"wearer-{who}",
        "purpose": purpose,
        "protocol": "demo-shapes/1",
        "placement": {"position": "forearm, proximal third", "rotation_deg": rotation_deg},
        "decode": purpose is Purpose.EVALUATION,
        "source": {
            "kind": "synthetic",
            "wearer": 1000 * seed + who,
            "performance": 10 * who + 1 + list(Purpose).index(purpose),
            "gestures": gestures,
            "repetitions": repetitions,
            "shuffled": True,
            "rotation_deg": rotation_deg,
            "pose": purpose is not Purpose.EVALUATION,
            "speed": 0,
        },
    }


def ninapro(folder: Path, *, seed: int = 0, held_out: tuple[int, ...] = ()) -> World:
    """NinaPro DB1, exercise 1: every participant's recording is replayed through agent, broker and store.

    Args:
        folder: With files `S{n}_A1_E1.mat`.
        seed: Of the training.
        held_out: Participants to decode; every fourth by default.

    Raises:
        ConfigError: Too few files, or a participant that is not there.
    """
    files = ninapro_files(folder)
    people = sorted(files)
    tested = held_out or tuple(people[3::4])
    if missing := set(tested) - set(people):
        raise ConfigError(f"participant {min(missing)} is not in {folder}", reason=Reason.NOT_FOUND)
    unseen = tuple(NINAPRO_DB1_E1[i] for i in _NINAPRO_UNSEEN)
    seen = tuple(g for g in NINAPRO_DB1_E1.values() if g not in unseen)

    def entry(who: int, purpose: Purpose, select: Entry | None = None) -> Entry:
        return replayed(files[who], who, purpose, select)

    chosen = {"gestures": seen, "repetitions": CALIBRATION_REPETITIONS, "margin_s": 3.0}
    learners = [p for p in people if p not in tested]
    preprocess = PreprocessConfig(
        front_end=FrontEndConfig(mode="identity", highpass_hz=None, lowpass_hz=None, notch_hz=()),
        window=WindowConfig(length=160, hop=10, patch=20),
    )
    return World(
        name=f"NinaPro DB1, exercise 1 ({len(people)} participants)",
        recording=deal([[entry(p, Purpose.TRAINING)] for p in learners]),
        live=deal([[entry(p, Purpose.CALIBRATION, chosen), entry(p, Purpose.EVALUATION)] for p in tested]),
        recipe=Recipe(
            seen=seen,
            unseen=unseen,
            unseen_from="recordings",
            validation=tuple(f"ninapro-s{p}" for p in learners[-1:]),
            held_out=tuple(f"ninapro-s{p}" for p in tested),
            preprocess=preprocess,
            pairing=PairingConfig(stride_s=0.4),
            learn=quick(channels=10, window=160, patch=20),
            seed=seed,
            controls=5,
        ),
        skip_repetitions=CALIBRATION_REPETITIONS,
        chunk_s=2.0,
        notes=(
            "Real EMG envelopes (10 electrodes, 100 Hz) and an uncalibrated CyberGlove; new wearers, one unseen set.",
            "Poses of unseen gestures come from the training participants' gloves; their EMG of these is never used.",
            "Held-out wearers calibrate with an unlabelled replay of the seen gestures' repetitions 1 to 3; the "
            "verdict counts repetitions 4 to 10.",
            "The choice of unseen gestures moves zero-shot results by about 0.1, more than any choice of method.",
        ),
    )


def ninapro_files(folder: Path) -> dict[int, Path]:
    """Files of a folder by participant."""
    files = {int(m[1]): p for p in folder.glob("*.mat") if (m := _NINAPRO_FILE.fullmatch(p.name))}
    if len(files) < 4:
        raise ConfigError(
            f"{folder} holds {len(files)} files like S1_A1_E1.mat",
            reason=Reason.NOT_FOUND,
            hint="Name the folder with NinaPro DB1, exercise 1; four participants are the least.",
        )
    return files


def replayed(file: Path, who: int, purpose: Purpose, select: Entry | None) -> Entry:
    """A session that replays a participant's recording."""
    return {
        "name": f"s{who}-{purpose}",
        "participant": f"ninapro-s{who}",
        "purpose": purpose,
        "protocol": "ninapro-db1-e1",
        "decode": purpose is Purpose.EVALUATION,
        "source": {
            "kind": "replay",
            "path": str(file.resolve()),
            "speed": 0,
            "pose": purpose is Purpose.TRAINING,
            "select": select,
        },
    }


def deal(hands: Sequence[Sequence[Entry]], edges: Sequence[str] = EDGES) -> dict[str, list[Entry]]:
    """Deal groups of sessions to the edges in turn."""
    dealt: dict[str, list[Entry]] = {edge: [] for edge in edges}
    for i, group in enumerate(hands):
        dealt[edges[i % len(edges)]] += group
    return dealt
