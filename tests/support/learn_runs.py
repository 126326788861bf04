"""Runs of seconds for tests of what surrounds the learning."""

from __future__ import annotations

import msgspec

from embridge_cloud.learn.config import LearnConfig
from embridge_cloud.learn.presets import quick


def small(*, steps: int = 6, dropout: float = 0.1) -> LearnConfig:
    """A run of a second on 6 channels and windows of 160 samples, every loss and augmentation in force."""
    config = quick(channels=6, patch=40)
    change = msgspec.structs.replace
    return change(
        config,
        threads=1,
        encoder=change(config.encoder, width=32),
        emg_mae=change(config.emg_mae, steps=steps, decoder_width=32, batch=31, dropout=dropout),
        pose_mae=change(config.pose_mae, steps=steps, decoder_width=32, batch=31, dropout=dropout),
        qformer=change(config.qformer, queries=4),
        augment=change(config.augment, gain_db=3.0, channel_mask=0.2, time_mask=0.1, roll=1),
        align=change(
            config.align, steps=steps, batch=31, min_gap_s=1.0, min_participants=2, validate_every=2, keep="best"
        ),
        evaluate=change(config.evaluate, bootstrap=50),
    )
