"""The next release of a line: what it takes over from the champion, and what it must leave as it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from embridge_cloud.jobs.model import CONFIG
from embridge_cloud.learn.config import DEEP, HeadName
from embridge_cloud.lineage import Bundles
from embridge_cloud.recipe import MODEL, Continuation, Recipe
from embridge_cloud.registry import Registry
from embridge_shared.errors import DataError, ModelError, OperatorError, Reason
from embridge_shared.manifest import Manifest, Published
from embridge_shared.release import read_bundle

replace = msgspec.structs.replace


@dataclass(frozen=True, slots=True)
class Champion:
    """The release of a line that is in force, and what is left of its making.

    Attributes:
        published: Its entry in the registry.
        bundle: Its file.
        manifest: What it says of itself.
        recipe: What it was made by; None where its job is gone.
        model: Folder with its model; None where that is gone.
    """

    published: Published
    bundle: Path
    manifest: Manifest
    recipe: Recipe | None = None
    model: Path | None = None

    @property
    def trusted(self) -> tuple[str, ...]:
        """Ids of the sessions it was made of."""
        return self.manifest.lineage.sessions

    @property
    def deep(self) -> bool:
        """Whether it speaks in a learnt pose space."""
        return self.manifest.head in DEEP


def find_champion(registry: Registry, jobs: Path, line: str) -> Champion | None:
    """The champion of a line; None where nothing is published, or all of it is recalled.

    Args:
        registry: Releases.
        jobs: Folder of jobs.
        line: Of releases.

    Raises:
        ModelError: Registry or bundle are damaged.
        DataError: The recipe of its job is damaged.
    """
    published = registry.champion(line)
    if published is None:
        return None
    bundles = Bundles(registry.repository / "targets", jobs)
    bundle = bundles.published(published)
    job = bundles.job(published.digest)
    return Champion(
        published=published,
        bundle=bundle,
        manifest=read_bundle(bundle, digest=published.digest).manifest,
        recipe=_recipe(jobs if job is None else job, published, jobs),
        model=find_model(registry, jobs, published.digest),
    )


def find_model(registry: Registry, jobs: Path, digest: str) -> Path | None:
    """Folder with the model of a release; None where it is not here.

    Args:
        registry: Releases.
        jobs: Folder of jobs.
        digest: sha256 of its bundle.
    """
    job = Bundles(registry.repository / "targets", jobs).job(digest) if digest else None
    return job / MODEL if job is not None and any((job / MODEL).glob("*.safetensors")) else None


def _recipe(job: Path, published: Published, jobs: Path) -> Recipe | None:
    """The recipe of a release: that of its job, or what an erasure left of it."""
    for path in [job / CONFIG, *sorted(jobs.glob(f"*/{CONFIG}"))]:
        try:
            recipe = msgspec.json.decode(path.read_bytes(), type=Recipe)
        except FileNotFoundError:
            continue
        except msgspec.DecodeError as error:
            if path.parent != job:
                continue
            raise DataError(f"{path} is damaged: {error}", reason=Reason.DAMAGED) from error
        if path.parent == job or (recipe.line, recipe.version) == (published.line, published.version):
            return recipe
    return None


def next_recipe(
    champion: Champion,
    *,
    version: int,
    major: bool = False,
    excluded: Iterable[str] = (),
    replay: int = 0,
    distil: float = 0.0,
) -> Recipe:
    """What continues a champion: the same line, vocabulary, preprocessing and people who are held back.

    Its EMG side goes on from the champion's weights, its pose space and head stay. With `major`, or where the
    champion's model is gone, everything is learnt anew in a pose space of the next generation. A closed form is fitted
    anew either way, which takes it no time.

    Args:
        champion: The release in force.
        version: Of the new one.
        major: Begin anew.
        excluded: Further sessions that nothing is taken from.
        replay: Windows of old sessions; 0 for all.
        distil: Weight of staying near the champion's embeddings.

    Raises:
        OperatorError: NOT_FOUND: nobody knows what the champion was made by.
    """
    base, manifest = champion.recipe, champion.manifest
    if base is None:
        raise OperatorError(
            f"the recipe of {champion.published.name} is not here any more",
            reason=Reason.NOT_FOUND,
            hint="Give one with --recipe.",
        )
    space = manifest.pose_space
    anew = major or (champion.deep and (champion.model is None or space is None))
    common = replace(
        base,
        version=version,
        parent=champion.published.digest,
        excluded=tuple(sorted({*base.excluded, *excluded})),
        replay=replay,
    )
    if anew:
        return replace(common, generation=_generation(champion) + 1, continues=None, controls=max(1, base.controls))
    anchor = space.digest if champion.deep and space is not None else ""
    kept = Continuation(head=msgspec.convert(manifest.head, HeadName), anchor=anchor, distil=distil if anchor else 0.0)
    return replace(common, generation=_generation(champion), continues=kept, controls=0)


def _generation(champion: Champion) -> int:
    space = champion.manifest.pose_space
    if space is not None:
        return space.generation
    return 1 if champion.recipe is None else champion.recipe.generation


def fitted(recipe: Recipe, champion: Champion | None) -> Recipe:
    """A recipe that somebody wrote, told what it follows: a pose space of its own is of the next generation.

    Raises:
        OperatorError: Its version is published already.
    """
    if champion is None:
        return recipe
    generation = recipe.generation
    if recipe.continues is None and generation <= _generation(champion):
        generation = _generation(champion) + 1
    return replace(recipe, parent=recipe.parent or champion.published.digest, generation=generation)


def check_version(recipe: Recipe, published: Sequence[Published]) -> None:
    """A release of that version can still be published.

    Raises:
        OperatorError: It cannot.
    """
    newest = max((p.version for p in published if p.line == recipe.line), default=0)
    if recipe.version <= newest:
        raise OperatorError(
            f"{recipe.line}-{recipe.version} does not come after {recipe.line}-{newest}, which is published",
            hint=f"Give the recipe version {newest + 1}.",
        )


def check_pose_space(candidate: Manifest, champion: Manifest | None) -> None:
    """Within a generation the pose space stays as it is.

    Raises:
        ModelError: INCOMPATIBLE: it does not, or the generation goes back.
    """
    before = None if champion is None else champion.pose_space
    now = candidate.pose_space
    if before is None or now is None:
        return
    if now.generation < before.generation:
        raise ModelError(
            f"{candidate.release} is of generation {now.generation}, its line of {before.generation}",
            reason=Reason.INCOMPATIBLE,
        )
    if now.generation == before.generation and now.digest != before.digest:
        raise ModelError(
            f"{candidate.release} speaks in pose space {now.digest[:12]}, its line in {before.digest[:12]}",
            reason=Reason.INCOMPATIBLE,
            hint="A pose space changes with a new generation only: start the job with --major.",
        )
