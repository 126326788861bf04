"""Parameters of the preprocessing; immutable, writable as TOML and JSON, part of every release."""

from __future__ import annotations

import hashlib
import math
from typing import Literal

import msgspec

from embridge_shared.errors import ConfigError


class _Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


def _positive(where: str, **values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{where}: {name} must be positive, not {value}")


class FrontEndConfig(_Config, frozen=True, kw_only=True):
    """From raw samples of any rate to features at `rate_hz`.

    Filters are designed for the rate of the stream they meet. A low-pass, notch or smoothing stage whose corner
    reaches 95 % of that stream's Nyquist frequency has nothing to remove and is left out; a high-pass that does so
    would remove everything, so the stream is refused.

    Attributes:
        mode: "envelope" rectifies, smooths and samples; "waveform" resamples; "identity" only samples, for streams
            that already are envelopes.
        rate_hz: Rate of the features, Hz.
        highpass_hz: Corner of the high-pass, Hz; None for none. Not used by "identity", like every filter below.
        lowpass_hz: Corner of the low-pass, Hz; None for none.
        order: Order of both Butterworth filters.
        notch_hz: Frequencies to notch out, Hz.
        notch_q: Quality of the notches: frequency over width.
        average: "rms" smooths the square and takes the root, "mean" smooths the absolute value; envelope only.
        smooth_hz: -3 dB corner of the smoothing, Hz: two equal poles, so an envelope never turns negative.
        bridge_s: A gap up to this long holds the last sample; a longer one starts the filters anew, s.
    """

    mode: Literal["envelope", "waveform", "identity"] = "envelope"
    rate_hz: float = 100.0
    highpass_hz: float | None = 20.0
    lowpass_hz: float | None = 450.0
    order: int = 4
    notch_hz: tuple[float, ...] = (50.0,)
    notch_q: float = 20.0
    average: Literal["rms", "mean"] = "rms"
    smooth_hz: float = 5.0
    bridge_s: float = 0.05

    def __post_init__(self) -> None:
        _positive("front end", rate_hz=self.rate_hz, notch_q=self.notch_q, smooth_hz=self.smooth_hz)
        _positive("front end", **{f"notch_hz[{i}]": hz for i, hz in enumerate(self.notch_hz)})
        _positive("front end", highpass_hz=self.highpass_hz or 1.0, lowpass_hz=self.lowpass_hz or 1.0)
        if not 1 <= self.order <= 8:
            raise ConfigError(f"front end: order must be 1 to 8, not {self.order}")
        if self.highpass_hz and self.lowpass_hz and self.highpass_hz >= self.lowpass_hz:
            raise ConfigError(f"front end: no band between {self.highpass_hz} and {self.lowpass_hz} Hz")
        if not (math.isfinite(self.bridge_s) and 0 <= self.bridge_s <= 1):
            raise ConfigError(f"front end: bridge_s must be 0 to 1 s, not {self.bridge_s}")


class ScaleConfig(_Config, frozen=True, kw_only=True):
    """How a wearer's features are brought to a common scale.

    Attributes:
        kind: "wearer" maps each channel's rest to 0 and its strong contraction to 1; "none" leaves features alone.
        rest_quantile: Quantile taken for rest. With 0.25 it is the median of rest in a recording that rests half
            of the time.
        top_quantile: Quantile taken for a strong contraction.
        span_floor: A channel's span counts as at least this share of the median span, so that a dead electrode's
            noise is not blown up.
        clip: Scaled features are limited to ± this.
    """

    kind: Literal["wearer", "none"] = "wearer"
    rest_quantile: float = 0.25
    top_quantile: float = 0.97
    span_floor: float = 0.1
    clip: float = 5.0

    def __post_init__(self) -> None:
        _positive("scale", span_floor=self.span_floor, clip=self.clip)
        if not 0 <= self.rest_quantile < self.top_quantile <= 1:
            raise ConfigError(f"scale: quantiles {self.rest_quantile} and {self.top_quantile} are not in order")


class WindowConfig(_Config, frozen=True, kw_only=True):
    """What the encoder sees at once, in features.

    Attributes:
        length: Features in a window (T).
        hop: Features between two windows; windows end at multiples of it, counted from feature 0 of the stream.
        patch: Features in a token; divides `length`.
    """

    length: int = 160
    hop: int = 10
    patch: int = 20

    def __post_init__(self) -> None:
        if self.hop < 1 or self.patch < 1 or self.length < 1 or self.length % self.patch:
            raise ConfigError(
                f"window: length {self.length}, hop {self.hop} and patch {self.patch} must be at least 1, "
                "and the patch must divide the length"
            )


class PreprocessConfig(_Config, frozen=True, kw_only=True):
    """Everything between raw EMG and the encoder's input.

    Attributes:
        front_end: Filters and feature rate.
        scale: Wearer's scale.
        window: Window, hop and patch.
    """

    front_end: FrontEndConfig = FrontEndConfig()
    scale: ScaleConfig = ScaleConfig()
    window: WindowConfig = WindowConfig()

    @property
    def hop_s(self) -> float:
        """Time between two windows, s."""
        return self.window.hop / self.front_end.rate_hz

    @property
    def window_s(self) -> float:
        """Length of a window, s."""
        return self.window.length / self.front_end.rate_hz


class PoseConfig(_Config, frozen=True, kw_only=True):
    """Windows of hand pose, standardised with the training split's moments.

    Attributes:
        rate_hz: Pose frames a second.
        length: Frames in a window.
        patch: Frames in a token; divides `length`.
        mean: Mean of each joint over the training split, rad (J,).
        sd: Standard deviation of each joint over the training split, rad (J,).
    """

    rate_hz: float = 100.0
    length: int = 160
    patch: int = 20
    mean: tuple[float, ...]
    sd: tuple[float, ...]

    def __post_init__(self) -> None:
        _positive("pose", rate_hz=self.rate_hz, **{f"sd[{i}]": sd for i, sd in enumerate(self.sd)})
        if len(self.mean) != len(self.sd) or not self.mean or not all(map(math.isfinite, self.mean)):
            raise ConfigError(f"pose: {len(self.mean)} means and {len(self.sd)} deviations")
        if self.length < 1 or self.patch < 1 or self.length % self.patch:
            raise ConfigError(f"pose: patch {self.patch} must divide length {self.length}")


def config_hash(config: msgspec.Struct) -> str:
    """sha256 of a configuration's canonical JSON, hexadecimal."""
    return hashlib.sha256(msgspec.json.encode(config, order="deterministic")).hexdigest()
