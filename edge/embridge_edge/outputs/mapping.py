"""Mapping files: which gesture does what at the keyboard and the mouse, as TOML.

pause = "fist"                # held, it stops and starts everything below

[[bind]]
gesture = "pinch_index"
press = ["BTN_LEFT"]          # down and up at the onset

[[bind]]
gesture = "point"
keep = ["KEY_LEFTSHIFT"]      # down as long as the gesture is on
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Final

import msgspec

from embridge_shared.errors import ConfigError, Reason
from embridge_shared.session import GestureChange

_KEY: Final = re.compile(r"(KEY|BTN)_[A-Z0-9_]{1,40}")
_REFUSED: Final = frozenset(
    {"KEY_POWER", "KEY_POWER2", "KEY_SLEEP", "KEY_SUSPEND", "KEY_RESTART", "KEY_SYSRQ", "KEY_WAKEUP"}
)
_FARTHEST: Final = 2000
_HINT: Final = "docs/outputs.md lists what a mapping file takes."


class Bind(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one gesture does; one of `press`, `keep`, `scroll` and `move`.

    Attributes:
        gesture: Which.
        when: "onset", "hold" or "release".
        press: Keys that go down together and up again at once.
        keep: Keys that stay down until the gesture ends; from its onset on, or from its hold.
        scroll: Notches of the wheel; up is positive.
        move: How far the pointer goes, (right, down).
    """

    gesture: str
    when: GestureChange = GestureChange.ONSET
    press: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    scroll: int = 0
    move: tuple[int, int] = (0, 0)


class Mapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mapping file.

    Attributes:
        bind: What gestures do.
        pause: Gesture that, held, stops everything and starts it again; none when empty.
        paused: Begin stopped; needs `pause`.
        dead_man_s: Keys are let go when no decision came for so long.
        longest_s: Keys are let go after so long, whatever is decided.
    """

    bind: tuple[Bind, ...]
    pause: str = ""
    paused: bool = False
    dead_man_s: float = 1.0
    longest_s: float = 30.0

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key, once."""
        return tuple(dict.fromkeys(key for b in self.bind for key in (*b.press, *b.keep)))

    @property
    def gestures(self) -> tuple[str, ...]:
        """Every gesture, once."""
        return tuple(dict.fromkeys([*(b.gesture for b in self.bind), *([self.pause] if self.pause else [])]))

    @property
    def moves(self) -> bool:
        """Whether it moves the pointer or the wheel."""
        return any(b.scroll or any(b.move) for b in self.bind)


def load(path: Path) -> Mapping:
    """Read a mapping file.

    Raises:
        ConfigError: It cannot be read, or says something that cannot be; the message names it.
    """
    try:
        mapping = msgspec.toml.decode(path.read_bytes(), type=Mapping, strict=True)
    except OSError as error:
        raise ConfigError(
            f"the mapping {path} cannot be read: {error.strerror}", reason=Reason.NOT_FOUND, hint="Check its path."
        ) from error
    except (msgspec.DecodeError, ValueError) as error:
        raise ConfigError(f"the mapping {path}: {error}", hint=_HINT) from error
    wrong = [problem for number, bind in enumerate(mapping.bind, 1) for problem in _problems(number, bind)]
    wrong += _general(mapping)
    if wrong:
        raise ConfigError(f"the mapping {path}: {'; '.join(wrong)}", hint=_HINT)
    return mapping


def _general(mapping: Mapping) -> list[str]:
    wrong = [] if mapping.bind else ["there is no [[bind]]"]
    for name in ("dead_man_s", "longest_s"):
        if not 0 < getattr(mapping, name) < math.inf:
            wrong.append(f"{name} must be positive")
    if mapping.paused and not mapping.pause:
        wrong.append("it begins paused, and no gesture ends that")
    if mapping.pause and any(b.gesture == mapping.pause for b in mapping.bind):
        wrong.append(f"{mapping.pause!r} pauses and does something else too")
    return wrong


def _problems(number: int, bind: Bind) -> list[str]:
    where = f"bind {number} ({bind.gesture})"
    acts = [bool(bind.press), bool(bind.keep), bool(bind.scroll), any(bind.move)]
    wrong = [] if sum(acts) == 1 else [f"{where} needs one of press, keep, scroll and move"]
    if bind.keep and bind.when is GestureChange.RELEASE:
        wrong.append(f"{where} keeps keys down from its end on")
    if max(abs(bind.scroll), *map(abs, bind.move)) > _FARTHEST:
        wrong.append(f"{where} goes farther than {_FARTHEST}")
    for key in (*bind.press, *bind.keep):
        if not _KEY.fullmatch(key):
            wrong.append(f"{where}: {key!r} is no key, as KEY_SPACE or BTN_LEFT is")
        elif key in _REFUSED:
            wrong.append(f"{where}: {key} is not given to a hand")
    return wrong
