"""Sealed sessions as a data set: the same windows as pairing makes, losses, rejected repetitions, damage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from embridge_cloud.datasets.base import EmgKind, PoseKind, all_recordings
from embridge_cloud.datasets.registry import locate, open_dataset
from embridge_cloud.datasets.windows import CutConfig, cut_windows
from embridge_cloud.pairing import cut, pair, wearer_scale
from embridge_cloud.recipe import PairingConfig
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.rows import Batch, ChunkRow, EventRow
from embridge_cloud.store.sealed import Catalogue
from embridge_cloud.store.sealing import Sealer
from embridge_shared.errors import DataError, OperatorError
from embridge_shared.preprocess import FrontEndConfig, PreprocessConfig, WindowConfig
from embridge_shared.session import (
    Participant,
    Purpose,
    Repetition,
    RepetitionStatus,
    SessionClosed,
    SessionOpened,
)
from embridge_shared.signal import Chunk, Modality, SampleType, StreamSpec
from embridge_shared.wire import codec
from support.sessions import T0, session_of

RATE_HZ = 100.0
REST, HOLD = 150, 250


@dataclass
class World:
    folder: object
    emg: np.ndarray
    label: np.ndarray


def spec(name, modality, channels, device=""):
    names = tuple(f"{name}_{i}" for i in range(channels))
    return StreamSpec(
        name=name, modality=modality, channels=names, rate_hz=RATE_HZ, dtype=SampleType.FLOAT32, unit="u", device=device
    )


def seal(tmp_path, *, lose=(), number=1, who="p1", purpose=Purpose.TRAINING, pose=True, device="x-envelope"):
    """One session of three gestures twice, the last repetition rejected; `lose` are ranges of indices."""
    rng = np.random.default_rng(number)
    label = np.concatenate([np.repeat([0, g], [REST, HOLD]) for g in (1, 1, 2, 2, 3, 3)])
    emg = np.abs(0.1 * rng.normal(size=(len(label), 4)) + label[:, None]).astype(np.float32)
    glove = (100 + 20 * label[:, None] + rng.normal(size=(len(label), 22))).astype(np.float32)
    specs = (spec("emg", Modality.EMG, 4, device), *((spec("glove", Modality.GLOVE, 22),) if pose else ()))
    session = session_of(*specs, number=number)
    session = type(session)(
        **{f: getattr(session, f) for f in session.__struct_fields__ if f not in ("participant", "purpose")},
        participant=Participant(id=who),
        purpose=purpose,
    )
    kept = [a for a in np.split(np.arange(len(label)), sorted({i for span in lose for i in span})) if len(a)]
    kept = [a for a in kept if not any(x <= a[0] < y for x, y in lose)]
    step = round(1e9 / RATE_HZ)
    chunks = []
    for ordinal, values in enumerate((emg, glove)[: len(specs)]):
        end = 0
        for rows in kept if ordinal == 0 else [np.arange(len(label))]:
            t0 = session.started_ns + int(rows[0]) * step
            chunks.append(Chunk(session.id, ordinal, int(rows[0]), values[rows], t0, int(rows[0]) - end))
            end = int(rows[-1]) + 1
    events = [SessionOpened(session=session)]
    starts = np.flatnonzero(np.diff(np.r_[0, label]) > 0)
    for i, a in enumerate(starts):
        status = RepetitionStatus.REJECTED if i == 5 else RepetitionStatus.ACCEPTED
        begun = session.started_ns + int(a) * step
        events.append(
            Repetition(
                gesture=f"g{label[a]}", repetition=i % 2 + 1, start_ns=begun, end_ns=begun + HOLD * step, status=status
            )
        )
    closed = session.started_ns + len(label) * step
    events.append(SessionClosed(t_ns=closed, totals=(len(label),) * len(specs)))
    with HotStore(tmp_path / f"hot{number}.duckdb") as store:
        sealer = Sealer(store, tmp_path / "sealed", wall_ns=lambda: T0)
        sealer.prepare()
        store.commit(
            Batch(
                chunks=[ChunkRow.of(c, codec.encode(c), T0) for c in chunks],
                events=[EventRow(session.id, i, e, T0) for i, e in enumerate(events)],
            )
        )
        sealer.seal(session.id)
    return World(tmp_path, emg, label)


def test_windows_are_those_that_pairing_makes(tmp_path):
    world = seal(tmp_path)
    dataset = open_dataset(f"store:{world.folder}")
    config = CutConfig(stride_s=0.2)
    mine = cut_windows(all_recordings(dataset), config, hidden=("g2",), gestures=("g1", "g2", "g3"))
    (sealed,) = Catalogue(tmp_path / "sealed").sessions()
    preprocess = PreprocessConfig(front_end=FrontEndConfig(mode="identity"), window=WindowConfig(length=160))
    pairing = PairingConfig(stride_s=0.2)
    paired = pair(sealed, preprocess, pairing, hidden=("g2",))
    scale = wearer_scale(paired, preprocess, hidden=("g2",))
    theirs = cut(paired, scale, preprocess, pairing, ("g1", "g2", "g3"))
    np.testing.assert_allclose(mine.start_s, theirs.start_s, atol=1e-9)
    np.testing.assert_array_equal(mine.label, theirs.label)
    np.testing.assert_array_equal(mine.repetition, theirs.repetition)
    np.testing.assert_array_equal(mine.emg, theirs.emg)
    # A rejected repetition is rest to pairing and nothing to a data set: the glove's zero differs by that much.
    assert np.abs(mine.pose - theirs.pose).mean() < 0.5


def test_what_it_says_of_itself(tmp_path):
    seal(tmp_path, number=1)
    seal(tmp_path, number=2, who="p2", purpose=Purpose.EVALUATION)
    seal(tmp_path, number=3, who="p1", purpose=Purpose.CALIBRATION)
    dataset = open_dataset(f"store:{tmp_path}")
    assert dataset.participants() == ("p1", "p2")
    assert dataset.gestures() == ("g1", "g2", "g3")
    assert dataset.facts.emg_kind is EmgKind.ENVELOPE
    assert dataset.facts.pose_kind is PoseKind.GLOVE
    assert len(list(dataset.recordings("p1"))) == 2
    w = cut_windows(all_recordings(dataset))
    splits = {s.name: s.of(w).present("participants") for s in dataset.splits()}
    assert splits == {"training": {"p1"}, "calibration": {"p1"}, "evaluation": {"p2"}}
    assert {(int(g), int(r)) for g, r in zip(w.label, w.repetition, strict=True)} == {
        (0, 1), (0, 2), (1, 1), (1, 2), (2, 1)
    }  # fmt: skip
    with pytest.raises(OperatorError, match="p9"):
        next(dataset.recordings("p9"))


def test_losses_are_held_when_short_and_split_when_long(tmp_path):
    lost = ((220, 223), (1000, 1060))
    world = seal(tmp_path, lose=lost)
    first, second = list(all_recordings(open_dataset(f"store:{tmp_path}")))
    assert (len(first.emg), len(second.emg)) == (1000, 2400 - 1060)
    assert second.start_s == pytest.approx(10.6)
    assert np.flatnonzero(~first.emg_valid).tolist() == [220, 221, 222]
    np.testing.assert_array_equal(first.emg[220:223], world.emg[[219] * 3])
    assert second.emg_valid is None
    w = cut_windows([first, second], CutConfig(stride_s=0.1, window_s=0.5))
    start = np.round(w.start_s * 100).astype(int)
    for a, b in lost:
        assert not ((start < b) & (start + 50 > a)).any()
    for i in (0, len(w) // 2, len(w) - 1):
        assert (world.label[start[i] : start[i] + 50] == w.label[i] + 1).all()


def test_a_session_without_pose_gives_emg_alone(tmp_path):
    seal(tmp_path, pose=False)
    dataset = open_dataset(f"store:{tmp_path}")
    assert dataset.facts.pose_kind is None
    with pytest.raises(DataError, match="no pose"):
        cut_windows(all_recordings(dataset))
    assert cut_windows(all_recordings(dataset), CutConfig(pose=None)).pose is None


def test_a_store_is_recognised_and_checked(tmp_path):
    seal(tmp_path)
    plugin, _, folder = locate(str(tmp_path / "sealed"))
    assert plugin.name == "store"
    report = plugin.check(folder)
    assert report.usable
    assert (report.files, list(report.seconds)) == (1, ["p1"])
    assert report.repetitions == {"g1": 2, "g2": 2, "g3": 1}
    part = next((tmp_path / "sealed").rglob("*emg*.parquet"))
    part.write_bytes(part.read_bytes()[:-7] + b"ruined!")
    report = plugin.check(folder)
    assert not report.usable
    assert any("not the file that was sealed" in f.what and f.hint for f in report.findings)


def test_a_folder_without_sessions(tmp_path):
    with pytest.raises(DataError, match="no session") as caught:
        open_dataset(f"store:{tmp_path}")
    assert caught.value.hint
    assert not locate(f"store:{tmp_path}")[0].check(tmp_path).usable
