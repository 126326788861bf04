"""Gestures as OSC messages over UDP, for synthesisers, game engines and stage software."""

from __future__ import annotations

import re
import socket
from typing import Any, Final

from embridge_edge.decode.decision import Decided
from embridge_edge.outputs.base import Output, Pace
from embridge_edge.outputs.messages import Notice
from embridge_shared.errors import ConfigError, NetworkError, Reason
from embridge_shared.session import GestureChange

_FIELDS: Final = ("gesture", "change")
_ADDRESS: Final = re.compile(r"/[^\s#*,?\[\]{}]*")
_ON: Final = {GestureChange.ONSET: 1, GestureChange.HOLD: 2, GestureChange.RELEASE: 0}


class OscOutput(Output):
    """Sends to one address.

    A gesture goes to `gesture` as (on: int, probability: float, lasted: float), where `on` is 1 at its onset, 2 when it
    is held and 0 at its end. A decision goes to `decision` as (label: string, probability: float).

    Args:
        host: Where to.
        port: The UDP port there.
        gesture: Address of gestures; `{gesture}` and `{change}` are filled in. Empty sends none.
        decision: Address of decisions; empty sends none.
        updates_hz: Decisions a second.

    Raises:
        ConfigError: An address cannot be one; python-osc is not installed.
    """

    name = "osc"

    def __init__(
        self,
        host: str,
        port: int,
        *,
        gesture: str = "/embridge/gesture/{gesture}",
        decision: str = "/embridge/decision",
        updates_hz: float = 10.0,
    ) -> None:
        self._to = (host, port)
        self._gesture = gesture
        self._decision = decision
        self._pace = Pace(updates_hz if decision else 0.0)
        self._builder = _load_builder()
        self._socket: socket.socket | None = None
        for key, address in (("outputs.osc_gesture", gesture), ("outputs.osc_decision", decision)):
            _check(key, address)

    async def start(self) -> None:
        """Find the host.

        Raises:
            NetworkError: Its name leads nowhere.
        """
        try:
            found = socket.getaddrinfo(*self._to, type=socket.SOCK_DGRAM)
        except OSError as error:
            raise NetworkError(
                f"OSC cannot be sent to {self._to[0]}: {error.strerror or error}",
                reason=Reason.UNREACHABLE,
                hint="Check outputs.osc_host, or `osc:HOST:PORT`.",
            ) from error
        family, kind, protocol, _, self._to = found[0]  # type: ignore[assignment]
        self._socket = socket.socket(family, kind, protocol)
        self._socket.setblocking(False)

    async def tell(self, decided: Decided) -> None:
        """Send what changed, and the decision when it is due."""
        for event in decided.decision.events:
            if self._gesture:
                address = self._gesture.format(gesture=event.label, change=event.kind.value)
                self._send(address, _ON[event.kind], float(event.probability), float(event.lasted_s))
        if self._pace.due(decided.t_ns):
            self._send(self._decision, decided.decision.label, float(decided.decision.probability))

    def notice(self, notice: Notice) -> None:
        """Send it to /embridge/notice as (about, level, text)."""
        self._send("/embridge/notice", notice.about, notice.level, notice.text)

    def _send(self, address: str, *values: Any) -> None:
        if self._socket is None:
            return
        builder = self._builder(address=address)
        for value in values:
            builder.add_arg(value)
        try:
            self._socket.sendto(builder.build().dgram, self._to)
        except (BlockingIOError, ConnectionRefusedError):
            # Nobody listens, or nobody reads: the next message says what counts then.
            return

    async def close(self) -> None:
        """Let the socket go."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _check(key: str, address: str) -> None:
    try:
        filled = address.format(**dict.fromkeys(_FIELDS, "x"))
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(
            f"{key} = {address!r} asks for what is not there", hint="Only {gesture} and {change} are filled in."
        ) from error
    if filled and not _ADDRESS.fullmatch(filled):
        raise ConfigError(
            f"{key} = {address!r} is no OSC address", hint='One begins with "/", as in "/hand/{gesture}".'
        )


def _load_builder() -> Any:
    try:
        from pythonosc.osc_message_builder import OscMessageBuilder
    except ModuleNotFoundError as error:
        raise ConfigError(
            "the OSC output needs python-osc, which is not installed",
            reason=Reason.MISSING_EXTRA,
            hint='Install it with: pip install "embridge[osc]"',
        ) from error
    return OscMessageBuilder
