"""The proof every fault ends in: what is sealed is what the sources gave, bit for bit, once.

`python -m support.proof FILE` makes a table of the rows that EMBRIDGE_FAULTS_OUT has collected.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from embridge_cloud.store.ranges import RangeSet
from embridge_cloud.store.sealed import SealedSession
from embridge_shared.errors import EmbridgeError
from support.loop import Expected, Loop, assert_recorded, until


@dataclass
class Row:
    """One row of the fault matrix.

    Attributes:
        fault: Its name.
        runs: How often the fault struck.
        samples: Samples that were delivered.
        lost: Of them, not in the store.
        twice: Of them, there more than once.
        altered: Of them, with other values.
        recovery_s: From the end of each fault to the next commit.
    """

    fault: str
    runs: int = 0
    samples: int = 0
    lost: int = 0
    twice: int = 0
    altered: int = 0
    recovery_s: list[float] = field(default_factory=list)

    def compare(self, sealed: SealedSession, expected: Expected) -> None:
        """Count what is not as it should be, then insist that nothing is."""
        for name, index in expected.index.items():
            found = sealed.samples(name)
            self.samples += len(index)
            self.lost += len(np.setdiff1d(index, found.index))
            self.twice += len(found.index) - len(np.unique(found.index))
            _, ours, theirs = np.intersect1d(index, found.index, return_indices=True)
            same = expected.values[name][ours] == found.values[theirs]
            self.altered += int(np.count_nonzero(~same.all(axis=1)))
            gaps = [tuple(g) for g in sealed.entry(name).gaps]
            held = RangeSet()
            for a, b in _runs(index):
                held.add(a, b)
            assert gaps == held.missing(0, sealed.entry(name).total), "gaps lie where no source declared them"
        self.write()
        assert (self.lost, self.twice, self.altered) == (0, 0, 0)
        assert_recorded(sealed, expected)

    @contextmanager
    def struck(self, loop: Loop, *, timeout_s: float = 90.0) -> Iterator[None]:
        """A fault that is over when the block ends; waits until the cloud commits again, or has sealed everything."""
        yield
        self.runs += 1
        began, before = time.monotonic(), _committed(loop)
        until(lambda: _committed(loop) > before or loop.catalogue.ids(), timeout_s, f"a commit after {self.fault}")
        self.recovery_s.append(time.monotonic() - began)

    def write(self) -> None:
        """Append the row to the file that EMBRIDGE_FAULTS_OUT names."""
        path = os.environ.get("EMBRIDGE_FAULTS_OUT")
        if path:
            with Path(path).open("a") as file:
                file.write(json.dumps(asdict(self)) + "\n")


def _committed(loop: Loop) -> int:
    try:
        return loop.committed()
    except (OSError, EmbridgeError):
        return 1 << 62


def _runs(index: np.ndarray) -> Iterator[tuple[int, int]]:
    cuts = np.flatnonzero(np.diff(index) != 1) + 1
    edges = [0, *cuts.tolist(), len(index)]
    for a, b in zip(edges[:-1], edges[1:], strict=True):  # noqa: RUF007
        yield int(index[a]), int(index[b - 1]) + 1


def table(lines: list[str]) -> str:
    """The fault matrix in Markdown; of a fault that was run again, the last run."""
    rows = {row["fault"]: row for row in map(json.loads, lines)}
    out = [
        "| Fault | Struck | Samples | Lost | Twice | Altered | Recovery, s: median / worst |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in sorted(rows.items()):
        took = row["recovery_s"]
        recovery = f"{np.median(took):.1f} / {max(took):.1f}" if took else "–"
        figures = (row["runs"], row["samples"], row["lost"], row["twice"], row["altered"])
        out.append(f"| {name} | {' | '.join(f'{x:,}'.replace(',', ' ') for x in figures)} | {recovery} |")
    return "\n".join(out)


if __name__ == "__main__":
    print(table(Path(sys.argv[1]).read_text().splitlines()))
