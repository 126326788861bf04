from __future__ import annotations

import struct
import zlib
from uuid import UUID, uuid4

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from embridge_shared.errors import ConfigError, DataError, Reason
from embridge_shared.session import Participant, Session, SessionOpened
from embridge_shared.signal import Arrivals, Chunk, Modality, StreamSpec
from embridge_shared.wire import codec, topics
from embridge_shared.wire.messages import CommitReport, EventMessage, StreamCommit, pack, unpack

SESSION = UUID(int=7)

samples = st.sampled_from(["int16", "int32", "float32"]).flatmap(
    lambda t: hnp.arrays(t, st.tuples(st.integers(1, 60), st.integers(1, 20)))
)


def chunk_of(x: np.ndarray, first: int = 100, pairs: int = 3, *, inferred: bool = False) -> Chunk:
    index = first + np.arange(pairs, dtype=np.int64)
    return Chunk(SESSION, 1, first, x, 5, 2, Arrivals(index, index * 1000), inferred)


@given(samples, st.sampled_from([codec.RAW, codec.DELTA_ZSTD]), st.integers(2, 2**63), st.integers(0, 5))
def test_any_chunk_survives_the_wire_bit_by_bit(x: np.ndarray, how: int, first: int, pairs: int) -> None:
    chunk = chunk_of(x, first % 2**61 + 2, pairs)
    back = codec.decode(codec.encode(chunk, how))
    assert back.samples.tobytes() == x.tobytes()
    assert back.samples.dtype == x.dtype
    assert (back.session, back.stream, back.first, back.t0_ns, back.gap_before) == (SESSION, 1, chunk.first, 5, 2)
    np.testing.assert_array_equal(back.arrivals.index, chunk.arrivals.index)
    np.testing.assert_array_equal(back.arrivals.host_ns, chunk.arrivals.host_ns)


@pytest.mark.parametrize("inferred", [False, True])
def test_a_gap_that_is_an_estimate_is_flagged_in_byte_seven(inferred: bool) -> None:
    payload = codec.encode(chunk_of(np.zeros((3, 2), np.int16), inferred=inferred))
    assert payload[7] == inferred
    assert codec.decode(payload).gap_inferred is inferred


def test_a_flag_of_a_later_version_changes_nothing() -> None:
    payload = bytearray(codec.encode(chunk_of(np.zeros((3, 2), np.int16))))
    payload[7] = 0b1000_0000
    payload[60:64] = zlib.crc32(payload[64:], zlib.crc32(payload[:60])).to_bytes(4, "little")
    back = codec.decode(bytes(payload))
    assert (back.gap_before, back.gap_inferred) == (2, False)


def verdict(read, payload: bytes):
    """What reading says of a payload: where it stands, or why it is refused."""
    try:
        found = read(payload)
    except DataError as error:
        return error.reason
    return found.session, found.stream, found.first, found.n, found.t0_ns, found.gap_before, found.gap_inferred


@given(
    st.sampled_from([codec.RAW, codec.DELTA_ZSTD]),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=3),
    st.integers(0, 40),
    st.booleans(),
)
def test_checking_says_what_decoding_says(how, changes, cut, mended) -> None:
    payload = bytearray(codec.encode(chunk_of(np.arange(60, dtype=np.int16).reshape(20, 3)), how))
    for at, value in changes:
        payload[at % len(payload)] = value
    del payload[len(payload) - cut :]
    if mended and len(payload) >= 64:
        payload[60:64] = zlib.crc32(payload[64:], zlib.crc32(payload[:60])).to_bytes(4, "little")
    assert verdict(codec.check, bytes(payload)) == verdict(codec.decode, bytes(payload))


@given(st.binary(max_size=300))
def test_foreign_bytes_are_refused_as_such(payload: bytes) -> None:
    with pytest.raises(DataError):
        codec.decode(payload)


@given(st.data())
def test_one_flipped_bit_is_always_noticed(data: st.DataObject) -> None:
    payload = bytearray(codec.encode(chunk_of(np.arange(32, dtype=np.int16).reshape(8, 4))))
    bit = data.draw(st.integers(0, len(payload) * 8 - 1))
    payload[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DataError):
        codec.decode(bytes(payload))


@given(st.integers(0, 200))
def test_a_truncated_chunk_is_refused(cut: int) -> None:
    payload = codec.encode(chunk_of(np.ones((40, 4), np.int16)))
    with pytest.raises(DataError) as caught:
        codec.decode(payload[: min(cut, len(payload) - 1)])
    assert caught.value.reason in (Reason.TRUNCATED, Reason.FOREIGN)


@pytest.mark.parametrize("how", [codec.RAW, codec.DELTA_ZSTD])
def test_a_wrong_sample_count_is_refused(how: int) -> None:
    payload = bytearray(codec.encode(chunk_of(np.ones((40, 4), np.int16)), how))
    struct.pack_into("<I", payload, 28, 41)
    crc = zlib.crc32(payload[codec.HEADER.size :], zlib.crc32(payload[: codec.HEADER.size - 4]))
    struct.pack_into("<I", payload, codec.HEADER.size - 4, crc)
    with pytest.raises(DataError) as caught:
        codec.decode(bytes(payload))
    assert caught.value.reason is Reason.SAMPLE_COUNT


def test_a_frame_that_unpacks_to_more_than_it_says_is_refused_before_it_fills_the_memory() -> None:
    honest = codec.encode(chunk_of(np.zeros((50_000, 16), np.int16), pairs=0))
    payload = bytearray(honest)
    struct.pack_into("<HI", payload, 26, 1, 1)
    crc = zlib.crc32(payload[codec.HEADER.size :], zlib.crc32(payload[: codec.HEADER.size - 4]))
    struct.pack_into("<I", payload, codec.HEADER.size - 4, crc)
    with pytest.raises(DataError) as caught:
        codec.decode(bytes(payload))
    assert caught.value.reason is Reason.SAMPLE_COUNT


@pytest.mark.parametrize(("offset", "value"), [(32, 2**64 - 1), (32, 2**62), (40, 2**64 - 1)])
def test_an_impossible_index_or_time_is_refused(offset: int, value: int) -> None:
    payload = bytearray(codec.encode(chunk_of(np.ones((4, 2), np.int16))))
    struct.pack_into("<Q", payload, offset, value)
    crc = zlib.crc32(payload[codec.HEADER.size :], zlib.crc32(payload[: codec.HEADER.size - 4]))
    struct.pack_into("<I", payload, codec.HEADER.size - 4, crc)
    with pytest.raises(DataError) as caught:
        codec.decode(bytes(payload))
    assert caught.value.reason is Reason.MALFORMED


def test_emg_shrinks_towards_its_entropy() -> None:
    rng = np.random.default_rng(0)
    white = rng.standard_normal((1000, 16))
    emg = (20 * (white + np.roll(white, 1, 0) + np.roll(white, 2, 0))).astype(np.int16)
    counts = np.unique(emg, return_counts=True)[1] / emg.size
    entropy_bytes = -(counts * np.log2(counts)).sum() * emg.size / 8
    assert len(codec.encode(chunk_of(emg))) < 1.15 * entropy_bytes


def test_topics_round_trip_and_shards_hold() -> None:
    session = uuid4()
    topic = topics.chunk_topic("edge-1", session, "emg")
    assert topics.parse_upward(topic) == topics.Address("edge-1", session, "emg")
    assert topics.parse_upward(topics.event_topic("edge-1", session)) == topics.Address("edge-1", session)
    parts = topic.split("/")
    parts[3] = str((int(parts[3]) + 1) % topics.SHARDS)
    with pytest.raises(DataError):
        topics.parse_upward("/".join(parts))


@pytest.mark.parametrize("bad", ["", "a/b", "+", "#", "ä", "x" * 65, ".hidden"])
def test_an_edge_name_cannot_break_out_of_its_topic(bad: str) -> None:
    with pytest.raises(ConfigError):
        topics.commit_topic(bad)


@pytest.mark.parametrize("topic", ["", "embridge/v1/up/x/e/s/emg", "embridge/v1/up/1/e/not-a-uuid/emg", "a/b/c"])
def test_foreign_topics_are_refused(topic: str) -> None:
    with pytest.raises(DataError):
        topics.parse_upward(topic)


def test_shard_ranges_cover_every_edge_once() -> None:
    low, high = topics.ingest_filters(0, 99), topics.ingest_filters(100, 255)
    assert not set(low) & set(high)
    assert len(low) + len(high) == 2 * topics.SHARDS
    with pytest.raises(ConfigError):
        topics.ingest_filters(5, 4)


def test_control_messages_are_strict() -> None:
    spec = StreamSpec(name="emg", modality=Modality.EMG, channels=("a",), rate_hz=2000)
    session = Session(id=SESSION, edge="e", participant=Participant(id="p"), streams=(spec,), started_ns=1, host_ns=2)
    message = EventMessage(session=SESSION, seq=0, event=SessionOpened(session=session))
    assert unpack(pack(message), EventMessage) == message
    report = CommitReport(session=SESSION, streams=(StreamCommit(stream=0, until=9, holes=((2, 4),)),))
    assert unpack(pack(report), CommitReport) == report
    for payload in (b"", b"\x00", pack(report)[:-1], pack(message)):
        with pytest.raises(DataError):
            unpack(payload, CommitReport)


def test_a_later_schema_is_named() -> None:
    with pytest.raises(DataError) as caught:
        unpack(pack(CommitReport(session=SESSION, schema=2)), CommitReport)
    assert caught.value.reason is Reason.UNSUPPORTED_VERSION
