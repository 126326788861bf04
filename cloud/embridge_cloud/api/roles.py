"""Roles, and which of them a route asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_ATTRIBUTE: Final = "__embridge_access__"


class Role(StrEnum):
    """What the holder of a token may do; `METRICS` is for a monitor and stands beside the others."""

    METRICS = "metrics"
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def allows(self, wanted: Role) -> bool:
        """Whether this role may do what `wanted` may."""
        return _RANK[self] >= _RANK[wanted]


_RANK: Final = {Role.METRICS: 0, Role.VIEWER: 1, Role.OPERATOR: 2, Role.ADMIN: 3}


@dataclass(frozen=True, slots=True)
class Access:
    """What a route asks for.

    Attributes:
        role: The least role; None is for everybody, without a token.
        action: What the audit log calls it, noun and verb; empty where nothing is changed.
        noun: What its subject is, as in "release"; the values of the path follow it in the audit log.
        stream: It answers for as long as the caller listens: no time limit.
    """

    role: Role | None
    action: str = ""
    noun: str = ""
    stream: bool = False


def access(role: Role | None, *, action: str = "", stream: bool = False) -> Callable[[F], F]:
    """Declare who may call an endpoint; stands between the route's decorator and the function.

    Args:
        role: The least role; None is for everybody, without a token.
        action: What the audit log calls it, noun and verb as in "job.cancel"; needed where something is changed.
        stream: It answers for as long as the caller listens.
    """

    def declare(endpoint: F) -> F:
        setattr(endpoint, _ATTRIBUTE, Access(role, action, action.partition(".")[0], stream))
        return endpoint

    return declare


def access_of(endpoint: object) -> Access | None:
    """What an endpoint declares, or None where it declares nothing."""
    found = getattr(endpoint, _ATTRIBUTE, None)
    return found if isinstance(found, Access) else None
