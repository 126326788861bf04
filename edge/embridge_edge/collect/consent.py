"""What is known of a participant's consent: what the cloud has on record, or what the operator states."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from embridge_shared.cloud_client import connect
from embridge_shared.errors import EmbridgeError, Reason
from embridge_shared.settings import Settings

_TIMEOUT_S: Final = 4.0
_COLLECT: Final = "collect"


class Standing(StrEnum):
    """Where somebody's consent stands."""

    GIVEN = "given"
    MISSING = "missing"
    """The cloud knows of none."""
    REFUSED = "refused"
    """Withdrawn, or given for something else than being recorded."""
    UNKNOWN = "unknown"
    """The cloud could not be asked."""


@dataclass(frozen=True, slots=True)
class ConsentSeen:
    """What the cloud says.

    Attributes:
        standing: Where it stands.
        version: Of the text that was signed.
        scopes: What was agreed to.
        given_ns: Unix time, ns; 0 when unknown.
        why: Why nobody knows, in a sentence.
    """

    standing: Standing
    version: str = ""
    scopes: tuple[str, ...] = ()
    given_ns: int = 0
    why: str = ""


AskConsent = Callable[[str], Awaitable[ConsentSeen]]
"""Asks for a participant's consent."""


def cloud_consent(settings: Settings) -> AskConsent:
    """Asks the cloud that the settings name; it does not raise."""

    def ask(participant: str) -> ConsentSeen:
        try:
            api = connect(settings=settings, timeout_s=_TIMEOUT_S)
            found = api.post("/api/keep/participant", {"participant": participant})
            given = found["consent"]
        except EmbridgeError as error:
            if error.reason is Reason.NOT_FOUND:
                return ConsentSeen(Standing.MISSING)
            return ConsentSeen(Standing.UNKNOWN, why=error.message)
        except (KeyError, TypeError):
            return ConsentSeen(Standing.UNKNOWN, why="the cloud's answer says nothing of it")
        if given is None:
            return ConsentSeen(Standing.MISSING)
        scopes = tuple(given["scopes"])
        standing = Standing.GIVEN if _COLLECT in scopes else Standing.REFUSED
        return ConsentSeen(standing, str(given["version"]), scopes, int(given["given_ns"]))

    return lambda participant: asyncio.to_thread(ask, participant)
