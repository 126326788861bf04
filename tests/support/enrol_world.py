"""A release whose prior of wearers was learnt on simulated forearms, and wearers nobody has met."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec
import numpy as np

from embridge_cloud.learn.data import Windows, concatenate
from embridge_cloud.learn.wearer_prior import PriorSettings, fit_wearer_prior
from embridge_edge.bands.synthetic import SyntheticBand
from embridge_edge.enrol.capture import Capture, Origin
from embridge_edge.enrol.events import EnrolEvent
from embridge_edge.enrol.scripted import ScriptedBand
from embridge_edge.enrol.view import WearerView
from embridge_edge.forearm import CONTROL_HZ, Donning, Forearm, Performance, Timing, Wearer
from embridge_edge.recordings import Recording
from embridge_shared.gestures import find
from embridge_shared.preprocess import FrontEndConfig, PreprocessConfig, WindowConfig, fit_wearer_scale, run
from embridge_shared.preprocess.windows import windows
from embridge_shared.release import (
    CARD,
    ENCODER,
    ENCODER_INT8,
    GOLDEN,
    PROTOTYPES,
    WEARER,
    Bundle,
    Golden,
    pack_array,
    pack_golden,
    read_bundle,
    write_bundle,
)
from embridge_shared.release import Gesture as ReleaseGesture
from embridge_shared.scoring import PrototypeScorer
from embridge_shared.signal import StreamSpec
from embridge_shared.wearer import WearerPrior
from support.bundles import D, M, encoder, parts

SEEN = ("fist", "open", "point", "thumbs_up", "three", "hook")
UNSEEN = ("peace", "shaka")
PREPROCESS = PreprocessConfig(
    front_end=FrontEndConfig(mode="envelope", rate_hz=100.0), window=WindowConfig(length=80, hop=20, patch=20)
)
_EACH = 3


@cache
def spec() -> StreamSpec:
    """The simulated band's stream."""
    return SyntheticBand(_performance(0, ("fist",), 1)).spec


@cache
def recorded(seed: int, names: tuple[str, ...], repetitions: int = 2, *, donned: int | None = None) -> Windows:
    """Windows of a wearer, with pose; scaled in a donning of their own, or unscaled as `ScriptedBand` sits."""
    performance = _performance(seed, names, repetitions)
    rotation = float(np.random.default_rng(seed).normal(0, 3)) if donned is None else 0.0
    forearm = Forearm(performance.wearer, Donning(rotation_deg=rotation), seed=seed if donned is None else donned)
    steps = np.arange(int(performance.duration_s * CONTROL_HZ))
    raw = forearm.emg(performance.angles(steps / CONTROL_HZ + forearm.wearer.lead_s))
    scaled = run(PREPROCESS.front_end, spec(), raw)
    if donned is None:
        scaled = fit_wearer_scale(scaled[100:]).apply(scaled)
    emg, pose, label, repetition, start = [], [], [], [], []
    for p in performance.prompts:
        a, b = int(p.onset_s * 100) + 10, int(p.end_s * 100)
        cut, ends = windows(scaled[a:b], PREPROCESS.window, first=a)
        for w, end in zip(cut, ends, strict=True):
            emg.append(w)
            pose.append(performance.angles((end - 80 + np.arange(0, 80, 10)) / 100))
            label.append(names.index(p.gesture.name))
            repetition.append(p.repetition)
            start.append((end - 80) / 100)
    zeros = np.zeros(len(label), np.int64)
    return Windows(
        emg=np.stack(emg).astype(np.float32),
        pose=np.stack(pose).astype(np.float32),
        label=np.array(label),
        participant=zeros,
        session=zeros,
        repetition=np.array(repetition),
        start_s=np.array(start),
        gestures=names,
        participants=(f"p{seed}",),
        sessions=(f"s{seed}",),
    )


@cache
def prior(people: int = 5, settings: PriorSettings | None = None) -> WearerPrior:
    """What `people` simulated wearers say; nobody performed `UNSEEN`."""
    train = concatenate([recorded(s, SEEN) for s in range(people)])
    gallery = concatenate([templates(SEEN + UNSEEN)])
    return fit_wearer_prior(train, gallery, SEEN + UNSEEN, unseen=UNSEEN, settings=settings)


def templates(names: tuple[str, ...]) -> Windows:
    """Poses of the vocabulary, without EMG."""
    pose = np.stack([np.tile(g.pose, (8, 1)) for g in find(names)])
    zeros = np.zeros(len(names), np.int64)
    return Windows(
        emg=None,
        pose=pose.astype(np.float32),
        label=np.arange(len(names)),
        participant=zeros,
        session=zeros,
        repetition=zeros + 1,
        start_s=zeros.astype(np.float64),
        gestures=names,
        participants=("t",),
        sessions=("t",),
    )


def release(folder: Path, version: int = 1, made: WearerPrior | None = None) -> Bundle:
    """A release whose encoder knows nothing and whose prior of wearers does."""
    known = made or prior()
    rng = np.random.default_rng(version)
    weights = rng.normal(size=(16, M * D)).astype(np.float32)
    length = PREPROCESS.window.length
    rows = np.arange(len(known.gestures) * _EACH) // _EACH
    prototypes = rng.normal(size=(len(rows), D)).astype(np.float32)
    prototypes /= np.linalg.norm(prototypes, axis=1, keepdims=True)
    golden = rng.random((2, length, 16)).astype(np.float32)
    queries = (golden.mean(axis=1) @ weights).reshape(-1, M, D)
    queries = (queries / np.linalg.norm(queries, axis=-1, keepdims=True)).astype(np.float32)
    manifest, _ = parts(version)
    manifest = msgspec.structs.replace(
        manifest,
        preprocess=PREPROCESS,
        window=length,
        channels=16,
        gestures=tuple(
            ReleaseGesture(label=g, title=g, emg_seen=g in SEEN, prototypes=_EACH, provenance="test")
            for g in known.gestures
        ),
        rows=tuple(int(r) for r in rows),
        thresholds={},
    )
    files = {
        ENCODER: encoder(weights, length),
        ENCODER_INT8: encoder(weights, length),
        PROTOTYPES: pack_array(prototypes),
        GOLDEN: pack_golden(Golden(golden, queries, PrototypeScorer(prototypes, rows, k=manifest.k)(queries))),
        CARD: b"# For tests\n",
        WEARER: known.pack(),
    }
    path = folder / f"{manifest.release}.embridge"
    write_bundle(path, manifest, files)
    return read_bundle(path)


@dataclass
class Played:
    """A capture that was played by a simulated wearer, and all it told."""

    capture: Capture
    events: list[EnrolEvent]

    def of(self, kind: type) -> list:
        return [e for e in self.events if isinstance(e, kind)]


def play(band: ScriptedBand, make: Callable[[Origin], Capture], **origin: object) -> Played:
    """Lead a simulated wearer through a capture, as fast as it goes."""
    given = {"session": None, "edge": "edge-1", "source": "synthetic", "time_ns": lambda i: i * 500_000} | origin

    async def go() -> Played:
        out = Played(make(Origin(**given)), [])
        await band.open(0)
        async for packet in band.packets():
            events = out.capture.push(packet.first, packet.samples)
            out.events += events
            band.hear(events)
            if out.capture.done:
                break
        await band.close()
        return out

    return asyncio.run(go())


def band(wearer: int, performance: int = 1, **more: object) -> ScriptedBand:
    return ScriptedBand(wearer, performance, speed=math.inf, **more)


def accuracy(view: WearerView, wearer: int, names: tuple[str, ...], repetitions: int = 2) -> float:
    """Share of windows of another recording of a wearer in the same donning that their model decides right."""
    model, found = view.model(), recorded(wearer, names, repetitions, donned=0)
    assert model is not None
    assert view.scale is not None
    assert found.emg is not None
    scores = model.log_likelihood(model.prior.describe(view.scale.apply(found.emg)))
    return float(
        np.mean([model.labels[i] == names[t] for i, t in zip(scores.argmax(axis=1), found.label, strict=True)])
    )


def _performance(seed: int, names: tuple[str, ...], repetitions: int) -> Performance:
    return Performance(
        Wearer.random(seed),
        find(names),
        repetitions=repetitions,
        rng=np.random.default_rng([seed, len(names)]),
        timing=Timing(lead_in_s=1.5, cue_s=1.6, rest_s=1.0, jitter_s=0.2),
        shuffled=True,
    )


def simulated(name: str, wearer: int) -> Recording:
    """A recording of a wearer as `ScriptedBand` sits: of what was seen, of one gesture, or of "other", a fist."""
    names = SEEN[:3] if name == "seen" else ("fist",) if name == "other" else (name,)
    performance = Performance(
        Wearer.random(wearer),
        find(names),
        repetitions=3,
        rng=np.random.default_rng([wearer, len(name)]),
        timing=Timing(lead_in_s=3.0, cue_s=2.5, rest_s=2.5),
    )
    forearm = Forearm(performance.wearer, Donning(), seed=0)
    steps = np.arange(int(performance.duration_s * CONTROL_HZ))
    raw = forearm.emg(performance.angles(steps / CONTROL_HZ + forearm.wearer.lead_s))
    annotations = tuple(
        msgspec.structs.replace(a, gesture="other") if name == "other" else a for a in performance.annotations()
    )
    return Recording(f"w{wearer}", spec(), raw, None, None, annotations, name)
