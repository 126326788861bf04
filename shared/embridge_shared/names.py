"""What may name a thing: a code can be part of a file name, a text can be shown on a terminal."""

from __future__ import annotations

import re
from typing import Final

_CODE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

CODE_RULE: Final = "Use up to 64 letters, digits, dots, dashes and underscores."


def is_code(text: str) -> bool:
    """Whether a text is a code: of a participant, of an edge."""
    return _CODE.fullmatch(text) is not None


def is_showable(text: str) -> bool:
    """Whether a text holds no control characters but line breaks and tabs: nothing a terminal would obey."""
    return _CONTROL.search(text) is None
