"""Any board of BrainFlow: the way to bands without a driver here."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge_edge.band_plan import BrainflowSource
from embridge_edge.bands.indexing import Counted, CounterKind, Indexer
from embridge_edge.bands.info import BandInfo
from embridge_edge.source import Band, Packet
from embridge_shared.clock import Clock
from embridge_shared.errors import ConfigError, DeviceError, Reason
from embridge_shared.session import BandState
from embridge_shared.signal import Modality, SampleType, StreamSpec

_POLL_S = 0.02
_STALLED_S = 2.0
_GONE_S = 30.0
_BUFFER = 45000

INFO = BandInfo(
    kind="brainflow",
    title="BrainFlow board",
    streams=(
        StreamSpec(name="emg", modality=Modality.EMG, channels=("as of the board",), rate_hz=1.0, device="brainflow"),
    ),
    counter=CounterKind.PACKETS,
    transport="BrainFlow",
    quirks="One board a session; stamps are BrainFlow's own arrival times, loss comes from its package number.",
)


def _load() -> Any:
    """The module `brainflow.board_shim`.

    Raises:
        ConfigError: MISSING_EXTRA: it is not installed.
    """
    try:
        from brainflow import board_shim
    except ModuleNotFoundError as error:
        raise ConfigError(
            "this band needs brainflow, which is not installed",
            reason=Reason.MISSING_EXTRA,
            hint='Install it with: pip install "embridge[brainflow]"',
        ) from error
    return board_shim


class BrainflowBand(Band):
    """EMG from a board of BrainFlow.

    Args:
        source: Which board.
        clock: The host's clock.
        duration_s: Deliver so much; endless when infinite.

    Raises:
        ConfigError: brainflow is not installed, or knows no such board, or the board has no EMG.
    """

    def __init__(self, source: BrainflowSource, *, clock: Clock, duration_s: float = math.inf) -> None:
        self._shim = _load()
        self._source = source
        self._clock = clock
        self._duration_s = duration_s
        self._id, descr = self._describe(source.board)
        self._rows = [int(r) for r in descr.get("emg_channels") or descr.get("eeg_channels") or ()]
        if not self._rows:
            raise ConfigError(f"the BrainFlow board {source.board} has no EMG", hint="Choose another board.")
        self._number_row = descr.get("package_num_channel")
        self._time_row = int(descr["timestamp_channel"])
        self._board: Any = None
        self._indexer: Indexer | None = None
        self._host_ns = 0
        self._first = 0
        self._phase, self._reason = "idle", ""
        self._received = 0
        self._stopped = False
        self._spec = StreamSpec(
            name=f"{source.label}_emg" if source.label else "emg",
            modality=Modality.EMG,
            channels=tuple(f"e{i}" for i in range(len(self._rows))),
            rate_hz=float(descr["sampling_rate"]),
            dtype=SampleType.FLOAT32,
            unit="µV",
            device=f"brainflow:{descr.get('name', source.board)}".lower(),
        )

    def _describe(self, board: str) -> tuple[int, dict[str, Any]]:
        ids = {b.name: int(b.value) for b in self._shim.BoardIds}
        number = int(board) if board.lstrip("-").isdigit() else ids.get(board.upper())
        if number is None:
            raise ConfigError(f"BrainFlow knows no board {board!r}", hint=f"Known: {', '.join(sorted(ids))}.")
        try:
            return number, dict(self._shim.BoardShim.get_board_descr(number))
        except self._shim.BrainFlowError as error:
            raise ConfigError(f"BrainFlow knows no board {board!r}: {error}") from error

    @property
    def spec(self) -> StreamSpec:
        """What BrainFlow says the board delivers."""
        return self._spec

    def state(self) -> BandState:
        """What is known of it."""
        return BandState(
            stream=self._spec.name,
            kind="brainflow",
            address=self._source.address,
            phase=self._phase,
            reason=self._reason,
            received=self._received,
            lost=self._indexer.lost if self._indexer is not None else 0,
        )

    async def open(self, host_ns: int, first: int = 0) -> None:
        """Prepare the board and start it.

        Raises:
            DeviceError: It does not answer.
        """
        self._host_ns, self._first = host_ns, first
        self._phase = "connecting"
        try:
            await asyncio.to_thread(self._start)
        except self._shim.BrainFlowError as error:
            raise DeviceError(
                f"the BrainFlow board {self._source.board} does not start: {error}",
                reason=Reason.UNREACHABLE,
                hint="Is it on, plugged in, and free? Check `serial_port`, `address` or `ip_address` in the plan.",
            ) from error
        self._phase = "streaming"

    def _start(self) -> None:
        parameters = self._shim.BrainFlowInputParams()
        parameters.serial_port = self._source.serial_port
        parameters.mac_address = self._source.address
        parameters.ip_address = self._source.ip_address
        board = self._shim.BoardShim(self._id, parameters)
        board.prepare_session()
        self._board = board
        board.start_stream(_BUFFER)

    async def packets(self) -> AsyncIterator[Packet]:
        """What comes, until the duration is over.

        Raises:
            DeviceError: Nothing has come for half a minute.
        """
        end = self._duration_s * self._spec.rate_hz
        heard_ns = self._clock.monotonic_ns()
        while self._board is not None and not self._stopped:
            data: NDArray[np.float64] = await asyncio.to_thread(self._board.get_board_data)
            if not data.shape[1]:
                self._check_silence((self._clock.monotonic_ns() - heard_ns) * 1e-9)
                await self._clock.sleep(_POLL_S)
                continue
            heard_ns, self._phase, self._reason = self._clock.monotonic_ns(), "streaming", ""
            for packet in self._index(data):
                kept = packet.samples[: max(0, math.ceil(min(end - packet.first, len(packet.samples))))]
                if len(kept):
                    self._received += len(kept)
                    yield Packet(packet.first, kept, packet.host_ns, packet.inferred)
                if packet.first + len(packet.samples) >= end:
                    return

    def _index(self, data: NDArray[np.float64]) -> list[Packet]:
        """Packets of a block; it is cut where a package number is missing."""
        values = np.ascontiguousarray(data[self._rows].T, np.float32)
        stamps_ns = np.rint(data[self._time_row] * 1e9).astype(np.int64)
        offset_ns = self._clock.monotonic_ns() - self._clock.wall_ns()
        modulus = self._source.counter_modulus if self._number_row is not None else 0
        numbers = data[self._number_row].astype(np.int64) % modulus if modulus else None
        cuts = [0, len(values)]
        if numbers is not None:
            cuts = [0, *(np.flatnonzero(np.diff(numbers) % modulus != 1) + 1).tolist(), len(values)]
        packets: list[Packet] = []
        for a, b in pairwise(cuts):
            host_ns = int(stamps_ns[b - 1]) + offset_ns
            if self._indexer is None:
                start = 0
                if self._first:
                    start = max(self._first, round((host_ns - self._host_ns) * 1e-9 * self._spec.rate_hz) - (b - a))
                self._indexer = Indexer(self._spec.rate_hz, modulus, exact=modulus > 0, start=start)
            value = None if numbers is None else int(numbers[a])
            packets += self._indexer.push(Counted(values[a:b], value), host_ns)
        return packets

    def _check_silence(self, silence_s: float) -> None:
        if silence_s < _STALLED_S:
            return
        self._phase, self._reason = "stalled", f"no samples for {silence_s:.0f} s"
        if silence_s >= _GONE_S:
            self._phase = "lost"
            raise DeviceError(
                "the BrainFlow board sends nothing", reason=Reason.SILENT, hint="Switch it off and on, and start anew."
            )

    def stop(self) -> None:
        """End after what has come so far."""
        self._stopped = True

    async def close(self) -> None:
        """Stop the board and let it go."""
        board, self._board = self._board, None
        if board is None:
            return
        self._phase = "stopped"
        try:
            await asyncio.to_thread(board.stop_stream)
        except self._shim.BrainFlowError:
            self._reason = "it did not stop when told to"
        await asyncio.to_thread(board.release_session)
