"""Commit reports on their way to the edges; a later one takes the place of an earlier one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from uuid import UUID

from embridge_cloud.rounds import Report
from embridge_shared.wire.messages import CommitReport


class Outbox:
    """Reports to publish, at most one an edge and session."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, UUID], CommitReport] = {}
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, reports: Iterable[Report]) -> None:
        """Put reports in."""
        for edge, report in reports:
            key = (edge, report.session)
            earlier = self._waiting.get(key)
            self._waiting[key] = report if earlier is None else merge(earlier, report)
        if self._waiting:
            self._filled.set()

    async def wait(self) -> None:
        """Wait until there is something."""
        await self._filled.wait()

    def take(self) -> list[Report]:
        """Everything, and leave nothing."""
        reports = [(edge, report) for (edge, _), report in self._waiting.items()]
        self._waiting.clear()
        self._filled.clear()
        return reports


def merge(earlier: CommitReport, later: CommitReport) -> CommitReport:
    """Say two reports on a session in one: the later word on a stream counts, no refusal is forgotten."""
    streams = {c.stream: c for c in (*earlier.streams, *later.streams)}
    refused = {(r.stream, r.first): r for r in (*earlier.refused, *later.refused)}
    return CommitReport(
        session=later.session,
        streams=tuple(streams[i] for i in sorted(streams)),
        refused=tuple(refused.values()),
        sealed=earlier.sealed or later.sealed,
    )
