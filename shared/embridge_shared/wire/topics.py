"""Topic names: one place that builds and reads them.

    embridge/v1/up/{shard}/{edge}/{session}/{stream}   chunks
    embridge/v1/event/{shard}/{edge}/{session}         session events
    embridge/v1/down/{edge}/commit                     what the store holds for certain
    embridge/v1/down/{edge}/desired                    retained: the release and policy an edge should run
    embridge/v1/down/{edge}/orders                     signed orders to erase a participant
    embridge/v1/down/{edge}/blocks                     blocks of the update repository, as it asked for them
    embridge/v1/ask/{edge}                             requests for such blocks
    embridge/v1/state/{edge}                           retained, also the last will
    embridge/v1/live/{edge}                            gestures as they fall, for applications; JSON, never kept
    embridge/v1/check/{edge}                           what `embridge doctor` says to itself; nobody else listens

The shard is crc32(edge) mod 256, so that an ingester owns a range of edges, in order, with one writer.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from uuid import UUID

from embridge_shared.errors import ConfigError, DataError, Reason
from embridge_shared.names import CODE_RULE, is_code

ROOT = "embridge/v1"
SHARDS = 256

_STREAM = re.compile(r"[a-z0-9_]{1,64}")


def check_edge(edge: str) -> str:
    """Return `edge` when it can stand in a topic and a certificate.

    Raises:
        ConfigError: It holds something else than letters, digits, dot, dash and underscore.
    """
    if not is_code(edge):
        raise ConfigError(f"{edge!r} cannot name an edge", hint=CODE_RULE)
    return edge


def shard(edge: str) -> int:
    """Shard of an edge, 0..255."""
    return zlib.crc32(edge.encode()) % SHARDS


def chunk_topic(edge: str, session: UUID, stream: str) -> str:
    """Topic of a stream's chunks."""
    return f"{ROOT}/up/{shard(edge)}/{check_edge(edge)}/{session}/{stream}"


def event_topic(edge: str, session: UUID) -> str:
    """Topic of a session's events."""
    return f"{ROOT}/event/{shard(edge)}/{check_edge(edge)}/{session}"


def commit_topic(edge: str) -> str:
    """Topic on which the cloud tells an edge what it holds."""
    return f"{ROOT}/down/{check_edge(edge)}/commit"


def desired_topic(edge: str) -> str:
    """Retained topic with what an edge should run."""
    return f"{ROOT}/down/{check_edge(edge)}/desired"


def orders_topic(edge: str) -> str:
    """Topic of signed orders to an edge."""
    return f"{ROOT}/down/{check_edge(edge)}/orders"


def blocks_topic(edge: str) -> str:
    """Topic of the blocks an edge asked for."""
    return f"{ROOT}/down/{check_edge(edge)}/blocks"


def ask_topic(edge: str) -> str:
    """Topic on which an edge asks for blocks."""
    return f"{ROOT}/ask/{check_edge(edge)}"


def state_topic(edge: str) -> str:
    """Retained topic with what an edge is."""
    return f"{ROOT}/state/{check_edge(edge)}"


def live_topic(edge: str) -> str:
    """Topic on which an edge tells applications what it decodes."""
    return f"{ROOT}/live/{check_edge(edge)}"


def check_topic(edge: str) -> str:
    """Topic on which an edge may hear itself."""
    return f"{ROOT}/check/{check_edge(edge)}"


def ingest_filters(first: int = 0, last: int = SHARDS - 1) -> list[str]:
    """Subscriptions of an ingester that owns the shards `first`..`last`.

    Raises:
        ConfigError: The range is empty or outside 0..255.
    """
    if not 0 <= first <= last < SHARDS:
        raise ConfigError(f"shards {first}..{last} are no range within 0..{SHARDS - 1}")
    shards = ["+"] if (first, last) == (0, SHARDS - 1) else [str(s) for s in range(first, last + 1)]
    return [f"{ROOT}/{kind}" for s in shards for kind in (f"up/{s}/+/+/+", f"event/{s}/+/+")]


@dataclass(frozen=True, slots=True)
class Address:
    """What an upward topic names; `stream` is empty for events."""

    edge: str
    session: UUID
    stream: str = ""


def parse_upward(topic: str) -> Address:
    """Read a chunk or event topic.

    Raises:
        DataError: It is none of ours, or its shard does not belong to its edge.
    """
    parts = topic.split("/")
    try:
        if parts[:3] == ["embridge", "v1", "up"] and len(parts) == 7 and _STREAM.fullmatch(parts[6]):
            address = Address(parts[4], UUID(parts[5]), parts[6])
        elif parts[:3] == ["embridge", "v1", "event"] and len(parts) == 6:
            address = Address(parts[4], UUID(parts[5]))
        else:
            raise ValueError(topic)
        # One spelling each: UUID() and int() read several.
        if parts[3] != str(shard(address.edge)) or parts[5] != str(address.session):
            raise ValueError(topic)
    except ValueError:
        raise DataError(f"{topic!r} is no chunk or event topic", reason=Reason.FOREIGN) from None
    return address
