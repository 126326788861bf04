"""Second stage: align EMG with the frozen pose space."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from embridge_cloud.learn import communities, objectives
from embridge_cloud.learn.augment import augment
from embridge_cloud.learn.data import Windows, batches
from embridge_cloud.learn.model import Bridge, Losses, embed_poses, in_batches
from embridge_cloud.learn.optim import Progress, ProgressCallback, Stepper, autocast
from embridge_cloud.learn.pretrain import History
from embridge_shared.errors import DataError, Reason

logger = logging.getLogger(__name__)

CENTER_ABOVE = 0.5
MIN_PAIRS = 4
DIVERSIFY_BELOW_NATS = 1.0


def prepare(model: Bridge, pose: NDArray[np.float32], *, seed: int) -> float:
    """Set the centring vector and the communities from training poses.

    Args:
        model: With its pose encoder trained.
        pose: float32 (N, Tp, 20) of the train split, rad.
        seed: For the clustering.

    Returns:
        Mean cosine between different pose embeddings before centring.
    """
    config = model.config
    model.center.zero_()
    with torch.no_grad():
        device = model.center.device
        raw = [model.pose(torch.from_numpy(part).to(device))[:, 0] for part in in_batches(pose)]
    summary = torch.cat(raw).float()
    cosine = objectives.mean_cosine(functional.normalize(summary, dim=1))
    if config.center == "always" or (config.center == "auto" and cosine > CENTER_ABOVE):
        model.center.copy_(summary.mean(dim=0))
        logger.info("pose embeddings are centred: their mean cosine was %.2f", cosine)
    set_communities(model, embed_poses(model, pose), seed=seed)
    return cosine


def set_communities(model: Bridge, vectors: NDArray[np.float32], *, seed: int) -> None:
    """Cluster training pose vectors (N, d) into the communities of the soft targets."""
    wanted = model.config.loss.cascle
    device = model.center.device
    if wanted.model == "gmm":
        means, spread = communities.mixture(vectors, wanted.centroids, seed=seed)
        model.spread = torch.from_numpy(spread).to(device)
    else:
        means = communities.centroids(vectors, wanted.centroids, seed=seed)
    model.centroids = torch.from_numpy(means).to(device)


@torch.no_grad()
def fit_path(model: Bridge, windows: Windows) -> None:
    """Fit the linear path, where the model has one, on the pairs it will be aligned with."""
    if model.path is None or windows.emg is None:
        return
    device = model.center.device
    parts = [
        model.path.features(model.emg.patches(torch.from_numpy(part).to(device))).cpu().numpy()
        for part in in_batches(windows.emg)
    ]
    vectors = embed_poses(model, windows.pose)
    model.path.fit(np.concatenate(parts), vectors, windows.participant, model.config.linear.l2)


@dataclass(frozen=True, slots=True)
class AlignRun:
    """One alignment: where it runs, whom it tells and how it validates.

    Attributes:
        device: Where.
        progress: Told after every step.
        validate: Score of the current weights, higher is better; None to leave out.
    """

    device: torch.device
    progress: ProgressCallback
    validate: Callable[[Bridge], float] | None = None


def align(model: Bridge, windows: Windows, run: AlignRun, rng: np.random.Generator) -> History:
    """Train the EMG side of `model` in place on paired windows.

    Args:
        model: Prepared with `prepare`.
        windows: With EMG and pose.
        run: Where and how.
        rng: Order of the batches.

    Returns:
        One value a step of "align", "nce", "cascle", "mprl", "tau", "query_usage", "query_cosine",
        "target_entropy" and "neighbour_mass"; "val_zs" holds one a validation, "val_step" its step.

    Raises:
        DataError: Modalities are missing or there are too few pairs.
    """
    if windows.emg is None or windows.pose is None or len(windows) < MIN_PAIRS:
        raise DataError(
            f"alignment needs at least {MIN_PAIRS} windows with EMG and pose", reason=Reason.TOO_LITTLE_DATA
        )
    config = model.config.align
    size = min(config.batch, len(windows))
    total = config.steps or config.epochs * max(1, len(windows) // size)
    loop = _Loop(model, windows, run, total)
    drawn = _endless(windows, size, rng, min_gap_s=config.min_gap_s)
    best: tuple[float, dict[str, Tensor]] | None = None
    for step in range(1, total + 1):
        loss = loop.step(next(drawn))
        run.progress(Progress("align", step, total, loss))
        due = step == total or (config.validate_every and step % config.validate_every == 0)
        if due and run.validate is not None:
            score = loop.validate(run.validate, step)
            if config.keep == "best" and (best is None or score > best[0]):
                best = (score, {k: v.detach().clone() for k, v in model.state_dict().items()})
    if best is not None:
        model.load_state_dict(best[1])
    model.eval()
    return loop.history


def _endless(windows: Windows, size: int, rng: np.random.Generator, *, min_gap_s: float) -> Iterator[NDArray[np.int64]]:
    """Batches of pass after pass; a batch of one has nothing to contrast and is left out."""
    while True:
        for rows in batches(windows, size, rng, min_gap_s=min_gap_s):
            if len(rows) > 1:
                yield rows


class _Loop:
    """Optimiser, history and alarms of one alignment."""

    def __init__(self, model: Bridge, windows: Windows, run: AlignRun, total: int) -> None:
        config = model.config
        emg = list(model.emg.parameters())
        rest = [*model.qformer.parameters(), model.log_tau]
        self.model, self.windows, self.run = model, windows, run
        self.history: History = {}
        self._stepper = Stepper([(emg, config.align.lr_emg), (rest, config.align.lr_rest)], config.optimiser, total)
        self._usage = float("inf")
        self._alarmed = False
        people = len(windows.present("participants"))
        if people < config.align.min_participants:
            logger.warning("%d participants a batch at most, %d wanted", people, config.align.min_participants)

    def step(self, rows: NDArray[np.int64]) -> float:
        """One update on the windows `rows` names."""
        model, device = self.model.train(), self.run.device
        emg, pose = self.windows.emg, self.windows.pose
        if emg is None or pose is None:
            raise DataError("alignment needs EMG and pose", reason=Reason.WRONG_SHAPE)
        x = torch.from_numpy(emg[rows]).to(device)
        x = augment(x, model.config.augment, model.config.emg.patch)
        with autocast(model.config.optimiser, device):
            losses = model.losses(
                x, torch.from_numpy(pose[rows]).to(device), diversify=self._usage < DIVERSIFY_BELOW_NATS
            )
        value = self._stepper.step(losses.total)
        model.clamp_tau()
        self._record(losses, value, torch.from_numpy(self.windows.label[rows]).to(device))
        return value

    def validate(self, score_of: Callable[[Bridge], float], step: int) -> float:
        """Score the current weights and note it."""
        score = score_of(self.model)
        self._note(val_step=float(step), val_zs=score)
        logger.info("step %d: validation %.3f", step, score)
        return score

    def _record(self, losses: Losses, value: float, label: Tensor) -> None:
        """Note the losses and the figures that tell whether they work."""
        entropy = objectives.target_entropy(losses.targets)
        self._usage = objectives.query_usage(losses.q, losses.v)
        if not self._alarmed:
            self._alarmed = not communities.check_targets(entropy, len(label))
        self._note(
            align=value,
            nce=float(losses.nce.detach()),
            cascle=float(losses.cascle.detach()),
            mprl=float(losses.mprl.detach()),
            tau=float(self.model.tau.detach()),
            query_usage=self._usage,
            query_cosine=objectives.query_cosine(losses.q),
            target_entropy=entropy,
            neighbour_mass=objectives.neighbour_mass(losses.targets, label),
        )

    def _note(self, **values: float) -> None:
        """Append to the history."""
        for name, value in values.items():
            self.history.setdefault(name, []).append(value)


@torch.no_grad()
def rebuild_reliance(model: Bridge, windows: Windows, rng: np.random.Generator) -> float:
    """How much worse masked poses are rebuilt from another window's queries than from their own, as a ratio.

    At 1 the queries are ignored; below 1.05 mask more tokens or longer spans.
    """
    if windows.emg is None or windows.pose is None:
        raise DataError("needs windows with EMG and pose", reason=Reason.WRONG_SHAPE)
    rows = rng.permutation(len(windows))[:512]
    device, mprl, signal = model.center.device, model.config.loss.mprl, model.config.pose
    model.eval()
    pose = torch.from_numpy(windows.pose[rows]).to(device)
    states = model.qformer(model.emg(torch.from_numpy(windows.emg[rows]).to(device)))
    masked = objectives.span_mask(len(rows), signal.tokens, mprl.ratio, mprl.span_tokens)
    own = model.rebuild_error(states, pose, masked)
    other = model.rebuild_error(states.roll(1, dims=0), pose, masked)
    return float(other / own.clamp(min=1e-12))
