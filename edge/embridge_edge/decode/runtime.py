"""The encoders of a release on ONNX Runtime, and the proof that they answer here as where they were made."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from embridge_edge.decode.session import HINT, Running, open_session
from embridge_edge.decode.streaming import PatchStream, StreamModel
from embridge_shared.clock import Clock, SystemClock
from embridge_shared.errors import DataError, ModelError, Reason
from embridge_shared.manifest import Manifest
from embridge_shared.release import ENCODER, ENCODER_INT8, STREAM, STREAM_INT8, Bundle
from embridge_shared.scoring import PrototypeScorer

_INPUT: Final = "windows"
_OUTPUT: Final = "queries"
_GRAPHS: Final = (ENCODER, ENCODER_INT8, STREAM, STREAM_INT8)


@dataclass(frozen=True, slots=True)
class SelfTest:
    """How close the encoder came to the golden answers.

    Attributes:
        cosine: Least cosine of a query.
        score: Largest difference of a score.
        compute_s: Median time of one window, s.
    """

    cosine: float
    score: float
    compute_s: float


class Decoder:
    """Windows to gesture scores.

    Attributes:
        bundle: The release, without its encoders.
        int8: Whether the quantised encoder runs.
        stream: The streaming encoder; None where the release has none.

    Args:
        bundle: A verified release.
        int8: Run the quantised encoder.

    Raises:
        ModelError: MALFORMED: the encoder cannot be loaded; INCOMPATIBLE: it does not take or give what the manifest
            says.
    """

    def __init__(self, bundle: Bundle, *, int8: bool = True) -> None:
        # the graphs go where they run, and are most of a bundle
        self.bundle = replace(bundle, files={n: data for n, data in bundle.files.items() if n not in _GRAPHS})
        self.int8 = int8
        self._score = self._shipped = bundle.scorer()
        self._labels = tuple(gesture.label for gesture in bundle.manifest.gestures)
        self.stream = StreamModel.of(bundle, int8=int8)
        self._encoder = bundle.files[ENCODER_INT8 if int8 else ENCODER]
        self._opened: onnxruntime.InferenceSession | None = None
        if self.stream is None:
            self._whole()

    @property
    def manifest(self) -> Manifest:
        """The release's manifest."""
        return self.bundle.manifest

    @property
    def labels(self) -> tuple[str, ...]:
        """Gesture labels in the order of the scores (G,)."""
        return self._labels

    def extended(self, labels: Sequence[str], vectors: Sequence[NDArray[np.float32]]) -> Decoder:
        """This decoder with gestures added behind the release's own; it shares the encoder.

        Args:
            labels: Their names.
            vectors: Prototypes of each, L2-normalised, float32 (P, d).

        Raises:
            DataError: A gesture is there twice, or prototypes of another size.
        """
        every = (*self._labels, *labels)
        if len(set(every)) < len(every) or len(labels) != len(vectors):
            raise DataError(f"gestures that are there twice: {', '.join(labels)}")
        if not labels:
            return self
        m, own = self.manifest, len(self._labels) - len(self.manifest.gestures)
        if own or any(v.ndim != 2 or v.shape[1] != m.dim for v in vectors):
            raise DataError(f"prototypes of {m.release} have {m.dim} numbers each", reason=Reason.WRONG_SHAPE)
        rows = np.concatenate(
            [np.array(m.rows, np.int64), *(np.full(len(v), len(m.gestures) + i) for i, v in enumerate(vectors))]
        )
        other = copy.copy(self)
        other._labels = every
        other._score = PrototypeScorer(np.concatenate([self.bundle.prototypes, *vectors]), rows, k=m.k)
        return other

    def embed(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embed one window.

        Windows go one at a time: a quantised encoder derives its ranges from all it is given, and an answer must
        not depend on what else was waiting.

        Args:
            window: Scaled features, float32 (T, C).

        Returns:
            L2-normalised queries, float32 (M, d).

        Raises:
            DataError: WRONG_SHAPE.
            ModelError: SELF_TEST: the encoder answered something that is not a finite number.
        """
        m = self.manifest
        if window.shape != (m.window, m.channels):
            raise DataError(
                f"{m.release} takes windows ({m.window}, {m.channels}), not {window.shape}", reason=Reason.WRONG_SHAPE
            )
        encoder = self._whole()
        with Running(m):
            (queries,) = encoder.run([_OUTPUT], {_INPUT: np.asarray(window, np.float32)[None]})
        return self.checked(queries[0])

    def _whole(self) -> onnxruntime.InferenceSession:
        """The encoder of whole windows; a release that streams may never need it."""
        if self._opened is None:
            self._opened = _session(self._encoder, self.manifest)
        return self._opened

    def score(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Queries float32 (M, d) to one score a gesture, float32 (G,)."""
        return self._score(queries)

    def checked(self, answer: NDArray[np.float32]) -> NDArray[np.float32]:
        """An encoder's answer as it is.

        Raises:
            ModelError: SELF_TEST: it is not finite queries (M, d).
        """
        m = self.manifest
        if answer.shape != (m.queries, m.dim) or not np.isfinite(answer).all():
            raise ModelError(f"{m.release} gave no finite ({m.queries}, {m.dim})", reason=Reason.SELF_TEST, hint=HINT)
        return answer

    def scores(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score one window: float32 (T, C) to one score a gesture, float32 (G,); raises as `embed`."""
        return self._score(self.embed(window))

    def self_test(self, clock: Clock | None = None) -> SelfTest:
        """Replay the golden windows, as live decoding would run them; one after another they are a golden stream.

        Args:
            clock: Times the windows; the system's by default.

        Raises:
            ModelError: SELF_TEST: a query or a score is further off than the manifest tolerates, or not finite.
        """
        clock = clock or SystemClock()
        golden, tolerances = self.bundle.golden, self.manifest.tolerances
        least = tolerances.int8_cosine if self.int8 else tolerances.cosine
        most = tolerances.int8_score if self.int8 else tolerances.score
        cosine, score, took_ns = 1.0, 0.0, []
        phase = None if self.stream is None else self.stream.phase()
        for window, queries, scores in zip(golden.windows, golden.queries, golden.scores, strict=True):
            begin = clock.monotonic_ns()
            found = self.embed(window)
            answers = [(found, self._shipped(found))]
            took_ns.append(clock.monotonic_ns() - begin)
            if phase is not None:
                found = self._streamed(phase, window)
                answers.append((found, self._shipped(found)))
            for answer, answer_scores in answers:
                cosine = min(cosine, _least_cosine(answer, queries))
                score = max(score, float(np.abs(answer_scores - scores).max()))
        if not (cosine >= least and score <= most):
            raise ModelError(
                f"{self.manifest.release} fails its self-test: cosine {cosine:.4f} (least {least}), "
                f"score off by {score:.4f} (most {most}).",
                reason=Reason.SELF_TEST,
                hint=HINT,
            )
        return SelfTest(cosine, score, float(np.median(took_ns)) * 1e-9)

    def paced(self, windows: int = 50, *, most_s: float = 2.0, clock: Clock | None = None) -> tuple[float, float]:
        """Decode the golden windows over and over, as live decoding would.

        Args:
            windows: How many.
            most_s: No longer than this, s.
            clock: Times them; the system's by default.

        Returns:
            Time a window: median and 99th percentile, s.

        Raises:
            ModelError: As `embed`.
        """
        clock = clock or SystemClock()
        config, golden = self.manifest.preprocess.window, self.bundle.golden.windows
        phase = self.stream.phase() if self.stream is not None and config.patch % config.hop == 0 else None
        took_ns: list[int] = []
        while len(took_ns) < windows and sum(took_ns) < most_s * 1e9:
            window = golden[len(took_ns) % len(golden)]
            begin = clock.monotonic_ns()
            found = self.embed(window) if phase is None else self.checked(phase.step(window[-config.patch :]))
            self.score(found)
            took_ns.append(clock.monotonic_ns() - begin)
        p50, p99 = np.percentile(took_ns, (50, 99)) * 1e-9
        return float(p50), float(p99)

    def _streamed(self, phase: PatchStream, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """The answer to a window whose patches follow whatever came before."""
        size = self.manifest.preprocess.window.patch
        for at in range(0, len(window), size):
            queries = phase.step(window[at : at + size])
        return self.checked(queries)


def _least_cosine(found: NDArray[np.float32], queries: NDArray[np.float32]) -> float:
    norms = np.linalg.norm(found, axis=-1) * np.linalg.norm(queries, axis=-1)
    return float(((found * queries).sum(axis=-1) / np.maximum(norms, 1e-12)).min())


def _session(model: bytes, manifest: Manifest) -> onnxruntime.InferenceSession:
    session = open_session(model, f"the encoder of {manifest.release}")
    inputs, outputs = session.get_inputs(), session.get_outputs()
    takes = _fits(inputs, _INPUT, (manifest.window, manifest.channels))
    if not takes or not _fits(outputs, _OUTPUT, (manifest.queries, manifest.dim)):
        found = [(i.name, i.type, i.shape) for i in (*inputs, *outputs)]
        raise ModelError(
            f"the encoder of {manifest.release} has {found} where {_INPUT} and {_OUTPUT} are due",
            reason=Reason.INCOMPATIBLE,
            hint=HINT,
        )
    return session


def _fits(ports: list[Any], name: str, shape: tuple[int, int]) -> bool:
    if len(ports) != 1 or ports[0].name != name or ports[0].type != "tensor(float)" or len(ports[0].shape) != 3:
        return False
    free, *rest = ports[0].shape
    return free != 0 and all(isinstance(f, str | None) or f == n for f, n in zip(rest, shape, strict=True))
