"""What is done to training EMG so that another wearer, donning or electrode is nothing new."""

from __future__ import annotations

import torch
from torch import Tensor

from embridge_cloud.learn import world
from embridge_cloud.learn.config import AugmentConfig


def augment(emg: Tensor, config: AugmentConfig, patch: int) -> Tensor:
    """Gains, noise, silenced channels and patches, and rotations, drawn anew for each window.

    Args:
        emg: (B, T, C).
        config: What is drawn.
        patch: Samples a token.

    Returns:
        (B, T, C); the very tensor given where nothing is to be done.
    """
    if config.gain_db > 0 or config.shared_gain_db > 0:
        emg = emg * _gains(emg, config)
    if config.noise > 0:
        emg = emg * _level_noise(emg, config.noise)
    if config.channel_mask > 0 or config.channel_mask_upto > 0:
        emg = emg * _open_channels(emg, config)
    if config.time_mask > 0:
        open_ = world.rand(len(emg), emg.shape[1] // patch, 1, device=emg.device) >= config.time_mask
        emg = emg * open_.repeat_interleave(patch, dim=1)
    return rolled(emg, config) if config.roll > 0 else emg


def rolled(emg: Tensor, config: AugmentConfig) -> Tensor:
    """Windows whose ring is turned by up to `roll` electrodes; channels beyond the ring stay."""
    b, t, c = emg.shape
    ring = min(config.ring or c, c)
    shift = world.randint(-config.roll, config.roll + 1, (b, 1), device=emg.device)
    source = torch.arange(c, device=emg.device).repeat(b, 1)
    source[:, :ring] = (source[:, :ring] - shift) % ring
    return emg.gather(2, source[:, None, :].expand(b, t, c))


def _gains(emg: Tensor, config: AugmentConfig) -> Tensor:
    """One gain a channel times one for all, (B, 1, C)."""
    b, _, c = emg.shape
    gain_db = world.randn(b, 1, c, device=emg.device) * config.gain_db
    if config.shared_gain_db > 0:
        gain_db = gain_db + world.randn(b, 1, 1, device=emg.device) * config.shared_gain_db
    return torch.pow(10.0, gain_db / 20)


def _level_noise(emg: Tensor, share: float) -> Tensor:
    """A factor a channel that moves its mean level by `share` of the level's deviation in the batch, (B, 1, C)."""
    level = emg.abs().mean(dim=1, keepdim=True)
    spread = world.gather_constant(level).std(dim=0, keepdim=True, unbiased=False)
    moved = level + share * spread * world.randn(*level.shape, device=level.device)
    return moved.clamp(min=0) / level.clamp(min=1e-6)


def _open_channels(emg: Tensor, config: AugmentConfig) -> Tensor:
    """Which channels stay, bool (B, 1, C); at least one does."""
    b, _, c = emg.shape
    draw = world.rand(b, c, device=emg.device)
    chance = torch.full((b, 1), config.channel_mask, device=emg.device)
    if config.channel_mask_upto > 0:
        chance = 1 - (1 - chance) * (1 - config.channel_mask_upto * world.rand(b, 1, device=emg.device))
    open_ = draw >= chance
    if config.channel_mask_upto > 0:
        open_ = open_ | (draw == draw.amax(dim=1, keepdim=True))
    return open_[:, None, :]
