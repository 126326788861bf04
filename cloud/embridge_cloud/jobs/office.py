"""What jobs need of the rest of the cloud: champions, data, the registry, and somebody to tell."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from embridge_cloud.continual import (
    Champion,
    check_pose_space,
    check_version,
    find_champion,
    find_model,
    fitted,
    next_recipe,
)
from embridge_cloud.frozen import Frozen, freeze
from embridge_cloud.gates.files import read_guard
from embridge_cloud.gates.policy import GatePolicy
from embridge_cloud.jobs.model import Job, JobRequest, JobState
from embridge_cloud.jobs.shelf import Shelf
from embridge_cloud.recipe import Recipe, Summary
from embridge_cloud.registry import Registry
from embridge_cloud.store.sealed import Catalogue
from embridge_shared.clock import Clock
from embridge_shared.errors import DataError, EmbridgeError, OperatorError, Reason
from embridge_shared.manifest import Published
from embridge_shared.release import read_bundle

logger = logging.getLogger(__name__)

DEFAULT_POLICY: Final = GatePolicy()


class Ears(Protocol):
    """Who hears of jobs, and what follows from one that is done."""

    def changed(self, job: Job) -> None:
        """A job began, went on to another stage, or ended."""
        ...

    def progressed(self, job: Job) -> None:
        """A job did some steps."""
        ...

    async def published(self, job: Job, release: Published) -> None:
        """A job's candidate became a release."""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """What a job is to make, and of what.

    Attributes:
        recipe: Of the candidate.
        frozen: Its data.
        champion: The release in force; None for the first of a line.
    """

    recipe: Recipe
    frozen: Frozen
    champion: Champion | None


@dataclass(frozen=True, slots=True)
class Office:
    """Champions, data and the registry of a cloud.

    Attributes:
        registry: Releases.
        catalogue: Sealed sessions.
        clock: Dates snapshots.
        policy: Of the gates.
        replay: Windows of old sessions where a request says nothing; 0 for all.
        distil: Weight of staying near the champion's embeddings where a request says nothing.
    """

    registry: Registry
    catalogue: Catalogue
    clock: Clock
    policy: GatePolicy = DEFAULT_POLICY
    replay: int = 0
    distil: float = 0.0

    def order(self, request: JobRequest, shelf: Shelf) -> Order:
        """What a request means now.

        Raises:
            OperatorError: NOT_FOUND: there is no champion to continue; or the version is published already.
            DataError: TOO_LITTLE_DATA: nothing may be learnt from.
        """
        line = request.line if request.recipe is None else request.recipe.line
        champion = find_champion(self.registry, shelf.root, line)
        if request.recipe is not None:
            recipe = fitted(request.recipe, champion)
            check_version(recipe, self.registry.releases())
        else:
            recipe = self._continued(request, champion, shelf)
        frozen = freeze(self.catalogue, recipe, now_ns=self.clock.wall_ns())
        if not frozen.sessions:
            raise DataError(
                "no sealed session may be learnt from",
                reason=Reason.TOO_LITTLE_DATA,
                hint='Record sessions of purpose "training" with a pose source, and let them be sealed.',
            )
        return Order(recipe, frozen, champion)

    def champion(self, line: str, jobs: Path) -> Champion | None:
        """The champion of a line; raises as `find_champion`."""
        return find_champion(self.registry, jobs, line)

    def model(self, digest: str, jobs: Path) -> Path | None:
        """Folder with the model of a release, by the digest of its bundle; None where it is not here."""
        return find_model(self.registry, jobs, digest)

    def publish(self, folder: Path, summary: Summary, champion: Champion | None) -> Published:
        """Publish a candidate.

        Raises:
            ModelError: Its bundle is damaged, or its pose space is not that of its line.
            OperatorError: Its name is taken.
        """
        bundle = read_bundle(folder / summary.bundle, digest=summary.digest)
        check_pose_space(bundle.manifest, None if champion is None else champion.manifest)
        return self.registry.publish(folder / summary.bundle)

    def _continued(self, request: JobRequest, champion: Champion | None, shelf: Shelf) -> Recipe:
        if champion is None:
            raise OperatorError(
                f"line {request.line!r} has no release to continue",
                reason=Reason.NOT_FOUND,
                hint="Begin it with `embridge job start --recipe FILE`.",
            )
        recipe = next_recipe(
            champion,
            version=self._version(request.line, shelf.all()),
            major=request.major,
            excluded=suspicious(shelf, request.line, request.include),
            replay=self.replay if request.replay is None else request.replay,
            distil=self.distil if request.distil is None else request.distil,
        )
        if recipe.continues is None and not request.major:
            logger.warning("the model of %s is not here any more: begun anew", champion.published.name)
        return recipe

    def _version(self, line: str, jobs: Sequence[Job]) -> int:
        """One that no release and no refused candidate of the line has borne: names are not used twice."""
        published = [p.version for p in self.registry.releases() if p.line == line]
        return max([*published, *(j.version for j in jobs if j.line == line)], default=0) + 1


def suspicious(shelf: Shelf, line: str, include: Iterable[str] = ()) -> dict[str, str]:
    """Sessions that the guard named in refused candidates of a line, and why: they wait for somebody to vouch.

    Args:
        shelf: All jobs.
        line: Of releases.
        include: Those that somebody vouches for; "*" is all of them.
    """
    vouched = set(include)
    if "*" in vouched:
        return {}
    found: dict[str, str] = {}
    for job in shelf.all():
        if job.line != line or job.state is not JobState.REFUSED:
            continue
        try:
            seen = read_guard(shelf.folder(job.id))
        except EmbridgeError as error:
            logger.warning("%s", error)
            continue
        found |= {s.session: s.suspicious for s in seen if s.suspicious and not s.trusted}
    return {session: why for session, why in found.items() if session not in vouched}
