"""Sources: whatever hands samples to the agent, EMG bands and pose sources alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import NDArray

from embridge_shared.session import BandState
from embridge_shared.signal import StreamSpec

_CHANGES = 1024


@dataclass(frozen=True, slots=True)
class Packet:
    """What a source delivers at once.

    Attributes:
        first: Index of the first sample; a jump past the previous packet's end is loss.
        samples: Raw samples, (n, channels), of the stream's dtype.
        host_ns: Arrival on the host's monotonic clock, ns.
        inferred: Where it lies was derived from when it came, for want of a counter: the gap before it is an estimate.
    """

    first: int
    samples: NDArray[Any]
    host_ns: int
    inferred: bool = False


class Changes:
    """States that a device entered, until they are asked for; of ever so many the last are kept. Any thread may add."""

    def __init__(self) -> None:
        self._entered: deque[tuple[int, BandState]] = deque(maxlen=_CHANGES)

    def add(self, host_ns: int, state: BandState) -> None:
        """Note that a state was entered at `host_ns` of the monotonic clock."""
        self._entered.append((host_ns, state))

    def take(self) -> list[tuple[int, BandState]]:
        """What was added since the last call, in order."""
        return [self._entered.popleft() for _ in range(len(self._entered))]


class Source(ABC):
    """One stream of samples.

    A source is opened once, iterated once and closed. `packets` ends when the source has nothing more to give and
    raises `DeviceError` when the device is gone.

    Attributes:
        follows: It has no end of its own: it is stopped when the session's first band ends.
    """

    follows: ClassVar[bool] = False

    @property
    @abstractmethod
    def spec(self) -> StreamSpec:
        """What it will deliver; known before it is opened."""

    @abstractmethod
    async def open(self, host_ns: int, first: int = 0) -> None:
        """Connect.

        Args:
            host_ns: The monotonic clock at the session's start, ns: replayed and simulated sources count from it.
            first: Samples before this index are not wanted: a session resumed after a crash has them. A source that
                can reach it without pacing does; the agent drops what comes before.

        Raises:
            DeviceError: The device cannot be reached.
        """

    @abstractmethod
    def packets(self) -> AsyncIterator[Packet]:
        """Deliver packets in order.

        Raises:
            DeviceError: The device is gone.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let the device go; safe to call twice."""

    async def reach(self) -> None:  # noqa: B027
        """Make sure that the device is there, before a session is begun; `close` lets it go again.

        Raises:
            DeviceError: It cannot be reached.
        """

    def stop(self) -> None:  # noqa: B027
        """End after what has come so far; a source that ends by itself need not."""

    def retry(self) -> None:  # noqa: B027
        """Look for a device that is away now, instead of when its turn comes."""

    def state(self) -> BandState | None:
        """What is known of the device; None where there is none."""
        return None

    def changes(self) -> list[tuple[int, BandState]]:
        """States the device entered since the last call, each with the host's monotonic time, ns; in order."""
        return []

    def watch(self, changed: Callable[[], object]) -> None:  # noqa: B027
        """Call `changed`, from any thread, when what is known of the device changes."""


class Band(Source):
    """A source of EMG."""


class PoseSource(Source):
    """A source of hand pose: joint angles, or glove sensors that map to them."""
