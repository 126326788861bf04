"""Routes that tell of one release: what it holds, how it was judged, and what it was made of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from fastapi import FastAPI
from starlette.responses import Response

from embridge_cloud.api import models
from embridge_cloud.api.roles import Role, access
from embridge_cloud.gates.files import CARD_PAGE, CARD_TEXT, read_report
from embridge_cloud.lineage import Bundles, lineage_of
from embridge_cloud.registry import Registry
from embridge_cloud.store.sealed import Catalogue
from embridge_shared.errors import OperatorError, Reason
from embridge_shared.manifest import Published
from embridge_shared.release import CARD, read_bundle

_MARKDOWN: Final = "text/markdown; charset=utf-8"


class ReleaseBook:
    """What is known of published releases.

    Args:
        registry: Publishes them.
        jobs: Folder of jobs.
        catalogue: Sealed sessions.
    """

    def __init__(self, registry: Registry, jobs: Path, catalogue: Catalogue) -> None:
        self._registry = registry
        self._catalogue = catalogue
        self.bundles = Bundles(registry.repository / "targets", jobs)

    def published(self, name: str) -> Published:
        """A published release.

        Raises:
            OperatorError: NOT_FOUND: there is none of that name.
        """
        for release in self._registry.releases():
            if release.name == name:
                return release
        raise OperatorError(
            f"there is no release {name!r}", reason=Reason.NOT_FOUND, hint="`embridge release list` shows them."
        )

    def told(self, name: str) -> dict[str, Any]:
        """Entry, manifest, gate and lineage of a release.

        Raises:
            OperatorError: NOT_FOUND: there is none of that name.
            ModelError: Its bundle is damaged.
            DataError: What its job left is damaged.
        """
        release = self.published(name)
        bundle = read_bundle(self.bundles.published(release), digest=release.digest)
        job = self.bundles.job(release.digest)
        report = None if job is None else read_report(job)
        return {
            "published": msgspec.to_builtins(release),
            "manifest": msgspec.to_builtins(bundle.manifest),
            "gate": None if report is None else msgspec.to_builtins(report),
            "lineage": msgspec.to_builtins(lineage_of(release.digest, self.bundles, self._catalogue)),
            "recalled": release.recalled,
        }

    def card(self, name: str, *, page: bool) -> bytes:
        """The card of a release: the gate's where its job is still here, else the one that travels in the bundle.

        Args:
            name: Of the release.
            page: The page with pictures instead of Markdown.

        Raises:
            OperatorError: NOT_FOUND: there is none of that name, or no page.
            ModelError: Its bundle is damaged.
        """
        release = self.published(name)
        job = self.bundles.job(release.digest)
        path = None if job is None else job / (CARD_PAGE if page else CARD_TEXT)
        if path is not None and path.is_file():
            return path.read_bytes()
        if page:
            raise OperatorError(
                f"{name} has no page with pictures here: its job is gone, or no gate judged it.",
                reason=Reason.NOT_FOUND,
                hint="Ask for the card as text.",
            )
        return read_bundle(self.bundles.published(release), digest=release.digest).files[CARD]


def add_release_book(app: FastAPI, book: ReleaseBook) -> None:
    """Add the routes of single releases."""

    @app.get("/api/releases/{name}", response_model=models.ReleaseDetail, tags=["releases"])
    @access(Role.VIEWER)
    async def release(name: str) -> Any:
        """One release: its entry, manifest, gate report and lineage."""
        return await asyncio.to_thread(book.told, name)

    @app.get("/api/releases/{name}/card", response_class=Response, tags=["releases"])
    @access(Role.VIEWER)
    async def card(name: str, form: Literal["md", "html"] = "md") -> Response:
        """The model card as Markdown, or as a page to be saved."""
        page = form == "html"
        body = await asyncio.to_thread(lambda: book.card(name, page=page))
        if page:
            headers = {"content-disposition": f'attachment; filename="{name}.html"'}
            return Response(body, media_type="text/html; charset=utf-8", headers=headers)
        return Response(body, media_type=_MARKDOWN)


def add_job_gate(app: FastAPI, folder_of: Callable[[str], Path]) -> None:
    """Add the route of a job's gate report.

    Args:
        app: The interface.
        folder_of: Folder of a job by its name; raises where there is none.
    """

    @app.get("/api/jobs/{name}/gate", response_model=dict[str, Any], tags=["jobs"])
    @access(Role.VIEWER)
    async def gate(name: str) -> Any:
        """How a job's candidate was judged."""
        report = await asyncio.to_thread(lambda: read_report(folder_of(name)))
        if report is None:
            raise OperatorError(f"job {name} was not judged yet", reason=Reason.NOT_FOUND)
        return msgspec.to_builtins(report)
