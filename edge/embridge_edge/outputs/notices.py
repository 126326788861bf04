"""What the wearer should know: links that come and go, electrodes that lost the skin, a band that moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from embridge_edge.outputs.messages import Notice
from embridge_shared.quality import Grade
from embridge_shared.session import BandState, WearingChanged
from embridge_shared.wire.messages import StreamQuality

_TROUBLE: Final = frozenset({"reconnecting", "stalled", "lost", "failed"})
_BACK: Final = "streaming"
_HOLDS: Final = frozenset({"ok", "unknown"})


class Watcher:
    """Turns states into notices, one when something changes for the worse and one when it is well again."""

    def __init__(self) -> None:
        self._troubled: dict[str, str] = {}
        self._bad: dict[str, frozenset[int]] = {}
        self._wearing = ""

    def bands(self, states: Sequence[BandState]) -> list[Notice]:
        """Look at the bands as they are now."""
        out = []
        for state in states:
            before = self._troubled.get(state.stream)
            if state.phase in _TROUBLE and state.phase != before:
                self._troubled[state.stream] = state.phase
                why = f": {state.reason}" if state.reason else ""
                out.append(
                    Notice(about="link", level="warning", text=f"{state.stream} {state.phase}{why}", hint=state.action)
                )
            elif state.phase == _BACK and before is not None:
                del self._troubled[state.stream]
                out.append(Notice(about="link", level="info", text=f"{state.stream} streams again"))
        return out

    def quality(self, qualities: Sequence[StreamQuality]) -> list[Notice]:
        """Look at the channels as they are now."""
        out = []
        for quality in qualities:
            bad = frozenset(c for c, grade in enumerate(quality.grades) if grade is Grade.BAD)
            before = self._bad.get(quality.stream, frozenset())
            self._bad[quality.stream] = bad
            if bad - before:
                of = f"{len(bad)} of {len(quality.grades)} channels of {quality.stream} are bad"
                out.append(Notice(about="quality", level="warning", text=of, hint=" ".join(quality.told)))
            elif before and not bad:
                out.append(Notice(about="quality", level="info", text=f"{quality.stream} is good again"))
        return out

    def wearing(self, now: WearingChanged | None) -> list[Notice]:
        """Look at how well the wearer's calibration holds now."""
        if now is None or now.level == self._wearing:
            return []
        before, self._wearing = self._wearing, now.level
        if now.level in _HOLDS:
            return [Notice(about="drift", level="info", text=now.said)] if before and before not in _HOLDS else []
        return [Notice(about="drift", level="warning", text=now.said, hint=now.advice)]
