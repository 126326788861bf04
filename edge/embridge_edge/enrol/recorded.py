"""Repetitions that are recorded already: a recording that tells where they are takes the place of prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from embridge_edge.enrol.capture import Capture, scale_by_rest
from embridge_edge.enrol.embed import features_of
from embridge_edge.enrol.events import EnrolEvent, Stopped
from embridge_edge.enrol.repetition import About, StoredRepetition
from embridge_edge.recordings import Recording
from embridge_shared.session import Repetition

_BEFORE_S: Final = 3.0
_AFTER_S: Final = 0.25


class Recorded(Capture):
    """Takes or refuses repetitions of a recording, in its order."""

    _label = ""

    def offer(self, repetition: StoredRepetition) -> list[EnrolEvent]:
        """Judge a repetition; one of a gesture that is not asked for, or was done often enough, is passed over."""
        wanted = self.script.count(repetition.about.label)
        had = sum(t.repetition.about.label == repetition.about.label for t in self.taken)
        if self.done or had >= wanted:
            return []
        about = repetition.about
        features = features_of(repetition, self.view.release.preprocess)
        per_sample = self._rate_hz / about.spec.rate_hz
        onset, end = round(about.onset * per_sample), round(about.end * per_sample)
        moving = features.values[onset - features.first : end - features.first]
        rest = features.values[~features.flawed][: max(1, onset - features.first - int(features.flawed.sum()))]
        scale = self.view.scale or scale_by_rest(rest if len(rest) else features.values)
        level = float(np.abs(scale.apply(moving)).mean()) if len(moving) else 0.0
        self._label = about.label
        return self._settle(repetition, end, lost=0, level=level)

    @property
    def label(self) -> str:
        """The gesture that is judged."""
        return self._label or self.script[0]

    @property
    def number(self) -> int:
        """Which repetition of it, from 1."""
        return 1 + sum(t.repetition.about.label == self.label for t in self.taken)

    def _go_on(self, at: int, *, done: int = 0) -> list[EnrolEvent]:
        self._at += done
        if self._at < len(self.script):
            return []
        self.done = True
        return [Stopped(at=self._sample(at), complete=True)]


def repetitions_of(
    recording: Recording, labels: Sequence[str], *, recorded_ns: int, edge: str, release: str, calibrates: bool
) -> Iterator[StoredRepetition]:
    """The repetitions of a recording, in its order, with the rest before them.

    Args:
        recording: With annotations.
        labels: Gestures that are wanted.
        recorded_ns: Unix time of its start, ns.
        edge: Name of this edge.
        release: Release that looks at it.
        calibrates: They are of a calibration.
    """
    spec, rested = recording.emg, 0
    for a in recording.annotations:
        if not isinstance(a, Repetition):
            continue
        onset, end = (round(t * 1e-9 * spec.rate_hz) for t in (a.start_ns, a.end_ns))
        first = max(rested, onset - round(_BEFORE_S * spec.rate_hz))
        rested, stop = end, min(len(recording.emg_samples), end + round(_AFTER_S * spec.rate_hz))
        if a.gesture in labels and first <= onset < end <= stop:
            about = About(
                label=a.gesture,
                spec=spec,
                first=first,
                onset=onset,
                end=end,
                recorded_ns=recorded_ns + a.start_ns,
                edge=edge,
                release=release,
                source=f"replay:{recording.name}",
                calibrates=calibrates,
            )
            yield StoredRepetition(about, recording.emg_samples[first:stop])
