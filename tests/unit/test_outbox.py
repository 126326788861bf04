from __future__ import annotations

import asyncio
from uuid import UUID

from embridge_cloud.outbox import Outbox
from embridge_shared.wire.messages import CommitReport, Refusal, StreamCommit

A, B = UUID(int=1), UUID(int=2)


def report(session=A, streams=(), refused=(), sealed=False) -> CommitReport:
    return CommitReport(
        session=session,
        streams=tuple(StreamCommit(stream=s, until=u, holes=h) for s, u, h in streams),
        refused=tuple(Refusal(stream=s, first=f, reason="overlap") for s, f in refused),
        sealed=sealed,
    )


async def test_reports_on_a_session_become_one():
    box = Outbox()
    box.add([("e1", report(streams=[(0, 10, ((2, 4),)), (1, 5, ())], refused=[(0, 3)]))])
    box.add([("e1", report(streams=[(0, 20, ())], refused=[(0, 3), (1, 9)], sealed=True)), ("e1", report(B))])
    box.add([("e2", report(refused=[(0, 1)]))])
    assert len(box) == 3
    await asyncio.wait_for(box.wait(), 1)
    assert box.take() == [
        ("e1", report(streams=[(0, 20, ()), (1, 5, ())], refused=[(0, 3), (1, 9)], sealed=True)),
        ("e1", report(B)),
        ("e2", report(refused=[(0, 1)])),
    ]
    assert not box
    assert box.take() == []
