"""A scale for how a band sits today: features turned back, and each electrode as strong as it was."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_shared.errors import DataError, Reason
from embridge_shared.preprocess import FrontEndConfig, WearerScale
from embridge_shared.signal import StreamSpec
from embridge_shared.wearer.donning import turn

LEAST_RING: Final = 5
"""Electrodes below which a ring is too coarse to interpolate around."""
RINGS: Final[Mapping[str, int]] = {
    **{"myo": 8, "gforce": 8, "synthetic-forearm": 16, "open-profile": 16},
    **{"ninapro-envelope": 8, "ninapro-raw": 8},
}
"""Devices whose first so many channels are a ring of evenly spaced electrodes, in order around the arm."""


class Sits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a band sits, against the donning its wearer was calibrated with.

    Attributes:
        ring: The ring's channels in order around the arm.
        electrodes: How far features are turned, positive towards higher channel numbers.
        gain: What each turned channel is multiplied by, (C,).
    """

    ring: tuple[int, ...]
    electrodes: float
    gain: tuple[float, ...]

    def __post_init__(self) -> None:
        once = len(set(self.ring)) == len(self.ring) >= LEAST_RING
        inside = all(0 <= place < len(self.gain) for place in self.ring)
        sound = math.isfinite(self.electrodes) and all(math.isfinite(g) and g > 0 for g in self.gain)
        if not (once and inside and sound):
            raise DataError(
                f"no donning of a ring: {self.ring}, {self.electrodes}, {self.gain}", reason=Reason.WRONG_SHAPE
            )


class WornScale:
    """A wearer's scale applied to features of a band that sits otherwise than when it was fitted.

    Args:
        scale: The wearer's.
        sits: How the band sits.
        front_end: What the features are: envelopes stay positive when they are turned, waveforms are linear.

    Raises:
        DataError: WRONG_SHAPE: scale and donning are of bands with other channels.
    """

    def __init__(self, scale: WearerScale, sits: Sits, front_end: FrontEndConfig) -> None:
        if len(scale.gain) != len(sits.gain):
            raise DataError(
                f"a donning of {len(sits.gain)} channels meets a scale of {len(scale.gain)}", reason=Reason.WRONG_SHAPE
            )
        self.sits = sits
        self.gain = scale.gain
        """The wearer's, one a channel."""
        self._rectified = front_end.mode != "waveform"
        g = np.array(sits.gain)
        self._scale = scale
        if (g != 1).any():
            self._scale = WearerScale(
                offset=tuple((np.array(scale.offset) / g).tolist()),
                gain=tuple((np.array(scale.gain) * g).tolist()),
                clip=scale.clip,
            )

    def apply(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn and scale features (..., C), one moment like the other, so chunking does not matter.

        Raises:
            DataError: WRONG_SHAPE: another number of channels.
        """
        if features.shape[-1:] != (len(self.gain),):
            return self._scale.apply(features)
        return self._scale.apply(turn(features, self.sits.electrodes, self.sits.ring, rectified=self._rectified))


def ring_of(spec: StreamSpec, rings: Mapping[str, tuple[int, ...]] | None = None) -> tuple[int, ...]:
    """Channels of a stream that are a ring of evenly spaced electrodes, in order around the arm; none where unknown.

    Args:
        spec: The band's stream.
        rings: What is known of further devices; goes before what is known here.

    Raises:
        DataError: WRONG_SHAPE: `rings` names channels this band does not have, or one twice.
    """
    given = (rings or {}).get(spec.device)
    if given is not None:
        if len(set(given)) < len(given) or any(not 0 <= c < spec.n_channels for c in given):
            raise DataError(
                f"{spec.device!r} has no ring of channels {list(given)}",
                reason=Reason.WRONG_SHAPE,
                hint=f"Name channels 0 to {spec.n_channels - 1} in order around the arm in edge.rings.",
            )
        return given if len(given) >= LEAST_RING else ()
    known = RINGS.get(spec.device, 0)
    return tuple(range(known)) if LEAST_RING <= known <= spec.n_channels else ()
