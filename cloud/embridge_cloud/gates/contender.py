"""A contender: a bundle run as an edge runs it, and what it says of the panel."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from embridge_cloud.gates.panel import Taken
from embridge_cloud.learn.export import INPUT, OUTPUT, open_session
from embridge_cloud.learn.onsets import Trace
from embridge_cloud.traces import Scores, Stretch, trace_of
from embridge_shared.errors import ModelError, Reason
from embridge_shared.release import (
    ENCODER,
    ENCODER_INT8,
    STREAM,
    STREAM_INT8,
    STREAM_PATCH,
    STREAM_QUERIES,
    STREAM_STATE,
    Bundle,
    read_bundle,
    stream_next,
)
from embridge_shared.scoring import PrototypeScorer

Floats = NDArray[np.float32]

_WEIGH_S = 120.0
_WARM = 20


class Golden(msgspec.Struct, frozen=True, kw_only=True):
    """How a release answers its golden windows.

    Attributes:
        cosine: Least cosine of a query, of all graphs of full precision.
        int8_cosine: The same of the quantised ones.
        score: Largest difference of a score, full precision.
        int8_score: The same, quantised.
    """

    cosine: float
    int8_cosine: float
    score: float
    int8_score: float


@dataclass(frozen=True, slots=True)
class Contender:
    """A release on one thread, quantised, window by window, as an edge decodes.

    Attributes:
        path: The bundle file.
        bundle: It.
        labels: Gestures in the order of the scores.
    """

    path: Path
    bundle: Bundle
    labels: tuple[str, ...]
    _encoder: onnxruntime.InferenceSession
    _scorer: PrototypeScorer

    @classmethod
    def read(cls, path: Path) -> Contender:
        """Load a bundle.

        Raises:
            ModelError: It is damaged, or its encoder cannot be loaded.
        """
        bundle = read_bundle(path)
        labels = tuple(g.label for g in bundle.manifest.gestures)
        return cls(path, bundle, labels, open_session(bundle.files[ENCODER_INT8]), bundle.scorer())

    @property
    def taken(self) -> Taken:
        """What it takes."""
        m = self.bundle.manifest
        return Taken(m.preprocess, m.ring, self.labels)

    @property
    def name(self) -> str:
        """Its name among all releases."""
        return self.bundle.manifest.release

    def embed(self, windows: Floats) -> Floats:
        """Windows (n, T, C) to queries (n, M, d), one at a time.

        Raises:
            ModelError: SELF_TEST: an answer is no finite number.
        """
        found = np.concatenate([_answer(self._encoder, w[None]) for w in windows])
        if not np.isfinite(found).all():
            raise ModelError(f"{self.name} answered no finite number", reason=Reason.SELF_TEST)
        return found

    def score(self, windows: Floats) -> Scores:
        """Windows (n, T, C) to scores (n, G); scores have no distance."""
        return self._scorer(self.embed(windows)), None

    def listen(self, stretches: Sequence[Stretch]) -> list[Trace]:
        """What it says of recordings, hop by hop.

        Raises:
            ModelError: SELF_TEST: an answer is no finite number.
        """
        return [trace_of(s, self.score) for s in stretches]

    def golden(self) -> Golden:
        """Replay the golden windows through every graph of the bundle."""
        full = [self._replayed(name) for name in (ENCODER, STREAM) if name in self.bundle.files]
        small = [self._replayed(name) for name in (ENCODER_INT8, STREAM_INT8) if name in self.bundle.files]
        return Golden(
            cosine=min(cosine for cosine, _ in full),
            int8_cosine=min(cosine for cosine, _ in small),
            score=max(score for _, score in full),
            int8_score=max(score for _, score in small),
        )

    def _replayed(self, name: str) -> tuple[float, float]:
        """Least cosine and largest difference of a score of one graph; -1 and infinity where it answers no number."""
        golden, graph = self.bundle.golden, open_session(self.bundle.files[name])
        streams = name in (STREAM, STREAM_INT8)
        if streams:
            queries = _stream(graph, golden.windows, self.bundle.manifest.preprocess.window.patch)
        else:
            queries = np.concatenate([_answer(graph, w[None]) for w in golden.windows])
        if queries.shape != golden.queries.shape or not np.isfinite(queries).all():
            return -1.0, np.inf
        off = np.abs(self._scorer(queries) - golden.scores).max()
        return least_cosine(queries, golden.queries), float(off)

    def quantised_cosine(self, windows: Floats) -> NDArray[np.float64]:
        """Cosine of each window's worst query between full precision and quantised (n,)."""
        graph = open_session(self.bundle.files[ENCODER])
        full = np.concatenate([_answer(graph, w[None]) for w in windows])
        return np.asarray(_cosines(full, self.embed(windows)).min(axis=-1))

    def time_one(self, window: Floats) -> float:
        """Processor time from a window (T, C) to its scores, ms; whatever else the machine does is not in it."""
        began = time.thread_time_ns()
        self._scorer(_answer(self._encoder, window[None])[0])
        return (time.thread_time_ns() - began) * 1e-6


def _answer(session: onnxruntime.InferenceSession, windows: Floats) -> Floats:
    return np.asarray(session.run([OUTPUT], {INPUT: np.ascontiguousarray(windows, np.float32)})[0], np.float32)


def _stream(session: onnxruntime.InferenceSession, windows: Floats, patch: int) -> Floats:
    """The answers of a streaming graph to windows fed one after another, patch by patch."""
    state: dict[str, NDArray[Any]] = {
        i.name: np.zeros([n if isinstance(n, int) else 1 for n in i.shape], np.float32)
        for i in session.get_inputs()
        if i.name.startswith(STREAM_STATE)
    }
    follows = [stream_next(name) for name in state]
    out = []
    for window in windows:
        answer = np.zeros(0, np.float32)
        for at in range(0, len(window), patch):
            fed = {STREAM_PATCH: np.ascontiguousarray(window[None, at : at + patch], np.float32), **state}
            answer, *after = session.run([STREAM_QUERIES, *follows], fed)
            state = dict(zip(state, after, strict=True))
        out.append(answer)
    return np.concatenate(out)


def _cosines(found: Floats, wanted: Floats) -> NDArray[np.float64]:
    """Cosine of each query (..., M)."""
    lengths = np.linalg.norm(found, axis=-1) * np.linalg.norm(wanted, axis=-1)
    return np.asarray((found * wanted).sum(axis=-1) / np.maximum(lengths, 1e-12), np.float64)


def least_cosine(found: Floats, wanted: Floats) -> float:
    """The least cosine of any query (..., M, d)."""
    return float(_cosines(found, wanted).min())


def race(contenders: Sequence[Contender], windows: Sequence[Floats]) -> list[NDArray[np.float64]]:
    """Time contenders in turn, so that what else the machine does meets all of them alike.

    Args:
        contenders: One or two.
        windows: As each takes them, (n, T, C), as many of each.

    Returns:
        Processor time of each window, ms (n,).
    """
    count = min(len(w) for w in windows)
    for contender, own in zip(contenders, windows, strict=True):
        for window in own[:_WARM]:
            contender.time_one(window)
    took = np.zeros((len(contenders), count))
    for at in range(count):
        for step in range(len(contenders)):  # nobody is always the first after a pause
            place = (at + step) % len(contenders)
            took[place, at] = contenders[place].time_one(windows[place][at])
    return list(took)


def memory_bytes(path: Path) -> int:
    """What a process needs more once it decodes with a bundle, bytes; measured in one of its own.

    Raises:
        ModelError: SELF_TEST: the bundle cannot be run.
    """
    command = [sys.executable, "-m", "embridge_cloud.weigh_child", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_WEIGH_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"{path.name} did not decode within {_WEIGH_S:.0f} s", reason=Reason.SELF_TEST) from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no words"])[-1]
        raise ModelError(f"{path.name} cannot be run: {last}", reason=Reason.SELF_TEST)
    return int(done.stdout)
