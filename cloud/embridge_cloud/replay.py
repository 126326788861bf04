"""Replay: what of earlier recordings is learnt from again, so that nobody is forgotten and training stays bounded."""

from __future__ import annotations

import zlib
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.learn.data import Windows


def replayed(windows: Windows, old: Collection[str], bound: int, *, seed: int) -> Windows:
    """All windows of new sessions and a reservoir of those of old ones.

    A reservoir a participant, gesture and session: each gives as many windows as the others while it has them. A window
    keeps its place in the draw whatever is recorded later, so the reservoir of a later day lies within today's.

    Args:
        windows: Of all sessions.
        old: Ids of sessions that were learnt from before.
        bound: Windows of old sessions; 0 takes all of them.
        seed: Of the draw.
    """
    earlier = np.isin(windows.session, [i for i, name in enumerate(windows.sessions) if name in set(old)])
    if not bound or earlier.sum() <= bound:
        return windows
    rows = np.flatnonzero(earlier)
    strata, which = np.unique(
        np.stack([windows.participant[rows], windows.label[rows], windows.session[rows]]), axis=1, return_inverse=True
    )
    quota = _shares(np.bincount(which.reshape(-1), minlength=strata.shape[1]), bound)
    kept = ~earlier
    for i, (_, label, session) in enumerate(strata.T):
        own = rows[which.reshape(-1) == i]
        name = f"{windows.sessions[session]}|{windows.gestures[label]}"
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        kept[own[np.argsort(rng.random(len(own)))[: quota[i]]]] = True
    return windows.select(np.flatnonzero(kept))


def _shares(sizes: NDArray[np.int64], bound: int) -> NDArray[np.int64]:
    """How many each stratum gives, as even as their sizes allow; together `bound`."""
    quota = np.zeros(len(sizes), np.int64)
    left = bound
    while left > 0:
        open_ = np.flatnonzero(quota < sizes)
        if not len(open_):
            break
        each = max(1, left // len(open_))
        for i in open_[:left] if each == 1 else open_:
            given = min(each, int(sizes[i] - quota[i]), left)
            quota[i] += given
            left -= given
    return quota
