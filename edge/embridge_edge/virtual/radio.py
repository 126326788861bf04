"""The air that simulated controllers share: who is on it, who hears whom, and the links between them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import numpy as np
from bumble import core, hci, ll
from bumble.controller import Connection, Controller
from bumble.link import LocalLink

from embridge_edge.virtual.air import Air, AirLink, Side

if TYPE_CHECKING:
    from embridge_edge.virtual.controller import VirtualController

logger = logging.getLogger(__name__)


class Radio(LocalLink):
    """The air that controllers share.

    Args:
        air: What it is like.
    """

    def __init__(self, air: Air | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.air = air or Air()
        self.links: dict[tuple[bytes, bytes], AirLink] = {}
        self._rng = np.random.default_rng([self.air.seed, 0xA1])
        self._away: set[str] = set()

    def damages(self, packets: int) -> bool:
        """Whether one of so many packets with data is damaged."""
        errors = self.air.pdu_errors
        return errors > 0 and bool(self._rng.random() >= (1 - errors) ** packets)

    def host_delay_s(self) -> float:
        """Time from controller to host of the next packet, s."""
        return float(self._rng.exponential(self.air.jitter_ms * 1e-3)) if self.air.jitter_ms else 0.0

    def hears(self, link: AirLink) -> bool:
        """Whether the two ends of a link hear each other."""
        return not self._away or not {link.central.controller.name, link.peripheral.controller.name} & self._away

    def joined(self, central: hci.Address, peripheral: VirtualController, indication: ll.ConnectInd) -> AirLink | None:
        """A peripheral was connected to; None when its central has changed its mind."""
        address = indication.advertiser_address
        for controller in self.controllers:
            connection = controller.le_connections.get(address)
            if connection is not None and connection.self_address == central and controller is not peripheral:
                mine = Side(peripheral, peripheral.le_connections[central])
                link = AirLink(self, Side(controller, connection), mine, indication)  # type: ignore[arg-type]
                self.links[bytes(central), bytes(address)] = link
                return link
        return None

    def link_of(self, connection: Connection) -> AirLink | None:
        """The link a controller's connection runs over."""
        mine, peer = bytes(connection.self_address), bytes(connection.peer_address)
        return self.links.get((mine, peer)) or self.links.get((peer, mine))

    def parted(self, connection: Connection) -> None:
        """A connection is over at one end."""
        mine, peer = bytes(connection.self_address), bytes(connection.peer_address)
        for key in ((mine, peer), (peer, mine)):
            link = self.links.pop(key, None)
            if link is not None:
                link.close()

    def drop(self, name: str = "") -> int:
        """Cut the links of a controller, or all: both ends see a supervision time-out at once.

        Returns:
            How many were cut.
        """
        hit = [link for link in self.links.values() if not name or name in _names(link)]
        for link in hit:
            link.fail()
        return len(hit)

    def leave(self, name: str) -> None:
        """A controller goes out of range: it is not heard, and its links fail after their supervision time-out."""
        self._away.add(name)
        for link in self.links.values():
            if name in _names(link):
                link.lose(link.supervision_s)

    def come_back(self, name: str) -> None:
        """A controller is in range again."""
        self._away.discard(name)
        for link in self.links.values():
            if name in _names(link):
                link.regain()

    def send_advertising_pdu(self, sender_controller: Controller, packet: ll.AdvertisingPdu) -> None:
        """Broadcast to everybody in range."""
        if sender_controller.name in self._away:
            return
        loop = asyncio.get_running_loop()
        for controller in self.controllers:
            if controller is not sender_controller and controller.name not in self._away:
                loop.call_soon(controller.on_ll_advertising_pdu, packet)

    def send_ll_control_pdu(
        self, sender_address: hci.Address, receiver_address: hci.Address, packet: ll.ControlPdu
    ) -> None:
        """Send a link-layer procedure; one to a peer that is gone is lost."""
        try:
            super().send_ll_control_pdu(sender_address, receiver_address, packet)
        except core.InvalidArgumentError:
            logger.debug("nobody at %s takes %s", receiver_address, type(packet).__name__)


def _names(link: AirLink) -> set[str]:
    return {link.central.controller.name, link.peripheral.controller.name}
