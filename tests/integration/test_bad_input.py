"""Bad input from outside: told apart, kept aside, answered with one clear line, and of no effect on anybody else."""

from __future__ import annotations

import asyncio
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import aiomqtt
import msgspec
import numpy as np
import pytest
from scipy.io import savemat

from embridge_edge import plan as plans
from embridge_edge.plan import ReplaySource, SessionPlan, SyntheticSource
from embridge_shared.errors import ConfigError, ExitCode
from embridge_shared.signal import Chunk
from embridge_shared.wire import codec
from embridge_shared.wire.messages import EdgeState, pack
from embridge_shared.wire.topics import chunk_topic, event_topic, state_topic
from support.loop import Loop, assert_recorded, rehearse, until

UNKNOWN = UUID(int=0xBAD)
LARGE = 600_000  # samples: more than a chunk may hold
FIRST = 7  # no chunk of the healthy session begins here


@pytest.fixture
def loop(tmp_path: Path, own_mosquitto) -> Iterator[Loop]:
    loop = Loop(tmp_path, own_mosquitto.port, {"EMBRIDGE_EDGE__CHUNK_S": "0.2"})
    yield loop
    loop.close()


def chunk(session: UUID, channels: int = 16, n: int = 40) -> Chunk:
    samples = np.arange(n * channels, dtype=np.int16).reshape(n, channels)
    return Chunk(session, 0, FIRST, samples, 10**18, 0)


def claiming(payload: bytes, n: int, more: bytes = b"") -> bytes:
    """A chunk whose header says it holds `n` samples, with a length and a checksum that are right for it."""
    head, body = bytearray(payload[: codec.HEADER.size]), payload[codec.HEADER.size :] + more
    struct.pack_into("<I", head, 28, n)
    struct.pack_into("<I", head, 56, len(body))
    struct.pack_into("<I", head, 60, zlib.crc32(body, zlib.crc32(head[:60])))
    return bytes(head) + body


def bad_messages(session: UUID) -> list[tuple[str, str, bytes]]:
    """Reason, topic and payload of everything that must not get in."""
    mine, theirs = chunk_topic("edge-1", session, "emg"), chunk_topic("edge-9", session, "emg")
    good, events = codec.encode(chunk(session)), event_topic("edge-1", session)
    event = {"session": session.bytes, "seq": 3, "event": {"type": "earthquake", "t_ns": 1}, "schema": 1}
    cue = {"type": "cue", "gesture": "fist", "repetition": 1, "start_ns": "noon", "end_ns": 0}
    return [
        ("truncated", mine, good[:-20]),
        ("truncated", mine, good[:30]),
        ("foreign", mine, b"hello"),
        ("foreign", mine, b""),
        ("foreign", mine.replace("/edge-1/", "/edge-2/"), good),
        ("foreign", state_topic("edge-1"), pack(EdgeState(edge="edge-2", online=True))),
        ("checksum", mine, good[:-1] + bytes([good[-1] ^ 1])),
        ("unsupported_version", mine, good[:4] + b"\x63" + good[5:]),
        ("sample_count", mine, claiming(good, 39)),
        ("sample_count", mine, claiming(good, 0x7FFFFFFF)),
        ("sample_count", mine, claiming(codec.encode(chunk(session), codec.RAW), 40 + LARGE, bytes(LARGE * 32))),
        ("wrong_shape", mine, codec.encode(chunk(session, channels=3))),
        ("wrong_edge", theirs, good),
        ("unknown_stream", mine.replace("/emg", "/ecg"), good),
        ("unknown_session", chunk_topic("edge-1", UNKNOWN, "emg"), codec.encode(chunk(UNKNOWN))),
        ("malformed", mine.replace(str(session), str(UNKNOWN)), good),
        ("malformed", events, msgspec.msgpack.encode(event)),
        ("malformed", events, msgspec.msgpack.encode(event | {"event": cue})),
        ("malformed", events, b"\xc1\xc1"),
    ]


async def publish(port: int, messages: list[tuple[str, str, bytes]]) -> None:
    async with aiomqtt.Client("127.0.0.1", port) as client:
        for _, topic, payload in messages:
            await client.publish(topic, payload, qos=1)


def test_bad_messages_are_kept_aside_and_a_healthy_session_goes_on(loop: Loop) -> None:
    source = SyntheticSource(wearer=8, performance=1, gestures=("fist", "point"), repetitions=2, speed=4.0, loss=0.02)
    plan = SessionPlan(name="healthy", participant="p8", source=source)
    loop.write_plan(plan)
    loop.start_cloud()
    loop.start_edge()
    until(lambda: loop.get("/api/sessions") and loop.committed(), 30, "the session to begin")
    (row,) = loop.get("/api/sessions")
    bad = bad_messages(UUID(row["session"]))
    asyncio.run(publish(loop.port, bad))
    assert loop.running["edge-1"].poll() is None
    found = until(lambda: _quarantine(loop, len(bad)), 20, "everything to be in quarantine")
    assert not loop.spooled()["closed"]
    assert sorted(m["reason"] for m in found["messages"]) == sorted(reason for reason, *_ in bad)
    expected = sorted((reason, topic, len(payload)) for reason, topic, payload in bad)
    assert sorted((m["reason"], m["topic"], m["bytes"]) for m in found["messages"]) == expected
    assert all(m["detail"] for m in found["messages"])
    assert found["skipped"] == 0
    loop.wait_edge()
    (sealed,) = loop.sealed()
    assert_recorded(sealed, rehearse(plan))
    assert (loop.spooled()["waiting"], loop.spooled()["refused"]) == (0, 0)
    assert _quarantine(loop, len(bad))
    assert loop.stop("cloud") == 0
    assert "Traceback" not in loop.log("cloud")


def _quarantine(loop: Loop, count: int) -> dict | None:
    found = loop.get("/api/quarantine")
    assert len(found["messages"]) <= count
    return found if len(found["messages"]) == count else None


def explains(loop: Loop, plan: Path, code: ExitCode, *words: str) -> None:
    """`embridge edge run` ends with a code and one line that holds all words."""
    done = loop.run("edge", "run", "--plan", str(plan), "--state-dir", "edge-1", "--until-done")
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    (line,) = [part for part in done.stderr.splitlines() if part.startswith("embridge: error: ")]
    for word in words:
        assert word in line
    assert done.stdout == ""


def recording(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    path = folder / "take-4.mat"
    marks = np.repeat([0, 1, 0, 2], 100)[:, None]
    arrays = {"emg": rng.random((400, 10)), "glove": rng.random((400, 22)), "subject": [[4]], "exercise": [[1]]}
    savemat(path, arrays | dict.fromkeys(("stimulus", "restimulus"), marks) | {"repetition": marks > 0} |
            {"rerepetition": marks > 0}, do_compression=True)  # fmt: skip
    return path


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.999])
def test_a_recording_cut_short_is_named(loop: Loop, share: float) -> None:
    path = recording(loop.folder)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    source = ReplaySource(path=path.name, speed=0.0)
    plan = loop.write_plan(SessionPlan(name="cut", participant="p4", source=source))
    explains(loop, plan, ExitCode.FAILED, "take-4.mat", "copy it again")
    assert loop.spooled()["recorded"] == 0


@pytest.mark.real_data
def test_a_real_recording_cut_in_half_is_named(loop: Loop, data_dir: Path) -> None:
    data = (data_dir / "ninapro_db1" / "S2_A1_E1.mat").read_bytes()
    (loop.folder / "S2_half.mat").write_bytes(data[: len(data) // 2])
    source = ReplaySource(path="S2_half.mat", speed=0.0)
    plan = loop.write_plan(SessionPlan(name="cut", participant="p2", source=source))
    explains(loop, plan, ExitCode.FAILED, "S2_half.mat", "copy it again")


def test_mistakes_in_a_plan_are_named(loop: Loop) -> None:
    path = loop.folder / "plan.toml"
    good = '[[session]]\nname = "a"\nparticipant = "p"\n[session.source]\nkind = "replay"\npath = "x.mat"\n'
    path.write_text(good + "sped = 2.0\n")
    explains(loop, path, ExitCode.USAGE, "plan.toml", "`sped`", "session[0].source")
    path.write_text(good)
    explains(loop, path, ExitCode.FAILED, "x.mat")
    body = {"name": "a", "participant": "p", "source": {"kind": "synthetic", "wearer": 1, "performance": 1}}
    body["source"] |= {"gestures": ["fist", "fsit"]}
    path.with_suffix(".json").write_text(json.dumps({"session": [body]}))
    explains(loop, path.with_suffix(".json"), ExitCode.USAGE, "fsit")
    named = {
        "particpant": good.replace("participant", "particpant"),
        "rplay": good.replace('"replay"', '"rplay"'),
        "x.mat": good.replace('"x.mat"', "x.mat"),
        "twice": good * 2,
        "speed": good + "speed = -1.0\n",
        "pose": good + 'pose = "yes"\n',
    }
    for word, text in named.items():
        path.write_text(text)
        with pytest.raises(ConfigError) as caught:
            plans.load(path)
        assert "plan.toml" in str(caught.value) or "session 'a'" in str(caught.value)
        assert word in str(caught.value) or word == "x.mat"
    with pytest.raises(ConfigError, match=r"none\.toml"):
        plans.load(loop.folder / "none.toml")
