"""The door into the store: the ingester's own, whether the cloud process runs or not.

A session from elsewhere enters as the messages an edge would have sent of it. Where no cloud process runs, they go
through `Intake`, `HotStore` and `Sealer` here; where one does, they go to its broker (`exchange.delivery`) and are sent
again until it has committed and sealed them. Both ways a message is judged by the same code, and one that comes twice
is stored once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Protocol
from uuid import UUID

from embridge_cloud.context import CloudPaths
from embridge_cloud.exchange.recording import Recording
from embridge_cloud.intake import Intake
from embridge_cloud.parcels import Incoming
from embridge_cloud.rounds import Taken
from embridge_cloud.store.failures import StoreLockedError
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.sealed import Catalogue
from embridge_cloud.store.sealing import Sealer
from embridge_shared.clock import Clock, SystemClock
from embridge_shared.errors import DataError, Reason
from embridge_shared.settings import Settings

logger = logging.getLogger(__name__)

ROUND = 400


class Arrival(StrEnum):
    """What became of a session."""

    STORED = "stored"
    HELD = "already there"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A session that was brought in.

    Attributes:
        session: Its id.
        arrival: Whether it is new.
        content_hash: Digest of its samples.
    """

    session: UUID
    arrival: Arrival
    content_hash: str


class Door(Protocol):
    """Takes sessions in."""

    def bring(self, recording: Recording) -> Outcome:
        """Store a session and seal it; one that is there already changes nothing.

        Raises:
            DataError: It is not what it should be, or another is there under its id.
            StoreError: The database refused.
            NetworkError: The cloud cannot be reached.
        """


def checked(recording: Recording, catalogue: Catalogue) -> Outcome | None:
    """The outcome where the session is sealed already, None where it is new.

    Raises:
        DataError: Its samples are not those it was exported with, or others are there under its id.
    """
    session, content = recording.session.id, recording.content_hash
    if recording.content and content != recording.content:
        raise DataError(
            f"session {session} does not hold the samples it was exported with",
            reason=Reason.HASH_MISMATCH,
            hint="The export was changed or is damaged: take it from a copy.",
        )
    if session not in catalogue.ids():
        return None
    found = catalogue.get(session)
    if found.content_hash != content:
        raise DataError(
            f"session {session} is sealed here with other samples",
            reason=Reason.OVERLAP,
            hint="`embridge session verify` tells whether the one here is sound.",
        )
    return Outcome(session, Arrival.HELD, content)


class OfflineDoor:
    """The ingester's rounds without a broker; this process owns the hot file meanwhile.

    Args:
        store: Open hot store.
        sealer: Seals what is complete.
        catalogue: What is sealed.
        clock: Time.
    """

    def __init__(self, store: HotStore, sealer: Sealer, catalogue: Catalogue, clock: Clock) -> None:
        self._store = store
        self._sealer = sealer
        self._catalogue = catalogue
        self._clock = clock
        self._intake = Intake(store.read)
        sealer.prepare()

    def bring(self, recording: Recording) -> Outcome:
        """Store a session and seal it; one that is there already changes nothing."""
        held = checked(recording, self._catalogue)
        if held is not None:
            return held
        messages = recording.messages()
        while batch := list(islice(messages, ROUND)):
            self._round([Incoming(topic, payload, self._clock.wall_ns()) for topic, payload in batch])
        session = recording.session.id
        sealed = self._sealer.seal(session)
        self._intake.sealed(session)
        if sealed.content_hash != recording.content_hash:
            raise DataError(f"session {session} was sealed with other samples than it had", reason=Reason.HASH_MISMATCH)
        logger.info("imported session %s", session)
        return Outcome(session, Arrival.STORED, sealed.content_hash)

    def _round(self, messages: Sequence[Incoming]) -> None:
        more = True
        while more:
            taken = self._intake.take(messages)
            if taken.batch:
                self._store.commit(taken.batch)
            self._intake.committed(taken)
            raise_refused(taken)
            messages, more = (), taken.more


def raise_refused(taken: Taken) -> None:
    """Raise for the first message of a round that was refused.

    Raises:
        DataError: One was.
    """
    for (_, session), reply in taken.replies.items():
        for refusal in reply.refused:
            raise DataError(
                f"the store refused part of session {session}: {refusal.detail}",
                reason=Reason(refusal.reason),
                hint="" if refusal.reason == Reason.ERASED else "What was refused lies in the quarantine.",
            )


@contextmanager
def open_door(settings: Settings, clock: Clock | None = None) -> Iterator[Door]:
    """The door of the cloud the settings name: its files where it is stopped, its broker where it runs.

    Raises:
        StoreError: The store cannot be opened.
        NetworkError: The cloud runs and its broker cannot be reached.
    """
    clock, paths = clock or SystemClock(), CloudPaths.of(settings)
    catalogue = Catalogue(paths.sealed)
    try:
        store = HotStore(paths.hot, quarantine_max_bytes=settings.cloud.quarantine_max_bytes).open()
    except StoreLockedError:
        from embridge_cloud.exchange.delivery import BrokerDoor

        logger.info("the cloud runs: sessions go through its broker")
        yield BrokerDoor(settings.mqtt, catalogue)
        return
    with closing(store):
        yield OfflineDoor(store, Sealer(store, paths.sealed, wall_ns=clock.wall_ns), catalogue, clock)
