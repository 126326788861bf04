"""A program around mudraka, an independent decoder of the Mudra Link: listen, print what it decoded as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
import time

import mudraka
import numpy as np
from bleak import BleakClient, BleakScanner

UUID = "0000{}-0000-1000-8000-00805f9b34fb".format


async def main(seconds: float) -> None:
    device = await BleakScanner.find_device_by_filter(lambda device, _: "mudra" in (device.name or "").lower())
    stream = mudraka.Stream(mudraka.Config())
    async with BleakClient(device) as client:
        serial = int(await client.read_gatt_char(UUID("2a27")), 16) * 10**6 + int(
            await client.read_gatt_char(UUID("2a25")), 16
        )
        await client.start_notify(UUID("fff4"), lambda _, data: stream.feed(bytes(data), time.monotonic()))
        await client.write_gatt_char(UUID("fff1"), b"\x06\x00\x01", response=True)
        while not stream.head():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        head, began = stream.head(), time.monotonic()
        await asyncio.sleep(seconds)
        rate_hz = (stream.head() - head) / (time.monotonic() - began)
        out = np.zeros((3, 500), np.float32)
        written, _, _ = stream.pull_uv_into(max(0, stream.head() - 500), out)
    print(json.dumps({"serial": serial, "rate_hz": rate_hz, "written": written, "rms_uv": float(out.std())}))


asyncio.run(main(float(sys.argv[1])))
