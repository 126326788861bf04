"""The simulated forearm is worth learning from: gestures show, wearers differ, poses carry over."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from embridge_edge.forearm import CONTROL_HZ, UV_PER_COUNT, Donning, Forearm, Performance, Timing, Wearer
from embridge_shared.gestures import find
from embridge_shared.hand import REST

SEEN = ("fist", "open", "point", "thumbs_up", "pinch_index", "pinky_up", "three", "hook")
UNSEEN = ("peace", "horns", "pinch_middle", "shaka")
TRAIN, TEST = range(6), range(20, 24)
WINDOW = 500


@dataclass(frozen=True)
class Take:
    """Windows of one wearer: RMS (n, 16) µV, pose (n, 20) rad, gesture number or -1, repetition, at rest."""

    rms: np.ndarray
    pose: np.ndarray
    label: np.ndarray
    repetition: np.ndarray
    rest: np.ndarray


@cache
def record(seed: int, names: tuple[str, ...], repetitions: int) -> Take:
    rng = np.random.default_rng([seed, len(names)])
    performance = Performance(
        Wearer.random(seed),
        find(names),
        repetitions=repetitions,
        rng=rng,
        timing=Timing(lead_in_s=1.0, cue_s=1.5, rest_s=1.0, jitter_s=0.2),
        shuffled=True,
    )
    forearm = Forearm(performance.wearer, Donning(rotation_deg=float(rng.normal(0, 3))), seed=seed)
    steps = np.arange(int(performance.duration_s * CONTROL_HZ))
    emg = forearm.emg(performance.angles(steps / CONTROL_HZ + forearm.wearer.lead_s)) * UV_PER_COUNT
    n = len(emg) // WINDOW
    rms = np.sqrt((emg[: n * WINDOW].reshape(n, WINDOW, 16) ** 2).mean(axis=1))
    t_s = (np.arange(n) + 0.5) * WINDOW / 2000.0
    label, rep, rest = np.full(n, -1), np.zeros(n, int), np.ones(n, bool)
    for prompt in performance.prompts:
        rest &= ~((t_s > prompt.onset_s - 0.2) & (t_s < prompt.end_s + 0.2))
        holds = (t_s > prompt.held_s + 0.1) & (t_s < prompt.release_s - 0.1)
        label[holds], rep[holds] = names.index(prompt.gesture.name), prompt.repetition
    return Take(rms, performance.angles(t_s), label, rep, rest)


def scaled(take: Take, reference: Take | None = None) -> np.ndarray:
    """Rest to 0 and strong to 1, a channel, from what the wearer did before."""
    known = reference or take
    low, high = np.median(known.rms[known.rest], axis=0), np.quantile(known.rms, 0.97, axis=0)
    return (take.rms - low) / (high - low + 1.0)


def lda(x: np.ndarray, y: np.ndarray, query: np.ndarray) -> np.ndarray:
    means = np.array([x[y == k].mean(axis=0) for k in np.unique(y)])
    inner = np.cov((x - means[y]).T)
    weights = np.linalg.solve(inner + 0.01 * np.trace(inner) / len(inner) * np.eye(len(inner)), means.T)
    return (query @ weights - 0.5 * (means * weights.T).sum(axis=1)).argmax(axis=1)


def balanced(truth: np.ndarray, guess: np.ndarray) -> float:
    return float(np.mean([(guess[truth == k] == k).mean() for k in np.unique(truth)]))


def across_wearers(wearers: range) -> float:
    takes = [record(seed, SEEN, 4) for seed in TRAIN]
    x = np.concatenate([scaled(take)[take.label >= 0] for take in takes])
    y = np.concatenate([take.label[take.label >= 0] for take in takes])
    scores = []
    for seed in wearers:
        take = record(seed, SEEN, 2)
        holds = take.label >= 0
        scores.append(balanced(take.label[holds], lda(x, y, scaled(take)[holds])))
    return float(np.mean(scores))


def within_wearers(wearers: range) -> float:
    scores = []
    for seed in wearers:
        take = record(seed, SEEN, 4)
        train, test = ((take.label >= 0) & (take.repetition % 4 // 3 == part) for part in (0, 1))
        logs = np.log(take.rms)
        scores.append(balanced(take.label[test], lda(logs[train], take.label[train], logs[test])))
    return float(np.mean(scores))


def test_gestures_separate_within_a_wearer_and_less_across() -> None:
    within, across = within_wearers(TRAIN), across_wearers(TEST)
    assert within > 0.9
    assert 3 / 8 < across < within - 0.08


def unseen_gestures(*, shuffled: bool) -> float:
    """Ridge from EMG to pose on seen gestures; new wearers, new gestures, nearest template."""
    takes = [record(seed, SEEN, 4) for seed in TRAIN]
    x = np.concatenate([scaled(take)[take.label >= 0] for take in takes])
    pose = np.concatenate([take.pose[take.label >= 0] for take in takes]) - REST
    if shuffled:
        pose = np.random.default_rng(0).permutation(pose)
    spread = pose.std(axis=0) + 0.05
    y = pose / spread
    centre, mean = x.mean(axis=0), y.mean(axis=0)
    x = x - centre
    weights = np.linalg.solve(x.T @ x + 0.01 * len(x) * np.eye(16), x.T @ (y - mean))
    templates = np.array([gesture.pose - REST for gesture in find(UNSEEN)]) / spread - mean
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)
    scores = []
    for seed in TEST:
        take = record(seed, UNSEEN, 3)
        predicted = (scaled(take, record(seed, SEEN, 2)) - centre) @ weights
        holds = take.label >= 0
        scores.append(balanced(take.label[holds], (predicted @ templates.T).argmax(axis=1)[holds]))
    return float(np.mean(scores))


def test_gestures_nobody_recorded_are_found_by_their_pose() -> None:
    assert 0.5 < unseen_gestures(shuffled=False) < 0.95
    assert unseen_gestures(shuffled=True) < 0.4
