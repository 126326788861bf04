"""Outputs by the words that name them in settings, plans and on the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from embridge_edge.outputs.base import Output
from embridge_edge.outputs.mqtt import MqttOutput, Say
from embridge_shared.clock import Clock
from embridge_shared.errors import ConfigError, OperatorError
from embridge_shared.settings import OutputSettings

WORDS: Final = "websocket[:PORT], osc[:HOST:PORT], lsl, mqtt, keys:MAPPING.toml"
_HINT: Final = f"Outputs are {WORDS}."


@dataclass(frozen=True, slots=True)
class Means:
    """What outputs are made with.

    Attributes:
        settings: Addresses, rates, tokens.
        edge: Name of this edge.
        clock: The host's.
        base: Folder that relative paths start from.
        say: The link to the broker; None where there is none.
        show: Is given what a dry run would press, a line each.
    """

    settings: OutputSettings
    edge: str
    clock: Clock
    base: Path = Path()
    say: Say | None = None
    show: Callable[[str], None] | None = None


def check(words: Sequence[str], where: str) -> None:
    """Refuse words that name no output.

    Raises:
        ConfigError: One names none, or an output is there twice; the message says where.
    """
    kinds = [_parted(word, where)[0] for word in words]
    for kind in {k for k in kinds if kinds.count(k) > 1}:
        raise ConfigError(f"{where}: output {kind!r} is there twice", hint="One of a kind can be open.")


def open_outputs(words: Sequence[str], means: Means) -> list[Output]:
    """The outputs that words name; none is started yet.

    Args:
        words: As in "websocket:8472".
        means: What they are made with.

    Raises:
        ConfigError: A word names none, a setting cannot be, a mapping is wrong, or an extra is not installed.
        OperatorError: It needs a link to a broker and there is none.
    """
    check(words, "outputs")
    return [_opened(*_parted(word, "outputs"), means) for word in words]


def _parted(word: str, where: str) -> tuple[str, str]:
    kind, _, rest = word.strip().partition(":")
    fits = {
        "websocket": not rest or _is_port(rest),
        "osc": not rest or (rest.rpartition(":")[0] != "" and _is_port(rest.rpartition(":")[2])),
        "lsl": not rest,
        "mqtt": not rest,
        "keys": bool(rest),
    }
    if not fits.get(kind, False):
        raise ConfigError(f"{where}: {word!r} names no output", hint=_HINT)
    return kind, rest


def _is_port(text: str) -> bool:
    return text.isdecimal() and int(text) < 1 << 16


def _opened(kind: str, rest: str, means: Means) -> Output:
    # What a kind needs is imported only where it is asked for.
    if kind == "websocket":
        return _websocket(rest, means)
    if kind == "osc":
        return _osc(rest, means)
    if kind == "lsl":
        from embridge_edge.outputs.lsl import LslMarkers

        return LslMarkers(means.edge, clock=means.clock)
    if kind == "mqtt":
        if means.say is None:
            raise OperatorError(
                "there is no link to a broker here",
                hint="`embridge edge run` has one: put `mqtt` into outputs.enabled, or into its plan.",
            )
        return MqttOutput(means.say, edge=means.edge, updates_hz=means.settings.mqtt_updates_hz)
    return _keys(rest, means)


def _websocket(port: str, means: Means) -> Output:
    from embridge_edge.outputs.door import Door
    from embridge_edge.outputs.websocket import WebSocketOutput

    s = means.settings
    return WebSocketOutput(
        s.websocket_host,
        int(port) if port else s.websocket_port,
        edge=means.edge,
        updates_hz=s.updates_hz,
        door=Door(s.websocket_token.get_secret_value(), s.websocket_origins, s.websocket_hosts),
        page=s.websocket_page,
    )


def _osc(to: str, means: Means) -> Output:
    from embridge_edge.outputs.osc import OscOutput

    s = means.settings
    host, _, port = to.rpartition(":")
    return OscOutput(
        host.strip("[]") or s.osc_host,
        int(port) if port else s.osc_port,
        gesture=s.osc_gesture,
        decision=s.osc_decision,
        updates_hz=s.updates_hz,
    )


def _keys(path: str, means: Means) -> Output:
    from embridge_edge.outputs.keys import KeysOutput
    from embridge_edge.outputs.mapping import load
    from embridge_edge.outputs.uinput import DryDevice, KeyDevice, UinputDevice, log_line

    mapping = load(means.base / Path(path).expanduser())

    def make() -> KeyDevice:
        return DryDevice(means.show or log_line) if means.settings.keys_dry_run else UinputDevice(mapping)

    return KeysOutput(mapping, make, clock=means.clock)
