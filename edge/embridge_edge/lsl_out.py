"""Republishes a session's streams and annotations as LSL outlets, for LabRecorder and every other LSL tool.

Samples go out in the stream's unit as float32, each with the time it was taken by our own fit of the device's clock,
brought to LSL's clock: an inlet needs no dejitter, and gaps show as gaps in time.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge_edge.bands.lsl import load_pylsl
from embridge_edge.source import Packet
from embridge_edge.timing import DeviceClock, Slew
from embridge_shared.clock import Clock
from embridge_shared.session import CueShown, Marker, Repetition, Session
from embridge_shared.signal import Chunk, Modality, StreamSpec

logger = logging.getLogger(__name__)

_TYPES = {
    Modality.EMG: "EMG",
    Modality.POSE: "MoCap",
    Modality.GLOVE: "MoCap",
    Modality.IMU: "IMU",
    Modality.DECODE: "Decode",
    Modality.DECISION: "Decision",
}
_UNITS = {"µV": "microvolts", "mV": "millivolts", "rad": "radians"}
_BUFFER_S = 60
_PROBES = 8
_CHECK_NS = 10_000_000_000
_STEP_NS = 1_000_000


class LslOut:
    """The outlets of one session; they vanish when it ends.

    Args:
        session: Its streams.
        clocks: Of its sources' devices, in ordinal order; a stream without one brings its own time.
        annotations: Times in ns from the session's start.
        clock: The host's clock.
        since_ns: Annotations that began before this time are not sent: the session goes on.

    Raises:
        ConfigError: pylsl is not installed.
    """

    def __init__(
        self,
        session: Session,
        clocks: Sequence[DeviceClock],
        annotations: Sequence[CueShown | Repetition],
        *,
        clock: Clock,
        since_ns: int = 0,
    ) -> None:
        self._pylsl = load_pylsl()
        self._session = session
        self._clock = clock
        self._slews = [Slew(c) for c in clocks]
        self._offset_ns = self._measured_ns()
        self._checked_ns = clock.monotonic_ns()
        self._outlets = [self._outlet(spec) for spec in session.streams]
        self._markers = self._marker_outlet()
        self._marks = [m for m in marks(annotations) if m[0] >= since_ns]

    def _outlet(self, spec: StreamSpec) -> Any:
        info = self._pylsl.StreamInfo(
            f"EMBridge {self._session.edge} {spec.name}",
            _TYPES[spec.modality],
            spec.n_channels,
            spec.rate_hz,
            self._pylsl.cf_float32,
            f"embridge:{self._session.edge}:{spec.name}",
        )
        channels = info.desc().append_child("channels")
        for name in spec.channels:
            channel = channels.append_child("channel")
            channel.append_child_value("label", name)
            channel.append_child_value("unit", _UNITS.get(spec.unit, spec.unit))
            channel.append_child_value("type", _TYPES[spec.modality])
        self._describe(info, spec.device, "true" if spec.calibrated else "false")
        # Stamps are dejittered already; tools that would do it again leave streams alone that may lose samples.
        info.desc().append_child("synchronization").append_child_value("can_drop_samples", "true")
        return self._pylsl.StreamOutlet(info, max_buffered=_BUFFER_S)

    def _marker_outlet(self) -> Any:
        info = self._pylsl.StreamInfo(
            f"EMBridge {self._session.edge} markers",
            "Markers",
            1,
            self._pylsl.IRREGULAR_RATE,
            self._pylsl.cf_string,
            f"embridge:{self._session.edge}:markers",
        )
        self._describe(info, "", "")
        return self._pylsl.StreamOutlet(info)

    def _describe(self, info: Any, device: str, calibrated: str) -> None:
        acquisition = info.desc().append_child("acquisition")
        for key, value in {
            "software": "EMBridge",
            "model": device,
            "calibrated": calibrated,
            "session": str(self._session.id),
            "participant": self._session.participant.id,
        }.items():
            if value:
                acquisition.append_child_value(key, value)

    # Time

    def _measured_ns(self) -> int:
        """LSL's clock less the host's monotonic clock, ns, from the quickest of some probes."""
        probes = []
        for _ in range(_PROBES):
            before = self._clock.monotonic_ns()
            lsl_s = self._pylsl.local_clock()
            after = self._clock.monotonic_ns()
            probes.append((after - before, round(lsl_s * 1e9) - (before + after) // 2))
        offset_ns: int = min(probes)[1]
        return offset_ns

    def _lsl_s(self, host_ns: NDArray[np.float64]) -> NDArray[np.float64]:
        return (host_ns + self._offset_ns) * 1e-9

    def _check(self) -> None:
        """Follow a computer whose two clocks part, as some do when it sleeps."""
        if self._clock.monotonic_ns() - self._checked_ns < _CHECK_NS:
            return
        self._checked_ns = self._clock.monotonic_ns()
        measured = self._measured_ns()
        if abs(measured - self._offset_ns) > _STEP_NS:
            logger.warning("LSL's clock stepped by %.1f ms", (measured - self._offset_ns) * 1e-6)
            self._offset_ns = measured

    # Samples

    def packet(self, ordinal: int, packet: Packet) -> None:
        """Publish a packet of a source; its clock must have seen it."""
        self._check()
        n, slew = len(packet.samples), self._slews[ordinal]
        first = slew.stamp_ns(packet.first)
        last = slew.stamp_ns(packet.first + n - 1) if n > 1 else first
        self._push(ordinal, packet.samples, np.linspace(first, last, n, dtype=np.float64))

    def chunk(self, chunk: Chunk) -> None:
        """Publish a chunk of a stream that brings its own time."""
        spec = self._session.streams[chunk.stream]
        first = chunk.t0_ns - self._session.started_ns + self._session.host_ns
        self._push(chunk.stream, chunk.samples, first + np.arange(chunk.n, dtype=np.float64) * (1e9 / spec.rate_hz))

    def _push(self, ordinal: int, samples: NDArray[Any], host_ns: NDArray[np.float64]) -> None:
        outlet = self._outlets[ordinal]
        if outlet.have_consumers():
            scaled = samples.astype(np.float32) * np.float32(self._session.streams[ordinal].scale)
            outlet.push_chunk(np.ascontiguousarray(scaled), self._lsl_s(host_ns).tolist())

    # Markers

    def advance(self, until_ns: int | None) -> None:
        """Publish what began or ended by `until_ns` from the session's start; all that is left when None."""
        while self._marks and (until_ns is None or self._marks[0][0] <= until_ns):
            t_ns, text = self._marks.pop(0)
            self._mark(text, self._session.host_ns + t_ns)

    def note(self, marker: Marker) -> None:
        """Publish a session's marker."""
        self._mark(f"marker:{marker.text}", marker.t_ns - self._session.started_ns + self._session.host_ns)

    def _mark(self, text: str, host_ns: int) -> None:
        self._markers.push_sample([text], (host_ns + self._offset_ns) * 1e-9)


def marks(annotations: Sequence[CueShown | Repetition]) -> list[tuple[int, str]]:
    """Beginnings and ends in order of time, as (ns from the session's start, "cue:fist:2:start")."""
    out = []
    for a in annotations:
        kind = "cue" if isinstance(a, CueShown) else "repetition"
        out.append((a.start_ns, f"{kind}:{a.gesture}:{a.repetition}:start"))
        out.append((a.end_ns, f"{kind}:{a.gesture}:{a.repetition}:end"))
    return sorted(out, key=lambda m: m[0])
