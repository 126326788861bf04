"""Transformers over temporal patches with a summary token, and their masked auto-encoding.

Shapes: B windows, T samples, C channels, L = T / patch tokens, d width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from embridge_cloud.learn import world
from embridge_cloud.learn.config import EncoderConfig, MaeConfig, SignalConfig
from embridge_cloud.learn.electrodes import even_ring, places_of, split_electrodes
from embridge_cloud.learn.spectrum import LogSpectrum
from embridge_shared.errors import DataError, Reason

TINY = 1e-6
_TURNS = 100.0  # tokens in which the slowest pair of values turns by 1 rad


def patchify(x: Tensor, patch: int) -> Tensor:
    """(B, T, C) to (B, T / patch, patch * C)."""
    b, t, c = x.shape
    return x.reshape(b, t // patch, patch * c)


def positions(tokens: int, width: int) -> Tensor:
    """Fixed sine and cosine positions, (tokens, width)."""
    rate = torch.exp(torch.arange(width // 2) * (-math.log(10_000.0) / (width // 2)))
    angle = torch.arange(tokens)[:, None] * rate[None, :]
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def turned(x: Tensor, angle: Tensor) -> Tensor:
    """Rotate pairs of values, so that a product of two rows depends on how far apart they are and not on where.

    Args:
        x: (B, heads, n, h).
        angle: rad, broadcast to (B, heads, n, h / 2).
    """
    a, b = x.chunk(2, dim=-1)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


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

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None, *, angle: Tensor | None = None
    ) -> Tensor:
        """Attend.

        Args:
            x: (B, n, d).
            context: Where keys and values come from, (B, m, d); None is `x`.
            mask: Boolean (rows, keys), True where a row may look.
            angle: By which each row is turned, see `turned`; None leaves positions to the rows themselves.
        """
        return self.attend(x, self.kv(x if context is None else context), mask=mask, angle=angle)

    def attend(self, x: Tensor, kv: Tensor, *, mask: Tensor | None = None, angle: Tensor | None = None) -> Tensor:
        """Attend to keys and values side by side, (B, m, 2 d); `angle` is that of all keys, the last ones' of rows."""
        q = self._split(self.q(x))
        k, v = (self._split(part) for part in kv.chunk(2, dim=-1))
        if angle is not None:
            q, k = turned(q, angle[..., -x.shape[1] :, :]), turned(k, angle)
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
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
        self.dropout = world.Dropout(0.0)

    def forward(self, x: Tensor, mask: Tensor | None = None, angle: Tensor | None = None) -> Tensor:
        """(B, n, d) to (B, n, d)."""
        x = x + self.dropout(self.attention(self.norm_attention(x), mask=mask, angle=angle))
        return torch.add(x, self.dropout(self.ffn(self.norm_ffn(x))))

    def step(self, x: Tensor, past: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
        """One row more.

        Args:
            x: (B, 1, d).
            past: Keys and values of the rows before that it sees, (B, m, 2 d).
            angle: Of those rows and this one, (m + 1, h / 2).

        Returns:
            The row, (B, 1, d), and what the next one sees, (B, m, 2 d).
        """
        normed = self.norm_attention(x)
        kv = torch.cat([past, self.attention.kv(normed)], dim=1)
        x = x + self.attention.attend(normed, kv, angle=angle)
        return torch.add(x, self.ffn(self.norm_ffn(x))), kv[:, 1:]


class Encoder(nn.Module):
    """Windows of one modality to a summary token and L tokens.

    The train split's statistics live in the buffers `offset` and `scale`, so that they travel with the weights. With
    tokens of single electrodes there are L * C of them, electrodes innermost, and windows of any C are read.

    With a span a token sees only itself and span - 1 tokens before it, and what it becomes does not depend on where a
    window begins. The window then gives the tokens alone whose past it holds, K = L - depth * (span - 1), with their
    age added, and their mean as the summary: the same as a stream that has run for long.

    Args:
        signal: Shape of the windows.
        config: Size of the transformer.
    """

    offset: Tensor
    scale: Tensor
    position: Tensor
    places: Tensor
    rate: Tensor
    age: Tensor

    def __init__(self, signal: SignalConfig, config: EncoderConfig) -> None:
        super().__init__()
        self.signal = signal
        self.span = 0 if signal.electrodes is not None else config.span
        half = config.width // config.heads // 2
        read = signal.tokens - config.before if self.span else 0
        self.register_buffer("rate", _TURNS ** -(torch.arange(half) / half), persistent=False)
        self.register_buffer("age", positions(read, config.width), persistent=False)
        self.register_buffer("offset", torch.zeros(signal.channels))
        self.register_buffer("scale", torch.ones(signal.channels))
        self.register_buffer("position", positions(signal.tokens + 1, config.width), persistent=False)
        self.register_buffer("places", places_of(signal), persistent=False)
        one = signal.electrodes is not None
        self.patch_embed = nn.Linear(signal.patch * (1 if one else signal.channels), config.width)
        self.place_embed = nn.Linear(self.places.shape[1], config.width) if one else None
        self.summary = nn.Parameter(torch.zeros(config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        self.apply(init_weights)
        nn.init.normal_(self.summary, std=0.02)

    def patches(self, x: Tensor) -> Tensor:
        """Standardised patches: (B, T, C) to (B, L, patch * C)."""
        offset, scale = self.offset, self.scale
        if x.shape[2] != len(offset):
            if self.place_embed is None:
                raise DataError(
                    f"the encoder reads {len(offset)} channels, not {x.shape[2]}",
                    reason=Reason.WRONG_SHAPE,
                    hint="Train it with electrode tokens to read any band.",
                )
            offset, scale = offset.mean(), scale.mean()
        z = ((x - offset) / scale).clamp(-self.signal.clip, self.signal.clip)
        return patchify(z, self.signal.patch)

    def embed(self, patches: Tensor, places: Tensor | None = None) -> Tensor:
        """Tokens before the first block, with their positions: (B, L, d), or (B, L * C, d) of single electrodes.

        Args:
            patches: (B, L, patch * C).
            places: Features of each electrode's place; None takes the encoder's own, or an even ring where the number
                of electrodes is another.
        """
        if self.signal.power != 1:
            patches = patches.sign() * (patches.abs() + TINY).pow(self.signal.power)
        if self.place_embed is None:
            tokens: Tensor = self.patch_embed(patches)
            return tokens if self.span else tokens + self.position[1:]
        units: Tensor = self.patch_embed(split_electrodes(patches, self.signal.patch))
        where: Tensor = self.place_embed(self._placed(patches, places))
        position = self.position[1:, None, :] + where[None, :, :]
        return units + position.flatten(0, 1)

    def _placed(self, patches: Tensor, places: Tensor | None) -> Tensor:
        """Features of the places of the electrodes that made the patches."""
        channels = patches.shape[2] // self.signal.patch
        if places is not None:
            return places.to(patches.device)
        if self.signal.electrodes is None or channels == self.signal.channels:
            return self.places
        return even_ring(channels, self.signal.electrodes).to(patches.device)

    def run(self, tokens: Tensor, index: Tensor | None = None) -> Tensor:
        """[summary; tokens] through the blocks: (B, n, d) to (B, n + 1, d), or of a whole window to (B, K + 1, d).

        Args:
            tokens: (B, n, d).
            index: Which tokens of the window they are, (B, n); None where it is whole.
        """
        if self.span:
            return self._run_span(tokens, index)
        head = (self.summary + self.position[0]).expand(tokens.shape[0], 1, -1)
        x = torch.cat([head, tokens], dim=1)
        for block in self.blocks:
            x = block(x)
        normed: Tensor = self.norm(x)
        return normed

    def read(self, tokens: Tensor) -> Tensor:
        """What a reader is given of the newest K tokens (B, K, d): their mean and each with its age, (B, K + 1, d)."""
        summary = tokens.mean(dim=1, keepdim=True) + self.summary
        return torch.cat([summary, tokens + self.age], dim=1)

    def _run_span(self, tokens: Tensor, index: Tensor | None) -> Tensor:
        at = torch.arange(tokens.shape[1], device=tokens.device)[None] if index is None else index
        apart = at[:, :, None] - at[:, None, :]
        look = ((apart >= 0) & (apart < self.span))[:, None]
        angle = at[:, None, :, None] * self.rate
        x = tokens
        for block in self.blocks:
            x = block(x, look, angle)
        x = self.norm(x)
        if index is None:
            return self.read(x[:, -len(self.age) :])
        return torch.cat([x.mean(dim=1, keepdim=True) + self.summary, x], dim=1)

    def forward(self, x: Tensor, places: Tensor | None = None) -> Tensor:
        """(B, T, C) to (B, 1 + L, d), or (B, 1 + L * C, d) of single electrodes; row 0 is the summary."""
        return self.run(self.embed(self.patches(x), places))


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
    """Reconstruct masked patches, or their spectra, from the visible ones.

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
        self.spectrum = LogSpectrum(signal, config) if config.target == "spectrum" else None
        values = signal.patch if self.spectrum is None else self.spectrum.bands
        self.reduce = nn.Linear(width, small.width)
        self.mask_token = nn.Parameter(torch.zeros(small.width))
        self.register_buffer("position", positions(signal.tokens + 1, small.width), persistent=False)
        one = signal.electrodes is not None
        self.place_embed = nn.Linear(encoder.places.shape[1], small.width) if one else None
        self.blocks = nn.ModuleList(Block(small) for _ in range(small.depth))
        self.norm = nn.LayerNorm(small.width)
        self.head = nn.Linear(small.width, values * (1 if one else signal.channels))
        self.mean_head = nn.Linear(width, signal.channels)
        for part in (self.reduce, self.blocks, self.head, self.mean_head, self.place_embed):
            if part is not None:
                part.apply(init_weights)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and masked error of one batch.

        Args:
            x: (B, T, C).

        Returns:
            The loss to minimise and the mean squared error on masked tokens.
        """
        patches = self.encoder.patches(x)
        embedded = self.encoder.embed(patches)
        b, tokens, width = embedded.shape
        visible = max(1, round(tokens * (1 - self.config.ratio)))
        order = world.rand(b, tokens, device=x.device).argsort(dim=1)
        keep = order[:, :visible, None]
        coded = self.encoder.run(embedded.gather(1, keep.expand(-1, -1, width)), order[:, :visible])
        error = (self.decode(coded, keep) - self.target(patches)).square().mean(dim=2)
        masked = error.gather(1, order[:, visible:]).mean()
        if self.config.summary == 0:
            return masked, masked.detach()
        means = patches.reshape(b, self.encoder.signal.window, -1).mean(dim=1)
        summary = functional.mse_loss(self.mean_head(coded[:, 0]), means)
        return masked + self.config.summary * summary, masked.detach()

    def decode(self, coded: Tensor, keep: Tensor) -> Tensor:
        """What every token is predicted to be, from the coded summary and visible tokens: (B, tokens, values)."""
        small = self.reduce(coded)
        where = self._positions()
        full = self.mask_token.to(small.dtype).expand(len(small), len(where) - 1, -1)
        full = full.scatter(1, keep.expand(-1, -1, small.shape[2]), small[:, 1:])
        y = torch.cat([small[:, :1], full], dim=1) + where
        for block in self.blocks:
            y = block(y)
        rebuilt: Tensor = self.head(self.norm(y))
        return rebuilt[:, 1:].float()

    def target(self, patches: Tensor) -> Tensor:
        """What is predicted of each token: (B, tokens, values)."""
        values = patches if self.spectrum is None else self.spectrum(patches)
        if self.place_embed is not None:
            values = split_electrodes(values, values.shape[2] // self.encoder.signal.channels)
        if not self.config.normalise_target or self.spectrum is not None:
            return values
        mean, sd = values.mean(dim=2, keepdim=True), values.std(dim=2, keepdim=True)
        return (values - mean) / (sd + 1e-6)

    def _positions(self) -> Tensor:
        """Positions of the summary and of every token, (1 + tokens, width)."""
        if self.place_embed is None:
            return self.position
        where: Tensor = self.place_embed(self.encoder.places)
        tokens = (self.position[1:, None, :] + where[None, :, :]).flatten(0, 1)
        return torch.cat([self.position[:1], tokens])
