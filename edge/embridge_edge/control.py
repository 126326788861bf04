"""The local door of a running agent: a socket in its state directory, for who may write there and for nobody else."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from embridge_shared.errors import EmbridgeError, NetworkError, OperatorError, Reason

logger = logging.getLogger(__name__)

SOCKET: Final = "agent.sock"
_MAX_BYTES: Final = 65_536
_PATIENCE_S: Final = 10.0


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked of an agent.

    Attributes:
        do: The name of a handler.
        reason: Why, in the asker's words.
    """

    do: str
    reason: str = ""


class Reply(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What it answers.

    Attributes:
        said: The answer.
        error: Why there is none; empty for none.
        why: A `Reason` value, with an error.
        hint: What to do next, with an error.
    """

    said: str = ""
    error: str = ""
    why: str = ""
    hint: str = ""


Handler = Callable[[Request], Awaitable[str]]


@asynccontextmanager
async def door(state_dir: Path, handlers: dict[str, Handler]) -> AsyncIterator[None]:
    """Answer requests inside; the agent holds the lock of the state directory, so an old socket is nobody's.

    Args:
        state_dir: Of the agent.
        handlers: What can be asked, by name.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                line = await reader.readline()
            writer.write(msgspec.json.encode(await _answer(line, handlers)) + b"\n")
            await writer.drain()
        except (OSError, ValueError, TimeoutError) as error:
            logger.debug("somebody asked and left: %s", error)
        finally:
            writer.close()

    with _short(state_dir / SOCKET) as path:
        _remove(path)
        before = os.umask(0o177)
        try:
            server = await asyncio.start_unix_server(answer, path, limit=_MAX_BYTES)
        finally:
            os.umask(before)
    try:
        async with server:
            yield
    finally:
        _remove(state_dir / SOCKET)


def ask(state_dir: Path, request: Request) -> str:
    """Ask the agent that runs in a state directory.

    Raises:
        NetworkError: UNREACHABLE: none runs there, or it does not answer; TIMEOUT.
        OperatorError: It will not, and why.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(6 * _PATIENCE_S)
            with _short(state_dir / SOCKET) as path:
                link.connect(path)
            link.sendall(msgspec.json.encode(request) + b"\n")
            with link.makefile("rb") as file:
                line = file.readline(_MAX_BYTES)
        reply = msgspec.json.decode(line, type=Reply)
    except TimeoutError as error:
        raise NetworkError(f"the agent in {state_dir} does not answer", reason=Reason.TIMEOUT) from error
    except (OSError, msgspec.DecodeError) as error:
        raise NetworkError(
            f"the agent in {state_dir} cannot be asked: {error}",
            reason=Reason.UNREACHABLE,
            hint="Start it, or update its software if it is an older one.",
        ) from error
    if reply.error:
        raise OperatorError(reply.error, reason=Reason(reply.why or Reason.INVALID), hint=reply.hint)
    return reply.said


async def _answer(line: bytes, handlers: dict[str, Handler]) -> Reply:
    try:
        request = msgspec.json.decode(line, type=Request)
        handler = handlers.get(request.do)
        if handler is None:
            raise OperatorError(f"an agent cannot {request.do!r}", hint="Update its software.")
        return Reply(said=await handler(request))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Reply(error=f"no request: {error}", why=Reason.MALFORMED.value)
    except EmbridgeError as error:
        return Reply(error=error.message, why=error.reason.value, hint=error.hint)


def _remove(path: Path | str) -> None:
    Path(path).unlink(missing_ok=True)


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A path to a socket that fits into its address, however deep its folder lies."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
