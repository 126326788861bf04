"""Any stream of the Lab Streaming Layer."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import numpy as np

from embridge_edge.band_plan import LslSource
from embridge_edge.bands.indexing import Counted, CounterKind
from embridge_edge.bands.info import BandInfo, emg_stream
from embridge_edge.bands.polled import PolledBand
from embridge_shared.clock import Clock
from embridge_shared.errors import ConfigError, DeviceError, Reason
from embridge_shared.signal import Modality, SampleType, StreamSpec

_RESOLVE_S = 10.0
_PULL_S = 0.02
_OPEN_S = 10.0
_GONE_S = 60.0
_BUFFER_S = 60

INFO = BandInfo(
    kind="lsl",
    title="LSL stream",
    streams=(StreamSpec(name="emg", modality=Modality.EMG, channels=("as in the plan",), rate_hz=1.0, device="lsl"),),
    counter=CounterKind.NONE,
    transport="LSL",
    quirks="Channels and rate are given in the plan and checked; time is the sender's clock, corrected by LSL.",
)


def load_pylsl() -> Any:
    """The module `pylsl`.

    Raises:
        ConfigError: MISSING_EXTRA: it is not installed, or its library does not load.
    """
    try:
        import pylsl
    except (ModuleNotFoundError, RuntimeError, OSError) as error:
        raise ConfigError(
            f"LSL streams need pylsl, which does not load: {error}",
            reason=Reason.MISSING_EXTRA,
            hint='Install it with: pip install "embridge[lsl]"',
        ) from error
    return pylsl


def find(pylsl: Any, **wanted: str) -> Any:
    """The first stream whose `name`, `type` and `source_id` are as wanted; empty ones may be anything.

    Raises:
        DeviceError: NOT_FOUND: there is none.
    """
    predicate = " and ".join(f"{k}='{v}'" for k, v in wanted.items() if v)
    infos = pylsl.resolve_bypred(predicate, 1, _RESOLVE_S)
    if not infos:
        raise DeviceError(
            f"no LSL stream has {predicate}",
            reason=Reason.NOT_FOUND,
            hint="Start the program that sends it; both must be in one network, or name it in LSL's KnownPeers.",
        )
    return infos[0]


def connect(pylsl: Any, info: Any) -> Any:
    """An open inlet whose time stamps are on this computer's LSL clock.

    Raises:
        DeviceError: UNREACHABLE: it was announced but cannot be opened.
    """
    inlet = pylsl.StreamInlet(info, max_buflen=_BUFFER_S, recover=True, processing_flags=pylsl.proc_clocksync)
    try:
        inlet.open_stream(_OPEN_S)
    except (pylsl.util.TimeoutError, pylsl.util.LostError) as error:
        raise DeviceError(
            f"the LSL stream {info.name()!r} was announced but cannot be opened",
            reason=Reason.UNREACHABLE,
            hint="A firewall or a VPN keeps its data out: allow TCP and UDP 16572-16604.",
        ) from error
    return inlet


class LslBand(PolledBand):
    """EMG from an LSL outlet. LSL numbers nothing: what is missing is inferred from the time stamps.

    Args:
        source: Which stream, and what it must be.
        clock: The host's clock.
        duration_s: Deliver so much; endless when infinite.

    Raises:
        ConfigError: pylsl is not installed, or the plan has no channels or no rate.
    """

    def __init__(self, source: LslSource, *, clock: Clock, duration_s: float = math.inf) -> None:
        self._pylsl = load_pylsl()
        if source.channels < 1 or not source.rate_hz > 0:
            raise ConfigError("an LSL stream needs `channels` and `rate_hz`", hint="`embridge band scan` shows them.")
        self._source = source
        self._inlet: Any = None
        self._offset_ns = 0
        spec = emg_stream(
            source.channels,
            source.rate_hz,
            f"lsl:{source.stream or source.type}",
            label=source.label,
            dtype=SampleType.FLOAT32,
            unit=source.unit,
            scale=source.scale,
            calibrated=source.calibrated,
        )
        super().__init__(
            "lsl",
            spec,
            clock=clock,
            address=source.address,
            duration_s=duration_s,
            modulus=0,
            gone_s=_GONE_S,
            advice="Look after the program that sends; LSL finds it again by itself.",
        )

    async def _start(self) -> None:
        self._go("scanning")
        info = await asyncio.to_thread(self._resolve)
        found = (info.channel_count(), info.nominal_srate())
        if found != (self._source.channels, self._source.rate_hz):
            raise DeviceError(
                f"the LSL stream {info.name()!r} has {found[0]} channels at {found[1]:g} Hz, not "
                f"{self._source.channels} at {self._source.rate_hz:g}",
                reason=Reason.WRONG_SHAPE,
                hint="Correct `channels` and `rate_hz` in the plan, or name another `stream`.",
            )
        self._go("connecting")
        self._inlet = await asyncio.to_thread(connect, self._pylsl, info)
        self._offset_ns = self._clock.monotonic_ns() - round(self._pylsl.local_clock() * 1e9)

    def _resolve(self) -> Any:
        source = self._source
        return find(self._pylsl, type=source.type, name=source.stream, source_id=source.address)

    async def _read(self) -> list[tuple[Counted, int]] | None:
        if self._inlet is None:
            return None
        samples, stamps = await asyncio.to_thread(self._inlet.pull_chunk, _PULL_S, 4096)
        if not len(samples):
            return []
        values = np.asarray(samples, np.float32).reshape(len(samples), -1)
        return [(Counted(values), round(stamps[-1] * 1e9) + self._offset_ns)]

    def _gone(self) -> DeviceError:
        return DeviceError("the LSL stream is gone", reason=Reason.UNREACHABLE, hint=self._advice)

    async def close(self) -> None:
        """Close the inlet."""
        inlet, self._inlet = self._inlet, None
        if inlet is not None:
            self._go("stopped")
            await asyncio.to_thread(inlet.close_stream)
