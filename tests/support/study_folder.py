"""A folder as a benchmark leaves it, made of drawn figures: realistic levels, no training."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from embridge_cloud.study.artefacts import Artefacts, communities_of, curves_of, map_of, write_artefacts
from embridge_cloud.study.choice import pick_head
from embridge_cloud.study.compare import paired_differences
from embridge_cloud.study.outcome import Figure, Job, Outcome, figure, write_outcome
from embridge_cloud.study.protocol import Protocol, Run, folds_of, groups_of, plan
from embridge_cloud.study.results import Control, Results, Scanned, write_results
from embridge_cloud.study.rows import make_rows
from embridge_shared.gestures import NINAPRO_DB1_E1

GESTURES = tuple(NINAPRO_DB1_E1.values())
PEOPLE = tuple(f"s{i}" for i in range(1, 19))
SKILL = {
    "regression": (0.43, 0.38),
    "cpep": (0.44, 0.26),
    "embridge": (0.42, 0.29),
    "supervised": (0.44, None),
    "emg-mae": (0.41, None),
    "shuffled-pairs": (0.13, 0.25),
    "pose-ceiling": (0.88, 0.92),
}
EACH = 16
SHOTS = {Protocol.FEW_SHOT_1: 0.77, Protocol.FEW_SHOT_3: 0.88, Protocol.FEW_SHOT_5: 0.92}
ABLATIONS = ("qformer", "qformer+mprl", "qformer+cascle", "cpep+cascle", "label-smoothing", "softclip")
SWITCHES = ("embridge:gmm", "embridge:electrodes")


def runs_of(*, rotations: int = 6) -> tuple[Run, ...]:
    """Folds by rotations of a study of 18 people."""
    return plan(folds_of(GESTURES), groups_of(PEOPLE)[:rotations])


def drawn(protocol: str, run: Run, names: tuple[str, ...], level: float, rng: np.random.Generator) -> Figure:
    """Decisions that are right at about `level`, differently so for everybody."""
    classes = len(names)
    chance = {Protocol.GZS_SEEN: 0.5 / 8, Protocol.GZS_UNSEEN: 0.5 / 4}.get(Protocol(protocol), 1 / classes)
    people = np.repeat(np.arange(len(run.held_out)), EACH * classes)
    truth = np.tile(np.arange(classes), EACH * len(run.held_out))
    wobble = 0.06 if level - 1 / classes > 0.01 else 0.01
    skill = np.clip(level + wobble * rng.normal(size=len(run.held_out)), 0.02, 0.99)[people]
    wrong = (truth + rng.integers(1, classes, len(truth))) % classes
    found = np.where(rng.random(len(truth)) < skill, truth, wrong)
    return figure(protocol, truth, found, people, names=run.held_out, gestures=names, chance=chance)


def figures_of(method: str, run: Run, rng: np.random.Generator, gain: float = 0.0) -> tuple[Figure, ...]:
    """Every protocol a method can answer."""
    seen_level, unseen_level = SKILL.get(method, (0.42, 0.28))
    unseen = run.fold.unseen
    seen = tuple(g for g in GESTURES if g not in unseen)
    lp = max(seen_level, 0.41) if method != "shuffled-pairs" else 0.125
    found = [
        drawn(Protocol.LP_SEEN, run, seen, lp, rng),
        drawn(Protocol.LP_UNSEEN, run, unseen, {"pose-ceiling": 0.94, "shuffled-pairs": 0.25}.get(method, 0.56), rng),
    ]
    if method == "supervised":
        found.append(drawn(Protocol.SUPERVISED, run, seen, seen_level, rng))
    if unseen_level is None:
        return tuple(found)
    for suffix, more in (("", 0.0), ("-trial", 0.06), ("-proto", -0.01)):
        more *= method != "shuffled-pairs"
        found.append(drawn(f"zs-seen{suffix}", run, seen, seen_level + more + gain, rng))
        found.append(drawn(f"zs-unseen{suffix}", run, unseen, unseen_level + more / 2 + gain / 4, rng))
    if method == "pose-ceiling":
        return tuple(found)
    lost = (0.067, 0.125) if method == "shuffled-pairs" else (0.14, 0.15)
    found.append(drawn(Protocol.GZS_SEEN, run, (*seen, *unseen), seen_level - lost[0], rng))
    found.append(drawn(Protocol.GZS_UNSEEN, run, (*seen, *unseen), unseen_level - lost[1], rng))
    if method != "shuffled-pairs":
        found += [drawn(p, run, unseen, level, rng) for p, level in SHOTS.items()]
    return tuple(found)


def outcomes_of(runs: tuple[Run, ...], methods: tuple[str, ...], seed: int = 0) -> list[Outcome]:
    """One outcome a job: all methods, two regimes, shares of participants, one pose-enrolled method."""
    rng = np.random.default_rng(seed)
    jobs = [(Job(method=m), 0.0) for m in methods]
    jobs += [(Job(method=m, regime="calibrated-wearer"), 0.26) for m in ("regression", "embridge") if m in methods]
    jobs += [(Job(method=m, share=s), 0.04 * np.log(s)) for m in ("regression", "embridge") if m in methods
             for s in (0.2, 0.4, 0.6, 0.8)]  # fmt: skip
    jobs += [(Job(method="embridge", pose_regime="pose-enrolled"), 0.0)] if "embridge" in methods else []
    return [
        Outcome(job=job, run=run, digest="0", figures=figures_of(job.method, run, rng, gain), wall_s=12.3456)
        for run in runs
        for job, gain in jobs
    ]


def artefacts_of(run: Run, seed: int = 0) -> Artefacts:
    """Maps, curves and communities of one run."""
    rng = np.random.default_rng(seed)
    label = np.arange(960) % len(GESTURES)
    centre = rng.normal(size=(len(GESTURES), 16))
    pose = centre[label] + 0.35 * rng.normal(size=(960, 16))
    apart = 0.5 * rng.normal(size=(960, 4, 16)) + rng.normal(size=16)
    near = 0.6 * centre[label][:, None] + 0.5 * rng.normal(size=(960, 4, 16))
    step = np.arange(150)
    fall = np.exp(-step / 40)
    history = {
        "emg_mae": 0.4 + 0.6 * fall, "pose_mae": 0.2 + 0.7 * fall, "align": 4 + 3 * fall, "nce": 2 + 2 * fall,
        "cascle": 3 + fall, "mprl": 0.5 + fall, "tau": 0.02 + 0.05 * fall, "target_entropy": 2 + fall,
        "query_usage": 1.2 - 0.3 * fall, "query_cosine": 0.4 + 0.2 * fall, "neighbour_mass": 0.5 - 0.2 * fall,
    }  # fmt: skip
    noisy = {n: list(v + 0.02 * np.ptp(v) * rng.normal(size=len(v))) for n, v in history.items()}
    noisy |= {"val_step": [50.0, 100.0, 150.0], "val_zs": [0.33, 0.41, 0.42]}
    member = np.where(rng.random(960) < 0.7, label * 2 + rng.integers(0, 2, 960), rng.integers(0, 32, 960))
    seen = np.isin(label, [i for i, g in enumerate(GESTURES) if g not in run.fold.unseen])
    return Artefacts(
        unit=f"embridge.{run.name}",
        method="embridge",
        unseen_set=run.fold.name,
        unseen=run.fold.unseen,
        held_out=run.held_out,
        seed=run.seed,
        maps=(
            map_of("before", (apart.astype(np.float32), label), (pose.astype(np.float32), label), GESTURES, rng=rng),
            map_of("after", (near.astype(np.float32), label), (pose.astype(np.float32), label), GESTURES, rng=rng),
        ),
        curves=curves_of(noisy),
        communities=communities_of("k-means", member, np.where(seen, label, -1), GESTURES),
    )


def results_of(outcomes: list[Outcome], seed: int = 0) -> Results:
    """Rows, differences, scan and controls as the benchmark makes them."""
    rng = np.random.default_rng(seed)
    rows = make_rows(outcomes, bootstrap=200)
    pairs = [("regression", "cpep"), ("regression", "embridge"), ("embridge", "cpep"), ("embridge", "shuffled-pairs")]
    pairs += [(m, "embridge") for m in sorted({o.job.method for o in outcomes}) if ":" in m]
    differences = paired_differences(outcomes, pairs)
    values = np.clip(rng.normal(0.37, 0.09, 495), 0.1, 0.7)
    return Results(
        rows=tuple(rows),
        differences=tuple(differences),
        scan=(Scanned(method="regression", values=tuple(values.tolist()), folds={"A": 0.413, "B": 0.345, "C": 0.396}),),
        controls=(
            Control(name="rest-before-movement", balanced_accuracy=0.094, chance=0.083, ci95=(0.081, 0.107),
                    note="EMG before the movement should not tell which one follows"),
            Control(name="glove-at-rest", balanced_accuracy=0.619, chance=0.083, expected="above",
                    note="the hand at rest keeps traces of the gesture before it: pose ceilings are inflated"),
            Control(name="another wearer in the gallery", balanced_accuracy=0.0, chance=0.0, expected="raises",
                    note="LeakageError"),
        ),
        choice=pick_head(rows, candidates=("regression", "cpep", "embridge"), differences=differences),
        suite="full",
        data="ninapro:ninapro_db1",
        command="embridge learn benchmark --data ninapro:ninapro_db1 --suite full --json --out study",
        commit="0123456789abcdef",
        environment={"python": "3.11.9", "cpus": 2, "packages": {"torch": "2.13.0", "numpy": "2.4.6"}},
        wall_s=2712.4,
        failures=(("cpep.new-wearer", "B-r2-s1", "ModelError: training diverged"),),
    )  # fmt: skip


def write_study(folder: Path, *, rotations: int = 6, methods: tuple[str, ...] = (), artefacts: bool = True) -> Results:
    """Write the whole folder.

    Args:
        folder: Where to.
        rotations: Groups of held-out people.
        methods: By default all.
        artefacts: Write those too.
    """
    runs = runs_of(rotations=rotations)
    outcomes = outcomes_of(runs, methods or (*SKILL, *ABLATIONS, *SWITCHES))
    for outcome in outcomes:
        write_outcome(folder, outcome)
    if artefacts:
        write_artefacts(folder, artefacts_of(runs[0]))
    results = results_of(outcomes)
    write_results(folder, results)
    return results
