"""The benchmark: plan, run, scan, control, and one document of results."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from embridge_cloud.datasets.base import EmgKind, pick_participants
from embridge_cloud.datasets.windows import cut_windows
from embridge_cloud.learn.config import LearnConfig
from embridge_cloud.learn.methods import METHODS, SWITCHES
from embridge_cloud.runs.folder import environment
from embridge_cloud.runs.sets import fitted
from embridge_cloud.runs.spec import RunSpec
from embridge_cloud.study.choice import Choice, pick_head
from embridge_cloud.study.compare import Difference, paired_differences
from embridge_cloud.study.controls import controls_of, leaks_raise, shuffled_controls
from embridge_cloud.study.methods import CLOSED, method, methods
from embridge_cloud.study.protocol import Fold, Protocol, Run, fold_by_hand, folds_of, groups_of, plan
from embridge_cloud.study.results import Control, Results, Scanned, write_results
from embridge_cloud.study.rows import Row, failures, make_rows
from embridge_cloud.study.runner import Study, Tell, Told, add_elapsed, ignore, run_study
from embridge_cloud.study.scan import levels_of, scan
from embridge_cloud.study.source import DatasetSource
from embridge_cloud.study.splits import make_split
from embridge_cloud.study.suites import SuiteName, units_of
from embridge_shared.errors import ConfigError, DataError, OperatorError

_COMPARED = (
    Protocol.ZS_SEEN,
    Protocol.ZS_UNSEEN,
    Protocol.ZS_SEEN_TRIAL,
    Protocol.ZS_UNSEEN_TRIAL,
    Protocol.ZS_SEEN_PROTO,
    Protocol.ZS_UNSEEN_PROTO,
    Protocol.GZS_HARMONIC,
    Protocol.LP_SEEN,
    Protocol.LP_UNSEEN,
    Protocol.FEW_SHOT_1,
)
_AGAINST = ("regression", "embridge", "cpep")
_LADDER = (("qformer+cascle", "qformer"), ("qformer+mprl", "qformer"), ("cpep+cascle", "cpep"))
_MOST_SETS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a benchmark is asked for.

    Attributes:
        spec: Data, cut and learning; its split is not read.
        out: Folder of everything.
        suite: "quick" or "full".
        methods: Those to run; empty for the suite's.
        test_participants: Held-out people by hand; empty rotates everybody.
        unseen: Unseen gestures by hand; empty takes folds.
        folds: Folds by name; empty takes those that are reported.
        seeds: Number of seeds; 0 takes the suite's.
        jobs: Processes.
        command: That repeats it.
    """

    spec: RunSpec
    out: Path
    suite: SuiteName = "quick"
    methods: tuple[str, ...] = ()
    test_participants: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    folds: tuple[str, ...] = ()
    seeds: int = 0
    jobs: int = 2
    command: str = ""


@dataclass(frozen=True, slots=True)
class Planned:
    """A benchmark ready to run.

    Attributes:
        study: Units, data and configuration.
        folds: Choices of unseen gestures.
        groups: Held-out participants.
    """

    study: Study
    folds: tuple[Fold, ...]
    groups: tuple[tuple[str, ...], ...]


def plan_benchmark(asked: Asked) -> Planned:
    """Open the data and lay out every job.

    Raises:
        OperatorError: There is no such data, participant or method.
        ConfigError: Folds, gestures or shapes do not fit.
        DataError: The data hold no pose to compare with.
    """
    if not asked.spec.data:
        raise OperatorError("there is no data to learn from", hint='Give --data, as in "ninapro:FOLDER".')
    if asked.jobs < 0 or asked.seeds < 0:
        raise ConfigError("jobs and seeds cannot be negative")
    if asked.unseen and asked.folds:
        raise ConfigError("unseen gestures by hand leave no folds to choose", hint="Give --unseen or --folds.")
    for name in asked.methods:
        method(name)
    source = DatasetSource(asked.spec.data, asked.spec.cut)
    gestures, people = source.gestures(), source.participants()
    folds = (fold_by_hand(gestures, asked.unseen),) if asked.unseen else folds_of(gestures, asked.folds)
    chosen = pick_participants(source.dataset, asked.test_participants)
    if chosen and not set(people) - set(chosen):
        raise ConfigError("nobody is left to train on", hint="Hold out fewer participants.")
    groups = (chosen,) if chosen else groups_of(people)
    seeds = asked.seeds or (1 if asked.suite == "quick" else 3)
    runs = plan(folds, groups, seeds=seeds, sampled=asked.suite == "quick")
    config = _shaped(asked.spec, source)
    study = Study(
        source=source,
        config=config,
        units=units_of(
            asked.suite,
            runs,
            closed=CLOSED,
            switches=_switches(config),
            enrolling=tuple(n for n, s in SWITCHES.items() if s.pose_enrolled),
            only=asked.methods,
        ),
        folder=asked.out,
        jobs=asked.jobs,
    )
    return Planned(study, folds, groups)


def _switches(config: LearnConfig) -> tuple[str, ...]:
    """Switches that change something of the full method as it is configured here."""
    full = METHODS["embridge"]
    usual = full.configure(config)
    return tuple(n for n, s in SWITCHES.items() if s.fit is not full.fit or s.configure(config) != usual)


def _shaped(spec: RunSpec, source: DatasetSource) -> LearnConfig:
    """The learning with the shapes of this data's windows, one thread a process."""
    first = next(iter(source.dataset.recordings(source.participants()[0])))
    learn = fitted(spec.learn, cut_windows([first], spec.cut), spec.cut)
    return msgspec.structs.replace(learn, threads=1)


def run_benchmark(asked: Asked, *, tell: Tell = ignore, stage: Callable[[str], None] = lambda s: None) -> Results:
    """Run everything that is not done yet, and write `results.json`.

    Args:
        asked: What to run.
        tell: Told of every job.
        stage: Told of what comes beside the jobs.

    Raises:
        EmbridgeError: As `plan_benchmark`; a method that fails is among the results instead.
    """
    began = time.monotonic()
    planned = plan_benchmark(asked)
    clocked = _Clock(asked.out, began, tell)
    # as it is now: the code may change while a long study runs
    where = environment(planned.study.config.device, 1, max(1, asked.jobs))
    outcomes = run_study(planned.study, tell=clocked.tell)
    rows = make_rows(outcomes)
    differences = paired_differences(outcomes, _pairs(rows), protocols=_COMPARED)
    stage("controls")
    controls = [*shuffled_controls(rows), *_controls(planned, asked.spec)]
    stage("scan of all sets of unseen gestures")
    scanned = _scan(planned, asked.spec)
    results = Results(
        rows=tuple(rows),
        differences=tuple(differences),
        scan=scanned,
        controls=tuple(controls),
        choice=_choice(rows, differences),
        suite=asked.suite,
        data=asked.spec.data.partition(":")[0] + ":" + planned.study.source.fingerprint()[:12],
        command=asked.command,
        environment=where,
        wall_s=round(clocked.total(), 1),
        failures=tuple((job.name, run, error) for job, run, error in failures(outcomes)),
    )
    results = msgspec.structs.replace(results, commit=str(results.environment.get("commit", "")))
    write_results(asked.out, results)
    return results


class _Clock:
    """The time a study takes, kept on disk after each job so that a kill does not lose it."""

    def __init__(self, folder: Path, began: float, tell: Tell) -> None:
        self._folder, self._last, self._tell = folder, began, tell

    def tell(self, told: Told) -> None:
        if told.done:
            self.total()
        self._tell(told)

    def total(self) -> float:
        now = time.monotonic()
        total = add_elapsed(self._folder, now - self._last)
        self._last = now
        return total


def _pairs(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Which methods are compared: each with the references, each addition with what it is added to."""
    names = list(dict.fromkeys(r.method for r in rows))
    rank = {b: i for i, b in enumerate(_AGAINST)}
    against = [(a, b) for b in _AGAINST for a in names if rank.get(a, len(rank)) > rank[b]]
    return [*_LADDER, *against]


def _choice(rows: Sequence[Row], differences: Sequence[Difference]) -> Choice | None:
    known = methods()
    try:
        return pick_head(rows, differences=differences, shippable=lambda m: m in known and known[m].ships)
    except DataError:
        return None


def _controls(planned: Planned, spec: RunSpec) -> list[Control]:
    """What the recordings give away before a movement, and leaks tried on the first run's split."""
    source = planned.study.source
    assert isinstance(source, DatasetSource)
    run: Run = planned.study.units[0].run
    split = make_split(source.windows(run.fold.unseen), run, spec.cut.window_s)
    found = controls_of(source.recordings, planned.groups, window_s=spec.cut.window_s)
    return [*found, *leaks_raise(split)]


def _scan(planned: Planned, spec: RunSpec) -> tuple[Scanned, ...]:
    """The cheap head over all sets; nothing where EMG is no envelope or the sets are too many."""
    source = planned.study.source
    assert isinstance(source, DatasetSource)
    gestures = source.gestures()
    size = len(planned.folds[0].unseen)
    if source.dataset.facts.emg_kind is not EmgKind.ENVELOPE or not _few_sets(len(gestures), size):
        return ()
    windows = cut_windows(source.recordings, msgspec.structs.replace(spec.cut, emg_scale=None), gestures=gestures)
    levels = levels_of(source.recordings, windows.participants, gestures)
    return (scan(windows, levels, planned.groups, planned.folds, size=size, config=spec.cut.scale),)


def _few_sets(gestures: int, size: int) -> bool:
    """Whether all sets can be looked at within seconds."""
    return gestures >= size + 2 and math.comb(gestures, size) <= _MOST_SETS
