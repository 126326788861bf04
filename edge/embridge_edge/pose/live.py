"""What all live pose sources share: opening, placing frames, silence, malformed payloads, and a glove's calibration."""

from __future__ import annotations

import asyncio
import logging
import math
from abc import abstractmethod
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from embridge_edge.bands.indexing import Counted, Indexer
from embridge_edge.pose.gloves import load_calibration
from embridge_edge.pose.grid import Grid
from embridge_edge.pose.payload import COUNTER, Frame
from embridge_edge.pose.plan import Angle, AnyPose, Measured
from embridge_edge.source import Changes, Packet, PoseSource
from embridge_shared.clock import Clock
from embridge_shared.errors import DeviceError, Reason
from embridge_shared.hand import CYBERGLOVE_SENSORS, JOINTS, GloveCalibration, glove_to_joints
from embridge_shared.session import BandState
from embridge_shared.signal import Modality, SampleType, StreamSpec

logger = logging.getLogger(__name__)

_STALLED_S = 2.0
_TURN_S = 0.25
_BACKLOG = 4096
_OFF_RATE = 0.02
_RATE_AFTER_S = 10.0


def spec_of(source: AnyPose, device: str) -> StreamSpec:
    """The stream that a pose source on a plan delivers."""
    raw = source.measured is Measured.GLOVE and not source.calibration
    degrees = source.measured is Measured.JOINTS and source.unit is Angle.DEGREES
    return StreamSpec(
        name="glove" if raw else "pose",
        modality=Modality.GLOVE if raw else Modality.POSE,
        channels=CYBERGLOVE_SENSORS if raw else JOINTS,
        rate_hz=source.rate_hz,
        dtype=SampleType.FLOAT32,
        unit="count" if raw else "rad",
        scale=math.pi / 180 if degrees else 1.0,
        calibrated=not raw,
        device=device,
    )


class LivePose(PoseSource):
    """A source of hand pose that sends when it likes.

    Frames come in through `take`, `place` or `complain`, in the loop's thread. A silent sender is told of in the state
    and does not end the session; frames go on when it does.

    Args:
        source: What it sends.
        kind: As in the plan.
        device: Model, for the stream's description.
        base: Folder that the calibration's path starts from.
        clock: The host's clock.

    Raises:
        DataError: The calibration cannot be read.
    """

    follows: ClassVar[bool] = True

    def __init__(self, source: AnyPose, kind: str, device: str, *, base: Path, clock: Clock) -> None:
        self._source = source
        self._kind = kind
        self._spec = spec_of(source, device)
        self._clock = clock
        self._calibration: GloveCalibration | None = None
        if source.calibration:
            self._calibration = load_calibration(base / source.calibration)
        self._packets: deque[Packet] = deque()
        self._arrived = asyncio.Event()
        self._indexer: Indexer | None = None
        self._grid: Grid | None = None
        self._host_ns = self._first = 0
        self._first_ns = self._last_ns = 0
        self._changed: Callable[[], object] = lambda: None
        self._changes = Changes()
        self._phase = "idle"
        self._stopped = False
        self.received = 0
        self.dropped = 0
        self.faults: Counter[str] = Counter()
        """Payloads that were no frame, by why."""

    @property
    def spec(self) -> StreamSpec:
        """What it delivers."""
        return self._spec

    @property
    def values(self) -> int:
        """Values of a frame as it is sent."""
        return len(CYBERGLOVE_SENSORS if self._source.measured is Measured.GLOVE else JOINTS)

    @property
    def where(self) -> str:
        """Where it comes from, for people."""
        return ""

    @property
    def advice(self) -> str:
        """What to do when it is silent."""
        return "Look after the program that sends."

    def watch(self, changed: Callable[[], object]) -> None:
        """Call `changed` when its phase changes."""
        self._changed = changed

    def changes(self) -> list[tuple[int, BandState]]:
        """States it entered since the last call, each with the host's monotonic time, ns."""
        return self._changes.take()

    def state(self) -> BandState:
        """What is known of it."""
        reason, action = self._trouble()
        return BandState(
            stream=self._spec.name,
            kind=self._kind,
            address=self.where,
            phase=self._phase,
            reason=reason,
            action=action,
            received=self.received,
            lost=self._lost,
            garbage=sum(self.faults.values()),
        )

    @property
    def _lost(self) -> int:
        placed = self._indexer or self._grid
        return placed.lost if placed is not None else 0

    def _trouble(self) -> tuple[str, str]:
        """What is wrong and what to do."""
        if self._phase == "stalled":
            silent_s = (self._clock.monotonic_ns() - self._last_ns) * 1e-9
            return f"no frames for {silent_s:.0f} s{self._told_faults()}", self.advice
        if self.faults:
            return self._told_faults().removeprefix(", "), "Hold the sender to the documented payload."
        lasted_s = (self._last_ns - self._first_ns) * 1e-9
        if lasted_s > _RATE_AFTER_S:
            rate_hz = (self.received - 1 + self._lost) / lasted_s
            if abs(rate_hz / self._spec.rate_hz - 1) > _OFF_RATE:
                return f"it sends {rate_hz:.1f} frames a second", f"Set rate_hz = {rate_hz:.0f} in the plan."
        return "", ""

    def _told_faults(self) -> str:
        if not self.faults:
            return ""
        named = ", ".join(f"{fault} ({n})" for fault, n in self.faults.most_common())
        return f", {sum(self.faults.values())} malformed: {named}"

    # Life

    async def reach(self) -> None:
        """Listen, and wait for the first frame.

        Raises:
            DeviceError: Nothing comes, or it cannot be listened to.
        """
        if self._phase != "idle":
            return
        self._go("scanning")
        await self._start()
        deadline_ns = self._clock.monotonic_ns() + round(self._source.wait_s * 1e9)
        while not self._packets and not self._stopped:
            left_s = (deadline_ns - self._clock.monotonic_ns()) * 1e-9
            if left_s <= 0:
                self._go("lost")
                name, wait_s = self._spec.name, self._source.wait_s
                raise DeviceError(
                    f"no {name} came from {self.where} within {wait_s:g} s{self._told_faults()}",
                    reason=Reason.MALFORMED if self.faults else Reason.SILENT,
                    hint=self.advice,
                )
            await self._news(min(left_s, _TURN_S))
        self._go("streaming")

    async def open(self, host_ns: int, first: int = 0) -> None:
        """Begin with the next frame; wait for it where nothing was listened to yet.

        Raises:
            DeviceError: Nothing comes, or it cannot be listened to.
        """
        self._host_ns, self._first = host_ns, first
        if self._phase == "idle":
            await self.reach()
            return
        # What came before the session began is not part of it.
        self._packets.clear()
        self._indexer = self._grid = None
        self.received = 0

    @abstractmethod
    async def _start(self) -> None:
        """Begin to listen."""

    @abstractmethod
    async def _end(self) -> None:
        """Listen no more; safe to call twice."""

    async def packets(self) -> AsyncIterator[Packet]:
        """Frames, until stopped."""
        while True:
            while self._packets:
                yield self._packets.popleft()
            if self._stopped:
                return
            await self._news(_TURN_S)
            silent_s = (self._clock.monotonic_ns() - self._last_ns) * 1e-9
            self._go("stalled" if silent_s >= _STALLED_S and not self._packets else "streaming")

    async def _news(self, seconds: float) -> None:
        self._arrived.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._arrived.wait()
        except TimeoutError:
            return

    def stop(self) -> None:
        """End after what has come so far."""
        self._stopped = True
        self._arrived.set()

    async def close(self) -> None:
        """Listen no more."""
        self._go("stopped")
        await self._end()

    def _go(self, phase: str) -> None:
        if phase == self._phase:
            return
        if phase == "stalled":
            logger.warning("%s from %s: no frames for %g s. %s", self._spec.name, self.where, _STALLED_S, self.advice)
        self._phase = phase
        self._changes.add(self._clock.monotonic_ns(), self.state())
        self._changed()

    # Frames

    def take(self, frame: Frame, host_ns: int) -> None:
        """Take in a frame whose sender counts."""
        if self._indexer is None:
            start = self._begin(host_ns)
            self._indexer = Indexer(self._spec.rate_hz, COUNTER, start=start)
        strays = self._indexer.strays
        for packet in self._indexer.push(Counted(self._joints(frame.values)[None], frame.number), host_ns):
            self._put(packet)
        if self._indexer.strays > strays:
            self.faults["frame numbers that fit nothing"] += self._indexer.strays - strays

    def place(self, values: NDArray[np.float32], taken_ns: int) -> None:
        """Take in values, (n,), that were taken at `taken_ns` and not counted."""
        if self._grid is None:
            self._grid = Grid(self._spec.rate_hz, start=self._begin(taken_ns))
        index = self._grid.place(taken_ns)
        if index is not None:
            self._put(Packet(index, self._joints(values)[None], taken_ns))

    def complain(self, fault: str) -> None:
        """Count a payload that was no frame."""
        if not self.faults[fault]:
            logger.warning("%s from %s: %s", self._spec.name, self.where, fault)
        self.faults[fault] += 1

    def _begin(self, host_ns: int) -> int:
        """Index of the first frame: 0, or by the session's time where it goes on."""
        self._first_ns = host_ns
        if not self._first:
            return 0
        return max(self._first, round((host_ns - self._host_ns) * 1e-9 * self._spec.rate_hz) - 1)

    def _joints(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._calibration is None:
            return values
        return glove_to_joints(values, self._calibration).astype(np.float32)

    def _put(self, packet: Packet) -> None:
        self._last_ns = packet.host_ns
        if len(self._packets) >= _BACKLOG:
            self.dropped += 1
            return
        self.received += len(packet.samples)
        self._packets.append(packet)
        self._arrived.set()
