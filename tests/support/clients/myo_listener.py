"""A program around dl-myo: set the band up as dl-myo does, listen, print what came as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter

from myo import ClassifierMode, EMGMode, IMUMode, MyoClient


class Listener(MyoClient):
    def __init__(self, **options):
        super().__init__(**options)
        self.counts = Counter()

    async def on_emg_data(self, emg):
        self.counts["emg"] += 2

    async def on_imu_data(self, imu):
        self.counts["imu"] += 1

    async def on_classifier_event(self, event): ...
    async def on_aggregated_data(self, data): ...
    async def on_emg_data_aggregated(self, data): ...
    async def on_fv_data(self, data): ...
    async def on_motion_event(self, event): ...


async def main(seconds: float) -> None:
    client = await Listener.with_device()
    battery = await client.battery_level()
    services = json.loads(await client.get_services())
    await client.setup(ClassifierMode.DISABLED, EMGMode.SEND_EMG, IMUMode.SEND_DATA)
    await client.start()
    while not client.counts["emg"]:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    client.counts.clear()
    began = time.monotonic()
    await asyncio.sleep(seconds)
    counts, passed = dict(client.counts), time.monotonic() - began
    await client.stop()
    await client.disconnect()
    rates = {k: v / passed for k, v in counts.items()}
    print(json.dumps({"battery": battery, "services": len(services["services"]), "rates_hz": rates}))


asyncio.run(main(float(sys.argv[1])))
