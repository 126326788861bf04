"""The Q-Former: learnt queries that read EMG tokens and must be able to rebuild the pose.

Self-attention, feed-forward and norms start as the pose encoder's; cross-attention starts at random.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from embridge_cloud.learn.config import EncoderConfig, QFormerConfig
from embridge_cloud.learn.encoders import Attention, Block, Encoder, FeedForward, init_weights
from embridge_shared.errors import ModelError, Reason

FAINT = 0.25  # a base shorter than this is not scaled to unit length: it knows too little of the window


class QFormerLayer(Block):
    """A pose-encoder block with cross-attention for the query rows.

    Args:
        config: Size of the transformer.
        cross: Carry cross-attention.
        separate_ffn: Carry a feed-forward for the query rows.
    """

    def __init__(self, config: EncoderConfig, *, cross: bool, separate_ffn: bool) -> None:
        super().__init__(config)
        self.norm_cross = nn.LayerNorm(config.width) if cross else None
        self.cross = Attention(config.width, config.heads, cross=True) if cross else None
        self.norm_query_ffn = nn.LayerNorm(config.width) if separate_ffn else None
        self.query_ffn = FeedForward(config.width, config.mlp_ratio) if separate_ffn else None

    def read(self, queries: Tensor, context: Tensor) -> Tensor:
        """Queries attend to each other, then to the EMG tokens, then feed forward."""
        return self.read_kv(queries, None if self.cross is None else self.cross.kv(context))

    def read_kv(self, queries: Tensor, kv: Tensor | None) -> Tensor:
        """As `read`, from the EMG tokens' keys and values (B, n, 2 d); None where the layer has no cross-attention."""
        x = queries + self.attention(self.norm_attention(queries))
        if self.cross is not None and self.norm_cross is not None and kv is not None:
            x = x + self.cross.attend(self.norm_cross(x), kv)
        return torch.add(x, self._query_ffn(x))

    def rebuild(self, x: Tensor, queries: int, mask: Tensor) -> Tensor:
        """[queries; pose tokens] without any cross-attention."""
        x = x + self.attention(self.norm_attention(x), mask=mask)
        if self.query_ffn is None:
            return torch.add(x, self.ffn(self.norm_ffn(x)))
        head, tail = x[:, :queries], x[:, queries:]
        return torch.cat([head + self._query_ffn(head), tail + self.ffn(self.norm_ffn(tail))], dim=1)

    def _query_ffn(self, x: Tensor) -> Tensor:
        """Feed-forward of query rows."""
        if self.query_ffn is None or self.norm_query_ffn is None:
            y: Tensor = self.ffn(self.norm_ffn(x))
        else:
            y = self.query_ffn(self.norm_query_ffn(x))
        return y


class QFormer(nn.Module):
    """Queries, their projection into the pose space, and the head that rebuilds masked pose patches.

    Args:
        pose: The pre-trained pose encoder, whose blocks and final norm are copied.
        encoder: Its size; depth and width are shared.
        config: Number of queries and where cross-attention sits.
        reach: How far a query may stray from a base of unit length.
    """

    def __init__(self, pose: Encoder, encoder: EncoderConfig, config: QFormerConfig, *, reach: float = 1.0) -> None:
        super().__init__()
        self.reach = reach
        width = encoder.width
        self.config = config
        self.queries = nn.Parameter(torch.empty(config.queries, width))
        self.layers = nn.ModuleList(
            QFormerLayer(encoder, cross=i % config.cross_every == 0, separate_ffn=config.separate_ffn)
            for i in range(encoder.depth)
        )
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.rebuild_head = nn.Linear(width, pose.signal.patch * pose.signal.channels)
        for part in (self.projection, self.rebuild_head):
            part.apply(init_weights)
        for parameter in (self.queries, self.mask_token):
            nn.init.normal_(parameter, std=0.02)
        self._copy(pose)

    def _copy(self, pose: Encoder) -> None:
        """Take over blocks and norm; every copied tensor must exist on both sides with one shape."""
        if len(pose.blocks) != len(self.layers):
            raise ModelError(
                f"pose encoder has {len(pose.blocks)} blocks, Q-Former {len(self.layers)}",
                reason=Reason.INCOMPATIBLE,
            )
        for layer, block in zip(self.stack(), pose.blocks, strict=True):
            for part in ("norm_attention", "attention", "norm_ffn", "ffn"):
                getattr(layer, part).load_state_dict(getattr(block, part).state_dict(), strict=True)
            if layer.query_ffn is not None:
                layer.query_ffn = copy.deepcopy(layer.ffn)
                layer.norm_query_ffn = copy.deepcopy(layer.norm_ffn)
            if layer.cross is not None:
                for linear in (layer.cross.q, layer.cross.kv, layer.cross.out):
                    nn.init.normal_(linear.weight, std=0.02)
                    nn.init.zeros_(linear.bias)
        self.norm.load_state_dict(pose.norm.state_dict(), strict=True)

    def stack(self) -> list[QFormerLayer]:
        """The layers, first to last."""
        return cast("list[QFormerLayer]", list(self.layers))

    def forward(self, tokens: Tensor) -> Tensor:
        """EMG tokens (B, 1 + L, d) to query states Q' (B, M, d)."""
        x = self.queries.expand(tokens.shape[0], -1, -1)
        for layer in self.stack():
            x = layer.read(x, tokens)
        states: Tensor = self.norm(x)
        return states

    def project(self, states: Tensor, base: Tensor | None = None) -> Tensor:
        """Query states to unit vectors in the pose space.

        Args:
            states: (B, M, d).
            base: (B, 1, d): where each query starts; it then strays no further than `reach` from there, so that what
                the base knows of movements nobody recorded is not traded for those that were.

        Returns:
            (B, M, d).
        """
        return place_queries(self.projection(states), base, self.reach)

    def rebuild(self, states: Tensor, tokens: Tensor, masked: Tensor, position: Tensor) -> Tensor:
        """Predict pose patches from the queries and the visible pose tokens.

        Queries see queries only and never the EMG again, so what they carry is all the masked rows can use.

        Args:
            states: Q' (B, M, d).
            tokens: Embedded pose tokens with positions, (B, L, d).
            masked: bool (B, L), True where a token is hidden.
            position: Positions of the pose tokens, (L, d); a hidden token keeps its own.

        Returns:
            (B, L, patch * C).
        """
        m = states.shape[1]
        hidden = (self.mask_token + position).to(tokens.dtype)
        x = torch.cat([states, torch.where(masked[:, :, None], hidden, tokens)], dim=1)
        look = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device)
        look[:m, m:] = False
        for layer in self.stack():
            x = layer.rebuild(x, m, look)
        rebuilt: Tensor = self.rebuild_head(self.norm(x))
        return rebuilt[:, m:].float()


class SummaryReader(nn.Module):
    """The EMG encoder's summary, projected into the pose space by one layer; nothing else reads the EMG.

    Args:
        width: d.
        reach: How far the projection may stray from a base of unit length.
    """

    def __init__(self, width: int, *, reach: float = 1.0) -> None:
        super().__init__()
        self.reach = reach
        self.projection = nn.Linear(width, width)
        self.projection.apply(init_weights)

    def forward(self, tokens: Tensor) -> Tensor:
        """EMG tokens (B, 1 + L, d) to the summary (B, 1, d)."""
        return tokens[:, :1]

    def project(self, states: Tensor, base: Tensor | None = None) -> Tensor:
        """As of the Q-Former, with one state."""
        return place_queries(self.projection(states), base, self.reach)


def place_queries(projected: Tensor, base: Tensor | None, reach: float) -> Tensor:
    """Unit vectors (B, M, d) from projected states and, where there is one, the base they start from."""
    projected = projected.float()
    if base is None:
        return functional.normalize(projected, dim=-1)
    step = reach * projected / _length(projected).clamp(min=1.0)
    start = base.float() / _length(base.float()).clamp(min=FAINT)
    return functional.normalize(start + step, dim=-1)


def _length(x: Tensor) -> Tensor:
    """Euclidean length of the last axis, kept."""
    length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return length
