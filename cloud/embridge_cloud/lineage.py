"""Where a release comes from: its parents, and for each the data it was made of, down to sessions and people.

A bundle names people by codes, because it is handed on. Whoever holds the sessions can tell whose they are; a session
that was erased meanwhile has an id and no owner any more.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from embridge_cloud.recipe import SUMMARY, Summary
from embridge_cloud.store.sealed import Catalogue
from embridge_shared.errors import EmbridgeError
from embridge_shared.manifest import Manifest, Published, lineage_code
from embridge_shared.release import SUFFIX, read_bundle

logger = logging.getLogger(__name__)


class UsedSession(msgspec.Struct, frozen=True, kw_only=True):
    """A session a release was made of.

    Attributes:
        session: Its id.
        participant: Whose; empty where it is no longer here.
        started_ns: Unix time, ns; 0 where it is no longer here.
        content_hash: Digest over its samples; empty where it is no longer here.
    """

    session: str
    participant: str = ""
    started_ns: int = 0
    content_hash: str = ""


class Ancestor(msgspec.Struct, frozen=True, kw_only=True):
    """A release and what it was made of.

    Attributes:
        release: Its name; empty where only the digest is known.
        digest: sha256 of its bundle.
        parent: Digest of the release it continues, or empty.
        created_ns: Unix time it was made, ns.
        snapshot: sha256 over the content hashes of its sessions.
        recipe: Hash of its recipe.
        seed: Of its training.
        code: Version of the code that made it.
        head: What maps EMG into the pose space.
        job: The job that made it, where that is still here.
        sessions: In the order of the manifest.
        participants: People that are still known here, in order.
        forgotten: People it was made of whom nobody here knows any more.
    """

    release: str
    digest: str
    parent: str = ""
    created_ns: int = 0
    snapshot: str = ""
    recipe: str = ""
    seed: int = 0
    code: str = ""
    head: str = ""
    job: str = ""
    sessions: tuple[UsedSession, ...] = ()
    participants: tuple[str, ...] = ()
    forgotten: int = 0


class Bundles:
    """Where bundles lie: published ones, and those of jobs that nobody published.

    Args:
        targets: Folder of the update repository's targets.
        jobs: Folder of jobs.
    """

    def __init__(self, targets: Path, jobs: Path) -> None:
        self._targets = targets
        self._jobs = jobs

    def path(self, digest: str) -> Path | None:
        """The bundle of a digest; None where it is not here."""
        found = next(iter(sorted(self._targets.glob(f"{digest}.*"))), None)
        return found or self._made().get(digest)

    def published(self, release: Published) -> Path:
        """The file of a published release."""
        return self._targets / f"{release.digest}.{release.name}"

    def job(self, digest: str) -> Path | None:
        """Folder of the job that made a bundle; None where it is not here."""
        path = self._made().get(digest)
        return None if path is None else path.parent

    def _made(self) -> dict[str, Path]:
        """Bundles of jobs, by digest."""
        found: dict[str, Path] = {}
        for path in sorted(self._jobs.glob(f"*/{SUMMARY}")):
            try:
                summary = msgspec.json.decode(path.read_bytes(), type=Summary)
            except (OSError, msgspec.DecodeError) as error:
                logger.warning("%s is damaged and left out: %s", path, error)
                continue
            bundle = path.parent / summary.bundle
            if bundle.suffix == SUFFIX and bundle.is_file():
                found[summary.digest] = bundle
        return found


def lineage_of(digest: str, bundles: Bundles, catalogue: Catalogue) -> tuple[Ancestor, ...]:
    """A release and its parents, the newest first.

    Args:
        digest: sha256 of its bundle.
        bundles: Where bundles lie.
        catalogue: Sealed sessions.

    Returns:
        As far back as bundles are here; one that is not is named by its digest alone and ends the chain.
    """
    owners = {str(s.id): s for s in catalogue.sessions()}
    known = {
        identity: UsedSession(
            session=identity,
            participant=s.session.participant.id,
            started_ns=s.session.started_ns,
            content_hash=s.content_hash,
        )
        for identity, s in owners.items()
    }
    out: list[Ancestor] = []
    while digest and digest not in {a.digest for a in out}:
        path = bundles.path(digest)
        try:
            manifest = None if path is None else read_bundle(path, digest=digest).manifest
        except EmbridgeError as error:
            logger.warning("the lineage ends at %s: %s", digest[:12], error)
            manifest = None
        job = bundles.job(digest)
        out.append(_ancestor(digest, manifest, known, "" if job is None else job.name))
        digest = "" if manifest is None else manifest.parent
    return tuple(out)


def _ancestor(digest: str, manifest: Manifest | None, known: Mapping[str, UsedSession], job: str) -> Ancestor:
    if manifest is None:
        return Ancestor(release="", digest=digest, job=job)
    lineage = manifest.lineage
    sessions = tuple(known.get(s, UsedSession(session=s)) for s in lineage.sessions)
    people = tuple(sorted({s.participant for s in sessions if s.participant}))
    return Ancestor(
        release=manifest.release,
        digest=digest,
        parent=manifest.parent,
        created_ns=manifest.created_ns,
        snapshot=lineage.snapshot,
        recipe=lineage.config,
        seed=lineage.seed,
        code=manifest.code,
        head=manifest.head,
        job=job,
        sessions=sessions,
        participants=people,
        forgotten=_forgotten(lineage.participants, people, lineage.snapshot),
    )


def _forgotten(named: Iterable[str], people: Iterable[str], snapshot: str) -> int:
    """How many of the codes belong to nobody who is known; older releases spell names."""
    spelt = {name for person in people for name in (person, lineage_code(person, snapshot))}
    return len(set(named) - spelt)
