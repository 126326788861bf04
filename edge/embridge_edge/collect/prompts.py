"""What a participant is to do, told to other processes of this user: a second screen shows it, nothing comes back.

A Unix socket in the state directory. Each listener gets a line of JSON when something changes, ten times a second while
time drives the session, and once a second otherwise, so that silence means that nobody prompts any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from embridge_edge.collect.protocol import Kind
from embridge_edge.collect.steps import RUNNING, State
from embridge_edge.collect.telling import hint_of, title_of, word_of
from embridge_shared.errors import DataError, NetworkError, OperatorError, Reason
from embridge_shared.gestures import vocabulary
from embridge_shared.session import Side

if TYPE_CHECKING:
    from embridge_edge.collect.leader import Leader

SOCKET: Final = "prompts.sock"
_LOOK_S: Final = 0.1
_BEAT_S: Final = 1.0
_LINE: Final = 1 << 16
_PATH: Final = 100
"""Longer paths do not fit into a socket's address."""


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for now.

    Attributes:
        state: Where the session stands; None without one.
        word: It in a word or two.
        title: What is asked for, or next.
        hint: How it is made.
        pose: Joint angles of its shape, rad (20,); empty where it has none.
        left_handed: It is shown for the left hand.
        remaining_s: Of this part of the repetition, s.
        length_s: Length of this part, s; 0 where time does not drive.
        following: What comes after that.
        done: Trials that are done.
        total: Trials of the session.
    """

    state: State | None = None
    word: str = "PLEASE WAIT"
    title: str = ""
    hint: str = ""
    pose: tuple[float, ...] = ()
    left_handed: bool = False
    remaining_s: float = 0.0
    length_s: float = 0.0
    following: str = ""
    done: int = 0
    total: int = 0


def prompt_of(leader: Leader | None) -> Prompt:
    """What a session asks for now."""
    if leader is None:
        return Prompt()
    at, trial = leader.conductor, leader.conductor.trial
    if trial is None:
        return Prompt(state=at.state, word=word_of(at.state, None), done=len(at.trials), total=len(at.trials))
    shape = vocabulary().get(trial.gesture) if trial.kind is Kind.GESTURE else None
    return Prompt(
        state=at.state,
        word=word_of(at.state, trial),
        title=title_of(trial),
        hint=hint_of(trial, leader.setup.protocol),
        pose=() if shape is None else tuple(float(a) for a in shape.pose),
        left_handed=leader.setup.placement.side is Side.LEFT,
        remaining_s=round(at.remaining_s(leader.now_s), 1),
        length_s=at.length_s,
        following="" if at.following is None else title_of(at.following),
        done=len(at.trials) - at.left,
        total=len(at.trials),
    )


@contextlib.asynccontextmanager
async def told(state_dir: Path, leader: Callable[[], Leader | None]) -> AsyncIterator[None]:
    """Tell prompts to whoever listens, for as long as the block lasts.

    Args:
        state_dir: Of the edge; only one agent at a time holds it.
        leader: Leads the session that is recorded.

    Raises:
        OperatorError: LOCKED: another program tells prompts there.
    """
    tasks: set[asyncio.Task[None]] = set()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await _tell(writer, leader)
        except (OSError, asyncio.CancelledError):
            pass  # the listener left, or nobody prompts any more
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_unix_server(serve, sock=_bound(state_dir))
    try:
        yield
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def _tell(writer: asyncio.StreamWriter, leader: Callable[[], Leader | None]) -> None:
    last, silent_s = Prompt(), _BEAT_S
    while True:
        prompt = prompt_of(leader())
        if prompt != last or prompt.state in RUNNING or silent_s >= _BEAT_S:
            writer.write(msgspec.json.encode(prompt) + b"\n")
            await writer.drain()
            last, silent_s = prompt, 0.0
        await asyncio.sleep(_LOOK_S)
        silent_s += _LOOK_S


async def listen(state_dir: Path) -> AsyncIterator[Prompt]:
    """Prompts of the edge whose state directory this is, until it stops.

    Raises:
        NetworkError: UNREACHABLE: nothing prompts there.
        OperatorError: The directory is another user's.
        DataError: MALFORMED: what speaks there is another version.
    """
    try:
        with _address(state_dir) as path:
            reader, writer = await asyncio.open_unix_connection(path, limit=_LINE)
    except PermissionError as error:
        raise OperatorError(
            f"{state_dir} is not yours to look into", reason=Reason.LOCKED, hint="Run this as the edge's user."
        ) from error
    except OSError as error:
        raise NetworkError(
            f"nothing prompts at {state_dir}",
            reason=Reason.UNREACHABLE,
            hint="Start `embridge tui` or `embridge session record` there; this screen follows.",
        ) from error
    try:
        while line := await reader.readline():
            try:
                yield msgspec.json.decode(line, type=Prompt)
            except msgspec.DecodeError as error:
                raise DataError(f"no prompt: {error}", reason=Reason.MALFORMED, hint="Update this side.") from error
    finally:
        writer.close()


def _bound(state_dir: Path) -> socket.socket:
    """A socket of this user alone; one that a crash left answers nobody, and makes room."""
    state_dir.mkdir(parents=True, exist_ok=True)
    with _address(state_dir) as path:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(path)
            raise OperatorError(
                f"another program records in {state_dir}",
                reason=Reason.LOCKED,
                hint="Stop it first, or give this one a state directory of its own.",
            )
        (state_dir / SOCKET).unlink(missing_ok=True)
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            bound.bind(path)
            (state_dir / SOCKET).chmod(0o600)
        except BaseException:
            bound.close()
            raise
    return bound


@contextlib.contextmanager
def _address(state_dir: Path) -> Iterator[str]:
    """A path of the socket that is short enough."""
    path = str(state_dir / SOCKET)
    if len(os.fsencode(path)) <= _PATH:
        yield path
        return
    folder = os.open(state_dir, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{SOCKET}"
    finally:
        os.close(folder)
