"""The child of a job: started within limits, followed line by line, ended when it takes too much."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from embridge_cloud.jobs.model import ANEW, LOG, Limits, ProgressLine
from embridge_shared.clock import Clock
from embridge_shared.errors import DataError, EmbridgeError, OperatorError, Reason

logger = logging.getLogger(__name__)

_LINE_LIMIT: Final = 1 << 20
_TERM_S: Final = 5.0
_LOOK_S: Final = 0.5
_LOG_MAX: Final = 8 << 20
_WORDS: Final = 20
_ERROR: Final = "embridge: error: "
_THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class LostError(EmbridgeError):
    """A child ended without a word: killed from outside, or by the machine. Another attempt may do."""


class TakenError(EmbridgeError):
    """Data was taken from the job while its child worked on it: what it made must not be used."""


class Child:
    """One attempt of a job.

    Args:
        arguments: What the child's module is started with.
        folder: Of the job.
        limits: What it may take.
        clock: Time.
        module: The child's.
    """

    def __init__(
        self,
        arguments: tuple[str, ...],
        folder: Path,
        limits: Limits,
        *,
        clock: Clock,
        module: str = "embridge_cloud.realign_child",
    ) -> None:
        self._arguments = arguments
        self._folder = folder
        self._limits = limits
        self._clock = clock
        self._module = module
        self._process: asyncio.subprocess.Process | None = None
        self._stopped = False
        self._over: EmbridgeError | None = None

    async def run(self, tell: Callable[[ProgressLine], None]) -> None:
        """Run it to its end.

        Args:
            tell: Given every line of progress.

        Raises:
            LostError: It was killed.
            TakenError: Data was taken from the job meanwhile.
            OperatorError: TOO_LARGE, TIMEOUT: it took more memory or time than it may.
            DataError: It failed; its last words.
        """
        code = await self._follow(tell)
        if (self._folder / ANEW).exists():
            raise TakenError("data was taken from the job")
        if self._over is not None:
            raise self._over
        if code < 0:
            raise LostError(f"the training process was ended by {signal.Signals(-code).name}", reason=Reason.CRASHED)
        if code != 0:
            raise DataError(last_words(self._folder / LOG) or f"the training process ended with {code}")

    async def stop(self) -> None:
        """End it, gently first; nothing where it has not begun or is over."""
        self._stopped = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_TERM_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    async def _follow(self, tell: Callable[[ProgressLine], None]) -> int:
        log = self._folder / LOG
        _shorten(log)
        with log.open("ab") as words:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self._module,
                *self._arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=words,
                limit=_LINE_LIMIT,
                env=self._environment(),
            )
        self._process = process
        if self._stopped:  # while it was being started
            await self.stop()
        guard = asyncio.create_task(self._guard(process))
        try:
            assert process.stdout is not None
            async for line in process.stdout:
                tell(msgspec.json.decode(line, type=ProgressLine))
            return await process.wait()
        finally:
            guard.cancel()
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    def _environment(self) -> dict[str, str]:
        threads = self._limits.threads
        return {**os.environ, **({name: str(threads) for name in _THREADS} if threads else {})}

    async def _guard(self, process: asyncio.subprocess.Process) -> None:
        """End a child that takes more than it may, or whose data was taken away."""
        limits, began = self._limits, self._clock.monotonic_ns()
        while process.returncode is None:
            held, took_s = resident_bytes(process.pid), (self._clock.monotonic_ns() - began) * 1e-9
            if limits.memory_bytes and held is not None and held > limits.memory_bytes:
                self._over = OperatorError(
                    f"the training took {held >> 20} MiB of memory, {limits.memory_bytes >> 20} MiB are allowed",
                    reason=Reason.TOO_LARGE,
                    hint="Raise realign.memory_mb, or bound what is replayed with realign.replay.",
                )
            elif took_s > limits.wall_s:
                self._over = OperatorError(
                    f"the training took longer than {limits.wall_s:.0f} s",
                    reason=Reason.TIMEOUT,
                    hint="Raise realign.wall_s, then `embridge job resume`: it goes on from its last checkpoint.",
                )
            if self._over is not None or (self._folder / ANEW).exists():
                logger.warning("%s is ended: %s", self._folder.name, self._over or "data was taken from it")
                process.kill()
                return
            await asyncio.sleep(_LOOK_S)


def resident_bytes(pid: int) -> int | None:
    """Memory a process holds, bytes; None where it is over, or this system does not tell."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_bytes().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def last_words(log: Path) -> str:
    """The error line a child ended with, or its last lines."""
    try:
        lines = log.read_text("utf-8", "replace").splitlines()[-_WORDS:]
    except FileNotFoundError:
        return ""
    errors = [line.removeprefix(_ERROR) for line in lines if line.startswith(_ERROR)]
    return errors[-1] if errors else "\n".join(lines)


def _shorten(log: Path) -> None:
    """A job that is resumed for ever must not fill the disk with words."""
    if log.exists() and log.stat().st_size > _LOG_MAX:
        log.write_bytes(log.read_bytes()[-_LOG_MAX // 2 :])
