"""Reads bundles and tries them on this machine; what was found of one can be shared by many edges of a process."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from embridge_edge.decode.runtime import Decoder
from embridge_shared.errors import ModelError, Reason
from embridge_shared.release import Bundle, read_bundle

logger = logging.getLogger(__name__)

_HINT: Final = "The running release stays."
MAX_MEMORY: Final = 1 << 30
"""A release may not take more of a machine, bytes."""


@dataclass(frozen=True, slots=True)
class Proof:
    """How a release answered its golden windows on this machine.

    Attributes:
        self_test_ms: Time a window, median, ms.
        p99_ms: The same, 99th percentile, ms.
        memory: By how much the process grew, bytes.
    """

    self_test_ms: float
    p99_ms: float
    memory: int


class Prover:
    """Reads and tries bundles.

    Args:
        int8: Try the quantised encoder, the one that will run.
        memory: Bytes this process holds.
    """

    def __init__(self, *, int8: bool = True, memory: Callable[[], int] | None = None) -> None:
        self._int8 = int8
        self._memory = memory or resident_bytes

    def read(self, path: Path, *, digest: str = "") -> Bundle:
        """Read and verify a bundle; raises as `read_bundle`."""
        return read_bundle(path, digest=digest)

    def prove(self, bundle: Bundle, *, max_p99_ms: float | None = None) -> Proof:
        """Let a release answer its golden windows.

        Args:
            bundle: Verified.
            max_p99_ms: The slowest it may be, ms.

        Raises:
            ModelError: SELF_TEST: it answers otherwise than where it was made, or is too slow or too large for this
                machine; MALFORMED or INCOMPATIBLE: it cannot be loaded.
        """
        before = self._memory()
        decoder = Decoder(bundle, int8=self._int8)
        decoder.self_test()
        p50, p99 = decoder.paced()
        grown = max(0, self._memory() - before)
        if max_p99_ms is not None and p99 * 1e3 > max_p99_ms:
            # A machine may be busy for a moment; a release that is too slow is so again.
            p50, p99 = min((p50, p99), decoder.paced(), key=lambda found: found[1])
        if max_p99_ms is not None and p99 * 1e3 > max_p99_ms:
            raise _unfit(bundle, f"1 % of its windows take {p99 * 1e3:.0f} ms here, at most {max_p99_ms:.0f} may")
        if grown > MAX_MEMORY:
            raise _unfit(bundle, f"it takes {grown >> 20} MiB of memory, at most {MAX_MEMORY >> 20} may be taken")
        logger.info("%s: %.1f ms a window, 99 %% below %.1f ms", bundle.manifest.release, p50 * 1e3, p99 * 1e3)
        return Proof(round(p50 * 1e3, 3), round(p99 * 1e3, 3), grown)


class SharedProver(Prover):
    """Parses and tries every bundle once for all edges of a process; that a file is that bundle is checked each time.

    Args:
        prover: Does it.
    """

    def __init__(self, prover: Prover | None = None) -> None:
        super().__init__()
        self._prover = prover or Prover()
        self._bundles: dict[str, Bundle] = {}
        self._proofs: dict[str, Proof | ModelError] = {}

    def read(self, path: Path, *, digest: str = "") -> Bundle:
        """As `Prover.read`."""
        known = self._bundles.get(digest)
        if known is None:
            bundle = self._prover.read(path, digest=digest)
            return self._bundles.setdefault(bundle.digest, bundle)
        try:
            whole = hashlib.sha256(path.read_bytes()).hexdigest() == digest
        except OSError:
            whole = False
        return known if whole else self._prover.read(path, digest=digest)

    def prove(self, bundle: Bundle, *, max_p99_ms: float | None = None) -> Proof:
        """As `Prover.prove`."""
        found = self._proofs.get(bundle.digest)
        if found is None:
            try:
                found = self._prover.prove(bundle, max_p99_ms=max_p99_ms)
            except ModelError as error:
                found = error
            self._proofs[bundle.digest] = found
        if isinstance(found, ModelError):
            raise ModelError(found.message, reason=found.reason, hint=found.hint)
        return found


def resident_bytes() -> int:
    """Memory that this process holds; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _unfit(bundle: Bundle, why: str) -> ModelError:
    return ModelError(f"{bundle.manifest.release} is not for this machine: {why}.", reason=Reason.SELF_TEST, hint=_HINT)
