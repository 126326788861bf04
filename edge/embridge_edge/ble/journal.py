"""What a supervisor says about its band: its state, and the states before."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from embridge_edge.ble.faults import Fault
from embridge_edge.ble.status import Phase, Status
from embridge_shared.clock import Clock

logger = logging.getLogger(__name__)

_HISTORY = 64


class Journal:
    """Keeps the status of a link and tells of every change; read it from any thread.

    Args:
        clock: Stamps transitions.
        changed: Called with every new status.

    Attributes:
        status: The present one.
        history: The last transitions, oldest first.
    """

    def __init__(self, clock: Clock, changed: Callable[[Status], None] | None = None) -> None:
        self._clock = clock
        self._changed = changed
        self.status = Status()
        self.history: deque[Status] = deque(maxlen=_HISTORY)

    def enter(
        self, phase: Phase, *, fault: Fault | None = None, reason: str | None = None, action: str | None = None
    ) -> None:
        """Enter a state; reason and action are those of the fault, or as before, where they are not given."""
        before = self.status
        if reason is None:
            reason = fault.text if fault is not None else before.reason
        if action is None:
            action = fault.action if fault is not None else before.action
        fault = fault if fault is not None else before.fault
        now_ns = self._clock.monotonic_ns()
        self.note(phase=phase, reason=reason, action=action, fault=fault, since_ns=now_ns)
        self.history.append(self.status)
        who = self.status.name or self.status.address or "band"
        if fault is before.fault:
            logger.info("%s: %s%s", who, phase.value, f", {reason}" if reason else "")
        else:
            logger.warning("%s: %s, %s. %s", who, phase.value, reason, action)

    def note(self, **known: object) -> None:
        """Take down what is known now; the state stays unless `phase` is among it."""
        self.status = replace(self.status, **known)  # type: ignore[arg-type]
        if self._changed is not None:
            self._changed(self.status)
