"""Wearers on disk: each has a journal, replaced whole, and repetitions that never change once written.

    wearers/PARTICIPANT/journal.json        entries in the order in which they came
    wearers/PARTICIPANT/repetitions/HASH    the band's samples
    wearers/PARTICIPANT/choice.json         which release's prior serves this wearer (`enrol.choice`)

Repetitions are written before the entry that names them, so whatever is killed when, the journal names only what is
there. What an entry drops stays on disk: it can be undone.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

import msgspec

from embridge_edge.enrol.repetition import StoredRepetition
from embridge_shared.archive import write_atomically
from embridge_shared.clock import Clock
from embridge_shared.enrolment import Entry, GestureNote, Held, Verb, merge, next_stamp, redoing, undoing
from embridge_shared.errors import DataError, OperatorError, Reason

FOLDER: Final = "wearers"
JOURNAL: Final = "journal.json"
_REPETITIONS: Final = "repetitions"
_MODE: Final = 0o600
_HINT: Final = "Restore it from a copy, or enrol again after `embridge edge forget`."


class Journal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A wearer's journal.

    Attributes:
        participant: Pseudonym.
        entries: In the order in which they came.
    """

    participant: str
    entries: tuple[Entry, ...] = ()


class Shared(msgspec.Struct, frozen=True, kw_only=True):
    """What the cloud tells of a participant's journal: `embridge participant gestures --json`.

    Attributes:
        participant: Pseudonym.
        entries: Of all edges.
    """

    participant: str
    entries: tuple[Entry, ...]


class WearerStore:
    """What one wearer enrolled on this edge.

    Args:
        state_dir: The edge's state folder.
        participant: Pseudonym.
        edge: Name of this edge.
        clock: Dates entries.
        ids: Makes ids.
    """

    def __init__(
        self,
        state_dir: Path,
        participant: str,
        *,
        edge: str,
        clock: Clock,
        ids: Callable[[], uuid.UUID] = uuid.uuid4,
    ) -> None:
        self.participant = participant
        self.folder = state_dir / FOLDER / quote(participant, safe="")
        self._edge = edge
        self._clock = clock
        self._ids = ids

    def entries(self) -> tuple[Entry, ...]:
        """The journal.

        Raises:
            DataError: MALFORMED: it is damaged, or another's.
        """
        path = self.folder / JOURNAL
        try:
            journal = msgspec.json.decode(path.read_bytes(), type=Journal, strict=True)
        except FileNotFoundError:
            return ()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DataError(f"{path} is damaged: {error}.", reason=Reason.MALFORMED, hint=_HINT) from error
        if journal.participant != self.participant:
            raise DataError(f"{path} is of another.", reason=Reason.MALFORMED, hint=_HINT)
        return journal.entries

    def held(self) -> Held:
        """What counts now; raises as `entries`."""
        return merge(self.entries())

    def has(self, digest: str) -> bool:
        """Whether the samples of a repetition lie on this edge."""
        return self._path(digest).is_file()

    def read(self, digest: str) -> StoredRepetition:
        """A repetition.

        Raises:
            DataError: NOT_FOUND, MALFORMED, or HASH_MISMATCH.
        """
        path = self._path(digest)
        try:
            found = StoredRepetition.unpack(path.read_bytes())
        except FileNotFoundError:
            raise DataError(f"repetition {digest[:12]} is not on this edge", reason=Reason.NOT_FOUND) from None
        if found.hash != digest:
            raise DataError(f"repetition {digest[:12]} is not what it was", reason=Reason.HASH_MISMATCH, hint=_HINT)
        return found

    def repetitions(self) -> list[StoredRepetition]:
        """The repetitions that count and lie on this edge, in the order in which they were recorded.

        Raises:
            DataError: One is damaged.
        """
        return [self.read(h) for h in self.held().repetitions if self.has(h)]

    def commit(
        self,
        repetitions: Sequence[StoredRepetition],
        *,
        verb: Verb = Verb.ENROL,
        define: Sequence[GestureNote] = (),
    ) -> Entry:
        """Add repetitions, and the gestures they are of; all or nothing.

        Raises:
            OperatorError: There is nothing to add.
            DataError: As `entries`.
        """
        if not repetitions and not define:
            raise OperatorError("there is nothing to commit.", hint="Record a repetition first.")
        with self._locked():
            for each in repetitions:
                self._keep(each)
            put = tuple(r.note() for r in repetitions)
            return self._append(partial(Entry, verb=verb, put=put, define=tuple(define)))

    def remove(self, label: str) -> Entry:
        """Take a gesture away, with its repetitions; it can be undone.

        Raises:
            OperatorError: NOT_FOUND: the wearer has none of that label.
            DataError: As `entries`.
        """
        with self._locked():
            held = self.held()
            if label not in held.labels:
                raise OperatorError(
                    f"this wearer has no gesture {label!r}.",
                    reason=Reason.NOT_FOUND,
                    hint="`embridge enrol list` shows theirs.",
                )
            undefine = (label,) if label in held.gestures else ()
            return self._append(partial(Entry, verb=Verb.REMOVE, clear=(label,), undefine=undefine))

    def undo(self) -> Entry:
        """Take back the last change; raises OperatorError NOT_FOUND where there is none, and as `entries`."""
        with self._locked():
            return self._append(partial(undoing, self.entries()))

    def redo(self) -> Entry:
        """Do again what was taken back last; raises OperatorError NOT_FOUND where nothing was, and as `entries`."""
        with self._locked():
            return self._append(partial(redoing, self.entries()))

    def merge(self, entries: Iterable[Entry], repetitions: Iterable[StoredRepetition] = ()) -> int:
        """Take in what another edge, or the cloud, knows of the wearer; how many entries were new.

        Raises:
            DataError: As `entries`.
        """
        with self._locked():
            for each in repetitions:
                self._keep(each)
            known = self.entries()
            ids = {e.id for e in known}
            fresh = tuple({e.id: e for e in entries if e.id not in ids}.values())
            if fresh:
                self._write((*known, *fresh))
            return len(fresh)

    def _append(self, make: Callable[..., Entry]) -> Entry:
        known = self.entries()
        entry = make(id=self._ids(), stamp=next_stamp(known, edge=self._edge, wall_ns=self._clock.wall_ns()))
        self._write((*known, entry))
        return entry

    def _write(self, entries: tuple[Entry, ...]) -> None:
        journal = Journal(participant=self.participant, entries=entries)
        write_atomically(self.folder / JOURNAL, msgspec.json.format(msgspec.json.encode(journal)), mode=_MODE)

    def _keep(self, repetition: StoredRepetition) -> None:
        path = self._path(repetition.hash)
        if not path.is_file():
            write_atomically(path, repetition.pack(), mode=_MODE)

    def _path(self, digest: str) -> Path:
        return self.folder / _REPETITIONS / digest

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def wearers(state_dir: Path) -> list[str]:
    """Everybody who has a folder on this edge, sorted."""
    folder = state_dir / FOLDER
    return sorted(unquote(p.name) for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


def forget(state_dir: Path, means: Callable[[str], bool]) -> int:
    """Remove all that is kept of the wearers who are meant; how many files there were."""
    found = 0
    for name in wearers(state_dir):
        if means(name):
            folder = state_dir / FOLDER / quote(name, safe="")
            found += sum(1 for p in folder.rglob("*") if p.is_file() and p.name != "lock")
            shutil.rmtree(folder)
    return found
