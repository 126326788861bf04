"""Bands of other electrodes than a release was made with: envelopes read off around the arm where its electrodes sat.

Envelopes change slowly around the arm, so what lies between electrodes follows from their Fourier series. Waveforms do
not, and are never interpolated.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_shared.errors import DataError, ModelError, Reason
from embridge_shared.preprocess.config import FrontEndConfig

_LEAST: Final = 3
_TURN_DEG: Final = 360.0
_APART_DEG: Final = 1.0


class Ring(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the electrodes of a band sit around the arm.

    Attributes:
        angles_deg: Angle of each from electrode 0, in the order of the channels.
        rotation_deg: Angle of electrode 0 from the ulna, seen from the hand; None where nobody measured it.
    """

    angles_deg: tuple[float, ...]
    rotation_deg: float | None = None

    def __post_init__(self) -> None:
        turned = sorted(a % _TURN_DEG for a in self.angles_deg)
        gaps = np.diff([*turned, turned[0] + _TURN_DEG]) if turned else np.zeros(1)
        rotation = 0.0 if self.rotation_deg is None else self.rotation_deg
        if len(turned) < _LEAST or not np.isfinite([*turned, rotation]).all() or gaps.min() < _APART_DEG:
            raise DataError(
                f"{list(self.angles_deg)} are no angles of a ring",
                reason=Reason.MALFORMED,
                hint=f"Name {_LEAST} electrodes or more, each at a place of its own.",
            )

    @classmethod
    def even(cls, channels: int, rotation_deg: float | None = None) -> Ring:
        """Electrodes spread evenly.

        Raises:
            DataError: Fewer than 3.
        """
        angles = tuple(_TURN_DEG * i / channels for i in range(channels))
        return cls(angles_deg=angles, rotation_deg=rotation_deg)


def worn_ring(channels: int, rotation_deg: float | None) -> Ring | None:
    """The ring of a band of which no more is known; None where its electrodes are too few for one."""
    return Ring.even(channels, rotation_deg) if channels >= _LEAST else None


class Montage:
    """Features of one ring to those of another.

    Args:
        band: Where the electrodes sit.
        release: Where they should. A rotation that only one of the two knows is taken for none.

    Attributes:
        matrix: float64 (release, band); rows sum to 1.
    """

    def __init__(self, band: Ring, release: Ring) -> None:
        orders = min(len(band.angles_deg), len(release.angles_deg)) // 2
        known = band.rotation_deg is not None and release.rotation_deg is not None
        shift = (band.rotation_deg or 0.0) - (release.rotation_deg or 0.0) if known else 0.0
        here = _series(np.array(band.angles_deg) + shift, orders)
        self.matrix: NDArray[np.float64] = _series(np.array(release.angles_deg), orders) @ np.linalg.pinv(here)

    def apply(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features float32 (..., band) to (..., release), moment by moment, so chunking does not matter.

        Interpolation may swing below zero; where no channel of the band is negative, nothing becomes so.

        Raises:
            DataError: WRONG_SHAPE: of another number of channels.
        """
        if features.shape[-1] != self.matrix.shape[1]:
            raise DataError(
                f"a montage of {self.matrix.shape[1]} channels meets features of {features.shape}",
                reason=Reason.WRONG_SHAPE,
            )
        moved = features.astype(np.float64) @ self.matrix.T
        return np.asarray(np.maximum(moved, features.min(axis=-1, initial=0.0, keepdims=True)), np.float32)


def montage_for(front_end: FrontEndConfig, band: Ring | int, release: Ring | int) -> Montage | None:
    """How a band's features become those that a release takes.

    Args:
        front_end: Of the release.
        band: The band's ring, or its number of channels where nothing is known of their places.
        release: The same of the release, which must tell its ring to take other bands.

    Returns:
        None where the band's channels are the release's.

    Raises:
        ModelError: INCOMPATIBLE: the release does not take this band.
    """
    channels, wanted = _count(band), _count(release)
    if isinstance(release, int) or front_end.mode == "waveform":
        if channels == wanted:
            return None
        why = "its waveforms cannot be interpolated" if front_end.mode == "waveform" else "it tells no ring"
        raise ModelError(
            f"the release takes {wanted} channels and not {channels}: {why}.",
            reason=Reason.INCOMPATIBLE,
            hint="Use a release made for this band, or one that learnt envelopes of a ring.",
        )
    if isinstance(band, int):
        if channels == wanted:
            return None
        band = Ring.even(channels)
    made = Montage(band, release)
    same = made.matrix.shape == (wanted, wanted) and np.allclose(made.matrix, np.eye(wanted), atol=1e-9)
    return None if same else made


def _count(ring: Ring | int) -> int:
    return ring if isinstance(ring, int) else len(ring.angles_deg)


def _series(angles_deg: NDArray[np.float64], orders: int) -> NDArray[np.float64]:
    """Constant, cosines and sines at each angle, (n, 1 + 2 orders)."""
    turns = np.deg2rad(angles_deg)[:, None] * np.arange(1, orders + 1)
    return np.concatenate([np.full((len(turns), 1), math.sqrt(0.5)), np.cos(turns), np.sin(turns)], axis=1)
