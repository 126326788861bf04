"""Guides a wearer through the poses that calibrate a glove."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
from numpy.typing import NDArray

from embridge_edge.pose.gloves import ROUTINE, GuidedPose
from embridge_edge.pose.live import LivePose
from embridge_shared.clock import Clock
from embridge_shared.errors import DataError, Reason
from embridge_shared.signal import Modality


async def guide(
    source: LivePose, clock: Clock, ready: Callable[[GuidedPose], Awaitable[None]], *, hold_s: float
) -> dict[str, NDArray[np.float64]]:
    """Collect what a glove sends in every pose.

    Args:
        source: The glove, uncalibrated.
        clock: The host's clock.
        ready: Asks for a pose; returns when it is held.
        hold_s: How long a pose is recorded.

    Returns:
        Counts of each pose, float64 (n, 22), by its name.

    Raises:
        DeviceError: The glove cannot be reached.
        DataError: The source is no glove.
    """
    if source.spec.modality is not Modality.GLOVE:
        raise DataError("only glove sensors are calibrated", reason=Reason.WRONG_SHAPE, hint="Joint angles need none.")
    poses: dict[str, list[NDArray[np.float64]]] = {p.name: [] for p in ROUTINE}
    holding: list[str] = []

    async def read() -> None:
        async for packet in source.packets():
            if holding:
                poses[holding[-1]].append(packet.samples.astype(np.float64))

    await source.open(clock.monotonic_ns())
    reading = asyncio.create_task(read(), name="glove")
    try:
        for pose in ROUTINE:
            await ready(pose)
            holding.append(pose.name)
            await clock.sleep(hold_s)
            holding.clear()
    finally:
        source.stop()
        await asyncio.wait([reading], timeout=5)
        await source.close()
    await reading
    return {name: np.concatenate(parts) if parts else np.zeros((0, 22)) for name, parts in poses.items()}
