"""Orders to erase a participant: checked against the root of trust, carried out once, told of in the edge's state."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, NoReturn
from uuid import UUID

import msgspec
from securesystemslib.signer import Signature
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root

from embridge_edge.courier import Courier
from embridge_edge.decode.calibration import FOLDER as CALIBRATIONS
from embridge_edge.decode.donning import FOLDER as DONNINGS
from embridge_edge.enrol.store import forget
from embridge_edge.spool import Spool
from embridge_edge.update.slots import FOLDER as UPDATES
from embridge_shared.clock import Clock
from embridge_shared.erasure import ORDERS_KEPT, ErasureOrder, SignedOrder
from embridge_shared.errors import EmbridgeError, ModelError, Reason
from embridge_shared.session import Session
from embridge_shared.settings import EdgeSettings

logger = logging.getLogger(__name__)

DIGESTS: Final = "digests"
_ROLE: Final = "targets"
_AGAIN_S: Final = 30.0
_ROOTS_MAX: Final = 64


class Erasures:
    """Takes orders and carries them out between sessions.

    Args:
        settings: State folder, root of trust, name.
        courier: The spool.
        clock: Dates what was done, paces tries.
        changed: Called when an order was carried out.

    Attributes:
        done: Ids of the orders carried out, the latest last.
    """

    def __init__(self, settings: EdgeSettings, courier: Courier, clock: Clock, *, changed: Callable[[], None]) -> None:
        self._settings = settings
        self._courier = courier
        self._clock = clock
        self._changed = changed
        self._waiting: dict[UUID, ErasureOrder] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Lock()
        self.done: tuple[UUID, ...] = courier.spool.orders()

    def take(self, signed: SignedOrder) -> None:
        """Check an order and put it on the list; one that was carried out is answered again."""
        if self._settings.update_root is None:
            logger.warning(
                "an order to erase a participant was ignored: without edge.update_root nothing tells who sent it; "
                "`embridge edge forget` does it by hand"
            )
            return
        try:
            order = verify(signed, self._settings.update_root.read_bytes(), self._settings.state_dir)
        except (EmbridgeError, OSError) as error:
            logger.error("an order to erase is refused: %s", error)
            return
        if order.edge != self._settings.name:
            logger.error("an order to erase is refused: it is for another edge")
        elif order.id in self.done:
            self._changed()
        else:
            self._waiting[order.id] = order
            self._wake.set()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Nothing is erased inside: a session is recorded to its end."""
        async with self._idle:
            yield

    async def run(self) -> NoReturn:
        """Carry out what was ordered, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            for order in list(self._waiting.values()):
                try:
                    async with self._idle:
                        await self._carry_out(order)
                except EmbridgeError as error:
                    logger.error("a participant is not erased yet: %s", error)
                    await self._clock.sleep(_AGAIN_S)
                    self._wake.set()

    async def _carry_out(self, order: ErasureOrder) -> None:
        found = await self._courier.call(erase, self._courier.spool, self._settings.state_dir, order.means)
        now = self._clock.wall_ns()
        await self._courier.call(lambda: self._courier.spool.obeyed(order.id, now, keep=ORDERS_KEPT))
        self.done = await self._courier.call(self._courier.spool.orders)
        self._waiting.pop(order.id, None)
        logger.info("erased a participant as ordered (%s): %d sessions and files", order.id, found)
        self._changed()


def erase(spool: Spool, state_dir: Path, means: Callable[[str], bool]) -> int:
    """Remove every trace of a participant from an edge; how many sessions and files there were.

    Args:
        spool: The open spool.
        state_dir: The edge's state folder.
        means: Tells whether a participant is the one.

    Raises:
        EmbridgeError: The spool's disk is full or fails; ask again.
    """
    answers: dict[str, bool] = {}

    def meant(participant: str) -> bool:
        # An order's digest is slow on purpose.
        if participant not in answers:
            answers[participant] = means(participant)
        return answers[participant]

    sessions = [k.session for k in spool.sessions() if meant(_participant(k.description))]
    spool.erase(sessions)
    files = [
        path
        for folder in (CALIBRATIONS, DONNINGS, DIGESTS)
        for path in sorted((state_dir / folder).glob("*.json"))
        if meant(_named(path))
    ]
    for path in files:
        path.unlink()
    return len(sessions) + len(files) + forget(state_dir, meant)


def verify(signed: SignedOrder, root: bytes, state_dir: Path) -> ErasureOrder:
    """The order in a signed one.

    Args:
        signed: As it came.
        root: Root metadata the edge was provisioned with.
        state_dir: Where newer roots lie, which an update brought and an older one vouches for.

    Raises:
        ModelError: SIGNATURE: the registry that this edge trusts has not signed it.
        DataError: It is no order.
    """
    signatures = {k: Signature(k, value.hex()) for k, value in signed.signatures.items()}
    try:
        trusted: Metadata[Root] = Metadata.from_bytes(root)
        history = state_dir / UPDATES / "metadata" / "root_history"
        while (path := history / f"{trusted.signed.version + 1}.root.json").is_file():
            trusted = _follow(trusted, path.read_bytes())
        for newer in signed.roots[:_ROOTS_MAX]:
            if Metadata.from_bytes(newer).signed.version == trusted.signed.version + 1:
                trusted = _follow(trusted, newer)
        trusted.signed.verify_delegate(_ROLE, signed.body, signatures)
    except (RepositoryError, ValueError) as error:
        raise ModelError(
            f"an order is not signed by whom this edge trusts: {error}.",
            reason=Reason.SIGNATURE,
            hint="Nothing was erased.",
        ) from error
    return signed.order()


def _follow(trusted: Metadata[Root], newer: bytes) -> Metadata[Root]:
    """The next root, which enough keys of this one and of itself have signed."""
    found: Metadata[Any] = Metadata.from_bytes(newer)
    trusted.verify_delegate(Root.type, found)
    found.verify_delegate(Root.type, found)
    if found.signed.version != trusted.signed.version + 1:
        raise RepositoryError(f"root {found.signed.version} does not follow root {trusted.signed.version}")
    return found


class _Named(msgspec.Struct):
    participant: str


def _participant(description: bytes) -> str:
    return msgspec.msgpack.decode(description, type=Session).participant.id


def _named(path: Path) -> str:
    """Whose file it is; empty for one that does not say."""
    with suppress(msgspec.DecodeError, OSError):
        return msgspec.json.decode(path.read_bytes(), type=_Named).participant
    return ""
