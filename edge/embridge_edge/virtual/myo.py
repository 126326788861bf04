"""A virtual Thalmic Myo: its attribute handles, its commands, its sleep, EMG in rotation without a counter."""

from __future__ import annotations

import asyncio

import numpy as np
from bumble.att import ErrorCode
from bumble.gatt import Service

from embridge_edge.bands.protocol import myo as wire
from embridge_edge.virtual import gatt
from embridge_edge.virtual.band import VirtualBand
from embridge_edge.virtual.feed import Array32
from embridge_shared.errors import DeviceError

UV_PER_COUNT = 8.0
"""Ours: Thalmic published no scale."""
SLEEP_S = 30.0
"""It falls asleep so long after the last command unless told never to."""

_PER_IMU = wire.RATE_HZ // wire.IMU_RATE_HZ
_SMOOTHING = 0.06


class MyoBand(VirtualBand):
    """A Myo. Its EMG characteristics take turns; the turn advances with every packet taken, sent or not."""

    kind = "myo"
    default_name = "Virtual Myo"
    channels = wire.CHANNELS
    interval_ms = 7.5
    typical_noise_uv = UV_PER_COUNT

    @property
    def rate_hz(self) -> float:
        """200 Hz."""
        return float(wire.RATE_HZ)

    def services(self) -> list[Service]:
        """All services, such that every value has the handle it has on the device."""
        notify, indicate, read = gatt.NOTIFY, gatt.INDICATE, gatt.READ
        serial = self.traits.serial.to_bytes(6, "little")
        self._sleep: asyncio.TimerHandle | None = None
        self._imu = gatt.characteristic(wire.IMU, notify)
        self._fv = gatt.characteristic(wire.FV, notify)
        self._emg = [gatt.characteristic(uuid, notify) for uuid in wire.EMG]
        self._command_value = gatt.characteristic(wire.COMMAND, gatt.WRITE, written=self._command)
        firmware = wire.encode_firmware(wire.Firmware(1, 5, 1970, 2))
        return [
            gatt.gap(self.name),
            gatt.generic_attribute(),
            gatt.device_information(manufacturer="Thalmic Labs"),
            gatt.battery(self._level),
            Service(
                wire.CONTROL_SERVICE,
                [
                    gatt.characteristic(wire.INFO, read, read=wire.encode_info(wire.Info(serial=serial))),
                    gatt.characteristic(wire.FIRMWARE, read, read=firmware),
                    self._command_value,
                ],
            ),
            Service(wire.IMU_SERVICE, [self._imu, gatt.characteristic(wire.MOTION, indicate)]),
            Service(wire.CLASSIFIER_SERVICE, [gatt.characteristic(wire.CLASSIFIER, indicate)]),
            Service(wire.FV_SERVICE, [self._fv]),
            Service(wire.EMG_SERVICE, self._emg),
        ]

    def advertisement(self) -> tuple[bytes, bytes]:
        """The control service; the name follows in the scan response."""
        return gatt.advertisement(self.name, wire.CONTROL_SERVICE)

    def reset(self) -> None:
        """Streams off, and awake for half a minute."""
        self.emg_mode, self.imu_mode = wire.EmgMode.OFF, wire.ImuMode.OFF
        self.commands: list[wire.Command] = []
        self._envelope = np.zeros(wire.CHANNELS)
        self._stay_awake(self.connection is not None)

    def _stay_awake(self, counting: bool) -> None:
        if self._sleep is not None:
            self._sleep.cancel()
        self._sleep = asyncio.get_running_loop().call_later(SLEEP_S, self._doze) if counting else None

    def _doze(self) -> None:
        task = asyncio.get_running_loop().create_task(self.disconnect(), name=f"{self.name} falls asleep")
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    def _command(self, data: bytes) -> None:
        try:
            command = wire.decode_command(data)
        except DeviceError:
            raise gatt.refuse(ErrorCode.INVALID_ATTRIBUTE_LENGTH) from None
        self.commands.append(command)
        never = any(c.op is wire.Op.SLEEP_MODE and c.payload == b"\x01" for c in self.commands)
        self._stay_awake(not never)
        if command.op is wire.Op.DEEP_SLEEP:
            self._doze()
        elif command.op is wire.Op.SET_MODE:
            self._set_mode(command.payload)

    def _set_mode(self, payload: bytes) -> None:
        emg, imu = payload[0], payload[1]
        if emg not in set(wire.EmgMode) or imu not in set(wire.ImuMode):
            raise gatt.refuse(ErrorCode.VALUE_NOT_ALLOWED)
        self.emg_mode, self.imu_mode = wire.EmgMode(emg), wire.ImuMode(imu)
        if self.emg_mode or self.imu_mode:
            self.stream()
        else:
            self.halt()

    def packet_samples(self) -> int:
        """2."""
        return wire.SAMPLES_PER_PACKET

    def send(self, first: int, samples: Array32) -> bool:
        """Send two samples on the characteristic whose turn it is; IMU and smoothed EMG every fourth sample."""
        turn = first // wire.SAMPLES_PER_PACKET
        counts = np.clip(np.rint(samples / UV_PER_COUNT), -128, 127).astype(np.int8)
        sent = True
        if self.emg_mode in (wire.EmgMode.FILTERED, wire.EmgMode.RAW):
            sent = self.notify(self._emg[turn % len(self._emg)], wire.encode_emg(counts))
        for sample in np.abs(counts.astype(np.float64)):
            self._envelope += _SMOOTHING * (sample - self._envelope)
        if first % _PER_IMU == 0:
            if self.emg_mode is wire.EmgMode.FV:
                sent = self.notify(self._fv, wire.encode_fv(np.rint(8 * self._envelope)))
            if self.imu_mode:
                self.notify(self._imu, wire.encode_imu(self._motion(first)))
        return sent

    def _motion(self, first: int) -> Array32:
        """An arm that sways: quaternion w x y z, acceleration, rotation."""
        sway = 0.1 * np.sin(2 * np.pi * 0.2 * first / wire.RATE_HZ)
        turn_deg = np.rad2deg(0.1 * 2 * np.pi * 0.2 * np.cos(2 * np.pi * 0.2 * first / wire.RATE_HZ))
        quaternion = wire.QUATERNION_SCALE * np.array([np.cos(sway / 2), np.sin(sway / 2), 0, 0])
        acceleration = wire.ACCELERATION_SCALE * np.array([0, np.sin(sway), np.cos(sway)])
        rotation = wire.ROTATION_SCALE * np.array([turn_deg, 0, 0])
        return np.asarray(np.rint(np.concatenate([quaternion, acceleration, rotation])), np.float32)
