"""Several methods that speak as one: the similarities of all, blended, in one space of unit vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.learn import leakage
from embridge_cloud.learn.config import LearnConfig
from embridge_cloud.learn.trained import Lineage
from embridge_cloud.learn.zeroshot import Embedder
from embridge_shared.errors import OperatorError

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Members side by side.

    Vectors are joined, each scaled by the square root of its weight, so that a cosine is the weighted mean of the
    members' cosines; queries are joined in every combination, so that the nearest one is the blend of the members'
    nearest. Galleries, prototypes and scores are used as with any other method.

    Attributes:
        members: The methods.
        weights: Of each; they sum to 1.
        lineage: Of all.
    """

    members: tuple[Embedder, ...]
    weights: tuple[float, ...]
    lineage: Lineage

    @property
    def config(self) -> LearnConfig:
        """Of the first member."""
        return self.members[0].config

    def embed_emg(self, emg: Array | None) -> Array:
        """EMG, float32 (N, T, C), to unit queries (N, M1 M2 ..., d1 + d2 ...)."""
        joined: Array | None = None
        for member, weight in zip(self.members, self.weights, strict=True):
            own = np.float32(weight**0.5) * member.embed_emg(emg)
            joined = own if joined is None else _combined(joined, own)
        return np.asarray(joined, np.float32)

    def embed_pose(self, pose: Array | None) -> Array:
        """Poses, float32 (N, Tp, J), to unit vectors (N, d1 + d2 ...)."""
        parts = [
            np.float32(weight**0.5) * member.embed_pose(pose)
            for member, weight in zip(self.members, self.weights, strict=True)
        ]
        return np.concatenate(parts, axis=1)

    def features(self, emg: Array | None) -> Array:
        """The mean of the queries, (N, d1 + d2 ...)."""
        return np.asarray(self.embed_emg(emg).mean(axis=1), np.float32)

    def statistics(self) -> dict[str, Array]:
        """Everything computed on the train split, member by member."""
        return {f"{i}.{name}": v for i, member in enumerate(self.members) for name, v in member.statistics().items()}


def blend(members: Sequence[Embedder], weights: Sequence[float] | None = None) -> Ensemble:
    """Join methods that were trained on the same windows.

    Args:
        members: At least one.
        weights: Of each, positive; None weighs all alike.

    Raises:
        OperatorError: There is no member, a weight does not fit, or the members come from different people.
    """
    given = tuple(weights) if weights is not None else (1.0,) * len(members)
    if not members or len(given) != len(members) or min(given) <= 0:
        raise OperatorError(f"{len(members)} members cannot be blended with weights {given}")
    lineages = [m.lineage for m in members]
    if len({(x.participants, x.sessions, x.emg_gestures) for x in lineages}) > 1:
        raise OperatorError(
            "members of an ensemble were trained on different people or gestures",
            hint="Fit all of them on one train split.",
        )
    total = sum(given)
    named = {f"{i}.{name}": v for i, m in enumerate(members) for name, v in m.statistics().items()}
    lineage = Lineage(
        seed=lineages[0].seed,
        config=lineages[0].config,
        data=tuple(dict.fromkeys(d for x in lineages for d in x.data)),
        statistics=leakage.statistics_digest(named),
        participants=lineages[0].participants,
        sessions=lineages[0].sessions,
        emg_gestures=lineages[0].emg_gestures,
        pose_gestures=tuple(sorted({g for x in lineages for g in x.pose_gestures})),
        shuffled=any(x.shuffled for x in lineages),
    )
    return Ensemble(tuple(members), tuple(w / total for w in given), lineage)


def _combined(left: Array, right: Array) -> Array:
    """Every query of one beside every query of the other, (N, M1 M2, d1 + d2)."""
    n, m, d = left.shape
    k, e = right.shape[1:]
    a = np.broadcast_to(left[:, :, None], (n, m, k, d))
    b = np.broadcast_to(right[:, None], (n, m, k, e))
    return np.concatenate([a, b], axis=3).reshape(n, m * k, d + e)
