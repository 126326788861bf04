from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from embridge_cloud.learn import feed, world
from embridge_cloud.learn.config import OptimiserConfig
from embridge_cloud.learn.data import Windows, batches, concatenate
from embridge_cloud.learn.feed import PassSampler, rows_of, shuffled
from embridge_cloud.learn.loop import History, Learning, Run, Stage, train_stage
from embridge_cloud.learn.optim import Progress, Stepper
from embridge_cloud.learn.pipeline import pretrain_encoders, train
from embridge_cloud.learn.resume import Checkpoints
from embridge_cloud.learn.window_store import open_windows, verify_windows, write_windows
from embridge_shared.errors import ConfigError, DataError, ModelError, OperatorError, Reason
from support.learn_runs import small
from support.learn_world import paired

STEPS = 12


class StoppedError(Exception):
    """Raised in a progress callback, as a kill would."""


class Toy:
    """A net with dropout that learns a linear map; everything that could be forgotten takes part."""

    def __init__(self, *, total: int = STEPS, keep: str = "last", validate_every: int = 0) -> None:
        torch.manual_seed(5)
        rng = np.random.default_rng(1)
        x = rng.normal(size=(50, 4)).astype(np.float32)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.BatchNorm1d(8), nn.Linear(8, 2))
        self.scores = iter([0.1, 0.9, 0.4, 0.2, 0.3, 0.1, 0.2, 0.1])
        self.stage = Stage(
            name="toy",
            module=self.net,
            groups=[(list(self.net[0].parameters()), 1e-2), (list(self.net[2:].parameters()), 3e-2)],
            loss=self.loss,
            fetch=rows_of(x, (x[:, :2] * 2).astype(np.float32)),
            sampler=PassSampler(shuffled(50, 16), np.random.default_rng(2)),
            total=total,
            optimiser=OptimiserConfig(),
            settle=lambda learning: {"calls": learning.memory["calls"]},
            validate=(lambda: next(self.scores)) if validate_every else None,
            validate_every=validate_every,
            keep="best" if keep == "best" else "last",
        )

    def loss(self, batch: feed.Batch, learning: Learning) -> tuple[Tensor, dict[str, float]]:
        learning.memory["calls"] = learning.memory.get("calls", 0.0) + 1
        x, y = batch
        noisy = x + 0.1 * torch.randn_like(x)
        return (self.net(noisy) - y).square().mean(), {"first_row": float(learning.rows[0])}

    def weights(self) -> dict[str, Tensor]:
        return self.net.state_dict()


def stop_at(step: int) -> Callable[[Progress], None]:
    def tell(p: Progress) -> None:
        if p.step == step:
            raise StoppedError

    return tell


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def run(folder: Path, *, every: int = 1, name: str = "run", **more: object) -> Run:
    return Run(checkpoints=Checkpoints(folder, every, name), **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole() -> tuple[dict[str, Tensor], History]:
    toy = Toy()
    history = train_stage(toy.stage, Run())
    return toy.weights(), history


@pytest.mark.parametrize(("every", "at"), [(1, 3), (5, 8), (5, 12), (100, 7)])
def test_a_stopped_stage_goes_on_as_though_nothing_had_happened(whole, tmp_path, every, at):
    with pytest.raises(StoppedError):
        train_stage(Toy().stage, run(tmp_path, every=every, progress=stop_at(at)))
    torch.manual_seed(999)
    toy = Toy()
    history = train_stage(toy.stage, run(tmp_path, every=every))
    assert equal(toy.weights(), whole[0])
    assert history == whole[1]


def test_batches_made_ahead_change_nothing(whole):
    for ahead in (0, 1, 7, 50):
        toy = Toy()
        assert train_stage(toy.stage, Run(ahead=ahead)) == whole[1]
        assert equal(toy.weights(), whole[0])


def test_a_finished_stage_leaves_the_random_states_it_left(tmp_path):
    toy = Toy()
    train_stage(toy.stage, run(tmp_path))
    after = torch.rand(3)
    again = Toy()
    torch.manual_seed(77)
    train_stage(again.stage, run(tmp_path))
    assert torch.equal(torch.rand(3), after)
    assert again.stage.sampler.draw().tolist() == toy.stage.sampler.draw().tolist()


def test_the_best_weights_are_kept_over_a_stop(tmp_path):
    straight = Toy(keep="best", validate_every=3)
    history = train_stage(straight.stage, Run())
    assert history["val_step"] == [3, 6, 9, 12]
    assert history["val_zs"] == [0.1, 0.9, 0.4, 0.2]
    with pytest.raises(StoppedError):
        train_stage(Toy(keep="best", validate_every=3).stage, run(tmp_path, progress=stop_at(8)))
    rest = Toy(keep="best", validate_every=3)
    next(rest.scores), next(rest.scores)
    assert train_stage(rest.stage, run(tmp_path)) == history
    assert equal(rest.weights(), straight.weights())
    assert not equal(rest.weights(), Toy().weights())


def test_points_of_another_run_and_damaged_ones_are_refused(tmp_path):
    with pytest.raises(StoppedError):
        train_stage(Toy().stage, run(tmp_path, progress=stop_at(4)))
    with pytest.raises(OperatorError, match="another configuration or seed"):
        train_stage(Toy().stage, run(tmp_path, name="other"))
    assert [p.suffix for p in sorted(tmp_path.iterdir())] == [".safetensors", ".json"]
    (tensors,) = tmp_path.glob("*.safetensors")
    content = bytearray(tensors.read_bytes())
    content[-3] ^= 1
    tensors.write_bytes(content)
    with pytest.raises(ModelError) as damaged:
        train_stage(Toy().stage, run(tmp_path))
    assert damaged.value.reason is Reason.HASH_MISMATCH
    tensors.unlink()
    with pytest.raises(ModelError) as missing:
        train_stage(Toy().stage, run(tmp_path))
    assert missing.value.reason is Reason.MALFORMED


def test_divergence_and_an_error_in_the_feed_are_told(tmp_path):
    toy = Toy()
    with pytest.raises(ModelError, match="diverged"):
        train_stage(_changed(toy, loss=lambda batch, learning: (batch[0].sum() * float("nan"), {})), Run())

    def fetch(rows: np.ndarray) -> feed.Batch:
        raise DataError("the disk is gone")

    with pytest.raises(DataError, match="disk"):
        train_stage(_changed(Toy(), fetch=fetch), Run())


def _changed(toy: Toy, **changes: object) -> Stage:
    return replace(toy.stage, **changes)  # type: ignore[arg-type]


def test_the_schedule_warms_up_and_decays():
    weight = nn.Parameter(torch.ones(1))
    stepper = Stepper([([weight], 1.0)], OptimiserConfig(warmup=0.2, weight_decay=0.0), 10)
    rates = []
    for _ in range(10):
        rates.append(stepper._optimiser.param_groups[0]["lr"])
        stepper.step((weight**2).sum())
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates == sorted(rates[:2]) + sorted(rates[2:], reverse=True)
    assert rates[-1] < 0.05


# every stage of a real run


@pytest.mark.parametrize(("stage", "at"), [("emg_mae", 3), ("pose_mae", 5), ("align", 4)])
def test_every_stage_can_be_stopped(tmp_path, stage, at):
    windows, validation = paired(windows=96), paired(windows=48, first_person=20)
    config = small()

    def learn(progress: Callable[[Progress], None]) -> tuple[dict[str, Tensor], History]:
        kept = run(tmp_path / stage, every=2, progress=progress)
        made = train(windows, validation, config, seed=3, run=kept)
        return made.model.state_dict(), made.history

    def tell(p: Progress) -> None:
        if (p.stage, p.step) == (stage, at):
            raise StoppedError

    with pytest.raises(StoppedError):
        learn(tell)
    resumed = learn(lambda p: None)
    straight = train(windows, validation, config, seed=3)
    assert equal(resumed[0], straight.model.state_dict())
    assert resumed[1] == straight.history


# precision


def test_mixed_precision_is_for_whoever_asks():
    windows = paired(windows=64)
    plain, asked, compiled = small(), small(), small()
    change = msgspec.structs.replace
    asked = change(asked, optimiser=change(asked.optimiser, bf16_cpu=True))
    history = [pretrain_encoders(windows, c, seed=0).history["emg_mae"] for c in (plain, asked, compiled)]
    assert history[0] == history[2]
    assert history[0] != history[1]
    np.testing.assert_allclose(history[0], history[1], rtol=0.05)


# processes


def test_one_process_shares_with_nobody():
    assert (world.size(), world.rank()) == (1, 0)
    x = torch.ones(3, 2, requires_grad=True)
    with world.shared_batch(3) as share:
        assert (share.start, share.stop) == (0, 3)
        assert world.gather(x) is x
        assert world.mean(x) is x
        torch.manual_seed(0)
        drawn = world.rand(3, 2)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(3, 2))


def test_shares_of_a_batch_do_not_depend_on_who_draws(monkeypatch):
    def drawn(rank: int, size: int) -> list[Tensor]:
        monkeypatch.setattr(world, "size", lambda: size)
        monkeypatch.setattr(world, "rank", lambda: rank)
        torch.manual_seed(3)
        dropout = world.Dropout(0.5).train()
        with world.shared_batch(7) as share:
            n = share.stop - share.start
            return [
                world.rand(n, 2),
                world.randn(n),
                world.randint(-3, 9, (n, 2)),
                dropout(torch.ones(n, 4)),
                torch.rand(2),
            ]

    whole = drawn(0, 1)
    parts = [drawn(r, 3) for r in range(3)]
    for i in range(4):
        assert torch.equal(torch.cat([p[i] for p in parts]), whole[i])
    assert all(torch.equal(p[4], whole[4]) for p in parts)
    with pytest.raises(ConfigError):
        world.share_of(2)


# batches


def test_windows_too_near_wait_for_the_next_batch():
    windows = paired(windows=200, people=3)
    for size in (16, 64):
        taken = list(batches(windows, size, np.random.default_rng(0), min_gap_s=9.0))
        for rows in taken:
            for session in range(3):
                starts = np.sort(windows.start_s[rows][windows.session[rows] == session])
                assert len(starts) < 2 or np.diff(starts).min() >= 9.0
        together = np.concatenate(taken)
        assert len(np.unique(together)) == len(together)


# windows on disk


def overlapping(person: int, *, n: int = 12, length: int = 40, ahead: int = 10) -> Windows:
    """Windows that share three quarters of their samples."""
    rng = np.random.default_rng(person)
    emg = rng.normal(size=(n * ahead + length, 3)).astype(np.float32)
    pose = rng.normal(size=(n * ahead + length, 20)).astype(np.float32)
    at = np.arange(n) * ahead
    order = rng.permutation(n)
    return Windows(
        emg=np.stack([emg[a : a + length] for a in at])[order],
        pose=np.stack([pose[a : a + length] for a in at])[order],
        label=(np.arange(n) % 3 - 1)[order],
        participant=np.zeros(n, np.int64),
        session=np.zeros(n, np.int64),
        repetition=np.arange(n)[order],
        start_s=(at / 100.0 + 0.37)[order],
        gestures=("g", f"only-{person}"),
        participants=(f"p{person}",),
        sessions=(f"s{person}",),
    )


RATES = {"emg": 100.0, "pose": 100.0}


def test_windows_on_disk_are_the_same_windows(tmp_path):
    parts = [overlapping(0), overlapping(1)]
    write_windows(tmp_path, parts, rates_hz=RATES)
    stored = open_windows(tmp_path)
    verify_windows(stored)
    ordered = concatenate([p.select(np.argsort(p.start_s)) for p in parts])
    assert stored.digest() == ordered.digest()
    assert stored.emg is not None
    assert ordered.emg is not None
    assert np.array_equal(stored.emg[:], ordered.emg)
    assert (stored.gestures, stored.participants) == (ordered.gestures, ordered.participants)
    # 12 windows of 40 samples lie in 150
    assert np.load(tmp_path / "emg.samples.npy", mmap_mode="r").shape == (300, 3)
    for pick in (np.array([3, 1, 20]), ordered.label == 1):
        a, b = stored.select(pick), ordered.select(pick)
        assert a.digest() == b.digest()
        assert np.array_equal(np.asarray(a.pose), np.asarray(b.pose))
        assert a.without_pose().digest() == b.without_pose().digest()
    rows = np.array([5, 0])
    one, two = rows_of(stored.emg)(rows)[0], rows_of(ordered.emg)(rows)[0]
    assert torch.equal(one, two)


def test_windows_that_differ_where_they_overlap_are_kept_apart(tmp_path):
    part = overlapping(0)
    assert part.emg is not None
    part.emg[4, 0, 0] += 1
    write_windows(tmp_path, [part], rates_hz=RATES)
    ordered = part.select(np.argsort(part.start_s))
    assert ordered.emg is not None
    assert np.array_equal(np.asarray(open_windows(tmp_path).emg), ordered.emg)


def test_damaged_and_missing_stores_are_refused(tmp_path):
    with pytest.raises(DataError) as missing:
        open_windows(tmp_path)
    assert missing.value.reason is Reason.NOT_FOUND
    write_windows(tmp_path / "w", [overlapping(0)], rates_hz=RATES)
    with pytest.raises(DataError, match="holds windows already"):
        write_windows(tmp_path / "w", [overlapping(0)], rates_hz=RATES)
    label = np.load(tmp_path / "w" / "label.npy")
    np.save(tmp_path / "w" / "label.npy", label[::-1])
    with pytest.raises(DataError) as changed:
        open_windows(tmp_path / "w")
    assert changed.value.reason is Reason.HASH_MISMATCH
    np.save(tmp_path / "w" / "label.npy", label)
    samples = tmp_path / "w" / "emg.samples.npy"
    content = bytearray(samples.read_bytes())
    content[-2] ^= 64
    samples.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        verify_windows(open_windows(tmp_path / "w"))
    (tmp_path / "w" / "windows.json").write_text("{}")
    with pytest.raises(DataError) as broken:
        open_windows(tmp_path / "w")
    assert broken.value.reason is Reason.MALFORMED


def test_a_stored_set_trains_the_same_model(tmp_path):
    world_ = paired(windows=96)
    write_windows(tmp_path, [world_], rates_hz=RATES)
    stored = open_windows(tmp_path)
    ordered = world_.select(np.lexsort((world_.start_s, world_.session)))
    config = small()
    a, b = (train(w, None, config, seed=1) for w in (stored, ordered))
    assert a.history == b.history
    assert equal(a.model.state_dict(), b.model.state_dict())
    assert a.lineage == b.lineage
