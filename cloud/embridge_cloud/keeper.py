"""What operators do with a store: people, erasures, backups, retention, views and the lake.

The same operations run in a cloud process, which offers them under `/api/keep/NAME`, and in a command where none runs.
Participants are named in bodies only: a path would stand in logs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgspec

from embridge_cloud.context import CloudPaths
from embridge_cloud.store.audit import AuditLog
from embridge_cloud.store.backup import back_up
from embridge_cloud.store.consent import Scope, shared_name
from embridge_cloud.store.erase import Eraser, Erasure
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.lake import Lake
from embridge_cloud.store.people import People, Person
from embridge_cloud.store.retention import Retention
from embridge_cloud.store.sealed import Catalogue
from embridge_cloud.store.views import NAME, remove_views, write_views
from embridge_cloud.store.wearers import gestures
from embridge_shared.clock import Clock
from embridge_shared.errors import ConfigError, OperatorError
from embridge_shared.settings import Settings


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an operation is asked with; each takes what it needs.

    Attributes:
        participant: Pseudonym.
        version: Of the consent text.
        scopes: What is agreed to.
        path: A folder on the cloud's machine.
        keys: Take private keys along.
        apply: Do it, rather than tell what would be done.
        after: Rows after this number.
        limit: Rows at most.
    """

    participant: str = ""
    version: str = ""
    scopes: tuple[Scope, ...] = ()
    path: str = ""
    keys: bool = False
    apply: bool = False
    after: int = 0
    limit: int = 200


class Keeper:
    """Operations on an open store.

    Args:
        store: The store.
        settings: The cloud's configuration.
        clock: Time.
    """

    def __init__(self, store: HotStore, settings: Settings, clock: Clock) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._state_dir = settings.cloud.state_dir
        self._sealed = CloudPaths.of(settings).sealed
        self.views = self._state_dir / NAME
        self.lake = Lake.of(settings)
        also = None
        if self.lake is not None and self.lake.sealed.resolve() != self._sealed.resolve():
            also = self.lake.sealed / shared_name(self._state_dir)
        self.people = People(store, self._sealed, required=settings.store.consent_required, also=also)
        self.eraser = Eraser(store, self._state_dir, people=self.people, wall_ns=clock.wall_ns, forget=[self._forget])
        self.retention = Retention(store, self._state_dir, settings.store, people=self.people, forget=[self._forget])

    def do(self, name: str, body: Body, *, actor: str) -> Any:
        """Carry out an operation; JSON builtins.

        Raises:
            EmbridgeError: It cannot be carried out as asked.
        """
        return OPERATIONS[name].work(self, body, actor)

    def refresh_views(self) -> Path:
        """Make the views anew."""
        write_views(self._store, self._sealed, self.views)
        return self.views

    def sync_lake(self) -> list[UUID]:
        """Bring new sealed sessions into the lake.

        Raises:
            ConfigError: None is set.
        """
        if self.lake is None:
            raise ConfigError("no lake is set.", hint="Set store.lake and store.lake_data.")
        return self.lake.sync(Catalogue(self._sealed))

    def _forget(self, sessions: Sequence[UUID]) -> None:
        remove_views(self.views)
        if self.lake is not None:
            self.lake.forget(sessions)

    def _people(self, body: Body, actor: str) -> Any:
        return [_person(p) for p in self.people.all()]

    def _show(self, body: Body, actor: str) -> Any:
        person = self.people.show(body.participant)
        sessions = self._store.read.records(
            "SELECT session::VARCHAR AS session, consent_version, purpose, edge FROM sessions WHERE participant = ? "
            "ORDER BY started_ns",
            [body.participant],
        )
        return {**_person(person), "recorded": sessions}

    def _gestures(self, body: Body, actor: str) -> Any:
        return gestures(self._store.read, self.people.show(body.participant).id)

    def _add(self, body: Body, actor: str) -> Any:
        return _person(self._give(self.people.add, body, actor))

    def _consent(self, body: Body, actor: str) -> Any:
        return _person(self._give(self.people.consent, body, actor))

    def _give(self, work: Callable[..., Person], body: Body, actor: str) -> Person:
        if not body.version:
            raise OperatorError("a consent needs the version of its text.", hint="Give --consent-version.")
        return work(
            body.participant, version=body.version, scopes=body.scopes, actor=actor, wall_ns=self._clock.wall_ns()
        )

    def _withdraw(self, body: Body, actor: str) -> Any:
        return _person(self.people.withdraw(body.participant, actor=actor, wall_ns=self._clock.wall_ns()))

    def _erase(self, body: Body, actor: str) -> Any:
        return _erasure(self.eraser.erase(body.participant, actor=actor))

    def _erasures(self, body: Body, actor: str) -> Any:
        return [_erasure(e) for e in self.eraser.all()]

    def _audit(self, body: Body, actor: str) -> Any:
        rows = AuditLog(self._store).entries(after=body.after, limit=body.limit, newest=not body.after)
        return [dataclasses.asdict(row) for row in rows]

    def _verify_audit(self, body: Body, actor: str) -> Any:
        rows = self._store.read.rows("SELECT path FROM backups")
        return dataclasses.asdict(AuditLog(self._store).verify(_anchors([Path(p) for (p,) in rows])))

    def _backup(self, body: Body, actor: str) -> Any:
        target = Path(body.path) if body.path else self._settings.store.backup_dir
        if target is None:
            raise ConfigError("no place for backups is set.", hint="Name a folder, or set store.backup_dir.")
        made = back_up(self._store, self._state_dir, target, wall_ns=self._clock.wall_ns, keys=body.keys, actor=actor)
        return {
            "path": str(made.path), "sessions": len(made.head.sessions), "files": len(made.head.files),
            "bytes": sum(f.bytes for f in made.head.files.values()), "copied": made.copied,
        }  # fmt: skip

    def _retention(self, body: Body, actor: str) -> Any:
        now, gone = self._clock.wall_ns(), 0
        if body.apply:
            verdicts, gone = self.retention.apply(now, actor=actor)
        else:
            verdicts = self.retention.plan(now)
        rows = [{**dataclasses.asdict(v), "session": str(v.session)} for v in verdicts]
        return {"applied": body.apply, "sessions": rows, "quarantined": gone}

    def _views(self, body: Body, actor: str) -> Any:
        return {"path": str(self.refresh_views())}

    def _lake_status(self, body: Body, actor: str) -> Any:
        if self.lake is None:
            raise ConfigError("no lake is set.", hint="Set store.lake and store.lake_data.")
        known = set(self.lake.ids())
        waiting = [i for i in Catalogue(self._sealed).ids() if i not in known]
        return {**dataclasses.asdict(self.lake.status()), "waiting": len(waiting), "data": str(self.lake.data)}

    def _lake_sync(self, body: Body, actor: str) -> Any:
        return {"brought": [str(i) for i in self.sync_lake()]}


@dataclasses.dataclass(frozen=True, slots=True)
class Operation:
    """An operation.

    Attributes:
        work: Carries it out.
        action: What the audit log calls the call.
        admin: It needs the role of an admin; others need an operator's.
        exclusive: It takes sessions away, so no round of ingest may be under way.
    """

    work: Callable[[Keeper, Body, str], Any]
    action: str
    admin: bool = True
    exclusive: bool = False


OPERATIONS: Final[Mapping[str, Operation]] = {
    "participants": Operation(Keeper._people, "participant.list", admin=False),
    "participant": Operation(Keeper._show, "participant.show", admin=False),
    "participant-gestures": Operation(Keeper._gestures, "participant.gestures", admin=False),
    "participant-add": Operation(Keeper._add, "participant.call-add", admin=False),
    "participant-consent": Operation(Keeper._consent, "participant.call-consent", admin=False),
    "participant-withdraw": Operation(Keeper._withdraw, "participant.call-withdraw", admin=False),
    "erase": Operation(Keeper._erase, "participant.call-erase", exclusive=True),
    "erasures": Operation(Keeper._erasures, "erasure.list"),
    "audit": Operation(Keeper._audit, "audit.list"),
    "audit-verify": Operation(Keeper._verify_audit, "audit.verify"),
    "backup": Operation(Keeper._backup, "store.call-backup"),
    "retention": Operation(Keeper._retention, "store.retention", exclusive=True),
    "views": Operation(Keeper._views, "store.views", admin=False),
    "lake-status": Operation(Keeper._lake_status, "lake.status", admin=False),
    "lake-sync": Operation(Keeper._lake_sync, "lake.sync", admin=False),
}


def _person(person: Person) -> dict[str, Any]:
    consent = person.consent
    return {
        "participant": person.id,
        "consent": None if consent is None else msgspec.to_builtins(consent),
        "stated": list(person.stated),
        "sessions": person.sessions,
    }


def _erasure(erasure: Erasure) -> dict[str, Any]:
    return {**dataclasses.asdict(erasure), "id": str(erasure.id)}


def _anchors(paths: Sequence[Path]) -> dict[int, str]:
    """Where the audit log ended when backups were made."""
    from embridge_cloud.store.backup import HEAD, read_head

    heads = [read_head(path) for path in paths if (path / HEAD).is_file()]
    return {head.audit_seq: head.audit_digest for head in heads if head.audit_seq}
