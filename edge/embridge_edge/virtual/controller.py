"""A Bluetooth LE controller on the simulated radio.

bumble's controller with what it leaves out: buffers that are given back when the air has taken them, payloads of 251
bytes, scan responses, cancelled connects, PHY and data length, RSSI, and a reset that ends what was going on.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from bumble import hci, ll
from bumble.controller import Connection, Controller, LegacyAdvertiser

from embridge_edge.virtual.air import AirLink
from embridge_edge.virtual.radio import Radio

_ABSENT = (
    hci.LeFeatureMask.LL_PRIVACY
    | hci.LeFeatureMask.LE_EXTENDED_ADVERTISING
    | hci.LeFeatureMask.LE_PERIODIC_ADVERTISING
    | hci.LeFeatureMask.LE_CODED_PHY
)
_ACTIVE_SCAN = 1
_OCTETS = 251


@dataclasses.dataclass
class _ScannableAdvInd(ll.AdvInd):
    """An advertisement with the answer its sender would give to a scan request."""

    scan_response: bytes = b""


@dataclasses.dataclass
class _Advertiser(LegacyAdvertiser):
    """Advertises at the interval asked for, with a scan response."""

    def _on_timer_fired(self) -> None:
        self.send_advertising_data()
        interval_s = max(self.advertising_interval_min * 0.625e-3, 0.02)
        self.timer_handle = asyncio.get_running_loop().call_later(interval_s, self._on_timer_fired)

    def send_advertising_data(self) -> None:
        if self.enabled:
            self.controller.send_advertising_pdu(
                _ScannableAdvInd(self.address, self.advertising_data, self.scan_response_data)
            )


class VirtualController(Controller):
    """A controller with a public address on a radio.

    Args:
        name: Unique on the radio.
        radio: The air.
        address: Public address, "AA:BB:CC:DD:EE:FF".
        buffers: Data packets it takes before the air has taken one.
    """

    le_acl_data_packet_length = _OCTETS
    supported_max_tx_octets = _OCTETS
    supported_max_rx_octets = _OCTETS
    suggested_max_tx_octets = _OCTETS
    supported_max_tx_time = 17040
    supported_max_rx_time = 17040
    suggested_max_tx_time = 2120
    le_features = Controller.le_features & ~_ABSENT

    def __init__(self, name: str, radio: Radio, address: str, *, buffers: int = 8) -> None:
        super().__init__(name, link=radio, public_address=f"{address}/P")
        self.radio = radio
        self.total_num_le_acl_data_packets = buffers
        self.busy_until_s = 0.0
        self.le_legacy_advertiser = _Advertiser(self)
        self._loop = asyncio.get_running_loop()
        self._links: dict[int, AirLink] = {}
        self._incoming: ll.ConnectInd | None = None

    # From the host

    def on_packet(self, packet: bytes) -> None:
        """Take a packet from the host; data goes straight to the air."""
        if packet[0] == hci.HCI_ACL_DATA_PACKET:
            link = self._links.get(packet[1] | (packet[2] & 0x0F) << 8)
            if link is not None:
                link.send(self, packet)
            return
        super().on_packet(packet)

    def on_hci_reset_command(self, command: hci.HCI_Reset_Command) -> hci.HCI_StatusReturnParameters:
        """Forget everything: links, scan, advertising, a connect under way."""
        self.quiet()
        return super().on_hci_reset_command(command)

    def quiet(self) -> None:
        """End every activity on air without telling the host."""
        self.le_legacy_advertiser.stop()
        self.le_scan_enable = False
        self.pending_le_connection = None
        for connection in list(self.le_connections.values()):
            reason = int(hci.HCI_ErrorCode.REMOTE_USER_TERMINATED_CONNECTION_ERROR)
            connection.send_ll_control_pdu(ll.TerminateInd(reason))
            self._forget(connection)
            del self.le_connections[connection.peer_address]

    def on_hci_le_create_connection_cancel_command(
        self, _command: hci.HCI_LE_Create_Connection_Cancel_Command
    ) -> hci.HCI_StatusReturnParameters:
        """Take back a connect; its end is reported, so that the next may begin."""
        pending, self.pending_le_connection = self.pending_le_connection, None
        if pending is None:
            return hci.HCI_StatusReturnParameters(hci.HCI_ErrorCode.COMMAND_DISALLOWED_ERROR)
        self._loop.call_soon(self.send_hci_packet, _no_connection(pending.peer_address))
        return hci.HCI_StatusReturnParameters(hci.HCI_ErrorCode.SUCCESS)

    def on_hci_le_connection_update_command(self, command: hci.HCI_LE_Connection_Update_Command) -> None:
        """Change the connection interval, to what the radio grants."""
        asked = command.connection_interval_max
        granted = self._granted(asked)
        changed = dataclasses.replace(command, connection_interval_max=granted)
        super().on_hci_le_connection_update_command(changed)
        link = self._links.get(command.connection_handle)
        if link is not None:
            link.set_interval(granted * 1.25e-3)
            link.supervision_s = command.supervision_timeout * 10e-3

    def on_hci_le_set_phy_command(self, command: hci.HCI_LE_Set_PHY_Command) -> None:
        """Change the PHY, to the fastest that is asked for and that the radio has."""
        link = self._links.get(command.connection_handle)
        if link is None:
            self._send_hci_command_status(hci.HCI_ErrorCode.UNKNOWN_CONNECTION_IDENTIFIER_ERROR, int(command.op_code))
            return
        self._send_hci_command_status(hci.HCI_COMMAND_STATUS_PENDING, int(command.op_code))
        fast = int(command.all_phys) & 1 or int(command.tx_phys) & 2
        link.phy = min(2 if fast else 1, self.radio.air.phy)
        for side in (link.central, link.peripheral):
            side.controller.send_hci_packet(
                hci.HCI_LE_PHY_Update_Complete_Event(
                    status=hci.HCI_ErrorCode.SUCCESS,
                    connection_handle=side.connection.handle,
                    tx_phy=link.phy,
                    rx_phy=link.phy,
                )
            )

    def on_hci_le_read_phy_command(self, command: hci.HCI_LE_Read_PHY_Command) -> hci.HCI_LE_Read_PHY_ReturnParameters:
        """The PHY in use."""
        link = self._links.get(command.connection_handle)
        phy = hci.Phy(link.phy if link is not None else 1)
        status = hci.HCI_ErrorCode.SUCCESS if link else hci.HCI_ErrorCode.UNKNOWN_CONNECTION_IDENTIFIER_ERROR
        return hci.HCI_LE_Read_PHY_ReturnParameters(
            status=status, connection_handle=command.connection_handle, tx_phy=phy, rx_phy=phy
        )

    def on_hci_le_set_data_length_command(
        self, command: hci.HCI_LE_Set_Data_Length_Command
    ) -> hci.HCI_StatusAndConnectionHandleReturnParameters:
        """Change the payload, as far as the radio goes."""
        link = self._links.get(command.connection_handle)
        if link is not None:
            link.ll_octets = min(command.tx_octets, self.radio.air.ll_octets)
            self._tell_data_length(link)
        status = hci.HCI_ErrorCode.SUCCESS if link else hci.HCI_ErrorCode.UNKNOWN_CONNECTION_IDENTIFIER_ERROR
        return hci.HCI_StatusAndConnectionHandleReturnParameters(status, command.connection_handle)

    def on_hci_read_rssi_command(self, command: hci.HCI_Read_RSSI_Command) -> hci.HCI_Read_RSSI_ReturnParameters:
        """Strength of the signal."""
        known = command.handle in self._links
        status = hci.HCI_ErrorCode.SUCCESS if known else hci.HCI_ErrorCode.UNKNOWN_CONNECTION_IDENTIFIER_ERROR
        return hci.HCI_Read_RSSI_ReturnParameters(status, command.handle, self.radio.air.rssi_dbm)

    # From the air

    def to_host(self, packet: bytes) -> None:
        """Hand a packet to the host, in order with events."""
        if self.host is not None:
            self._loop.call_soon(self.host.on_packet, packet)

    def buffer_free(self, handle: int) -> None:
        """Tell the host that the air has taken one of its packets."""
        self.to_host(bytes((4, 0x13, 5, 1, handle & 0xFF, handle >> 8, 1, 0)))

    def send_hci_packet(self, packet: hci.HCI_Packet) -> None:
        """Hand an event to the host; a peripheral is told the true parameters of a new link."""
        told = self._incoming
        if told is not None and isinstance(packet, hci.HCI_LE_Connection_Complete_Event):
            packet = dataclasses.replace(
                packet,
                connection_interval=told.interval,
                peripheral_latency=told.latency,
                supervision_timeout=told.timeout,
            )
        super().send_hci_packet(packet)

    def create_le_connection(self, peer_address: hci.Address) -> None:
        """Connect as central, at an interval the radio grants."""
        pending = self.pending_le_connection
        if isinstance(pending, hci.HCI_LE_Create_Connection_Command):
            granted = self._granted(pending.connection_interval_min)
            self.pending_le_connection = dataclasses.replace(pending, connection_interval_min=granted)
        super().create_le_connection(peer_address)

    def on_le_connect_ind(self, packet: ll.ConnectInd) -> None:
        """Be connected to, if advertising under that address."""
        known = len(self.le_connections)
        self._incoming = packet
        super().on_le_connect_ind(packet)
        self._incoming = None
        if len(self.le_connections) == known:
            return
        link = self.radio.joined(packet.initiator_address, self, packet)
        if link is None:
            return
        for side in (link.central, link.peripheral):
            side.controller._links[side.connection.handle] = link
        self._loop.call_soon(self._tell_data_length, link)

    def on_le_disconnected(self, connection: Connection, reason: int) -> None:
        """A link is over, whoever ended it."""
        self._forget(connection)
        super().on_le_disconnected(connection, reason)

    def on_advertising_pdu(self, pdu: Any) -> None:
        """Report an advertisement, and the scan response where the scan is active."""
        if self.le_scan_enable:
            kinds = hci.HCI_LE_Advertising_Report_Event.EventType
            self._report(pdu, kinds.ADV_IND, pdu.data)
            if self.le_scan_type == _ACTIVE_SCAN:
                self._report(pdu, kinds.SCAN_RSP, getattr(pdu, "scan_response", b""))
        pending = self.pending_le_connection
        if pending is not None and pending.peer_address == pdu.advertiser_address:
            self.create_le_connection(pdu.advertiser_address)

    def _report(self, pdu: ll.AdvInd, kind: int, data: bytes) -> None:
        report = hci.HCI_LE_Advertising_Report_Event.Report(
            event_type=kind,
            address_type=pdu.advertiser_address.address_type,
            address=pdu.advertiser_address,
            data=data,
            rssi=self.radio.air.rssi_dbm,
        )
        self.send_hci_packet(hci.HCI_LE_Advertising_Report_Event([report]))

    def _granted(self, interval: int) -> int:
        """Connection interval in units of 1.25 ms."""
        forced = self.radio.air.interval_ms
        return round(forced / 1.25) if forced is not None else max(6, interval)

    def _tell_data_length(self, link: AirLink) -> None:
        time_us = (link.ll_octets + 14) * 8
        for side in (link.central, link.peripheral):
            if side.connection.handle in side.controller._links:
                side.controller.send_hci_packet(
                    hci.HCI_LE_Data_Length_Change_Event(
                        connection_handle=side.connection.handle,
                        max_tx_octets=link.ll_octets,
                        max_tx_time=time_us,
                        max_rx_octets=link.ll_octets,
                        max_rx_time=time_us,
                    )
                )

    def _forget(self, connection: Connection) -> None:
        self._links.pop(connection.handle, None)
        self.radio.parted(connection)


def _no_connection(peer: hci.Address) -> hci.HCI_LE_Connection_Complete_Event:
    """What a controller reports for a connect that was taken back."""
    return hci.HCI_LE_Connection_Complete_Event(
        status=hci.HCI_ErrorCode.UNKNOWN_CONNECTION_IDENTIFIER_ERROR,
        connection_handle=0,
        role=hci.Role.CENTRAL,
        peer_address_type=peer.address_type,
        peer_address=peer,
        connection_interval=0,
        peripheral_latency=0,
        supervision_timeout=0,
        central_clock_accuracy=0,
    )
