"""Every head a release may ship: fitted, broken, kept, read back and exported."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from embridge_cloud.learn.config import HeadName
from embridge_cloud.learn.export import export_encoder, run_onnx
from embridge_cloud.learn.heads import SIDECAR, TENSORS, Head, fit_head, load_head, save_head
from embridge_cloud.learn.leakage import check_statistics
from embridge_shared.errors import ConfigError, LeakageError, ModelError
from support.study_world import config, windows

SEEN = tuple(f"g{i}" for i in range(6))


@pytest.fixture(scope="module", params=get_args(HeadName))
def head(request: pytest.FixtureRequest) -> Head:
    return fit_head(request.param, windows().of_gestures(SEEN), config(steps=3), seed=0)


def test_what_is_kept_is_what_is_read_back(head: Head, tmp_path: Path) -> None:
    world = windows()
    save_head(head, tmp_path / "a")
    again = load_head(tmp_path / "a")
    assert type(again) is type(head)
    assert again.lineage == head.lineage
    np.testing.assert_array_equal(again.embed_emg(world.emg), head.embed_emg(world.emg))
    np.testing.assert_array_equal(again.embed_pose(world.pose), head.embed_pose(world.pose))
    check_statistics(head.lineage.statistics, again.statistics())
    save_head(again, tmp_path / "b")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_what_is_exported_says_the_same(head: Head) -> None:
    emg = windows().emg
    assert emg is not None
    exported = export_encoder(head, emg[:64])
    expected = head.embed_emg(emg)
    assert np.abs(run_onnx(exported.onnx, emg) - expected).max() < 1e-3
    assert (run_onnx(exported.int8, emg) * expected).sum(axis=2).min() > 0.97


@pytest.mark.parametrize("name", get_args(HeadName))
def test_broken_pairs_make_another_head(name: HeadName) -> None:
    world = windows().of_gestures(SEEN)
    plain = fit_head(name, world, config(steps=3), seed=0)
    broken = fit_head(name, world, config(steps=3), seed=0, shuffle=True)
    assert not np.allclose(plain.embed_emg(world.emg), broken.embed_emg(world.emg), atol=1e-3)


@pytest.mark.parametrize("name", get_args(HeadName))
def test_emg_of_unseen_gestures_is_refused(name: HeadName) -> None:
    with pytest.raises(LeakageError):
        fit_head(name, windows(), config(steps=3), seed=0, unseen=("g7",))


def test_an_unknown_head_is_named() -> None:
    with pytest.raises(ConfigError, match="no head 'oracle'"):
        fit_head("oracle", windows(), config(steps=3), seed=0)  # type: ignore[arg-type]


def test_damage_is_told(tmp_path: Path) -> None:
    save_head(fit_head("closed", windows().of_gestures(SEEN), config(steps=3), seed=0), tmp_path)
    good = (tmp_path / TENSORS).read_bytes()
    (tmp_path / TENSORS).write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(ModelError, match="not what was saved"):
        load_head(tmp_path)
    (tmp_path / TENSORS).unlink()
    with pytest.raises(ModelError, match="missing"):
        load_head(tmp_path)
    (tmp_path / SIDECAR).write_text("{")
    with pytest.raises(ModelError):
        load_head(tmp_path)
