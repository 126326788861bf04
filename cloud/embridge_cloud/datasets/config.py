"""How windows are cut: one immutable configuration."""

from __future__ import annotations

from typing import Literal

import msgspec

from embridge_cloud.datasets.base import EmgKind, PairedRecording
from embridge_shared.errors import ConfigError, Reason
from embridge_shared.preprocess import FrontEndConfig, ScaleConfig


class CutConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How windows are made of recordings.

    Attributes:
        window_s: Length of a window, s.
        stride_s: Time between two windows of a repetition, s.
        settle_s: Left out after a movement's onset, s.
        rate_hz: EMG features a second.
        emg: "envelope" or "waveform": what the features of a raw recording are. A recording that is an envelope
            stays one.
        pose: "joints" for 20 joint angles, rad; "sensors" for the glove's own sensors, measured from the wearer's rest
            in units of each sensor's spread; None for EMG alone.
        pose_rate_hz: Pose samples a second.
        emg_scale: "wearer" brings each channel's rest to 0 and its strong contraction to 1, and a waveform's strong
            contraction to ±1; None leaves features as they are.
        scale: Quantiles and limits of the wearer's scale.
        highpass_hz: Of the front end; None for none.
        lowpass_hz: Of the front end; None for none.
        notch_hz: Of the front end.
        smooth_hz: Of the envelope.
    """

    window_s: float = 1.6
    stride_s: float = 0.6
    settle_s: float = 0.0
    rate_hz: float = 100.0
    emg: Literal["envelope", "waveform"] = "envelope"
    pose: Literal["joints", "sensors"] | None = "joints"
    pose_rate_hz: float = 100.0
    emg_scale: Literal["wearer"] | None = "wearer"
    scale: ScaleConfig = ScaleConfig()
    highpass_hz: float | None = 20.0
    lowpass_hz: float | None = 450.0
    notch_hz: tuple[float, ...] = (50.0,)
    smooth_hz: float = 5.0

    def __post_init__(self) -> None:
        if min(self.window_s, self.stride_s, self.rate_hz, self.pose_rate_hz) <= 0 or self.settle_s < 0:
            raise ConfigError("window_s, stride_s, rate_hz and pose_rate_hz must be positive, settle_s 0 or more")
        if min(self.length, self.pose_length) < 1:
            raise ConfigError(f"a window of {self.window_s} s holds no sample")

    @property
    def length(self) -> int:
        """EMG features in a window."""
        return round(self.window_s * self.rate_hz)

    @property
    def pose_length(self) -> int:
        """Pose samples in a window."""
        return round(self.window_s * self.pose_rate_hz)

    @property
    def stride(self) -> int:
        """EMG features between two windows."""
        return max(1, round(self.stride_s * self.rate_hz))

    def front_end(self, recording: PairedRecording) -> FrontEndConfig:
        """The front end a recording needs.

        Raises:
            ConfigError: It is an envelope and a waveform is asked for.
        """
        filtered = self.highpass_hz or self.lowpass_hz or self.notch_hz
        if recording.emg_kind is EmgKind.RAW and (
            self.emg == "envelope" or filtered or self.rate_hz != recording.emg_rate_hz
        ):
            return FrontEndConfig(
                mode=self.emg,
                rate_hz=self.rate_hz,
                highpass_hz=self.highpass_hz,
                lowpass_hz=self.lowpass_hz,
                notch_hz=self.notch_hz,
                smooth_hz=self.smooth_hz,
            )
        if recording.emg_kind is EmgKind.ENVELOPE and self.emg == "waveform":
            raise ConfigError(
                f"{recording.session} holds envelopes; there is no waveform in them",
                reason=Reason.INCOMPATIBLE,
                hint='Cut it with emg = "envelope", or take a base of raw EMG.',
            )
        return FrontEndConfig(mode="identity", rate_hz=self.rate_hz)
