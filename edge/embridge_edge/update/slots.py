"""Slots: verified bundles on disk and one pointer that says which of them runs.

bundles/<digest>.embridge   verified and self-tested
slots.json                  current, previous, and what was rolled back; replaced atomically
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from embridge_shared.archive import write_atomically
from embridge_shared.errors import ModelError, OperatorError, Reason
from embridge_shared.manifest import Manifest
from embridge_shared.release import SUFFIX, Bundle, read_bundle

logger = logging.getLogger(__name__)

FOLDER: Final = "update"  # in the state directory
_KEPT_REFUSALS: Final = 32


class Slot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A release in a slot."""

    name: str
    line: str
    version: int
    digest: str

    @classmethod
    def of(cls, manifest: Manifest, digest: str) -> Slot:
        """The slot of a bundle."""
        return cls(name=manifest.release, line=manifest.name, version=manifest.version, digest=digest)


class _Pointer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    current: Slot | None = None
    previous: Slot | None = None
    refused: dict[str, str] = {}


class Current(NamedTuple):
    """The release that runs."""

    name: str
    digest: str
    path: Path


class Slots:
    """The releases an edge holds.

    Args:
        folder: Holds `bundles/` and `slots.json`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "slots.json"
        self._lock = folder / "slots.lock"
        self.bundles = folder / "bundles"
        self.bundles.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where a verified bundle lies."""
        return self.bundles / f"{digest}{SUFFIX}"

    def current(self) -> Slot | None:
        """The release that runs, or None.

        Raises:
            ModelError: MALFORMED: the pointer is damaged.
        """
        return self._read().current

    def previous(self) -> Slot | None:
        """The release a rollback would return to, or None; raises as `current`."""
        return self._read().previous

    def refused(self, digest: str) -> str | None:
        """Why a release was rolled back, or None where it was not; raises as `current`."""
        return self._read().refused.get(digest)

    def activate(self, path: Path) -> Slot:
        """Make a verified bundle the one that runs, and keep the one that ran.

        Args:
            path: In `bundles`.

        Raises:
            OperatorError: `path` is not there.
            ModelError: As `read_bundle`.
        """
        if path.parent != self.bundles:
            raise OperatorError(f"{path} was not fetched by this updater", hint="Fetch the release first.")
        slot = Slot.of(read_bundle(path, digest=path.stem).manifest, path.stem)
        with self._locked():
            pointer = self._read()
            if pointer.current == slot:
                return slot
            refused = {digest: why for digest, why in pointer.refused.items() if digest != slot.digest}
            self._write(_Pointer(current=slot, previous=pointer.current, refused=refused))
            self._prune()
        logger.info("release %s is active", slot.name)
        return slot

    def rollback(self, reason: str) -> Slot:
        """Return to the previous release; the one that ran is refused from now on.

        Args:
            reason: Why.

        Raises:
            OperatorError: NOT_FOUND: there is none.
            ModelError: As `read_bundle`: the previous bundle is damaged; nothing was changed.
        """
        with self._locked():
            pointer = self._read()
            if pointer.current is None or pointer.previous is None:
                raise OperatorError(
                    "there is no previous release to return to.", reason=Reason.NOT_FOUND, hint="Publish a new one."
                )
            read_bundle(self.path(pointer.previous.digest), digest=pointer.previous.digest)
            refused = dict(list(pointer.refused.items())[-_KEPT_REFUSALS + 1 :]) | {pointer.current.digest: reason}
            self._write(_Pointer(current=pointer.previous, refused=refused))
            self._prune()
        logger.warning("release %s was rolled back to %s: %s", pointer.current.name, pointer.previous.name, reason)
        return pointer.previous

    def load(self) -> Bundle | None:
        """Read and verify the release that runs, or None; raises as `current` and `read_bundle`."""
        slot = self.current()
        return read_bundle(self.path(slot.digest), digest=slot.digest) if slot is not None else None

    def _read(self) -> _Pointer:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=_Pointer, strict=True)
        except FileNotFoundError:
            return _Pointer()
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ModelError(
                f"{self._file} is damaged: {error}.",
                reason=Reason.MALFORMED,
                hint="Remove it and fetch the release again.",
            ) from error

    def _write(self, pointer: _Pointer) -> None:
        write_atomically(self._file, msgspec.json.format(msgspec.json.encode(pointer)))

    def _prune(self) -> None:
        pointer = self._read()
        kept = {self.path(slot.digest) for slot in (pointer.current, pointer.previous) if slot is not None}
        for path in self.bundles.iterdir():
            if path not in kept:
                path.unlink()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
