"""Zero-shot evaluation of a trained model, behind the leakage rules."""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_cloud.learn import evaluate, leakage
from embridge_cloud.learn.config import LearnConfig
from embridge_cloud.learn.data import Windows, class_balanced
from embridge_cloud.learn.evaluate import Score, Truth
from embridge_cloud.learn.leakage import PoseRegime
from embridge_cloud.learn.trained import Lineage, Trained
from embridge_shared.errors import DataError, Reason
from embridge_shared.scoring import PrototypeScorer


class Embedder(Protocol):
    """A model that can be tested: EMG and pose in one space, and a record of what it was trained on."""

    @property
    def config(self) -> LearnConfig:
        """Shapes and evaluation settings."""
        ...

    @property
    def lineage(self) -> Lineage:
        """What it was trained on."""
        ...

    def embed_emg(self, emg: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """float32 (N, T, C) to unit queries (N, M, d)."""
        ...

    def embed_pose(self, pose: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """float32 (N, Tp, 20), rad, to unit vectors (N, d)."""
        ...

    def statistics(self) -> dict[str, NDArray[np.float32]]:
        """Everything computed on the train split."""
        ...


class ZeroShot(msgspec.Struct, frozen=True, kw_only=True):
    """How well EMG of people never seen finds its gesture among poses of other people.

    Attributes:
        knn: Majority of the k nearest poses by the nearest query: the headline.
        prototype: Mean of the k best similarities of each gesture.
        mean_query: As `knn`, with the mean of the queries.
        regime: What the pose side knew of the gestures tested and not seen as EMG.
        unseen: Gestures tested whose EMG did not train the model.
        shuffled: The model is a control with broken pairs.
    """

    knn: Score
    prototype: Score
    mean_query: Score
    regime: PoseRegime
    unseen: tuple[str, ...]
    shuffled: bool


def evaluate_zero_shot(
    trained: Embedder,
    tested: Windows,
    gallery: Windows,
    *,
    seed: int = 0,
    new_participants: bool = True,
    claimed: PoseRegime | None = None,
) -> ZeroShot:
    """Decode EMG with a gallery of poses alone.

    Args:
        trained: The model.
        tested: EMG without pose; every gesture of it must be in the gallery.
        gallery: Pose without EMG, of other people; balanced over its gestures here.
        seed: For balancing and the bootstrap.
        new_participants: Insist on people whose EMG did not train the model; without it, on new sessions only.
        claimed: Regime the result will be reported under; checked.

    Raises:
        LeakageError: A rule is broken.
        DataError: Modalities or gestures are missing.
    """
    config, lineage = trained.config, trained.lineage
    _check(trained, tested, gallery, new_participants=new_participants)
    names = sorted(gallery.present("gestures"))
    unseen = tuple(sorted(tested.present("gestures") - set(lineage.emg_gestures)))
    regime = leakage.pose_regime(lineage.pose_gestures, unseen, claimed=claimed)
    rng = np.random.default_rng(seed)
    tested = tested.select(tested.label >= 0)
    gallery = gallery.select(class_balanced(gallery.label, rng))
    place = {name: i for i, name in enumerate(names)}
    labels = np.array([place[gallery.gestures[i]] for i in gallery.label], np.int64)
    truth = np.array([place[tested.gestures[i]] for i in tested.label], np.int64)
    queries, vectors = trained.embed_emg(tested.emg), trained.embed_pose(gallery.pose)
    nearest = evaluate.gallery_similarity(queries, vectors)
    mean = evaluate.gallery_similarity(evaluate.mean_query(queries), vectors)
    subject = Truth(truth, tested.participant, tested.participants, tuple(names))
    k, classes = config.evaluate.k, len(names)

    def scored(predicted: evaluate.Labels) -> Score:
        return evaluate.score(subject, predicted, rng, bootstrap=config.evaluate.bootstrap)

    by_gesture = PrototypeScorer(vectors, labels, k=k)(queries)
    return ZeroShot(
        knn=scored(evaluate.knn(nearest, labels, classes=classes, k=k)),
        prototype=scored(np.asarray(by_gesture.argmax(axis=1), np.int64)),
        mean_query=scored(evaluate.knn(mean, labels, classes=classes, k=k)),
        regime=regime,
        unseen=unseen,
        shuffled=lineage.shuffled,
    )


def _check(trained: Embedder, tested: Windows, gallery: Windows, *, new_participants: bool) -> None:
    """The leakage rules, and a gallery that knows every gesture."""
    lineage = trained.lineage
    leakage.check_gallery(gallery, tested, trained.config.emg.window_s)
    leakage.check_sessions(lineage.sessions, tested.present("sessions"))
    if new_participants:
        leakage.check_participants(lineage.participants, tested.present("participants"))
    leakage.check_statistics(lineage.statistics, trained.statistics())
    missing = tested.present("gestures") - gallery.present("gestures")
    if missing or not tested.present("gestures"):
        raise DataError(
            f"no pose in the gallery for {sorted(missing)}" if missing else "no labelled window to test",
            reason=Reason.TOO_LITTLE_DATA,
            hint="Record poses of every gesture that is to be decoded.",
        )


def probe(
    trained: Trained,
    train: Windows,
    tested: Windows,
    *,
    features: Literal["queries", "summary", "both"] = "queries",
    seed: int = 0,
) -> Score:
    """Linear probe on frozen features: what a classifier with labels could make of the encoder.

    Args:
        trained: The frozen model.
        train: Labelled EMG.
        tested: Labelled EMG of other people.
        features: The mean of the queries, the EMG encoder's summary, or both.
        seed: For the bootstrap.

    Raises:
        LeakageError: The sets share people, sessions or moments.
        DataError: There is no EMG or no label.
    """
    leakage.check_participants(train.present("participants"), tested.present("participants"))
    leakage.check_overlap(train, tested, trained.config.emg.window_s)
    names = sorted(train.present("gestures"))
    place = {name: i for i, name in enumerate(names)}
    train, tested = train.of_gestures(names), tested.of_gestures(names)
    if len(train) == 0 or len(tested) == 0:
        raise DataError("a probe needs labelled windows on both sides", reason=Reason.TOO_LITTLE_DATA)
    y = np.array([place[train.gestures[i]] for i in train.label], np.int64)
    truth = np.array([place[tested.gestures[i]] for i in tested.label], np.int64)
    x = [_features(trained, w, features) for w in (train, tested)]
    found = evaluate.linear_probe((x[0], y), x[1], classes=len(names), l2=trained.config.evaluate.probe_l2)
    subject = Truth(truth, tested.participant, tested.participants, tuple(names))
    return evaluate.score(subject, found, np.random.default_rng(seed), bootstrap=trained.config.evaluate.bootstrap)


def _features(trained: Trained, windows: Windows, which: str) -> NDArray[np.float32]:
    """Frozen features of EMG windows, (N, d) or (N, 2 d)."""
    parts = []
    if which != "summary":
        parts.append(trained.embed_emg(windows.emg).mean(axis=1))
    if which != "queries":
        parts.append(trained.embed_summary(windows.emg))
    return np.concatenate(parts, axis=1)
