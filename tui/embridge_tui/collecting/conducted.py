"""What the keys do while a session is recorded."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from textual.widgets import Static

from embridge_edge.collect.conductor import Conductor
from embridge_edge.collect.leader import Leader
from embridge_edge.collect.station import Station
from embridge_edge.collect.steps import RUNNING, State, Step
from embridge_shared.errors import EmbridgeError
from embridge_tui import text
from embridge_tui.screens.collect_dialogs import ConfirmDialog, LostDialog, TextDialog
from embridge_tui.screens.room import Room

Action = Callable[[Conductor, float], list[Step]]


class ConductedRoom(Room):
    """A room in which a session is led.

    Args:
        station: Records and delivers; None where this machine has no edge.
    """

    def __init__(self, station: Station | None) -> None:
        super().__init__()
        self.station = station
        self._lost: LostDialog | None = None

    @property
    def leader(self) -> Leader | None:
        """Leads the session that is recorded; None without one."""
        return None if self.station is None else self.station.leader

    def advise(self, words: str, *, bad: bool = False) -> None:
        """Say what to do next."""
        line = self.query_one("#collect-advice", Static)
        line.update(text.plain(words))
        line.set_class(bad, "-bad")

    def fail(self, error: EmbridgeError) -> None:
        """Say what went wrong."""
        self.advise(str(error), bad=True)
        self.app.bell()

    def act(self, action: Action) -> None:
        """Do it at the time of the signal."""
        leader = self.leader
        if leader is not None:
            self.run_worker(self._acted(leader, action), name="key", group="keys")

    async def _acted(self, leader: Leader, action: Action) -> None:
        try:
            refused = await leader.act(action)
        except EmbridgeError as error:
            self.fail(error)
            return
        if refused:
            self.advise(f"Not now: {refused}.")

    def action_start_pause(self) -> None:
        """Begin, pause, go on."""
        leader = self.leader
        if leader is not None:
            running = leader.conductor.state in RUNNING
            self.act(Conductor.pause if running else Conductor.start)

    def action_accept(self) -> None:
        """Take the last repetition."""
        leader = self.leader
        if leader is not None and leader.conductor.state is State.READY:
            self.act(Conductor.start)
        else:
            self.act(Conductor.accept)

    def action_redo(self) -> None:
        """Do it again."""
        self.act(Conductor.redo)

    def action_skip(self) -> None:
        """Leave it out."""
        self.act(Conductor.skip)

    def action_mark(self) -> None:
        """Put a marker."""
        self.act(Conductor.mark)

    def action_again(self) -> None:
        """Ask again for what was left out."""
        self.act(Conductor.again)

    def action_note(self) -> None:
        """Write a note; it belongs to the moment the key was pressed."""
        leader = self.leader
        if leader is None:
            return
        at_s = leader.now_s

        def written(words: str | None) -> None:
            if words:
                self.act(lambda conductor, _: conductor.mark(at_s, f"note: {words}"))

        self.app.push_screen(TextDialog("note"), written)

    def action_detail(self) -> None:
        """What is wrong with each channel."""
        vitals = None if self.station is None else self.station.vitals()
        told = [line for q in vitals.quality for line in q.told] if vitals is not None else []
        self.app.push_screen(ConfirmDialog("quality", "\n".join(told) or "Every channel that was judged is good."))

    def action_end(self) -> None:
        """Stop prompting; asks first."""
        leader = self.leader
        if leader is None:
            return
        left = leader.conductor.left
        words = f"{left} of {len(leader.conductor.trials)} are not done.\nWhat was recorded stays; the review follows."
        self.app.push_screen(ConfirmDialog("end the session?", words), self._end)

    def _end(self, yes: bool | None) -> None:
        if yes:
            self.act(Conductor.end)

    # a lost band

    def open_lost(self, leader: Leader) -> None:
        """Say that no samples come."""
        if self._lost is not None:
            return
        self._lost = LostDialog(partial(self._lost_words, leader), leader.retry, lambda: self.act(Conductor.pause))
        self.app.push_screen(self._lost, self._lost_answer)

    def _lost_words(self, leader: Leader) -> str:
        assert self.station is not None
        vitals, trial = self.station.vitals(), leader.conductor.trial
        band, age_s = vitals.band, int(vitals.age_s or 0)
        name = leader.spec.device if band is None else " ".join(x for x in (band.kind, band.address) if x)
        again = "" if trial is None else f"{trial.gesture} {trial.repetition} comes again when it is back.\n"
        known_of = "" if band is None else ". ".join(x for x in (band.reason, band.action) if x)
        return f"{name}  {age_s // 60:02d}:{age_s % 60:02d}  ·  the file is kept\n{again}{known_of}"

    def close_lost(self) -> None:
        """They come again, or the session is over."""
        lost, self._lost = self._lost, None
        if lost is not None and lost.is_attached and lost.is_current:
            lost.dismiss("")

    def _lost_answer(self, choice: str | None) -> None:
        self._lost = None
        if choice in ("end", "another"):
            self.act(Conductor.end)
            if choice == "another":
                self.act(Conductor.end)
