"""The EMG side of a model a patch at a time: what was computed of older patches is state, in and out.

The state of a stream that has run for a window's length is that of the window, whatever was there before, so a stream
needs no reset: after a start or a gap it has to be fed one window's worth before its answers count.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embridge_cloud.learn.encoders import Block, Encoder
from embridge_cloud.learn.linear import FAINT, LinearPath
from embridge_cloud.learn.model import Bridge
from embridge_cloud.learn.qformer import QFormer, QFormerLayer, SummaryReader
from embridge_shared.errors import ConfigError

KEYS = "keys"
READ = "read"
LEVELS = "levels"


class StreamGraph(nn.Module):
    """One patch and the state to unit queries and the next state.

    Args:
        model: Its encoder must have a span.

    Raises:
        ConfigError: Its encoder sees whole windows.
    """

    # as of the whole window's graph
    exact = ("path.",)

    def __init__(self, model: Bridge) -> None:
        super().__init__()
        if not model.emg.span:
            raise ConfigError("the encoder sees whole windows", hint="Train it with encoder.span.")
        self.emg = model.emg
        self.path = None if model.path is None else PathStep(model.path, model.config.emg.tokens)
        if isinstance(model.qformer, QFormer):
            self.reader: QueryStep | SummaryStep = QueryStep(model.qformer, model.emg)
        else:
            self.reader = SummaryStep(model.qformer, model.emg)

    def state(self) -> dict[str, Tensor]:
        """The state a stream starts from, by name."""
        width, depth = self.emg.norm.normalized_shape[0], len(self.emg.blocks)
        made = {
            KEYS: torch.zeros(depth, self.emg.span - 1, 2 * width),
            READ: torch.zeros(self.reader.rows, len(self.emg.age) - 1, self.reader.width),
        }
        if self.path is not None:
            made[LEVELS] = torch.zeros(1, self.path.tokens - 1, self.path.values)
        return made

    def forward(self, patch: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """(1, patch, C) and the state to queries (1, M, d) and the next state, in the order of `state`."""
        patches = self.emg.patches(patch)
        keys, read, *levels = state
        x = self.emg.embed(patches)
        angle = torch.arange(self.emg.span)[:, None] * self.emg.rate
        seen = []
        for layer, block in enumerate(cast("list[Block]", list(self.emg.blocks))):
            x, kept = block.step(x, keys[layer : layer + 1], angle)
            seen.append(kept)
        states, read = self.reader(self.emg.norm(x), read)
        if self.path is None:
            return self.reader.project(states, None), torch.cat(seen), read
        base, level = self.path(patches, levels[0])
        return self.reader.project(states, base), torch.cat(seen), read, level


class QueryStep(nn.Module):
    """The Q-Former over the newest tokens, whose keys and values it keeps.

    Args:
        qformer: Trained.
        emg: Whose tokens it reads.
    """

    age_kv: Tensor
    mean_kv: Tensor

    def __init__(self, qformer: QFormer, emg: Encoder) -> None:
        super().__init__()
        self.qformer = qformer
        cross = [layer.cross for layer in qformer.stack() if layer.cross is not None]
        self.rows = len(cross)
        self.width = 2 * emg.norm.normalized_shape[0]
        with torch.no_grad():
            self.register_buffer("age_kv", torch.stack([c.kv(emg.age) for c in cross])[:, None])
            self.register_buffer("mean_kv", torch.stack([c.kv(emg.summary) for c in cross])[:, None, None])

    def forward(self, token: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
        """A token (1, 1, d) and keys and values of those before, (crosses, K - 1, 2 d), to states and the next ones."""
        x = self.qformer.queries[None]
        kept, crossed = [], 0
        for layer in self._layers():
            if layer.cross is None:
                x = layer.read_kv(x, None)
                continue
            # without their bias, which comes with the ages: the reader is linear in its tokens
            own = torch.matmul(token, layer.cross.kv.weight.T)
            kv = torch.cat([read[crossed : crossed + 1], own], dim=1)
            kept.append(kv[:, 1:])
            mean = kv.mean(dim=1, keepdim=True) + self.mean_kv[crossed]
            x = layer.read_kv(x, torch.cat([mean, kv + self.age_kv[crossed]], dim=1))
            crossed += 1
        return self.qformer.norm(x), torch.cat(kept)

    def project(self, states: Tensor, base: Tensor | None) -> Tensor:
        """As of the Q-Former."""
        return self.qformer.project(states, base)

    def _layers(self) -> list[QFormerLayer]:
        return self.qformer.stack()


class SummaryStep(nn.Module):
    """The mean of the newest tokens."""

    rows = 1

    def __init__(self, reader: SummaryReader, emg: Encoder) -> None:
        super().__init__()
        self.reader = reader
        self.summary = emg.summary
        self.width = emg.norm.normalized_shape[0]

    def forward(self, token: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
        """A token (1, 1, d) and those before, (1, K - 1, d), to the summary (1, 1, d) and the next ones."""
        tokens = torch.cat([read, token], dim=1)
        return tokens.mean(dim=1, keepdim=True) + self.summary, tokens[:, 1:]

    def project(self, states: Tensor, base: Tensor | None) -> Tensor:
        """As of the reader."""
        return self.reader.project(states, base)


class PathStep(nn.Module):
    """The linear path over what each patch adds to its features: mean level, and where rich mean and variance.

    Args:
        path: Fitted.
        tokens: Patches of a window.
    """

    def __init__(self, path: LinearPath, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.patch, self.rich = path.patch, path.rich
        self.channels = path.weight.shape[0] // (path.pool.shape[0] + path.rich)
        self.values = self.channels * (3 if path.rich else 1)
        for name in ("pool", "mean", "sd", "weight"):
            self.register_buffer(name, getattr(path, name))

    pool: Tensor
    mean: Tensor
    sd: Tensor
    weight: Tensor

    def forward(self, patches: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        """A patch (1, 1, patch * C) and figures of those before, (1, L - 1, values), to (1, 1, d) and the next ones."""
        samples = patches.reshape(1, self.patch, self.channels)
        own = [samples.abs().mean(dim=1, keepdim=True)]
        if self.rich:
            own += [samples.mean(dim=1, keepdim=True), samples.var(dim=1, keepdim=True, correction=0)]
        rows = torch.cat([levels, torch.cat(own, dim=2)], dim=1)
        pooled = torch.matmul(self.pool, rows[:, :, : self.channels])
        if self.rich:
            pooled = torch.cat([pooled.sqrt(), self._spread(rows)], dim=1)
        x = (pooled.flatten(1) - self.mean) / self.sd
        return torch.matmul(x, self.weight)[:, None, :], rows[:, 1:]

    def _spread(self, rows: Tensor) -> Tensor:
        """Log deviation of each channel over the window, from its patches' means and variances."""
        _, means, variances = rows.chunk(3, dim=2)
        variance = variances.mean(dim=1, keepdim=True) + means.var(dim=1, keepdim=True, correction=0)
        n = self.tokens * self.patch
        return torch.log((variance * (n / (n - 1))).sqrt() + FAINT)


@torch.no_grad()
def run_stream(graph: StreamGraph, recording: NDArray[np.float32]) -> NDArray[np.float32]:
    """Queries after each patch of a recording, float32 (n, C) to (n // patch, M, d); the first window's are noise."""
    state = tuple(graph.state().values())
    signal = graph.emg.signal
    whole = len(recording) // signal.patch * signal.patch
    out = []
    for patch in torch.from_numpy(recording[:whole]).reshape(-1, 1, signal.patch, recording.shape[1]):
        queries, *rest = graph(patch, *state)
        state = tuple(rest)
        out.append(queries.numpy())
    return np.concatenate(out)
