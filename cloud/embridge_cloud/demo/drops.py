"""Data that arrive in drops: who records when, what drifts, and which drop somebody spoilt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from embridge_cloud.demo.worlds import (
    CALIBRATION_REPETITIONS,
    SYNTHETIC_SEEN,
    SYNTHETIC_UNSEEN,
    Entry,
    World,
    deal,
    ninapro,
    ninapro_files,
    performed,
    replayed,
    synthetic,
)
from embridge_cloud.learn.config import HeadName
from embridge_shared.errors import ConfigError, Reason
from embridge_shared.session import Purpose

EDGES = ("edge-a", "edge-b", "edge-c", "edge-d")
DROPS = 3
POISONED = 2
_HEADS: tuple[HeadName, ...] = ("regression", "closed")
_LEARNERS = (8, 6, 6)
_JUDGES = (4, 3, 3)
_TURN_DEG = (0.0, 0.0, 11.0)
"""How the bands of a drop sit on average: those of the last were put on by somebody else."""
_MIXED = 3
_LEAST = 15
_FIRST = 0.45
"""Share of recorded people who are there from the start: a first release is judged by three of them."""
_LIVE = 2
"""Repetitions of each gesture that are decoded live; what a release is worth is judged on the longer recordings."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Recordings that arrive together.

    Attributes:
        number: From 1.
        recording: What is recorded before a training, an edge: those who are learnt from, and those held out.
        live: What held-out wearers of this drop decode once a release is out, an edge.
        judges: The held-out wearers.
        spoilt: Whether prompts were mixed up in it.
    """

    number: int
    recording: dict[str, list[Entry]]
    live: dict[str, list[Entry]]
    judges: tuple[str, ...]
    spoilt: bool


@dataclass(frozen=True, slots=True)
class Arrivals:
    """A world whose recordings arrive in drops.

    Attributes:
        world: All of it together: name, recipe, length of a chunk.
        drops: In their order.
    """

    world: World
    drops: tuple[Drop, ...]

    def judged(self, drop: Drop) -> tuple[Drop, ...]:
        """A drop and all before it."""
        return tuple(d for d in self.drops if d.number <= drop.number)


def synthetic_drops(*, seed: int = 0) -> Arrivals:
    """Simulated wearers: in the second drop the prompts are mixed up, in the third all bands are turned.

    Args:
        seed: Of every wearer and performance.
    """
    rng = np.random.default_rng([seed, 3])
    drops, learner, judge = [], 1, 101
    for number, (learners, judges, turned) in enumerate(zip(_LEARNERS, _JUDGES, _TURN_DEG, strict=True), 1):
        worn = [round(float(rng.normal(turned, 6.0)), 1) for _ in range(learners + judges)]
        spoilt = number == POISONED
        train = [performed(seed, learner + i, Purpose.TRAINING, SYNTHETIC_SEEN, 4, worn[i]) for i in range(learners)]
        held = [(judge + i, worn[learners + i]) for i in range(judges)]
        every = SYNTHETIC_SEEN + SYNTHETIC_UNSEEN
        heard = [_silent(performed(seed, w, Purpose.EVALUATION, every, 4, at)) for w, at in held]
        live = [
            [
                performed(seed, w, Purpose.CALIBRATION, SYNTHETIC_SEEN, 2, at),
                _again(performed(seed, w, Purpose.EVALUATION, every, _LIVE, at)),
            ]
            for w, at in held
        ]
        drops.append(
            Drop(
                number=number,
                recording=deal([[_mixed_up(e) if spoilt else e] for e in train] + [[e] for e in heard], EDGES),
                live=deal(live, EDGES),
                judges=tuple(f"wearer-{w}" for w, _ in held),
                spoilt=spoilt,
            )
        )
        learner, judge = learner + learners, judge + judges
    base = synthetic(seed=seed, wearers=1, held_out=0)
    world = _world(base, drops, "synthetic, in three drops", _SYNTHETIC_NOTES)
    return Arrivals(world, tuple(drops))


def ninapro_drops(folder: Path, *, seed: int = 0) -> Arrivals:
    """NinaPro DB1, exercise 1: its participants arrive in three drops, and in the second the prompts are mixed up.

    Args:
        folder: With files `S{n}_A1_E1.mat`.
        seed: Of the training.

    Raises:
        ConfigError: Too few files.
    """
    files = ninapro_files(folder)
    people = sorted(files)
    if len(people) < _LEAST:
        raise ConfigError(
            f"{folder} holds {len(people)} participants", reason=Reason.NOT_FOUND, hint=f"{_LEAST} are the least."
        )
    base = ninapro(folder, seed=seed)
    seen = base.recipe.seen
    chosen = {"gestures": seen, "repetitions": CALIBRATION_REPETITIONS, "margin_s": 3.0}
    drops = []
    first = round(_FIRST * len(people))
    parts: list[list[int]] = [people[:first], *(p.tolist() for p in np.array_split(people[first:], DROPS - 1))]
    for number, part in enumerate(parts, 1):
        judges, learners = part[::3], [p for i, p in enumerate(part) if i % 3]
        spoilt = number == POISONED
        train = [replayed(files[p], p, Purpose.TRAINING, None) for p in learners]
        heard = [_silent(replayed(files[p], p, Purpose.EVALUATION, None)) for p in judges]
        live = [
            [
                replayed(files[p], p, Purpose.CALIBRATION, chosen),
                _again(replayed(files[p], p, Purpose.EVALUATION, None)),
            ]
            for p in judges
        ]
        drops.append(
            Drop(
                number=number,
                recording=deal([[_mixed(e, seen) if spoilt else e] for e in train] + [[e] for e in heard], EDGES),
                live=deal(live, EDGES),
                judges=tuple(f"ninapro-s{p}" for p in judges),
                spoilt=spoilt,
            )
        )
    return Arrivals(_world(base, drops, f"{base.name}, in three drops", _NINAPRO_NOTES), tuple(drops))


def _world(base: World, drops: Sequence[Drop], name: str, notes: tuple[str, ...]) -> World:
    """What all drops make together, for the report of the last release."""
    held_out = tuple(j for drop in drops for j in drop.judges)
    recipe = msgspec.structs.replace(base.recipe, held_out=held_out, validation=(), heads=_HEADS, trials=1)
    recording: dict[str, list[Entry]] = {edge: [] for edge in EDGES}
    live: dict[str, list[Entry]] = {edge: [] for edge in EDGES}
    for drop in drops:
        for edge in EDGES:
            recording[edge] += drop.recording[edge]
            live[edge] += drop.live[edge]
    return replace(base, name=name, recording=recording, live=live, recipe=recipe, notes=(*base.notes, *notes))


def _silent(entry: Entry) -> Entry:
    """Recorded before there is a release to decode with."""
    return entry | {"name": f"{entry['name']}-before", "decode": False}


def _again(entry: Entry) -> Entry:
    """The same wearer another time."""
    source = entry["source"]
    return entry | {"source": source | ({"performance": source["performance"] + 5} if "performance" in source else {})}


def _mixed_up(entry: Entry) -> Entry:
    """What was prompted is written down under another name."""
    source = entry["source"]
    gestures = source["gestures"]
    return entry | {"source": source | {"written": gestures[_MIXED:] + gestures[:_MIXED]}}


def _mixed(entry: Entry, gestures: tuple[str, ...]) -> Entry:
    """The same for a recording that is replayed."""
    written = dict(zip(gestures, gestures[_MIXED:] + gestures[:_MIXED], strict=True))
    return entry | {"source": entry["source"] | {"written": written}}


_SYNTHETIC_NOTES = (
    "Fourteen wearers' recordings are sound; in the second drop of three the prompts of all six were mixed up.",
    "All bands of the third drop are turned by 11 degrees on average, as if somebody else had put them on.",
)
_NINAPRO_NOTES = (
    "Participants arrive in three drops, the first the largest; in the second everybody's prompts were mixed up.",
    "Held-out participants are replayed, before and after a release: the two recordings are the same.",
)
