"""Any board of BrainFlow: the way to bands without a driver here."""

from __future__ import annotations

import asyncio
import math
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge_edge.band_plan import BrainflowSource
from embridge_edge.bands.indexing import Counted, CounterKind
from embridge_edge.bands.info import BandInfo, emg_stream
from embridge_edge.bands.polled import PolledBand
from embridge_shared.clock import Clock
from embridge_shared.errors import ConfigError, DeviceError, Reason
from embridge_shared.signal import Modality, SampleType, StreamSpec

_POLL_S = 0.02
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


class BrainflowBand(PolledBand):
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
        self._id, descr = self._describe(source.board)
        self._rows = [int(r) for r in descr.get("emg_channels") or descr.get("eeg_channels") or ()]
        if not self._rows:
            raise ConfigError(f"the BrainFlow board {source.board} has no EMG", hint="Choose another board.")
        self._number_row = descr.get("package_num_channel")
        self._time_row = int(descr["timestamp_channel"])
        self._board: Any = None
        spec = emg_stream(
            len(self._rows),
            float(descr["sampling_rate"]),
            f"brainflow:{descr.get('name', source.board)}".lower(),
            label=source.label,
            dtype=SampleType.FLOAT32,
            unit="µV",
        )
        super().__init__(
            "brainflow",
            spec,
            clock=clock,
            address=source.address,
            duration_s=duration_s,
            modulus=source.counter_modulus if self._number_row is not None else 0,
            gone_s=_GONE_S,
            advice="Switch it off and on, and start anew.",
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

    async def _start(self) -> None:
        self._go("connecting")
        try:
            await asyncio.to_thread(self._prepare)
        except self._shim.BrainFlowError as error:
            raise DeviceError(
                f"the BrainFlow board {self._source.board} does not start: {error}",
                reason=Reason.UNREACHABLE,
                hint="Is it on, plugged in, and free? Check `serial_port`, `address` or `ip_address` in the plan.",
            ) from error

    def _prepare(self) -> None:
        parameters = self._shim.BrainFlowInputParams()
        parameters.serial_port = self._source.serial_port
        parameters.mac_address = self._source.address
        parameters.ip_address = self._source.ip_address
        board = self._shim.BoardShim(self._id, parameters)
        board.prepare_session()
        self._board = board
        board.start_stream(_BUFFER)

    async def _read(self) -> list[tuple[Counted, int]] | None:
        if self._board is None:
            return None
        data: NDArray[np.float64] = await asyncio.to_thread(self._board.get_board_data)
        if not data.shape[1]:
            await self._clock.sleep(_POLL_S)
        return self._blocks(data) if data.shape[1] else []

    def _blocks(self, data: NDArray[np.float64]) -> list[tuple[Counted, int]]:
        """A block, cut where a package number is missing."""
        values = np.ascontiguousarray(data[self._rows].T, np.float32)
        stamps_ns = np.rint(data[self._time_row] * 1e9).astype(np.int64)
        offset_ns = self._clock.monotonic_ns() - self._clock.wall_ns()
        modulus = self._modulus
        numbers = data[self._number_row].astype(np.int64) % modulus if modulus else None
        cuts = [0, len(values)]
        if numbers is not None:
            cuts = [0, *(np.flatnonzero(np.diff(numbers) % modulus != 1) + 1).tolist(), len(values)]
        return [
            (Counted(values[a:b], None if numbers is None else int(numbers[a])), int(stamps_ns[b - 1]) + offset_ns)
            for a, b in pairwise(cuts)
        ]

    def _gone(self) -> DeviceError:
        return DeviceError("the BrainFlow board sends nothing", reason=Reason.SILENT, hint=self._advice)

    async def close(self) -> None:
        """Stop the board and let it go."""
        board, self._board = self._board, None
        if board is None:
            return
        reason = ""
        try:
            await asyncio.to_thread(board.stop_stream)
        except self._shim.BrainFlowError:
            reason = "it did not stop when told to"
        self._go("stopped", reason)
        await asyncio.to_thread(board.release_session)
