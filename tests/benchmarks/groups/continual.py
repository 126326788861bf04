"""What a release forgets when it learns on: begun anew or gone on from, with replay or without, pulled back or not.

Four learners, then four more whose band sits turned by two electrodes; four strangers of each kind are decoded. Every
way of learning on starts from the same champion and takes its turn in each round.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np

from benchmarks.framework import Row, compared, row
from embridge_cloud.learn.config import LearnConfig
from embridge_cloud.learn.data import Windows, concatenate
from embridge_cloud.learn.heads import Head, fit_head
from embridge_cloud.learn.presets import quick
from embridge_cloud.learn.trained import Trained
from embridge_cloud.learn.warm import Start
from embridge_cloud.learn.zeroshot import evaluate_zero_shot
from embridge_cloud.replay import replayed
from support.learn_world import paired

GROUP = "continual"
ROUNDS = 3
_PEER = "begun anew on everything"
_TURN = 2

change = msgspec.structs.replace


def rows() -> list[Row]:
    """Balanced accuracy on strangers like the first and like the later learners, and the time of a training."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for number in range(ROUNDS):
        for name, figures in _round(number).items():
            found.setdefault(name, []).append(figures)
    peers = [list(column) for column in zip(*found[_PEER], strict=True)]
    out: list[Row] = []
    for name, figures in found.items():
        kinds = (("earlier wearers", "accuracy"), ("later wearers", "accuracy"), ("training", "s"))
        for (what, unit), values, theirs in zip(kinds, zip(*figures, strict=True), peers, strict=True):
            title = f"{name}, {what}"
            if name in (_PEER, "champion"):
                out.append(row(GROUP, title, unit, values))
            else:
                out.append(compared(GROUP, title, unit, values, peer=_PEER, theirs=theirs))
    return out


def _round(number: int) -> dict[str, tuple[float, float, float]]:
    first = 200 * number
    old, new = _people(first), _people(first + 10, turned=True)
    strangers = (_people(first + 100), _people(first + 110, turned=True))
    both = concatenate([old, new])
    fewer = replayed(both, set(old.sessions), len(old) // 4, seed=number)
    config = _config()

    def fitted(windows: Windows, start: Start | None = None) -> Head:
        return fit_head("embridge", windows, config, seed=number + (start is not None), start=start)

    found, champion = _measured(lambda: fitted(old), strangers, old)
    assert isinstance(champion, Trained)
    ways: dict[str, tuple[Windows, Start | None]] = {
        _PEER: (both, None),
        "gone on from, everything replayed": (both, Start(champion)),
        "gone on from, a quarter replayed": (fewer, Start(champion)),
        "gone on from, nothing replayed": (new, Start(champion)),
        "gone on from, everything replayed, pulled back by 0.3": (both, Start(champion, 0.3)),
        "gone on from, everything replayed, pulled back by 1": (both, Start(champion, 1.0)),
        "gone on from, nothing replayed, pulled back by 1": (new, Start(champion, 1.0)),
    }
    out = {"champion": found}
    for name, (windows, start) in ways.items():
        out[name], _ = _measured(lambda w=windows, s=start: fitted(w, s), strangers, both)  # type: ignore[misc]
    return out


def _measured(
    fit: Callable[[], Head], strangers: tuple[Windows, Windows], gallery: Windows
) -> tuple[tuple[float, float, float], Head]:
    began = time.monotonic()
    head = fit()
    took_s = time.monotonic() - began
    poses = gallery.without_emg()
    before, after = (
        evaluate_zero_shot(head, s.without_pose(), poses, seed=0).prototype.balanced_accuracy for s in strangers
    )
    return (before, after, took_s), head


def _people(first: int, *, turned: bool = False) -> Windows:
    found = paired(windows=512, people=4, first_person=first, seed=first)
    assert found.emg is not None
    return replace(found, emg=np.roll(found.emg, _TURN, axis=2)) if turned else found


def _config() -> LearnConfig:
    base = quick(channels=6, window=160, patch=20)
    return change(
        base, emg_mae=change(base.emg_mae, steps=60), pose_mae=change(base.pose_mae, steps=100), threads=1
    )  # fmt: skip
