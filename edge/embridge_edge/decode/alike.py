"""Which gestures a release can tell apart: in its own space, in joint angles, and as its prior of wearers expects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from embridge_edge.decode.added import Placed, PoseEncoder
from embridge_shared.errors import OperatorError, Reason
from embridge_shared.gestures import Gesture, similarity
from embridge_shared.hand import N_JOINTS
from embridge_shared.release import Bundle
from embridge_shared.wearer import KnownGesture, WearerModel

Wide = NDArray[np.float64]

MIXED: Final = 0.25
"""Share of two gestures' prototypes that lie among the other's, from which nothing tells them apart."""
MISTAKEN: Final = 0.25
"""Expected confusion of two gestures from which people are warned."""
ALIKE: Final = 0.75
"""Similarity of joint angles from which hand shapes are hard to tell apart."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two gestures.

    Attributes:
        a: One.
        b: The other.
        cosine: Between their prototypes, each at its best, in the release's space; of joint angles without a release.
        mixed: Share of their prototypes whose nearest neighbour is the other gesture's; None without a release.
        mistaken: How often one is expected to be taken for the other, for a wearer nobody has met; None where the
            release has no prior of wearers.
    """

    a: str
    b: str
    cosine: float
    mixed: float | None = None
    mistaken: float | None = None

    @property
    def apart(self) -> bool:
        """Whether a decoder can tell them apart."""
        return self.cosine < ALIKE if self.mixed is None else self.mixed < MIXED

    @property
    def doubtful(self) -> bool:
        """Whether a wearer nobody has met is expected to have trouble with them."""
        return not self.apart or (self.mistaken is not None and self.mistaken >= MISTAKEN)

    def __str__(self) -> str:
        parts = [f"similarity {self.cosine:.2f}"]
        parts += [f"{self.mixed:.0%} of prototypes mixed"] if self.mixed is not None else []
        parts += [f"{self.mistaken:.0%} confusion expected"] if self.mistaken is not None else []
        return f"{self.a} and {self.b}: {', '.join(parts)}"


@dataclass(frozen=True, slots=True, eq=False)
class Alike:
    """How alike gestures are.

    Attributes:
        labels: Gestures (G).
        cosine: (G, G), 1 on the diagonal.
        mixed: (G, G), or None without a release.
        mistaken: (G, G), symmetric, or None without a prior.
    """

    labels: tuple[str, ...]
    cosine: Wide
    mixed: Wide | None = None
    mistaken: Wide | None = None

    def pair(self, i: int, j: int) -> Pair:
        """Gestures `i` and `j`."""
        mixed, mistaken = (None if x is None else float(x[i, j]) for x in (self.mixed, self.mistaken))
        return Pair(self.labels[i], self.labels[j], float(self.cosine[i, j]), mixed, mistaken)

    def doubtful(self) -> list[Pair]:
        """Pairs to be warned of, the worst first."""
        rows, columns = np.triu_indices(len(self.labels), 1)
        pairs = [self.pair(int(i), int(j)) for i, j in zip(rows, columns, strict=True)]
        return sorted((p for p in pairs if p.doubtful), key=_trouble)

    def nearest(self, label: str, n: int = 3) -> list[Pair]:
        """The gestures most like one of them, the worst first."""
        i = self.labels.index(label)
        pairs = [self.pair(i, j) for j in range(len(self.labels)) if j != i]
        return sorted(pairs, key=_trouble)[:n]


def _trouble(pair: Pair) -> tuple[float, float, float]:
    return (-(pair.mixed or 0.0), -(pair.mistaken or 0.0), -pair.cosine)


def alike_by_shape(gestures: Sequence[Gesture]) -> Alike:
    """Compare joint angles, where there is no release."""
    return Alike(tuple(g.name for g in gestures), similarity(gestures))


def alike_by_release(bundle: Bundle, others: Mapping[str, Gesture], labels: Sequence[str] = ()) -> Alike:
    """Compare gestures as a release sees them.

    Args:
        bundle: The release.
        others: Gestures it does not ship that may be compared, by name.
        labels: What to compare; by default what it ships, and all the others.

    Raises:
        OperatorError: NOT_FOUND: a label is in neither.
        ModelError: The release places no postures.
    """
    shipped = [g.label for g in bundle.manifest.gestures]
    labels = tuple(dict.fromkeys(labels)) or tuple(dict.fromkeys((*shipped, *others)))
    strange = next((n for n in labels if n not in shipped and n not in others), None)
    if strange is not None:
        raise OperatorError(
            f"there is no gesture called {strange!r}.",
            reason=Reason.NOT_FOUND,
            hint="`embridge gesture list` shows them all.",
        )
    new = [n for n in labels if n not in shipped]
    encoder = PoseEncoder(bundle) if new else None
    placed = {n: encoder.place(n, others[n].pose) for n in new} if encoder is not None else {}
    rows = np.array(bundle.manifest.rows)
    vectors = [placed[n].vectors if n in placed else bundle.prototypes[rows == shipped.index(n)] for n in labels]
    cosine, mixed = _compared(vectors)
    return Alike(labels, cosine, mixed, _expected(bundle, placed, labels))


def _compared(vectors: Sequence[NDArray[np.float32]]) -> tuple[Wide, Wide]:
    """Cosine between the prototypes of gestures, each at its best, and how much they are mixed, both (G, G)."""
    g = len(vectors)
    cosine, mixed = np.eye(g), np.zeros((g, g))
    within = [_best(v, v, own=True) for v in vectors]
    for i in range(g):
        for j in range(i):
            to_j, to_i = _best(vectors[i], vectors[j]), _best(vectors[j], vectors[i])
            cosine[i, j] = cosine[j, i] = float(np.concatenate([to_j, to_i]).mean())
            among = np.concatenate([to_j >= within[i], to_i >= within[j]])
            mixed[i, j] = mixed[j, i] = float(among.mean())
    return cosine, mixed


def _best(a: NDArray[np.float32], b: NDArray[np.float32], *, own: bool = False) -> Wide:
    """Cosine of each of `a` with the nearest of `b`, but not with itself; 1 for the only one there is."""
    product = (a @ b.T).astype(np.float64)
    if own:
        np.fill_diagonal(product, -1.0 if len(a) > 1 else 1.0)
    return np.asarray(product.max(axis=1))


def _expected(bundle: Bundle, placed: Mapping[str, Placed], labels: Sequence[str]) -> Wide | None:
    """What the prior of wearers expects of somebody nobody has met; None where there is no such prior."""
    prior = bundle.wearer_prior()
    if prior is None or prior.joints != N_JOINTS:
        return None
    every = [KnownGesture(g, p) for g, p in zip(prior.gestures, prior.postures, strict=True)]
    model = WearerModel(prior, [*every, *(p.known() for p in placed.values())])
    at = [model.labels.index(n) for n in labels]
    found = model.mistaken(np.random.default_rng(0))[np.ix_(at, at)]
    return np.asarray((found + found.T) / 2.0)
