"""Cutting streams so that their times come back, and the way into the store, exactly once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_cloud.context import CloudPaths
from embridge_cloud.exchange.door import Arrival, open_door
from embridge_cloud.exchange.knots import knots
from embridge_cloud.exchange.recording import Recording, StreamData, of_sealed
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.reader import Anchor
from embridge_cloud.store.sealed import Catalogue
from embridge_cloud.store.sealing import timeline
from embridge_shared.errors import DataError, Reason
from support.exchange import cloud_settings, rich_recording, seal

RATE_HZ = 200.0


def drawn(index, t_ns, cuts, rate_hz):
    ends = [*cuts[1:].tolist(), len(index)]
    anchors = [Anchor(int(index[a]), b - a, 0, int(t_ns[a])) for a, b in zip(cuts, ends, strict=True)]
    return timeline(anchors, index, rate_hz)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 300), st.integers(0, 40), st.integers(-300_000, 300_000)), min_size=1, max_size=8
    ),
    st.integers(20, 700),
)
def test_times_of_any_session_come_back(chunks, longest):
    """`timeline` of the cuts is `timeline` of the chunks, to the nanosecond."""
    first, anchors, index = 0, [], []
    for n, gap, late in chunks:
        first += gap
        anchors.append(Anchor(first, n, gap, 10**18 + round(first / RATE_HZ * 1e9) + late))
        index.append(np.arange(first, first + n))
        first += n
    index = np.concatenate(index)
    t_ns = timeline(anchors, index, RATE_HZ)
    cuts = knots(index, t_ns, RATE_HZ, longest=longest)
    assert np.diff(np.append(cuts, len(index))).max() <= longest
    np.testing.assert_array_equal(drawn(index, t_ns, cuts, RATE_HZ), t_ns)


def test_a_steady_clock_needs_few_cuts():
    index = np.arange(20_000)
    t_ns = 10**18 + np.rint(index * (1e9 / 2000.0) * (1 + 3e-5)).astype(np.int64)
    assert len(knots(index, t_ns, 2000.0)) <= 5


def test_jitter_within_the_tolerance_needs_few_cuts():
    rng = np.random.default_rng(1)
    index = np.arange(20_000)
    t_ns = np.maximum.accumulate(10**18 + (index * 5e5 + rng.uniform(-400, 400, len(index))).astype(np.int64))
    cuts = knots(index, t_ns, 2000.0, tolerance_ns=1000)
    assert len(cuts) <= 5
    assert np.abs(drawn(index, t_ns, cuts, 2000.0) - t_ns).max() <= 1001


@pytest.fixture
def original(tmp_path):
    return seal(cloud_settings(tmp_path / "one"), rich_recording())


def same(a, b):
    """Two sealed sessions hold the same, but for the moment they were sealed."""
    assert a.content_hash == b.content_hash
    assert a.session == b.session
    assert [(s.name, s.total, s.gaps, s.inferred) for s in a.manifest.streams] == [
        (s.name, s.total, s.gaps, s.inferred) for s in b.manifest.streams
    ]
    for entry in a.manifest.streams:
        one, two = a.samples(entry.name), b.samples(entry.name)
        for field in ("index", "t_ns", "values"):
            np.testing.assert_array_equal(getattr(one, field), getattr(two, field))
        np.testing.assert_array_equal(a.arrivals(entry.name).index, b.arrivals(entry.name).index)
        np.testing.assert_array_equal(a.arrivals(entry.name).host_ns, b.arrivals(entry.name).host_ns)
    assert a.events() == b.events()
    assert (a.quality() is None) == (b.quality() is None)
    if a.quality() is not None:
        assert a.quality().collect().equals(b.quality().collect())


def test_a_session_moves_whole_and_once(original, tmp_path):
    settings = cloud_settings(tmp_path / "two")
    recording = of_sealed(original)
    assert original.manifest.streams[0].inferred
    with open_door(settings) as door:
        assert door.bring(recording).arrival is Arrival.STORED
        assert door.bring(recording).arrival is Arrival.HELD
    found = Catalogue(CloudPaths.of(settings).sealed).get(original.id)
    found.verify()
    same(original, found)
    with HotStore(CloudPaths.of(settings).hot) as store:
        assert store.read.rows("SELECT count(*) FROM quarantine") == [(0,)]
        assert store.read.rows("SELECT count(*) FROM sealed_sessions") == [(1,)]


def test_an_import_that_was_killed_goes_on(original, tmp_path):
    """Half of the messages are committed already, as a crash leaves them."""
    from itertools import islice

    from embridge_cloud.intake import Intake
    from embridge_cloud.parcels import Incoming

    settings = cloud_settings(tmp_path / "two")
    recording = of_sealed(original)
    with HotStore(CloudPaths.of(settings).hot) as store:
        intake = Intake(store.read)
        taken = intake.take([Incoming(t, p, 1) for t, p in islice(recording.messages(), 6)])
        store.commit(taken.batch)
    with open_door(settings) as door:
        assert door.bring(recording).arrival is Arrival.STORED
    same(original, Catalogue(CloudPaths.of(settings).sealed).get(original.id))


def test_other_samples_under_a_known_id_are_refused(original, tmp_path):
    recording = of_sealed(original)
    values = recording.streams[0].values.copy()
    values[3, 0] += 1
    changed = StreamData(recording.streams[0].index, recording.streams[0].t_ns, values)
    forged = Recording(recording.session, (changed, *recording.streams[1:]), recording.events)
    with open_door(cloud_settings(tmp_path / "one")) as door, pytest.raises(DataError) as caught:
        door.bring(forged)
    assert caught.value.reason is Reason.OVERLAP
    damaged = Recording(recording.session, (changed, *recording.streams[1:]), recording.events, original.content_hash)
    with open_door(cloud_settings(tmp_path / "two")) as door, pytest.raises(DataError) as caught:
        door.bring(damaged)
    assert caught.value.reason is Reason.HASH_MISMATCH
    assert not Catalogue(CloudPaths.of(cloud_settings(tmp_path / "two")).sealed).ids()
