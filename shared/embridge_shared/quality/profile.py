"""What kind of signal a stream carries, and so what can be said of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from embridge_shared.quality.grades import Metric
from embridge_shared.signal import SampleType, StreamSpec

BAND_HZ = (20.0, 450.0)
"""Where surface EMG has its power."""

_ENVELOPE_MAX_HZ = 100.0
_SPECTRUM_MIN_HZ = 150.0
_SHAPE_MIN_HZ = 800.0
_RAILS = {"myo": (-128.0, 127.0), "gforce": (-119.0, 136.0), "ganglion": (-(2.0**23), 2.0**23 - 1)}
_ENVELOPE_TOPS = {"ninapro-envelope": 4.67}
"""Greatest value that the Otto Bock electrodes of NinaPro deliver, as found in all of DB1."""
_GFORCE_12_BIT = (-2000.0, 2095.0)


class SignalKind(StrEnum):
    """Raw EMG around zero, or its rectified and smoothed envelope."""

    RAW = "raw"
    ENVELOPE = "envelope"


@dataclass(frozen=True, slots=True)
class Profile:
    """What can be known of a stream before a sample of it is seen.

    Attributes:
        rate_hz: Samples a second.
        channels: Names in sample order.
        kind: Raw or envelope.
        rails: Least and greatest raw value the device can send; None where nobody knows.
        uv: Microvolts a count; None where the device publishes no scale.
    """

    rate_hz: float
    channels: tuple[str, ...]
    kind: SignalKind = SignalKind.RAW
    rails: tuple[float, float] | None = None
    uv: float | None = None

    @classmethod
    def of(cls, spec: StreamSpec) -> Profile:
        """The profile of an EMG stream."""
        envelope = spec.device.endswith("envelope") or spec.rate_hz <= _ENVELOPE_MAX_HZ
        uv = spec.scale if spec.calibrated and spec.unit in ("µV", "uV") else None
        kind = SignalKind.ENVELOPE if envelope else SignalKind.RAW
        return cls(spec.rate_hz, spec.channels, kind, _rails(spec), uv)

    @property
    def band_hz(self) -> tuple[float, float]:
        """The band of EMG as far as this rate reaches."""
        return BAND_HZ[0], min(BAND_HZ[1], 0.475 * self.rate_hz)

    @property
    def skipped(self) -> dict[Metric, str]:
        """Metrics that are not computed for such a stream, and why."""
        out: dict[Metric, str] = {}
        spectral: tuple[Metric, ...]
        if self.kind is SignalKind.ENVELOPE:
            why = "an envelope has lost the spectrum and the sign of EMG"
            if self.rate_hz <= _ENVELOPE_MAX_HZ:
                why += f", and at {self.rate_hz:g} Hz it can be nothing else"
            spectral = (Metric.MAINS, Metric.MOTION, Metric.SHAPE, Metric.DRIFT, Metric.FLOOR, Metric.DROPOUT)
            out |= dict.fromkeys((*spectral, Metric.RAILED, Metric.SNR, Metric.RESPONSE), why)
            out[Metric.ODD] = "envelopes differ between electrodes by nature"
            out[Metric.BRIDGE] = "envelopes of neighbours are alike by nature"
            if self.rails is None:
                out[Metric.CLIPPING] = "nobody knows the range of the converter"
        elif self.rate_hz < _SPECTRUM_MIN_HZ:
            why = f"{self.rate_hz:g} Hz is too slow for the spectrum of EMG"
            spectral = (Metric.MAINS, Metric.MOTION, Metric.SHAPE, Metric.DRIFT, Metric.FLOOR, Metric.SNR)
            out |= dict.fromkeys((*spectral, Metric.RESPONSE, Metric.ODD, Metric.BRIDGE), why)
        if self.rate_hz < _SHAPE_MIN_HZ:
            out.setdefault(Metric.SHAPE, f"the spectrum of EMG goes beyond what {self.rate_hz:g} Hz can show")
        if self.rails is None:
            out.setdefault(Metric.RAILED, "nobody knows the range of the converter")
        if self.uv is None:
            out.setdefault(Metric.FLOOR, "the device publishes no scale, so there are no microvolts")
        if len(self.channels) < 2:
            out.setdefault(Metric.BRIDGE, "there is no other channel")
        if len(self.channels) < 4:
            out.setdefault(Metric.RESPONSE, "there are too few channels to tell which one sees nothing")
            out.setdefault(Metric.ODD, "there are too few channels to tell which one is odd")
        return out


def _rails(spec: StreamSpec) -> tuple[float, float] | None:
    if spec.device in _ENVELOPE_TOPS:
        top = _ENVELOPE_TOPS[spec.device]
        return -top, top
    if spec.dtype is SampleType.FLOAT32:
        return None
    if spec.device == "gforce" and spec.rate_hz < 1000:
        return _GFORCE_12_BIT
    if spec.device in _RAILS:
        return _RAILS[spec.device]
    if not spec.calibrated:
        # Counts without a published scale seldom fill their type.
        return None
    info = np.iinfo(spec.dtype.numpy)
    return float(info.min), float(info.max)
