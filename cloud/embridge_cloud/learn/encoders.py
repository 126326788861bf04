"""Transformers over temporal patches with a summary token, and their masked auto-encoding.

Shapes: B windows, T samples, C channels, L = T / patch tokens, d width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from embridge_cloud.learn.config import EncoderConfig, MaeConfig, SignalConfig


def patchify(x: Tensor, patch: int) -> Tensor:
    """(B, T, C) to (B, T / patch, patch * C)."""
    b, t, c = x.shape
    return x.reshape(b, t // patch, patch * c)


def positions(tokens: int, width: int) -> Tensor:
    """Fixed sine and cosine positions, (tokens, width)."""
    rate = torch.exp(torch.arange(width // 2) * (-math.log(10_000.0) / (width // 2)))
    angle = torch.arange(tokens)[:, None] * rate[None, :]
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class Attention(nn.Module):
    """Multi-head attention of rows on rows of the same sequence, or on another one.

    Args:
        width: d.
        heads: Number of heads.
        cross: Keys and values come from elsewhere.
    """

    def __init__(self, width: int, heads: int, *, cross: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.cross = cross
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Attend; `mask` is boolean (rows, keys), True where a row may look."""
        source = x if context is None else context
        q = self._split(self.q(x))
        k, v = self.kv(source).chunk(2, dim=-1)
        y = functional.scaled_dot_product_attention(q, self._split(k), self._split(v), attn_mask=mask)
        attended: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return attended

    def _split(self, x: Tensor) -> Tensor:
        """(B, n, d) to (B, heads, n, d / heads)."""
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)


class FeedForward(nn.Module):
    """Two linear maps with GELU between."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, ratio * width)
        self.contract = nn.Linear(ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) to (..., d)."""
        y: Tensor = self.contract(functional.gelu(self.expand(x)))
        return y


class Block(nn.Module):
    """Pre-norm self-attention and feed-forward."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(config.width)
        self.attention = Attention(config.width, config.heads)
        self.norm_ffn = nn.LayerNorm(config.width)
        self.ffn = FeedForward(config.width, config.mlp_ratio)
        self.dropout = nn.Dropout(0.0)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, n, d) to (B, n, d)."""
        x = x + self.dropout(self.attention(self.norm_attention(x), mask=mask))
        return torch.add(x, self.dropout(self.ffn(self.norm_ffn(x))))


class Encoder(nn.Module):
    """Windows of one modality to a summary token and L tokens.

    The train split's statistics live in the buffers `offset` and `scale`, so that they travel with the weights.

    Args:
        signal: Shape of the windows.
        config: Size of the transformer.
    """

    offset: Tensor
    scale: Tensor
    position: Tensor

    def __init__(self, signal: SignalConfig, config: EncoderConfig) -> None:
        super().__init__()
        self.signal = signal
        self.register_buffer("offset", torch.zeros(signal.channels))
        self.register_buffer("scale", torch.ones(signal.channels))
        self.register_buffer("position", positions(signal.tokens + 1, config.width), persistent=False)
        self.patch_embed = nn.Linear(signal.patch * signal.channels, config.width)
        self.summary = nn.Parameter(torch.zeros(config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        self.apply(init_weights)
        nn.init.normal_(self.summary, std=0.02)

    def patches(self, x: Tensor) -> Tensor:
        """Standardised patches: (B, T, C) to (B, L, patch * C)."""
        z = ((x - self.offset) / self.scale).clamp(-self.signal.clip, self.signal.clip)
        return patchify(z, self.signal.patch)

    def embed(self, patches: Tensor) -> Tensor:
        """Tokens before the first block, with their positions: (B, L, d)."""
        tokens: Tensor = self.patch_embed(patches)
        return tokens + self.position[1:]

    def run(self, tokens: Tensor) -> Tensor:
        """[summary; tokens] through the blocks: (B, n, d) to (B, n + 1, d)."""
        head = (self.summary + self.position[0]).expand(tokens.shape[0], 1, -1)
        x = torch.cat([head, tokens], dim=1)
        for block in self.blocks:
            x = block(x)
        normed: Tensor = self.norm(x)
        return normed

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, 1 + L, d); row 0 is the summary."""
        return self.run(self.embed(self.patches(x)))


def init_weights(module: nn.Module) -> None:
    """Xavier-uniform maps, zero biases, unit norms."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


def set_dropout(module: nn.Module, p: float) -> None:
    """Give every dropout layer of `module` the probability `p`."""
    for child in module.modules():
        if isinstance(child, nn.Dropout):
            child.p = p


class MaskedAutoencoder(nn.Module):
    """Reconstruct masked patches from the visible ones.

    The encoder sees visible tokens only; a small decoder sees them beside mask tokens and is thrown away afterwards.

    Args:
        encoder: What is pre-trained, in place.
        config: Mask ratio, decoder size and targets.
    """

    position: Tensor

    def __init__(self, encoder: Encoder, config: MaeConfig) -> None:
        super().__init__()
        signal, width = encoder.signal, encoder.norm.normalized_shape[0]
        small = EncoderConfig(width=config.decoder_width, depth=config.decoder_depth, heads=config.decoder_heads)
        self.encoder = encoder
        self.config = config
        self.reduce = nn.Linear(width, small.width)
        self.mask_token = nn.Parameter(torch.zeros(small.width))
        self.register_buffer("position", positions(signal.tokens + 1, small.width), persistent=False)
        self.blocks = nn.ModuleList(Block(small) for _ in range(small.depth))
        self.norm = nn.LayerNorm(small.width)
        self.head = nn.Linear(small.width, signal.patch * signal.channels)
        self.mean_head = nn.Linear(width, signal.channels)
        for part in (self.reduce, self.blocks, self.head, self.mean_head):
            part.apply(init_weights)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and masked error of one batch.

        Args:
            x: (B, T, C).

        Returns:
            The loss to minimise and the mean squared error on masked patches.
        """
        patches = self.encoder.patches(x)
        b, tokens, _ = patches.shape
        visible = max(1, round(tokens * (1 - self.config.ratio)))
        order = torch.rand(b, tokens, device=x.device).argsort(dim=1)
        keep = order[:, :visible, None]
        embedded = self.encoder.embed(patches)
        coded = self.encoder.run(embedded.gather(1, keep.expand(-1, -1, embedded.shape[2])))
        error = (self.decode(coded, keep) - self._target(patches)).square().mean(dim=2)
        masked = error.gather(1, order[:, visible:]).mean()
        if self.config.summary == 0:
            return masked, masked.detach()
        means = patches.reshape(b, tokens * self.encoder.signal.patch, -1).mean(dim=1)
        summary = functional.mse_loss(self.mean_head(coded[:, 0]), means)
        return masked + self.config.summary * summary, masked.detach()

    def decode(self, coded: Tensor, keep: Tensor) -> Tensor:
        """Every patch, from the coded summary and visible tokens: (B, L, patch * C)."""
        small = self.reduce(coded)
        b, tokens = small.shape[0], self.position.shape[0] - 1
        full = self.mask_token.to(small.dtype).expand(b, tokens, -1)
        full = full.scatter(1, keep.expand(-1, -1, small.shape[2]), small[:, 1:])
        y = torch.cat([small[:, :1], full], dim=1) + self.position
        for block in self.blocks:
            y = block(y)
        rebuilt: Tensor = self.head(self.norm(y))
        return rebuilt[:, 1:].float()

    def _target(self, patches: Tensor) -> Tensor:
        """What is reconstructed."""
        if not self.config.normalise_target:
            return patches
        mean, sd = patches.mean(dim=2, keepdim=True), patches.std(dim=2, keepdim=True)
        return (patches - mean) / (sd + 1e-6)
