"""What `embridge enrol` and `embridge calibrate` share: from their options to a sitting, and what it tells."""

from __future__ import annotations

import asyncio
import math
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import typer

from embridge_edge import recordings
from embridge_edge.enrol.capture import Capture, Origin
from embridge_edge.enrol.desk import Desk, bundle_here, calibration_gestures, note_of, release_of
from embridge_edge.enrol.events import EnrolEvent
from embridge_edge.enrol.recorded import Recorded, repetitions_of
from embridge_edge.enrol.scripted import ScriptedBand
from embridge_edge.enrol.sitting import Capturing, deliver, sit
from embridge_edge.enrol.telling import Teller, silent
from embridge_edge.enrol.trial import TrialRound, mixed_round
from embridge_edge.enrol.view import WearerView
from embridge_edge.plan import SessionPlan, SyntheticSource, check_participant
from embridge_edge.recordings import Recording
from embridge_edge.takes import Take, open_take
from embridge_shared.clock import Clock, SystemClock
from embridge_shared.enrolment import GestureNote
from embridge_shared.errors import DeviceError, ExitCode, OperatorError, Reason
from embridge_shared.gesture_spec import check_label
from embridge_shared.gesture_spec import known as known_gestures
from embridge_shared.gestures import Gesture, find
from embridge_shared.session import Purpose
from embridge_shared.settings import EdgeSettings, load
from embridge_shared.signal import StreamSpec


@dataclass(frozen=True, slots=True)
class Asked:
    """Options of a sitting, as `embridge enrol --help` describes them."""

    participant: str
    band: str
    adapter: str
    forearm: int | None
    performance: int
    acts: str
    speed: float
    release: Path | None
    state_dir: Path | None
    yes: bool
    as_json: bool
    replay: Path | None = None
    rate_hz: float | None = None


Run = Callable[[WearerView, Sequence[str]], Capture]
"""Leads a capture of a wearer through a script."""


class _Session:
    """A sitting of a command."""

    def __init__(self, asked: Asked, purpose: Purpose) -> None:
        check_participant(asked.participant, "--participant")
        if bool(asked.band) + (asked.forearm is not None) + (asked.replay is not None) != 1:
            raise OperatorError(
                "say who wears what: a band or a simulated wearer.",
                hint="Give --band KIND, or --forearm SEED or --replay FILE to try it without a person.",
            )
        self.asked = asked
        self.settings: EdgeSettings = load(
            **({"edge": {"state_dir": asked.state_dir}} if asked.state_dir is not None else {})
        ).edge
        self.clock: Clock = SystemClock()
        self.known: dict[str, Gesture] = known_gestures(self.settings.state_dir)
        release = release_of(bundle_here(self.settings.state_dir, asked.release))
        self.desk = Desk(
            self.settings.state_dir,
            asked.participant,
            release,
            edge=self.settings.name,
            clock=self.clock,
            rings=self.settings.rings,
        )
        added = self.desk.store.held().gestures
        self._titles = Teller({**self.known, **{k: _shape(v) for k, v in added.items() if v.posture is not None}})
        self._purpose = purpose

    def open(self, shapes: Mapping[str, Gesture]) -> tuple[StreamSpec, Run]:
        """The band's stream, and what leads a capture over it; Ctrl-C ends it in good order."""
        if self.asked.replay is not None:
            found = recordings.load(self.asked.replay, self.asked.rate_hz)
            return found.emg, lambda view, script: self._replayed(found, view, script)
        take, plan = self.take(shapes)

        def led(view: WearerView, script: Sequence[str]) -> Capture:
            return asyncio.run(self.lead(lambda origin: Capture(view, script, origin), take, plan))

        return take.band.spec, led

    def _replayed(self, found: Recording, view: WearerView, script: Sequence[str]) -> Capture:
        """Take what a recording holds; it lies somewhere already, so no session is made of it."""
        began_ns = self.clock.wall_ns()
        capture = Recorded(view, script, Origin(session=None, edge=self.settings.name, source="", time_ns=_no_time))
        for each in repetitions_of(
            found,
            script,
            recorded_ns=began_ns,
            edge=self.settings.name,
            release=self.desk.release.name,
            calibrates=view.scale is None,
        ):
            self.tell(capture.offer(each))
        return capture

    def take(self, shapes: Mapping[str, Gesture]) -> tuple[Take, SessionPlan]:
        """The band, or the simulated wearer, and the plan of the session."""
        asked = self.asked
        name = f"{self._purpose.value}-{asked.participant}-{self.clock.wall_ns() // 1_000_000}"
        source: Any = SyntheticSource(wearer=asked.forearm or 0, performance=asked.performance, gestures=())
        if asked.band:
            from embridge_edge.bands.naming import parse

            source = parse([asked.band], adapter=asked.adapter)
        plan = SessionPlan(
            name=name, participant=asked.participant, source=source, purpose=self._purpose, protocol="guided/1"
        )
        if asked.forearm is None:
            return open_take(plan, Path(), self.clock, adapter=self.settings.adapter), plan
        band = ScriptedBand(
            asked.forearm,
            asked.performance,
            shapes=shapes,
            speed=asked.speed or math.inf,
            clock=self.clock,
        )
        return Take(f"synthetic:{asked.forearm}/{asked.performance}", (band,), ()), plan

    def tell(self, events: Sequence[EnrolEvent]) -> None:
        """Print what happened."""
        if self.asked.as_json:
            for event in events:
                typer.echo(msgspec.json.encode(event).decode())
            return
        for line in self._titles.lines([e for e in events if not silent(e)]):
            typer.echo(line, err=True)

    def say(self, words: str) -> None:
        """Print a line for people."""
        if not self.asked.as_json:
            typer.echo(words, err=True)

    def deliver(self) -> None:
        """Put what was committed where the agent sends it from."""
        deliver(self.desk.store, self.settings, self.clock)

    async def lead(self, make: Capturing, take: Take, plan: SessionPlan) -> Capture:
        """Sit; Ctrl-C ends it in good order."""
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        try:
            return await sit(plan, take, make, self.settings, clock=self.clock, tell=self.tell, stop=stop)
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


def enrol(asked: Asked, name: str, *, repetitions: int, pose: Path | None, template: str, test: bool) -> None:
    """Enrol a gesture.

    Raises:
        EmbridgeError: As the options or the band give reason to.
    """
    check_label(name)
    session = _Session(asked, Purpose.ENROLMENT)
    note = _note(session, name, pose, template)
    shapes = _shapes(session, name, note)
    spec, run = session.open(shapes)
    view = session.desk.view(spec)
    if note is not None:
        view = replace(view, added={**view.added, name: note})
    session.say(f"{asked.participant}: {name}, {repetitions} repetitions. Rest your arm; Ctrl-C stops.")
    capture = run(view, [name] * repetitions)
    if not _agreed(session, capture, repetitions):
        raise typer.Exit(ExitCode.FAILED)
    _, told = session.desk.enrol(capture, [note] if note is not None else [])
    session.deliver()
    session.tell(told)
    session.say("Kept. `embridge enrol undo` takes it back.")
    if view.release.prior is None:
        session.say(f"{view.release.name} says nothing of wearers: the gesture is kept and not decoded yet.")
    elif test:
        again = replace(asked, performance=asked.performance + 1)
        try_out(again, (name,), each=3, seed=0)


def try_out(asked: Asked, names: Sequence[str], *, each: int, seed: int) -> None:
    """Run a test round; raises as `enrol`."""
    session = _Session(asked, Purpose.EVALUATION)
    held = session.desk.store.held()
    own = tuple(dict.fromkeys(r.label for r in held.repetitions.values()))
    chosen = tuple(names) or own
    if not chosen:
        raise OperatorError(
            "this wearer has enrolled nothing to test.", reason=Reason.NOT_FOUND, hint="`embridge enrol NAME` first."
        )
    shapes = {label: shape for label in chosen for shape in _shapes(session, label, held.gestures.get(label)).values()}
    take, plan = session.take(shapes)
    view = session.desk.view(take.band.spec)
    others = [label for label in own if label not in chosen]
    script = mixed_round(chosen, others, np.random.default_rng(seed), each=each)

    def make(origin: Origin) -> TrialRound:
        return TrialRound(view, script, origin)

    session.say(f"{asked.participant}: {len(script)} gestures in random order. Rest your arm; Ctrl-C stops.")
    done = asyncio.run(session.lead(make, take, plan))
    assert isinstance(done, TrialRound)
    right = sum(t.asked == t.decided for t in done.results)
    session.say(f"{right} of {len(done.results)} right ({done.accuracy:.2f})")


def calibrate(asked: Asked, names: Sequence[str], *, repetitions: int) -> None:
    """Calibrate to a wearer with known gestures; raises as `enrol`."""
    session = _Session(asked, Purpose.CALIBRATION)
    release = session.desk.release
    chosen = tuple(names) or calibration_gestures(release)
    if len(set(chosen)) < 2:
        raise OperatorError("one gesture tells nothing of the other muscles.", hint="Name two or more, or none.")
    if release.prior is not None and (foreign := [n for n in chosen if n not in release.prior.gestures]):
        raise OperatorError(
            f"{release.name} does not know {', '.join(foreign)}.", hint=f"It knows {', '.join(release.prior.gestures)}."
        )
    spec, run = session.open(_all_shapes(session, chosen))
    view = replace(session.desk.view(spec, uncalibrated=True), scale=None, own=())
    script = [label for _ in range(repetitions) for label in chosen]
    session.say(f"{asked.participant}: {len(script)} known gestures, about {round(7 * len(script))} s. Rest your arm.")
    capture = run(view, script)
    if not _agreed(session, capture, len(script)):
        raise typer.Exit(ExitCode.FAILED)
    entry, calibration = session.desk.calibrate(capture)
    session.deliver()
    told = session.desk.evidence(spec)[1].choice
    session.say(f"Calibrated on {calibration.duration_s:.0f} s of signal and {len(entry.put)} repetitions.")
    if told.accuracy is not None and repetitions > 1:
        session.say(f"Each decided by the others, {told.accuracy:.2f} of them are right. {told.said}".rstrip())


def _agreed(session: _Session, capture: Capture, wanted: int) -> bool:
    """Whether to keep what was taken."""
    got = len(capture.taken)
    if not got:
        raise DeviceError(
            "nothing was taken, so nothing is kept.",
            reason=Reason.POOR_SIGNAL,
            hint="The lines above say what to do; the recording stays.",
        )
    if session.asked.yes:
        if got < wanted:
            session.say(f"Only {got} of {wanted} were taken: nothing is kept.")
        return got == wanted
    return typer.confirm(f"Keep {got} of {wanted} repetitions?", err=True)


def _note(session: _Session, name: str, pose: Path | None, template: str) -> GestureNote | None:
    """What the journal says of a gesture that is new."""
    if pose is not None and template:
        raise OperatorError("a gesture has one pose.", hint="Give --pose or --from-template.")
    known, release = session.known, session.desk.release
    if pose is not None:
        from embridge_shared.pose_file import read_pose

        found = read_pose(pose)
        angles = tuple(float(a) for a in found.pose)
        return GestureNote(label=name, title=found.title, hint=found.hint, posture=angles, source=f"pose {pose.name}")
    if template:
        (shape,) = [known[template]] if template in known else find([template])
        return note_of(name, {name: shape}, release, source=f"template {template}")
    held = session.desk.store.held().gestures
    return None if name in held else note_of(name, known, release)


def _shapes(session: _Session, name: str, note: GestureNote | None) -> dict[str, Gesture]:
    """What a simulated wearer does for a gesture."""
    if session.asked.acts:
        return {name: find([session.asked.acts])[0]}
    if note is not None and note.posture is not None:
        return {name: _shape(note)}
    return {name: session.known[name]} if name in session.known else {}


def _all_shapes(session: _Session, names: Sequence[str]) -> dict[str, Gesture]:
    return {label: session.known[label] for label in names if label in session.known}


def _shape(note: GestureNote) -> Gesture:
    from embridge_shared.gesture_spec import GestureSpec

    return GestureSpec.of(note).gesture()


def _no_time(sample: int) -> int:
    return 0
