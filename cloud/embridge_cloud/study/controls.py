"""Controls: what must be at chance, what the recordings give away, and leaks that must raise.

Where gestures come in a fixed order, anything that knows the time of a session knows the gesture. These controls decode
the gesture from what happened before it: decoders must not be able to live on that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.datasets.base import PairedRecording
from embridge_cloud.learn import evaluate, leakage
from embridge_cloud.learn.baseline import SEGMENTS
from embridge_cloud.learn.leakage import PoseRegime
from embridge_cloud.learn.normalise import causal_normalise
from embridge_cloud.study.protocol import Protocol
from embridge_cloud.study.results import Control
from embridge_cloud.study.rows import Row, interval
from embridge_cloud.study.splits import Split
from embridge_shared.errors import DataError, LeakageError

Values = NDArray[np.float64]
NEAR = 0.03
"""A control at chance lies no further from it, or no further than twice its standard error over runs."""

_QUANTILE = 97.0
_SHUFFLED = ("shuffled-pairs", "shuffled-regression", "shuffled-closed")
_PAIRED = (Protocol.ZS_SEEN, Protocol.ZS_UNSEEN, Protocol.GZS_HARMONIC, Protocol.LP_SEEN, Protocol.LP_UNSEEN)


@dataclass(frozen=True, slots=True)
class Before:
    """What was measured before each movement.

    Attributes:
        features: By name, (N, f).
        label: Gesture that follows (N,).
        participant: Who (N,).
        gestures: Names.
        participants: Names.
    """

    features: Mapping[str, Values]
    label: NDArray[np.int64]
    participant: NDArray[np.int64]
    gestures: tuple[str, ...]
    participants: tuple[str, ...]


_ABOUT = {
    "rest-before-movement": (
        "above",
        "EMG at rest just before the movement, scaled as in the study: muscle tone left over within a block of "
        "repetitions of one gesture. It bounds what a decoder can owe to the order of gestures.",
    ),
    "normaliser-state": (
        "chance",
        "The wearer's scale alone, which does not change within a session.",
    ),
    "causal-normaliser-state": (
        "above",
        "The state of a running normaliser just before the movement: it knows the time of the session, and the order "
        "of gestures is fixed. A gain of a causal normaliser means nothing here without this row.",
    ),
    "glove-at-rest": (
        "above",
        "The glove at rest just before the movement: posture left over within a block of repetitions. Pose ceilings "
        "are inflated by it.",
    ),
}


def controls_of(
    recordings: Iterable[PairedRecording], groups: Sequence[Sequence[str]], *, window_s: float
) -> list[Control]:
    """Decode the gesture from what precedes it, held-out participants rotated.

    Args:
        recordings: Of everybody; those without rest between movements give nothing.
        groups: Held-out participants.
        window_s: Length of the stretch before a movement, s.
    """
    measured = before_movements(recordings, window_s)
    if measured is None:
        return []
    found = []
    for name, features in measured.features.items():
        each = _by_participant(features, measured, groups)
        if not each:
            continue
        chance = 1 / len(measured.gestures)
        value = float(np.mean(list(each.values())))
        expected, note = _ABOUT[name]
        found.append(
            Control(
                name=name,
                balanced_accuracy=value,
                chance=chance,
                ci95=interval([np.array(list(each.values()))[:, None]], np.random.default_rng(0)),
                expected=expected,
                passed=expected == "above" or value - chance <= NEAR,
                note=note,
            )
        )
    return found


def before_movements(recordings: Iterable[PairedRecording], window_s: float) -> Before | None:
    """EMG, glove and normalisers in the rest before each movement; None where there is no such rest."""
    features: dict[str, list[Values]] = {}
    rows: list[tuple[str, str]] = []
    for recording in recordings:
        n = round(window_s * recording.emg_rate_hz)
        starts = _rests(recording, n)
        if not starts:
            continue
        for name, values in _measured(recording, [s for _, s in starts], n).items():
            features.setdefault(name, []).append(values)
        rows += [(recording.participant, gesture) for gesture, _ in starts]
    whole = {name: np.concatenate(v) for name, v in features.items() if sum(map(len, v)) == len(rows)}
    if not whole:
        return None
    people = tuple(dict.fromkeys(p for p, _ in rows))
    gestures = tuple(dict.fromkeys(g for _, g in rows))
    return Before(
        features=whole,
        label=np.array([gestures.index(g) for _, g in rows], np.int64),
        participant=np.array([people.index(p) for p, _ in rows], np.int64),
        gestures=gestures,
        participants=people,
    )


def _rests(recording: PairedRecording, n: int) -> list[tuple[str, int]]:
    """(gesture, first sample) of whole rest stretches of n samples that end where a movement begins."""
    if not recording.rests:
        return []
    ends = 0
    found = []
    for segment in recording.segments:
        if segment.start - n >= ends:
            found.append((segment.gesture, segment.start - n))
        ends = max(ends, segment.stop)
    return found


def _measured(recording: PairedRecording, starts: Sequence[int], n: int) -> dict[str, Values]:
    """Features of the stretches of n samples from `starts`, by control."""
    emg = np.abs(recording.emg.astype(np.float64))
    rest, top = np.median(emg, axis=0), np.percentile(emg, _QUANTILE, axis=0)
    scaled = (emg - rest) / np.maximum(top - rest, 1e-6)
    length = n - n % SEGMENTS
    cut = np.stack([scaled[s : s + length] for s in starts])
    states = causal_normalise(recording.emg, recording.emg_rate_hz).state
    found = {
        "rest-before-movement": cut.reshape(len(starts), SEGMENTS, -1, emg.shape[1]).mean(axis=2).reshape(len(cut), -1),
        "normaliser-state": np.tile(np.concatenate([rest, top]), (len(starts), 1)),
        "causal-normaliser-state": np.stack([states[s] for s in starts]).astype(np.float64),
    }
    if recording.pose is not None:
        ratio = recording.pose_rate_hz / recording.emg_rate_hz
        spans = [(int(s * ratio), max(int(s * ratio) + 1, int((s + n) * ratio))) for s in starts]
        posture = np.stack([recording.pose[a:b].mean(axis=0) for a, b in spans]).astype(np.float64)
        found["glove-at-rest"] = (posture - posture.mean(axis=0)) / np.maximum(posture.std(axis=0), 1e-6)
    return found


def _by_participant(features: Values, measured: Before, groups: Sequence[Sequence[str]]) -> dict[str, float]:
    """Balanced accuracy of each participant, by discriminants trained on the others of each group."""
    found = {}
    for group in groups:
        out = np.isin(measured.participant, [i for i, p in enumerate(measured.participants) if p in group])
        if not out.any() or len(np.unique(measured.label[~out])) < len(measured.gestures):
            continue
        scores = evaluate.shrinkage_lda(
            (features[~out].astype(np.float32), measured.label[~out]),
            features[out].astype(np.float32),
            classes=len(measured.gestures),
        )
        said = scores.argmax(axis=1)
        for p in np.unique(measured.participant[out]):
            mine = measured.participant[out] == p
            found[measured.participants[p]] = evaluate.balanced_accuracy(measured.label[out][mine], said[mine])
    return found


def shuffled_controls(rows: Iterable[Row]) -> list[Control]:
    """Rows of broken pairs, which must be at chance in every protocol that pairs or labels could help."""
    return [
        Control(
            name=f"{row.method}, {row.protocol}",
            balanced_accuracy=row.balanced_accuracy,
            chance=row.chance,
            ci95=row.ci95,
            passed=abs(row.balanced_accuracy - row.chance) <= max(NEAR, 2 * row.sd / row.runs**0.5),
            note=f"Broken pairs, {row.runs} runs, {row.draws} draws.",
        )
        for row in rows
        if row.method in _SHUFFLED and row.protocol in _PAIRED and row.share == 1
    ]


def leak_attempts(split: Split) -> dict[str, Callable[[], object]]:
    """Ways to cheat with this split, each of which must raise."""
    tested, own = split.tested, split.tested_pose
    people = split.run.held_out
    return {
        "a gallery with the tested wearer's poses": lambda: replace(split, gallery=own),
        "a gallery that carries EMG": lambda: replace(split, gallery=split.train),
        "tested windows with their own pose": lambda: replace(split, tested=replace(tested, pose=own.pose)),
        "a held-out participant in the training": lambda: replace(
            split, train=replace(tested, pose=own.pose).of_participants(people).of_gestures(split.seen)
        ),
        "EMG of unseen gestures in the training": lambda: replace(
            split, train=replace(split.probe, pose=split.gallery.pose)
        ),
        "a calibration with repetitions under test": lambda: leakage.check_calibration(
            tested.of_gestures(split.seen), tested, split.unseen, split.window_s
        ),
        "a calibration with unseen gestures": lambda: leakage.check_calibration(
            tested.of_gestures(split.unseen), tested.of_gestures(split.seen), split.unseen, split.window_s
        ),
        "a strict run that saw unseen poses": lambda: leakage.pose_regime(
            (*split.seen, *split.unseen), split.unseen, claimed=PoseRegime.STRICT
        ),
    }


def leaks_raise(split: Split) -> list[Control]:
    """Try every leak on a split; a control passes where a `LeakageError` stops it."""
    found = []
    for name, attempt in leak_attempts(split).items():
        try:
            attempt()
        except LeakageError as error:
            passed, note = True, f"Refused: {error.message}."
        except DataError as error:
            passed, note = False, f"Refused for another reason: {error.message}."
        else:
            passed, note = False, "Nothing stopped it."
        found.append(Control(name=name, balanced_accuracy=0.0, chance=0.0, expected="raises", passed=passed, note=note))
    return found
