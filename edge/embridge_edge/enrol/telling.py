"""What guided capture tells, for people on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from embridge_edge.enrol.events import Answered, EnrolEvent, Judged, Level, Phase, Prompted, Stopped, Weighed
from embridge_shared.gestures import Gesture

_WORDS = {
    Phase.RELAX: "relax",
    Phase.HOLD: "hold",
    Phase.RELEASE: "and relax",
}


class Teller:
    """Turns events into lines.

    Args:
        known: Gestures that have a title or a hint, by label.
    """

    def __init__(self, known: Mapping[str, Gesture]) -> None:
        self._known = known
        self._hinted: set[str] = set()
        self._last = ("", 0)

    def lines(self, events: Sequence[EnrolEvent]) -> list[str]:
        """What to print, a line each."""
        return [line for e in events for line in self._of(e)]

    def _of(self, e: EnrolEvent) -> list[str]:
        if isinstance(e, Prompted):
            return self._prompt(e)
        if isinstance(e, Judged):
            return [self._judged(e)]
        if isinstance(e, Weighed):
            return _weighed(e)
        if isinstance(e, Answered):
            said = "right" if e.asked == e.decided else f"taken for {e.decided}"
            return [f"  {e.number} of {e.of}: {self._title(e.asked)}: {said} ({e.probability:.2f})"]
        if isinstance(e, Stopped) and not e.complete:
            return [f"stopped: {e.detail}. {e.advice}".rstrip()]
        return []

    def _prompt(self, e: Prompted) -> list[str]:
        if e.phase is Phase.PERFORM:
            return [f"    make it now: {self._title(e.gesture)}"]
        if e.phase is not Phase.RELAX:
            return [f"    {_WORDS[e.phase]}"]
        out = []
        if (e.gesture, e.number) != self._last:
            self._last = (e.gesture, e.number)
            out.append(f"{self._title(e.gesture)}, {e.number} of {e.of}")
            shape = self._known.get(e.gesture)
            if shape is not None and shape.hint and e.gesture not in self._hinted:
                out.append(f"    {shape.hint}")
            self._hinted.add(e.gesture)
        return [*out, f"    {_WORDS[e.phase]}"]

    def _judged(self, e: Judged) -> str:
        if e.refusal is not None:
            return f"  not taken, {e.refusal.value.replace('_', ' ')}: {e.detail}. {e.advice}"
        near = f", nearest other: {e.looks_like} {e.probability:.2f}" if e.looks_like else ""
        return f"  taken: level {e.level:.2f}, {e.lasted_s:.1f} s{near}"

    def _title(self, label: str) -> str:
        shape = self._known.get(label)
        return shape.title if shape is not None and shape.title else label


def _weighed(e: Weighed) -> list[str]:
    count = f"{e.repetitions} repetition{'s' if e.repetitions != 1 else ''}"
    out = [f"{e.gesture}: {count}; they decide {100 * e.own:.0f} %, pose and other people the rest"]
    out += [f"  {a} may be taken for {b} ({p:.2f})" for a, b, p in e.confusions]
    return out


def silent(e: EnrolEvent) -> bool:
    """Whether an event is for meters alone."""
    return isinstance(e, Level)
