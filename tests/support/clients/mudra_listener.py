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
        heads = []

        def take(_, data):
            stream.feed(bytes(data), time.monotonic())
            heads.append((time.monotonic(), stream.head()))

        await client.start_notify(UUID("fff4"), take)
        await client.write_gatt_char(UUID("fff1"), b"\x06\x00\x01", response=True)
        while not stream.head():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.sleep(seconds)
        # By first and last arrival: a machine that stands still at the end is no slow band.
        (began, first), (ended, last) = heads[0], heads[-1]
        rate_hz = (last - first) / (ended - began)
        out = np.zeros((3, 500), np.float32)
        written, _, _ = stream.pull_uv_into(max(0, stream.head() - 500), out)
    print(json.dumps({"serial": serial, "rate_hz": rate_hz, "written": written, "rms_uv": float(out.std())}))


asyncio.run(main(float(sys.argv[1])))
