"""Drift: whether the band sits and the wearer contracts as they did, and what is worth doing where not.

Two things are averaged slowly over windows in which the hand moves: how far they lie from the wearer's gestures,
against how far the wearer's own repetitions lay from a model that had not seen them; and how much better the activity
around the ring would fit if the band were turned. The first speaks whatever gestures are made; the second says that
the band moved.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from embridge_edge.decode.activity import Scale, moves, strength
from embridge_shared.preprocess import PreprocessConfig
from embridge_shared.session import WearingChanged
from embridge_shared.wearer import Repetition, WearerModel
from embridge_shared.wearer.donning import WORTH_NATS, Activity, Turn, activity, find_turn
from embridge_shared.wearer.levels import Wide, levels

WATCH_AT: Final = 0.2
"""Mean log of how many times farther windows lie than they should: 59 of 60 times quiet on the day of enrolment."""
SPEAK_AT: Final = 0.3
"""The same, from which on something pays: never reached on that day, and .3 of accuracy is lost when it is
(`docs/donning.md`)."""
LOOKS: Final = 48
"""Windows without overlap that are averaged over."""
LEAST: Final = 16
"""Windows before anything is said."""
_EVERY: Final = 8
_TINY: Final = 1e-9


class Level(StrEnum):
    """How well a wearer's calibration still holds, from good to bad."""

    UNKNOWN = "unknown"
    OK = "ok"
    WATCH = "watch"
    RE_DON = "re-don"
    RE_ENROL = "re-enrol"


_ORDER: Final = tuple(Level)
_ADVICE: Final = {
    Level.UNKNOWN: "",
    Level.OK: "",
    Level.WATCH: "Nothing yet; if gestures are missed, push the band back to where it sat.",
    Level.RE_DON: "Run `embridge edge don`: some seconds of any gestures.",
    Level.RE_ENROL: "Perform each gesture once more: `embridge enrol NAME -n 1`.",
}


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What a session is held against.

    Attributes:
        model: The wearer's; None where they performed nothing.
        usual: Mean log distance of what belongs, see `usual_distance`.
        activity: Around the ring when the wearer was calibrated; None where nobody knows.
        ring: The ring's channels in order.
        donned: The band was calibrated for this donning already.
    """

    model: WearerModel | None = None
    usual: float = 0.0
    activity: Activity | None = None
    ring: tuple[int, ...] = ()
    donned: bool = False

    @property
    def enough(self) -> bool:
        """Whether anything can be watched."""
        return self.model is not None or (self.activity is not None and bool(self.ring))


@dataclass(frozen=True, slots=True)
class Drift:
    """How well a calibration still holds.

    Attributes:
        level: In a word.
        said: The reason.
        advice: The next step, or empty.
        farther: Mean log of how many times farther windows lie from the wearer's gestures than they should; None
            without a model.
        turn: Where the band sits against the calibration; None where nobody knows.
        windows: What it rests on.
    """

    level: Level
    said: str
    advice: str
    farther: float | None
    turn: Turn | None
    windows: int

    def told(self, t_ns: int) -> WearingChanged:
        """As an event of the session."""
        return WearingChanged(
            t_ns=t_ns,
            level=self.level.value,
            said=self.said,
            advice=self.advice,
            farther=self.farther,
            electrodes=None if self.turn is None else self.turn.electrodes,
        )


def log_distance(model: WearerModel, points: Wide) -> Wide:
    """Log of the distance of points (N, F) to the nearest gesture, 0 on average for what belongs: (N,)."""
    return np.asarray(np.log(np.maximum(model.distances(points).min(axis=1) / model.prior.size, _TINY)))


def usual_distance(model: WearerModel, own: Sequence[Repetition]) -> float | None:
    """Mean log distance of a wearer's repetitions from models that have not seen them; None for less than two of one.

    Args:
        model: Of the wearer.
        own: What it was made of.
    """
    rounds: dict[str, int] = {}
    numbers = []
    for r in own:
        rounds[r.label] = rounds.get(r.label, 0) + 1
        numbers.append(rounds[r.label])
    found: list[Wide] = []
    # all first repetitions are left out together, then all second ones: as many models as there are rounds
    for left in sorted(set(numbers)):
        kept = [r for r, n in zip(own, numbers, strict=True) if n != left]
        out = [r for r, n in zip(own, numbers, strict=True) if n == left and r.label in {k.label for k in kept}]
        if out:
            without = WearerModel(model.prior, model.gestures, kept)
            found += [log_distance(without, r.points) for r in out]
    return float(np.concatenate(found).mean()) if found else None


class DriftMonitor:
    """Watches one session.

    Args:
        known: What it is held against.
        preprocess: The release's.
        scale: What the decoder sees features through.
    """

    def __init__(self, known: Known, preprocess: PreprocessConfig, scale: Scale) -> None:
        self._known = known
        self._preprocess = preprocess
        self._scale = scale
        self._far: deque[Wide] = deque(maxlen=LOOKS)
        self._levels: deque[Wide] = deque(maxlen=LOOKS)
        self._strengths: deque[float] = deque(maxlen=4 * LOOKS)
        self._next = 0
        self._since = 0
        self._risen = Level.UNKNOWN
        self.now = Drift(Level.UNKNOWN, "Nothing was performed yet.", "", None, None, 0)

    def push(self, window: NDArray[np.float32], end: int, *, flawed: float = 0.0) -> Drift | None:
        """Take a window of unscaled features; what is new, where the level changed.

        Args:
            window: float32 (T, C); those that overlap the last one taken are passed over.
            end: Absolute feature index after it.
            flawed: Share of it that is not sound.
        """
        if end - len(window) < self._next or flawed or not self._known.enough:
            return None
        self._next = end
        self._strengths.append(float(strength(window[None], self._scale)[0]))
        if self._strengths[-1] <= moves(np.array(self._strengths), self._preprocess):
            return None
        scaled = self._scale.apply(window)
        if self._known.model is not None:
            model = self._known.model
            self._far.append(log_distance(model, model.prior.describe(scaled[None])))
        if self._known.activity is not None and self._known.ring:
            self._levels.append(levels(window[None][:, :, list(self._known.ring)]))
        self._since += 1
        if self._since < _EVERY or max(len(self._far), len(self._levels)) < LEAST:
            return None
        self._since = 0
        return self._judge()

    def _judge(self) -> Drift | None:
        before, found = self.now, self._look()
        rises = _ORDER.index(found.level) > _ORDER.index(before.level)
        if rises and before.level is not Level.UNKNOWN and self._risen is not found.level:
            # one look may be how gestures were mixed: worse is said when it is seen twice
            self._risen = found.level
            self.now = Drift(before.level, before.said, before.advice, found.farther, found.turn, found.windows)
            return None
        self._risen = Level.UNKNOWN
        self.now = found
        return found if found.level is not before.level else None

    def _look(self) -> Drift:
        known = self._known
        farther = float(np.concatenate(self._far).mean()) - known.usual if self._far else None
        turn = None
        if known.activity is not None and len(self._levels) >= LEAST:
            turn = find_turn(activity(np.concatenate(self._levels)), known.activity)
        level, said = judged(farther, turn, donned=known.donned)
        windows = max(len(self._far), len(self._levels))
        return Drift(level, said, _ADVICE[level], farther, turn, windows)


def judged(farther: float | None, turn: Turn | None, *, donned: bool) -> tuple[Level, str]:
    """Level and reason.

    Args:
        farther: As in `Drift`.
        turn: As in `Drift`; of the band as it sits, before anything is undone.
        donned: The band was calibrated for this donning already.
    """
    moved = turn is not None and turn.gain > WORTH_NATS and not donned
    if moved and turn is not None:
        far = abs(turn.electrodes)
        return Level.RE_DON, f"The band sits {far:g} electrode{'s' * (far != 1)} from where it was calibrated."
    if farther is None:
        return Level.OK, "The band sits where it was calibrated."
    words = f"Signals lie {np.exp(farther):.1f} times as far from your gestures as your own repetitions did."
    if farther >= SPEAK_AT:
        return (Level.RE_ENROL if donned else Level.RE_DON), words
    if farther >= WATCH_AT:
        return Level.WATCH, words
    return Level.OK, "Gestures look as they did."
