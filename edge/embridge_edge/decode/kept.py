"""What an edge keeps of a wearer beside their enrolment: one struct a file, by participant and by what it holds for."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Generic, Protocol, TypeVar
from urllib.parse import quote

import msgspec

from embridge_shared.archive import write_atomically
from embridge_shared.errors import DataError, EmbridgeError, Reason


class OfWearer(Protocol):
    """Something about a wearer."""

    @property
    def participant(self) -> str:
        """Pseudonym."""
        ...

    @property
    def key(self) -> str:
        """What it holds for."""
        ...


T = TypeVar("T", bound=OfWearer)


class Kept(Generic[T]):
    """Structs on disk, one file a participant and key, readable by this user alone.

    Args:
        folder: Their folder; made when first written to.
        kind: Their type.
        hint: What to do about one that is damaged.
    """

    def __init__(self, folder: Path, kind: type[T], *, hint: str) -> None:
        self._folder = folder
        self._kind = kind
        self._hint = hint

    def save(self, item: T) -> Path:
        """Keep one, atomically; it replaces the last of its participant and key."""
        path = self._path(item.participant, item.key)
        write_atomically(path, msgspec.json.format(msgspec.json.encode(item)), mode=0o600)
        return path

    def load(self, participant: str, key: str) -> T | None:
        """The one of a participant and key, or None.

        Raises:
            DataError: MALFORMED: the file is damaged or another's.
        """
        path = self._path(participant, key)
        what = f"{self._kind.__name__.lower()} {path.name}"
        try:
            found = msgspec.json.decode(path.read_bytes(), type=self._kind, strict=True)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, UnicodeDecodeError, EmbridgeError) as error:
            raise DataError(f"{what}: {error}.", reason=Reason.MALFORMED, hint=self._hint) from error
        if (found.participant, found.key) != (participant, key):
            raise DataError(f"{what} is of another.", reason=Reason.MALFORMED, hint=self._hint)
        return found

    def drop(self, participant: str, key: str) -> bool:
        """Forget one; whether there was one."""
        path = self._path(participant, key)
        known = path.is_file()
        path.unlink(missing_ok=True)
        return known

    def _path(self, participant: str, key: str) -> Path:
        if not participant:
            raise DataError(f"a {self._kind.__name__.lower()} needs a participant")
        name = quote(participant, safe="")
        if len(name) > 100:
            name = f"sha256-{hashlib.sha256(participant.encode()).hexdigest()}"
        return self._folder / f"{name}@{key[:16]}.json"
