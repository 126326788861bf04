"""Both sides of the closed-form head as torch modules, for export to the edge."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from embridge_shared.errors import DataError, Reason
from embridge_shared.wearer.levels import SEGMENTS, TOKENS, View

# keeps the slope of the root finite where a level is 0, and is far below any level
_TINY = 1e-12


class ClosedGraph(nn.Module):
    """Windows to unit queries; holds no trainable parameter.

    Args:
        view: Of the wearer it speaks for.
        feature: Mean and deviation of the features, (2, F).
        maps: Features to postures (F, p), and to the encoding side (F, F).
        share: Weight of the encoding side, 0..1.
    """

    def __init__(
        self,
        view: View,
        feature: NDArray[np.float32],
        maps: tuple[NDArray[np.float32], NDArray[np.float32]],
        share: float,
    ) -> None:
        super().__init__()
        held = {
            "view_mean": view.mean,
            "view_matrix": view.matrix,
            "mean": feature[0],
            "sd": feature[1],
            "decode": maps[0],
            "metric": maps[1],
        }
        for name, value in held.items():
            self.register_buffer(name, torch.from_numpy(np.array(value, np.float32)))
        self.shares = (float(np.sqrt(1 - share)), float(np.sqrt(share)))

    # a few small maps: nothing to gain from eight bits
    exact = ("view_matrix", "decode", "metric")

    view_mean: Tensor
    view_matrix: Tensor
    mean: Tensor
    sd: Tensor
    decode: Tensor
    metric: Tensor

    def forward(self, windows: Tensor) -> Tensor:
        """(B, T, C) to (B, 1, p + F)."""
        b, t, c = windows.shape
        if t < TOKENS:
            raise DataError(f"a window needs {TOKENS} samples or more, not {t}", reason=Reason.WRONG_SHAPE)
        level = windows[:, : t - t % TOKENS].abs().reshape(b, TOKENS, t // TOKENS, c).mean(dim=2)
        seen = torch.matmul((level + _TINY).sqrt() - self.view_mean, self.view_matrix)
        segments = seen.reshape(b, SEGMENTS, TOKENS // SEGMENTS, c).mean(dim=2).flatten(1)
        around = seen - seen.mean(dim=1, keepdim=True)
        spread = around.square().mean(dim=1).sqrt()
        x = (torch.cat([segments, spread, level.mean(dim=1)], dim=1) - self.mean) / self.sd
        decoded = functional.normalize(torch.matmul(x, self.decode), dim=1, eps=_TINY)
        encoded = functional.normalize(torch.matmul(x, self.metric), dim=1, eps=_TINY)
        return torch.cat([self.shares[0] * decoded, self.shares[1] * encoded], dim=1)[:, None, :]


class BendGraph(nn.Module):
    """Postures to unit vectors; holds no trainable parameter.

    Args:
        joint: Origin and scale of each joint, (2, J).
        bend: Mean of the bends, (2 J,).
        encode: Bends to the encoding side, (2 J, F).
        share: Weight of the encoding side, 0..1.
    """

    def __init__(
        self, joint: NDArray[np.float32], bend: NDArray[np.float32], encode: NDArray[np.float32], share: float
    ) -> None:
        super().__init__()
        held = {"origin": joint[0], "scale": joint[1], "bend": bend, "encode": encode}
        for name, value in held.items():
            self.register_buffer(name, torch.from_numpy(np.array(value, np.float32)))
        self.shares = (float(np.sqrt(1 - share)), float(np.sqrt(share)))

    origin: Tensor
    scale: Tensor
    bend: Tensor
    encode: Tensor

    def forward(self, poses: Tensor) -> Tensor:
        """(B, Tp, J) to (B, 2 J + F)."""
        y = (poses.mean(dim=1) - self.origin) / self.scale
        bends = torch.cat([y.clamp(min=0), (-y).clamp(min=0)], dim=1) - self.bend
        decoded = functional.normalize(bends, dim=1, eps=_TINY)
        encoded = functional.normalize(torch.matmul(bends, self.encode), dim=1, eps=_TINY)
        return torch.cat([self.shares[0] * decoded, self.shares[1] * encoded], dim=1)
