"""Several processes that train one model: who is here, which rows are whose, and sums over everyone.

Every process draws the same batches and the same random numbers and computes its own share of the rows, so that the
number of processes does not change what is learnt. Outside `shared_batch`, and in a process of its own, everything
here is the plain operation.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from embridge_shared.errors import ConfigError

_TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Share:
    """The part of a batch that is this process's.

    Attributes:
        start: First row.
        stop: Row after the last.
        total: Rows of the whole batch.
        world: Processes.
    """

    start: int
    stop: int
    total: int
    world: int


_share: ContextVar[Share | None] = ContextVar("share", default=None)


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Meet the other processes `torchrun` started, for as long as the block lasts; nothing happens without it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        yield
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def size() -> int:
    """Processes that train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Number of this process."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def local_rank() -> int:
    """Number of this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def share_of(total: int) -> Share:
    """This process's rows of a batch of `total`.

    Raises:
        ConfigError: Some process would have none.
    """
    world, me = size(), rank()
    if total < world:
        raise ConfigError(f"a batch of {total} cannot be shared by {world} processes", hint="Start fewer processes.")
    return Share(me * total // world, (me + 1) * total // world, total, world)


@contextmanager
def shared_batch(total: int) -> Iterator[Share]:
    """Compute on this process's rows of a batch of `total`."""
    share = share_of(total)
    token = _share.set(share if share.world > 1 else None)
    try:
        yield share
    finally:
        _share.reset(token)


def rand(*shape: int, device: torch.device | None = None) -> Tensor:
    """`torch.rand` with one row a window: the rows a single process would have drawn for these windows."""
    return _rows(torch.rand, shape, device)


def randn(*shape: int, device: torch.device | None = None) -> Tensor:
    """`torch.randn`, likewise."""
    return _rows(torch.randn, shape, device)


def randint(low: int, high: int, shape: tuple[int, ...], *, device: torch.device | None = None) -> Tensor:
    """`torch.randint`, likewise."""
    share = _share.get()
    if share is None:
        return torch.randint(low, high, shape, device=device)
    return torch.randint(low, high, (share.total, *shape[1:]), device=device)[share.start : share.stop]


def _rows(draw: Any, shape: tuple[int, ...], device: torch.device | None) -> Tensor:
    share = _share.get()
    if share is None:
        drawn: Tensor = draw(*shape, device=device)
        return drawn
    every: Tensor = draw(share.total, *shape[1:], device=device)
    return every[share.start : share.stop]


class Dropout(nn.Dropout):
    """Dropout whose mask does not depend on the number of processes."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, ...) to (B, ...)."""
        if not self.training or self.p == 0:
            return input
        share = _share.get()
        if share is None:
            return super().forward(input)
        ones = input.new_ones(share.total, *input.shape[1:])
        return input * functional.dropout(ones, self.p)[share.start : share.stop]


class _Gather(torch.autograd.Function):
    """Rows of all processes; a gradient flows to the own rows.

    Each process computes the same loss on all rows and gradients are averaged afterwards, hence the factor.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, share: Share) -> Tensor:
        ctx.share = share
        return _collect(x, share)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        share: Share = ctx.share
        return grads[0][share.start : share.stop] * share.world, None


def _collect(x: Tensor, share: Share) -> Tensor:
    """All rows in the order of the batch; shares differ by one row at most."""
    most = -(-share.total // share.world)
    mine = x.new_zeros(most, *x.shape[1:])
    mine[: len(x)] = x
    parts = [torch.empty_like(mine) for _ in range(share.world)]
    distributed.all_gather(parts, mine)
    lengths = [(i + 1) * share.total // share.world - i * share.total // share.world for i in range(share.world)]
    return torch.cat([part[:n] for part, n in zip(parts, lengths, strict=True)])


def gather(x: Tensor) -> Tensor:
    """Own rows (b, ...) to the rows of the whole batch (B, ...), with a gradient for the own ones."""
    share = _share.get()
    if share is None:
        return x
    gathered: Tensor = _Gather.apply(x, share)  # type: ignore[no-untyped-call]
    return gathered


def gather_constant(x: Tensor) -> Tensor:
    """Own rows (b, ...) to the rows of the whole batch (B, ...), without a gradient."""
    share = _share.get()
    return x if share is None else _collect(x.detach(), share)


def mean(value: Tensor) -> Tensor:
    """A mean over the own rows to that over the whole batch, with the gradient of the own part."""
    share = _share.get()
    if share is None:
        return value
    own = value * ((share.stop - share.start) * share.world / share.total)
    every = own.detach().clone()
    distributed.all_reduce(every)
    return own + (every / share.world - own).detach()


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their average over all processes, in one message a type."""
    if size() == 1:
        return
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for p in parameters:
        if p.grad is not None:
            by_type.setdefault(p.grad.dtype, []).append(p.grad)
    for grads in by_type.values():
        flat = torch.cat([g.flatten() for g in grads])
        distributed.all_reduce(flat)
        flat /= size()
        at = 0
        for grad in grads:
            grad.copy_(flat[at : at + grad.numel()].view_as(grad))
            at += grad.numel()


def same_everywhere(module: nn.Module) -> None:
    """Give every process the weights of the first."""
    if size() > 1:
        for value in module.state_dict().values():
            distributed.broadcast(value, 0)


def from_first(value: float, device: torch.device) -> float:
    """The value of the first process."""
    if size() == 1:
        return value
    told = torch.tensor(value, dtype=torch.float64, device=device)
    distributed.broadcast(told, 0)
    return float(told)
