"""Making a release from one that is here already, where the registry signed how."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from embridge_edge.update.fetch import Fetcher, Progress
from embridge_edge.update.slots import Slot, Slots
from embridge_edge.update.trust import Offer, Trust
from embridge_shared.archive import write_atomically
from embridge_shared.delta import apply_delta
from embridge_shared.errors import EmbridgeError, ModelError, NetworkError

logger = logging.getLogger(__name__)

SUFFIX: Final = ".delta"
_PAYS: Final = 0.5


def assemble(
    offer: Offer, part: Path, *, trust: Trust, slots: Slots, fetcher: Fetcher, progress: Progress | None = None
) -> bool:
    """Make a release's bundle from one that is here and a delta, if there is one and it pays.

    Whatever is wrong with it, the whole bundle will do: only a link that breaks halfway is worth waiting for.

    Args:
        offer: The release.
        part: Where its bundle goes; the delta is kept beside it while it comes.
        trust: Says which deltas were signed.
        slots: The releases here.
        fetcher: Fetches it.
        progress: Called with bytes held and bytes in all.

    Returns:
        Whether the bundle is there; it is checked like one that was fetched.

    Raises:
        NetworkError: The link broke while the delta came; call again to go on.
    """
    came = part.with_suffix(SUFFIX)
    for base in _bases(slots):
        delta = trust.delta(offer, base.digest)
        if delta is None or delta.target.length >= _PAYS * offer.published.size:
            continue
        before = came.stat().st_size if came.exists() else 0
        try:
            fetcher.resume(delta.url, came, delta.target.length, progress)
            delta.verify(came)
            write_atomically(part, apply_delta(slots.path(base.digest).read_bytes(), came.read_bytes(), delta.about))
        except NetworkError:
            if came.exists() and came.stat().st_size > before:
                raise
            logger.info("the delta from %s cannot be had: the whole of %s is fetched", base.name, offer.published.name)
        except (EmbridgeError, OSError) as error:
            logger.warning("%s is fetched whole: %s", offer.published.name, error)
        else:
            logger.info("%s was made from %s and %d bytes", offer.published.name, base.name, delta.target.length)
            came.unlink(missing_ok=True)
            return True
        came.unlink(missing_ok=True)
    return False


def _bases(slots: Slots) -> Sequence[Slot]:
    try:
        pointer = slots.pointer()
    except ModelError:
        return ()
    return [slot for slot in (pointer.current, pointer.previous) if slot is not None]
