"""`embridge doctor` tells whether the terminal can show what `embridge tui` draws."""

from __future__ import annotations

import pytest

from embridge_shared.clock import SystemClock
from embridge_shared.doctor import terminal
from embridge_shared.doctor.model import Level, Situation
from embridge_shared.doctor.runner import known_checks
from embridge_shared.settings import Settings, TuiSettings

UTF8 = {"TERM": "xterm-256color", "LANG": "de_DE.UTF-8"}


def look(environ: dict[str, str], glyphs: str = "braille"):
    settings = Settings(tui=TuiSettings(glyphs=glyphs))
    (found,) = terminal.terminal(Situation(settings, "", frozenset(), SystemClock(), environ))
    return found


@pytest.mark.parametrize(
    ("environ", "glyphs", "level", "said"),
    [
        (UTF8, "braille", Level.OK, "⠿"),
        (UTF8, "blocks", Level.OK, "▄"),
        (UTF8 | {"TERM": "linux"}, "braille", Level.WARN, "has no braille"),
        (UTF8 | {"TERM": "linux"}, "blocks", Level.OK, "▄"),
        (UTF8 | {"LC_ALL": "C"}, "braille", Level.WARN, "does not say UTF-8"),
        ({"TERM": "xterm"}, "blocks", Level.WARN, "does not say UTF-8"),
        ({}, "braille", Level.OK, "no terminal"),
    ],
)
def test_the_terminal_shows_what_is_drawn_or_it_is_said(environ, glyphs, level, said):
    found = look(environ, glyphs)
    assert found.level is level
    assert said in found.said
    assert bool(found.step) == (level is Level.WARN)


def test_it_is_one_of_the_checks():
    assert "terminal" in {check.name for check in known_checks()}
