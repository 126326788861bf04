"""Hand pose from an LSL stream: 20 joint angles or 22 glove sensors."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import numpy as np

from embridge_edge.bands.lsl import connect, find, load_pylsl
from embridge_edge.pose.live import LivePose
from embridge_edge.pose.payload import Fault
from embridge_edge.pose.plan import LslPoseSource
from embridge_shared.clock import Clock
from embridge_shared.errors import DeviceError, Reason

logger = logging.getLogger(__name__)

_PULL_S = 0.1
_MOST = 512
_RATE_OFF = 0.2


class LslPose(LivePose):
    """Frames are placed by the sender's own time stamps, brought to this computer's clock by LSL.

    Args:
        source: Which stream, and what it sends.
        base: Folder that the calibration's path starts from.
        clock: The host's clock.

    Raises:
        ConfigError: pylsl is not installed.
        DataError: The calibration cannot be read.
    """

    def __init__(self, source: LslPoseSource, *, base: Path, clock: Clock) -> None:
        self._pylsl = load_pylsl()
        super().__init__(source, "lsl", f"lsl:{source.stream or source.type}", base=base, clock=clock)
        self._wanted = source
        self._inlet: Any = None
        self._reading: asyncio.Task[None] | None = None
        self._offset_ns = 0
        self._name = ""

    @property
    def where(self) -> str:
        """Name or type of the stream."""
        return f"lsl:{self._name or self._wanted.stream or self._wanted.address or self._wanted.type}"

    @property
    def advice(self) -> str:
        """What to do when it is silent."""
        return "Look after the program that sends; LSL finds it again by itself."

    async def _start(self) -> None:
        wanted = self._wanted
        info = await asyncio.to_thread(
            find, self._pylsl, type=wanted.type, name=wanted.stream, source_id=wanted.address
        )
        self._name = info.name()
        rate_hz = info.nominal_srate()
        if info.channel_count() != self.values or (rate_hz and abs(rate_hz / wanted.rate_hz - 1) > _RATE_OFF):
            raise DeviceError(
                f"the LSL stream {self._name!r} has {info.channel_count()} channels at {rate_hz:g} Hz, not "
                f"{self.values} at {wanted.rate_hz:g}",
                reason=Reason.WRONG_SHAPE,
                hint="Correct `measured` and `rate_hz` in the plan, or name another `stream`.",
            )
        self._inlet = await asyncio.to_thread(connect, self._pylsl, info)
        self._offset_ns = self._clock.monotonic_ns() - round(self._pylsl.local_clock() * 1e9)
        self._reading = asyncio.create_task(self._read(self._inlet), name=f"lsl {self._name}")

    async def _read(self, inlet: Any) -> None:
        while True:
            try:
                samples, stamps = await asyncio.to_thread(inlet.pull_chunk, _PULL_S, _MOST)
            except self._pylsl.util.LostError as error:
                # `recover` brings a stream with a source id back; one without is gone and silence tells.
                logger.warning("%s is gone: %s", self.where, error)
                return
            for values, stamp in zip(samples, stamps, strict=True):
                frame = np.asarray(values, np.float32)
                if not np.isfinite(frame).all():
                    self.complain(Fault.NOT_FINITE)
                    continue
                self.place(frame, round(stamp * 1e9) + self._offset_ns)

    async def _end(self) -> None:
        reading, self._reading = self._reading, None
        inlet, self._inlet = self._inlet, None
        if reading is not None:
            reading.cancel()
            await asyncio.wait([reading])
        if inlet is not None:
            await asyncio.to_thread(inlet.close_stream)
