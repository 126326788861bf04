"""Whole sealed sessions as a decoder meets them: windows at the release's hop, rest between repetitions included.

Moments of gestures that must not be looked at are cut out, with every window that touches one: what is fitted on these
recordings knows nothing of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from embridge_cloud.learn.onsets import BETWEEN, REST, Trace
from embridge_cloud.pairing import PairedRun, PairedSession
from embridge_shared.decision import RECENT_S
from embridge_shared.preprocess import Features, PreprocessConfig, WearerScale, windows
from embridge_shared.session import Repetition, RepetitionStatus

Floats = NDArray[np.float32]
Scores = tuple[NDArray[np.floating], NDArray[np.floating] | None]

AFTER_S: Final = 0.5
"""Filters remember what was hidden for so long."""
_BATCH = 2048


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    """What was done at each feature of a run.

    Attributes:
        truth: Gesture, index into the gestures, or `REST`, int64 (m,).
        repetition: Which repetition of it, counted from 1; 0 at rest (m,).
        hidden: What must not be looked at (m,).
    """

    truth: NDArray[np.int64]
    repetition: NDArray[np.int64]
    hidden: NDArray[np.bool_]

    @classmethod
    def nothing(cls, n: int) -> Done:
        """Rest all along."""
        return cls(np.full(n, REST, np.int64), np.zeros(n, np.int64), np.zeros(n, bool))

    def mark(self, rows: slice, gesture: int | None, repetition: int) -> None:
        """Note a repetition of a gesture, or of one that must not be looked at."""
        if gesture is None:
            self.hidden[rows] = True
        else:
            self.truth[rows], self.repetition[rows] = gesture, repetition


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """Features in a row, without a gap and without a moment that must not be looked at.

    Attributes:
        person: Whose.
        first: Absolute index of the first feature.
        features: Scaled, float32 (m, C).
        truth: Gesture performed at each feature, index into the gestures, or `REST`, int64 (m,).
        repetition: Which repetition of it, counted from 1; 0 at rest (m,).
        preprocess: Length and hop of windows, rate of features.
    """

    person: str
    first: int
    features: Floats
    truth: NDArray[np.int64]
    repetition: NDArray[np.int64]
    preprocess: PreprocessConfig

    def windows(self) -> Floats:
        """Windows on the release's grid, a view (N, T, C)."""
        return windows(self.features, self.preprocess.window, first=self.first)[0]

    def _seen_by_windows(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """A value a feature, as windows see it (N, T)."""
        _, ends = windows(self.features, self.preprocess.window, first=self.first)
        length = self.preprocess.window.length
        return sliding_window_view(values, length)[ends - self.first - length]

    def hops(self, spent: Collection[int] = ()) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Truth of each window, as in `Trace`, and whether a gesture fills it.

        Args:
            spent: Repetitions that calibrated the wearer: nothing is asked of them.
        """
        inside = self._seen_by_windows(self.truth)
        end = inside[:, -1]
        same = (inside == inside[:, :1]).all(axis=1)
        used = np.isin(self._seen_by_windows(self.repetition), list(spent)).any(axis=1) & bool(spent)
        truth = np.where((end >= 0) | same, end, BETWEEN)
        truth = np.where(used, BETWEEN, truth)
        return truth, same & (truth >= 0)

    def performed(self) -> list[tuple[int, int, Floats]]:
        """Gesture, repetition and windows (n, T, C) of every repetition that a window fits into."""
        view, (truth, whole) = self.windows(), self.hops()
        which = self._seen_by_windows(self.repetition)[:, -1]
        keys = sorted({(int(g), int(r)) for g, r in zip(truth[whole], which[whole], strict=True)})
        return [(g, r, view[whole & (truth == g) & (which == r)]) for g, r in keys]


def stretches(
    paired: PairedSession,
    repetitions: Sequence[Repetition],
    scale: WearerScale,
    preprocess: PreprocessConfig,
    gestures: Sequence[str],
) -> list[Stretch]:
    """Cut a session.

    Args:
        paired: The session.
        repetitions: All that was done, rejected repetitions included: these are no rest.
        scale: The wearer's.
        preprocess: The release's.
        gestures: What may be looked at; moments of every other gesture are not.
    """
    out = []
    for run in paired.runs:
        done = _done(run, repetitions, preprocess, gestures)
        out += sound_stretches(paired.participant, run.features, scale, preprocess, done)
    return out


def sound_stretches(
    person: str, features: Features, scale: WearerScale, preprocess: PreprocessConfig, done: Done
) -> list[Stretch]:
    """Cut a run of features where something is hidden or flawed."""
    hidden = done.hidden | features.flawed
    out = []
    for part in np.split(np.arange(len(hidden)), np.flatnonzero(np.diff(hidden.astype(np.int8))) + 1):
        if len(part) < preprocess.window.length or hidden[part[0]]:
            continue
        rows = slice(int(part[0]), int(part[-1]) + 1)
        scaled = scale.apply(features.values[rows])
        found = Stretch(
            person, features.first + rows.start, scaled, done.truth[rows], done.repetition[rows], preprocess
        )
        if len(found.windows()):
            out.append(found)
    return out


def trace_of(stretch: Stretch, score: Callable[[Floats], Scores], *, spent: Collection[int] = ()) -> Trace:
    """Decide on every window of a stretch.

    Args:
        stretch: The recording.
        score: Windows (n, T, C) to log-likelihoods (n, G) and distances (n,), or None where there are none.
        spent: Repetitions that calibrated the wearer.
    """
    view, config = stretch.windows(), stretch.preprocess
    found = [score(np.ascontiguousarray(view[i : i + _BATCH])) for i in range(0, len(view), _BATCH)]
    truth, whole = stretch.hops(spent)
    recent = max(1, round(RECENT_S * config.front_end.rate_hz))
    far = [d for _, d in found if d is not None]
    return Trace(
        person=stretch.person,
        truth=truth,
        whole=whole,
        log_likelihood=np.concatenate([s for s, _ in found]).astype(np.float64),
        activity=np.abs(view[:, -recent:]).mean(axis=(1, 2), dtype=np.float64),
        distance=np.concatenate(far).astype(np.float64) if far else None,
        hop_s=config.hop_s,
    )


def _done(
    run: PairedRun, repetitions: Sequence[Repetition], preprocess: PreprocessConfig, gestures: Sequence[str]
) -> Done:
    done = Done.nothing(len(run.t_ns))
    for r in repetitions:
        known = r.gesture in gestures and r.status is RepetitionStatus.ACCEPTED
        begin, end = np.searchsorted(run.t_ns, [r.start_ns, r.end_ns + (0 if known else round(AFTER_S * 1e9))])
        done.mark(slice(int(begin), int(end)), gestures.index(r.gesture) if known else None, r.repetition)
    return done
