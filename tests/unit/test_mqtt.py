"""The ingester's connection against brokers that flood, fall silent, lie or refuse."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterable
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_cloud.mqtt import drive, link
from embridge_cloud.mqtt.link import Login, connect
from embridge_shared.errors import NetworkError


def text(value: str) -> bytes:
    raw = value.encode()
    return len(raw).to_bytes(2, "big") + raw


def packet(head: int, body: bytes) -> bytes:
    length, digits = len(body), b""
    while length > 0x7F:
        digits += bytes((length & 0x7F | 0x80,))
        length >>= 7
    return bytes((head,)) + digits + bytes((length,)) + body


def message(mid: int, topic: str, payload: bytes) -> bytes:
    return packet(0x32, text(topic) + mid.to_bytes(2, "big") + payload)


def pubacks(mids: Iterable[int]) -> bytes:
    return b"".join(packet(0x40, mid.to_bytes(2, "big")) for mid in mids)


PINGREQ, DISCONNECT = b"\xc0\x00", b"\xe0\x00"


@asynccontextmanager
async def broker(answer):
    """Something that listens; `answer(reader, writer)` is its side of a connection."""
    sides = set()

    async def side(reader, writer) -> None:
        sides.add(asyncio.current_task())
        with suppress(ConnectionError):
            await answer(reader, writer)
        writer.close()

    server = await asyncio.start_server(side, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.wait_for(asyncio.gather(*sides), 5)


async def accepted(reader, writer) -> None:
    await reader.read(100)
    writer.write(b"\x20\x02\x00\x00")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"\x20\x02\x00\x01", "does not speak MQTT 3.1.1"),
        (b"\x20\x02\x00\x05", "Not authorized"),
        (b"\x20\x02\x00\x63", "refused: Unspecified"),
        (b"", "closed the connection"),
        (b"\x20\xff\xff\xff\xff\xff", "does not speak MQTT"),
    ],
)
async def test_a_broker_that_does_not_want_us(answer, words):
    async def refuse(reader, writer) -> None:
        await reader.read(100)
        writer.write(answer)

    async with broker(refuse) as port:
        with pytest.raises(NetworkError, match=words):
            async with connect("127.0.0.1", port, Login("x", 20)):
                pass


async def test_a_broker_that_says_nothing(monkeypatch):
    monkeypatch.setattr(link, "_TIMEOUT_S", 0.05)
    gone = asyncio.Event()

    async def silent(reader, writer) -> None:
        await reader.read()
        gone.set()

    async with broker(silent) as port:
        with pytest.raises(NetworkError, match="in time"):
            async with connect("127.0.0.1", port, Login("x", 20)):
                pass
        await asyncio.wait_for(gone.wait(), 5)


@pytest.fixture
def hurried(monkeypatch):
    """A minute of paho's is a second, and so often it looks after the connection."""
    monkeypatch.setattr("paho.mqtt.client.time_func", lambda: 60 * time.monotonic())
    monkeypatch.setattr(drive, "_LOOK_S", 0.01)
    monkeypatch.setattr(drive, "_NUDGE", 0.001)


async def test_a_broker_that_falls_silent_is_pinged_and_then_left(hurried):
    heard = bytearray()

    async def quiet(reader, writer) -> None:
        await accepted(reader, writer)
        while data := await reader.read(100):
            heard.extend(data)

    async with broker(quiet) as port, connect("127.0.0.1", port, Login("x", 2)) as connection:
        with pytest.raises(NetworkError, match="not a word"):
            async for _ in connection.deliveries():
                pass
    assert PINGREQ in bytes(heard)


async def test_a_broker_that_is_not_read_is_not_taken_for_dead(hurried, monkeypatch):
    monkeypatch.setattr(link, "_HELD_BYTES", 1 << 16)
    heard = bytearray()

    async def patient(reader, writer) -> None:
        await accepted(reader, writer)
        writer.write(b"".join(message(mid, "t", bytes(1 << 14)) for mid in range(1, 101)))
        while data := await reader.read(100):
            heard.extend(data)
            answers = data.count(PINGREQ)
            writer.write(b"\xd0\x00" * answers)

    async with broker(patient) as port, connect("127.0.0.1", port, Login("x", 2)) as connection:
        arriving = connection.deliveries()
        taken = len(await anext(arriving))
        await asyncio.sleep(0.3)
        assert connection._drive.paused
        assert heard
        while taken < 100:
            taken += len(await anext(arriving))
        await arriving.aclose()


async def test_acknowledgements_are_read_before_the_connection_is_gone():
    heard, full = bytearray(), asyncio.Event()

    async def slow(reader, writer) -> None:
        await accepted(reader, writer)
        writer.write(b"".join(message(mid, "t", b"x" * 1000) for mid in range(1, 2001)))
        await full.wait()
        await asyncio.sleep(0.1)
        with suppress(ConnectionError):
            while data := await reader.read(1000):
                heard.extend(data)
                if heard.endswith(DISCONNECT):
                    break

    async with broker(slow) as port, connect("127.0.0.1", port, Login("x", 20)) as connection:
        some = await anext(connection.deliveries())
        connection.acknowledge(some)
        full.set()
    assert bytes(heard) == pubacks(d.mid for d in some) + DISCONNECT


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.binary(min_size=1, max_size=60), st.builds(packet, st.integers(0, 255), st.binary(max_size=20))))
async def test_whatever_a_broker_says_ends_the_connection_at_most(said):
    async def lie(reader, writer) -> None:
        await accepted(reader, writer)
        writer.write(said)

    async def listen(port) -> None:
        async with connect("127.0.0.1", port, Login("x", 20)) as connection:
            async for _ in connection.deliveries():
                pass

    async with broker(lie) as port:
        with pytest.raises(NetworkError):
            await listen(port)


@pytest.mark.parametrize(("granted", "refused"), [(b"\x01\x80", ["b"]), (b"\x80\x80", ["a", "b"]), (b"\x01\x00", [])])
async def test_filters_that_are_refused(granted, refused):
    async def answer(reader, writer) -> None:
        await accepted(reader, writer)
        asked = await reader.read(100)
        writer.write(message(5, "early", b"x") + packet(0x90, asked[2:4] + granted))
        await reader.read()

    async with broker(answer) as port, connect("127.0.0.1", port, Login("x", 20)) as connection:
        assert await connection.subscribe(["a", "b"]) == refused
        assert [d.topic for d in await anext(connection.deliveries())] == ["early"]


async def test_an_answer_that_does_not_fit_the_question():
    async def lie(reader, writer) -> None:
        await accepted(reader, writer)
        asked = await reader.read(100)
        writer.write(packet(0x90, asked[2:4] + b"\x01"))
        await reader.read()

    async with broker(lie) as port, connect("127.0.0.1", port, Login("x", 20)) as connection:
        with pytest.raises(NetworkError, match="another subscription"):
            await connection.subscribe(["a", "b"])


# paho leaves the socket of a handshake that fails to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_connection_nobody_waits_for_any_more_is_closed(monkeypatch):
    monkeypatch.setattr(link, "_TIMEOUT_S", 0.05)
    gone, greeted = asyncio.Event(), asyncio.Event()

    async def no_tls(reader, writer) -> None:
        greeted.set()
        await asyncio.sleep(0.2)
        writer.close()
        gone.set()

    async with broker(no_tls) as port:
        with pytest.raises(NetworkError, match="in time"):
            async with connect("127.0.0.1", port, Login("x", 20), tls=ssl.create_default_context()):
                pass
        await asyncio.wait_for(gone.wait(), 5)
    assert greeted.is_set()


async def test_what_nobody_takes_is_not_read(monkeypatch):
    monkeypatch.setattr(link, "_HELD_BYTES", 1 << 16)
    payload, written = bytes(1 << 14), 0

    async def flood(reader, writer) -> None:
        nonlocal written
        await accepted(reader, writer)
        for mid in range(1, 4001):
            writer.write(message(mid, "t", payload))
            await writer.drain()
            written += 1
        await reader.read()

    async with broker(flood) as port, connect("127.0.0.1", port, Login("x", 20)) as connection:
        arriving = connection.deliveries()
        taken = len(await anext(arriving))
        before = -1
        while written > before:
            before = written
            await asyncio.sleep(0.05)
        assert written < 4000
        assert connection._arrived_bytes < 2 << 20
        async for deliveries in arriving:
            taken += len(deliveries)
            if taken == 4000:
                break
        await arriving.aclose()


async def test_acknowledgements_go_to_the_connection_a_message_came_over():
    heard = [bytearray(), bytearray()]

    def side(number: int):
        async def answer(reader, writer) -> None:
            await accepted(reader, writer)
            writer.write(message(7, "a", b"x") + message(9, "b", b"y"))
            while data := await reader.read(100):
                heard[number].extend(data)

        return answer

    async with broker(side(0)) as one, broker(side(1)) as two:
        async with (
            connect("127.0.0.1", one, Login("x", 20)) as first,
            connect("127.0.0.1", two, Login("y", 20)) as other,
        ):
            deliveries = await anext(first.deliveries())
            other.acknowledge(deliveries)
            deliveries[1].acknowledge()
            first.acknowledge(deliveries[:1])
        first.acknowledge(deliveries)
        await asyncio.sleep(0.05)
    assert bytes(heard[0]) == pubacks([9, 7]) + DISCONNECT
    assert bytes(heard[1]) == DISCONNECT
