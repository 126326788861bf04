"""False activations on real EMG that is no gesture, beside the recall kept; confidence before and after calibration.

NinaPro DB1, whole recordings of 18 people: their rest is the non-gesture EMG. A wearer's model is made after three
repetitions of the seen gestures, the closed head knows nothing of the wearer; prior, head and thresholds are fitted on
other people. `myo_readings`: a minute of hibernation each, small movements allowed, of eight wearers of a Myo.

The peer decides each window by itself: the likeliest gesture, if its probability reaches a threshold. `plain, 0.9` is
fixed at 0.9 of uncalibrated probabilities; `plain, tuned` is the lowest threshold of calibrated ones that keeps the
same target on the same people our thresholds are fitted on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import msgspec
import numpy as np
import polars as pl

from benchmarks.framework import Row
from embridge_cloud.datasets.features import fit_wearer, prepare
from embridge_cloud.learn.closed import fit_closed
from embridge_cloud.learn.data import Windows
from embridge_cloud.learn.decisions import DecisionReport, fit_decision, judge_decision
from embridge_cloud.learn.onsets import BETWEEN, REST, Course, Trace
from embridge_cloud.learn.presets import envelope
from embridge_cloud.learn.wearer_prior import fit_wearer_prior
from embridge_cloud.prototypes import build_prototypes
from embridge_cloud.runs.spec import default_spec
from embridge_cloud.study.protocol import Fold, db1_fold
from embridge_cloud.study.source import DatasetSource
from embridge_cloud.traces import AFTER_S, Done, Stretch, sound_stretches
from embridge_cloud.tuning import Speaker, head_traces, wearer_traces
from embridge_shared.decision import DecisionConfig
from embridge_shared.preprocess import (
    FrontEnd,
    FrontEndConfig,
    PreprocessConfig,
    ScaleConfig,
    WindowConfig,
    fit_scale,
)
from embridge_shared.signal import Modality, SampleType, StreamSpec
from embridge_shared.wearer import WearerPrior

GROUP = "decisions"
FOLDS = ("A", "B", "C")
TARGETS = (6.0, 30.0)
HOP = 10
PARTS = 3
_GRID = (0.9999, 0.999, 0.995, 0.99, 0.98, 0.96, 0.93, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4)
_FIGURES = (
    ("false activations", "false_per_hour", "1/h"),
    ("recall", "recall", "share"),
    ("told right", "right", "share"),
    ("latency", "latency_s", "s"),
)
_FIXED = DecisionConfig(rest_below=-1, rest_above=-1, steady_s=0, onset_s=0, release_s=0, otherwise=0.9)
_HIBERNATION = 12_000
_MYO = ("flexion", "extension", "radial", "ulnar", "pronation", "supination", "fist")


def rows() -> list[Row]:
    """Rows: mean over folds on DB1, the spread is over folds; one value on `myo_readings`."""
    data = Path(os.environ.get("EMBRIDGE_TEST_DATA", "../shared/data"))
    told: list[Row] = []
    wearers: list[dict[str, DecisionReport]] = []
    heads: list[dict[str, DecisionReport]] = []
    for fold in map(db1_fold, FOLDS):
        world = db1(data / "ninapro_db1", fold)
        wearers.append(measured(wearer_traces(world.recorded, world.prior_without), world.gestures))
        heads.append(measured(head_traces((), world.speaker(()), world.recorded, world.speaker), world.gestures))
    told += rows_of("DB1, wearer's model, 3 repetitions", wearers)
    told += rows_of("DB1, closed head, no repetition", heads)
    told += rows_of("myo_readings hibernation, 3 repetitions", [myo(data / "myo_readings")])
    return told


def measured(traces: Sequence[Trace], labels: Sequence[str]) -> dict[str, DecisionReport]:
    """What we and the peers are worth on people that chose no threshold, by name."""
    found: dict[str, list[DecisionReport]] = {}
    people = sorted({t.person for t in traces})
    for fold in range(PARTS):
        judged = set(people[fold::PARTS])
        others = [t for t in traces if t.person not in judged]
        own = [t for t in traces if t.person in judged]
        fitted = fit_decision(others, labels)
        tempered = msgspec.structs.replace(_FIXED, temperature=fitted.temperature, floor=fitted.floor)
        makers = {"plain, 0.9": _FIXED}
        for target in TARGETS:
            makers[f"ours, {target:g}/h"] = fitted.at(target)
            makers[f"plain, tuned, {target:g}/h"] = tuned(others, labels, tempered, target)
        for name, config in makers.items():
            found.setdefault(name, []).append(judge_decision(own, labels, config))
    return {name: merged(reports) for name, reports in found.items()}


def tuned(traces: Sequence[Trace], labels: Sequence[str], config: DecisionConfig, target: float) -> DecisionConfig:
    """The peer with the lowest threshold that keeps a target."""
    courses = [(t, Course.of(t, config)) for t in traces]
    hours = sum(t.rest_s for t in traces) / 3600
    kept = 1.0
    for least in _GRID:
        believed = np.full(len(labels), least * (1 - config.floor))
        starts = [t.truth[hop] == REST for t, c in courses for hop, _ in c.onsets(believed, config, t.hop_s)]
        if sum(starts) / hours > target:
            break
        kept = float(believed[0])
    return msgspec.structs.replace(config, otherwise=kept)


def merged(reports: Sequence[DecisionReport]) -> DecisionReport:
    """One report of several groups of people: rates by hours of rest, shares by performances."""
    hours = sum(r.rest_hours for r in reports)
    count = sum(r.performances for r in reports)
    shares = {
        what: sum(getattr(r, what) * r.performances for r in reports) / count
        for what in ("recall", "right", "ece", "ece_untempered", "accuracy")
    }
    told = [r for r in reports if np.isfinite(r.latency_s)]
    return DecisionReport(
        false_per_hour=sum(r.false_per_hour * r.rest_hours for r in reports) / hours,
        rest_hours=hours,
        performances=count,
        people=sum(r.people for r in reports),
        latency_s=fmean(r.latency_s for r in told) if told else float("inf"),
        **shares,
    )


def rows_of(title: str, folds: Sequence[dict[str, DecisionReport]]) -> Iterator[Row]:
    """A row a figure and maker."""
    for maker in folds[0]:
        for name, key, unit in _FIGURES:
            yield _row(f"{title}, {maker}, {name}", unit, [getattr(f[maker], key) for f in folds])
    ours = [f[f"ours, {TARGETS[0]:g}/h"] for f in folds]
    yield _row(f"{title}, calibration error before", "ECE", [f.ece_untempered for f in ours])
    yield _row(f"{title}, calibration error after", "ECE", [f.ece for f in ours])
    yield _row(f"{title}, non-gesture EMG", "h", [f.rest_hours for f in ours])


def _row(name: str, unit: str, values: list[float]) -> Row:
    spread = (min(values), max(values))
    return Row(group=GROUP, name=name, value=fmean(values), unit=unit, spread=spread, repeats=len(values))


@dataclass(frozen=True)
class World:
    """Recordings of everybody, and what is fitted without some of them."""

    windows: Windows
    recorded: tuple[Stretch, ...]
    gestures: tuple[str, ...]
    unseen: tuple[str, ...]
    posed: bool = True

    def prior_without(self, people: Sequence[str]) -> WearerPrior:
        """What the others say of a new wearer."""
        train = self._without(people)
        gallery = self._poses(people) if self.posed else None
        return fit_wearer_prior(train, gallery, self.gestures, unseen=self.unseen)

    def speaker(self, people: Sequence[str]) -> Speaker:
        """The closed head of the others."""
        train = self._without(people)
        emg = train.emg
        assert emg is not None
        config = envelope(channels=emg.shape[2], window=emg.shape[1], patch=20)
        head = fit_closed(train, config, unseen=self.unseen)
        index = build_prototypes(
            head.embed_pose, self._poses(people), self.gestures, per_gesture=24, seed=0,
            encoder=head.lineage.statistics,
        )  # fmt: skip
        return Speaker(head, index.scorer(8))

    def _others(self, people: Sequence[str]) -> Windows:
        return self.windows.of_participants(sorted(self.windows.present("participants") - set(people)))

    def _without(self, people: Sequence[str]) -> Windows:
        return self._others(people).of_gestures([g for g in self.gestures if g not in self.unseen])

    def _poses(self, people: Sequence[str]) -> Windows:
        return self._others(people).without_emg()


def db1(folder: Path, fold: Fold) -> World:
    """NinaPro DB1; moments of the fold's unseen gestures are cut out."""
    spec = default_spec("envelope")
    source = DatasetSource(f"ninapro:{folder}", spec.cut)
    gestures = source.gestures()
    names = (*(g for g in gestures if g not in fold.unseen), *fold.unseen)
    config = PreprocessConfig(
        front_end=FrontEndConfig(
            mode="identity", rate_hz=spec.cut.rate_hz, highpass_hz=None, lowpass_hz=None, notch_hz=()
        ),
        window=WindowConfig(length=spec.cut.length, hop=HOP, patch=20),
    )
    recorded: list[Stretch] = []
    for recording in source.recordings:
        found = prepare(recording, spec.cut, frozenset(fold.unseen))
        scale = fit_wearer([found], spec.cut)
        assert scale is not None
        done = Done.nothing(len(found.features))
        for s in found.segments:
            if s.repetition > 0:
                seen = s.gesture not in fold.unseen
                after = 0 if seen else round(AFTER_S * spec.cut.rate_hz)
                done.mark(slice(s.start, s.stop + after), names.index(s.gesture) if seen else None, s.repetition)
        recorded += sound_stretches(found.participant, found.features, scale, config, done)
    return World(source.windows(fold.unseen), tuple(recorded), names, fold.unseen)


def myo(folder: Path) -> dict[str, DecisionReport]:
    """Figures on `myo_readings`: of what was no gesture only hibernation counts, since rests hold late movement."""
    config = PreprocessConfig(
        front_end=FrontEndConfig(mode="envelope", rate_hz=100.0, lowpass_hz=None, notch_hz=()),
        window=WindowConfig(length=100, hop=5, patch=20),
    )
    recorded = [s for path in sorted(folder.glob("*.parquet")) for s in _myo_session(path, config)]
    world = World(_windows(recorded), tuple(recorded), _MYO, (), posed=False)
    traces = wearer_traces(world.recorded, world.prior_without)
    kept = []
    for trace in traces:
        if trace.rest_s and not trace.whole.any():
            kept.append(trace)
        else:
            kept.append(replace(trace, truth=np.where(trace.truth == REST, BETWEEN, trace.truth)))
    return measured(kept, _MYO)


def _myo_session(path: Path, config: PreprocessConfig) -> list[Stretch]:
    """A session in stretches: hibernation first, then each gesture with its rests."""
    table = pl.read_parquet(path)
    label = table["label"].to_numpy()
    raw = table.select([f"emg_{i}" for i in range(8)]).to_numpy()
    spec = StreamSpec(
        name="emg", modality=Modality.EMG, channels=tuple(f"e{i}" for i in range(8)), rate_hz=200.0,
        dtype=SampleType.INT16, device="myo",
    )  # fmt: skip
    edges = np.flatnonzero(np.diff(label)) + 1
    begins, ends = np.concatenate([[0], edges]), np.append(edges, len(label))
    runs = [(int(a), int(b), int(label[a])) for a, b in zip(begins, ends, strict=True)]
    # a minute of hibernation, then the recordings of the gestures, each ending with its gesture's last run
    last = [max(b for _, b, g in runs if g == gesture) for gesture in range(1, len(_MYO) + 1)]
    cuts = [0, _HIBERNATION, *last]
    features, done = [], []
    for a, b in pairwise(cuts):
        part = FrontEnd(config.front_end, spec).feed(raw[a:b])
        marks, counted = Done.nothing(len(part)), {}
        if a:
            for begin, end, g in runs:
                if g and a <= begin < b:
                    counted[g] = counted.get(g, 0) + 1
                    # a reaction after the prompt
                    marks.mark(slice((begin - a) // 2 + 50, (end - a) // 2), g - 1, counted[g])
        features.append(part)
        done.append(marks)
    scale = fit_scale(ScaleConfig(), np.concatenate([f.values[~f.flawed] for f in features]))
    out: list[Stretch] = []
    for part, marks in zip(features, done, strict=True):
        out += sound_stretches(path.stem, part, scale, config, marks)
    return out


def _windows(recorded: Sequence[Stretch]) -> Windows:
    """Training windows of performed gestures."""
    people = sorted({s.person for s in recorded})
    emg, label, who, number = [], [], [], []
    for stretch in recorded:
        for gesture, repetition, view in stretch.performed():
            few = view[::4]
            emg.append(few)
            label += [gesture] * len(few)
            who += [people.index(stretch.person)] * len(few)
            number += [repetition] * len(few)
    n = len(label)
    return Windows(
        emg=np.concatenate(emg), pose=None, label=np.array(label), participant=np.array(who), session=np.array(who),
        repetition=np.array(number), start_s=np.arange(n, dtype=np.float64), gestures=_MYO,
        participants=tuple(people), sessions=tuple(people),
    )  # fmt: skip
