"""How each kind of method is trained; `methods` names and configures them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from embridge_cloud.learn import leakage
from embridge_cloud.learn import supervised as nets
from embridge_cloud.learn.config import LearnConfig
from embridge_cloud.learn.data import Windows
from embridge_cloud.learn.ensemble import blend
from embridge_cloud.learn.loop import Run
from embridge_cloud.learn.optim import ProgressCallback, ignore_progress, reproducible, resolve_device
from embridge_cloud.learn.pipeline import pretrain_encoders
from embridge_cloud.learn.pipeline import train as train_bridge
from embridge_cloud.learn.pretrain import Pretrained, emg_statistics, new_encoder
from embridge_cloud.learn.spaces import EmbeddingSpace, PoseSpace, PostureSpace
from embridge_cloud.learn.speakers import Adaptable, Frozen, PoseCeiling, Speaker, paired_pose
from embridge_cloud.learn.supervised import Outspoken, SummaryNet
from embridge_cloud.learn.trained import Lineage
from embridge_cloud.learn.warm import Start
from embridge_cloud.learn.wearer import moments, with_calibration
from embridge_cloud.learn.zeroshot import Embedder
from embridge_shared.errors import ConfigError, OperatorError

Array = NDArray[np.float32]
Change = Callable[[LearnConfig], LearnConfig]
S = TypeVar("S", bound=msgspec.Struct)


def changed(config: S, **values: object) -> S:
    """A configuration with some values replaced and checked again."""
    return msgspec.structs.replace(config, **values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What one fit is given; see `methods.fit_method`.

    Attributes:
        base: The configuration the method's was made from.
        config: The method's.
    """

    train: Windows
    base: LearnConfig
    config: LearnConfig
    seed: int
    pretrained: Pretrained | None = None
    calibration: Windows | None = None
    unseen: tuple[str, ...] = ()
    poses: Windows | None = None
    progress: ProgressCallback = ignore_progress
    run: Run | None = None
    start: Start | None = None

    def where(self) -> Run:
        """Where it runs."""
        return self.run or Run(resolve_device(self.config.device), self.progress)

    def first_stage(self) -> Pretrained:
        """Encoders: those given where they fit, else trained here.

        Raises:
            ConfigError: Unpaired poses are switched on and there are none.
            OperatorError: The encoders given come from other windows.
            LeakageError: A window to train on is of an unseen gesture.
        """
        leakage.check_unseen(self.train, self.unseen)
        config = self.config
        if self.start is not None:
            return self.start.pretrained(self.train, seed=self.seed)
        if config.unpaired_pose and self.poses is None:
            raise ConfigError("unpaired_pose is on and no poses are given", hint="Pass windows of pose as `poses`.")
        given = self.pretrained
        if given is not None and given.data[0] != self.train.digest():
            raise OperatorError(
                "the pre-trained encoders come from other windows", hint="Run the first stage on these windows."
            )
        if given is None or first_stage_of(config) != first_stage_of(self.base):
            extra = self.poses if config.unpaired_pose else None
            given = pretrain_encoders(self.train, config, seed=self.seed, poses=extra, run=self.where())
        if not config.from_scratch or self.train.emg is None:
            return given
        with reproducible(self.seed, config.threads, torch.device("cpu")):
            return replace(given, emg=new_encoder(config.emg, config, emg_statistics(self.train.emg)))

    def pairs(self) -> Windows:
        """The training windows, joined by the calibrated wearers'."""
        leakage.check_unseen(self.train, self.unseen)
        if self.calibration is None:
            return self.train
        leakage.check_unseen(self.calibration, self.unseen, what="calibration")
        rng = np.random.default_rng([self.seed, 4])
        return with_calibration(self.train, self.calibration, self.config.wearer.share, rng)


Fit = Callable[[Task], Speaker]


def first_stage_of(config: LearnConfig) -> tuple[object, ...]:
    """What the first stage depends on; encoders can be shared where it is equal."""
    optimiser = config.optimiser
    return (config.emg, config.pose, config.encoder, config.emg_mae, config.pose_mae, optimiser, config.unpaired_pose)


def aligned(task: Task, *, shuffle: bool = False) -> Speaker:
    """The EMG side speaks the pose encoder's language."""
    given, pairs = task.first_stage(), task.pairs()
    if pairs is not task.train:
        given = replace(given, data=(pairs.digest(), *given.data))
    return train_bridge(
        pairs,
        None,
        task.config,
        seed=task.seed,
        unseen=task.unseen,
        pretrained=given,
        shuffle_pairs=shuffle,
        run=task.where(),
        start=task.start,
    )


def shuffled(task: Task) -> Speaker:
    """The same on broken pairs."""
    return aligned(task, shuffle=True)


def supervised(task: Task) -> Outspoken:
    """A classifier of the seen gestures on the pre-trained EMG encoder."""
    given, windows = task.first_stage(), task.pairs()
    windows = windows.select(windows.label >= 0)
    pose = paired_pose(task.train)
    present = np.unique(windows.label)
    gestures = tuple(windows.gestures[i] for i in present)
    label = np.searchsorted(present, windows.label).astype(np.int64)
    space = PostureSpace.of(pose)
    standardised = space.standardised(windows.pose)
    words = np.stack([standardised[label == i].mean(axis=0) for i in range(len(gestures))])
    net, history = _train_net(task, given, windows, (label, len(gestures), "supervised"))
    return _outspoken(task, windows, net, space, history, words=words, gestures=gestures)


def regression(task: Task) -> Outspoken:
    """A network that says the pose itself."""
    given, windows = task.first_stage(), task.pairs()
    pose = paired_pose(task.train)
    target: Array
    space: PoseSpace
    if task.config.regression.target == "posture":
        posture = PostureSpace.of(pose)
        space, target = posture, posture.standardised(windows.pose)
    else:
        space = EmbeddingSpace.of(given.copies()[1], pose)
        target = space.vectors(windows.pose)
        target = target * np.float32(target.shape[1] ** 0.5)
    net, history = _train_net(task, given, windows, (target, target.shape[1], "regression"))
    pose_seen = given.pose_gestures if task.config.regression.target == "embedding" else frozenset()
    return _outspoken(task, windows, net, space, history, pose_gestures=pose_seen)


def both(task: Task) -> Speaker:
    """The aligned method and the regression, blended."""
    return blend([aligned(task), regression(replace(task, pretrained=task.first_stage()))])


def frozen_encoder(task: Task) -> Frozen:
    """The first stage alone."""
    made = Frozen(task.first_stage().copies()[0], task.config, _lineage(task, task.train))
    return replace(made, lineage=_sealed(made))


def pose_ceiling(task: Task) -> PoseCeiling:
    """The pose encoder on both sides."""
    space = EmbeddingSpace.of(task.first_stage().copies()[1], paired_pose(task.train))
    made = PoseCeiling(space, task.config, _lineage(task, task.train))
    return replace(made, lineage=_sealed(made))


def adaptable(task: Task) -> Adaptable:
    """The aligned method, ready to be moved to a wearer."""
    base = aligned(task)
    return Adaptable(base, moments(base, task.train.emg))


def _train_net(
    task: Task, given: Pretrained, windows: Windows, target: tuple[NDArray[Any], int, str]
) -> tuple[SummaryNet, dict[str, list[float]]]:
    """A network trained on windows and (target, outputs, stage)."""
    values, outputs, name = target
    config, run, classes = task.config, task.where(), name == "supervised"
    with reproducible(task.seed + 1, config.threads, run.device):
        net = SummaryNet(given.copies()[0], outputs, config, classes=classes)
        net.fit_path(windows, values, config)
        make = nets.classifier_loss if classes else nets.regression_loss
        rng = np.random.default_rng([task.seed, 2])
        steps = config.supervised.steps if classes else 0
        history = nets.train_net(
            net, windows, values, run, config=config, loss=make(net, config), name=name, rng=rng, steps=steps
        )
    return net, given.history | history


def _outspoken(
    task: Task,
    windows: Windows,
    net: SummaryNet,
    space: PoseSpace,
    history: dict[str, list[float]],
    *,
    words: Array | None = None,
    gestures: tuple[str, ...] = (),
    pose_gestures: frozenset[str] = frozenset(),
) -> Outspoken:
    """A trained network with its lineage."""
    lineage = _lineage(task, windows, pose_gestures)
    made = Outspoken(net, task.config, space, lineage, history, words=words, gestures=gestures)
    return replace(made, lineage=_sealed(made))


def _lineage(task: Task, windows: Windows, pose_gestures: frozenset[str] | None = None) -> Lineage:
    """Where a method comes from; its statistics are sealed afterwards."""
    seen = windows.present("gestures")
    extra = task.poses.present("gestures") if task.config.unpaired_pose and task.poses is not None else frozenset()
    return Lineage(
        seed=task.seed,
        config=task.config.digest(),
        data=tuple(dict.fromkeys((windows.digest(), task.train.digest()))),
        statistics="",
        participants=tuple(sorted(windows.present("participants"))),
        sessions=tuple(sorted(windows.present("sessions"))),
        emg_gestures=tuple(sorted(seen)),
        pose_gestures=tuple(sorted(seen | (extra if pose_gestures is None else pose_gestures))),
    )


def _sealed(made: Embedder) -> Lineage:
    """The lineage with the digest of the statistics."""
    return changed(made.lineage, statistics=leakage.statistics_digest(made.statistics()))
