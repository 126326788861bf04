"""A study's folder as a report reads it: rows to look up, outcomes, scan, artefacts; any of it may be missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec

from embridge_cloud.study.artefacts import Artefacts, read_artefacts
from embridge_cloud.study.choice import Choice, pick_head
from embridge_cloud.study.compare import Difference
from embridge_cloud.study.outcome import Outcome, read_outcomes
from embridge_cloud.study.reference import CEILINGS, CONTROLS, NO_ALIGNMENT, PUBLISHED
from embridge_cloud.study.results import RESULTS, Results
from embridge_cloud.study.rows import Row
from embridge_shared.errors import DataError, OperatorError, Reason

NEW, STRICT = "new-wearer", "strict"


@dataclass(frozen=True)
class Study:
    """Everything a report is made of.

    Attributes:
        results: Figures.
        outcomes: One a job; none where only the figures were kept.
        artefacts: Of the runs that left some.
    """

    results: Results
    outcomes: tuple[Outcome, ...] = ()
    artefacts: tuple[Artefacts, ...] = ()

    @cached_property
    def choice(self) -> Choice | None:
        """The head that ships: as the benchmark chose, or by the same rule among the rows; None without rows."""
        if self.results.choice is not None:
            return self.results.choice
        excluded = CONTROLS | CEILINGS | NO_ALIGNMENT
        try:
            return pick_head(
                self.results.rows, differences=self.results.differences, shippable=lambda m: m not in excluded
            )
        except DataError:
            return None

    @property
    def plain(self) -> tuple[str, str]:
        """The regimes of the headline: a new wearer, strict poses."""
        return NEW, STRICT

    @cached_property
    def regimes(self) -> tuple[tuple[str, str], ...]:
        """Pairs of wearer and pose regime that have rows; new wearers and strict poses first."""
        found = {(r.regime, r.pose_regime) for r in self.results.rows}
        return tuple(sorted(found, key=lambda pair: (pair[0] != NEW, pair[1] != STRICT, pair)))

    def rows(self, regime: str = NEW, pose_regime: str = STRICT, *, share: float = 1.0) -> list[Row]:
        """Rows of one pair of regimes."""
        wanted = (regime, pose_regime, share)
        return [r for r in self.results.rows if (r.regime, r.pose_regime, r.share) == wanted]

    def row(self, method: str, protocol: str, regime: str = NEW, pose_regime: str = STRICT) -> Row | None:
        """The row of one method under one protocol, all train participants."""
        return next((r for r in self.rows(regime, pose_regime) if (r.method, r.protocol) == (method, protocol)), None)

    def best(self, protocol: str, among: Iterable[str], regime: str = NEW) -> Row | None:
        """The highest row among some methods, strict poses."""
        allowed = set(among)
        found = [r for r in self.rows(regime) if r.protocol == protocol and r.method in allowed]
        return max(found, key=lambda r: r.balanced_accuracy, default=None)

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """Methods that compete, in the order of the rows; neither controls, nor ceilings, nor switches of a method."""
        names = dict.fromkeys(r.method for r in self.results.rows)
        return tuple(n for n in names if n not in CONTROLS | CEILINGS and n not in self.switches)

    @cached_property
    def switches(self) -> tuple[str, ...]:
        """Methods that change one thing of another, "METHOD:SWITCH", but for the head that ships."""
        names = dict.fromkeys(r.method for r in self.results.rows if ":" in r.method)
        return tuple(n for n in names if self.choice is None or n != self.choice.method)

    @cached_property
    def compared(self) -> tuple[Difference, ...]:
        """Differences worth a table: of the head that ships, it first, and between the published methods."""
        shipped = self.choice.method if self.choice else ""
        known = {*self.methods, shipped}
        found = []
        for d in self.results.differences:
            if {d.a, d.b} <= known and (shipped in (d.a, d.b) or {d.a, d.b} <= PUBLISHED):
                found.append(turned(d) if d.b == shipped else d)
        return tuple(sorted(found, key=lambda d: d.a != shipped))

    def difference(self, a: str, b: str, protocol: str, regimes: tuple[str, str]) -> Difference | None:
        """The paired difference of two methods, as it was taken or turned round."""
        for d in self.results.differences:
            if (d.protocol, d.regime, d.pose_regime) == (protocol, *regimes) and {d.a, d.b} == {a, b}:
                return d if d.a == a else turned(d)
        return None

    def outcomes_of(self, method: str, regime: str = NEW) -> list[Outcome]:
        """Finished jobs of a method: strict poses, all train participants."""
        return [
            o
            for o in self.outcomes
            if (o.job.method, o.job.regime, o.job.pose_regime, o.job.share) == (method, regime, STRICT, 1.0)
        ]

    def drawn(self, what: str, prefer: Sequence[str]) -> Artefacts | None:
        """The run whose `what` is drawn: of the first preferred method that left some, else of any."""
        having = [a for a in self.artefacts if getattr(a, what)]
        rank = {m: i for i, m in enumerate(dict.fromkeys(prefer))}
        return min(having, key=lambda a: (rank.get(a.method, len(rank)), a.unit), default=None)


def deviation(row: Row) -> float | None:
    """Deviation over runs; one run has none."""
    return row.sd if row.runs > 1 else None


def turned(d: Difference) -> Difference:
    """The same difference, the other method first; a run in which both are level counts for the second."""
    return msgspec.structs.replace(d, a=d.b, b=d.a, mean=-d.mean, wins=d.runs - d.wins)


def read_study(folder: Path) -> Study:
    """Read what a benchmark left.

    Args:
        folder: Its `--out`.

    Raises:
        OperatorError: There is no such folder or no results in it.
        DataError: A file is damaged.
    """
    path = folder / RESULTS
    if not path.is_file():
        raise OperatorError(
            f"{folder} holds no {RESULTS}",
            reason=Reason.NOT_FOUND,
            hint="Make one with `embridge learn benchmark --data ninapro:PATH --out DIR`.",
        )
    try:
        results = msgspec.json.decode(path.read_bytes(), type=Results)
    except msgspec.DecodeError as error:
        raise DataError(
            f"{path} is no benchmark's result: {error}",
            reason=Reason.MALFORMED,
            hint="Run the benchmark again; finished runs are not repeated.",
        ) from error
    return Study(results, tuple(read_outcomes(folder)), tuple(read_artefacts(folder)))
