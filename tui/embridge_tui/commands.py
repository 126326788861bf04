"""Runs a command of `embridge` beside the interface, as somebody would type it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_LONGEST_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a command.

    Attributes:
        typed: The command, as it could be typed.
        code: Its exit status; 0 where all went well.
        said: What it printed.
    """

    typed: str
    code: int
    said: str


async def embridge(words: Sequence[str], *, timeout_s: float = _LONGEST_S) -> Ran:
    """Run `embridge` with these words; a long one is ended.

    Args:
        words: Noun, verb, arguments.
        timeout_s: How long it may take, s.
    """
    typed = " ".join(["embridge", *words])
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "embridge_shared.cli",
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(timeout_s):
            out, _ = await process.communicate()
    except TimeoutError:
        return Ran(typed, 124, f"it took more than {timeout_s:.0f} s and was ended")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Ran(typed, process.returncode or 0, out.decode("utf-8", "replace").strip())
