"""One word, as large as fits: what somebody reads from across the room."""

from __future__ import annotations

from typing import Final

from textual.content import Content
from textual.widget import Widget

_FONT: Final = {
    "A": "01110 10001 11111 10001 10001",
    "B": "11110 10001 11110 10001 11110",
    "C": "01111 10000 10000 10000 01111",
    "D": "11110 10001 10001 10001 11110",
    "E": "11111 10000 11110 10000 11111",
    "F": "11111 10000 11110 10000 10000",
    "G": "01111 10000 10011 10001 01111",
    "H": "10001 10001 11111 10001 10001",
    "I": "111 010 010 010 111",
    "J": "00111 00010 00010 10010 01100",
    "K": "10001 10010 11100 10010 10001",
    "L": "10000 10000 10000 10000 11111",
    "M": "10001 11011 10101 10001 10001",
    "N": "10001 11001 10101 10011 10001",
    "O": "01110 10001 10001 10001 01110",
    "P": "11110 10001 11110 10000 10000",
    "Q": "01110 10001 10101 10010 01101",
    "R": "11110 10001 11110 10010 10001",
    "S": "01111 10000 01110 00001 11110",
    "T": "11111 00100 00100 00100 00100",
    "U": "10001 10001 10001 10001 01110",
    "V": "10001 10001 10001 01010 00100",
    "W": "10001 10001 10101 11011 10001",
    "X": "10001 01010 00100 01010 10001",
    "Y": "10001 01010 00100 00100 00100",
    "Z": "11111 00010 00100 01000 11111",
    "0": "01110 10011 10101 11001 01110",
    "1": "010 110 010 010 111",
    "2": "11110 00001 01110 10000 11111",
    "3": "11110 00001 01110 00001 11110",
    "4": "10010 10010 11111 00010 00010",
    "5": "11111 10000 11110 00001 11110",
    "6": "01111 10000 11110 10001 01110",
    "7": "11111 00010 00100 01000 01000",
    "8": "01110 10001 01110 10001 01110",
    "9": "01110 10001 01111 00001 11110",
    " ": "00 00 00 00 00",
    "-": "000 000 111 000 000",
    "!": "1 1 1 0 1",
}
ROWS: Final = 5


def spelled(word: str, columns: int, rows: int) -> list[str]:
    """A word in block letters, centred; in plain letters where it does not fit.

    Args:
        word: Latin letters, digits, spaces; what has no block letter is spelled plainly.
        columns: Cells of a line.
        rows: Lines there are.

    Returns:
        At most `rows` lines of at most `columns` cells.
    """
    letters = [_FONT.get(letter) for letter in word.upper()]
    if rows >= ROWS and None not in letters:
        for across in (2, 1):
            lines = [_line([x for x in letters if x], y, across) for y in range(ROWS)]
            if lines[0] and len(lines[0]) <= columns:
                return [line.center(columns) for line in lines]
    return [word[:columns].center(columns)] if rows else []


def _line(letters: list[str], y: int, across: int) -> str:
    rows = (letter.split()[y] for letter in letters)
    return (" " * across).join("".join(("█" if dot == "1" else " ") * across for dot in row) for row in rows)


class BigWord(Widget):
    """A word as large as its room.

    Args:
        word: To begin with.
        id: Of the widget.
    """

    DEFAULT_CSS = "BigWord { width: 1fr; height: 5; text-style: bold; }"

    def __init__(self, word: str = "", *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.word = word

    def say(self, word: str) -> None:
        """Show another word."""
        if word != self.word:
            self.word = word
            self.refresh()

    def render(self) -> Content:
        """The word."""
        return Content("\n".join(spelled(self.word, self.size.width, self.size.height)))
