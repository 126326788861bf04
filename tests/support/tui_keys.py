"""The page of keys, made from the bindings: `python -m support.tui_keys` in tests/ writes it anew."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path

from textual.app import App
from textual.binding import Binding
from textual.dom import DOMNode
from textual.screen import ModalScreen

import embridge_tui
from embridge_tui.app import EmbridgeApp
from embridge_tui.rooms import GESTURES, ROOMS
from embridge_tui.screens.room import Room

PAGE = Path(__file__).parents[2] / "docs" / "tui-keys.md"

_HEAD = """# Keys of the terminal interface

Every key, where it works, and the id by which `tui.keymap` gives it another one:

```toml
[tui]
keymap = { "go.fleet" = "f4", "collect.redo" = "x,backspace" }
```

`?` shows those that work where one is. No letter works everywhere, so that text can be typed.
"""
_SIGNS = {
    "question_mark": "?", "slash": "/", "plus": "+", "equals_sign": "=", "minus": "-", "left_square_bracket": "[",
    "right_square_bracket": "]", "left": "←", "right": "→", "up": "↑", "down": "↓",
}  # fmt: skip
_TITLES = {
    "SetupForm": "Collect: form", "LookView": "Collect: preflight", "RunView": "Collect: recording",
    "ReviewView": "Collect: review", "LostDialog": "Collect: the band is lost", "Scope": "Scope", "Records": "Tables",
    "JumpDialog": "Dialog: jump", "PageDialog": "Dialog: page", "QuitDialog": "Dialog: leave",
    "ConfirmDialog": "Dialog: question", "TextDialog": "Dialog: line of text", "PickDialog": "Dialog: choice",
    "FormDialog": "Dialog: form", "HelpDialog": "Dialog: help", "NarrowLine": "Dialog: filter", "LogDrawer": "Log",
}  # fmt: skip


def owners() -> list[type[DOMNode]]:
    """Everything of the interface that has keys of its own."""
    found: dict[str, type[DOMNode]] = {}
    for module in pkgutil.walk_packages(embridge_tui.__path__, "embridge_tui."):
        for _, thing in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if thing.__module__.startswith("embridge_tui") and thing.__dict__.get("BINDINGS"):
                found[f"{thing.__module__}.{thing.__name__}"] = thing
    return list(found.values())


def own(owner: type[DOMNode]) -> list[Binding]:
    """Its own bindings."""
    return [b for b in owner.__dict__.get("BINDINGS", []) if isinstance(b, Binding)]


def keys_of(owner: type[DOMNode]) -> set[str]:
    """Its own keys."""
    return {key for b in own(owner) for key in b.key.split(",")}


def _heading(owner: type[DOMNode]) -> str:
    titles = {room.name: room.title for room in (*ROOMS, GESTURES)}
    if owner is EmbridgeApp:
        return "Anywhere"
    if issubclass(owner, App):
        return "`embridge prompt`"
    if issubclass(owner, Room) and owner.ROOM in titles:
        return titles[owner.ROOM]
    if owner.__name__ in _TITLES:
        return _TITLES[owner.__name__]
    words = (inspect.getdoc(owner) or owner.__name__).splitlines()[0].rstrip(".")
    return words[:1].upper() + words[1:]


def _order(owner: type[DOMNode]) -> tuple[int, int, str]:
    rooms = [room.name for room in (*ROOMS, GESTURES)]
    if owner is EmbridgeApp:
        return 0, 0, ""
    if issubclass(owner, App):
        return 4, 0, ""
    if issubclass(owner, Room):
        return 1, rooms.index(owner.ROOM), ""
    return (3 if issubclass(owner, ModalScreen) else 2), 0, _heading(owner)


def lines() -> Iterator[str]:
    """The page."""
    yield _HEAD
    for owner in sorted(owners(), key=_order):
        yield f"## {_heading(owner)}\n"
        yield "| Key | | Id |\n|---|---|---|"
        for b in own(owner):
            shown = " ".join(f"`{_SIGNS.get(key, key)}`" for key in b.key.split(","))
            yield f"| {shown} | {b.tooltip} | `{b.id}` |"
        yield ""


def page() -> str:
    """The page, as it lies in docs."""
    return "\n".join(lines()).rstrip() + "\n"


__all__ = ["PAGE", "EmbridgeApp", "keys_of", "own", "owners", "page"]

if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
