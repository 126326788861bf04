"""Guided capture: prompts one repetition after the other, finds it in the stream, and takes or refuses it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_edge.enrol.events import EnrolEvent, Judged, Level, Phase, Prompted, Stopped
from embridge_edge.enrol.guide import STEP_S, Guide, Missed, Movement, Pace
from embridge_edge.enrol.repetition import About, StoredRepetition
from embridge_edge.enrol.verdict import Finding, Strictness, examine
from embridge_edge.enrol.view import WearerView
from embridge_shared.decision import RECENT_S
from embridge_shared.enrolment import ADVICE, Refusal
from embridge_shared.errors import OperatorError
from embridge_shared.preprocess import Features, FrontEnd, WearerScale

_BEFORE_S: Final = 3.0
"""Rest kept before a movement: filters settle in it, and a scale is fitted to it, which wants a third of rest."""
_KEPT_S: Final = 30.0
_LEVEL_EVERY: Final = 2
_REST_TIMES: Final = 10.0
"""A strong contraction is so many times the rest, as far as nobody knows the wearer."""
_FIT_HELP: Final = "Move the band until it sits firmly over muscle, wet the skin, and look at `embridge band stream`."


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where repetitions come from.

    Attributes:
        session: Session they are recorded in.
        edge: Name of this edge.
        source: What feeds the band when it is no live device.
        time_ns: Unix time of a sample, ns.
    """

    session: UUID | None
    edge: str
    source: str
    time_ns: Callable[[int], int]


@dataclass(frozen=True, slots=True)
class Taken:
    """A repetition that was taken, and what was said of it."""

    repetition: StoredRepetition
    finding: Finding


class Capture:
    """Leads a wearer through a list of gestures, each until it was done well.

    Args:
        view: The wearer so far.
        script: Labels in the order of the prompts.
        origin: Where repetitions come from.
        pace: How each is led; its hold is at least the release's window and a second.
        strict: What is asked of each.
        patience: Refusals in a row after which it stops.

    Attributes:
        view: The wearer with what was taken.
        taken: What was taken, in order.
        refused: How many were not.

    Raises:
        OperatorError: The script is empty.
    """

    def __init__(
        self,
        view: WearerView,
        script: Sequence[str],
        origin: Origin,
        *,
        pace: Pace | None = None,
        strict: Strictness | None = None,
        patience: int = 8,
    ) -> None:
        if not script:
            raise OperatorError("there is no gesture to perform.", hint="Name one.")
        self.view = view
        self.taken: list[Taken] = []
        self.refused = 0
        self._at = 0
        preprocess, decision = view.release.preprocess, view.release.decision
        given = pace or Pace(rises=decision.rest_above, falls=decision.rest_below)
        self.pace = replace(given, hold_s=max(given.hold_s, preprocess.window_s + 1.0))
        self.script = tuple(script)
        self._origin = origin
        self._strict = strict or Strictness()
        self._patience = patience
        self._front_end = FrontEnd(preprocess.front_end, view.spec)
        self._rate_hz = preprocess.front_end.rate_hz
        self._step = max(1, round(STEP_S * self._rate_hz))
        self._scale = view.scale
        self._raw: deque[tuple[int, NDArray[Any]]] = deque()
        self._gaps: list[tuple[int, int]] = []
        self._kept: Features | None = None
        self._next = self._looked = -1
        self._guide: Guide | None = None
        self._in_a_row = 0
        self._rests_from = 0
        self.done = False

    @property
    def label(self) -> str:
        """The gesture that is asked for."""
        return self.script[min(self._at, len(self.script) - 1)]

    @property
    def number(self) -> int:
        """Which repetition of it, from 1."""
        return self.script[: self._at].count(self.label) + (not self.done)

    def push(self, first: int, samples: NDArray[Any]) -> list[EnrolEvent]:
        """Take samples of the band, (n, C), from index `first`; what happened meanwhile."""
        if self.done:
            return []
        if self._next >= 0 and first > self._next:
            self._gaps.append((self._next, first))
        self._next = first + len(samples)
        self._raw.append((first, samples))
        while self._raw[0][0] < self._next - _KEPT_S * self.view.spec.rate_hz:
            self._raw.popleft()
        fed = self._front_end.feed(samples, first)
        if not len(fed):
            return []
        self._keep(fed)
        out: list[EnrolEvent] = []
        at = fed.first + (-fed.first) % self._step
        while at <= fed.end and not self.done:
            out += self._look(at)
            at += self._step
        return out

    def stop(self, detail: str) -> Stopped:
        """End it before it is complete; what was taken stays taken."""
        self.done = True
        return Stopped(at=self._next, complete=False, detail=detail)

    def _keep(self, fed: Features) -> None:
        kept = self._kept
        if kept is None or kept.end != fed.first:
            self._kept = fed
            return
        drop = max(0, len(kept) + len(fed) - round(_KEPT_S * self._rate_hz))
        self._kept = Features(
            kept.first + drop,
            np.concatenate([kept.values[drop:], fed.values]),
            np.concatenate([kept.flawed[drop:], fed.flawed]),
        )

    def _look(self, at: int) -> list[EnrolEvent]:
        """Look at the features up to `at`."""
        assert self._kept is not None
        kept, back = self._kept, max(1, round(RECENT_S * self._rate_hz))
        stop = at - kept.first
        if stop < back or kept.flawed[stop - back : stop].any():
            return []
        if self._scale is None and not self._rested(stop):
            return []
        assert self._scale is not None
        out: list[EnrolEvent] = []
        if self._guide is None:
            self._guide = Guide(self.pace, self._rate_hz, at)
            out.append(self._prompted(at))
        guide, phase = self._guide, self._guide.phase
        result = guide.step(at, self._scale.apply(kept.values[stop - back : stop]))
        if isinstance(result, Missed):
            out += self._missed(result, at)
        elif isinstance(result, Movement):
            out += self._found(result, at)
        elif guide.phase is not phase:
            out.append(self._prompted(at))
        if not self.done and at // self._step % _LEVEL_EVERY == 0:
            level = Level(at=self._sample(at), level=guide.level, phase=guide.phase, remaining_s=guide.remaining_s(at))
            out.append(level)
        return out

    def _rested(self, stop: int) -> bool:
        """Make a scale from the rest before the first prompt, once there was enough of it."""
        assert self._kept is not None
        n = round(self.pace.relax_s * self._rate_hz)
        if stop < n or self._kept.flawed[stop - n : stop].any():
            return False
        self._scale = scale_by_rest(self._kept.values[stop - n : stop])
        return True

    def _missed(self, missed: Missed, at: int) -> list[EnrolEvent]:
        if missed.refusal is Refusal.NOT_AT_REST and self.view.scale is None:
            # what was taken for rest may have been none
            self._scale = None
        words = f"the level was {missed.peak:.2f}, a movement is over {self.pace.rises:.2f}"
        if missed.refusal in (Refusal.NOT_AT_REST, Refusal.TOO_LONG):
            words = f"the level stayed at {missed.peak:.2f}, rest is under {self.pace.falls:.2f}"
        return self._refuse(Finding(refusal=missed.refusal, detail=words), at, level=missed.peak)

    def _found(self, movement: Movement, at: int) -> list[EnrolEvent]:
        repetition, lost = self._cut(movement, at)
        return self._settle(repetition, at, lost=lost, level=self._level(movement))

    def _settle(self, repetition: StoredRepetition, at: int, *, lost: int, level: float) -> list[EnrolEvent]:
        """Take a repetition or refuse it."""
        finding = examine(repetition, self.view, lost=lost, level=level, strict=self._strict)
        if finding.refusal is not None:
            return self._refuse(finding, at, level=level, movement=repetition.about)
        about = msgspec.structs.replace(repetition.about, grades=finding.grades)
        self.taken.append(Taken(StoredRepetition(about, repetition.samples), finding))
        if finding.seen is not None:
            self.view = self.view.with_own([finding.seen])
        self._in_a_row = 0
        told = self._judged(finding, at, level=level, movement=about)
        return [told, *self._go_on(at, done=1)]

    def _refuse(self, finding: Finding, at: int, *, level: float, movement: About | None = None) -> list[EnrolEvent]:
        self.refused += 1
        self._in_a_row += 1
        told = self._judged(finding, at, level=level, movement=movement)
        if self._in_a_row >= self._patience:
            self.done = True
            words = f"{self._in_a_row} repetitions in a row could not be used"
            return [told, Stopped(at=self._sample(at), complete=False, detail=words, advice=_FIT_HELP)]
        return [told, *self._go_on(at)]

    def _go_on(self, at: int, *, done: int = 0) -> list[EnrolEvent]:
        """Prompt for what is next, `done` further prompts being over."""
        self._at += done
        if self._at == len(self.script):
            self.done = True
            return [Stopped(at=self._sample(at), complete=True)]
        self._guide = None if self._scale is None else Guide(self.pace, self._rate_hz, at)
        return [self._prompted(at)]

    def _judged(self, found: Finding, at: int, *, level: float, movement: About | None) -> Judged:
        return Judged(
            at=self._sample(at),
            gesture=self.label,
            number=self.number,
            refusal=found.refusal,
            detail=found.detail,
            advice=ADVICE[found.refusal] if found.refusal is not None else "",
            level=level,
            lasted_s=0.0 if movement is None else (movement.end - movement.onset) / movement.spec.rate_hz,
            looks_like=found.looks_like,
            probability=found.probability,
            agreement=found.agreement,
            onset=-1 if movement is None else movement.onset,
            end=-1 if movement is None else movement.end,
        )

    def _prompted(self, at: int) -> Prompted:
        phase, lasts_s = Phase.RELAX, self.pace.relax_s
        if self._guide is not None:
            phase, lasts_s = self._guide.phase, self._guide.lasts_s()
        return Prompted(
            at=self._sample(at),
            phase=phase,
            gesture=self.label,
            number=self.number,
            of=self.script.count(self.label),
            lasts_s=lasts_s,
        )

    def _cut(self, movement: Movement, at: int) -> tuple[StoredRepetition, int]:
        """The samples of a movement with the rest before it, and how many in it did not come."""
        onset, end = self._sample(movement.onset), self._sample(movement.end)
        first, stop = max(0, onset - round(_BEFORE_S * self.view.spec.rate_hz)), self._sample(at)
        lost = sum(max(0, min(b, stop) - max(a, first)) for a, b in self._gaps)
        after = max((b for _, b in self._gaps if b <= onset), default=0)
        first = min(onset, max(first, after, self._raw[0][0], self._rests_from))
        self._rests_from = stop
        parts = [x[max(0, first - f) : max(0, stop - f)] for f, x in self._raw]
        samples = np.concatenate(parts) if not lost else np.zeros((stop - first, self.view.spec.n_channels))
        about = About(
            label=self.label,
            spec=self.view.spec,
            first=first,
            onset=onset,
            end=min(end, first + len(samples)),
            recorded_ns=self._origin.time_ns(onset),
            session=self._origin.session,
            edge=self._origin.edge,
            release=self.view.release.name,
            source=self._origin.source,
            calibrates=self.view.scale is None,
        )
        return StoredRepetition(about, samples.astype(self.view.spec.dtype.numpy)), lost

    def _level(self, movement: Movement) -> float:
        assert self._kept is not None
        assert self._scale is not None
        part = self._kept.values[max(0, movement.onset - self._kept.first) : movement.end - self._kept.first]
        return float(np.abs(self._scale.apply(part)).mean()) if len(part) else 0.0

    def _sample(self, feature: int) -> int:
        """Index of the newest sample that the features before `feature` rest on, plus one."""
        return self._front_end.input_index(max(0, feature - 1)) + 1


def scale_by_rest(features: NDArray[np.float32]) -> WearerScale:
    """A scale for somebody nobody knows, from features at rest (n, C)."""
    rest = features.astype(np.float64).mean(axis=0)
    span = _REST_TIMES * np.maximum(np.abs(rest), 0.1 * np.median(np.abs(rest)) + 1e-9)
    return WearerScale(offset=tuple(rest.tolist()), gain=tuple((1 / span).tolist()))
