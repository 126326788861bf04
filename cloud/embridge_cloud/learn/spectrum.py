"""What is predicted of a hidden patch in place of its waveform: its spectrum, in the band that was recorded."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from embridge_cloud.learn.config import MaeConfig, SignalConfig
from embridge_shared.errors import ConfigError

FLOOR = 0.03


class LogSpectrum(nn.Module):
    """Log amplitude of each channel in each band of a patch.

    The amplitude's floor keeps silence from outweighing movement; bands beyond the supported one are left out, because
    resampled recordings hold nothing there.

    Args:
        signal: Shape of the windows.
        config: Bands and the supported one.

    Raises:
        ConfigError: No frequency of a patch lies in the supported band.
    """

    window: Tensor
    pool: Tensor

    def __init__(self, signal: SignalConfig, config: MaeConfig) -> None:
        super().__init__()
        self.patch = signal.patch
        hz = torch.fft.rfftfreq(signal.patch, 1 / signal.rate_hz)
        low, high = config.band_hz[0], config.band_hz[1] or signal.rate_hz / 2
        inside = torch.nonzero((hz >= low) & (hz <= high)).flatten()
        if len(inside) == 0:
            raise ConfigError(
                f"patches of {signal.patch} samples tell no frequency between {low} and {high} Hz",
                hint="Widen mae.band_hz or lengthen the patch.",
            )
        groups = torch.tensor_split(inside, min(config.bands, len(inside)))
        pool = torch.zeros(len(groups), len(hz))
        for row, group in enumerate(groups):
            pool[row, group] = 1.0 / len(group)
        self.register_buffer("pool", pool, persistent=False)
        self.register_buffer("window", torch.hann_window(signal.patch, periodic=False) + 0.08, persistent=False)

    @property
    def bands(self) -> int:
        """Bands a channel."""
        return self.pool.shape[0]

    def forward(self, patches: Tensor) -> Tensor:
        """Standardised patches (B, L, patch * C) to (B, L, bands * C), channels innermost."""
        b, tokens, values = patches.shape
        x = patches.float().reshape(b, tokens, self.patch, values // self.patch) * self.window[:, None]
        power = torch.fft.rfft(x, dim=2).abs().square() / self.window.square().sum()
        amplitude = torch.einsum("kf,blfc->blkc", self.pool, power).sqrt()
        return torch.log(amplitude + FLOOR).flatten(2)
