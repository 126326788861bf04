"""How often to draw: as often as asked, and less where that is too much for the machine."""

from __future__ import annotations

from typing import Final

_BUSY: Final = 0.4
_FULL: Final = 0.85
_ROOMY: Final = 0.6
_PATIENCE: Final = 3
_CALM_S: Final = 3.0
_MOST_CALM_S: Final = 24.0
_LEAST_HZ: Final = 2.0


class Pace:
    """Halves the rate when a frame costs more than 40 % of its period, or the loop is full; tries again when calm.

    Costs are processor time of the loop's thread: what other programs take does not make drawing less worth it.

    Args:
        wanted_hz: Frames a second where nothing holds them up.
    """

    def __init__(self, wanted_hz: float) -> None:
        self._wanted_hz = wanted_hz
        self.rate_hz = wanted_hz
        self._strained = 0
        self._calm = 0
        self._calm_s = _CALM_S
        self._last: tuple[float, float] | None = None

    def drawn(self, now_s: float, cpu_s: float, cost_s: float) -> bool:
        """Note a frame; whether `rate_hz` is another one from now on.

        Args:
            now_s: When, on a clock that never goes back, s.
            cpu_s: Processor time that the loop's thread has taken so far, s.
            cost_s: Processor time of drawing it, s.
        """
        last, self._last = self._last, (now_s, cpu_s)
        load = 0.0 if last is None or now_s <= last[0] else (cpu_s - last[1]) / (now_s - last[0])
        share = cost_s * self.rate_hz
        strained = share > _BUSY or load > _FULL
        # At twice the rate a frame would take twice the share of its period.
        calm = share < _BUSY / 3 and load < _ROOMY
        self._strained = self._strained + 1 if strained else 0
        self._calm = self._calm + 1 if calm else 0
        if self._strained >= _PATIENCE and self.rate_hz > _LEAST_HZ:
            return self._change(max(_LEAST_HZ, self.rate_hz / 2), min(_MOST_CALM_S, 2 * self._calm_s))
        if self._calm >= self._calm_s * self.rate_hz and self.rate_hz < self._wanted_hz:
            return self._change(min(self._wanted_hz, 2 * self.rate_hz), self._calm_s)
        return False

    def paused(self) -> None:
        """Forget when the last frame was: none was due since."""
        self._last = None

    def _change(self, rate_hz: float, calm_s: float) -> bool:
        self.rate_hz, self._calm_s = rate_hz, calm_s
        self._strained = self._calm = 0
        self._last = None
        return True
