"""Gestures: the vocabulary with what was added here, and what the chosen shape looks like. Needs no cloud."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from textual.containers import Horizontal, Vertical
from textual.widget import Widget
from textual.widgets import Static

from embridge_shared.gesture_spec import known
from embridge_shared.gestures import similarity
from embridge_shared.settings import load
from embridge_tui.screens.room import Room
from embridge_tui.widgets.hand import HandView
from embridge_tui.widgets.records import Column, Records

COLUMNS = (Column("gesture", 18, grows=True), Column("family", 7))

_NEAREST = 3


class GesturesScreen(Room):
    """The vocabulary and the hand of the chosen gesture."""

    ROOM = "gestures"

    def __init__(self) -> None:
        super().__init__()
        self._gestures = known(load().edge.state_dir)
        self._alike = similarity(self._gestures.values())

    def furnish(self) -> Iterable[Widget]:
        """List, hand and words."""
        table = Records(COLUMNS, id="gestures")
        table.border_title = f"gestures: {len(self._gestures)}"
        hand = HandView(id="hand")
        words = Static("", id="gesture-words", markup=False)
        yield Horizontal(table, Vertical(hand, words, id="shape"), id="vocabulary")

    def on_mount(self) -> None:
        """List the vocabulary."""
        rows = [(name, (name, gesture.family.value)) for name, gesture in self._gestures.items()]
        self.query_one(Records).fill(rows)

    def on_data_table_row_highlighted(self, _: Records.RowHighlighted) -> None:
        """Another gesture was chosen."""
        name = self.query_one(Records).chosen
        if name is not None:
            gesture = self._gestures[name]
            self.query_one(HandView).show(gesture.pose)
            self.query_one("#shape").border_title = f"{gesture.title} · right hand from the palm"
            self.query_one("#gesture-words", Static).update(f"{gesture.hint}\nMost alike: {self._nearest(name)}")

    def _nearest(self, name: str) -> str:
        names = list(self._gestures)
        row = self._alike[names.index(name)]
        order = [int(i) for i in np.argsort(-row) if names[i] != name]
        return ", ".join(f"{names[i]} {row[i]:.2f}" for i in order[:_NEAREST])
