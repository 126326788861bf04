"""The check of the terminal: what `embridge tui` is set to draw with can be shown there."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Final

from embridge_shared.doctor.machine import known
from embridge_shared.doctor.model import Check, Finding, Part, Situation

_BLOCKS: Final = 'Set glyphs = "blocks" under [tui], or use a terminal that shows UTF-8.'
_PLAIN: Final = frozenset({"linux", "vt100", "vt220", "ansi", "cons25"})
"""Terminals whose fonts have a few hundred glyphs, and no braille among them."""


def terminal(situation: Situation) -> Iterator[Finding]:
    """The terminal takes the characters that scope and hand are drawn with."""
    if find_spec("textual") is None:
        yield Finding.ok("the extra tui is not installed")
        return
    glyphs, term = known(situation).tui.glyphs, situation.environ.get("TERM", "")
    if not term or term == "dumb":
        yield Finding.ok("this is no terminal to draw in")
        return
    code = next((v for n in ("LC_ALL", "LC_CTYPE", "LANG") if (v := situation.environ.get(n))), "")
    if "utf" not in code.lower():
        yield Finding.warn(
            f"the locale {code or 'C'} does not say UTF-8, which every drawing needs", "Set LANG=C.UTF-8."
        )
    elif glyphs == "braille" and term in _PLAIN:
        yield Finding.warn(f"a terminal of type {term} has no braille, which scope and hand are drawn with", _BLOCKS)
    else:
        seen = "⠿ ⣀ ⡇" if glyphs == "braille" else "▁ ▄ █"
        yield Finding.ok(f"{term} with {glyphs}: {seen} must look like dots and bars; if not, see tui.glyphs")


CHECKS: Final = (Check("terminal", Part.MACHINE, terminal),)
