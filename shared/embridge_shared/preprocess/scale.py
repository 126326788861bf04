"""The wearer's scale: rest to 0 and a strong contraction to 1, per channel, from an unlabelled recording.

It is fitted once and then fixed. A scale that follows the signal would carry the time since the session's start
into the features, and with it the order of the prompts.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_shared.errors import DataError, Reason
from embridge_shared.preprocess.config import ScaleConfig

_DEFAULT = ScaleConfig()


class WearerScale(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An affine map per channel: `clip((feature - offset) · gain)`.

    Attributes:
        offset: Features at rest (C,).
        gain: One over the span from rest to a strong contraction (C,).
        clip: Limit of a scaled feature.
    """

    offset: tuple[float, ...]
    gain: tuple[float, ...]
    clip: float = _DEFAULT.clip

    def __post_init__(self) -> None:
        numbers = (*self.offset, *self.gain, self.clip)
        if len(self.offset) != len(self.gain) or not self.offset or not all(map(math.isfinite, numbers)):
            raise DataError("a wearer's scale needs one finite offset and gain a channel")
        if min(self.gain) < 0 or self.clip <= 0:
            raise DataError("a wearer's scale needs gains of 0 or more and a positive limit")

    @classmethod
    def identity(cls, channels: int) -> WearerScale:
        """The scale that changes nothing."""
        return cls(offset=(0.0,) * channels, gain=(1.0,) * channels, clip=float(np.finfo(np.float32).max))

    def apply(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scale features (..., C); element by element, so chunking does not matter.

        Raises:
            DataError: WRONG_SHAPE: another number of channels.
        """
        if features.shape[-1:] != (len(self.gain),):
            raise DataError(
                f"a scale of {len(self.gain)} channels meets features of {features.shape}",
                reason=Reason.WRONG_SHAPE,
                hint="Calibrate again with this band.",
            )
        scaled = (features.astype(np.float64) - np.array(self.offset)) * np.array(self.gain)
        return np.asarray(np.clip(scaled, -self.clip, self.clip), np.float32)


def fit_wearer_scale(
    features: NDArray[np.float32],
    *,
    rest_quantile: float = _DEFAULT.rest_quantile,
    top_quantile: float = _DEFAULT.top_quantile,
    span_floor: float = _DEFAULT.span_floor,
    clip: float = _DEFAULT.clip,
) -> WearerScale:
    """Fit a wearer's scale from features of a recording with rest and with the movements of a calibration.

    Args:
        features: Unlabelled features (T, C), any order.
        rest_quantile: Quantile that becomes 0.
        top_quantile: Quantile that becomes 1.
        span_floor: A channel's span counts as at least this share of the median span of all channels: a dead or
            constant channel then stays small instead of showing its noise at full scale.
        clip: Limit of a scaled feature.

    Raises:
        DataError: TOO_LITTLE_DATA: fewer than 100 features, or most channels are constant; MALFORMED: a feature
            is not finite.
    """
    if features.ndim != 2 or len(features) < 100:
        raise DataError(
            f"a wearer's scale needs at least 100 features, not {features.shape}", reason=Reason.TOO_LITTLE_DATA
        )
    if not np.isfinite(features).all():
        raise DataError("features that are not finite cannot be scaled", reason=Reason.MALFORMED)
    rest, top = np.quantile(features.astype(np.float64), [rest_quantile, top_quantile], axis=0)
    typical = float(np.median(top - rest))
    if not typical > 0:
        raise DataError(
            "most channels do not move at all",
            reason=Reason.TOO_LITTLE_DATA,
            hint="Check the electrodes, then calibrate with rest and every known gesture.",
        )
    gain = 1 / np.maximum(top - rest, span_floor * typical)
    return WearerScale(offset=tuple(map(float, rest)), gain=tuple(map(float, gain)), clip=clip)


def fit_scale(config: ScaleConfig, features: NDArray[np.float32]) -> WearerScale:
    """Fit a wearer's scale as a release asks for it.

    Args:
        config: The release's choice; "none" gives the scale that changes nothing.
        features: Unlabelled features (T, C), any order.

    Raises:
        DataError: As `fit_wearer_scale`.
    """
    if config.kind == "none":
        return WearerScale.identity(features.shape[1])
    return fit_wearer_scale(
        features,
        rest_quantile=config.rest_quantile,
        top_quantile=config.top_quantile,
        span_floor=config.span_floor,
        clip=config.clip,
    )
