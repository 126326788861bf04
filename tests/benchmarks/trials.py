"""Real recordings of trials, one block a repetition, through the product's front end."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from embridge_shared.preprocess import FrontEnd, FrontEndConfig
from embridge_shared.signal import Modality, SampleType, StreamSpec


@dataclass(frozen=True, slots=True)
class Trial:
    """One repetition: unscaled features (T, C)."""

    session: str
    gesture: str
    repetition: int
    features: NDArray[np.float32]


def folder(name: str) -> Path:
    """Where a set lies."""
    return Path(os.environ.get("EMBRIDGE_TEST_DATA", "../shared/data")) / name


def read_trials(path: Path, front_end: FrontEndConfig, *, rate_hz: float, settle_s: float) -> list[Trial]:
    """Every block of a file, filters settled; blocks too short for that are left out.

    Args:
        path: A Parquet file with `session`, `gesture`, `rep` and `emg_*`.
        front_end: Filters.
        rate_hz: Of the samples.
        settle_s: Cut from the start of each block.
    """
    table = pl.read_parquet(path)
    names = [c for c in table.columns if c.startswith("emg_")]
    spec = StreamSpec(
        name="emg",
        modality=Modality.EMG,
        channels=tuple(names),
        rate_hz=rate_hz,
        dtype=SampleType.FLOAT32,
        unit="a.u.",
        device=path.parent.name,
    )
    skip = round(settle_s * front_end.rate_hz)
    out = []
    for key, block in table.partition_by(["session", "gesture", "rep"], maintain_order=True, as_dict=True).items():
        features = FrontEnd(front_end, spec).feed(block.select(names).to_numpy().astype(np.float32)).values[skip:]
        if len(features):
            out.append(Trial(str(key[0]), str(key[1]), int(str(key[2])), features))
    return out
