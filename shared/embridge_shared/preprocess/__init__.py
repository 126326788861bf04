"""Preprocessing: the one path from raw samples to windows, run by training and by the edge alike.

    raw samples ── FrontEnd ──▶ features ── WearerScale ──▶ scaled ── Windower ──▶ windows (T, C)

A band of another number of electrodes has a Montage behind its scale.

Whatever the chunking, the result is the same bit for bit. Every parameter is in `PreprocessConfig`, which travels
inside the release; the wearer's scale is fitted once, in a calibration, and stays fixed.
"""

from __future__ import annotations

from embridge_shared.preprocess.config import (
    FrontEndConfig,
    PoseConfig,
    PreprocessConfig,
    ScaleConfig,
    WindowConfig,
    config_hash,
)
from embridge_shared.preprocess.frontend import Features, FrontEnd, run, run_chunks
from embridge_shared.preprocess.montage import Montage, Ring, montage_for, worn_ring
from embridge_shared.preprocess.scale import WearerScale, fit_scale, fit_wearer_scale
from embridge_shared.preprocess.windows import Window, Windower, pose_windows, windows

__all__ = [
    "Features",
    "FrontEnd",
    "FrontEndConfig",
    "Montage",
    "PoseConfig",
    "PreprocessConfig",
    "Ring",
    "ScaleConfig",
    "WearerScale",
    "Window",
    "WindowConfig",
    "Windower",
    "config_hash",
    "fit_scale",
    "fit_wearer_scale",
    "montage_for",
    "pose_windows",
    "run",
    "run_chunks",
    "windows",
    "worn_ring",
]
