"""Slots: verified bundles on disk, and one small file that says which of them runs and how an update goes.

bundles/<digest>.embridge   verified and tried
slots.json                  current, previous, what was refused, the update under way; replaced atomically
slots.backup.json           the same, for a disk that loses the first

Every step of an update is one replacement of that file, so a power cut leaves the step before or the step after it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import msgspec

from embridge_shared.archive import write_atomically
from embridge_shared.errors import ModelError, OperatorError, Reason
from embridge_shared.fleet import UpdatePhase, UpdateState
from embridge_shared.manifest import Manifest
from embridge_shared.release import SUFFIX, Bundle, read_bundle
from embridge_shared.wire.messages import Desired

logger = logging.getLogger(__name__)

FOLDER: Final = "update"  # in the state directory
_KEPT_REFUSALS: Final = 32


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Slot(_Part, frozen=True, kw_only=True):
    """A release in a slot."""

    name: str
    line: str
    version: int
    digest: str

    @classmethod
    def of(cls, manifest: Manifest, digest: str) -> Slot:
        """The slot of a bundle."""
        return cls(name=manifest.release, line=manifest.name, version=manifest.version, digest=digest)


class Attempt(_Part, frozen=True, kw_only=True):
    """A release that is tried.

    Attributes:
        desired: What was asked for.
        phase: How far it got.
        loaded: Its code runs in an agent that has not ended in good order yet.
        crashes: Agents that ended without a word while it did.
        ran_s: Time on probation before the agent's last stop in good order, s.
        self_test_ms: Golden vectors: time a window, ms.
        agreement: Of the shadow run; None without one.
        shadow_confidence: Of the release before, in the shadow run; None without one.
    """

    desired: Desired
    phase: UpdatePhase
    loaded: bool = False
    crashes: int = 0
    ran_s: float = 0.0
    self_test_ms: float | None = None
    agreement: float | None = None
    shadow_confidence: float | None = None


class Pointer(_Part, frozen=True, kw_only=True):
    """What an edge holds.

    Attributes:
        current: The release that runs.
        previous: The one a rollback returns to.
        refused: Why releases are not taken again, by digest.
        attempt: The update under way, before it runs.
        probation: The trial of `current`, while it may still be taken back.
        told: The edge's last word on its updates.
        url: Where updates were last asked for.
        older: A recall sent this edge back, so that it may take an older release than it runs.
    """

    current: Slot | None = None
    previous: Slot | None = None
    refused: dict[str, str] = {}
    attempt: Attempt | None = None
    probation: Attempt | None = None
    told: UpdateState = UpdateState()
    url: str = ""
    older: bool = False


class Current(NamedTuple):
    """The release that runs."""

    name: str
    digest: str
    path: Path


class Reader(Protocol):
    """Reads and verifies a bundle."""

    def __call__(self, path: Path, *, digest: str = "") -> Bundle:
        """As `read_bundle`."""
        ...


class Slots:
    """The releases an edge holds.

    Args:
        folder: Holds `bundles/` and `slots.json`.
        read: Reads and verifies bundles.
    """

    def __init__(self, folder: Path, *, read: Reader = read_bundle) -> None:
        self._folder = folder
        self._file = folder / "slots.json"
        self._backup = folder / "slots.backup.json"
        self._lock = folder / "slots.lock"
        self._read_bundle = read
        self.bundles = folder / "bundles"
        self.bundles.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where a verified bundle lies."""
        return self.bundles / f"{digest}{SUFFIX}"

    def pointer(self) -> Pointer:
        """What this edge holds.

        Raises:
            ModelError: MALFORMED: the pointer is damaged, and so is its backup.
        """
        return self._read()

    def current(self) -> Slot | None:
        """The release that runs, or None; raises as `pointer`."""
        return self._read().current

    def previous(self) -> Slot | None:
        """The release a rollback would return to, or None; raises as `pointer`."""
        return self._read().previous

    def refused(self, digest: str) -> str | None:
        """Why a release was rolled back, or None where it was not; raises as `pointer`."""
        return self._read().refused.get(digest)

    def change(self, how: Callable[[Pointer], Pointer]) -> Pointer:
        """Replace what this edge holds, atomically.

        Args:
            how: From what it holds to what it shall hold.

        Returns:
            That.
        """
        with self._locked():
            before = self._read()
            after = how(before)
            if after != before:
                self._write(after)
            return after

    def activate(self, path: Path, *, probation: Attempt | None = None, told: UpdateState | None = None) -> Slot:
        """Make a verified bundle the one that runs, and keep the one that ran.

        A release on probation is not kept: the one to return to stays the last that was committed.

        Args:
            path: In `bundles`.
            probation: Its trial; None commits it at once.
            told: The edge's word on it.

        Raises:
            OperatorError: `path` is not there.
            ModelError: As `read_bundle`.
        """
        if path.parent != self.bundles:
            raise OperatorError(f"{path} was not fetched by this updater", hint="Fetch the release first.")
        slot = Slot.of(self._read_bundle(path, digest=path.stem).manifest, path.stem)

        def swap(pointer: Pointer) -> Pointer:
            if pointer.current == slot:
                return pointer
            kept = pointer.current if pointer.probation is None else pointer.previous
            return msgspec.structs.replace(
                pointer,
                current=slot,
                previous=kept,
                refused={digest: why for digest, why in pointer.refused.items() if digest != slot.digest},
                attempt=None,
                probation=probation,
                told=told or pointer.told,
                older=False,
            )

        self.change(swap)
        self.prune()
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
        pointer = self._read()
        if pointer.current is None or pointer.previous is None:
            raise OperatorError(
                "there is no previous release to return to.", reason=Reason.NOT_FOUND, hint="Publish a new one."
            )
        self._read_bundle(self.path(pointer.previous.digest), digest=pointer.previous.digest)
        found = self.leave(reason, told=told_back(pointer, reason)).current
        assert found is not None
        return found

    def leave(
        self, reason: str, *, told: UpdateState, refuse: bool = True, older: bool = False, keep: bool = True
    ) -> Pointer:
        """Give up the release that runs: the previous one runs, or none where there is no whole one.

        Args:
            reason: Why.
            told: The edge's word on it.
            refuse: It is not taken again.
            older: A recall is the reason.
            keep: The previous one will do.
        """
        before = self._read()
        previous = before.previous if keep and self._whole(before.previous) else None

        def back(pointer: Pointer) -> Pointer:
            refused = pointer.refused
            if refuse and pointer.current is not None:
                refused = dict(list(refused.items())[-_KEPT_REFUSALS + 1 :]) | {pointer.current.digest: reason}
            return msgspec.structs.replace(
                pointer, current=previous, previous=None, refused=refused, probation=None, told=told, older=older
            )

        after = self.change(back)
        self.prune()
        gone, now = (s.name if s is not None else "none" for s in (before.current, after.current))
        logger.warning("release %s was given up for %s: %s", gone, now, reason)
        return after

    def load(self) -> Bundle | None:
        """Read and verify the release that runs, or None; raises as `current` and `read_bundle`."""
        slot = self.current()
        return self._read_bundle(self.path(slot.digest), digest=slot.digest) if slot is not None else None

    def prune(self) -> None:
        """Remove bundles that nothing points to."""
        pointer = self._read()
        kept = {self.path(slot.digest) for slot in (pointer.current, pointer.previous) if slot is not None}
        if pointer.attempt is not None:
            kept.add(self.path(pointer.attempt.desired.digest))
        for path in self.bundles.iterdir():
            if path not in kept:
                path.unlink()

    def _whole(self, slot: Slot | None) -> bool:
        if slot is None:
            return False
        try:
            self._read_bundle(self.path(slot.digest), digest=slot.digest)
        except ModelError as error:
            logger.error("release %s is damaged: %s", slot.name, error)
            return False
        return True

    def _read(self) -> Pointer:
        try:
            return _decoded(self._file)
        except FileNotFoundError:
            return _decoded(self._backup) if self._backup.exists() else Pointer()
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            with contextlib.suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
                return _decoded(self._backup)
            raise ModelError(
                f"{self._file} is damaged: {error}.",
                reason=Reason.MALFORMED,
                hint=f"Remove {self._folder} and fetch the release again.",
            ) from error

    def _write(self, pointer: Pointer) -> None:
        data = msgspec.json.format(msgspec.json.encode(pointer))
        write_atomically(self._file, data)
        write_atomically(self._backup, data)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def told_back(pointer: Pointer, detail: str, *, reason: Reason | None = None, now_ns: int = 0) -> UpdateState:
    """The word on a release that was given up.

    Args:
        pointer: What the edge holds before.
        detail: Why, for people.
        reason: Why, where something went wrong.
        now_ns: Unix time, ns.
    """
    gone, asked = pointer.current, pointer.told
    ours = gone is not None and asked.digest == gone.digest
    return UpdateState(
        phase=UpdatePhase.ROLLED_BACK,
        release=gone.name if gone is not None else "",
        digest=gone.digest if gone is not None else "",
        rollout=asked.rollout if ours else "",
        reason=reason.value if reason is not None else "",
        detail=detail,
        since_ns=now_ns,
    )


def _decoded(path: Path) -> Pointer:
    return msgspec.json.decode(path.read_bytes(), type=Pointer, strict=True)
