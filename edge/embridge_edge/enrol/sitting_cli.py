"""What `embridge enrol` and `embridge calibrate` share: from their options to a sitting, and what it tells."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import typer

from embridge_edge import recordings
from embridge_edge.band_plan import AnyBand, BandsSource
from embridge_edge.enrol.bench import Acted, Bench, Sitting
from embridge_edge.enrol.capture import Capture, Origin
from embridge_edge.enrol.desk import bundle_here, note_of, release_of
from embridge_edge.enrol.events import EnrolEvent
from embridge_edge.enrol.recorded import Recorded, repetitions_of
from embridge_edge.enrol.telling import Teller, silent
from embridge_edge.enrol.trial import TrialRound
from embridge_edge.enrol.view import WearerView
from embridge_shared.clock import SystemClock
from embridge_shared.enrolment import GestureNote
from embridge_shared.errors import DeviceError, ExitCode, OperatorError, Reason
from embridge_shared.gesture_spec import check_label
from embridge_shared.gestures import Gesture, find
from embridge_shared.settings import load


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


class _Session:
    """A sitting of a command."""

    def __init__(self, asked: Asked) -> None:
        if bool(asked.band) + (asked.forearm is not None) + (asked.replay is not None) != 1:
            raise OperatorError(
                "say who wears what: a band or a simulated wearer.",
                hint="Give --band KIND, or --forearm SEED or --replay FILE to try it without a person.",
            )
        self.asked = asked
        settings = load(**({"edge": {"state_dir": asked.state_dir}} if asked.state_dir is not None else {})).edge
        release = release_of(bundle_here(settings.state_dir, asked.release))
        self.bench = Bench(settings, asked.participant, release, self._worn(), SystemClock())
        self._titles = Teller(self.bench.titled)

    def _worn(self) -> AnyBand | BandsSource | Acted:
        asked = self.asked
        if not asked.band:
            return Acted(asked.forearm or 0, asked.performance, asked.speed)
        from embridge_edge.bands.naming import parse

        return parse([asked.band], adapter=asked.adapter)

    def replayed(self, view: WearerView, script: Sequence[str]) -> Capture:
        """Take what a recording holds; it lies somewhere already, so no session is made of it."""
        assert self.asked.replay is not None
        found = recordings.load(self.asked.replay, self.asked.rate_hz)
        edge = self.bench.settings.name
        capture = Recorded(view, script, Origin(session=None, edge=edge, source="", time_ns=_no_time))
        for each in repetitions_of(
            found,
            script,
            recorded_ns=self.bench.clock.wall_ns(),
            edge=edge,
            release=self.bench.desk.release.name,
            calibrates=view.scale is None,
        ):
            self.tell(capture.offer(each))
        return capture

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
        asyncio.run(self.bench.deliver())

    def lead(self, sitting: Sitting) -> Capture:
        """Sit; Ctrl-C ends it in good order."""

        async def led() -> Capture:
            stop, loop = asyncio.Event(), asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, stop.set)
            try:
                return await self.bench.lead(sitting, self.tell, stop=stop)
            finally:
                for number in (signal.SIGINT, signal.SIGTERM):
                    loop.remove_signal_handler(number)

        return asyncio.run(led())


def enrol(asked: Asked, name: str, *, repetitions: int, pose: Path | None, template: str, test: bool) -> None:
    """Enrol a gesture.

    Raises:
        EmbridgeError: As the options or the band give reason to.
    """
    check_label(name)
    session = _Session(asked)
    bench = session.bench
    note = _note(bench, name, pose, template)
    session.say(f"{asked.participant}: {name}, {repetitions} repetitions. Rest your arm; Ctrl-C stops.")
    if asked.replay is not None:
        view = bench.desk.view(recordings.load(asked.replay, asked.rate_hz).emg)
        if note is not None:
            view = replace(view, added={**view.added, name: note})
        capture = session.replayed(view, [name] * repetitions)
    else:
        capture = session.lead(bench.enrol(name, repetitions, note=note, shapes=_acts(asked, name)))
    if not _agreed(session, capture, repetitions):
        raise typer.Exit(ExitCode.FAILED)
    told = bench.keep(capture, note)
    session.deliver()
    session.tell(told)
    session.say("Kept. `embridge enrol undo` takes it back.")
    if bench.desk.release.prior is None:
        session.say(f"{bench.desk.release.name} says nothing of wearers: the gesture is kept and not decoded yet.")
    elif test:
        again = replace(asked, performance=asked.performance + 1)
        try_out(again, (name,), each=3, seed=0)


def try_out(asked: Asked, names: Sequence[str], *, each: int, seed: int) -> None:
    """Run a test round; raises as `enrol`."""
    session = _Session(asked)
    sitting = session.bench.test(
        names,
        each=each,
        rng=np.random.default_rng(seed),
        shapes={n: s for x in names for n, s in (_acts(asked, x) or {}).items()},
    )
    session.say(f"{asked.participant}: {len(sitting.script)} gestures in random order. Rest your arm; Ctrl-C stops.")
    done = session.lead(sitting)
    assert isinstance(done, TrialRound)
    right = sum(t.asked == t.decided for t in done.results)
    session.say(f"{right} of {len(done.results)} right ({done.accuracy:.2f})")


def calibrate(asked: Asked, names: Sequence[str], *, repetitions: int) -> None:
    """Calibrate to a wearer with known gestures; raises as `enrol`."""
    session = _Session(asked)
    bench = session.bench
    if asked.replay is not None:
        spec = recordings.load(asked.replay, asked.rate_hz).emg
        script = bench.calibration_script(names, repetitions)
    else:
        sitting = bench.calibrate(names, repetitions=repetitions)
        spec, script = sitting.spec, sitting.script
    session.say(f"{asked.participant}: {len(script)} known gestures, about {round(7 * len(script))} s. Rest your arm.")
    capture = session.replayed(bench.uncalibrated(spec), script) if asked.replay is not None else session.lead(sitting)
    if not _agreed(session, capture, len(script)):
        raise typer.Exit(ExitCode.FAILED)
    entry, calibration = bench.desk.calibrate(capture)
    session.deliver()
    told = bench.desk.evidence(spec)[1].choice
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


def _note(bench: Bench, name: str, pose: Path | None, template: str) -> GestureNote | None:
    """What the journal says of a gesture that is new."""
    if pose is not None and template:
        raise OperatorError("a gesture has one pose.", hint="Give --pose or --from-template.")
    if pose is not None:
        from embridge_shared.pose_file import read_pose

        found = read_pose(pose)
        angles = tuple(float(a) for a in found.pose)
        return GestureNote(label=name, title=found.title, hint=found.hint, posture=angles, source=f"pose {pose.name}")
    if template:
        (shape,) = [bench.known[template]] if template in bench.known else find([template])
        return note_of(name, {name: shape}, bench.desk.release, source=f"template {template}")
    return bench.note(name)


def _acts(asked: Asked, name: str) -> dict[str, Gesture] | None:
    """What a simulated wearer was told to do for a gesture."""
    return {name: find([asked.acts])[0]} if asked.acts else None


def _no_time(sample: int) -> int:
    return 0
