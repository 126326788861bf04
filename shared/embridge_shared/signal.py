"""Signals: what a stream carries and the chunks it travels in.

A sample is identified by its index in its stream, counted from 0; its time is derived. Loss is a gap in the
index and stays one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_shared.errors import DataError, Reason

_NAME = re.compile(r"(?=_*[a-z0-9])[a-z0-9_]{1,64}")


class Modality(StrEnum):
    """What a stream measures."""

    EMG = "emg"
    POSE = "pose"  # 20 joint angles, rad (embridge_shared.hand)
    GLOVE = "glove"  # raw glove sensors, before the map to joint angles
    IMU = "imu"
    DECODE = "decode"  # one score a gesture, written by the decoder
    DECISION = "decision"  # what was decided at each hop, and how likely each gesture was


class SampleType(StrEnum):
    """How one sample of one channel is stored; the numpy name, little-endian."""

    INT16 = "int16"
    INT32 = "int32"
    FLOAT32 = "float32"

    @property
    def numpy(self) -> np.dtype[Any]:
        """The little-endian numpy dtype."""
        return np.dtype(self.value).newbyteorder("<")


class StreamSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One stream of a session, known before a device is connected.

    Attributes:
        name: Short and unique in its session; part of the topic, so `[a-z0-9_]`.
        modality: What it measures.
        channels: Channel names in sample order.
        rate_hz: Nominal samples a second.
        dtype: Storage type of a raw sample.
        unit: Unit of `raw * scale`: "µV", "rad", "count".
        scale: Raw value times this is `unit`.
        calibrated: False where the device publishes no scale and `scale` is nominal.
        device: Model of the device, as in "synthetic-forearm" or "ninapro-db1".
    """

    name: str
    modality: Modality
    channels: tuple[str, ...]
    rate_hz: float
    dtype: SampleType = SampleType.INT16
    unit: str = "count"
    scale: float = 1.0
    calibrated: bool = False
    device: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise DataError(
                f"stream name {self.name!r} cannot be part of a topic",
                hint="Use up to 64 lower-case letters, digits and underscores.",
            )
        if not self.channels or not self.rate_hz > 0 or not self.scale > 0:
            raise DataError(f"stream {self.name!r} needs channels, a positive rate and a positive scale")

    @property
    def n_channels(self) -> int:
        """Number of channels."""
        return len(self.channels)


@dataclass(frozen=True, slots=True)
class Arrivals:
    """When packets reached the host: the raw material of every clock fit, kept so that it can be redone.

    Attributes:
        index: Absolute index of the last sample of each packet, int64 (P,).
        host_ns: Arrival on the host's monotonic clock, ns, int64 (P,).
    """

    index: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    host_ns: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        if self.index.shape != self.host_ns.shape or self.index.ndim != 1:
            raise DataError("arrivals need one host time for each index", reason=Reason.WRONG_SHAPE)

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A contiguous run of samples of one stream.

    Attributes:
        session: The session it belongs to.
        stream: Ordinal of the stream in `Session.streams`.
        first: Index of the first sample.
        samples: Raw samples, (n, channels), of the stream's dtype.
        t0_ns: Unix time of the first sample on the reconstructed device clock, ns.
        gap_before: Samples known to be lost on the device or the link just before `first`.
        arrivals: Arrival pairs of the packets that brought it.
        gap_inferred: The device did not count what is lost: the length of that gap is an estimate by time.
    """

    session: UUID
    stream: int
    first: int
    samples: NDArray[Any]
    t0_ns: int
    gap_before: int = 0
    arrivals: Arrivals = field(default_factory=Arrivals)
    gap_inferred: bool = False

    def __post_init__(self) -> None:
        if self.samples.ndim != 2 or self.samples.shape[0] == 0 or self.samples.shape[1] == 0:
            raise DataError(f"a chunk holds (n, channels) samples, not {self.samples.shape}", reason=Reason.WRONG_SHAPE)
        if self.first < 0 or self.gap_before < 0 or self.gap_before > self.first:
            raise DataError(f"chunk at {self.first} cannot follow a gap of {self.gap_before}")

    @property
    def n(self) -> int:
        """Number of samples."""
        return int(self.samples.shape[0])

    @property
    def end(self) -> int:
        """Index after the last sample."""
        return self.first + self.n
