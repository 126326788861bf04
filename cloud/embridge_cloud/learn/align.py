"""Second stage: align EMG with the frozen pose space."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from embridge_cloud.learn import communities, objectives, world
from embridge_cloud.learn.augment import augment
from embridge_cloud.learn.data import Windows, batches
from embridge_cloud.learn.feed import Batch, Pass, PassSampler, rows_of
from embridge_cloud.learn.loop import Figures, History, Learning, LossFunction, Run, Stage, train_stage
from embridge_cloud.learn.model import Bridge, embed_poses, in_batches
from embridge_cloud.learn.warm import Start
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


def align(
    model: Bridge,
    windows: Windows,
    run: Run,
    rng: np.random.Generator,
    *,
    validate: Callable[[Bridge], float] | None = None,
    start: Start | None = None,
) -> History:
    """Train the EMG side of `model` in place on paired windows.

    Args:
        model: Prepared with `prepare`.
        windows: With EMG and pose.
        run: Where, and who hears of it.
        rng: Order of the batches.
        validate: Score of the current weights, higher is better; None to leave out.
        start: What it went on from, where its embeddings are to pull; None for nothing.

    Returns:
        One value a step of "align", "nce", "cascle", "mprl", "tau", "query_usage", "query_cosine",
        "target_entropy" and "neighbour_mass"; "val_zs" holds one a validation, "val_step" its step. "drift" is how far
        embeddings moved, where they pull.

    Raises:
        DataError: Modalities are missing or there are too few pairs.
    """
    if windows.emg is None or windows.pose is None or len(windows) < MIN_PAIRS:
        raise DataError(
            f"alignment needs at least {MIN_PAIRS} windows with EMG and pose", reason=Reason.TOO_LITTLE_DATA
        )
    config = model.config.align
    people = len(windows.present("participants"))
    if people < config.min_participants:
        logger.warning("%d participants a batch at most, %d wanted", people, config.min_participants)
    size = min(config.batch, len(windows))
    trained = [*model.qformer.parameters(), model.log_tau]
    stage = Stage(
        name="align",
        module=model,
        groups=[(list(model.emg.parameters()), config.lr_emg), (trained, config.lr_rest)],
        loss=_loss(model, windows.label, start if start is not None and start.distil > 0 else None),
        fetch=rows_of(windows.emg, windows.pose),
        sampler=PassSampler(_passes(windows, size, config.min_gap_s), rng),
        total=config.steps or config.epochs * max(1, len(windows) // size),
        optimiser=model.config.optimiser,
        settle=_settle(model),
        validate=None if validate is None else lambda: validate(model),
        validate_every=config.validate_every,
        keep=config.keep,
    )
    return train_stage(stage, run)


def _passes(windows: Windows, size: int, min_gap_s: float) -> Pass:
    """Batches of a pass; a batch of one has nothing to contrast and is left out."""

    def one_pass(rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        return (rows for rows in batches(windows, size, rng, min_gap_s=min_gap_s) if len(rows) > 1)

    return one_pass


def _loss(model: Bridge, labels: NDArray[np.int64], start: Start | None) -> LossFunction:
    """The alignment loss and the figures that tell whether it works."""

    def loss(batch: Batch, learning: Learning) -> tuple[Tensor, Figures]:
        emg, pose = batch
        memory = learning.memory
        clean = emg if model.config.linear.clean else None
        emg = augment(emg, model.config.augment, model.config.emg.patch)
        few = memory.get("usage", math.inf) < DIVERSIFY_BELOW_NATS
        losses = model.losses(emg, pose, diversify=few, clean=clean)
        entropy = objectives.target_entropy(losses.targets)
        memory["usage"] = objectives.query_usage(losses.q, losses.v)
        even_on_purpose = model.config.loss.cascle.targets == "smoothing"
        if not memory.get("alarmed") and not even_on_purpose:
            memory["alarmed"] = float(not communities.check_targets(entropy, len(learning.rows)))
        total, drift = losses.total, dict[str, Tensor]()
        if start is not None:
            moved = world.mean(start.pull(model, emg))
            total, drift = total + start.distil * moved, {"drift": moved.detach()}
        return total, drift | {
            "nce": losses.nce.detach(),
            "cascle": losses.cascle.detach(),
            "mprl": losses.mprl.detach(),
            "query_usage": memory["usage"],
            "query_cosine": objectives.query_cosine(losses.q),
            "target_entropy": entropy,
            "neighbour_mass": objectives.neighbour_mass(
                losses.targets, torch.from_numpy(labels[learning.rows]).to(emg.device)
            ),
        }

    return loss


def _settle(model: Bridge) -> Callable[[Learning], Figures]:
    """Keep the temperature inside its bounds."""

    def settle(_: Learning) -> Figures:
        model.clamp_tau()
        return {"tau": model.tau.detach()}

    return settle


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
