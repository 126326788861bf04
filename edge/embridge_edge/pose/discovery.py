"""What is there that could send hand poses: LSL streams, and whatever sends to the usual ports."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from embridge_edge.bands.lsl import load_pylsl
from embridge_edge.pose.network import NetworkPose
from embridge_edge.pose.payload import Fault, Frame, from_json, from_osc
from embridge_edge.pose.plan import Measured, OscPoseSource, UdpPoseSource
from embridge_shared.clock import Clock
from embridge_shared.errors import ConfigError, DeviceError
from embridge_shared.hand import CYBERGLOVE_SENSORS, JOINTS

_FITS = {len(JOINTS): Measured.JOINTS, len(CYBERGLOVE_SENSORS): Measured.GLOVE}


@dataclass(frozen=True, slots=True)
class Found:
    """Something that sends.

    Attributes:
        source: As `embridge pose stream` takes it.
        what: What it sends, in words.
        measured: "joints" or "glove" where it can be used as it is, else empty.
    """

    source: str
    what: str
    measured: str = ""


class _Ear(NetworkPose):
    """Hears joints and gloves alike, without a word in the log."""

    def __init__(self, source: UdpPoseSource | OscPoseSource, clock: Clock) -> None:
        super().__init__(source, base=Path(), clock=clock)
        self.heard_of: Counter[str] = Counter()

    async def listen(self, seconds: float) -> None:
        """Hear for so long.

        Raises:
            DeviceError: The port cannot be listened on.
        """
        await self._start()
        try:
            await asyncio.sleep(seconds)
        finally:
            await self.close()

    def take(self, frame: Frame, host_ns: int) -> None:
        """Count it."""
        self.heard_of[_FITS[len(frame.values)]] += 1

    def _decode(self, data: bytes) -> list[Frame | Fault]:
        if isinstance(self._at, OscPoseSource):
            tries = [from_osc(data, self._at.address, n) for n in _FITS]
        else:
            tries = [[from_json(data, key, n)] for n, key in zip(_FITS, ("pose", "glove"), strict=True)]
        return next((t for t in tries if any(isinstance(item, Frame) for item in t)), tries[0])

    def complain(self, fault: str) -> None:
        """Count it."""
        self.faults[fault] += 1


async def scan(seconds: float, *, udp: int, osc: int, clock: Clock) -> tuple[list[Found], list[str]]:
    """Listen for so long.

    Args:
        seconds: How long.
        udp: Port for JSON.
        osc: Port for OSC.
        clock: Stamps.

    Returns:
        What was found, and what could not be looked at and why.
    """
    ears = [
        _Ear(UdpPoseSource(host="0.0.0.0", port=udp), clock),  # noqa: S104
        _Ear(OscPoseSource(host="0.0.0.0", port=osc), clock),  # noqa: S104
    ]
    heard = await asyncio.gather(*(_hear(e, seconds) for e in ears), _lsl(seconds))
    found = [f for some, _ in heard for f in some]
    return found, [trouble for _, trouble in heard if trouble]


async def _hear(ear: _Ear, seconds: float) -> tuple[list[Found], str]:
    try:
        await ear.listen(seconds)
    except DeviceError as error:
        return [], str(error)
    parts = [f"{n} frames of {measured}" for measured, n in ear.heard_of.most_common()]
    parts += [f"{n} × {fault}" for fault, n in ear.faults.most_common()]
    if not parts:
        return [], ""
    measured = ear.heard_of.most_common(1)
    return [Found(f"{ear.state().kind}:{ear.port}", ", ".join(parts), measured[0][0] if measured else "")], ""


async def _lsl(seconds: float) -> tuple[list[Found], str]:
    try:
        pylsl = load_pylsl()
    except ConfigError as error:
        return [], str(error)
    infos = await asyncio.to_thread(pylsl.resolve_streams, seconds)
    found = []
    for info in infos:
        n, rate_hz = info.channel_count(), info.nominal_srate()
        rate = f"{rate_hz:g} Hz" if rate_hz else "no fixed rate"
        found.append(Found(f"lsl:{info.name()}", f"{info.type()}, {n} channels, {rate}", _FITS.get(n, "")))
    return sorted(found, key=lambda f: (not f.measured, f.source)), ""
