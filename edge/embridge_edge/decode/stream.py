"""Live decoding: raw samples in, scores and evidence at the release's hop out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge_edge.decode.decision import EvidenceSource
from embridge_edge.decode.hops import hops_of, window_at
from embridge_edge.decode.runtime import Decoder
from embridge_edge.decode.wearing import Wearing
from embridge_shared.clock import Clock, SystemClock
from embridge_shared.decision import Evidence, activity_of
from embridge_shared.errors import ModelError, Reason
from embridge_shared.preprocess import FrontEnd, Ring, WearerScale, montage_for
from embridge_shared.signal import StreamSpec
from embridge_shared.wearer.worn import WornScale


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
        hop_s: Time between two windows, s; by default the release's.
        ring: Where the band's electrodes sit; by default evenly around the arm.
        wearing: Watches how the band sits and says which scale is in force instead; by default `scale` always is.
        clock: Measures the latency; the system's by default.

    Raises:
        ConfigError: The release has no windows at that hop.
        ModelError: INCOMPATIBLE: the release does not take this band, the scale is of another one, or the stream is
            too slow for the release's filters.
    """

    def __init__(
        self,
        decoder: Decoder,
        spec: StreamSpec,
        scale: WearerScale,
        *,
        source: EvidenceSource | None = None,
        hop_s: float | None = None,
        ring: Ring | None = None,
        wearing: Wearing | None = None,
        clock: Clock | None = None,
    ) -> None:
        manifest = decoder.manifest
        if spec.n_channels != len(scale.gain):
            raise ModelError(
                f"{spec.name!r} has {spec.n_channels} channels and the wearer's scale {len(scale.gain)}.",
                reason=Reason.INCOMPATIBLE,
                hint="Calibrate with this band.",
            )
        self._montage = montage_for(
            manifest.preprocess.front_end, ring or spec.n_channels, manifest.ring or manifest.channels
        )
        self.decoder = decoder
        self._source = source
        self._scale: WearerScale | WornScale = scale
        self.wearing = wearing
        self._clock = clock or SystemClock()
        self.rate_hz = spec.rate_hz
        self._front_end = FrontEnd(manifest.preprocess.front_end, spec)
        self.window = window_at(manifest.preprocess, hop_s)
        self._hops = hops_of(decoder, self.window)

    @property
    def hop_s(self) -> float:
        """Time between two windows, s."""
        return self.window.hop / self.decoder.manifest.preprocess.front_end.rate_hz

    @property
    def streaming(self) -> bool:
        """Whether a hop pays for what is new and not for the whole window."""
        return self._hops.streaming

    @property
    def labels(self) -> tuple[str, ...]:
        """Gestures in the order of the evidence; those of the scores where these are the evidence."""
        return self.decoder.labels if self._source is None else self._source.labels

    def reset(self) -> None:
        """Start a new stream at sample 0."""
        self._front_end.reset()
        self._hops.reset()
        if self.wearing is not None:
            self.wearing.reset()

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
        try:
            return self._push(raw, first)
        except ModelError:
            # Its windows begin anew: none spans what was not decoded.
            self._hops.reset()
            raise

    def _push(self, raw: NDArray[Any], first: int | None) -> list[Decoded]:
        arrived_ns = self._clock.monotonic_ns()
        out = []
        features = self._front_end.feed(raw, first)
        if self.wearing is not None:
            self._scale = self.wearing.push(features)
        values = self._scale.apply(features.values)
        scaled = replace(features, values=values if self._montage is None else self._montage.apply(values))
        for seen in self._hops.push(scaled):
            scores = self.decoder.score(seen.queries)
            evidence = replace(self._evidence(seen.window, scores, seen.end), flawed=seen.flawed)
            newest = self._front_end.input_index(seen.end - 1)
            latency_s = (self._clock.monotonic_ns() - arrived_ns) * 1e-9
            out.append(Decoded(newest, seen.end, scores, seen.flawed, latency_s, evidence))
        return out

    def _evidence(self, scaled: NDArray[np.float32], scores: NDArray[np.float32], end: int) -> Evidence:
        if self._source is not None:
            return self._source.evidence(scaled, end)
        return Evidence(end, scores, activity_of(scaled, self.decoder.manifest.preprocess.front_end.rate_hz))
