"""From scores to gestures: rest and unknown are answers, and what is said changes calmly.

Each hop brings evidence: how likely every gesture makes the window, how far it lies from all that is known, how much
the muscles do at all. A decider turns it into one label at a time, and into events: a gesture begins, is held, ends. It
holds no clock; time is counted in hops, so the cloud decides on a recording exactly as an edge did live.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_shared.errors import ConfigError, DataError, Reason
from embridge_shared.gestures import REST_LABEL
from embridge_shared.session import GestureChange

UNKNOWN: Final = "unknown"
"""Label of a hand that does something nobody taught the decoder."""

RECENT_S: Final = 0.2
"""How much of a window's end tells whether the hand rests."""

FLAWED: Final = 0.5
"""Share of a window that may be flawed; of a worse one nothing is said."""


class OperatingPoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rest levels and thresholds for a rate of false activations, as in `DecisionConfig`."""

    target_per_hour: float
    accept: dict[str, float] = {}
    otherwise: float = 0.5
    rest_below: float = 0.08
    rest_above: float = 0.12


class DecisionConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How evidence becomes a decision; fitted on wearers the scores were not, and part of a release.

    Attributes:
        temperature: What log-likelihoods are divided by before they become probabilities; above 1 where scores are
            surer than they are right.
        floor: Share of probability that goes to all gestures alike: however far apart scores lie, some mistake stays
            possible.
        rest_below: Activity under which the hand rests.
        rest_above: Activity over which it no longer rests; between the two it stays as it was.
        accept: Least probability at which a gesture, by label, is believed.
        otherwise: The same for gestures that are not in `accept`, those nobody performed and a wearer's own among them.
        novelty: Largest distance, in units of what belongs, at which a window is still known; None asks nothing.
        steady_s: Time over which probabilities are averaged.
        onset_s: How long a gesture must lead before it begins.
        release_s: How long something else must lead before it ends.
        hold_s: How long a gesture lasts before it counts as held.
        target_per_hour: False activations an hour the thresholds were chosen for.
        points: Rest levels and thresholds for other targets, see `at`.
    """

    temperature: float = 1.0
    floor: float = 0.0
    rest_below: float = 0.08
    rest_above: float = 0.12
    accept: dict[str, float] = {}
    otherwise: float = 0.5
    novelty: float | None = None
    steady_s: float = 0.15
    onset_s: float = 0.15
    release_s: float = 0.2
    hold_s: float = 0.8
    target_per_hour: float = 6.0
    points: tuple[OperatingPoint, ...] = ()

    def __post_init__(self) -> None:
        times = (self.steady_s, self.onset_s, self.release_s, self.hold_s)
        shares = [*self.accept.values(), self.otherwise]
        shares += [p for point in self.points for p in (*point.accept.values(), point.otherwise)]
        levels = [(self.rest_below, self.rest_above), *((p.rest_below, p.rest_above) for p in self.points)]
        targets = (self.target_per_hour, *(point.target_per_hour for point in self.points))
        faults = {
            "a temperature": not (math.isfinite(self.temperature) and self.temperature > 0),
            "a floor below 1": not 0 <= self.floor < 1,
            "rest levels in order": not all(-math.inf < low <= high < math.inf for low, high in levels),
            "probabilities": not all(0 <= p <= 1 for p in shares),
            "a novelty": self.novelty is not None and not self.novelty > 0,
            "times": not all(0 <= t < math.inf for t in times),
            "a target": not all(0 < t < math.inf for t in targets),
        }
        wrong = [name for name, found in faults.items() if found]
        if wrong:
            raise ConfigError(f"a decision needs {', '.join(wrong)}: {self}")

    def least(self, label: str) -> float:
        """Least probability at which a gesture is believed."""
        return self.accept.get(label, self.otherwise)

    def at(self, target_per_hour: float) -> DecisionConfig:
        """The same with rest levels and thresholds for another rate of false activations.

        Args:
            target_per_hour: False activations an hour that are put up with. Of the points known the loosest that
                promises no more is taken, or the strictest there is.

        Raises:
            ConfigError: No other point is known, or the target is none.
        """
        if not 0 < target_per_hour < math.inf:
            raise ConfigError(f"{target_per_hour} false activations an hour is no target", hint="Give more than 0.")
        if not self.points:
            raise ConfigError(
                "these thresholds hold for one rate of false activations only",
                hint="Leave the target out, or run a release that was fitted for more than one.",
            )
        ordered = sorted(self.points, key=lambda p: p.target_per_hour)
        chosen = [p for p in ordered if p.target_per_hour <= target_per_hour * (1 + 1e-9)][-1:] or ordered[:1]
        changes = {name: getattr(chosen[0], name) for name in OperatingPoint.__struct_fields__}
        return msgspec.structs.replace(self, **changes)

    def probabilities(self, log_likelihood: NDArray[np.floating]) -> NDArray[np.float64]:
        """Log-likelihoods (..., G) as probabilities that mean what they say."""
        return probabilities(log_likelihood, self.temperature, floor=self.floor)


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What one window says.

    Attributes:
        end: Absolute feature index after the window, as in `Decoded`.
        log_likelihood: Of each gesture up to a constant, (G,).
        activity: Mean scaled level over the window's end; 0 at rest, about 1 in a strong contraction.
        distance: From the nearest gesture, in units of what belongs; None where the scores have no distance.
        flawed: Share of the window that rests on held samples or unsettled filters.
    """

    end: int
    log_likelihood: NDArray[np.floating]
    activity: float
    distance: float | None = None
    flawed: float = 0.0


Kind: TypeAlias = GestureChange


@dataclass(frozen=True, slots=True)
class GestureEvent:
    """A gesture began, has been held, or ended.

    Attributes:
        kind: Which.
        label: The gesture.
        end: Absolute feature index of the window that decided.
        probability: Of the gesture then, among all known ones.
        lasted_s: Since its onset, s.
    """

    kind: Kind
    label: str
    end: int
    probability: float
    lasted_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """What is decided at a hop.

    Attributes:
        label: A gesture, "rest" or "unknown".
        probability: Of the label if it is a gesture, else of the likeliest gesture.
        best: The likeliest gesture, whatever is decided.
        probabilities: Of every gesture, (G,), averaged over `steady_s`.
        events: What changed at this hop, in order.
    """

    label: str
    probability: float
    best: str
    probabilities: NDArray[np.float64]
    events: tuple[GestureEvent, ...] = ()


def activity_of(window: NDArray[np.floating], rate_hz: float) -> float:
    """How much the muscles do at a window's end.

    Args:
        window: Scaled features (T, C).
        rate_hz: Features a second.
    """
    recent = max(1, round(RECENT_S * rate_hz))
    return float(np.abs(window[-recent:]).mean())


def probabilities(
    log_likelihood: NDArray[np.floating], temperature: float, *, floor: float = 0.0
) -> NDArray[np.float64]:
    """Log-likelihoods (..., G) as probabilities that sum to 1; a share `floor` goes to all gestures alike."""
    scaled = np.asarray(log_likelihood, np.float64) / temperature
    raised = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    shares = raised / raised.sum(axis=-1, keepdims=True)
    return np.asarray((1 - floor) * shares + floor / scaled.shape[-1])


@dataclass(slots=True)
class _Held:
    """The gesture that is on."""

    label: str
    hops: int = 0
    told: bool = False


@dataclass(slots=True)
class Decider:
    """Turns evidence into decisions, one hop after the other.

    Args:
        config: How.
        labels: Gestures in the order of the evidence.
        hop_s: Time between two windows, s.

    Raises:
        DataError: There is no gesture, or the hop is none.
    """

    config: DecisionConfig
    labels: Sequence[str]
    hop_s: float
    _steady: NDArray[np.float64] | None = field(default=None, init=False)
    _resting: bool = field(default=True, init=False)
    _said: str = field(default=REST_LABEL, init=False)
    _leads: str = field(default=REST_LABEL, init=False)
    _led: int = field(default=0, init=False)
    _held: _Held | None = field(default=None, init=False)
    _end: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not self.labels or not self.hop_s > 0:
            raise DataError("a decision needs gestures and a hop")

    def reset(self) -> tuple[GestureEvent, ...]:
        """Forget what was decided, as after a gap or at the end.

        Returns:
            That the gesture which was on ended, where the last window was; nothing when none was.
        """
        ended = () if self._held is None else (self._event(Kind.RELEASE, self._end),)
        self._steady, self._resting, self._held = None, True, None
        self._said = self._leads = REST_LABEL
        self._led = 0
        return ended

    def push(self, evidence: Evidence) -> Decision:
        """Decide on the next window.

        Raises:
            DataError: WRONG_SHAPE: another number of gestures.
        """
        if evidence.log_likelihood.shape != (len(self.labels),):
            raise DataError(
                f"{len(self.labels)} gestures, evidence of {evidence.log_likelihood.shape}", reason=Reason.WRONG_SHAPE
            )
        self._end = evidence.end
        now = self.config.probabilities(evidence.log_likelihood)
        self._resting = evidence.activity < (self.config.rest_above if self._resting else self.config.rest_below)
        keep = 0.0 if self._steady is None or self._resting else self._fade()
        self._steady = now if self._steady is None else keep * self._steady + (1 - keep) * now
        best = int(self._steady.argmax())
        leads = self._candidate(evidence, best)
        self._led = self._led + 1 if leads == self._leads else 1
        self._leads = leads
        events = self._change(evidence.end)
        said = self.labels.index(self._said) if self._held else best
        return Decision(self._said, float(self._steady[said]), self.labels[best], self._steady.copy(), events)

    def _fade(self) -> float:
        steady = self.config.steady_s
        return math.exp(-self.hop_s / steady) if steady > 0 else 0.0

    def _candidate(self, evidence: Evidence, best: int) -> str:
        """What this window alone would say."""
        if self._resting:
            return REST_LABEL
        if evidence.flawed > FLAWED:
            return UNKNOWN
        novelty = self.config.novelty
        if novelty is not None and evidence.distance is not None and evidence.distance > novelty:
            return UNKNOWN
        assert self._steady is not None
        label = self.labels[best]
        return label if self._steady[best] >= self.config.least(label) else UNKNOWN

    def _change(self, end: int) -> tuple[GestureEvent, ...]:
        events: list[GestureEvent] = []
        if self._held is not None:
            self._held.hops += 1
        wait_s = self.config.release_s if self._held is not None else 0.0
        if self._leads not in (REST_LABEL, UNKNOWN):
            wait_s = max(wait_s, self.config.onset_s)
        if self._leads != self._said and self._led * self.hop_s >= wait_s - 1e-9:
            if self._held is not None:
                events.append(self._event(Kind.RELEASE, end))
                self._held = None
            self._said = self._leads
            if self._said not in (REST_LABEL, UNKNOWN):
                self._held = _Held(self._said)
                events.append(self._event(Kind.ONSET, end))
        elif self._held is not None and not self._held.told and self._lasted_s() >= self.config.hold_s - 1e-9:
            self._held.told = True
            events.append(self._event(Kind.HOLD, end))
        return tuple(events)

    def _lasted_s(self) -> float:
        return self._held.hops * self.hop_s if self._held is not None else 0.0

    def _event(self, kind: Kind, end: int) -> GestureEvent:
        assert self._held is not None
        assert self._steady is not None
        probability = float(self._steady[self.labels.index(self._held.label)])
        return GestureEvent(kind, self._held.label, end, probability, self._lasted_s())


def expected_calibration_error(probability: NDArray[np.floating], right: NDArray[np.bool_], *, bins: int = 10) -> float:
    """How far confidence is from the share that is right, over bins of as many decisions each.

    Args:
        probability: Of the label that was decided (N,).
        right: Whether it was right (N,).
        bins: Bins.

    Raises:
        DataError: There is nothing to judge.
    """
    if not len(probability) or len(probability) != len(right):
        raise DataError("no decisions to judge", reason=Reason.TOO_LITTLE_DATA)
    order = np.argsort(probability, kind="stable")
    off = 0.0
    for part in np.array_split(order, min(bins, len(order))):
        off += len(part) * abs(float(probability[part].mean()) - float(right[part].mean()))
    return off / len(order)
