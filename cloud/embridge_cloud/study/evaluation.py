"""Every protocol on one fitted method: zero-shot, generalised, probes, enrolment, its own head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.learn import evaluate, leakage
from embridge_cloud.learn.data import Windows, broken_pairs, class_balanced, concatenate
from embridge_cloud.learn.zeroshot import Embedder
from embridge_cloud.study.outcome import Figure, figure
from embridge_cloud.study.protocol import CALIBRATION_REPETITIONS, LATE_REPETITIONS, SHOTS, Protocol, Regime
from embridge_cloud.study.splits import Split, trials_of
from embridge_shared.errors import DataError, Reason
from embridge_shared.scoring import PrototypeScorer

Vectors = NDArray[np.float32]
Scores = NDArray[np.float64]
Labels = NDArray[np.int64]

NEIGHBOURS = 10
LEVELLED = 1500
"""Training windows, evenly spread, that scores of the generalised protocol are levelled on."""

GIVEN_UP = 0.5
"""Share of seen training windows the generalised protocol gives to unseen gestures: near the best harmonic mean of the
regression and of EMBridge alike on folds P, Q and R, which no table shows."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A method after training, as far as it can be asked.

    Attributes:
        embedder: EMG and pose in one space; None where it has no such space.
        features: EMG, float32 (N, T, C), to frozen features (N, f) for probes; None leaves the probes out.
        classify: EMG, float32 (N, T, C), to a score for each seen gesture, in the order of the split; None without.
        on_pose: It reads the pose of the tested windows in place of their EMG: a ceiling.
        broken: Number of the draw of a control: probes and enrolment learn from broken labels, as it did from broken
            pairs. None for a method.
        adapt: Unlabelled EMG of someone's seen gestures to the method moved to that person; None where it stays.
        history: Loss curves.
    """

    embedder: Embedder | None = None
    features: Callable[[Vectors], Vectors] | None = None
    classify: Callable[[Vectors], Scores] | None = None
    on_pose: bool = False
    broken: int | None = None
    adapt: Callable[[Vectors], Fitted] | None = None
    history: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Subject:
    """One split under test, with the random choices every method shares.

    Attributes:
        split: The data.
        names: Seen gestures, then unseen ones: class order everywhere.
        truth: Class of each tested window.
        trial: Trial of each tested window.
        gallery: Poses, as many of each gesture.
        gallery_labels: Their classes.
    """

    split: Split
    names: tuple[str, ...]
    truth: Labels
    trial: Labels
    gallery: Windows
    gallery_labels: Labels

    @property
    def seen(self) -> int:
        """Number of seen gestures: classes below it are seen."""
        return len(self.split.seen)


def subject_of(split: Split) -> Subject:
    """Put a split in the form every protocol reads."""
    names = (*split.seen, *split.unseen)
    rng = np.random.default_rng([split.run.seed, 4])
    gallery = split.gallery.of_gestures(names)
    gallery = gallery.select(class_balanced(gallery.label, rng))
    return Subject(
        split, names, classes_of(split.tested, names), trials_of(split.tested), gallery, classes_of(gallery, names)
    )


def classes_of(windows: Windows, names: Sequence[str]) -> Labels:
    """Place of each window's gesture in `names`, -1 for none of them."""
    place = {name: i for i, name in enumerate(names)}
    table = np.array([*(place.get(g, -1) for g in windows.gestures), -1], np.int64)
    return np.asarray(table[windows.label], np.int64)


def evaluate_fitted(fitted: Fitted, split: Split) -> tuple[Figure, ...]:
    """Figures of every protocol a method can answer.

    Args:
        fitted: The method, trained on the split's train part alone.
        split: Of the run.

    Raises:
        LeakageError: The method was trained on something the split holds out.
    """
    subject = subject_of(split)
    found: list[Figure] = []
    if fitted.embedder is not None:
        check_lineage(fitted.embedder, split)
        found += _zero_shot(fitted, fitted.embedder, subject)
    if fitted.classify is not None and split.tested.emg is not None:
        rows = np.flatnonzero((subject.truth >= 0) & (subject.truth < subject.seen))
        scores = fitted.classify(split.tested.emg[rows])
        found.append(_figure(Protocol.SUPERVISED, subject, rows, scores.argmax(axis=1), subject.names[: subject.seen]))
    if fitted.features is not None:
        found += _probes(fitted, subject)
    return tuple(found)


def check_lineage(embedder: Embedder, split: Split) -> None:
    """What a model says it was trained on agrees with the split.

    Raises:
        LeakageError: It saw a held-out participant's EMG without calibration, EMG of unseen gestures, or poses of them
            in a strict run; or its statistics were changed since.
    """
    lineage = embedder.lineage
    tested = split.tested.present("participants")
    calibrated = split.calibration.present("participants") if split.calibration is not None else frozenset()
    leakage.check_participants(set(lineage.participants) - calibrated, tested)
    if split.regime is Regime.NEW_WEARER:
        leakage.check_sessions(lineage.sessions, split.tested.present("sessions"))
    leakage.check_gestures(lineage.emg_gestures, split.unseen)
    leakage.pose_regime(lineage.pose_gestures, split.unseen, claimed=split.pose_regime)
    leakage.check_statistics(lineage.statistics, embedder.statistics())


def _figure(
    protocol: str,
    subject: Subject,
    rows: Labels,
    predicted: NDArray[np.int64],
    gestures: tuple[str, ...],
    first: int = 0,
    *,
    chance: float | None = None,
) -> Figure:
    """A figure over some of the tested windows; class `first` is the first that competes."""
    tested = subject.split.tested
    return figure(
        str(protocol),
        subject.truth[rows] - first,
        np.asarray(predicted, np.int64),
        tested.participant[rows],
        names=tested.participants,
        gestures=gestures,
        chance=1 / len(gestures) if chance is None else chance,
    )


def _zero_shot(fitted: Fitted, embedder: Embedder, subject: Subject) -> Iterator[Figure]:
    """Nearest poses, prototypes, trial votes, and all gestures at once."""
    seen, every = subject.seen, len(subject.names)
    poses = embedder.embed_pose(subject.gallery.pose)
    queries = _queries(fitted, embedder, subject)
    similarity = evaluate.gallery_similarity(queries, poses)
    sides = (
        (0, seen, Protocol.ZS_SEEN, Protocol.ZS_SEEN_TRIAL, Protocol.ZS_SEEN_PROTO),
        (seen, every, Protocol.ZS_UNSEEN, Protocol.ZS_UNSEEN_TRIAL, Protocol.ZS_UNSEEN_PROTO),
    )
    scorer = PrototypeScorer(poses, subject.gallery_labels, k=NEIGHBOURS)
    prototype = scorer(queries)
    for first, end, by_knn, by_trial, by_prototype in sides:
        rows = np.flatnonzero((subject.truth >= first) & (subject.truth < end))
        offered = np.flatnonzero((subject.gallery_labels >= first) & (subject.gallery_labels < end))
        names = subject.names[first:end]
        votes = evaluate.ballots(
            similarity[np.ix_(rows, offered)],
            subject.gallery_labels[offered] - first,
            classes=end - first,
            k=NEIGHBOURS,
        )
        yield _figure(by_knn, subject, rows, votes.argmax(axis=1), names, first)
        pooled, of_trial = evaluate.pool_trials(votes, subject.trial[rows])
        yield _figure(by_trial, subject, rows[of_trial], pooled.argmax(axis=1), names, first)
        yield _figure(by_prototype, subject, rows, prototype[rows, first:end].argmax(axis=1), names, first)
    if fitted.on_pose:
        return
    yield from _generalised(fitted, scorer, prototype, subject)


def _generalised(fitted: Fitted, scorer: PrototypeScorer, prototype: Vectors, subject: Subject) -> Iterator[Figure]:
    """All gestures compete; scores are levelled on training windows of seen gestures alone."""
    split, seen = subject.split, subject.seen
    known = split.train.select(np.arange(0, len(split.train), -(-len(split.train) // LEVELLED)))
    train = np.asarray(scorer(_asked(fitted, known, split, _speak)), np.float64)
    truth = classes_of(known, subject.names)
    tested, reference = (
        evaluate.against_negatives(np.asarray(s, np.float64), train, truth) for s in (prototype, train)
    )
    tested[:, :seen] -= evaluate.seen_penalty(reference, seen, share=GIVEN_UP)
    for protocol, mine in ((Protocol.GZS_SEEN, subject.truth < seen), (Protocol.GZS_UNSEEN, subject.truth >= seen)):
        rows = np.flatnonzero(mine)
        share = 1 - GIVEN_UP if protocol is Protocol.GZS_SEEN else GIVEN_UP
        chance = share / (seen if protocol is Protocol.GZS_SEEN else len(subject.names) - seen)
        yield _figure(protocol, subject, rows, tested[rows].argmax(axis=1), subject.names, chance=chance)


def _queries(fitted: Fitted, embedder: Embedder, subject: Subject) -> Vectors:
    """Queries of the tested windows; their own poses where a ceiling is measured."""
    if fitted.on_pose:
        return embedder.embed_pose(subject.split.tested_pose.pose)[:, None, :]
    return _asked(fitted, subject.split.tested, subject.split, _speak)


def _speak(fitted: Fitted, emg: Vectors) -> Vectors:
    assert fitted.embedder is not None
    return fitted.embedder.embed_emg(emg)


def _describe(fitted: Fitted, emg: Vectors) -> Vectors:
    assert fitted.features is not None
    return fitted.features(emg)


def _asked(fitted: Fitted, windows: Windows, split: Split, ask: Callable[[Fitted, Vectors], Vectors]) -> Vectors:
    """What a method says of windows; one that moves to people is moved to each, by their own first repetitions."""
    emg = np.asarray(windows.emg)
    if fitted.adapt is None:
        return ask(fitted, emg)
    order, parts = [], []
    for person in np.unique(windows.participant):
        rows = np.flatnonzero(windows.participant == person)
        view = unlabelled_view(split, windows.participants[person])
        order.append(rows)
        parts.append(ask(fitted.adapt(view), emg[rows]))
    return np.concatenate(parts)[np.argsort(np.concatenate(order))]


def unlabelled_view(split: Split, participant: str) -> Vectors:
    """EMG of someone's first repetitions of seen gestures, as a calibration session records it, without its labels.

    Raises:
        DataError: There is none.
    """
    held_out = participant in split.run.held_out
    source = split.calibration if held_out and split.calibration is not None else split.tested
    mine = (source if held_out else split.probe).of_participants([participant]).of_gestures(split.seen)
    early = mine.select(np.isin(mine.repetition, CALIBRATION_REPETITIONS))
    if len(early) == 0 or early.emg is None:
        raise DataError(f"{participant} has no first repetitions to adapt to", reason=Reason.TOO_LITTLE_DATA)
    return early.emg


def _probes(fitted: Fitted, subject: Subject) -> Iterator[Figure]:
    """Linear probes trained on other people's labels, and enrolment by the wearer's own first repetitions."""
    split, seen = subject.split, subject.seen
    tested = _frozen(fitted, split.tested, split.tested_pose, split)
    sides: list[tuple[Protocol, Windows, int, int]] = [
        (Protocol.LP_SEEN, _labelled(split), 0, seen),
        (Protocol.LP_UNSEEN, split.probe.of_gestures(split.unseen), seen, len(subject.names)),
    ]
    for protocol, train, first, end in sides:
        names = subject.names[first:end]
        leakage.check_repetitions(train, split.tested)
        rows = np.flatnonzero((subject.truth >= first) & (subject.truth < end))
        features = _frozen(fitted, train, split.gallery.of_gestures(names), split)
        labels = classes_of(train if not fitted.on_pose else split.gallery.of_gestures(names), names)
        labels = _labels(fitted, labels, split)
        found = evaluate.linear_probe((features, labels), tested[rows], classes=end - first)
        yield _figure(protocol, subject, rows, found, names, first)
    if not fitted.on_pose:
        yield from _enrolment(fitted, subject, tested)


def _labels(fitted: Fitted, labels: Labels, split: Split) -> Labels:
    """Labels to learn from: as they are, or broken for a control."""
    if fitted.broken is None:
        return labels
    rng = np.random.default_rng([split.run.seed, split.run.rotation, 10, fitted.broken])
    return labels[broken_pairs(labels, rng)]


def _labelled(split: Split) -> Windows:
    """Labelled EMG of seen gestures a probe may learn from: the train part, and the calibration where there is one."""
    train = split.train.without_pose()
    return train if split.calibration is None else concatenate([train, split.calibration])


def _frozen(fitted: Fitted, windows: Windows, poses: Windows, split: Split) -> Vectors:
    """Features of EMG windows, or of poses where a ceiling is measured."""
    if fitted.on_pose:
        return _describe(fitted, np.asarray(poses.pose))
    return _asked(fitted, windows, split, _describe)


def _enrolment(fitted: Fitted, subject: Subject, features: Vectors) -> Iterator[Figure]:
    """Unseen gestures enrolled by each wearer's first repetitions, decided on the late ones."""
    split, seen, names = subject.split, subject.seen, subject.names[subject.seen :]
    tested, unseen = split.tested, subject.truth >= seen
    late = unseen & np.isin(tested.repetition, LATE_REPETITIONS)
    for shots in SHOTS:
        early = unseen & (tested.repetition >= 1) & (tested.repetition <= shots)
        asked, found = [], []
        for person in np.unique(tested.participant):
            mine = tested.participant == person
            enrolled, rows = np.flatnonzero(early & mine), np.flatnonzero(late & mine)
            if len(np.unique(subject.truth[enrolled])) < len(names) or len(rows) == 0:
                continue
            leakage.check_repetitions(tested.select(enrolled), tested.select(rows))
            labels = _labels(fitted, subject.truth[enrolled] - seen, split)
            scores = evaluate.shrinkage_lda((features[enrolled], labels), features[rows], classes=len(names))
            asked.append(rows)
            found.append(scores.argmax(axis=1))
        if asked:
            yield _figure(f"few-shot-{shots}", subject, np.concatenate(asked), np.concatenate(found), names, seen)
