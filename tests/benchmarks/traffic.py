"""What 16 edges send: 16 channels at 2 kHz in chunks of half a second, 32 kB of samples each.

As a program, publishes it over and over: a number on stdin prepares that many chunks, the next line sends them; it says
"ready" and "sent". Chunks are encoded once and their heads written anew, so that a large backlog is made in no time.

    python tests/benchmarks/traffic.py PORT
"""

from __future__ import annotations

import asyncio
import sys
import zlib
from pathlib import Path
from uuid import UUID

sys.path.insert(0, str(Path(__file__).parents[1]))

import aiomqtt
import numpy as np
from numpy.typing import NDArray

from benchmarks.signals import CHANNELS, CHUNK, RATE_HZ, forearm_emg
from embridge_shared.session import SessionOpened
from embridge_shared.signal import Arrivals, Chunk
from embridge_shared.wire import codec
from embridge_shared.wire.messages import EventMessage, pack
from embridge_shared.wire.topics import chunk_topic, event_topic
from support.sessions import T0, emg_spec, session_of

SESSIONS = 16
AT_ONCE = 64
Message = tuple[str, bytes]


def messages(chunks: int, turn: int = 0) -> tuple[list[Message], list[Message]]:
    """Opening events, and `chunks` chunks of the sessions of a turn, one session after the other."""
    emg = forearm_emg(16.0)
    described = [
        session_of(emg_spec(CHANNELS, RATE_HZ), edge=f"edge-{i}", number=turn * SESSIONS + i) for i in range(SESSIONS)
    ]
    events = [(s, EventMessage(session=s.id, seq=0, event=SessionOpened(session=s))) for s in described]
    opening = [(event_topic(s.edge, s.id), pack(event)) for s, event in events]
    made = [codec.encode(_chunk(described[0].id, k, emg)) for k in range(len(emg) // CHUNK)]
    names = [chunk_topic(s.edge, s.id, "emg") for s in described]
    sent = []
    for number in range(chunks):
        k, s = number // SESSIONS, number % SESSIONS
        sent.append((names[s], placed(made[k % len(made)], described[s].id, k * CHUNK, T0 + k * 500_000_000)))
    return opening, sent


def _chunk(session: UUID, k: int, emg: NDArray[np.int16]) -> Chunk:
    pairs = np.arange(k * CHUNK + 7, (k + 1) * CHUNK, 8, dtype=np.int64)
    part = emg[k * CHUNK :][:CHUNK]
    return Chunk(session, 0, k * CHUNK, part, T0 + k * 500_000_000, 0, Arrivals(pairs, pairs * 500_000))


def placed(payload: bytes, session: UUID, first: int, t0_ns: int) -> bytes:
    """The same samples at another place of another session; arrival pairs count from the first sample."""
    head = bytearray(payload[: codec.HEADER.size])
    head[8:24] = session.bytes
    head[32:40], head[40:48] = first.to_bytes(8, "little"), t0_ns.to_bytes(8, "little")
    head[60:64] = zlib.crc32(payload[64:], zlib.crc32(head[:60])).to_bytes(4, "little")
    return bytes(head) + payload[64:]


async def publish(port: int) -> None:
    """Follow the lines on stdin."""
    async with aiomqtt.Client("127.0.0.1", port, max_inflight_messages=AT_ONCE) as client:
        client.pending_calls_threshold = 10_000
        turn = 0
        while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
            opening, sent = messages(int(line), turn)
            turn += 1
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            for at in range(0, len(part := opening + sent), AT_ONCE):
                await asyncio.gather(*(client.publish(t, p, qos=1) for t, p in part[at : at + AT_ONCE]))
            print("sent", flush=True)


if __name__ == "__main__":
    asyncio.run(publish(int(sys.argv[1])))
