"""The rooms, in the order of their keys."""

from __future__ import annotations

from typing import Final, NamedTuple


class RoomEntry(NamedTuple):
    """A room.

    Attributes:
        name: Its mode, and its name in `embridge tui --room`.
        title: For people.
        about: What is done there.
    """

    name: str
    title: str
    about: str


ROOMS: Final = (
    RoomEntry("collect", "Collect", "Lead a participant through a protocol and record it."),
    RoomEntry("devices", "Devices", "Bands in the air and on the arm: signal, battery, loss."),
    RoomEntry("sessions", "Sessions", "What was recorded, and what the cloud holds of it."),
    RoomEntry("fleet", "Fleet", "Rollouts, edges, and the releases they run."),
    RoomEntry("enrol", "Enrol", "A wearer's own gesture, from its name to a model."),
    RoomEntry("live", "Live", "What the hand does, as a release decodes it."),
    RoomEntry("models", "Models", "Releases with their gates and lineage, and the training that makes them."),
)
GESTURES: Final = RoomEntry("gestures", "Gestures", "The shapes of a hand that have a name.")
NAMES: Final = tuple(room.name for room in (*ROOMS, GESTURES))
