from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import UUID

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from embridge_cloud.store import sealing
from embridge_cloud.store.failures import NotSealableError, StoreError
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.manifest import MANIFEST, ContentDigest, column_names
from embridge_cloud.store.reader import Anchor
from embridge_cloud.store.rows import Batch, ChunkRow, EventRow
from embridge_cloud.store.sealed import Catalogue, SealedSession
from embridge_cloud.store.sealing import Sealer, timeline
from embridge_shared.errors import DataError, Reason
from embridge_shared.signal import Modality, SampleType, StreamSpec
from embridge_shared.wire import codec
from support.sessions import T0, assert_sealed_equals, emg_spec, pose_spec, record, session_of


def batch_of(r) -> Batch:
    return Batch(
        chunks=[ChunkRow.of(c, codec.encode(c), T0) for run in r.chunks for c in run],
        events=[EventRow(r.session.id, i, e, T0) for i, e in enumerate(r.events)],
    )


@pytest.fixture
def recording():
    return record(session_of(emg_spec(), pose_spec()), 3)


@pytest.fixture
def store(tmp_path: Path):
    with HotStore(tmp_path / "hot.duckdb") as opened:
        yield opened


@pytest.fixture
def sealer(store, tmp_path):
    made = Sealer(store, tmp_path / "sealed", wall_ns=lambda: T0)
    made.prepare()
    return made


def hot_rows(store, session) -> int:
    return store.read.rows("SELECT count(*) FROM chunks WHERE session = ?", [session])[0][0]


def test_a_sealed_session_holds_exactly_what_was_recorded(store, sealer, recording, tmp_path):
    store.commit(batch_of(recording))
    sealed = sealer.seal(recording.session.id)
    assert_sealed_equals(sealed, recording)
    assert hot_rows(store, recording.session.id) == 0
    assert [s.gesture for s in sealed.repetitions()] == ["fist", "point"]
    assert [s.gesture for s in sealed.cues()] == ["fist"]
    stored = [i for a, b in sealed.entry("emg").stored() for i in range(a, b)]
    assert stored == recording.index[0].tolist()
    assert sealed.gaps("emg")
    pairs = [c.arrivals for c in recording.chunks[0]]
    np.testing.assert_array_equal(sealed.arrivals("emg").index, np.concatenate([p.index for p in pairs]))
    np.testing.assert_array_equal(sealed.arrivals("emg").host_ns, np.concatenate([p.host_ns for p in pairs]))
    (row,) = store.read.records("SELECT state, samples, missing, content_hash, sealed_path FROM v_sessions")
    assert row["state"] == "sealed"
    assert row["samples"] == sum(len(s) for s in recording.samples)
    assert row["content_hash"] == sealed.content_hash
    catalogue = Catalogue(tmp_path / "sealed")
    assert [s.id for s in catalogue.sessions()] == [recording.session.id]
    known = store.read.session(recording.session.id)
    assert known is not None
    assert known.sealed
    assert list(known.of(0).stored) == sealed.entry("emg").stored()


def with_estimates(recording):
    """The gaps of the first stream, every other one an estimate."""
    found = []
    for i, chunk in enumerate(recording.chunks[0]):
        if chunk.gap_before:
            inferred = len(found) % 2 == 0
            found.append((chunk.first - chunk.gap_before, chunk.first, inferred))
            recording.chunks[0][i] = replace(chunk, gap_inferred=inferred)
    return found


def test_exact_gaps_and_estimates_are_told_apart_before_and_after_the_seal(store, sealer):
    recording = record(session_of(emg_spec(), pose_spec()), 3, n_chunks=20)
    gaps = with_estimates(recording)
    assert len(gaps) >= 3
    store.commit(batch_of(recording))
    estimated = sum(b - a for a, b, inferred in gaps if inferred)

    def shown():
        rows = store.read.rows("SELECT first, first + n, inferred FROM v_gaps WHERE stream = 0 ORDER BY first")
        lost = store.read.rows("SELECT declared_lost, inferred_lost FROM v_streams WHERE stream = 0")
        return rows, lost

    expected = (gaps, [(sum(b - a for a, b, _ in gaps), estimated)])
    assert shown() == expected
    sealed = sealer.seal(recording.session.id)
    assert shown() == expected
    entry = sealed.entry("emg")
    assert entry.gaps == tuple((a, b) for a, b, _ in gaps)
    assert entry.inferred == tuple((a, b) for a, b, inferred in gaps if inferred)
    assert sealed.entry("pose").inferred == ()


def test_lazy_frames_and_time_slices(store, sealer, recording):
    store.commit(batch_of(recording))
    sealed = sealer.seal(recording.session.id)
    frame = sealed.stream("pose")
    assert isinstance(frame, pl.LazyFrame)
    assert frame.collect_schema().names() == ["index", "t_ns", "j0", "j1", "j2"]
    start, end = T0 + 500_000_000, T0 + 1_500_000_000
    part, whole = sealed.samples("pose", start, end), sealed.samples("pose")
    keep = (whole.t_ns >= start) & (whole.t_ns < end)
    assert 0 < keep.sum() < len(keep)
    np.testing.assert_array_equal(part.values, whole.values[keep])
    with pytest.raises(DataError, match="It has emg, pose"):
        sealed.stream("glove")


def test_the_content_hash_speaks_of_samples_not_of_chunks(store, sealer, recording, tmp_path):
    store.commit(batch_of(recording))
    first = sealer.seal(recording.session.id)
    session = recording.session
    coarse = record(session, 3)
    digests = []
    for spec, values, index in zip(session.streams, coarse.samples, coarse.index, strict=True):
        digest = ContentDigest(spec)
        for run in np.split(np.arange(len(index)), np.flatnonzero(np.diff(index) != 1) + 1):
            digest.update(int(index[run[0]]), values[run])
        digests.append(digest.hexdigest())
    assert [e.content for e in first.manifest.streams] == digests
    other = record(session, 4)
    with HotStore(tmp_path / "other.duckdb") as store2:
        store2.commit(batch_of(other))
        second = Sealer(store2, tmp_path / "sealed2", wall_ns=lambda: T0 + 5).seal(session.id)
    assert second.content_hash != first.content_hash


def test_encodings_are_the_measured_ones(store, sealer, recording):
    store.commit(batch_of(recording))
    sealed = sealer.seal(recording.session.id)
    expected = {"emg": ("DELTA_BINARY_PACKED", "UNCOMPRESSED"), "pose": ("BYTE_STREAM_SPLIT", "ZSTD")}
    for name, (encoding, compression) in expected.items():
        group = pq.ParquetFile(sealed.directory / sealed.entry(name).file).metadata.row_group(0)
        columns = [group.column(i) for i in range(group.num_columns)]
        assert encoding in columns[2].encodings
        assert columns[2].compression == compression
        assert "DELTA_BINARY_PACKED" in columns[0].encodings
        assert not any("DICTIONARY" in e for c in columns for e in c.encodings)
        assert columns[1].statistics.has_min_max


def test_colliding_channel_names_are_numbered(store, sealer):
    spec = StreamSpec(name="emg", modality=Modality.EMG, channels=("index", "a", "a"), rate_hz=100.0)
    assert column_names(spec) == ["0:index", "1:a", "2:a"]
    recording = record(session_of(spec), 1)
    store.commit(batch_of(recording))
    assert_sealed_equals(sealer.seal(recording.session.id), recording)


def test_a_long_stream_is_cut_into_row_groups_and_empty_streams_are_fine(store, sealer, monkeypatch):
    monkeypatch.setattr(sealing, "ROW_GROUP", 150)
    recording = record(session_of(emg_spec(2), emg_spec(1, name="imu")), 5, n_chunks=9)
    recording.chunks[1] = []
    recording.samples[1], recording.index[1] = np.zeros((0, 1), "<i2"), np.zeros(0, np.int64)
    closed = recording.events[-1]
    recording.events[-1] = type(closed)(t_ns=closed.t_ns, totals=(closed.totals[0], 0))
    store.commit(batch_of(recording))
    sealed = sealer.seal(recording.session.id)
    assert pq.ParquetFile(sealed.directory / "emg.parquet").num_row_groups > 3
    assert_sealed_equals(sealed, recording)


@pytest.mark.parametrize("dtype", list(SampleType))
def test_every_sample_type_is_kept_to_the_bit(store, sealer, dtype):
    spec = StreamSpec(name="s", modality=Modality.IMU, channels=("x", "y"), rate_hz=100.0, dtype=dtype)
    recording = record(session_of(spec), 1, n_chunks=2)
    if dtype is SampleType.FLOAT32:
        recording.chunks[0][0].samples[:3, 0] = [np.nan, -0.0, np.inf]
        recording.samples[0][:3, 0] = [np.nan, -0.0, np.inf]
    else:
        extremes = np.iinfo(dtype.value)
        recording.chunks[0][0].samples[:2, 0] = [extremes.min, extremes.max]
        recording.samples[0][:2, 0] = [extremes.min, extremes.max]
    store.commit(batch_of(recording))
    sealed = sealer.seal(recording.session.id)
    sealed.verify()
    assert sealed.samples("s").values.tobytes() == recording.samples[0].tobytes()


def test_time_runs_linearly_between_chunks_and_across_gaps():
    anchors = [Anchor(0, 100, 0, 1000), Anchor(100, 50, 0, 2_000_001_000), Anchor(200, 10, 50, 4_000_001_000)]
    index = np.array([0, 50, 100, 149, 200, 209], np.int64)
    got = timeline(anchors, index, 50.0) - 1000
    expected = np.array([0, 1.0, 2.0, 2.0 + 49 * 0.02, 4.0, 4.0 + 9 * 0.02]) * 1e9
    np.testing.assert_allclose(got, expected, atol=1)
    backwards = [Anchor(0, 10, 0, 500), Anchor(10, 10, 0, 400), Anchor(20, 10, 0, 900)]
    assert (np.diff(timeline(backwards, np.arange(30), 1e7)) >= 0).all()


def test_open_and_incomplete_sessions_are_not_sealed(store, sealer, recording):
    batch = batch_of(recording)
    missing = batch.chunks.pop(3)
    store.commit(Batch(chunks=batch.chunks, events=batch.events[:-1]))
    with pytest.raises(NotSealableError, match="open"):
        sealer.seal(recording.session.id)
    store.commit(Batch(events=batch.events[-1:]))
    with pytest.raises(NotSealableError, match="lacking"):
        sealer.seal(recording.session.id)
    store.commit(Batch(chunks=[missing]))
    assert_sealed_equals(sealer.seal(recording.session.id), recording)
    with pytest.raises(DataError) as caught:
        sealer.seal(UUID(int=9))
    assert caught.value.reason is Reason.UNKNOWN_SESSION


def test_a_hot_row_that_appears_under_the_seal_is_never_deleted(store, sealer, recording):
    store.commit(batch_of(recording))
    sealed = sealer.write(recording.session.id)
    gap = sealed.gaps("emg")[0]
    like = recording.chunks[0][0]
    late = type(like)(like.session, 0, gap[0], like.samples[: gap[1] - gap[0]], T0)
    store.commit(Batch(chunks=[ChunkRow.of(late, codec.encode(late), T0)]))
    with pytest.raises(NotSealableError):
        sealer.register(sealed)
    assert hot_rows(store, recording.session.id) == 13


class _CrashError(Exception):
    pass


@pytest.mark.parametrize("step", range(10))
def test_a_crash_at_any_step_leaves_the_hot_rows_or_a_whole_sealed_session(
    store, sealer, recording, tmp_path, monkeypatch, step
):
    store.commit(batch_of(recording))
    calls = 0

    def crash_at(real):
        def wrapped(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls > step:
                raise _CrashError
            return real(*args, **kwargs)

        return wrapped

    session = recording.session.id
    monkeypatch.setattr(sealing, "_sync", crash_at(sealing._sync))
    monkeypatch.setattr(Path, "replace", crash_at(Path.replace))
    monkeypatch.setattr(store, "register_sealed", crash_at(store.register_sealed))
    with pytest.raises(_CrashError):
        sealer.seal(session)
    monkeypatch.undo()
    assert calls == step + 1
    assert hot_rows(store, session) == 12
    for sealed in Catalogue(tmp_path / "sealed").sessions():
        assert_sealed_equals(sealed, recording)
    again = Sealer(store, tmp_path / "sealed", wall_ns=lambda: T0)
    again.prepare()
    assert_sealed_equals(again.seal(session), recording)
    assert hot_rows(store, session) == 0
    assert not list((tmp_path / "sealed").glob(".sealing-*"))


def test_the_steps_above_are_all_there_are(store, sealer, recording, monkeypatch):
    store.commit(batch_of(recording))
    calls = []
    for target, name in ((sealing, "_sync"), (Path, "replace"), (store, "register_sealed")):
        real = getattr(target, name)
        monkeypatch.setattr(target, name, lambda *a, _real=real, _name=name: (calls.append(_name), _real(*a))[1])
    sealer.seal(recording.session.id)
    assert len(calls) == 10
    assert calls[-3:] == ["replace", "_sync", "register_sealed"]


def test_a_failing_registration_rolls_back(store, sealer, recording, monkeypatch):
    import duckdb

    from embridge_cloud.store import hot

    store.commit(batch_of(recording))

    def refuse(connection, name, rows):
        raise duckdb.IOException("IO Error: No space left on device")

    monkeypatch.setattr(hot, "insert", refuse)
    with pytest.raises(StoreError):
        sealer.seal(recording.session.id)
    monkeypatch.undo()
    assert hot_rows(store, recording.session.id) == 12
    known = store.read.session(recording.session.id)
    assert known is not None
    assert not known.sealed
    assert_sealed_equals(sealer.seal(recording.session.id), recording)


def test_a_damaged_unrecorded_folder_is_set_aside(store, sealer, recording, tmp_path):
    store.commit(batch_of(recording))
    sealed = sealer.write(recording.session.id)
    (sealed.directory / "emg.parquet").write_bytes(b"torn")
    assert_sealed_equals(sealer.seal(recording.session.id), recording)
    assert len(list((tmp_path / "sealed").glob(".aside-*"))) == 1


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("emg.parquet", "not the file"),
        ("emg.arrivals.parquet", "not the file"),
        ("events.json", "not the file"),
        ("pose.parquet", "missing"),
        (MANIFEST, "damaged"),
    ],
)
def test_verify_finds_every_kind_of_damage(store, sealer, recording, name, word):
    store.commit(batch_of(recording))
    directory = sealer.seal(recording.session.id).directory
    path = directory / name
    if word == "missing":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0x40
        if name == MANIFEST:
            del data[-10:]
        path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=word):
        SealedSession(directory).verify()


def test_verify_finds_other_samples_under_a_consistent_file(store, sealer, recording):
    store.commit(batch_of(recording))
    sealed = sealer.seal(recording.session.id)
    path = sealed.directory / "emg.parquet"
    frame = pl.read_parquet(path).with_columns(e0=pl.col("e0") + 1)
    frame.write_parquet(path)
    text = (sealed.directory / MANIFEST).read_text()
    entry = sealed.entry("emg")
    from embridge_cloud.store.manifest import file_sha256

    text = text.replace(entry.sha256, file_sha256(path)).replace(
        f'"bytes": {entry.bytes}', f'"bytes": {path.stat().st_size}'
    )
    (sealed.directory / MANIFEST).write_text(text)
    with pytest.raises(DataError, match="other samples"):
        SealedSession(sealed.directory).verify()


def test_the_catalogue_ignores_strangers_and_leaves_out_the_damaged(store, sealer, recording, tmp_path, caplog):
    store.commit(batch_of(recording))
    sealer.seal(recording.session.id)
    root = tmp_path / "sealed"
    (root / ".sealing-x").mkdir()
    (root / "notes").mkdir()
    broken = root / str(UUID(int=7))
    broken.mkdir()
    (broken / MANIFEST).write_text("{")
    assert [s.id for s in Catalogue(root).sessions()] == [recording.session.id]
    assert "left out" in caplog.text
    with pytest.raises(DataError, match="session list"):
        Catalogue(root).get(UUID(int=8))
    assert Catalogue(tmp_path / "nowhere").sessions() == []
