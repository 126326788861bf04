"""Batches: which rows come next, with a state that can be kept, and tensors made ready beside the training."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embridge_shared.errors import DataError, Reason

Batch = tuple[Tensor, ...]
State = dict[str, Any]
Fetch = Callable[[NDArray[np.int64]], Batch]
Pass = Callable[[np.random.Generator], Iterator[NDArray[np.int64]]]


class Sampler(Protocol):
    """Draws batches without end."""

    def draw(self) -> NDArray[np.int64]:
        """Rows of the next batch."""
        ...

    def state(self) -> State:
        """Where it stands, as JSON can hold it."""
        ...

    def restore(self, state: State) -> None:
        """Go back to where `state` was taken."""
        ...


class PassSampler:
    """Pass after pass over the data.

    Args:
        one_pass: Batches of one pass, from the generator it is given; an empty pass is an error.
        rng: Shared with whoever draws before and after; it moves on by whole passes.
    """

    def __init__(self, one_pass: Pass, rng: np.random.Generator) -> None:
        self._one_pass = one_pass
        self._rng = rng
        self._began: State | None = None
        self._drawn = 0
        self._batches: Iterator[NDArray[np.int64]] = iter(())

    def draw(self) -> NDArray[np.int64]:
        """Rows of the next batch.

        Raises:
            DataError: A pass has no batch.
        """
        rows = next(self._batches, None)
        if rows is None:
            self._begin()
            rows = next(self._batches, None)
            if rows is None:
                raise DataError("there is no batch in the data", reason=Reason.TOO_LITTLE_DATA)
        self._drawn += 1
        return rows

    def _begin(self) -> None:
        self._began, self._drawn = dict(self._rng.bit_generator.state), 0
        self._batches = self._one_pass(self._rng)

    def state(self) -> State:
        """The generator as it was when the pass began, and the batches drawn since."""
        return {"began": self._began, "drawn": self._drawn}

    def restore(self, state: State) -> None:
        """Begin the same pass again and leave out what was drawn of it."""
        if state["began"] is None:
            return
        self._rng.bit_generator.state = state["began"]
        self._begin()
        self._drawn = state["drawn"]
        deque(islice(self._batches, self._drawn), maxlen=0)


def shuffled(n: int, size: int) -> Pass:
    """Passes over `n` rows in random order, in batches of `size`; what is left over waits for another pass."""

    def one_pass(rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        order = rng.permutation(n)
        for at in range(0, n - size + 1, size):
            yield order[at : at + size]

    return one_pass


def rows_of(*arrays: NDArray[Any]) -> Fetch:
    """A fetch of the same rows of each array."""

    def fetch(rows: NDArray[np.int64]) -> Batch:
        return tuple(torch.from_numpy(np.ascontiguousarray(a[rows])) for a in arrays)

    return fetch


@dataclass(frozen=True, slots=True)
class Drawn:
    """A batch ready to be learnt from.

    Attributes:
        rows: Of the whole batch.
        batch: Tensors of the own rows, on the CPU.
        state: Of the sampler right after it was drawn.
    """

    rows: NDArray[np.int64]
    batch: Batch
    state: State


@contextmanager
def prefetched(make: Callable[[], Drawn], count: int, ahead: int) -> Iterator[Iterator[Drawn]]:
    """`count` batches, of which up to `ahead` are made in another thread while one is learnt from."""
    if ahead == 0:
        yield (make() for _ in range(count))
        return
    # one worker keeps the order of the draws
    with ThreadPoolExecutor(1, thread_name_prefix="feed") as worker:
        waiting: deque[Future[Drawn]] = deque()

        def ready() -> Iterator[Drawn]:
            asked = 0
            for _ in range(count):
                while asked < count and len(waiting) <= ahead:
                    waiting.append(worker.submit(make))
                    asked += 1
                yield waiting.popleft().result()

        try:
            yield ready()
        finally:
            worker.shutdown(wait=True, cancel_futures=True)
