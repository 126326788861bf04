"""Where electrodes sit, told so that one encoder reads any number of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from embridge_cloud.learn.config import ElectrodeConfig, SignalConfig

ALONG_UNIT_MM = 50.0


def places(
    channels: int, harmonics: int, *, angles_deg: Sequence[float] = (), along_mm: Sequence[float] = ()
) -> Tensor:
    """Features of each electrode's place, (channels, 2 harmonics + 1).

    Args:
        channels: Electrodes.
        harmonics: Multiples of the angle told as cosine and sine.
        angles_deg: Angle of each around the arm; none spreads them evenly.
        along_mm: Distance of each from the ring along the forearm; none means 0.
    """
    if angles_deg:
        angle = torch.deg2rad(torch.tensor(angles_deg, dtype=torch.float32))
    else:
        angle = torch.arange(channels) * (2 * math.pi / channels)
    along = torch.tensor(along_mm, dtype=torch.float32) if along_mm else torch.zeros(channels)
    turns = angle[:, None] * torch.arange(1, harmonics + 1)[None, :]
    return torch.cat([turns.cos(), turns.sin(), along[:, None] / ALONG_UNIT_MM], dim=1)


def places_of(signal: SignalConfig) -> Tensor:
    """Features of a configuration's electrodes; no rows where its tokens are not of single electrodes."""
    config = signal.electrodes
    if config is None:
        return torch.zeros(0, 0)
    return places(signal.channels, config.harmonics, angles_deg=config.angles_deg, along_mm=config.along_mm)


def even_ring(channels: int, config: ElectrodeConfig) -> Tensor:
    """Features of a band of another size whose electrodes sit evenly around the arm."""
    return places(channels, config.harmonics)


def split_electrodes(patches: Tensor, patch: int) -> Tensor:
    """Patches of all channels (B, L, patch * C) to patches of one each, (B, L * C, patch), electrodes innermost."""
    b, tokens, values = patches.shape
    return patches.reshape(b, tokens, patch, values // patch).transpose(2, 3).reshape(b, -1, patch)
