"""Sealed sessions as folders of their own: Parquet with the manifest that describes and verifies them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec

from embridge_cloud.exchange.recording import Recording, of_sealed
from embridge_cloud.store.manifest import MANIFEST
from embridge_cloud.store.sealed import SealedSession
from embridge_shared.errors import DataError, Reason

INDEX: Final = "export.json"


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A session of an export: its folder, whose it is, and what it holds."""

    session: str
    participant: str
    consent_version: str
    source: str
    started_ns: int
    content_hash: str
    streams: tuple[str, ...]


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What lies in an export."""

    sessions: tuple[Listed, ...]
    software: str
    schema: int = 1


def export(sessions: Sequence[SealedSession], folder: Path) -> None:
    """Copy sessions, a folder each, and list them in `export.json`.

    Args:
        sessions: Verified.
        folder: An empty folder.
    """
    listed = []
    for sealed in sessions:
        manifest, target = sealed.manifest, folder / str(sealed.id)
        target.mkdir()
        names = [MANIFEST, manifest.events.file]
        names += [name for s in manifest.streams for name in (s.file, s.arrivals.file)]
        names += [] if manifest.quality is None else [manifest.quality.file]
        for name in names:
            shutil.copyfile(sealed.directory / name, target / name)
        listed.append(
            Listed(
                session=str(sealed.id),
                participant=sealed.session.participant.id,
                consent_version=sealed.session.participant.consent_version,
                source=sealed.session.source,
                started_ns=sealed.session.started_ns,
                content_hash=sealed.content_hash,
                streams=tuple(s.name for s in manifest.streams),
            )
        )
    body = Contents(sessions=tuple(listed), software=version("embridge"))
    (folder / INDEX).write_bytes(msgspec.json.format(msgspec.json.encode(body), indent=1))


def read(root: Path) -> Iterator[Recording]:
    """Sessions of an export, of a folder of sealed sessions, or one of them.

    Raises:
        DataError: There is none, or one is damaged.
    """
    folders = [root] if (root / MANIFEST).is_file() else sorted(p.parent for p in root.glob(f"*/{MANIFEST}"))
    if not folders:
        raise DataError(f"no sealed session lies in {root}", reason=Reason.NOT_FOUND)
    for folder in folders:
        sealed = SealedSession(folder)
        sealed.verify()
        yield of_sealed(sealed)
