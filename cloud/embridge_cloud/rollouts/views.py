"""What the engine of rollouts is told of edges, and what it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from embridge_shared.fleet import ReleaseHealth, UpdateState


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeView:
    """What is known of an edge.

    Attributes:
        edge: Its name.
        online: Connected.
        release: The release that decodes there, or empty.
        digest: sha256 of its bundle.
        update: Where it stands with the release it was asked to run.
        health: How the release in force fares there.
        heard_ns: Unix time of its last state, ns, by the cloud's clock.
        barred: Why it may take no part; empty if it may.
    """

    edge: str
    online: bool = False
    release: str = ""
    digest: str = ""
    update: UpdateState = field(default_factory=UpdateState)
    health: ReleaseHealth | None = None
    heard_ns: int = 0
    barred: str = ""


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask an edge to run the release."""

    edge: str


@dataclass(frozen=True, slots=True)
class Return:
    """Ask an edge to run what it ran before."""

    edge: str


@dataclass(frozen=True, slots=True)
class Recall:
    """Have the registry sign that the release is recalled."""

    why: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something for the history and for everybody who listens.

    Attributes:
        action: Noun and verb, as in "rollout.wave".
        detail: Figures and words.
    """

    action: str
    detail: Mapping[str, str | int | float] = field(default_factory=dict)


Action = Ask | Return | Recall | Note
