"""Gestures over MQTT as they fall, for whoever listens now.

The same events are recorded with the session, spooled and committed; this is the copy for applications: QoS 0, not
retained, and gone while there is no link.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from embridge_edge.decode.decision import Decided
from embridge_edge.outputs import messages
from embridge_edge.outputs.base import Output, Pace
from embridge_edge.outputs.messages import Notice
from embridge_shared.wire import topics

Say = Callable[[str, bytes], None]
"""Hands a topic and a payload to the link that is there; returns at once, and what cannot be sent now is lost."""

_MOST_HZ: Final = 50.0


class MqttOutput(Output):
    """Says gestures, and decisions if wanted, on the edge's live topic.

    Args:
        say: The link.
        edge: Name of this edge.
        updates_hz: Decisions a second; 0 says gestures alone.
    """

    name = "mqtt"

    def __init__(self, say: Say, *, edge: str, updates_hz: float = 0.0) -> None:
        self._say = say
        self._topic = topics.live_topic(edge)
        self._edge = edge
        self._pace = Pace(min(updates_hz, _MOST_HZ))
        self._last: Decided | None = None

    async def tell(self, decided: Decided) -> None:
        """Say what changed."""
        last, self._last = self._last, decided
        if last is None or (last.session, last.labels) != (decided.session, decided.labels):
            self._send(messages.hello_of(decided, self._edge, self._pace.hz))
        for gesture in messages.gestures_of(decided):
            self._send(gesture)
        if self._pace.due(decided.t_ns):
            self._send(messages.update_of(decided))

    def notice(self, notice: Notice) -> None:
        """Say it."""
        self._send(notice)

    def _send(self, message: messages.Message) -> None:
        self._say(self._topic, messages.encode(message).encode())
