"""A store of simulated wearers who record EMG with hand pose, and a recipe that learns from them within seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from embridge_cloud.context import CloudPaths
from embridge_cloud.learn.presets import envelope
from embridge_cloud.recipe import PairingConfig, Recipe
from embridge_shared.session import Participant, Purpose, Repetition
from embridge_shared.settings import Settings
from embridge_shared.signal import Arrivals, Chunk
from support.exchange import cloud_settings, joint_spec, seal
from support.forearm_release import LENGTH, PREPROCESS, SPEC, perform
from support.sessions import T0, Recording, record, session_of

GESTURES = ("fist", "open", "point", "thumbs_up")
POSE_HZ = 50.0
_CHUNK = 1000


def performed(seed: int, *, number: int) -> Recording:
    """A training session of wearer `seed`: every gesture twice, EMG and pose."""
    emg, performance = perform(seed, GESTURES, 2)
    n = len(emg)
    m = int(n / SPEC.rate_hz * POSE_HZ)
    pose = performance.angles(np.arange(m) / POSE_HZ).astype(np.float32)
    session = session_of(SPEC, joint_spec(POSE_HZ), number=number)
    session = msgspec.structs.replace(
        session, participant=Participant(id=f"wearer-{seed}", consent_version="v2"), purpose=Purpose.TRAINING
    )
    streams = [_chunks(session, i, values) for i, values in enumerate((emg.astype(np.int16), pose))]
    events = [
        Repetition(
            gesture=p.gesture.name, repetition=p.repetition + 1, start_ns=T0 + round(p.held_s * 1e9),
            end_ns=T0 + round(p.release_s * 1e9),
        )
        for p in performance.prompts
    ]  # fmt: skip
    empty = record(session, n_chunks=1, gaps=False)
    opened, *_, closed = empty.events
    closed = msgspec.structs.replace(closed, t_ns=T0 + round(n / SPEC.rate_hz * 1e9), totals=(n, m))
    return replace(empty, chunks=streams, events=[opened, *events, closed], samples=[], index=[])


def _chunks(session, stream: int, values: np.ndarray) -> list[Chunk]:
    rate_hz = session.streams[stream].rate_hz
    pairs = np.arange(9, len(values), 10, dtype=np.int64)
    host = session.host_ns + (pairs / rate_hz * 1e9).astype(np.int64)
    return [
        Chunk(session.id, stream, a, values[a : a + _CHUNK], T0 + round(a / rate_hz * 1e9), 0,
              Arrivals(pairs[(pairs >= a) & (pairs < a + _CHUNK)], host[(pairs >= a) & (pairs < a + _CHUNK)]))
        for a in range(0, len(values), _CHUNK)
    ]  # fmt: skip


def store(folder: Path, wearers: range) -> tuple[Settings, Path]:
    """A store with a session of each wearer; its settings and the folder of sealed sessions."""
    settings = cloud_settings(folder)
    for seed in wearers:
        seal(settings, performed(seed, number=seed + 1))
    return settings, CloudPaths.of(settings).sealed


def recipe(**changes: object) -> Recipe:
    """A deep head that is trained within seconds, and badly."""
    base = envelope(channels=16, window=LENGTH, patch=20)
    change = msgspec.structs.replace
    learn = change(
        base,
        encoder=change(base.encoder, width=32),
        emg_mae=change(base.emg_mae, steps=20, decoder_width=32, batch=32),
        pose_mae=change(base.pose_mae, steps=20, decoder_width=32, batch=32),
        align=change(base.align, steps=60, batch=32, min_participants=1),
        threads=1,
    )
    given = {"seen": GESTURES[:3], "unseen": GESTURES[3:], "heads": ("embridge",), "controls": 0} | changes
    return Recipe(preprocess=PREPROCESS, pairing=PairingConfig(stride_s=0.1), learn=learn, **given)
