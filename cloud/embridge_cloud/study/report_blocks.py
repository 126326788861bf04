"""What a report consists of, before it is HTML or Markdown: sections of text, tables and pictures.

Text may hold `code` between backticks and **strong** between double asterisks, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

DASH = "–"


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list."""

    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Code:
    """Lines to be copied as they are."""

    text: str


@dataclass(frozen=True, slots=True)
class Number:
    """A figure with what stands beside it.

    Attributes:
        main: The figure, formatted.
        aside: Spread and interval, formatted; may be empty.
        strong: The highest of its column.
    """

    main: str
    aside: str = ""
    strong: bool = False

    @property
    def plain(self) -> str:
        """All of it in one line."""
        return f"{self.main} {self.aside}".strip()


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose first column names its rows.

    Attributes:
        caption: What it holds, in one sentence.
        head: Column names, that of the row names first.
        rows: Row name and cells; every row as long as `head`.
        words: Columns of text, by index; all others hold numbers and are set to the right.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str | Number, ...], ...]
    words: frozenset[int] = frozenset({0})

    def __post_init__(self) -> None:
        if any(len(row) != len(self.head) for row in self.rows):
            raise ValueError(f"a row of {self.caption!r} has not {len(self.head)} cells")


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing with its alternative in words.

    Attributes:
        name: Fit for a file.
        svg: The drawing.
        alt: What somebody who cannot see it should know.
        caption: Under it.
        wide: It takes the whole width.
    """

    name: str
    svg: str
    alt: str
    caption: str
    wide: bool = False


Block = Text | Bullets | Code | Table | Picture


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page.

    Attributes:
        key: Fit for an anchor.
        title: Of the section.
        blocks: What it holds.
    """

    key: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A whole report.

    Attributes:
        title: Of the page.
        lead: Under the title.
        sections: In order.
    """

    title: str
    lead: str
    sections: tuple[Section, ...]


def fixed(value: float | None, digits: int = 3) -> str:
    """A number with a set number of decimals, a dash where there is none; never a negative zero."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{round(value, digits) + 0.0:.{digits}f}"


def signed(value: float | None, digits: int = 3) -> str:
    """As `fixed`, with its sign."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")


def spread(sd: float | None, interval: Sequence[float] | None) -> str:
    """Deviation and interval beside a mean: "± 0.031 [0.380, 0.445]"; an interval of no width says nothing."""
    parts = []
    if sd is not None and math.isfinite(sd):
        parts.append(f"± {fixed(sd)}")
    if interval is not None and len(interval) == 2 and all(map(math.isfinite, interval)) and interval[0] < interval[1]:
        parts.append(f"[{fixed(interval[0])}, {fixed(interval[1])}]")
    return " ".join(parts)


def line(name: str, values: Iterable[float | None]) -> tuple[str | Number, ...]:
    """A row of a table: its name and numbers, a dash for each that is missing."""
    return name, *(Number(fixed(v)) for v in values)


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else "none"
