"""A release whose encoder is real and whose weights mean nothing: what it costs does not depend on what it knows."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import torch

from embridge_cloud.learn.align import prepare
from embridge_cloud.learn.closed import ClosedHead
from embridge_cloud.learn.config import LearnConfig
from embridge_cloud.learn.encoders import Encoder
from embridge_cloud.learn.export import export_encoder, run_onnx
from embridge_cloud.learn.export_stream import export_stream
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
    STREAM,
    STREAM_INT8,
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


def streaming(channels: int = 16, *, patch: int = 20, span: int = 3) -> LearnConfig:
    """The quick model, whose encoder looks back a span only."""
    config = quick(channels=channels, patch=patch)
    return msgspec.structs.replace(config, encoder=msgspec.structs.replace(config.encoder, span=span))


def untrained(channels: int, seed: int = 0, *, config: LearnConfig | None = None) -> Trained:
    """A model as it is before training, by default the quick one."""
    config = config or quick(channels=channels)
    torch.manual_seed(seed)
    model = Bridge(Encoder(config.emg, config.encoder), Encoder(config.pose, config.pose_encoder), config).eval()
    if config.encoder.span:
        # as it is before training, every query would all but ignore the EMG
        torch.nn.init.normal_(model.qformer.projection.weight, std=0.1)
        if model.path is not None:
            torch.nn.init.normal_(model.path.weight, std=0.1)
    world = paired(windows=256, channels=channels, samples=config.pose.window)
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


def untrained_bundle(
    folder: Path,
    *,
    channels: int = 16,
    gestures: int = 12,
    each: int = 5,
    learn: LearnConfig | None = None,
    hop: int = HOP,
) -> Bundle:
    """A release of a model as it is before training, by default the quick one for 100 Hz envelopes every 0.1 s."""
    return bundle_of(untrained(channels, config=learn), folder, gestures=gestures, each=each, hop=hop)


def bundle_of(head: Trained | ClosedHead, folder: Path, *, gestures: int = 12, each: int = 5, hop: int = HOP) -> Bundle:
    """A release of a head, with prototypes that mean nothing."""
    config = head.config.emg
    channels = config.channels
    emg = paired(windows=gestures * each, channels=channels, samples=config.window).emg
    assert emg is not None
    exported = export_encoder(head, emg)
    stream = export_stream(head, emg) if isinstance(head, Trained) else None
    queries = np.concatenate([run_onnx(exported.onnx, part) for part in np.array_split(emg, gestures)])
    order = np.arange(len(emg)) // each
    prototypes = np.ascontiguousarray(queries[:, 0])
    golden = Golden(emg[:4], queries[:4], PrototypeScorer(prototypes, order, k=3)(queries[:4]))
    manifest, _ = parts(
        preprocess=PreprocessConfig(
            front_end=FrontEndConfig(mode="envelope" if config.rate_hz <= 200 else "waveform", rate_hz=config.rate_hz),
            window=WindowConfig(length=config.window, hop=hop, patch=config.patch),
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
        **({} if stream is None else {STREAM: stream.onnx, STREAM_INT8: stream.int8}),
    }
    path = folder / f"{manifest.release}.embridge"
    write_bundle(path, manifest, files)
    return read_bundle(path)
