"""Groups of measurements, each a list of rows; a ratio is against a peer or a limit measured in the same run.

A group is a module in `groups/` with a function `rows() -> list[Row]`. Ours and the peer take turns, so that whatever
else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from statistics import median

import msgspec
from rich.console import Console
from rich.table import Table

OUT = Path("build/bench.json")
_PIPE_WIDTH = 200


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One figure.

    Attributes:
        group: The group that measured it.
        name: What it is.
        value: Median over the repeats.
        unit: Its unit.
        spread: Least and greatest over the repeats.
        repeats: How often it was measured.
        peer: What it is held against, or empty.
        peer_value: Median of the peer, same unit.
        ratio: Median over the repeats of value over peer's value.
        ratio_spread: Least and greatest of it.
    """

    group: str
    name: str
    value: float
    unit: str
    spread: tuple[float, float]
    repeats: int
    peer: str = ""
    peer_value: float | None = None
    ratio: float | None = None
    ratio_spread: tuple[float, float] | None = None


Rows = Callable[[], list[Row]]


def row(group: str, name: str, unit: str, values: Sequence[float]) -> Row:
    """A figure that has no peer."""
    return Row(group=group, name=name, value=median(values), unit=unit, spread=_spread(values), repeats=len(values))


def compared(group: str, name: str, unit: str, values: Sequence[float], *, peer: str, theirs: Sequence[float]) -> Row:
    """A figure held against a peer's, repeat by repeat."""
    ratios = [ours / other for ours, other in zip(values, theirs, strict=True)]
    return msgspec.structs.replace(
        row(group, name, unit, values),
        peer=peer,
        peer_value=median(theirs),
        ratio=median(ratios),
        ratio_spread=_spread(ratios),
    )


def in_turn(*measures: Callable[[], float], repeats: int = 5) -> list[list[float]]:
    """Let measurements take turns; a list of values each, in the order given. A first turn warms up."""
    for measure in measures:
        measure()
    turns = [[measure() for measure in measures] for _ in range(repeats)]
    return [list(values) for values in zip(*turns, strict=True)]


def found_groups() -> dict[str, Rows]:
    """The groups in `groups/`, imported when they run."""
    names = sorted(p.stem for p in (Path(__file__).parent / "groups").glob("[a-z]*.py"))
    return {name: lambda name=name: import_module(f"benchmarks.groups.{name}").rows() for name in names}


def main(arguments: Sequence[str], groups: Mapping[str, Rows]) -> int:
    """Measure, print a table, write JSON; the exit code."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks", description="Measure.")
    parser.add_argument("--only", action="append", choices=sorted(groups), metavar="GROUP", help=", ".join(groups))
    parser.add_argument("--out", type=Path, default=OUT, help=f"rows as JSON; {OUT} by default")
    chosen = parser.parse_args(arguments)
    console = Console(stderr=True)
    rows: list[Row] = []
    for name in chosen.only or groups:
        console.print(f"measuring {name} (load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)")
        rows += groups[name]()
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=1))
    # A pipe has no width of its own; a table cut short is of no use in a log.
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(_table(rows))
    return 0


def _table(rows: Sequence[Row]) -> Table:
    table = Table("group", "what", "value", "min..max", "peer", "ratio", "min..max", box=None, pad_edge=False)
    for r in rows:
        against = f"{r.peer}: {r.peer_value:.4g}" if r.peer_value is not None else ""
        ratio = "" if r.ratio is None else f"{r.ratio:.3g}"
        ratios = "" if r.ratio_spread is None else "{:.3g}..{:.3g}".format(*r.ratio_spread)
        spread = "{:.4g}..{:.4g}".format(*r.spread)
        table.add_row(r.group, r.name, f"{r.value:.4g} {r.unit}", spread, against, ratio, ratios)
    return table


def _spread(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)
