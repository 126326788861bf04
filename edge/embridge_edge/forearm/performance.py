"""What a wearer does in a session: prompts, movements, and the posture of the hand at any moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embridge_edge.forearm.wearer import Wearer
from embridge_shared.errors import OperatorError
from embridge_shared.gestures import Gesture
from embridge_shared.hand import N_JOINTS, clamp
from embridge_shared.session import CueShown, Repetition

_WAVES = 4
_SETTLE_S = 1.0
_FAR_RAD = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The pace of the prompts.

    Attributes:
        lead_in_s: Rest before the first prompt, s.
        cue_s: How long a prompt shows, s.
        rest_s: Rest between prompts, s.
        jitter_s: Each rest is longer by up to this, s.
    """

    lead_in_s: float = 2.0
    cue_s: float = 3.0
    rest_s: float = 2.0
    jitter_s: float = 0.5

    def __post_init__(self) -> None:
        if min(self.lead_in_s, self.cue_s, self.rest_s, self.jitter_s) < 0 or self.cue_s < 1 or self.rest_s < 1:
            raise OperatorError(
                f"nobody can follow prompts of {self.cue_s} s with {self.rest_s} s of rest",
                hint="Give prompts and rests at least 1 s.",
            )


@dataclass(frozen=True, slots=True)
class Prompt:
    """One repetition as asked for and as done; times since the session's start, s.

    Attributes:
        gesture: What.
        repetition: Counted from 1 within the gesture.
        cue_s: The prompt appears.
        cue_end_s: The prompt goes away.
        onset_s: The hand begins to move.
        held_s: The shape is reached.
        release_s: The hand begins to let go.
        end_s: The hand is back at rest.
    """

    gesture: Gesture
    repetition: int
    cue_s: float
    cue_end_s: float
    onset_s: float
    held_s: float
    release_s: float
    end_s: float


def minimum_jerk(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Course of a movement from 0 to 1 over u in 0..1."""
    u = np.clip(u, 0.0, 1.0)
    course: NDArray[np.float64] = u**3 * (10.0 - 15.0 * u + 6.0 * u**2)
    return course


class Performer(Protocol):
    """Whoever moves a simulated hand."""

    @property
    def wearer(self) -> Wearer:
        """Whose hand."""
        ...

    @property
    def duration_s(self) -> float:
        """Until the last movement has settled, s."""
        ...

    def angles(self, t_s: ArrayLike) -> NDArray[np.float64]:
        """Posture at moments since the start, (n,), s: (n, 20), rad."""
        ...


class Performance:
    """A session played by a wearer: fixed once made, so band and hand tracker see the same movements.

    Args:
        wearer: Who.
        gestures: What they are asked for; rest needs no prompt.
        repetitions: How often each.
        rng: Source of every variation.
        timing: Pace of the prompts.
        shuffled: Prompt in random order, each repetition a new one; else gesture by gesture.

    Raises:
        OperatorError: No gestures or no repetitions.
    """

    def __init__(
        self,
        wearer: Wearer,
        gestures: Sequence[Gesture],
        *,
        repetitions: int,
        rng: np.random.Generator,
        timing: Timing | None = None,
        shuffled: bool = False,
    ) -> None:
        if not gestures or repetitions < 1:
            raise OperatorError("a session needs a gesture and a repetition", hint="Name gestures of the vocabulary.")
        self.wearer = wearer
        self.timing = timing or Timing()
        order = [gesture for gesture in gestures for _ in range(repetitions)]
        if shuffled:
            order = [g for _ in range(repetitions) for g in rng.permutation(np.array(gestures, object)).tolist()]
        self.prompts = self._plan(order, rng)
        k = len(self.prompts)
        poses = np.array([prompt.gesture.pose for prompt in self.prompts])
        reach = wearer.amplitude * np.exp(rng.normal(0.0, 0.05, (k, 1)))
        # The further a shape is from rest, the more room there is to make it one's own way.
        far = np.sqrt(((poses - wearer.rest) ** 2).mean(axis=1, keepdims=True)) / _FAR_RAD
        missed = wearer.shape * np.clip(far, 0.25, 1.0) + rng.normal(0.0, np.deg2rad(2.0), (k, N_JOINTS))
        self._moves = clamp(wearer.rest + reach * (poses - wearer.rest) + missed) - wearer.rest
        self._stagger_s = np.clip(rng.normal(0.0, 0.02, (k, N_JOINTS)), -0.05, 0.05)
        self._waves = self._draw_waves(rng)

    def _plan(self, order: Sequence[Gesture], rng: np.random.Generator) -> tuple[Prompt, ...]:
        wearer, timing, done, t = self.wearer, self.timing, dict[str, int](), self.timing.lead_in_s
        prompts = []
        for gesture in order:
            done[gesture.name] = done.get(gesture.name, 0) + 1
            react, slow = wearer.reaction_s * rng.uniform(0.75, 1.4, 2), wearer.move_s * rng.uniform(0.8, 1.25, 2)
            onset, release = t + react[0], t + timing.cue_s + 0.7 * react[1]
            release = max(release, onset + slow[0])
            times = (t, t + timing.cue_s, onset, onset + slow[0], release, release + 0.9 * slow[1])
            prompts.append(Prompt(gesture, done[gesture.name], *(float(x) for x in times)))
            t += timing.cue_s + timing.rest_s + rng.uniform(0.0, timing.jitter_s)
        return tuple(prompts)

    def _draw_waves(self, rng: np.random.Generator) -> tuple[NDArray[np.float64], ...]:
        """Frequency, phase and amplitude of slow drift (first) and of tremor (last), each (waves, 20)."""
        shape = (_WAVES, N_JOINTS)
        hz = np.concatenate([rng.uniform(0.02, 0.25, shape), rng.uniform(8.0, 11.0, shape)])
        phase = rng.uniform(0.0, 2.0 * np.pi, hz.shape)
        amplitude = np.concatenate([np.full(shape, np.deg2rad(0.8)), np.full(shape, self.wearer.tremor_rad / 2.0)])
        return hz, phase, amplitude

    @property
    def duration_s(self) -> float:
        """Until the last movement has settled, s."""
        return self.prompts[-1].end_s + _SETTLE_S

    def angles(self, t_s: ArrayLike) -> NDArray[np.float64]:
        """Posture of the hand.

        Args:
            t_s: Moments since the session's start, (n,), s; before the start and after the end the hand rests.

        Returns:
            (n, 20), rad, within the joint limits.
        """
        t = np.asarray(t_s, float)
        onset, held, release, end = np.array([(p.onset_s, p.held_s, p.release_s, p.end_s) for p in self.prompts]).T
        # A joint may start a little before or after the hand's onset, never in another repetition.
        at = np.clip(np.searchsorted(onset - 0.1, t, side="right") - 1, 0, len(self.prompts) - 1)
        late = t[:, None] - self._stagger_s[at]
        into = minimum_jerk((late - onset[at, None]) / (held - onset)[at, None])
        back = minimum_jerk((late - release[at, None]) / (end - release)[at, None])
        hz, phase, amplitude = self._waves
        wander = np.zeros((len(t), N_JOINTS))
        for wave in range(len(hz)):
            wander += amplitude[wave] * np.sin(2.0 * np.pi * hz[wave] * t[:, None] + phase[wave])
        return clamp(self.wearer.rest + self._moves[at] * (into - back) + wander)

    def annotations(self) -> list[CueShown | Repetition]:
        """Prompts and movements in order of their start; times are ns since the session's start."""
        out: list[CueShown | Repetition] = []
        for p in self.prompts:
            cue, bounds = (p.cue_s, p.cue_end_s), (p.onset_s, p.end_s)
            for kind, (start, end) in ((CueShown, cue), (Repetition, bounds)):
                out.append(
                    kind(
                        gesture=p.gesture.name,
                        repetition=p.repetition,
                        start_ns=round(start * 1e9),
                        end_ns=round(end * 1e9),
                    )
                )
        return sorted(out, key=lambda event: event.start_ns)
