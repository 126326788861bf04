"""Features to embedded windows at a hop, either way: window by window, or a patch at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_edge.decode.runtime import Decoder
from embridge_shared.errors import ConfigError
from embridge_shared.preprocess import Features, PreprocessConfig, WindowConfig, Windower

PATCHES_A_HOP: Final = 2
"""Patches a hop up to which a stream costs less than the window: the reader runs with every patch."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """A window and its queries; both may be overwritten when the next one is asked for.

    Attributes:
        end: Absolute feature index after the window; a multiple of the hop.
        window: Scaled features, float32 (T, C).
        flawed: Share of the window that rests on held samples or unsettled filters.
        queries: L2-normalised, float32 (M, d).
    """

    end: int
    window: NDArray[np.float32]
    flawed: float
    queries: NDArray[np.float32]


class Hops(Protocol):
    """Windows at every hop."""

    @property
    def streaming(self) -> bool:
        """Whether older patches are kept and not computed again."""
        ...

    def reset(self) -> None:
        """Forget the features seen."""
        ...

    def push(self, features: Features) -> Iterator[Embedded]:
        """Take scaled features; the windows they complete, oldest first. All must be asked for.

        Features that do not follow the last ones start anew: no window spans a gap.

        Raises:
            ModelError: As `Decoder.embed`.
        """
        ...


class WindowHops:
    """Embeds every window whole.

    Args:
        decoder: The release.
        config: Its windows, at the hop wanted.
    """

    streaming = False

    def __init__(self, decoder: Decoder, config: WindowConfig) -> None:
        self._decoder = decoder
        self._windower = Windower(config)

    def reset(self) -> None:
        """As of `Hops`."""
        self._windower.reset()

    def push(self, features: Features) -> Iterator[Embedded]:
        """As of `Hops`."""
        for window in self._windower.push(features):
            yield Embedded(window.end, window.values, window.flawed, self._decoder.embed(window.values))


class PatchHops:
    """Embeds the newest patch of each window beside what is kept of the others.

    Where the hop is shorter than a patch, windows that end patch / hop hops apart share their patches: each phase has a
    state of its own, and a hop costs one patch. The features of a window are kept twice over, so that every window is
    one piece of memory.

    Args:
        decoder: The release, with a streaming encoder.
        config: Its windows, at the hop wanted.
    """

    streaming = True

    def __init__(self, decoder: Decoder, config: WindowConfig) -> None:
        if decoder.stream is None or not streams(config):
            raise ConfigError(f"{decoder.manifest.release} cannot be streamed at a hop of {config.hop} features")
        self._decoder = decoder
        self._config = config
        self._step = min(config.hop, config.patch)
        self._phases = [decoder.stream.phase() for _ in range(config.patch // self._step)]
        self._values = np.zeros((2 * config.length, decoder.manifest.channels), np.float32)
        self._flawed = np.zeros(2 * config.length, np.bool_)
        self.reset()

    def reset(self) -> None:
        """As of `Hops`."""
        self._first: int = 0
        self._end: int = -1

    def push(self, features: Features) -> Iterator[Embedded]:
        """As of `Hops`."""
        if not len(features):
            return
        if features.first != self._end:
            self._first = self._end = features.first
        at = 0
        while at < len(features):
            stop = min(len(features), at + self._step - self._end % self._step)
            self._keep(features.values[at:stop], features.flawed[at:stop])
            at = stop
            if self._end % self._step == 0:
                yield from self._advance()

    def _advance(self) -> Iterator[Embedded]:
        """Step the phase that a patch ends in now."""
        c, end = self._config, self._end
        if end - c.patch < self._first:
            return
        begin = end % c.length
        window = self._values[begin : begin + c.length]
        queries = self._phases[end % c.patch // self._step].step(window[c.length - c.patch :])
        if end % c.hop == 0 and end - c.length >= self._first:
            flawed = float(self._flawed[begin : begin + c.length].mean())
            yield Embedded(end, window, flawed, self._decoder.checked(queries))

    def _keep(self, values: NDArray[np.float32], flawed: NDArray[np.bool_]) -> None:
        """Write features, fewer than a patch and none past a step, into both copies of the ring."""
        n, length = len(values), self._config.length
        begin = self._end % length
        head = min(n, length - begin)
        for source, ring in ((values, self._values), (flawed, self._flawed)):
            for copy in (0, length):
                ring[copy + begin : copy + begin + head] = source[:head]
                ring[copy : copy + n - head] = source[head:]
        self._end += n


def streams(config: WindowConfig) -> bool:
    """Whether a hop can be streamed, and pays: it divides the patch, or is a few of them."""
    if config.patch % config.hop == 0:
        return True
    return config.hop % config.patch == 0 and config.hop <= PATCHES_A_HOP * config.patch


def window_at(preprocess: PreprocessConfig, hop_s: float | None) -> WindowConfig:
    """A release's windows at a hop.

    Args:
        preprocess: Of the release.
        hop_s: Time between two windows, s; None takes the release's own.

    Raises:
        ConfigError: The hop is no whole number of features, neither divides the patch nor is a multiple of it, or is
            longer than the window.
    """
    window, rate_hz = preprocess.window, preprocess.front_end.rate_hz
    if hop_s is None:
        return window
    hop = round(hop_s * rate_hz)
    fits = hop >= 1 and math.isclose(hop, hop_s * rate_hz, rel_tol=1e-6) and hop <= window.length
    if not fits or (window.patch % hop and hop % window.patch):
        allowed = [h for h in range(1, window.length + 1) if window.patch % h == 0 or h % window.patch == 0]
        raise ConfigError(
            f"windows cannot follow every {hop_s:g} s",
            hint=f"Choose one of {', '.join(f'{h / rate_hz:g}' for h in allowed[:12])} s, or leave hop_s out for the "
            f"release's {preprocess.hop_s:g} s.",
        )
    return msgspec.structs.replace(window, hop=hop)


def hops_of(decoder: Decoder, config: WindowConfig) -> Hops:
    """The cheaper way to windows at a hop that the release has."""
    if decoder.stream is not None and streams(config):
        return PatchHops(decoder, config)
    return WindowHops(decoder, config)
