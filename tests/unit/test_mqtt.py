"""The ingester's own MQTT: packets cut from any pieces, and a connection that reads no more than is wanted."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embridge_cloud.mqtt import link, packets
from embridge_cloud.mqtt.link import Login, connect
from embridge_shared.errors import NetworkError


def cut(data: bytes, sizes: list[int], limit: int = 1 << 24) -> list[tuple[int, bytes]]:
    frames, found = packets.Frames(limit), []
    while data:
        room = frames.room()
        n = min(len(room), len(data), sizes.pop() if sizes else len(data))
        room[:n], data = data[:n], data[n:]
        room.release()
        found += [(head, bytes(body)) for head, body in frames.cut(n)]
    return found


@given(
    st.lists(st.tuples(st.integers(1, 0xFFFF), st.text(max_size=9), st.binary(max_size=400)), max_size=8),
    st.lists(st.integers(1, 40), max_size=60),
)
def test_any_pieces_give_the_packets_that_were_sent(messages, sizes):
    sent = [packets.publish(mid, topic, payload) for mid, topic, payload in messages]
    found = cut(b"".join(sent), sizes)
    raw = [t.encode() for _, t, _ in messages]
    bodies = [
        len(name).to_bytes(2, "big") + name + mid.to_bytes(2, "big") + payload
        for name, (mid, _, payload) in zip(raw, messages, strict=True)
    ]
    assert found == [(0x32, body) for body in bodies]


@pytest.mark.parametrize("size", [127, 128, 16_383, 16_384, 2_097_152, 3 * packets.ROOM])
def test_packets_larger_than_the_buffer(size):
    payload = bytes(range(256)) * (size // 256 + 1)
    (one, two) = cut(packets.publish(1, "t", payload[:size]) * 2, [7, 100, 9])
    assert one == two
    assert one[1][-size:] == payload[:size]


@given(st.binary(max_size=200))
def test_no_bytes_make_it_do_anything_but_refuse(data):
    with suppress(NetworkError):
        cut(data, [3, 5, 1], limit=1000)


def test_a_packet_that_is_too_large_is_not_waited_for():
    with pytest.raises(NetworkError, match="too large"):
        cut(packets.publish(1, "t", bytes(2000))[:10], [], limit=1000)
    with pytest.raises(NetworkError, match="without a length"):
        cut(b"\x30\xff\xff\xff\xff\x01", [])


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
        (b"\x20\x02\x00\x05", "not authorised"),
        (b"\x20\x02\x00\x63", "code 99"),
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


async def test_a_broker_that_falls_silent_is_pinged_and_then_left():
    heard = bytearray()

    async def quiet(reader, writer) -> None:
        await accepted(reader, writer)
        while data := await reader.read(100):
            heard.extend(data)

    async with broker(quiet) as port, connect("127.0.0.1", port, Login("x", 2)) as connection:
        connection._keepalive_s = 0.2
        connection._ticker.cancel()
        connection._tick()
        with pytest.raises(NetworkError, match="not a word"):
            async for _ in connection.deliveries():
                pass
    assert packets.PINGREQ in bytes(heard)


async def test_what_nobody_takes_is_not_read(monkeypatch):
    monkeypatch.setattr(link, "_HELD_BYTES", 1 << 16)
    payload, written = bytes(1 << 14), 0

    async def flood(reader, writer) -> None:
        nonlocal written
        await accepted(reader, writer)
        for mid in range(1, 4001):
            writer.write(packets.publish(mid, "t", payload))
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
            writer.write(packets.publish(7, "a", b"x") + packets.publish(9, "b", b"y"))
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
    assert bytes(heard[0]) == packets.pubacks([9, 7]) + packets.DISCONNECT
    assert bytes(heard[1]) == packets.DISCONNECT
