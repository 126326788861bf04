"""Routes of rollouts, of the edges' shadows, and of taking a release back."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request

from embridge_cloud.api import models
from embridge_cloud.api.admin_routes import audit_row
from embridge_cloud.api.bodies import body_of, read_body
from embridge_cloud.api.roles import Role, access
from embridge_cloud.context import CloudContext
from embridge_cloud.rollouts.driver import Rollouts
from embridge_cloud.rollouts.policy import policy_of
from embridge_cloud.rollouts.roster import Shadow
from embridge_cloud.rollouts.tally import tally
from embridge_cloud.rollouts.verbs import VERBS
from embridge_shared.errors import OperatorError
from embridge_shared.fleet import Rollout, RolloutPolicy, RolloutRequest

_COHORT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HISTORY_MAX: Final = 1000

replace = msgspec.structs.replace


class Say(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is done to a rollout, or to a release.

    Attributes:
        reason: Why; needed to pause, to abort and to recall.
        keep: With an abort: leave the release where it runs instead of recalling it.
    """

    reason: str = ""
    keep: bool = False


class EdgeChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A change of what is decided about an edge.

    Attributes:
        cohort: Group it belongs to; empty for none, absent to leave it.
        pinned: Release it keeps; empty to unpin it, absent to leave it.
        pinned_why: Why it is pinned.
    """

    cohort: str | None = None
    pinned: str | None = None
    pinned_why: str = ""


def add_rollouts(app: FastAPI, context: CloudContext, rollouts: Rollouts) -> None:
    """Add the routes.

    Raises:
        ConfigError: The policy of the settings is none.
    """
    _add_lists(app, context, rollouts, policy_of(context.settings.rollout))
    for verb in VERBS:
        _add_verb(app, rollouts, verb)
    _add_fleet(app, context, rollouts)
    _add_recall(app, rollouts)


def _add_lists(app: FastAPI, context: CloudContext, rollouts: Rollouts, usual: RolloutPolicy) -> None:
    @app.get("/api/rollouts", response_model=list[models.Rollout], tags=["rollouts"])
    @access(Role.VIEWER)
    async def listing() -> Any:
        """All rollouts, the oldest first, with their waves and without their edges."""
        return [told(rollout, edges=False) for rollout in rollouts.shelf.all()]

    @app.get("/api/rollout-policy", response_model=models.RolloutPolicy, tags=["rollouts"])
    @access(Role.VIEWER)
    async def policy() -> Any:
        """How a release is rolled out where nothing else is said."""
        return msgspec.to_builtins(usual)

    @app.post(
        "/api/rollouts",
        status_code=201,
        response_model=models.Rollout,
        tags=["rollouts"],
        openapi_extra=body_of(app, RolloutRequest),
    )
    @access(Role.OPERATOR, action="rollout.start")
    async def start(request: Request) -> Any:
        """Roll a release out; with `dry_run` say what would happen, and do nothing."""
        wish = read_body(await request.body(), RolloutRequest)
        by = request.state.principal.name
        rollout = await rollouts.start(wish, usual, by)
        request.state.subject = (rollout.id or "dry-run",)
        takes = sum(1 for p in rollout.edges if not p.left)
        request.state.detail = {"release": rollout.release, "cohort": rollout.cohort, "edges": takes}
        return told(rollout)

    @app.get("/api/rollouts/{name}", response_model=models.Rollout, tags=["rollouts"])
    @access(Role.VIEWER)
    async def one(name: str) -> Any:
        """One rollout with all its edges."""
        return told(rollouts.shelf.get(name))

    @app.get("/api/rollouts/{name}/history", response_model=list[models.AuditRow], tags=["rollouts"])
    @access(Role.VIEWER)
    def history(name: str) -> Any:
        """What happened to a rollout, from the log that cannot be rewritten; the oldest first."""
        return _history(context, f"rollout:{rollouts.shelf.get(name).id}")


def _add_verb(app: FastAPI, rollouts: Rollouts, verb: str) -> None:
    @app.post(
        f"/api/rollouts/{{name}}/{verb}",
        response_model=models.Rollout,
        tags=["rollouts"],
        name=f"{verb}_rollout",
        description=_SAID[verb],
        openapi_extra=body_of(app, Say, required=False),
    )
    @access(Role.OPERATOR, action=f"rollout.{verb}")
    async def act(name: str, request: Request) -> Any:
        body = await request.body()
        said = read_body(body, Say) if body else Say()
        request.state.detail = {"reason": said.reason} | ({"keep": 1} if said.keep else {})
        return told(await rollouts.act(name, verb, reason=said.reason, keep=said.keep))


_SAID: Final = {
    "approve": "Let the wave begin that waits for it.",
    "advance": "Begin the next wave at once, without the rest of this one and without its approval.",
    "pause": "Ask no more edges; those that were asked go on.",
    "resume": "Go on after a pause; errors so far no longer count.",
    "abort": "Stop for good: recall the release and return every edge; with `keep` leave it where it runs.",
}


def _add_fleet(app: FastAPI, context: CloudContext, rollouts: Rollouts) -> None:
    @app.get("/api/fleet", response_model=list[models.Shadow], tags=["fleet"])
    @access(Role.VIEWER)
    async def fleet() -> Any:
        """Every edge: what was decided about it, and what it reports."""
        return [_shadow(s) for s in rollouts.roster.all()]

    @app.get("/api/fleet/{name}", response_model=models.Shadow, tags=["fleet"])
    @access(Role.VIEWER)
    async def one(name: str) -> Any:
        """One edge: what was decided about it, and what it reports."""
        return _shadow(rollouts.roster.get(name))

    @app.get("/api/fleet/{name}/history", response_model=list[models.AuditRow], tags=["fleet"])
    @access(Role.VIEWER)
    def history(name: str) -> Any:
        """What was decided about an edge by hand, and why; the oldest first."""
        return _history(context, f"fleet:{rollouts.roster.get(name).desired.edge}")

    @app.put("/api/fleet/{name}", response_model=models.Shadow, tags=["fleet"], openapi_extra=body_of(app, EdgeChange))
    @access(Role.OPERATOR, action="fleet.change")
    async def change(name: str, request: Request) -> Any:
        """Put an edge into a cohort, pin it to a release, or unpin it."""
        wish = read_body(await request.body(), EdgeChange)
        _check(wish)
        why = f"{wish.pinned_why.strip()} ({request.state.principal.name})"
        found = await rollouts.decide(name, cohort=wish.cohort, pinned=wish.pinned, why=why)
        given = {"cohort": wish.cohort, "pinned": wish.pinned, "why": wish.pinned_why or None}
        request.state.detail = {key: value for key, value in given.items() if value is not None}
        return _shadow(found)


def _add_recall(app: FastAPI, rollouts: Rollouts) -> None:
    @app.post(
        "/api/releases/{name}/recall",
        response_model=models.Release,
        tags=["releases"],
        openapi_extra=body_of(app, Say),
    )
    @access(Role.OPERATOR, action="release.recall")
    async def recall(name: str, request: Request) -> Any:
        """Withdraw a release: edges that run it return to the one before, and it is never offered again."""
        said = read_body(await request.body(), Say)
        if not said.reason.strip():
            raise OperatorError("no reason to recall", hint="Say why; edges and people read it.")
        request.state.detail = {"reason": said.reason}
        return msgspec.to_builtins(await rollouts.recall(name, said.reason.strip()))


def told(rollout: Rollout, *, edges: bool = True) -> dict[str, Any]:
    """A rollout as it is answered, with the counts of its waves."""
    whole = replace(rollout, tally=rollout.tally or tally(rollout))
    body: dict[str, Any] = msgspec.to_builtins(whole if edges else replace(whole, edges=()))
    return body


def _shadow(shadow: Shadow) -> dict[str, Any]:
    state = shadow.reported
    record = replace(shadow.desired, recording=state.recording if state is not None else None)
    body: dict[str, Any] = msgspec.to_builtins(record)
    reported = None if state is None else msgspec.to_builtins(state)
    return body | {"reported": reported, "heard_ns": shadow.heard_ns}


def _check(wish: EdgeChange) -> None:
    if wish.cohort and not _COHORT.fullmatch(wish.cohort):
        raise OperatorError(f"{wish.cohort!r} cannot be a cohort", hint="Letters, digits, `.`, `_` and `-`, up to 64.")
    if wish.pinned and not wish.pinned_why.strip():
        raise OperatorError("no reason to pin", hint="Say why; whoever meets the pin later reads it.")


def _history(context: CloudContext, subject: str) -> list[dict[str, Any]]:
    return [audit_row(row) for row in context.audit.about(subject, limit=_HISTORY_MAX)]
