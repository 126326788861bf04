"""Sealed sessions in which gesture g is channel g active, and jobs whose candidates decode them, well or badly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from embridge_cloud.context import CloudPaths
from embridge_cloud.learn.onsets import REST, Trace
from embridge_cloud.learn.presets import quick
from embridge_cloud.recipe import SUMMARY, Recipe, Summary
from embridge_shared.arrays import unpack_array
from embridge_shared.release import ENCODER_INT8, GOLDEN, PROTOTYPES, Golden, pack_golden, write_bundle
from embridge_shared.scoring import PrototypeScorer
from embridge_shared.session import Participant, Purpose, Repetition, Session
from embridge_shared.settings import Settings
from embridge_shared.signal import Arrivals, Chunk
from support import bundles
from support.exchange import cloud_settings, seal
from support.sessions import T0, emg_spec, record, session_of

RATE_HZ = 1000.0
GESTURES = ("g0", "g1", "g2")
PEOPLE = tuple(f"held-{i}" for i in range(5))
_MOVE_S = 0.7
_REST_S = 0.6


def performed(
    person: str, *, number: int, repetitions: int = 3, purpose: Purpose = Purpose.EVALUATION,
    gestures: Sequence[str] = GESTURES, started_ns: int = T0,
) -> tuple[Session, Any]:  # fmt: skip
    """A recording of somebody who moves and rests in turn."""
    rng = np.random.default_rng([5, number])
    session = session_of(emg_spec(bundles.C, RATE_HZ), number=number, started_ns=started_ns)
    session = msgspec.structs.replace(
        session, participant=Participant(id=person, consent_version="v2"), purpose=purpose
    )
    order = [(g, r + 1) for r in range(repetitions) for g in gestures]
    step = round((_MOVE_S + _REST_S) * RATE_HZ)
    n = step * len(order) + round(_REST_S * RATE_HZ)
    level = np.full((n, bundles.C), 4.0)
    events = []
    for k, (gesture, repetition) in enumerate(order):
        begin = round(_REST_S * RATE_HZ) + k * step
        end = begin + round(_MOVE_S * RATE_HZ)
        level[begin:end, int(gesture[1:]) % bundles.C] = 300.0 * (1 + 0.1 * rng.normal())
        start_ns, end_ns = (started_ns + round(i / RATE_HZ * 1e9) for i in (begin, end))
        events.append(Repetition(gesture=gesture, repetition=repetition, start_ns=start_ns, end_ns=end_ns))
    values = (level * rng.normal(size=level.shape)).astype(np.int16)
    empty = record(session, n_chunks=1, gaps=False)
    pairs = np.arange(9, n, 10, dtype=np.int64)
    host = session.host_ns + (pairs / RATE_HZ * 1e9).astype(np.int64)
    chunks = [
        Chunk(session.id, 0, a, values[a : a + 500], started_ns + round(a / RATE_HZ * 1e9), 0,
              Arrivals(pairs[(pairs >= a) & (pairs < a + 500)], host[(pairs >= a) & (pairs < a + 500)]))
        for a in range(0, n, 500)
    ]  # fmt: skip
    opened, *_, closed = empty.events
    closed = msgspec.structs.replace(closed, t_ns=started_ns + round(n / RATE_HZ * 1e9), totals=(n,))
    return session, replace(empty, chunks=[chunks], events=[opened, *events, closed], samples=[], index=[])


def sealed_people(folder: Path, people: Sequence[str] = PEOPLE, **kinds: Any) -> tuple[Settings, Path]:
    """A store of evaluation sessions, one a person; its settings and the folder of sealed sessions."""
    settings = cloud_settings(folder)
    for number, person in enumerate(people, 1):
        seal(settings, performed(person, number=number, **kinds)[1])
    return settings, CloudPaths.of(settings).sealed


def recipe(version: int = 1, **changes: Any) -> Recipe:
    """What a job of this world was told."""
    learn = quick(channels=bundles.C, window=bundles.T, patch=10)
    people = {"held_out": PEOPLE, "seen": ("g0", "g1"), "unseen": ("g2",)} | changes
    return Recipe(version=version, preprocess=bundles.PREPROCESS, learn=learn, **people)


def job(
    folder: Path, version: int = 1, *, files: dict[str, bytes] | None = None, told: Recipe | None = None, seed: int = 0,
    **manifest: Any,
) -> tuple[Path, Path]:  # fmt: skip
    """A finished job; its folder and its bundle.

    Args:
        folder: Of jobs.
        version: Of the release.
        files: Files of the bundle that are not what they should be.
        told: Its recipe.
        seed: Of the encoder.
        manifest: Fields of the manifest.
    """
    out = folder / f"realign-{version}"
    out.mkdir(parents=True)
    made, own = bundles.parts(version, seed, **{"gestures": _gestures(), "thresholds": {}, **manifest})
    weights = weights_of(seed)
    windows = np.random.default_rng(1).random((6, bundles.T, bundles.C)).astype(np.float32)
    queries = bundles.embed(weights, windows)
    scorer = PrototypeScorer(unpack_array(own[PROTOTYPES]), np.array(made.rows), k=made.k)
    own[GOLDEN] = pack_golden(Golden(windows, queries, scorer(queries)))
    own[ENCODER_INT8] = bundles.encoder(weights + 1e-4)
    path = out / f"{made.release}.embridge"
    digest = write_bundle(path, made, own | (files or {}))
    (out / "config.json").write_bytes(msgspec.json.encode(told or recipe(version)))
    summary = Summary(
        release=made.release, digest=digest, bundle=path.name, snapshot=made.lineage.snapshot, sessions=(),
        participants=(), windows=0, head=made.head, head_reason="", metrics={}, history={"align": [2.0, 1.0, 0.5]},
    )  # fmt: skip
    (out / SUMMARY).write_bytes(msgspec.json.encode(summary))
    return out, path


def weights_of(seed: int = 0) -> np.ndarray:
    """Weights of the encoder that `job` makes of a seed."""
    return np.random.default_rng(seed).normal(size=(bundles.C, bundles.M * bundles.D)).astype(np.float32)


def _gestures() -> Any:
    made, _ = bundles.parts()
    return tuple(msgspec.structs.replace(g, emg_seen=g.label != "g2") for g in made.gestures)


def trace(
    person: str, right: float, *, gestures: int = 3, windows: int = 60, rest: int = 120, sure: float = 5.0,
    seed: int = 0, seems: float = 0.0,
) -> Trace:  # fmt: skip
    """A recording in which a share of windows is decoded rightly.

    Args:
        person: Whose.
        right: Share of windows that are right.
        gestures: Gestures.
        windows: A gesture, in three repetitions.
        rest: Windows of rest after each repetition.
        sure: How far the chosen gesture's score lies above the others'.
        seed: Of chance.
        seems: Activity at rest; above 0.12 the hand seems to move.
    """
    rng = np.random.default_rng([seed, *person.encode()])
    truth, scores, active = [], [], []
    for _ in range(3):
        for g in range(gestures):
            n = windows // 3
            chosen = np.where(np.arange(n) < round(right * n), g, (g + 1) % gestures)
            truth += [np.full(n, g), np.full(rest, REST)]
            loud = rng.normal(size=(n, gestures)) * 0.01
            loud[np.arange(n), chosen] += sure
            quiet = rng.normal(size=(rest, gestures)) * 0.01
            quiet[:, 0] += sure if seems else 0.0
            scores += [loud, quiet]
            active += [np.full(n, 1.0), np.tile(np.repeat([seems, 0.0], 10), rest // 20 + 1)[:rest]]
    which = np.concatenate(truth)
    return Trace(person, which, which >= 0, np.concatenate(scores), np.concatenate(active), None, 0.1)
