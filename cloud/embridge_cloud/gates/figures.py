"""Figures of a contender on the panel, kept apart by person so that people can be drawn anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.learn.decisions import performances
from embridge_cloud.learn.evaluate import balanced_accuracy
from embridge_cloud.learn.onsets import REST, Trace, onsets
from embridge_shared.decision import DecisionConfig, expected_calibration_error

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Heard:
    """What a contender said of the panel.

    Attributes:
        labels: Gestures in the order of its scores.
        people: Of the panel, in order.
        traces: Its own, one a stretch, in the panel's order.
    """

    labels: tuple[str, ...]
    people: tuple[str, ...]
    traces: tuple[Trace, ...]

    def of(self, people: Sequence[str]) -> Heard:
        """What it said of some of them."""
        return Heard(self.labels, tuple(people), tuple(t for t in self.traces if t.person in people))

    def accuracies(self, among: Sequence[str]) -> Floats:
        """Balanced accuracy of each person in choosing among some gestures (P,); NaN where they did none of them."""
        out = np.full(len(self.people), np.nan)
        for at, person in enumerate(self.people):
            truth, chosen = self._choices(person, among)
            if len(truth):
                out[at] = balanced_accuracy(truth, chosen)
        return out

    def confusion(self, among: Sequence[str]) -> Ints:
        """Windows by truth and choice, all people together (G, G)."""
        counts = np.zeros((len(among), len(among)), np.int64)
        for person in self.people:
            np.add.at(counts, self._choices(person, among), 1)
        return counts

    def repetitions(self, person: str, among: Sequence[str]) -> Floats:
        """A person's performances: gesture, windows that were right, windows (R, 3)."""
        columns = self._columns(among)
        rows = []
        for trace in self._of(person):
            for begin, end in performances(trace.truth):
                whole = np.flatnonzero(trace.whole[begin:end]) + begin
                truth = int(trace.truth[begin])
                if len(whole) and truth in columns:
                    best = columns[trace.log_likelihood[whole][:, columns].argmax(axis=1)]
                    rows.append((among.index(self.labels[truth]), int((best == truth).sum()), len(whole)))
        return np.array(rows, np.float64).reshape(-1, 3)

    def sureness(self, decision: DecisionConfig) -> list[tuple[Floats, NDArray[np.bool_]]]:
        """Of each person, the probability of the likeliest gesture of each window, and whether it was right."""
        out = []
        for person in self.people:
            sure, right = [np.zeros(0)], [np.zeros(0, bool)]
            for trace in self._of(person):
                shares = decision.probabilities(trace.log_likelihood[trace.whole])
                sure.append(shares.max(axis=1))
                right.append(shares.argmax(axis=1) == trace.truth[trace.whole])
            out.append((np.concatenate(sure), np.concatenate(right)))
        return out

    def false_activations(self, decision: DecisionConfig) -> int:
        """How often a gesture began while nothing was performed that it knows."""
        return sum(
            int(trace.truth[hop] == REST) for trace in self.traces for hop, _ in onsets(trace, self.labels, decision)
        )

    @property
    def rest_hours(self) -> float:
        """How long nothing was performed that it knows, h."""
        return sum(trace.rest_s for trace in self.traces) / 3600

    def _of(self, person: str) -> list[Trace]:
        return [t for t in self.traces if t.person == person]

    def _columns(self, among: Sequence[str]) -> Ints:
        return np.array([self.labels.index(g) for g in among], np.int64)

    def _choices(self, person: str, among: Sequence[str]) -> tuple[Ints, Ints]:
        """Truth and choice of each window that one of the gestures fills, as places among them."""
        columns = self._columns(among)
        place = np.full(len(self.labels), -1)
        place[columns] = np.arange(len(columns))
        truth, chosen = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for trace in self._of(person):
            rows = trace.whole & np.isin(trace.truth, columns)
            truth.append(place[trace.truth[rows]])
            chosen.append(trace.log_likelihood[rows][:, columns].argmax(axis=1).astype(np.int64))
        return np.concatenate(truth), np.concatenate(chosen)


def calibration_error(said: Sequence[tuple[Floats, NDArray[np.bool_]]], people: Ints) -> float:
    """Expected calibration error over the windows of some people, named by their places.

    Args:
        said: As `Heard.sureness`.
        people: Places, with repetition.
    """
    sure = np.concatenate([said[p][0] for p in people])
    right = np.concatenate([said[p][1] for p in people])
    return expected_calibration_error(sure, right)
