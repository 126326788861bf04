"""A small world of hands: finger codes move joints and muscles, every wearer has gains of their own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.learn.data import Windows

RATE_HZ = 100.0


def paired(
    *,
    windows: int = 64,
    channels: int = 6,
    people: int = 4,
    gestures: int = 8,
    samples: int = 160,
    seed: int = 0,
    first_person: int = 0,
) -> Windows:
    """Windows of envelope-like EMG and joint angles that follow the same activations.

    The hands are the same for every `seed`; people, moments and noise are not.
    """
    hands = np.random.default_rng(99)
    codes = (hands.random((gestures, 6)) < 0.5).astype(float) + hands.random((gestures, 6)) * 0.3
    to_pose = hands.normal(size=(6, 20)) * 0.4
    ring = hands.random((6, channels)) + 0.1
    rng = np.random.default_rng([seed, first_person])
    label = np.arange(windows) % gestures
    person = (np.arange(windows) // gestures) % people
    t = np.arange(samples) / RATE_HZ
    course = np.clip(np.sin(np.pi * (t[None, :] - rng.uniform(-0.2, 0.2, (windows, 1))) / t[-1]), 0, 1)
    wobble = 1 + 0.2 * rng.normal(size=(windows, 6))
    a = course[:, :, None] * (codes[label] * wobble)[:, None, :]
    gains = _gains(people, channels, first_person)
    emg = np.einsum("ntk,kc->ntc", a, ring) * gains[person][:, None, :]
    emg = np.abs(emg * (1 + 0.15 * rng.normal(size=emg.shape)) + 0.03 * rng.normal(size=emg.shape))
    pose = a @ to_pose + 0.05 * rng.normal(size=(windows, 1, 20))
    names = tuple(f"p{first_person + i}" for i in range(people))
    return Windows(
        emg=emg.astype(np.float32),
        pose=pose.astype(np.float32),
        label=label.astype(np.int64),
        participant=person.astype(np.int64),
        session=person.astype(np.int64),
        repetition=(np.arange(windows) // (gestures * people)).astype(np.int64),
        start_s=(np.arange(windows) * 2.0).astype(np.float64),
        gestures=tuple(f"g{i}" for i in range(gestures)),
        participants=names,
        sessions=tuple(f"s-{n}" for n in names),
    )


def _gains(people: int, channels: int, first: int) -> NDArray[np.float64]:
    """One positive gain a person and channel, the same for the same person."""
    return np.stack([np.exp(0.25 * np.random.default_rng([7, first + i]).normal(size=channels)) for i in range(people)])
