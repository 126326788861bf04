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
        self.times = {}

    def heard(self, what, n):
        """Rates go by the first and last arrival: a machine that stands still at the end is no slow band."""
        self.times.setdefault(what, [time.monotonic(), 0.0])[1] = time.monotonic()
        self.counts[what] += n

    def rate_hz(self, what, n):
        first, last = self.times[what]
        return (self.counts[what] - n) / (last - first)

    async def on_emg_data(self, emg):
        self.heard("emg", 2)

    async def on_imu_data(self, imu):
        self.heard("imu", 1)

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
    await asyncio.sleep(seconds)
    rates = {"emg": client.rate_hz("emg", 2), "imu": client.rate_hz("imu", 1)}
    await client.stop()
    await client.disconnect()
    print(json.dumps({"battery": battery, "services": len(services["services"]), "rates_hz": rates}))


asyncio.run(main(float(sys.argv[1])))
