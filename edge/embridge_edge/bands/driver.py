"""What a driver is: a codec, a start sequence, and what its counters mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embridge_edge.bands.indexing import Counted, Indexer
from embridge_edge.bands.info import BandInfo
from embridge_edge.bands.protocol.octets import BATTERY_LEVEL
from embridge_shared.errors import ConfigError, DeviceError, OperatorError, Reason
from embridge_shared.signal import StreamSpec

if TYPE_CHECKING:
    from bleak.backends.device import BLEDevice
    from bleak.backends.scanner import AdvertisementData

    from embridge_edge.ble.link import Link


@dataclass(frozen=True, slots=True)
class Piece:
    """Samples of one stream: its place in `Driver.streams`, and what came."""

    stream: int
    counted: Counted


class Driver(ABC):
    """One kind of band behind Bluetooth; what it need not do is empty here.

    `prepare`, `start`, `stop`, `keep_alive`, `battery` and `identify` run in the Bluetooth thread, `decode` where the
    samples are consumed.

    Args:
        motion: Deliver motion too, where the band has it.

    Raises:
        ConfigError: It has none.
    """

    info: BandInfo
    data: str = ""
    """The characteristic that carries data, of a band with one."""

    def __init__(self, *, motion: bool = False) -> None:
        if motion and len(self.info.streams) < 2:
            raise ConfigError(f"{self.info.title} delivers no motion", hint="Leave `motion` out.")
        self.motion = motion

    @property
    def streams(self) -> tuple[StreamSpec, ...]:
        """What it delivers."""
        return self.info.streams if self.motion else self.info.streams[:1]

    @property
    def channels(self) -> tuple[str, ...]:
        """Characteristics to subscribe to: the one that carries data, where there is one."""
        return (self.data,)

    @property
    def keep_alive_s(self) -> float | None:
        """Between two signs of life."""
        return None

    def matches(self, device: BLEDevice, advertisement: AdvertisementData) -> bool:
        """Whether an advertisement is from a band of this kind."""
        name = advertisement.local_name or device.name or ""
        return self.info.matches(name, tuple(advertisement.service_uuids))

    async def prepare(self, link: Link) -> None:  # noqa: B027
        """Check what was connected.

        Raises:
            DeviceError: UNSUPPORTED_VERSION or FOREIGN: this driver cannot speak to it.
        """

    @abstractmethod
    async def start(self, link: Link) -> None:
        """Let it stream; a band that streams already is told again."""

    async def stop(self, link: Link) -> None:  # noqa: B027
        """Let it stop."""

    async def keep_alive(self, link: Link) -> None:  # noqa: B027
        """Keep it awake."""

    async def battery(self, link: Link) -> int | None:
        """Charge, percent."""
        level = await link.read_if_there(BATTERY_LEVEL)
        return level[0] if level and level[0] <= 100 else None

    async def identify(self, link: Link) -> None:
        """Let it show which one it is.

        Raises:
            OperatorError: It has nothing to show.
        """
        raise OperatorError(
            f"{self.info.title} can neither vibrate nor blink on request",
            hint="Switch the others off and see which is left: `embridge band scan`.",
        )

    @abstractmethod
    def decode(self, channel: int, data: bytes) -> list[Piece]:
        """What a notification of characteristic number `channel` holds.

        Raises:
            DeviceError: MALFORMED: it cannot be one.
        """

    @abstractmethod
    def indexer(self, stream: int, start: int) -> Indexer:
        """What gives the samples of a stream their indices, from `start` on."""

    def reconnected(self) -> None:  # noqa: B027
        """Forget what held for the last connection only."""


def wrong_firmware(title: str, found: str, wanted: str) -> DeviceError:
    """The error for a band that speaks another dialect."""
    return DeviceError(
        f"this {title} runs {found}; the driver speaks {wanted}",
        reason=Reason.UNSUPPORTED_VERSION,
        hint="Update the band's firmware with the maker's tool, or choose another kind.",
    )
