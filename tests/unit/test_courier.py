from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from uuid import UUID

import pytest

from embridge_edge.courier import Courier
from embridge_edge.lock import only_agent
from embridge_edge.spool import Item, Spool
from embridge_shared.errors import ExitCode, OperatorError, Reason

ITEM = Item(UUID(int=1), 0, 0, 10, "t", b"x")


async def test_what_was_put_is_kept_though_the_recorder_is_cancelled(tmp_path: Path) -> None:
    courier, go_on = Courier(Spool(tmp_path / "s.db", 1 << 20)), threading.Event()
    busy = asyncio.ensure_future(courier.call(go_on.wait))
    putting = asyncio.ensure_future(courier.put([ITEM]))
    await asyncio.sleep(0)
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    go_on.set()
    await busy
    assert [i.first for i in await courier.pending(0, 10)] == [0]
    await courier.close()


def test_one_agent_a_state_directory(tmp_path: Path) -> None:
    with only_agent(tmp_path / "edge"):
        with only_agent(tmp_path / "other"):
            pass
        with pytest.raises(OperatorError, match="another agent") as caught, only_agent(tmp_path / "edge"):
            pass
        assert (caught.value.reason, caught.value.exit_code) == (Reason.LOCKED, ExitCode.BUSY)
    with only_agent(tmp_path / "edge"):
        pass


def test_a_spool_tells_how_full_it_is(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.db", 10)
    assert spool.fill == 0
    spool.put([ITEM])
    assert spool.fill == 0.1
    with pytest.raises(OperatorError) as caught:
        spool.put([Item(ITEM.session, 0, 10, 10, "t", bytes(10))])
    assert caught.value.exit_code == ExitCode.FAILED
    spool.close()
