"""A program around OYMotion's sensor-sdk: ask, configure, stream, print what came as JSON."""

from __future__ import annotations

import asyncio
import json
import queue
import sys
import threading
import time
from itertools import pairwise

from bleak import BleakScanner
from sensor.gforce import DataSubscription, EmgRawDataConfig, GForce

COMMAND, DATA = "f000ffe1-0451-4000-b000-000000000000", "f000ffe2-0451-4000-b000-000000000000"


class Arrivals(queue.Queue):
    """Rates go by the first and last arrival: a machine that stands still at the end is no slow band."""

    def _init(self, maxsize):
        super()._init(maxsize)
        self.times = []

    def _put(self, item):
        super()._put(item)
        self.times.append(time.monotonic())


def loop_in_thread() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


async def find():
    return await BleakScanner.find_device_by_filter(lambda device, _: "gForce" in (device.name or ""), timeout=10)


async def main(seconds: float) -> None:
    radio, replies = loop_in_thread(), loop_in_thread()
    device = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(find(), radio))
    band = GForce(device, COMMAND, DATA, False, replies, radio)
    packets = Arrivals()
    await band.connect(lambda _: None, packets)
    firmware, battery = await band.get_firmware_revision(), await band.get_battery_level()
    wanted = EmgRawDataConfig(fs=1000, channel_mask=0xFF, batch_len=128, resolution=8)
    await band.set_emg_raw_data_config(wanted)
    config = await band.get_emg_raw_data_config()
    await band.set_package_id(1)
    await band.set_subscription(DataSubscription.EMG_RAW)
    await band.start_streaming(packets)
    packets.get(timeout=5)
    await asyncio.sleep(seconds)
    taken = [packets.get_nowait() for _ in range(packets.qsize())]
    passed = packets.times[len(taken)] - packets.times[0]
    await band.stop_streaming()
    await band.disconnect()
    gaps = sum((b[1] - a[1]) % 256 != 1 for a, b in pairwise(taken))
    samples = sum(len(p) - 2 for p in taken) / 8
    print(
        json.dumps(
            {
                "firmware": firmware,
                "battery": battery,
                "fs": config.fs,
                "kinds": sorted({p[0] for p in taken}),
                "gaps": gaps,
                "rate_hz": samples / passed,
            }
        )
    )


asyncio.run(main(float(sys.argv[1])))
