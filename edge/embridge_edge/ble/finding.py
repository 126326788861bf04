"""Finds the band to connect to among what advertises."""

from __future__ import annotations

from typing import NamedTuple

from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData

from embridge_edge.ble.status import Handler


class Sighting(NamedTuple):
    """A device and what it advertises."""

    device: BLEDevice
    advertisement: AdvertisementData

    @property
    def name(self) -> str:
        """What it calls itself."""
        return self.advertisement.local_name or self.device.name or ""


class Finder:
    """Chooses one band: the one asked for, or the first of its kind and from then on the same.

    Args:
        handler: Recognises the kind.
        address: The band asked for, or empty.
        claims: Addresses that other bands of this radio have taken; the one chosen here is added.
    """

    def __init__(self, handler: Handler, address: str, claims: set[str]) -> None:
        self._handler = handler
        self._asked = address.upper()
        self._known = ("", "")  # address and name of the band that was chosen
        self._claims = claims
        self._chosen: Sighting | None = None
        self._namesake: Sighting | None = None

    def begin(self) -> None:
        """Begin another scan."""
        self._chosen = self._namesake = None

    @property
    def seen(self) -> bool:
        """The band itself was seen."""
        return self._chosen is not None

    def consider(self, device: BLEDevice, advertisement: AdvertisementData) -> bool:
        """Look at an advertisement; True when it is the band."""
        address = device.address.upper()
        known, name = self._known
        if self._chosen is not None or (address in self._claims and address != known):
            return False
        sighting = Sighting(device, advertisement)
        wanted = self._asked or known
        if wanted and address != wanted:
            # A band may come back under another private address.
            if not self._asked and sighting.name == name and self._handler.matches(device, advertisement):
                self._namesake = sighting
            return False
        if not wanted and not self._handler.matches(device, advertisement):
            return False
        self._choose(sighting)
        return True

    def _choose(self, sighting: Sighting) -> None:
        self._chosen = sighting
        self._claims.discard(self._known[0])
        self._known = (sighting.device.address.upper(), sighting.name)
        self._claims.add(self._known[0])

    def found(self) -> Sighting | None:
        """The band, or one of its name where it was not seen itself."""
        if self._chosen is None and self._namesake is not None:
            self._choose(self._namesake)
        return self._chosen

    def forget(self) -> None:
        """Let others have the band."""
        self._claims.discard(self._known[0])
        self._known = ("", "")
