"""How often the gate refuses a candidate that is as good, and accepts one that is damaged, by size of its panel.

Wearers record through edges, broker and store; heads are fitted to some of them again and again, equal ones and damaged
ones, and judged against a champion on panels drawn of people nobody learnt from. Accuracy checks alone decide: what a
damaged file or a slow model costs is certain, and no matter of statistics.

`loss` is what a candidate really lost, over the whole panel at hand: a candidate as good loses nothing on average, but
one made of other people is a little better or worse each time, and the gate is asked about that one.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.framework import Row
from embridge_cloud.demo.site import open_site
from embridge_cloud.demo.worlds import World, ninapro, synthetic
from embridge_cloud.gates.checks import Pair
from embridge_cloud.gates.figures import Heard
from embridge_cloud.gates.intervals import People
from embridge_cloud.gates.panel import Taken, empanel
from embridge_cloud.gates.policy import GatePolicy
from embridge_cloud.learn.heads import fit_head
from embridge_cloud.prototypes import build_prototypes
from embridge_cloud.realign import _gallery as gallery_of
from embridge_cloud.recipe import Recipe
from embridge_cloud.snapshot import Snapshot, take_snapshot
from embridge_cloud.store.sealed import Catalogue
from embridge_cloud.traces import Stretch, trace_of
from embridge_cloud.tuning import Speaker
from embridge_shared.fleet import GateCheck

GROUP = "gates"
SIZES = (4, 6, 8, 12)
ROUNDS = 12
PANELS = 8
HEAD = "closed"
_SEAL_S = 300.0

Damage = Callable[[Snapshot, np.random.Generator], Snapshot]


def rows() -> list[Row]:
    """Rows of both worlds; DB1 where its recordings are at hand."""
    data = Path(os.environ.get("EMBRIDGE_TEST_DATA", "../shared/data")) / "ninapro_db1"
    worlds = [synthetic(seed=0, wearers=16, held_out=12)]
    if data.is_dir():
        worlds.append(ninapro(data, held_out=(4, 9, 12, 15, 18, 20)))
    found: list[Row] = []
    for world in worlds:
        with tempfile.TemporaryDirectory() as folder:
            found += measured(record(world, Path(folder)), world)
    return found


def record(world: World, folder: Path) -> Path:
    """Let edges record everybody; the folder of sealed sessions."""
    live = {
        edge: [dict(s, decode=False) for s in sessions if s["purpose"] != "calibration"]
        for edge, sessions in world.live.items()
    }
    count = sum(len(s) for plan in (world.recording, live) for s in plan.values())
    with open_site(folder, world.chunk_s) as site:
        for stage, plan in (("recording", world.recording), ("held-out", live)):
            site.start_edges(stage, plan)
            site.wait_for_edges(lambda: None)
        site.wait_until(lambda: len(site.get("/api/sessions?state=sealed")) == count, "sealing", _SEAL_S)
        return site.sealed


@dataclass(frozen=True, slots=True)
class Bench:
    """Everything that candidates are made of and judged on."""

    recipe: Recipe
    snapshot: Snapshot
    panel: tuple[Stretch, ...]
    people: tuple[str, ...]

    @classmethod
    def of(cls, store: Path, recipe: Recipe) -> Bench:
        """Read a store."""
        recipe = msgspec.structs.replace(recipe, validation=())
        snapshot = take_snapshot(Catalogue(store), recipe, lambda _: None)
        panel = empanel(Catalogue(store), recipe.held_out, recipe.unseen)
        taken = Taken(recipe.preprocess, recipe.ring, (*recipe.seen, *recipe.unseen))
        return cls(recipe, snapshot, panel.stretches(taken, taken.labels), panel.people)

    def heard(self, people: Sequence[str], seed: int, damage: Damage | None = None, *, swap: bool = False) -> Heard:
        """What a head fitted to some people says of the panel."""
        recipe = msgspec.structs.replace(self.recipe, seed=seed)
        others = self.snapshot.train.present("participants") - set(people)
        part = self.snapshot.without(sorted(others)) if others else self.snapshot
        if damage is not None:
            part = damage(part, np.random.default_rng(seed))
        head = fit_head(HEAD, part.train, recipe.learn, seed=seed, unseen=recipe.unseen)
        labels = (*recipe.seen, *recipe.unseen)
        index = build_prototypes(
            head.embed_pose,
            gallery_of(part, recipe),
            labels,
            per_gesture=recipe.prototypes,
            seed=seed,
            encoder=head.lineage.statistics,
            whole=recipe.unseen if recipe.unseen_from == "templates" else (),
        )
        rows = index.rows
        if swap:
            first, second = (labels.index(g) for g in recipe.unseen[:2])
            rows = np.where(rows == first, second, np.where(rows == second, first, rows))
        speaker = Speaker(head, replace(index, rows=rows).scorer(recipe.k))
        return Heard(index.gestures, self.people, tuple(trace_of(s, speaker) for s in self.panel))


def mixed_up(share: float) -> Damage:
    """Prompts mixed up for a share of the people: what they did is written down under another name throughout."""

    def damage(snapshot: Snapshot, rng: np.random.Generator) -> Snapshot:
        train = snapshot.train
        label = train.label.copy()
        for person in _some(snapshot, share, rng):
            rows = train.participant == person
            present = np.unique(label[rows])
            names = np.full(label.max() + 1, -1)
            names[present] = np.roll(present, 1 + rng.integers(len(present) - 1))
            label[rows] = names[label[rows]]
        return replace(snapshot, train=replace(train, label=label))

    return damage


def dead(share: float, channels: int) -> Damage:
    """Neighbouring electrodes that say nothing, for a share of the people."""

    def damage(snapshot: Snapshot, rng: np.random.Generator) -> Snapshot:
        train = snapshot.train
        emg = np.array(train.emg)
        for person in _some(snapshot, share, rng):
            gone = (rng.integers(emg.shape[2]) + np.arange(channels)) % emg.shape[2]
            emg[np.ix_(train.participant == person, np.arange(emg.shape[1]), gone)] = 0.0
        return replace(snapshot, train=replace(train, emg=emg))

    return damage


def _some(snapshot: Snapshot, share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    people = np.unique(snapshot.train.participant)
    return rng.choice(people, max(1, round(share * len(people))), replace=False)


CANDIDATES: dict[str, tuple[str, Damage | None, bool]] = {
    "equal, another seed": ("same", None, False),
    "equal, other people": ("others", None, False),
    "two thirds more people": ("more", None, False),
    "labels of a quarter mixed up": ("same", mixed_up(0.25), False),
    "labels of half mixed up": ("same", mixed_up(0.5), False),
    "a quarter of the electrodes dead for half": ("same", dead(0.5, 4), False),
    "two unseen gestures swapped": ("same", None, True),
}


def measured(store: Path, world: World) -> list[Row]:
    """Share of candidates that were accepted, by kind and size of the panel."""
    bench = Bench.of(store, world.recipe)
    told: dict[tuple[str, int], list[bool]] = {}
    lost: dict[str, list[float]] = {}
    for number in range(ROUNDS):
        rng = np.random.default_rng([7, number])
        for kind, verdicts, loss in _round(bench, number, rng):
            lost.setdefault(kind, []).append(loss)
            for size, accepted in verdicts:
                told.setdefault((kind, size), []).append(accepted)
    return [*_rows(world.name, told), *_losses(world.name, lost)]


def _round(bench: Bench, number: int, rng: np.random.Generator) -> Iterator[tuple[str, list[tuple[int, bool]], float]]:
    """One champion and a candidate of every kind, on panels of every size."""
    everybody = sorted(bench.snapshot.train.present("participants"))
    base = max(3, round(0.6 * len(everybody)))
    drawn = [str(p) for p in rng.permutation(everybody)]
    made_of = {"same": drawn[:base], "others": drawn[-base:], "more": drawn}
    champion = bench.heard(made_of["same"], 2 * number)
    panels = [
        [str(p) for p in rng.choice(bench.people, size, replace=False)]
        for size in SIZES
        for _ in range(1 if size >= len(bench.people) else PANELS)
        if size <= len(bench.people)
    ]
    for kind, (people, damage, swap) in CANDIDATES.items():
        candidate = bench.heard(made_of[people], 2 * number + 1, damage, swap=swap)
        verdicts = [(len(p), _accepted(candidate.of(p), champion.of(p), bench.recipe)) for p in panels]
        labels = candidate.labels
        yield kind, verdicts, float((candidate.accuracies(labels) - champion.accuracies(labels)).mean())


def _accepted(candidate: Heard, champion: Heard, recipe: Recipe) -> bool:
    return all(c.passed for c in checks(candidate, champion, recipe, GatePolicy()))


def checks(candidate: Heard, champion: Heard, recipe: Recipe, policy: GatePolicy) -> list[GateCheck]:
    """The checks of accuracy."""
    draws = People.of(len(candidate.people), confidence=policy.confidence, resamples=policy.resamples, seed=policy.seed)
    pair, margins = Pair(candidate, champion, draws, policy), policy.margins
    groups = {"seen": recipe.seen, "unseen": recipe.unseen, "all": candidate.labels}
    found = [pair.accuracy(n, n, among, getattr(margins, n), None) for n, among in groups.items()]
    return [*found, pair.worst(candidate.labels)]


def _rows(world: str, told: dict[tuple[str, int], list[bool]]) -> Iterator[Row]:
    for (kind, size), accepted in told.items():
        n, share = len(accepted), float(np.mean(accepted))
        # Wilson's interval: what the share may be, were there more of them
        centre, half = (
            (share + 1.92 / n) / (1 + 3.84 / n),
            1.96 / (1 + 3.84 / n) * np.sqrt(share * (1 - share) / n + 0.96 / n**2),
        )
        yield Row(
            group=GROUP, name=f"{world}, {kind}, {size} people, accepted", unit="share", value=share,
            spread=(float(centre - half), float(centre + half)), repeats=n,
        )  # fmt: skip


def _losses(world: str, lost: dict[str, list[float]]) -> Iterator[Row]:
    for kind, values in lost.items():
        yield Row(
            group=GROUP, name=f"{world}, {kind}, difference over all gestures", unit="accuracy",
            value=float(np.mean(values)), spread=(min(values), max(values)), repeats=len(values),
        )  # fmt: skip
