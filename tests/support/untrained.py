"""A release whose encoder is real and whose weights mean nothing: what it costs does not depend on what it knows."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import torch

from embridge_cloud.learn.align import prepare
from embridge_cloud.learn.encoders import Encoder
from embridge_cloud.learn.export import export_encoder, run_onnx
from embridge_cloud.learn.leakage import statistics_digest
from embridge_cloud.learn.model import Bridge
from embridge_cloud.learn.presets import quick
from embridge_cloud.learn.trained import Lineage, Sanity, Trained, statistics_of
from embridge_shared.preprocess import FrontEndConfig, PreprocessConfig, WindowConfig
from embridge_shared.release import (
    CARD,
    ENCODER,
    ENCODER_INT8,
    GOLDEN,
    PROTOTYPES,
    Bundle,
    Golden,
    pack_array,
    pack_golden,
    read_bundle,
    write_bundle,
)
from embridge_shared.release import Gesture as ReleaseGesture
from embridge_shared.scoring import PrototypeScorer
from support.bundles import parts
from support.learn_world import paired

HOP = 10


def untrained(channels: int, seed: int = 0) -> Trained:
    """The quick model as it is before training."""
    config = quick(channels=channels)
    torch.manual_seed(seed)
    model = Bridge(Encoder(config.emg, config.encoder), Encoder(config.pose, config.encoder), config).eval()
    world = paired(windows=256, channels=channels)
    assert world.pose is not None
    prepare(model, world.pose, seed=seed)
    lineage = Lineage(
        seed=seed,
        config=config.digest(),
        data=(),
        statistics=statistics_digest(statistics_of(model)),
        participants=(),
        sessions=(),
        emg_gestures=(),
        pose_gestures=(),
    )
    figures = dict.fromkeys(Sanity.__struct_fields__, 0.0) | {"centered": False}
    return Trained(model=model, config=config, history={}, lineage=lineage, sanity=msgspec.convert(figures, Sanity))


def untrained_bundle(folder: Path, *, channels: int = 16, gestures: int = 12, each: int = 5) -> Bundle:
    """A release of the quick model for 100 Hz envelopes, a window every 0.1 s."""
    trained = untrained(channels)
    config = trained.config.emg
    emg = paired(windows=gestures * each, channels=channels).emg
    assert emg is not None
    exported = export_encoder(trained, emg)
    queries = run_onnx(exported.onnx, emg)
    order = np.arange(len(emg)) // each
    prototypes = np.ascontiguousarray(queries[:, 0])
    golden = Golden(emg[:4], queries[:4], PrototypeScorer(prototypes, order, k=3)(queries[:4]))
    manifest, _ = parts(
        preprocess=PreprocessConfig(
            front_end=FrontEndConfig(mode="envelope", rate_hz=config.rate_hz),
            window=WindowConfig(length=config.window, hop=HOP, patch=config.patch),
        ),
        window=config.window,
        channels=channels,
        queries=queries.shape[1],
        dim=queries.shape[2],
        gestures=tuple(
            ReleaseGesture(label=f"g{g}", title=f"Gesture {g}", emg_seen=True, prototypes=each, provenance="test")
            for g in range(gestures)
        ),
        rows=tuple(int(r) for r in order),
    )
    files = {
        ENCODER: exported.onnx,
        ENCODER_INT8: exported.int8,
        PROTOTYPES: pack_array(prototypes),
        GOLDEN: pack_golden(golden),
        CARD: b"# Untrained\n",
    }
    path = folder / f"{manifest.release}.embridge"
    write_bundle(path, manifest, files)
    return read_bundle(path)
