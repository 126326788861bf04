"""The whole run: two masked pre-trainings, the alignment, and what is known about it afterwards."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from embridge_cloud.learn import align as alignment
from embridge_cloud.learn import evaluate, leakage
from embridge_cloud.learn.config import LearnConfig
from embridge_cloud.learn.data import Windows, broken_pairs, class_balanced
from embridge_cloud.learn.loop import History, Run
from embridge_cloud.learn.model import Bridge, embed_emg, embed_poses
from embridge_cloud.learn.optim import ProgressCallback, ignore_progress, reproducible, resolve_device
from embridge_cloud.learn.pretrain import (
    MaePlan,
    Pretrained,
    emg_statistics,
    new_encoder,
    pose_statistics,
    train_mae,
)
from embridge_cloud.learn.slices import select_rows
from embridge_cloud.learn.trained import Lineage, Sanity, Trained, statistics_of
from embridge_cloud.learn.warm import Start
from embridge_shared.errors import DataError, OperatorError, Reason

logger = logging.getLogger(__name__)


def pretrain_encoders(
    windows: Windows,
    config: LearnConfig,
    *,
    seed: int,
    poses: Windows | None = None,
    progress: ProgressCallback = ignore_progress,
    run: Run | None = None,
) -> Pretrained:
    """First stage: both encoders by masked reconstruction.

    Args:
        windows: The train split, with EMG and pose.
        config: The run.
        seed: The same seed, data and threads give the same encoders.
        poses: Further windows whose pose, and only that, joins in.
        progress: Told after every step.
        run: Where, with which checkpoints; by default where `config` says, without any. It replaces `progress`.

    Raises:
        DataError: A modality is missing, of another shape, or too small.
    """
    emg, pose = _modalities(windows, config)
    if poses is not None:
        if poses.pose is None or poses.pose.shape[1:] != pose.shape[1:]:
            raise DataError("extra pose windows hold no pose of this shape", reason=Reason.WRONG_SHAPE)
        pose = np.concatenate([pose, poses.pose])
    run = run or Run(resolve_device(config.device), progress)
    history: History = {}
    order = np.random.default_rng([seed, 1])
    with reproducible(seed, config.threads, run.device):
        emg_encoder = new_encoder(config.emg, config, emg_statistics(emg)).to(run.device)
        plan = MaePlan("emg_mae", config.emg_mae, config.optimiser)
        history["emg_mae"] = train_mae(emg_encoder, emg, plan, run=run, rng=order)
        pose_encoder = new_encoder(config.pose, config, pose_statistics(pose)).to(run.device)
        plan = MaePlan("pose_mae", config.pose_mae, config.optimiser)
        history["pose_mae"] = train_mae(pose_encoder, pose, plan, run=run, rng=order)
    extra = poses.present("gestures") if poses is not None else frozenset()
    return Pretrained(
        emg=emg_encoder.cpu(),
        pose=pose_encoder.cpu(),
        history=history,
        pose_gestures=windows.present("gestures") | extra,
        data=(windows.digest(), *((poses.digest(),) if poses is not None else ())),
        seed=seed,
    )


def train(
    windows_train: Windows,
    windows_val: Windows | None,
    config: LearnConfig,
    *,
    seed: int,
    progress: ProgressCallback = ignore_progress,
    unseen: tuple[str, ...] = (),
    poses: Windows | None = None,
    pretrained: Pretrained | None = None,
    shuffle_pairs: bool = False,
    run: Run | None = None,
    start: Start | None = None,
) -> Trained:
    """Learn to speak the pose encoder's language from EMG.

    Args:
        windows_train: Pairs of the training participants.
        windows_val: Pairs of other participants, seen gestures only; None or empty to go without validation.
        config: The run.
        seed: The same seed, data and threads give the same model.
        progress: Told after every step.
        unseen: Gestures whose EMG must occur in neither set.
        poses: Further windows whose pose alone joins the first stage; ignored with `pretrained`.
        pretrained: Encoders of an earlier first stage on the same windows, for controls and ablations.
        shuffle_pairs: Control: permute the poses among the training windows so that every gesture's EMG meets the poses
            of all gestures alike; everything else equal.
        run: Where, with which checkpoints; by default where `config` says, without any. It replaces `progress`.
        start: A trained model whose EMG side is trained further; there is no first stage, and its pose space stays.

    Raises:
        LeakageError: Splits share people, sessions or moments, or hold EMG of unseen gestures.
        DataError: A modality is missing, of another shape, or too small.
        OperatorError: `pretrained` comes from other windows.
        ModelError: Training diverged.
    """
    pose = _modalities(windows_train, config)[1]
    _check_splits(windows_train, windows_val, config, unseen)
    run = run or Run(resolve_device(config.device), progress)
    if start is not None:
        pretrained = start.pretrained(windows_train, seed=seed)
    if pretrained is None:
        pretrained = pretrain_encoders(windows_train, config, seed=seed, poses=poses, run=run)
    elif windows_train.digest() != pretrained.data[0]:
        raise OperatorError(
            "the pre-trained encoders come from other windows", hint="Run the first stage on these windows."
        )
    rng = np.random.default_rng([seed, 2])
    with reproducible(seed + 1, config.threads, run.device):
        model = Bridge(*pretrained.copies(), config).to(run.device)
        cosine = alignment.prepare(model, pose, seed=seed) if start is None else start.begin(model)
        pairs = (
            replace(windows_train, pose=select_rows(pose, broken_pairs(windows_train.label, rng)))
            if shuffle_pairs
            else windows_train
        )
        alignment.fit_path(model, pairs)
        validate = _validation(windows_train, windows_val, config, seed)
        history = pretrained.history | alignment.align(model, pairs, run, rng, validate=validate, start=start)
        reliance = alignment.rebuild_reliance(model, pairs, rng) if config.loss.lam > 0 else 1.0
    model = model.cpu().eval()
    return Trained(
        model=model,
        config=config,
        history=history,
        lineage=_lineage(model, windows_train, pretrained, seed=seed, shuffled=shuffle_pairs, start=start),
        sanity=_sanity(model, history, cosine, reliance),
    )


def _modalities(windows: Windows, config: LearnConfig) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """EMG and pose of the shapes the configuration says."""
    for value, signal, name in ((windows.emg, config.emg, "EMG"), (windows.pose, config.pose, "pose")):
        wanted = (signal.window, signal.channels)
        if value is None or value.shape[1:] != wanted:
            raise DataError(
                f"training needs {name} windows of {wanted}, not {None if value is None else value.shape[1:]}",
                reason=Reason.WRONG_SHAPE,
                hint=f"Set {name.lower()}.window and {name.lower()}.channels to the shape of the windows.",
            )
    if windows.emg is None or windows.pose is None:
        raise DataError("training needs EMG and pose", reason=Reason.WRONG_SHAPE)
    return windows.emg, windows.pose


def _check_splits(train_: Windows, val: Windows | None, config: LearnConfig, unseen: tuple[str, ...]) -> None:
    """Leakage rules that hold before training."""
    leakage.check_unseen(train_, unseen)
    if val is None or len(val) == 0:
        return
    leakage.check_participants(train_.present("participants"), val.present("participants"), what="validation")
    leakage.check_sessions(train_.present("sessions"), val.present("sessions"), what="validation")
    leakage.check_overlap(train_, val, config.emg.window_s)
    leakage.check_unseen(val, unseen, what="validation")


def _validation(
    train_: Windows, val: Windows | None, config: LearnConfig, seed: int
) -> Callable[[Bridge], float] | None:
    """Zero-shot balanced accuracy of other people's seen gestures against the training poses."""
    if val is None or len(val) == 0:
        return None
    shared = sorted(train_.present("gestures") & val.present("gestures"))
    if len(shared) < 2:
        return None
    gallery, tested = train_.without_emg().of_gestures(shared), val.without_pose().of_gestures(shared)
    picked = class_balanced(gallery.label, np.random.default_rng([seed, 3]))
    gallery = gallery.select(picked)
    place = {g: i for i, g in enumerate(shared)}
    labels = np.array([place[gallery.gestures[i]] for i in gallery.label])
    truth = np.array([place[tested.gestures[i]] for i in tested.label])

    def score_of(model: Bridge) -> float:
        similarity = evaluate.gallery_similarity(embed_emg(model, tested.emg), embed_poses(model, gallery.pose))
        found = evaluate.knn(similarity, labels, classes=len(shared), k=config.evaluate.k)
        return evaluate.balanced_accuracy(truth, found)

    return score_of


def _lineage(
    model: Bridge, windows: Windows, pretrained: Pretrained, *, seed: int, shuffled: bool, start: Start | None
) -> Lineage:
    """Where the model comes from; what it went on from was learnt from too."""
    people, sessions, gestures = (set(windows.present(w)) for w in ("participants", "sessions", "gestures"))
    if start is not None:
        before = start.model.lineage
        people, sessions = people | set(before.participants), sessions | set(before.sessions)
        gestures |= set(before.emg_gestures)
    return Lineage(
        seed=seed,
        config=model.config.digest(),
        data=pretrained.data,
        statistics=leakage.statistics_digest(statistics_of(model)),
        participants=tuple(sorted(people)),
        sessions=tuple(sorted(sessions)),
        emg_gestures=tuple(sorted(gestures)),
        pose_gestures=tuple(sorted(pretrained.pose_gestures)),
        shuffled=shuffled,
    )


def _sanity(model: Bridge, history: History, cosine: float, reliance: float) -> Sanity:
    """Figures at the end, over the last ten steps."""
    last = {name: float(np.mean(values[-10:])) for name, values in history.items()}
    return Sanity(
        pose_cosine=cosine,
        centered=bool(torch.any(model.center != 0)),
        query_usage=last["query_usage"],
        query_cosine=last["query_cosine"],
        target_entropy=last["target_entropy"],
        neighbour_mass=last["neighbour_mass"],
        rebuild_reliance=reliance,
    )
