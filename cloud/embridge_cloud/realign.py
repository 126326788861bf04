"""Realignment: from sealed sessions to a candidate release.

A pure job: it reads a folder of sealed sessions and a recipe, writes a folder with the bundle, the model, a control
with broken pairs and a summary, and touches nothing else; so it runs in a child process and can be killed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_cloud.card import model_card
from embridge_cloud.gates.files import write_guard
from embridge_cloud.gates.guard import inspect
from embridge_cloud.learn.config import DEEP, HeadName
from embridge_cloud.learn.data import Windows, concatenate
from embridge_cloud.learn.export import Exported, export_encoder, export_pose, run_singly
from embridge_cloud.learn.export_stream import export_stream
from embridge_cloud.learn.heads import Head, fit_head, save_head
from embridge_cloud.learn.optim import Progress, ProgressCallback
from embridge_cloud.learn.trained import Trained
from embridge_cloud.learn.wearer_prior import fit_wearer_prior
from embridge_cloud.learn.zeroshot import evaluate_zero_shot
from embridge_cloud.prototypes import PrototypeIndex, build_prototypes
from embridge_cloud.recipe import CONTROL, MODEL, SUMMARY, Recipe, Summary
from embridge_cloud.replay import replayed
from embridge_cloud.snapshot import Snapshot, take_snapshot
from embridge_cloud.store.sealed import Catalogue
from embridge_cloud.study.choice import Choice
from embridge_cloud.traces import trace_of
from embridge_cloud.training import Desk, Trainer, space_of
from embridge_cloud.tuning import Speaker, Tuned, doubted, head_traces, tune, wearer_traces
from embridge_shared import gestures as vocabulary
from embridge_shared.archive import write_atomically
from embridge_shared.clock import Clock
from embridge_shared.errors import DataError
from embridge_shared.manifest import PoseSpace, lineage_code
from embridge_shared.performance import Performances, measure
from embridge_shared.preprocess import PoseConfig
from embridge_shared.release import (
    CARD,
    ENCODER,
    ENCODER_INT8,
    GOLDEN,
    PERFORMANCE,
    POSE,
    PROTOTYPES,
    STREAM,
    STREAM_INT8,
    SUFFIX,
    WEARER,
    Gesture,
    Golden,
    Lineage,
    Manifest,
    pack_array,
    pack_golden,
    write_bundle,
)
from embridge_shared.scoring import PrototypeScorer
from embridge_shared.wearer import WearerPrior

logger = logging.getLogger(__name__)

_GOLDEN_WINDOWS = 8
_SAMPLE = 256


def realign(
    store: Path, config: Recipe, out: Path, clock: Clock, progress: ProgressCallback, *, desk: Desk | None = None
) -> Summary:
    """Train on what is sealed and write a candidate release.

    Args:
        store: Folder of sealed sessions.
        config: What to make.
        out: Where to; made.
        clock: Dates the release.
        progress: Told after every step.
        desk: Frozen data, a model to go on from, checkpoints; by default none of them.

    Raises:
        DataError: Too little data.
        LeakageError: The split would let an evaluation see what it must not.
        ModelError: Training diverged, the exported encoder answers differently, or the pose space did not stay.
    """
    desk = desk or Desk()
    out.mkdir(parents=True, exist_ok=True)
    snapshot = take_snapshot(Catalogue(store), config, progress, frozen=desk.frozen)
    progress(Progress("guard", 0, 1, 0.0))
    write_guard(out, inspect(snapshot.train, desk.trusted))
    snapshot = replace(snapshot, train=replayed(snapshot.train, desk.trusted, config.replay, seed=config.seed))
    trainer = Trainer(snapshot, config, out, desk, progress)
    choice = trainer.choose()
    head = trainer.head(choice)
    save_head(head, out / MODEL)
    for number in range(config.controls):
        control = trainer.control(choice, number)
        save_head(control, out / f"{CONTROL}-{number}")
        _prototypes(snapshot, config, control).save(out / f"{CONTROL}-{number}")
    progress(Progress("export", 0, 1, 0.0))
    summary = _release(snapshot, config, choice, head, out, clock)
    new = tuple(s for s in snapshot.sessions if s not in set(desk.trusted))
    left_out = dict(snapshot.left_out)
    summary = msgspec.structs.replace(summary, warm=trainer.warm, new_sessions=new, left_out=left_out)
    write_atomically(out / SUMMARY, msgspec.json.format(msgspec.json.encode(summary)))
    trainer.done()
    progress(Progress("export", 1, 1, 0.0))
    return summary


def _prototypes(snapshot: Snapshot, config: Recipe, head: Head) -> PrototypeIndex:
    return build_prototypes(
        head.embed_pose,
        _gallery(snapshot, config),
        (*config.seen, *config.unseen),
        per_gesture=config.prototypes,
        seed=config.seed,
        encoder=head.lineage.statistics,
        whole=config.unseen if config.unseen_from == "templates" else (),
    )


def _release(snapshot: Snapshot, config: Recipe, choice: Choice, head: Head, out: Path, clock: Clock) -> Summary:
    index = _prototypes(snapshot, config, head)
    rng = np.random.default_rng(config.seed)
    sample = _sample_of(snapshot.train.emg, rng)
    exported = export_encoder(head, sample)
    stream = export_stream(head, sample) if isinstance(head, Trained) else None
    tuned = _tuned(snapshot, config, choice, Speaker(head, index.scorer(config.k)), index.gestures)
    metrics = _metrics(snapshot, config, choice, head, exported, index) | tuned.metrics
    if stream is not None:
        metrics["parity.stream"] = stream.parity.max_abs
        metrics["parity.stream_int8_cosine"] = stream.int8_parity.cosine
    manifest = _manifest(snapshot, config, choice, head, index, metrics, clock.wall_ns())
    manifest = msgspec.structs.replace(manifest, decision=tuned.decision, wearer_decision=tuned.wearer_decision)
    files = {
        ENCODER: exported.onnx,
        ENCODER_INT8: exported.int8,
        PROTOTYPES: pack_array(index.vectors),
        GOLDEN: pack_golden(_golden(exported, index.scorer(config.k), sample, rng)),
        CARD: model_card(manifest).encode(),
        POSE: export_pose(head, _sample_of(_gallery(snapshot, config).pose, rng)),
        PERFORMANCE: _performances(snapshot, config).pack(),
        **({} if stream is None else {STREAM: stream.onnx, STREAM_INT8: stream.int8}),
        **_wearer(snapshot, config, index.gestures),
    }
    path = out / f"{manifest.release}{SUFFIX}"
    digest = write_bundle(path, manifest, files)
    return Summary(
        release=manifest.release,
        digest=digest,
        bundle=path.name,
        snapshot=snapshot.digest,
        sessions=snapshot.sessions,
        participants=tuple(sorted(snapshot.train.present("participants"))),
        windows=len(snapshot.train),
        head=choice.method,
        head_reason=choice.reason,
        metrics=metrics,
        history=head.history if isinstance(head, Trained) else {},
        anchor=space_of(head),
    )


def _tuned(snapshot: Snapshot, config: Recipe, choice: Choice, speaker: Speaker, gestures: tuple[str, ...]) -> Tuned:
    """How the release decides, fitted on people its head and its prior were not fitted on."""
    learners = snapshot.train.present("participants")
    trained = [s for s in snapshot.stretches if s.person in learners]
    strangers = [s for s in snapshot.stretches if s.person in config.validation]

    def refit(people: Sequence[str]) -> Speaker:
        part = snapshot.without(people)
        name = msgspec.convert(choice.method, HeadName)
        head = fit_head(name, part.train, config.learn, seed=config.seed, unseen=config.unseen)
        return Speaker(head, _prototypes(part, config, head).scorer(config.k))

    def prior_without(people: Sequence[str]) -> WearerPrior:
        part = snapshot.without(people)
        return fit_wearer_prior(part.train, _gallery(part, config), gestures, unseen=config.unseen)

    cheap = choice.method not in DEEP
    traces = head_traces(strangers, speaker, trained, refit if cheap else None)
    decision, metrics = tune(traces, gestures, "decision.release")
    if decision is None and not cheap:
        decision, _ = tune([trace_of(s, speaker) for s in trained], gestures, "decision.release")
        decision = None if decision is None else doubted(decision)
    wearer, more = tune(wearer_traces(trained, prior_without), gestures, "decision.wearer")
    return Tuned(decision, wearer, metrics | more)


def _sample_of(values: NDArray[np.float32] | None, rng: np.random.Generator) -> NDArray[np.float32]:
    """Some windows that an export is proved on."""
    assert values is not None
    return values[np.sort(rng.choice(len(values), min(_SAMPLE, len(values)), replace=False))]


def _wearer(snapshot: Snapshot, config: Recipe, gestures: tuple[str, ...]) -> dict[str, bytes]:
    """What the training participants say of a new wearer; nothing where they are too few."""
    try:
        prior = fit_wearer_prior(snapshot.train, _gallery(snapshot, config), gestures, unseen=config.unseen)
    except DataError as error:
        logger.warning("the release cannot be made a wearer's own: %s", error)
        return {}
    return {WEARER: prior.pack()}


def _manifest(
    snapshot: Snapshot,
    config: Recipe,
    choice: Choice,
    head: Head,
    index: PrototypeIndex,
    metrics: dict[str, float],
    created_ns: int,
) -> Manifest:
    participants = tuple(sorted(snapshot.train.present("participants")))
    return Manifest(
        name=config.line,
        version=config.version,
        created_ns=created_ns,
        code=version("embridge"),
        parent=config.parent,
        preprocess=config.preprocess,
        pose=_pose_config(config, head) if isinstance(head, Trained) else None,
        window=config.learn.emg.window,
        channels=config.learn.emg.channels,
        ring=config.ring,
        head=choice.method,
        head_reason=choice.reason,
        queries=head.config.qformer.spoken if isinstance(head, Trained) else 1,
        dim=index.vectors.shape[1],
        gestures=tuple(_gesture(name, config, index, len(participants)) for name in index.gestures),
        rows=tuple(index.rows.tolist()),
        k=config.k,
        lineage=Lineage(
            snapshot=snapshot.digest,
            sessions=snapshot.sessions,
            participants=tuple(sorted(lineage_code(p, snapshot.digest) for p in participants)),
            seed=config.seed,
            config=config.digest(),
        ),
        pose_space=_pose_space(head, config.generation),
        metrics=metrics,
    )


def _pose_space(head: Head, generation: int) -> PoseSpace | None:
    digest = space_of(head)
    return PoseSpace(digest=digest, generation=generation) if digest else None


def _gallery(snapshot: Snapshot, config: Recipe) -> Windows:
    """Poses of every gesture: recorded ones of the seen, recorded or drawn ones of the unseen."""
    parts = [snapshot.train.without_emg()]
    if config.unseen_from == "templates":
        performances = _performances(snapshot, config)
        parts += [_template_windows(performances, name) for name in config.unseen]
    elif snapshot.unseen_poses is not None:
        parts.append(snapshot.unseen_poses)
    return concatenate(parts)


def _performances(snapshot: Snapshot, config: Recipe) -> Performances:
    """How the training participants perform gestures: what clips of one that nobody performed are drawn from."""
    train = snapshot.train
    assert train.pose is not None
    return measure(
        train.pose,
        np.stack([train.participant, train.label, train.repetition]),
        rate_hz=config.learn.pose.rate_hz,
        prototypes=config.prototypes,
        seed=config.seed,
    )


def _template_windows(performances: Performances, name: str) -> Windows:
    """Clips of a gesture made from its template alone: the way in, and the shape held."""
    (gesture,) = vocabulary.find([name])
    clips = performances.clips(name, gesture.pose)
    n = len(clips)
    zeros = np.zeros(n, np.int64)
    return Windows(
        emg=None,
        pose=clips,
        label=zeros,
        participant=zeros,
        session=zeros,
        repetition=np.arange(n),
        start_s=np.arange(n, dtype=np.float64) * performances.frames / performances.rate_hz,
        gestures=(name,),
        participants=("template",),
        sessions=(f"template:{name}",),
    )


def _gesture(name: str, config: Recipe, index: PrototypeIndex, participants: int) -> Gesture:
    seen = name in config.seen
    recorded = seen or config.unseen_from == "recordings"
    (known,) = vocabulary.find([name])
    return Gesture(
        label=name,
        title=known.title,
        emg_seen=seen,
        prototypes=int((index.rows == index.gestures.index(name)).sum()),
        provenance=f"pose of {participants} participants" if recorded else "template of the vocabulary",
    )


def _pose_config(config: Recipe, trained: Trained) -> PoseConfig:
    return PoseConfig(
        rate_hz=config.learn.pose.rate_hz,
        length=config.learn.pose.window,
        patch=config.learn.pose.patch,
        mean=tuple(map(float, trained.pose_mean)),
        sd=tuple(map(float, trained.pose_sd)),
    )


def _metrics(
    snapshot: Snapshot, config: Recipe, choice: Choice, head: Head, exported: Exported, index: PrototypeIndex
) -> dict[str, float]:
    metrics = {"parity.cosine": exported.parity.cosine, "parity.int8_cosine": exported.int8_parity.cosine}
    for entry in choice.table:
        metrics |= {f"trial.{entry['method']}.{what}": entry[what] for what in ("seen", "unseen")}
    if isinstance(head, Trained):
        metrics["learn.linear_l2"] = head.config.linear.l2
        metrics |= {f"sanity.{k}": float(v) for k, v in msgspec.structs.asdict(head.sanity).items()}
    if snapshot.validation is not None:
        gallery = snapshot.train.without_emg().of_gestures(config.seen)
        seen = evaluate_zero_shot(head, snapshot.validation.without_pose(), gallery, seed=config.seed)
        metrics["validation.seen.balanced_accuracy"] = seen.prototype.balanced_accuracy
        metrics["validation.seen.chance"] = seen.prototype.chance
        metrics["index.recall"] = index.recall(head.embed_emg(snapshot.validation.emg))
    return metrics


def _golden(
    exported: Exported, scorer: PrototypeScorer, sample: NDArray[np.float32], rng: np.random.Generator
) -> Golden:
    """Windows that belong to nobody, each a blend of many people's, and what the full encoder answers to them."""
    weights = rng.dirichlet(np.full(len(sample), 0.5), _GOLDEN_WINDOWS)
    windows = np.tensordot(weights, sample, axes=1).astype(np.float32)
    queries = run_singly(exported.onnx, windows)
    return Golden(windows=windows, queries=queries, scores=scorer(queries))
