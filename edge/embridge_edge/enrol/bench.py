"""Guided sittings of one wearer, from what is asked for to what is kept; a command or a screen drives them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from embridge_edge.band_plan import AnyBand, BandsSource
from embridge_edge.courier import Courier
from embridge_edge.enrol.capture import Capture
from embridge_edge.enrol.desk import Desk, calibration_gestures, note_of
from embridge_edge.enrol.events import Weighed
from embridge_edge.enrol.scripted import ScriptedBand
from embridge_edge.enrol.sitting import Capturing, Stop, Tell, deliver, sit
from embridge_edge.enrol.trial import TrialRound, mixed_round
from embridge_edge.enrol.view import Release, WearerView
from embridge_edge.plan import SessionPlan, SyntheticSource, check_participant
from embridge_edge.takes import Take, open_take
from embridge_shared.clock import Clock
from embridge_shared.enrolment import GestureNote
from embridge_shared.errors import OperatorError, Reason
from embridge_shared.gesture_spec import GestureSpec, check_label
from embridge_shared.gesture_spec import known as known_gestures
from embridge_shared.gestures import Gesture
from embridge_shared.session import Purpose
from embridge_shared.settings import EdgeSettings
from embridge_shared.signal import StreamSpec


@dataclass(frozen=True, slots=True)
class Acted:
    """A simulated wearer who follows the prompts.

    Attributes:
        forearm: Seed of the wearer's anatomy; the same seed is the same person.
        performance: Seed of this performance.
        speed: 1 is real time, 0 as fast as possible.
    """

    forearm: int
    performance: int = 1
    speed: float = 1.0


@dataclass(frozen=True, slots=True)
class Sitting:
    """What is about to be led through.

    Attributes:
        plan: Whose session it will be, and what for.
        take: The band.
        script: Labels in the order of the prompts.
        make: Makes the capture once it is known where its samples go.
    """

    plan: SessionPlan
    take: Take
    script: tuple[str, ...]
    make: Capturing

    @property
    def spec(self) -> StreamSpec:
        """The band's stream."""
        return self.take.band.spec


class Bench:
    """One wearer with a band at an edge.

    Args:
        settings: State directory, name of the edge, limits.
        participant: Pseudonym.
        release: What gestures are enrolled into.
        worn: The band, or who pretends to wear one.
        clock: Wall and monotonic time.

    Raises:
        ConfigError: `participant` cannot be recorded under that code.
    """

    def __init__(
        self,
        settings: EdgeSettings,
        participant: str,
        release: Release,
        worn: AnyBand | BandsSource | Acted,
        clock: Clock,
    ) -> None:
        check_participant(participant, "--participant")
        self.settings = settings
        self.participant = participant
        self.clock = clock
        self.known = known_gestures(settings.state_dir)
        self.desk = Desk(
            settings.state_dir, participant, release, edge=settings.name, clock=clock, rings=settings.rings
        )
        self._worn = worn

    @property
    def titled(self) -> dict[str, Gesture]:
        """Gestures that have a title or a hint, by label: the vocabulary, and what the wearer added with a posture."""
        added = self.desk.store.held().gestures
        return {**self.known, **{k: shape_of(v) for k, v in added.items() if v.posture is not None}}

    def note(self, label: str) -> GestureNote | None:
        """What the journal will say of a gesture that is new to it and to the release; None for one that is not."""
        known_already = label in self.desk.store.held().gestures
        return None if known_already else note_of(label, self.known, self.desk.release)

    def enrol(
        self,
        label: str,
        repetitions: int,
        *,
        note: GestureNote | None = None,
        shapes: Mapping[str, Gesture] | None = None,
    ) -> Sitting:
        """Get ready to enrol a gesture.

        Args:
            label: Its label.
            repetitions: How often it is performed.
            note: What makes it a new gesture.
            shapes: What a simulated wearer does, where nothing tells it.

        Raises:
            ConfigError: `label` cannot name a gesture.
            OperatorError: NOT_FOUND: nobody calibrated the wearer with this band and release.
            ModelError: INCOMPATIBLE: the release is for another band.
        """
        check_label(label)
        take, plan = self.open(Purpose.ENROLMENT, self.shapes([label], note) if shapes is None else shapes)
        view = self.desk.view(take.band.spec)
        if note is not None:
            view = replace(view, added={**view.added, label: note})
        script = (label,) * repetitions
        return Sitting(plan, take, script, lambda origin: Capture(view, script, origin))

    def calibrate(self, names: Sequence[str] = (), *, repetitions: int = 2) -> Sitting:
        """Get ready to calibrate with known gestures, by default those that show most.

        Raises:
            OperatorError: Fewer than two gestures, or one the release does not know.
            ModelError: INCOMPATIBLE: the release is for another band.
        """
        script = self.calibration_script(names, repetitions)
        take, plan = self.open(Purpose.CALIBRATION, self.shapes(script))
        view = self.uncalibrated(take.band.spec)
        return Sitting(plan, take, script, lambda origin: Capture(view, script, origin))

    def calibration_script(self, names: Sequence[str] = (), repetitions: int = 2) -> tuple[str, ...]:
        """What is performed for a calibration; raises as `calibrate`."""
        release = self.desk.release
        chosen = tuple(names) or calibration_gestures(release)
        if len(set(chosen)) < 2:
            raise OperatorError("one gesture tells nothing of the other muscles.", hint="Name two or more, or none.")
        if release.prior is not None and (foreign := [n for n in chosen if n not in release.prior.gestures]):
            raise OperatorError(
                f"{release.name} does not know {', '.join(foreign)}.",
                hint=f"It knows {', '.join(release.prior.gestures)}.",
            )
        return tuple(label for _ in range(repetitions) for label in chosen)

    def uncalibrated(self, spec: StreamSpec) -> WearerView:
        """The wearer as somebody nobody knows: what a calibration starts from."""
        return replace(self.desk.view(spec, uncalibrated=True), scale=None, own=())

    def test(
        self,
        names: Sequence[str] = (),
        *,
        each: int = 3,
        rng: np.random.Generator | None = None,
        shapes: Mapping[str, Gesture] | None = None,
    ) -> Sitting:
        """Get ready for a round of gestures in random order that are decided and not taken.

        Raises:
            OperatorError: NOT_FOUND: the wearer has enrolled nothing.
            ModelError: INCOMPATIBLE: the release has no prior of wearers.
        """
        held = self.desk.store.held()
        own = tuple(dict.fromkeys(r.label for r in held.repetitions.values()))
        chosen = tuple(names) or own
        if not chosen:
            raise OperatorError(
                "this wearer has enrolled nothing to test.",
                reason=Reason.NOT_FOUND,
                hint="`embridge enrol NAME` first.",
            )
        others = [label for label in own if label not in chosen]
        script = tuple(mixed_round(chosen, others, rng or np.random.default_rng(0), each=each))
        take, plan = self.open(Purpose.EVALUATION, {**self.shapes(script), **(shapes or {})})
        view = self.desk.view(take.band.spec)
        return Sitting(plan, take, script, lambda origin: TrialRound(view, script, origin))

    async def lead(
        self, sitting: Sitting, tell: Tell, *, stop: Stop | None = None, courier: Courier | None = None
    ) -> Capture:
        """Lead through a sitting and record it; raises as `sit`.

        Args:
            sitting: What was made ready.
            tell: Told of everything as it happens.
            stop: Ends it in good order when set.
            courier: Of the agent that runs in this process; its spool is taken over for the while by default.

        Returns:
            The capture, done or stopped; what it took is not committed yet.
        """
        return await sit(
            sitting.plan,
            sitting.take,
            sitting.make,
            self.settings,
            clock=self.clock,
            tell=tell,
            stop=stop,
            courier=courier,
        )

    def keep(self, capture: Capture, note: GestureNote | None = None) -> tuple[Weighed, ...]:
        """Commit what was enrolled; what the wearer's model now rests on. `deliver` sends it.

        Raises:
            OperatorError: Nothing was taken.
        """
        return self.desk.enrol(capture, [note] if note is not None else [])[1]

    async def deliver(self, courier: Courier | None = None) -> int:
        """Put the journal's new entries where the agent sends them from; how many there were."""
        return await deliver(self.desk.store, self.settings, self.clock, courier=courier)

    def shapes(self, labels: Sequence[str], note: GestureNote | None = None) -> dict[str, Gesture]:
        """What a simulated wearer does for gestures that have a shape."""
        own = {} if note is None or note.posture is None else {note.label: shape_of(note)}
        shapes = {**self.titled, **own}
        return {label: shapes[label] for label in labels if label in shapes}

    def open(self, purpose: Purpose, shapes: Mapping[str, Gesture]) -> tuple[Take, SessionPlan]:
        """The band, or the simulated wearer, and the plan of a session."""
        worn = self._worn
        source = (
            SyntheticSource(wearer=worn.forearm, performance=worn.performance, gestures=())
            if isinstance(worn, Acted)
            else worn
        )
        plan = SessionPlan(
            name=f"{purpose.value}-{self.participant}-{self.clock.wall_ns() // 1_000_000}",
            participant=self.participant,
            source=source,
            purpose=purpose,
            protocol="guided/1",
        )
        if not isinstance(worn, Acted):
            return open_take(plan, Path(), self.clock, adapter=self.settings.adapter), plan
        band = ScriptedBand(
            worn.forearm, worn.performance, shapes=shapes, speed=worn.speed or math.inf, clock=self.clock
        )
        return Take(f"synthetic:{worn.forearm}/{worn.performance}", (band,), ()), plan


def shape_of(note: GestureNote) -> Gesture:
    """A gesture a wearer added, as the vocabulary has them."""
    return GestureSpec.of(note).gesture()
