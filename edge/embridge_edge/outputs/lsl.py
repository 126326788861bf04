"""Gestures as markers of the Lab Streaming Layer, stamped with the time of the samples that decided."""

from __future__ import annotations

from typing import Any

from embridge_edge.bands.lsl import load_pylsl
from embridge_edge.decode.decision import Decided
from embridge_edge.outputs.base import Output
from embridge_shared.clock import Clock


class LslMarkers(Output):
    """An outlet "EMBridge EDGE gestures" of strings such as "onset:fist".

    Args:
        edge: Name of this edge.
        clock: The host's.

    Raises:
        ConfigError: pylsl is not installed.
    """

    name = "lsl"

    def __init__(self, edge: str, *, clock: Clock) -> None:
        self._pylsl = load_pylsl()
        self._edge = edge
        self._clock = clock
        self._outlet: Any = None
        self._release = ""

    async def start(self) -> None:
        """Nothing: the outlet appears with the first decision, which tells the release and its vocabulary."""

    async def tell(self, decided: Decided) -> None:
        """Push what changed."""
        if self._outlet is None or self._release != decided.release:
            self._outlet = self._opened(decided)
            self._release = decided.release
        if decided.decision.events:
            stamp_s = self._lsl_s(decided.t_ns)
            for event in decided.decision.events:
                self._outlet.push_sample([f"{event.kind.value}:{event.label}"], stamp_s)

    def _lsl_s(self, t_ns: int) -> float:
        """Unix time on LSL's clock, s."""
        ago_s = (self._clock.wall_ns() - t_ns) * 1e-9
        return float(self._pylsl.local_clock()) - ago_s

    def _opened(self, decided: Decided) -> Any:
        info = self._pylsl.StreamInfo(
            f"EMBridge {self._edge} gestures",
            "Markers",
            1,
            self._pylsl.IRREGULAR_RATE,
            self._pylsl.cf_string,
            f"embridge:{self._edge}:gestures",
        )
        acquisition = info.desc().append_child("acquisition")
        acquisition.append_child_value("software", "EMBridge")
        acquisition.append_child_value("model", decided.release)
        vocabulary = info.desc().append_child("vocabulary")
        for label in decided.labels:
            vocabulary.append_child_value("gesture", label)
        return self._pylsl.StreamOutlet(info)

    async def close(self) -> None:
        """Let the outlet vanish."""
        self._outlet = None
