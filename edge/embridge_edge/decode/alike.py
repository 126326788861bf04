"""Which gestures a release can tell apart: in its own space, in joint angles, and as its prior of wearers expects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from embridge_edge.decode.added import Placed, PoseEncoder
from embridge_shared.errors import OperatorError, Reason
from embridge_shared.gestures import ALIKE, Gesture, similarity
from embridge_shared.hand import N_JOINTS
from embridge_shared.release import Bundle
from embridge_shared.wearer import KnownGesture, WearerModel

Wide = NDArray[np.float64]

MIXED: Final = 0.1
"""Share of two gestures' poses that score higher for the other one, from which nothing tells them apart."""
MISTAKEN: Final = 0.25
"""Expected confusion of two gestures from which people are warned."""
NEAR: Final = 0.85
"""Cosine in a release's space from which people are warned; one gesture by two people is as far apart."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two gestures.

    Attributes:
        a: One.
        b: The other.
        cosine: Between their prototypes, each at its best, in the release's space; of joint angles without a release.
        mixed: Share of their poses that score higher for the other one, 0.5 for the same gesture; None without a
            release.
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
        near = self.mixed is not None and self.cosine >= NEAR
        return not self.apart or near or (self.mistaken is not None and self.mistaken >= MISTAKEN)

    def __str__(self) -> str:
        parts = [f"similarity {self.cosine:.2f}"]
        parts += [f"{self.mixed:.0%} of poses mixed"] if self.mixed is not None else []
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
    fresh = {n: encoder.fresh(n, others[n].pose) for n in new} if encoder is not None else {}
    rows = np.array(bundle.manifest.rows)
    vectors = [placed[n].vectors if n in placed else bundle.prototypes[rows == shipped.index(n)] for n in labels]
    mixed = _mixed(vectors, [fresh.get(n) for n in labels], bundle.manifest.k)
    return Alike(labels, _cosine(vectors), mixed, _expected(bundle, placed, labels))


def _cosine(vectors: Sequence[NDArray[np.float32]]) -> Wide:
    """Between the prototypes of gestures, each at its best, (G, G)."""
    out = np.eye(len(vectors))
    for i, a in enumerate(vectors):
        for j, b in enumerate(vectors[:i]):
            product = (a @ b.T).astype(np.float64)
            best = np.concatenate([product.max(axis=0), product.max(axis=1)])
            out[i, j] = out[j, i] = float(best.mean())
    return out


def _mixed(vectors: Sequence[NDArray[np.float32]], fresh: Sequence[NDArray[np.float32] | None], k: int) -> Wide:
    """Share of poses of two gestures that score higher for the other one, (G, G).

    Of a gesture that was placed here there are poses its prototypes were not chosen from; of one that was shipped there
    are its prototypes only, and each is scored by the others.
    """
    g = len(vectors)
    taken = np.zeros((g, g))
    for i in range(g):
        points = fresh[i]
        own = _score(vectors[i] if points is None else points, vectors[i], k, held=points is None)
        for j in range(g):
            if j != i:
                other = _score(vectors[i] if points is None else points, vectors[j], k)
                taken[i, j] = float((other > own).mean())
    return np.asarray((taken + taken.T) / 2.0)


def _score(points: NDArray[np.float32], prototypes: NDArray[np.float32], k: int, *, held: bool = False) -> Wide:
    """Mean of the k best cosines of each point; `held` leaves out the point itself, which is one of the prototypes."""
    product = (points @ prototypes.T).astype(np.float64)
    if held:
        if len(prototypes) == 1:
            return np.ones(1)
        product = product[~np.eye(len(points), dtype=bool)].reshape(len(points), -1)
    return np.asarray(np.sort(product, axis=1)[:, -k:].mean(axis=1))


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
