"""What is known of a kind of band before one is connected."""

from __future__ import annotations

from dataclasses import dataclass

from embridge_edge.bands.indexing import CounterKind
from embridge_shared.signal import Modality, SampleType, StreamSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class BandInfo:
    """One kind of band.

    Attributes:
        kind: What it is called in plans and commands.
        title: What people call it.
        streams: What it delivers, EMG first; the rest on request.
        counter: What tells that samples are missing.
        transport: "Bluetooth LE", "LSL" or "BrainFlow".
        services: Advertised service UUIDs that give it away.
        names: Beginnings of advertised names that do, in lower case.
        identify: What it does to show itself: "vibrates", "blinks", or empty.
        quirks: What to know about it.
    """

    kind: str
    title: str
    streams: tuple[StreamSpec, ...]
    counter: CounterKind
    transport: str = "Bluetooth LE"
    services: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    identify: str = ""
    quirks: str = ""

    @property
    def emg(self) -> StreamSpec:
        """Its EMG."""
        return self.streams[0]

    def matches(self, name: str, services: tuple[str, ...]) -> bool:
        """Whether an advertisement with this name and these services is of this kind."""
        advertised = {s.lower() for s in services}
        return any(s in advertised for s in self.services) or any(name.lower().startswith(n) for n in self.names)


def emg_stream(
    channels: int,
    rate_hz: float,
    device: str,
    *,
    label: str = "",
    dtype: SampleType = SampleType.INT16,
    unit: str = "count",
    scale: float = 1.0,
    calibrated: bool = False,
) -> StreamSpec:
    """The EMG of a band: `channels` named e0, e1, … at `rate_hz`.

    Args:
        channels: How many.
        rate_hz: Nominal samples a second.
        device: Model.
        label: Put before its name where a session has several bands.
        dtype: Storage type.
        unit: Unit of `raw * scale`.
        scale: Raw value times this is `unit`.
        calibrated: The scale is known, not nominal.
    """
    return StreamSpec(
        name=f"{label}_emg" if label else "emg",
        modality=Modality.EMG,
        channels=tuple(f"e{i}" for i in range(channels)),
        rate_hz=rate_hz,
        dtype=dtype,
        unit=unit,
        scale=scale,
        calibrated=calibrated,
        device=device,
    )
