"""Named configurations and the TOML reader that starts from one of them.

`faithful` reproduces the published method, `product` is what ships for 2 kHz wristbands, `quick` learns from 100 Hz
envelopes within minutes on one core, and `envelope` is `quick` for recordings of many people. Results of different
presets never share a table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from embridge_cloud.learn.config import (
    AlignConfig,
    AugmentConfig,
    CascleConfig,
    EncoderConfig,
    LearnConfig,
    LinearConfig,
    LossConfig,
    MaeConfig,
    MprlConfig,
    QFormerConfig,
    SignalConfig,
)
from embridge_shared.errors import ConfigError, Reason

PresetName = Literal["faithful", "product", "quick", "envelope"]


def faithful() -> LearnConfig:
    """The published method on 2 s of 16-channel, 2 kHz EMG."""
    return LearnConfig()


def product() -> LearnConfig:
    """The published widths with the selection, contrast and augmentation that survive a change of wearer.

    Tokens of 50 ms look 0.25 s back in each layer, so an edge computes one token a hop, and 1 s of a window is read.
    """
    return LearnConfig(
        name="product",
        emg=SignalConfig(patch=100),
        encoder=EncoderConfig(span=6),
        pose_mae=MaeConfig(normalise_target=False, summary=1.0),
        loss=LossConfig(symmetric=True, select="max"),
        augment=AugmentConfig(gain_db=3.0, channel_mask=0.25, time_mask=0.1, roll=2),
        linear=LinearConfig(l2=0.1),
    )


def quick(*, channels: int = 16, window: int = 160, patch: int = 20) -> LearnConfig:
    """A small model for EMG envelopes at 100 Hz: minutes on one core.

    Args:
        channels: Electrodes.
        window: Samples a window, EMG and pose alike.
        patch: Samples a token.
    """
    return LearnConfig(
        name="quick",
        emg=SignalConfig(rate_hz=100.0, channels=channels, window=window, patch=patch),
        pose=SignalConfig(rate_hz=100.0, channels=20, window=window, patch=patch),
        encoder=EncoderConfig(width=64, depth=2, heads=4),
        emg_mae=MaeConfig(decoder_width=64, steps=150, batch=128, lr=1e-3, normalise_target=False),
        pose_mae=MaeConfig(decoder_width=64, steps=300, batch=128, lr=1e-3, normalise_target=False, summary=1.0),
        qformer=QFormerConfig(queries=8),
        loss=LossConfig(
            tau_init=0.3,
            tau_min=0.05,
            tau_max=1.0,
            symmetric=True,
            select="max",
            cascle=CascleConfig(centroids=32),
            mprl=MprlConfig(span_tokens=2),
        ),
        augment=AugmentConfig(gain_db=3.0, channel_mask=0.2),
        linear=LinearConfig(l2=0.1),
        center="always",
        align=AlignConfig(steps=100, batch=128, lr_emg=5e-4, lr_rest=1e-3, min_gap_s=0.0, min_participants=8),
    )


def envelope(*, channels: int = 10, sensors: int = 20, window: int = 160, patch: int = 20) -> LearnConfig:
    """`quick` for recordings of many people at 100 Hz, such as NinaPro DB1.

    Augmentation reaches the network alone: a linear path fitted to many people is worth more than one that the network
    has to make good for silenced channels.

    Args:
        channels: Electrodes.
        sensors: Joint angles, or sensors of a glove.
        window: Samples a window, EMG and pose alike.
        patch: Samples a token.
    """
    base = quick(channels=channels, window=window, patch=patch)
    return msgspec.structs.replace(
        base,
        name="envelope",
        pose=msgspec.structs.replace(base.pose, channels=sensors),
        linear=msgspec.structs.replace(base.linear, clean=True),
    )


def preset(name: PresetName) -> LearnConfig:
    """The preset called `name`.

    Raises:
        ConfigError: There is none of that name.
    """
    made = {"faithful": faithful, "product": product, "quick": quick, "envelope": envelope}.get(name)
    if made is None:
        raise ConfigError(f"no preset {name!r}", hint=f"Choose one of {', '.join(get_args(PresetName))}.")
    return made()


def load_config(path: Path) -> LearnConfig:
    """Read a TOML file: `preset = "quick"` names the start, every other key replaces a value of it.

    Raises:
        ConfigError: The file is missing or no TOML, or a key or value is not known; the message names it.
    """
    try:
        given = msgspec.toml.decode(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"no learning configuration {path}", reason=Reason.NOT_FOUND) from None
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}: {error}") from None
    base = msgspec.to_builtins(preset(given.pop("preset", "quick")))
    try:
        return msgspec.convert(merged(base, given), LearnConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}") from None


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with the leaves of `over`."""
    out = dict(base)
    for key, value in over.items():
        nested = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merged(out[key], value) if nested else value
    return out
