"""A release of simulated forearms that decides, at a hop of choice."""

from __future__ import annotations

from pathlib import Path

import msgspec

from embridge_shared.decision import DecisionConfig
from embridge_shared.release import read_bundle, write_bundle
from support import forearm_release

GESTURES = ("fist", "open", "point", "pinch_index")
WEARER = 3
"""One of those it was trained on: how soon is asked, not how well people it never met are served."""
DECISION = DecisionConfig(temperature=0.1, otherwise=0.4, rest_below=0.15, rest_above=0.2)


def live_release(folder: Path, *, hop_s: float = 0.1) -> Path:
    """Train it, at a hop."""
    path = forearm_release.release(folder)
    bundle = read_bundle(path)
    preprocess = bundle.manifest.preprocess
    window = msgspec.structs.replace(preprocess.window, hop=round(hop_s * forearm_release.RATE_HZ))
    manifest = msgspec.structs.replace(
        bundle.manifest,
        preprocess=msgspec.structs.replace(preprocess, window=window),
        decision=DECISION,
    )
    path.unlink()
    write_bundle(path, manifest, bundle.files)
    return path
