"""How one virtual band differs from another of its kind, and what it did."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from embridge_shared.errors import OperatorError


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """How one band differs from another of its kind.

    Attributes:
        name: Advertised name; the kind's own when empty.
        address: Random static address, "C0:..." to "FF:..."; made from the name when empty.
        drift_ppm: How much faster than the host's its clock runs.
        queue: Packets waiting for the radio before the next is dropped.
        advertising_ms: Advertising interval.
        battery: Charge at the start, percent.
        serial: Serial number.
        noise_uv: RMS of the noise its own electronics add, µV.
    """

    name: str = ""
    address: str = ""
    drift_ppm: float = 0.0
    queue: int = 32
    advertising_ms: float = 30.0
    battery: int = 87
    serial: int = 1
    noise_uv: float = 0.0

    def __post_init__(self) -> None:
        wrong = self.queue < 1 or self.advertising_ms < 20 or self.noise_uv < 0
        if wrong or not 0 <= self.battery <= 100 or abs(self.drift_ppm) > 1e4:
            raise OperatorError(
                f"no band is like this: {self}",
                hint="Queue 1 or more, battery 0 to 100 %, advertising from 20 ms, drift to 10000 ppm, noise from 0.",
            )


@dataclass(slots=True)
class Tally:
    """What a band did since it was switched on.

    Attributes:
        connections: Links that came about.
        samples: Samples taken.
        packets: Packets handed to the radio.
        dropped_packets: Packets there was no room for.
        dropped_samples: Samples in them.
    """

    connections: int = 0
    samples: int = 0
    packets: int = 0
    dropped_packets: int = 0
    dropped_samples: int = 0


def address_of(name: str) -> str:
    """A random static address that a name always has."""
    octets = bytearray(hashlib.sha256(name.encode()).digest()[:6])
    octets[0] |= 0xC0
    return ":".join(f"{octet:02X}" for octet in octets)
