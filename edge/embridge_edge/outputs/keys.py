"""Gestures as keys and mouse buttons.

No key stays down by mistake: all go up when the gesture ends, when decisions stop coming, after the longest time, at a
pause, at the end, and with the process.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from embridge_edge.decode.decision import Decided
from embridge_edge.outputs.base import Output
from embridge_edge.outputs.mapping import Bind, Mapping
from embridge_edge.outputs.uinput import KeyDevice
from embridge_shared.clock import Clock
from embridge_shared.decision import GestureEvent
from embridge_shared.session import GestureChange

logger = logging.getLogger(__name__)

_LOOKS: Final = 4
"""Times that the watch looks within the dead man's time."""


class KeysOutput(Output):
    """Presses what a mapping says.

    Args:
        mapping: What gestures do.
        make: Makes the device when decoding starts.
        clock: Tells how long keys are down.
    """

    name = "keys"

    def __init__(self, mapping: Mapping, make: Callable[[], KeyDevice], *, clock: Clock) -> None:
        self._mapping = mapping
        self._make = make
        self._clock = clock
        self._device: KeyDevice | None = None
        self._lock = threading.RLock()
        self._down: dict[str, tuple[tuple[str, ...], int]] = {}  # gesture -> its keys, and since when, ns
        self._heard_ns = 0
        self._known: tuple[str, ...] = ()
        self._stop = threading.Event()
        self._watch: threading.Thread | None = None
        self.paused = mapping.paused

    @property
    def down(self) -> tuple[str, ...]:
        """Keys that are down now."""
        with self._lock:
            return tuple(key for keys, _ in self._down.values() for key in keys)

    async def start(self) -> None:
        """Make the device.

        Raises:
            ConfigError: A key is not known, or an extra is not installed.
            OperatorError: This machine lets nobody press keys.
        """
        self._device = self._make()
        self._heard_ns = self._clock.monotonic_ns()
        # A thread of its own: when the loop that decodes stands still, nobody else would let the keys go.
        self._watch = threading.Thread(target=self._keep_watch, name="keys-watch", daemon=True)
        self._watch.start()

    async def tell(self, decided: Decided) -> None:
        """Do what the mapping says of what changed."""
        with self._lock:
            self._heard_ns = self._clock.monotonic_ns()
            if decided.labels != self._known:
                self._known = decided.labels
                self._look_up(decided)
            for event in decided.decision.events:
                self._react(event)

    def _look_up(self, decided: Decided) -> None:
        missing = [g for g in self._mapping.gestures if g not in decided.labels]
        if missing:
            logger.warning("%s does not know %s of the mapping", decided.release, ", ".join(missing))

    def _react(self, event: GestureEvent) -> None:
        if event.kind is GestureChange.RELEASE:
            self._release(event.label)
        if event.label == self._mapping.pause:
            if event.kind is GestureChange.HOLD:
                self.paused = not self.paused
                logger.warning("keys are %s", "paused" if self.paused else "on again")
                self._release()
            return
        if self.paused or self._device is None:
            return
        for bind in self._mapping.bind:
            if bind.gesture == event.label and bind.when is event.kind:
                self._do(bind, self._device)

    def _do(self, bind: Bind, device: KeyDevice) -> None:
        if bind.press:
            device.keys(bind.press, down=True)
            device.keys(bind.press, down=False)
        elif bind.keep:
            held, since_ns = self._down.get(bind.gesture, ((), self._clock.monotonic_ns()))
            # Noted first: should the device fail in between, letting go of too much does no harm.
            self._down[bind.gesture] = (*held, *bind.keep), since_ns
            device.keys(bind.keep, down=True)
        elif bind.scroll:
            device.wheel(bind.scroll)
        else:
            device.move(*bind.move)

    def _release(self, gesture: str | None = None) -> None:
        """Let go of what a gesture keeps down; of everything when None."""
        for label in [gesture] if gesture is not None else list(self._down):
            keys, _ = self._down.pop(label, ((), 0))
            still = {key for others, _ in self._down.values() for key in others}
            free = tuple(key for key in keys if key not in still)
            if free and self._device is not None:
                self._device.keys(free, down=False)

    def check(self) -> None:
        """Let go of keys nobody vouches for any more; any thread may call it."""
        with self._lock:
            if not self._down:
                return
            now_ns = self._clock.monotonic_ns()
            if now_ns - self._heard_ns > self._mapping.dead_man_s * 1e9:
                logger.warning("no decision for %.1f s: all keys are let go", (now_ns - self._heard_ns) * 1e-9)
                self._release()
                return
            for gesture, (_, since_ns) in list(self._down.items()):
                if now_ns - since_ns > self._mapping.longest_s * 1e9:
                    logger.warning("%s is on for more than %g s: its keys are let go", gesture, self._mapping.longest_s)
                    self._release(gesture)

    def _keep_watch(self) -> None:
        while not self._stop.wait(self._mapping.dead_man_s / _LOOKS):
            try:
                self.check()
            except OSError as error:
                logger.error("keys cannot be let go: %s", error)

    async def close(self) -> None:
        """Let go of everything and take the device away."""
        self._stop.set()
        with self._lock:
            try:
                self._release()
            finally:
                device, self._device = self._device, None
                if device is not None:
                    device.close()
        if self._watch is not None:
            self._watch.join(self._mapping.dead_man_s)
