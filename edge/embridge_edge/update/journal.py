"""The journal of an update: each step is on the disk before it is taken, and tells what a crash in it means."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from embridge_edge.update.slots import Attempt, Pointer, Slot, Slots, told_back
from embridge_shared.clock import Clock
from embridge_shared.errors import EmbridgeError, Reason
from embridge_shared.fleet import ReleaseHealth, Trial, UpdatePhase, UpdateState
from embridge_shared.wire.messages import Desired

logger = logging.getLogger(__name__)

_ANYWAY: Final = Trial()
"""Crashes of a self-test are counted even where no trial was asked for."""

_TOLD: Final = {
    UpdatePhase.TESTING: "its golden answers are replayed here",
    UpdatePhase.SHADOW: "it decodes beside the release in force",
    UpdatePhase.WAITING: "it is ready",
    UpdatePhase.PROBATION: "it runs, and may still be taken back",
}


class Journal:
    """Writes the steps of updates. Everything here blocks for as long as the disk takes.

    Args:
        slots: Where they are written.
        clock: Dates them.
        changed: Called, maybe in another thread, when the edge's word on its updates is another.

    Attributes:
        told: The edge's word on its updates.
    """

    def __init__(self, slots: Slots, clock: Clock, changed: Callable[[], None]) -> None:
        self._slots = slots
        self._clock = clock
        self._changed = changed
        self.told = slots.pointer().told

    @property
    def pointer(self) -> Pointer:
        """What this edge holds."""
        return self._slots.pointer()

    def begin(self) -> None:
        """An agent starts. Whoever started before and left no word crashed, and a release that runs on trial is why.

        A release that crashed as often as its trial allows is given up, before anything of it is loaded again.
        """
        pointer = self.pointer
        if (crashed := _crashed(pointer.probation)) is not None:
            if _worn_out(crashed):
                self.back(_times(crashed), Reason.CRASHED)
            else:
                self._slots.change(lambda p: msgspec.structs.replace(p, probation=crashed))
        if (failed := _crashed(pointer.attempt)) is not None:
            if _worn_out(failed):
                digest, why = failed.desired.digest, _times(failed)
                told = self._word(failed.desired, UpdatePhase.REFUSED, reason=Reason.CRASHED.value, detail=why)
                self._write(told, lambda p: {"attempt": None, "refused": p.refused | {digest: why}})
            else:
                self._slots.change(lambda p: msgspec.structs.replace(p, attempt=failed))

    def open(self, desired: Desired) -> None:
        """A release is fetched."""
        old = self.pointer.attempt
        crashes = old.crashes if old is not None and old.desired.digest == desired.digest else 0
        fresh = Attempt(desired=desired, phase=UpdatePhase.DOWNLOADING, crashes=crashes)
        self._write(self._word(desired, UpdatePhase.DOWNLOADING), lambda _: {"attempt": fresh, "url": desired.url})

    def progress(self, done: int, size: int) -> None:
        """So much of it is here; not worth a write."""
        before, size = self.told, max(1, size)
        self.told = msgspec.structs.replace(before, done=done, size=size)
        if before.size != size or done * 20 // size != before.done * 20 // size:
            self._changed()

    def step(
        self, desired: Desired, phase: UpdatePhase, *, loaded: bool = False, detail: str = "", **found: Any
    ) -> None:
        """A step is taken.

        Args:
            desired: What was asked for.
            phase: The step.
            loaded: The release's code runs from now on.
            detail: What is waited for.
            found: Other fields of the attempt.
        """

        def how(pointer: Pointer) -> dict[str, Any]:
            attempt = pointer.attempt
            if attempt is None or attempt.desired.digest != desired.digest:
                attempt = Attempt(desired=desired, phase=phase)
            return {"attempt": msgspec.structs.replace(attempt, phase=phase, loaded=loaded, **found)}

        self._write(self._word(desired, phase, detail=detail), how)

    def activate(self, desired: Desired, path: Path) -> Slot:
        """The release runs: on probation where it was given a trial.

        Raises:
            OperatorError: As `Slots.activate`.
            ModelError: As `Slots.activate`.
        """
        phase = UpdatePhase.COMMITTED if desired.trial is None else UpdatePhase.PROBATION
        told, probation = self._word(desired, phase), None
        if desired.trial is not None:
            old = self.pointer.attempt
            if old is None or old.desired.digest != desired.digest:
                old = Attempt(desired=desired, phase=phase)
            probation = msgspec.structs.replace(old, desired=desired, phase=phase, loaded=False, crashes=0)
        slot = self._slots.activate(path, probation=probation, told=told)
        self._say(told)
        return slot

    def loading(self) -> None:
        """The release in force is about to be loaded; on probation a crash from now on is counted."""

        def how(pointer: Pointer) -> Pointer:
            if pointer.probation is None:
                return pointer
            return msgspec.structs.replace(pointer, probation=msgspec.structs.replace(pointer.probation, loaded=True))

        self._slots.change(how)

    def commit(self, desired: Desired) -> None:
        """The release in force stays; that is not told where another one is under way already."""
        word = self._word(desired, UpdatePhase.COMMITTED)
        told = word if self.pointer.attempt is None else self.told
        self._write(told, lambda _: {"probation": None})
        logger.info("release %s is committed", desired.release)

    def confirm(self, desired: Desired) -> None:
        """What runs already was asked for."""
        pointer = self.pointer
        if (tried := pointer.probation) is not None:
            asked = {"probation": msgspec.structs.replace(tried, desired=desired), "attempt": None, "url": desired.url}
            self._write(self._word(desired, UpdatePhase.PROBATION), lambda _: asked)
        elif self.told.phase is not UpdatePhase.ROLLED_BACK or self.told.digest == desired.digest:
            told = self._word(desired, UpdatePhase.COMMITTED)
            self._write(told, lambda _: {"attempt": None, "url": desired.url})

    def refuse(self, desired: Desired, error: EmbridgeError) -> None:
        """The release will not do."""
        told = self._word(desired, UpdatePhase.REFUSED, reason=error.reason.value, detail=error.message)
        self._write(told, lambda _: {"attempt": None})
        self._slots.prune()

    def fail(self, desired: Desired, error: EmbridgeError, tries: int) -> None:
        """It could not be had; it is tried again, so nothing is written."""
        word = self._word(desired, UpdatePhase.FAILED, reason=error.reason.value, detail=str(error))
        self._say(msgspec.structs.replace(word, attempts=tries, done=self.told.done, size=self.told.size))

    def back(self, detail: str, reason: Reason | None, **how: Any) -> Pointer:
        """The release in force is given up for the one before; see `Slots.leave`."""
        told = told_back(self.pointer, detail, reason=reason, now_ns=self._clock.wall_ns())
        after = self._slots.leave(detail, told=told, **how)
        self._say(told)
        return after

    def rollback(self, detail: str) -> Slot:
        """An operator asks for the release before; raises as `Slots.rollback`."""
        slot = self._slots.rollback(detail)
        self._say(self._slots.pointer().told)
        return slot

    def close(self, ran_s: float) -> None:
        """The agent ends in good order.

        Args:
            ran_s: How long the release in force was on probation, s.
        """

        def how(pointer: Pointer) -> Pointer:
            attempt, probation = pointer.attempt, pointer.probation
            if attempt is not None:
                attempt = msgspec.structs.replace(attempt, loaded=False)
            if probation is not None:
                probation = msgspec.structs.replace(probation, loaded=False, ran_s=ran_s)
            return msgspec.structs.replace(pointer, attempt=attempt, probation=probation)

        self._slots.change(how)

    def known(self) -> ReleaseHealth | None:
        """What is known of the release in force before it decodes; None where none is."""
        pointer = self.pointer
        if pointer.current is None:
            return None
        tried = pointer.probation
        if tried is None:
            return ReleaseHealth(release=pointer.current.name)
        return ReleaseHealth(
            release=pointer.current.name,
            crashes=tried.crashes,
            self_test_ms=tried.self_test_ms,
            agreement=tried.agreement,
            shadow_confidence=tried.shadow_confidence,
        )

    def _word(self, desired: Desired, phase: UpdatePhase, *, reason: str = "", detail: str = "") -> UpdateState:
        return UpdateState(
            phase=phase,
            release=desired.release,
            digest=desired.digest,
            rollout=desired.rollout,
            reason=reason,
            detail=detail or _TOLD.get(phase, ""),
            since_ns=self._clock.wall_ns(),
        )

    def _write(self, told: UpdateState, how: Callable[[Pointer], dict[str, Any]]) -> None:
        self._slots.change(lambda pointer: msgspec.structs.replace(pointer, told=told, **how(pointer)))
        self._say(told)

    def _say(self, told: UpdateState) -> None:
        self.told = told
        self._changed()


def _crashed(tried: Attempt | None) -> Attempt | None:
    """A release on trial after the agent ended without a word; None where it did not, or nothing of it ran."""
    if tried is None or not tried.loaded:
        return None
    return msgspec.structs.replace(tried, loaded=False, crashes=tried.crashes + 1, ran_s=0.0)


def _worn_out(tried: Attempt) -> bool:
    logger.error("release %s on trial: %s", tried.desired.release, _times(tried))
    return tried.crashes >= (tried.desired.trial or _ANYWAY).max_crashes


def _times(tried: Attempt) -> str:
    times = "once" if tried.crashes == 1 else "twice" if tried.crashes == 2 else f"{tried.crashes} times"
    return f"the agent ended {times} without a word while it ran"
