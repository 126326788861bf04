"""Rest and contraction, told apart as the seconds go by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embridge_shared.quality.spectra import decibel

Array = NDArray[np.float64]

_CONTRACTION_DB = 6.0
_TOP = 75.0  # percentile of the channels
_REST_WINDOWS = 2
_ENOUGH_WINDOWS = 10
_RESPONSE_DB = 15.0
_FADE = 0.98


class Activity:
    """Follows the power of every channel.

    Rest is the quietest window so far. The wearer contracts in windows in which a quarter of the channels lie 6 dB over
    it; nothing is said before there were ten of them.

    Args:
        channels: How many.

    Attributes:
        seen: Windows so far.
        rest: Power of each channel at rest, (C,).
        strongest: Power of each channel in the strongest windows lately, (C,).
    """

    def __init__(self, channels: int) -> None:
        self.seen = 0
        self.rest: Array = np.full(channels, np.inf)
        self.strongest: Array = np.zeros(channels)
        self._most: Array = np.full(channels, np.nan)
        self._contracted = 0

    def see(self, power: Array, alive: NDArray[np.bool_]) -> None:
        """Take in the power of the next window, (C,), of the channels that are `alive`."""
        self.seen += 1
        self.rest = np.where(alive, np.minimum(self.rest, power), self.rest)
        self.strongest = np.where(alive, np.maximum(_FADE * self.strongest, power), self.strongest)
        if not alive.any() or self.seen <= _REST_WINDOWS:
            return
        if float(np.percentile(decibel(power[alive], self.rest[alive]), _TOP)) >= _CONTRACTION_DB:
            self._contracted += 1
            self._most = np.fmax(self._most, np.where(alive, power, np.nan))

    def contracting(self, power: Array) -> NDArray[np.bool_]:
        """Channels whose power, (C,), is 6 dB over rest."""
        known = np.isfinite(self.rest) & (self.rest > 0)
        return known & (decibel(power, np.where(known, self.rest, 1.0)) >= _CONTRACTION_DB)

    def snr_db(self) -> Array:
        """(active - rest) / rest of the channel that shows contractions best, dB, for every channel (C,).

        A channel over a muscle that does not take part has little to show; the band has, somewhere. NaN until there
        were enough contractions.
        """
        rise = self._rise()
        return np.where(np.isnan(rise), np.nan, np.nanmax(rise)) if not np.isnan(rise).all() else rise

    def response_db(self) -> Array:
        """(active - rest) / rest of each channel in the contraction that moved it most, dB (C,).

        NaN until there were enough contractions, and while half of the channels show none to speak of.
        """
        rise = self._rise()
        if np.isnan(rise).all() or np.nanmedian(rise) < _RESPONSE_DB:
            return np.full(len(self.rest), np.nan)
        return rise

    def _rise(self) -> Array:
        if self._contracted < _ENOUGH_WINDOWS:
            return np.full(len(self.rest), np.nan)
        known = np.isfinite(self.rest) & ~np.isnan(self._most)
        rest, most = np.where(known, self.rest, 1.0), np.where(known, self._most, 1.0)
        return np.where(known, decibel(most - rest, rest), np.nan)
