"""The uplink's window: nothing is sent that is held already, and nothing stays in flight that has left the spool."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from embridge_edge.courier import Courier
from embridge_edge.spool import Item, Spool
from embridge_edge.uplink import Uplink
from embridge_shared.settings import EdgeSettings, MqttSettings, Settings
from embridge_shared.wire.messages import CommitReport, EdgeState, StreamCommit

SESSION = UUID(int=1)


class Stopped:
    """A clock that stands where it was put."""

    now_s = 0.0

    def wall_ns(self) -> int:
        return 0

    def monotonic_ns(self) -> int:
        return round(self.now_s * 1e9)

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


class Broker:
    """Takes what is published."""

    def __init__(self) -> None:
        self.topics: list[str] = []

    async def publish(self, topic: str, payload: bytes, *, qos: int) -> None:
        self.topics.append(topic)


async def test_what_leaves_the_spool_while_it_is_sent_again_does_not_hold_the_window(tmp_path: Path) -> None:
    clock, broker = Stopped(), Broker()
    courier = Courier(Spool(tmp_path / "s.db", 1 << 20))

    async def ignore(_: object) -> None:
        return None

    uplink = Uplink(
        Settings(edge=EdgeSettings(resend_s=4.0, window=2)),
        courier,
        clock,
        state=lambda: EdgeState(edge="e", online=True),
        on_desired=ignore,
    )
    await courier.put([Item(SESSION, 0, 10 * k, 10, f"t{k}", b"x") for k in range(3)])
    items = await courier.pending(0, 2)
    await uplink._publish(broker, items)
    assert await uplink._late() == []
    clock.now_s = 4.1
    late = await uplink._late()
    assert [i.topic for i in late] == ["t0", "t1"]
    # The report arrives after they were fetched and before they are noted as sent again.
    await uplink._settle(CommitReport(session=SESSION, streams=(StreamCommit(stream=0, until=20),)))
    await uplink._publish(broker, late)
    clock.now_s = 20.0
    assert await uplink._late() == []
    assert uplink._inflight == {}
    await courier.close()


class EnoughError(Exception):
    """Ends a loop that never ends."""


class Twice(Stopped):
    """A clock that is waited on twice."""

    waits = 0

    async def sleep(self, seconds: float) -> None:
        self.waits += 1
        if self.waits == 2:
            raise EnoughError


async def test_a_certificate_that_cannot_be_used_for_a_moment_is_tried_again(tmp_path: Path, caplog) -> None:
    clock = Twice()
    courier = Courier(Spool(tmp_path / "s.db", 1 << 20))

    async def ignore(_: object) -> None:
        return None

    settings = Settings(mqtt=MqttSettings(ca_file=tmp_path / "being-replaced.crt"))
    state = EdgeState(edge="e", online=True)
    uplink = Uplink(settings, courier, clock, state=lambda: state, on_desired=ignore)
    with pytest.raises(EnoughError):
        await uplink.run()
    assert caplog.text.count("no link to") == 2
    assert "`embridge edge check`" in caplog.text
    await courier.close()
