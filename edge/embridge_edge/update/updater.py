"""The updater: fetch, verify, self-test, activate, roll back. Everything here blocks; the agent runs it in a thread.

A release gets its place in `bundles/` by a rename, after its signature, its hash, its contents and its self-test on
this machine were found good, and it runs from the moment one small file is replaced. Whatever a crash leaves behind
is a `.part` that the next fetch resumes, or a release that nothing points to.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
import ssl
from collections.abc import Callable, Iterator
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec

from embridge_edge.update.deltas import SUFFIX, assemble
from embridge_edge.update.fetch import Fetcher, HttpFetcher, Progress
from embridge_edge.update.proving import Proof, Prover
from embridge_edge.update.slots import FOLDER, Current, Slots
from embridge_edge.update.trust import Offer, Trust
from embridge_shared.archive import sync_folder
from embridge_shared.errors import ModelError, OperatorError, Reason
from embridge_shared.manifest import Published
from embridge_shared.release import Bundle

_SPARE_BYTES: Final = 16 << 20  # left free beside a download
_HINT: Final = "The running release stays."


class Updater:
    """Keeps one edge's releases.

    Args:
        state_dir: The edge's state folder; the updater keeps to `update/` in it.
        root: Root metadata the edge was provisioned with.
        url: Base URL of the update repository; it need not be trusted.
        agent: Version of this agent; the installed one by default.
        prover: Reads bundles and tries them on this machine; by default with the quantised encoder.
        timeout_s: Longest wait on the network, s.
        tls: Certificates to trust and to show.
        fetcher: Brings files here; by default over HTTP(S), with `timeout_s` and `tls`.
        now: The time that signatures are held against; this machine's by default.

    Attributes:
        proof: How the release fetched last answered its self-test; None where it was here already.
    """

    def __init__(
        self,
        state_dir: Path,
        root: bytes,
        url: str,
        *,
        agent: str = "",
        int8: bool = True,
        prover: Prover | None = None,
        timeout_s: float = 30.0,
        tls: ssl.SSLContext | None = None,
        fetcher: Fetcher | None = None,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        folder = state_dir / FOLDER
        self._url = url
        self._agent = agent or version("embridge")
        self._prover = prover or Prover(int8=int8)
        self.proof: Proof | None = None
        self._fetcher = fetcher or HttpFetcher(timeout_s, tls)
        self._trust = Trust(folder / "metadata", root, self._fetcher, now=now)
        self._slots = Slots(folder, read=self._prover.read)
        self._downloads = folder / "downloads"
        self._downloads.mkdir(exist_ok=True)

    @property
    def received(self) -> int:
        """Bytes fetched so far, metadata included."""
        return self._fetcher.received

    def recalls(self) -> dict[str, str]:
        """Bring the metadata up to date: why releases held here were withdrawn, by digest.

        Raises:
            NetworkError: UNREACHABLE or TIMEOUT.
            ModelError: As `Trust.refresh`.
        """
        with self._fetching():
            self._trust.refresh(self._url)
            pointer = self._slots.pointer()
            held = [slot for slot in (pointer.current, pointer.previous) if slot is not None]
            found = {slot.digest: self._trust.recalled(slot.name, slot.digest) for slot in held}
        return {digest: why for digest, why in found.items() if why}

    def fetch(
        self,
        release: str,
        *,
        force: bool = False,
        refreshed: bool = False,
        progress: Progress | None = None,
        testing: Callable[[], None] | None = None,
        max_p99_ms: float | None = None,
    ) -> Path:
        """Bring a release to this machine, verified and self-tested; nothing that runs is touched.

        Args:
            release: Its name, as in "embridge-3".
            force: Take it even if it is older than the one that runs, was rolled back here or recalled: an operator's
                decision.
            refreshed: `recalls` has just brought the metadata up to date.
            progress: Called with bytes held and bytes in all; what it raises ends the download, which will resume.
            testing: Called when all of it is here, before any of it is loaded.
            max_p99_ms: The slowest it may be on this machine, ms.

        Returns:
            The bundle, ready for `activate`.

        Raises:
            ConfigError: `url` is of another scheme than http, https and mqtt.
            NetworkError: UNREACHABLE or TIMEOUT; worth another try.
            ModelError: EXPIRED: worth another try once clocks are right; SIGNATURE, HASH_MISMATCH, NOT_FOUND,
                INCOMPATIBLE, RECALLED, SELF_TEST, or as `read_bundle`: another try is of no use.
            OperatorError: DISK_FULL; LOCKED: another fetch is under way.
        """
        self.proof = None
        with self._fetching():
            offer = self._trust.offer(release, self._url, refreshed=refreshed)
            self._check(offer.published, force=force)
            path = self._slots.path(offer.published.digest)
            if not self._holds(path):
                part = self._obtain(offer, progress)
                try:
                    bundle = self._verified(offer, part)
                    if testing is not None:
                        testing()
                    self.proof = self._prover.prove(bundle, max_p99_ms=max_p99_ms)
                except ModelError:
                    part.unlink(missing_ok=True)
                    raise
                part.replace(path)
                sync_folder(path.parent)
            return path

    def activate(self, path: Path) -> Current:
        """Make a fetched release the one that runs, atomically, and keep the one that ran.

        Args:
            path: What `fetch` returned.

        Raises:
            OperatorError: `path` was not fetched.
            ModelError: As `read_bundle`.
        """
        slot = self._slots.activate(path)
        return Current(slot.name, slot.digest, path)

    def rollback(self, reason: str = "") -> Current:
        """Return to the previous release; the one that ran is not fetched again unless forced.

        Raises:
            OperatorError: NOT_FOUND: there is none.
            ModelError: The previous bundle is damaged; nothing was changed.
        """
        slot = self._slots.rollback(reason or "rolled back by hand")
        return Current(slot.name, slot.digest, self._slots.path(slot.digest))

    def current(self) -> Current | None:
        """The release that runs, or None.

        Raises:
            ModelError: MALFORMED: the pointer is damaged.
        """
        slot = self._slots.current()
        return Current(slot.name, slot.digest, self._slots.path(slot.digest)) if slot is not None else None

    def load(self) -> Bundle | None:
        """Read and verify the release that runs, or None; raises as `current` and `read_bundle`."""
        return self._slots.load()

    def _check(self, published: Published, *, force: bool) -> None:
        if _numbers(self._agent) < _numbers(published.min_agent):
            raise ModelError(
                f"{published.name} needs agent {published.min_agent}, this is {self._agent}.",
                reason=Reason.INCOMPATIBLE,
                hint="Update the agent's software.",
            )
        current = self._slots.current()
        if force or (current is not None and current.digest == published.digest):
            return
        pointer = self._slots.pointer()
        if published.recalled:
            raise ModelError(
                f"{published.name} was recalled: {published.recalled}.",
                reason=Reason.RECALLED,
                hint="Roll out another release.",
            )
        why = pointer.refused.get(published.digest)
        if why is not None:
            raise ModelError(
                f"{published.name} was rolled back here: {why}.",
                reason=Reason.INCOMPATIBLE,
                hint="Publish a new version, or force this one.",
            )
        older = current is not None and current.line == published.line and current.version > published.version
        if older and not pointer.older:
            assert current is not None
            raise ModelError(
                f"{published.name} is older than {current.name}, which runs.",
                reason=Reason.INCOMPATIBLE,
                hint="Roll back, or force it.",
            )

    def _holds(self, path: Path) -> bool:
        if not path.exists():
            return False
        try:
            self._prover.read(path, digest=path.stem)
        except ModelError:
            path.unlink()
            return False
        return True

    def _obtain(self, offer: Offer, progress: Progress | None) -> Path:
        part = self._downloads / f"{offer.published.digest}.part"
        for leftover in self._downloads.iterdir():
            if leftover not in (part, part.with_suffix(SUFFIX)):
                leftover.unlink()
        held = part.stat().st_size if part.exists() else 0
        if shutil.disk_usage(self._downloads).free < offer.published.size - held + _SPARE_BYTES:
            raise OperatorError(
                f"no room for the {offer.published.size} bytes of {offer.published.name}.",
                reason=Reason.DISK_FULL,
                hint="Free some space; the running release stays.",
            )
        if not held and assemble(
            offer, part, trust=self._trust, slots=self._slots, fetcher=self._fetcher, progress=progress
        ):
            return part
        part.with_suffix(SUFFIX).unlink(missing_ok=True)
        try:
            self._fetcher.resume(offer.url, part, offer.published.size, progress)
        except ModelError:
            part.unlink(missing_ok=True)
            raise
        return part

    def _verified(self, offer: Offer, part: Path) -> Bundle:
        offer.verify(part)
        bundle = self._prover.read(part, digest=offer.published.digest)
        signed = msgspec.structs.replace(offer.published, recalled="")
        if Published.of(bundle.manifest, bundle.digest, bundle.size) != signed:
            raise ModelError(
                f"{offer.published.name} holds {bundle.manifest.release}, or was signed as another.",
                reason=Reason.INCOMPATIBLE,
                hint=_HINT,
            )
        return bundle

    @contextlib.contextmanager
    def _fetching(self) -> Iterator[None]:
        with (self._downloads.parent / "fetch.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OperatorError(
                    "another update is under way.", reason=Reason.LOCKED, hint="Wait for it."
                ) from error
            yield


def _numbers(software: str) -> tuple[int, ...]:
    """The release segment of a version, as in (0, 1, 0)."""
    found = re.match(r"\d+(\.\d+)*", software)
    return tuple(map(int, found.group().split("."))) if found else (0,)
