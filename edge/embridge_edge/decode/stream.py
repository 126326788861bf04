"""Live decoding: raw samples in, scores and evidence at the release's hop out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge_edge.decode.decision import EvidenceSource
from embridge_edge.decode.runtime import Decoder
from embridge_shared.clock import Clock, SystemClock
from embridge_shared.decision import Evidence, activity_of
from embridge_shared.errors import ModelError, Reason
from embridge_shared.preprocess import FrontEnd, WearerScale, Windower
from embridge_shared.signal import StreamSpec


@dataclass(frozen=True, slots=True)
class Decoded:
    """The scores of one window.

    Attributes:
        sample: Index of the newest raw sample of the stream it rests on.
        end: Absolute feature index after the window; a multiple of the hop.
        scores: One a gesture, in the release's order, float32 (G,).
        flawed: Share of the window that rests on held samples or unsettled filters.
        latency_s: From the arrival of the samples that completed the window to its scores, s.
        evidence: What speaks for which gesture, in the order of the decoder's labels.
    """

    sample: int
    end: int
    scores: NDArray[np.float32]
    flawed: float
    latency_s: float
    evidence: Evidence


class StreamDecoder:
    """Decodes one stream of one wearer.

    Args:
        decoder: The release.
        spec: The stream.
        scale: The wearer's scale.
        source: What gives the evidence, as a model made the wearer's own does; by default the release's scores.
        clock: Measures the latency; the system's by default.

    Raises:
        ModelError: INCOMPATIBLE: the release is for another number of channels than the stream or the scale has, or
            the stream is too slow for its filters.
    """

    def __init__(
        self,
        decoder: Decoder,
        spec: StreamSpec,
        scale: WearerScale,
        *,
        source: EvidenceSource | None = None,
        clock: Clock | None = None,
    ) -> None:
        manifest = decoder.manifest
        if not manifest.channels == spec.n_channels == len(scale.gain):
            raise ModelError(
                f"{manifest.release} takes {manifest.channels} channels, {spec.name!r} has {spec.n_channels} and the "
                f"wearer's scale {len(scale.gain)}.",
                reason=Reason.INCOMPATIBLE,
                hint="Use a release made for this band, and calibrate with it.",
            )
        self.decoder = decoder
        self._source = source
        self._scale = scale
        self._clock = clock or SystemClock()
        self._front_end = FrontEnd(manifest.preprocess.front_end, spec)
        self._windower = Windower(manifest.preprocess.window)

    @property
    def labels(self) -> tuple[str, ...]:
        """Gestures in the order of the evidence; those of the scores where these are the evidence."""
        return self.decoder.labels if self._source is None else self._source.labels

    def reset(self) -> None:
        """Start a new stream at sample 0."""
        self._front_end.reset()
        self._windower.reset()

    def skip(self, n: int) -> None:
        """Note that `n` samples are lost before the next ones."""
        self._front_end.skip(n)

    def push(self, raw: NDArray[Any], first: int | None = None) -> list[Decoded]:
        """Take samples.

        Args:
            raw: Raw samples, (n, C), of the stream's dtype.
            first: Index of the first one; a jump past the last ones is a gap. By default they follow the last ones
                and whatever was skipped.

        Returns:
            The windows they complete, oldest first.

        Raises:
            DataError: As `FrontEnd.feed`.
            ModelError: As `Decoder.embed`.
        """
        arrived_ns = self._clock.monotonic_ns()
        out = []
        for window in self._windower.push(self._front_end.feed(raw, first)):
            scaled = self._scale.apply(window.values)
            scores = self.decoder.scores(scaled)
            evidence = replace(self._evidence(scaled, scores, window.end), flawed=window.flawed)
            newest = self._front_end.input_index(window.end - 1)
            latency_s = (self._clock.monotonic_ns() - arrived_ns) * 1e-9
            out.append(Decoded(newest, window.end, scores, window.flawed, latency_s, evidence))
        return out

    def _evidence(self, scaled: NDArray[np.float32], scores: NDArray[np.float32], end: int) -> Evidence:
        if self._source is not None:
            return self._source.evidence(scaled, end)
        return Evidence(end, scores, activity_of(scaled, self.decoder.manifest.preprocess.front_end.rate_hz))
