"""A bad network between edge, broker and cloud: cut, black hole, reset, half closed, slow, doubled, out of order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import MosquittoBroker
from embridge_edge.plan import SessionPlan, SyntheticSource
from support.loop import Loop, rehearse, until
from support.proof import Row
from support.proxy import Proxy, Weather


@pytest.fixture
def loop(tmp_path: Path, own_mosquitto: MosquittoBroker) -> Iterator[Loop]:
    settings = {"EMBRIDGE_EDGE__CHUNK_S": "0.2", "EMBRIDGE_EDGE__WINDOW": "8", "EMBRIDGE_MQTT__KEEPALIVE_S": "2"}
    loop = Loop(tmp_path, own_mosquitto.port, settings)
    yield loop
    loop.close()


@pytest.fixture
def proxies(loop: Loop) -> Iterator[tuple[Proxy, Proxy]]:
    """One between the edge and the broker, one between the cloud and the broker."""
    pair = Proxy(("127.0.0.1", loop.port)), Proxy(("127.0.0.1", loop.port))
    yield pair
    for proxy in pair:
        proxy.close()


def plan(repetitions: int = 2, speed: float = 4.0) -> SessionPlan:
    source = SyntheticSource(
        wearer=7, performance=3, gestures=("fist", "point"), repetitions=repetitions, speed=speed, loss=0.02
    )
    return SessionPlan(name="net", participant="p7", source=source)


def start(loop: Loop, proxies: tuple[Proxy, Proxy], session: SessionPlan) -> None:
    near, far = proxies
    loop.write_plan(session)
    loop.start_cloud(EMBRIDGE_MQTT__PORT=str(far.port))
    loop.start_edge(EMBRIDGE_MQTT__PORT=str(near.port))
    until(lambda: loop.committed() > 500, 30, "the first commits")


def finish(loop: Loop, row: Row, session: SessionPlan, timeout_s: float = 120.0) -> None:
    loop.wait_edge(timeout_s=timeout_s)
    (sealed,) = loop.sealed()
    row.compare(sealed, rehearse(session))
    state = loop.spooled()
    assert (state["waiting"], state["refused"], state["closed"]) == (0, 0, 1)
    assert loop.get("/api/quarantine")["messages"] == []
    for name in ("edge-1", "cloud"):
        assert "Traceback" not in loop.log(name)


def strike(kind: str, proxy: Proxy, seconds: float) -> None:
    if kind == "reset":
        proxy.reset()
    elif kind == "half-close":
        proxy.half_close()
    else:
        weather = {
            "blackhole": Weather(blackhole=True),
            "delay": Weather(delay_s=0.2),
            "throttle": Weather(bytes_per_s=8000.0),
        }[kind]
        proxy.weather = weather
        time.sleep(seconds)
        proxy.weather = Weather()


def test_every_trouble_of_a_connection_in_one_session(loop: Loop, proxies: tuple[Proxy, Proxy]) -> None:
    session, row = plan(repetitions=1), Row("network: all troubles in one session")
    start(loop, proxies, session)
    for turn, kind in enumerate(("reset", "half-close", "delay", "blackhole")):
        with row.struck(loop):
            strike(kind, proxies[turn % 2], 0.3)
        proxies[0].weather = Weather(duplicate=0.3, hold=0.3)
    finish(loop, row, session)
    assert proxies[0].doubled
    assert proxies[0].overtaken


@pytest.mark.faults
def test_doubled_and_reordered_messages_are_stored_once_in_order(loop: Loop, proxies: tuple[Proxy, Proxy]) -> None:
    session, row = plan(), Row("network: 30 % doubled, 30 % overtaken, both ways")
    for proxy in proxies:
        proxy.weather = Weather(duplicate=0.3, hold=0.3)
    start(loop, proxies, session)
    finish(loop, row, session)
    row.runs = sum(proxy.doubled + proxy.overtaken for proxy in proxies)
    row.write()
    assert all(proxy.doubled > 5 and proxy.overtaken > 5 for proxy in proxies)


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["reset", "half-close", "delay", "throttle", "blackhole"])
def test_a_trouble_ten_times_on_both_sides(loop: Loop, proxies: tuple[Proxy, Proxy], kind: str) -> None:
    session, row = plan(repetitions=6, speed=1.5), Row(f"network: {kind}")
    start(loop, proxies, session)
    for turn in range(10):
        with row.struck(loop):
            strike(kind, proxies[turn % 2], 4.0 if kind == "blackhole" else 2.0)
    finish(loop, row, session, 240)


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_a_cut_of_seventy_seconds(loop: Loop, proxies: tuple[Proxy, Proxy]) -> None:
    session, row = plan(repetitions=6, speed=1.0), Row("network: black hole of 70 s")
    start(loop, proxies, session)
    with row.struck(loop):
        strike("blackhole", proxies[0], 70.0)
    finish(loop, row, session, 300)
