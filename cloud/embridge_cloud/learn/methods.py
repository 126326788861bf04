"""Every deep method by name: one configuration each, over the same encoders, loop and losses.

`METHODS` are the paper's methods, its ablations, the baselines and the controls; `SWITCHES` change one thing of the
full method and go beyond the paper. Both are fitted by `fit_method`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from embridge_cloud.learn import fitting
from embridge_cloud.learn.config import AugmentConfig, ElectrodeConfig, LearnConfig, LossConfig
from embridge_cloud.learn.data import Windows
from embridge_cloud.learn.fitting import Change, Fit, Task, changed
from embridge_cloud.learn.loop import Run
from embridge_cloud.learn.optim import ProgressCallback, ignore_progress
from embridge_cloud.learn.pretrain import Pretrained
from embridge_cloud.learn.speakers import Speaker, pose_as_emg
from embridge_cloud.learn.warm import Start
from embridge_shared.errors import ConfigError

__all__ = ["METHODS", "SWITCHES", "MethodSpec", "Speaker", "fit_method", "full", "method", "pose_as_emg"]

SMOOTHING = 0.1


@dataclass(frozen=True, slots=True)
class MethodSpec:
    """One method.

    Attributes:
        name: As it appears in rows.
        description: One line.
        paper: The row of the paper it stands for; empty where it has none.
        configure: The base configuration to the method's.
        fit: Trains it.
        needs_pretrained: It starts from encoders of the first stage.
        zero_shot: It can be compared with a gallery of poses; without, only probes and its own head mean anything.
        leaky: A ceiling: its queries are the tested wearer's own pose, handed over with `pose_as_emg`.
        control: It must stay at chance.
        pose_enrolled: It is given poses of gestures called unseen.
    """

    name: str
    description: str
    paper: str
    configure: Change
    fit: Fit
    needs_pretrained: bool = True
    zero_shot: bool = True
    leaky: bool = False
    control: bool = False
    pose_enrolled: bool = False


def _loss(**values: object) -> Change:
    """A change of the loss alone."""
    return lambda base: changed(base, loss=changed(full(base).loss, **values))


def full(base: LearnConfig) -> LearnConfig:
    """InfoNCE, CASCLe and MPRL together; weights a base switched off return to their defaults."""
    usual = LossConfig()
    loss = changed(base.loss, alpha=base.loss.alpha or usual.alpha, lam=base.loss.lam or usual.lam)
    return changed(base, loss=loss, qformer=changed(base.qformer, reader="queries"))


def _cpep(base: LearnConfig, *, alpha: float = 0.0) -> LearnConfig:
    """No Q-Former: the summary, projected by one layer, contrasted in both directions."""
    loss = changed(base.loss, alpha=alpha, lam=0.0, symmetric=True)
    return changed(base, loss=loss, qformer=changed(base.qformer, reader="summary"))


def _smoothed(base: LearnConfig) -> LearnConfig:
    """The share of the target that other poses get is the published ε."""
    made = full(base)
    cascle = changed(made.loss.cascle, targets="smoothing")
    return changed(made, loss=changed(made.loss, alpha=SMOOTHING / (1 - SMOOTHING), cascle=cascle))


def _cascle(**values: object) -> Change:
    """The full method with other soft targets."""

    def configure(base: LearnConfig) -> LearnConfig:
        made = full(base)
        return changed(made, loss=changed(made.loss, cascle=changed(made.loss.cascle, **values)))

    return configure


def _augment(**values: object) -> Change:
    """The full method with another augmentation beside the base's."""
    return lambda base: changed(full(base), augment=changed(base.augment, **values))


def _same(base: LearnConfig) -> LearnConfig:
    """The base as it is, for methods that take no part in the alignment."""
    return base


_ALIGNED = (
    ("cpep", "CLS, one projection, symmetric InfoNCE", "CPEP", _cpep),
    ("cpep+cascle", "CPEP with community targets", "w/o Q-Former", lambda b: _cpep(b, alpha=full(b).loss.alpha)),
    ("qformer", "Q-Former, InfoNCE only", "Q-Former", _loss(alpha=0.0, lam=0.0)),
    ("qformer+mprl", "Q-Former, InfoNCE and masked pose reconstruction", "w/o CASCLe", _loss(alpha=0.0)),
    ("qformer+cascle", "Q-Former, InfoNCE and community targets", "w/o MPRL", _loss(lam=0.0)),
    ("label-smoothing", "EMBridge with even targets in place of communities", "label smoothing (0.1)", _smoothed),
    ("softclip", "EMBridge with pose cosines as targets", "SoftCLIP", _cascle(targets="instances")),
    ("embridge", "Q-Former, InfoNCE, CASCLe and MPRL", "EMBridge", full),
)

_SPECS = (
    MethodSpec(
        "emg-mae",
        "EMG encoder of the first stage, frozen; linear probe only",
        "EMG-MAE",
        _same,
        fitting.frozen_encoder,
        zero_shot=False,
    ),
    MethodSpec(
        "supervised",
        "classifier of the seen gestures; unseen ones by mixing the postures of those it believes in",
        "emg2pose supervised",
        _same,
        fitting.supervised,
    ),
    MethodSpec(
        "regression-net", "network regresses the mean posture, nearest pose wins", "", _same, fitting.regression
    ),
    *(MethodSpec(name, text, paper, configure, fitting.aligned) for name, text, paper, configure in _ALIGNED),
    MethodSpec(
        "pose-ceiling",
        "queries are the tested wearer's own pose: what the pose space allows at best",
        "Pose-MAE (ceiling)",
        _same,
        fitting.pose_ceiling,
        leaky=True,
    ),
    MethodSpec("shuffled-pairs", "EMBridge trained on broken pairs", "", full, fitting.shuffled, control=True),
)

_SWITCHES = (
    (
        "spectral",
        "EMG encoder pre-trained on masked log spectra",
        lambda b: changed(full(b), emg_mae=changed(b.emg_mae, target="spectrum")),
    ),
    (
        "electrodes",
        "one token an electrode and patch, told its place on the arm",
        lambda b: changed(full(b), emg=changed(b.emg, electrodes=b.emg.electrodes or ElectrodeConfig())),
    ),
    ("roll", "ring turned by up to one electrode while training", _augment(roll=1)),
    ("splash", "up to half of the channels silenced while training", _augment(channel_mask_upto=0.5)),
    ("plain-emg", "no augmentation at all", lambda b: changed(full(b), augment=AugmentConfig())),
    ("gmm", "communities from a Gaussian mixture", _cascle(model="gmm")),
    ("offdiag", "community targets over the other poses only", _cascle(softmax="offdiag")),
    ("pos-select", "query chosen by the true pose while training", _loss(select="pos")),
    (
        "no-linear-path",
        "queries without the linear path under them",
        lambda b: changed(full(b), linear=changed(b.linear, l2=0.0)),
    ),
    ("linear-path", "queries built on a linear path", lambda b: changed(full(b), linear=changed(b.linear, l2=0.1))),
    ("from-scratch", "EMG encoder without a first stage", lambda b: changed(full(b), from_scratch=True)),
)


def _adapting(how: str) -> Change:
    return lambda base: changed(full(base), wearer=changed(base.wearer, adapt=how))


METHODS: Mapping[str, MethodSpec] = MappingProxyType({spec.name: spec for spec in _SPECS})
SWITCHES: Mapping[str, MethodSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            *(MethodSpec(f"embridge:{name}", text, "", change, fitting.aligned) for name, text, change in _SWITCHES),
            MethodSpec(
                "embridge:unpaired-pose",
                "further poses without EMG join the pose encoder's first stage",
                "",
                lambda b: changed(full(b), unpaired_pose=True),
                fitting.aligned,
                pose_enrolled=True,
            ),
            MethodSpec(
                "embridge:ensemble", "similarities of EMBridge and of the regression, blended", "", full, fitting.both
            ),
            MethodSpec(
                "embridge:adapt-mean",
                "queries moved to the training people's mean, from unlabelled windows of the wearer",
                "",
                _adapting("mean"),
                fitting.adaptable,
            ),
            MethodSpec(
                "embridge:adapt-coral",
                "queries moved to the training people's mean and covariance, from unlabelled windows of the wearer",
                "",
                _adapting("coral"),
                fitting.adaptable,
            ),
        )
    }
)


def method(name: str) -> MethodSpec:
    """The method or switch called `name`.

    Raises:
        ConfigError: There is none of that name.
    """
    found = METHODS.get(name) or SWITCHES.get(name)
    if found is None:
        raise ConfigError(f"no method {name!r}", hint=f"Choose one of {', '.join((*METHODS, *SWITCHES))}.")
    return found


def fit_method(
    name: str,
    train: Windows,
    *,
    seed: int,
    config: LearnConfig,
    pretrained: Pretrained | None = None,
    calibration: Windows | None = None,
    unseen: tuple[str, ...] = (),
    poses: Windows | None = None,
    progress: ProgressCallback = ignore_progress,
    run: Run | None = None,
    start: Start | None = None,
) -> Speaker:
    """Train a method.

    Args:
        name: Of `METHODS` or `SWITCHES`.
        train: Pairs of the training participants, seen gestures only.
        seed: The same seed, data and threads give the same model.
        config: The base every method is configured from.
        pretrained: Encoders of the base's first stage on `train`; used where the method's first stage is the same.
        calibration: Labelled EMG of the wearers to be tested, seen gestures, without pose: they are given poses of the
            same gestures of `train` and learnt from beside it.
        unseen: Gestures whose EMG must not occur.
        poses: Windows whose pose alone joins the first stage, where the method's switch `unpaired_pose` is on.
        progress: Told after every step.
        run: Where, with which checkpoints; it replaces `progress`.
        start: For an aligned method: the model whose EMG side is trained further.

    Returns:
        An embedder with `features(emg)`; the supervised one also has `classify(emg)` and `gestures`, an adapting one
        `for_wearer(emg)`.

    Raises:
        ConfigError: There is no such method, or it needs poses that are not given.
        LeakageError: A window is of an unseen gesture.
        DataError: A modality is missing, of another shape, or too small.
        OperatorError: `pretrained` comes from other windows.
        ModelError: Training diverged.
    """
    spec = method(name)
    task = Task(
        train=train,
        base=config,
        config=changed(spec.configure(config), name=f"{config.name}/{name}"),
        seed=seed,
        pretrained=pretrained,
        calibration=calibration,
        unseen=unseen,
        poses=poses,
        progress=progress,
        run=run,
        start=start,
    )
    return spec.fit(task)
