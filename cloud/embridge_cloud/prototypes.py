"""Prototypes: a few pose embeddings a gesture, chosen from poses alone and searched exactly.

The index is a cache. It is rebuilt from stored poses with every encoder; vectors are never carried over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import faiss
import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from embridge_cloud.learn.data import Windows, class_balanced
from embridge_shared.errors import DataError, ModelError, Reason
from embridge_shared.medoids import medoids
from embridge_shared.scoring import PrototypeScorer

TENSORS = "prototypes.safetensors"
SIDECAR = "prototypes.json"

Embed = Callable[[NDArray[np.float32] | None], NDArray[np.float32]]


class Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which moment a prototype is.

    Attributes:
        participant: Whose hand.
        session: Where it was recorded.
        repetition: Which repetition.
        start_s: When in the session, s.
    """

    participant: str
    session: str
    repetition: int
    start_s: float


class Hit(msgspec.Struct, frozen=True):
    """A prototype found: its row, its gesture, its cosine."""

    row: int
    gesture: str
    similarity: float


class _Sidecar(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    sha256: str
    encoder: str
    gestures: tuple[str, ...]
    rows: tuple[int, ...]
    provenance: tuple[Provenance, ...]


@dataclass(frozen=True, slots=True)
class PrototypeIndex:
    """Prototypes of a pose encoder, exactly searchable.

    Attributes:
        vectors: L2-normalised, float32 (P, d).
        rows: Gesture index of each, int64 (P,); every gesture has at least one.
        gestures: Labels.
        provenance: One a row.
        encoder: Digest of the encoder they belong to.

    Raises:
        DataError: The parts do not fit together.
    """

    vectors: NDArray[np.float32]
    rows: NDArray[np.int64]
    gestures: tuple[str, ...]
    provenance: tuple[Provenance, ...]
    encoder: str = ""

    def __post_init__(self) -> None:
        n = len(self.vectors)
        if self.vectors.ndim != 2 or self.rows.shape != (n,) or len(self.provenance) != n:
            raise DataError("prototypes need a gesture and a provenance each", reason=Reason.WRONG_SHAPE)
        if set(self.rows.tolist()) != set(range(len(self.gestures))):
            raise DataError("every gesture needs a prototype, and every prototype a gesture")
        if n and np.abs(np.linalg.norm(self.vectors, axis=1) - 1).max() > 1e-3:
            raise DataError("prototypes must have unit length")

    def export(self) -> tuple[NDArray[np.float32], NDArray[np.int64], tuple[Provenance, ...]]:
        """What a release carries: vectors (P, d), gesture index (P,), provenance, all in one order."""
        return self.vectors.copy(), self.rows.copy(), self.provenance

    def scorer(self, k: int) -> PrototypeScorer:
        """The rule by which cloud and edge alike score gestures."""
        return PrototypeScorer(self.vectors, self.rows, k=k)

    def faiss_index(self) -> faiss.IndexIDMap2:
        """An exact inner-product index whose ids are rows."""
        index = faiss.IndexIDMap2(faiss.IndexFlatIP(self.vectors.shape[1]))
        index.add_with_ids(np.ascontiguousarray(self.vectors), np.arange(len(self.vectors), dtype=np.int64))
        return index

    def search(self, queries: NDArray[np.float32], k: int = 10) -> list[list[Hit]]:
        """The k prototypes nearest to any query of each window, best first.

        Args:
            queries: L2-normalised, float32 (N, M, d).
            k: Prototypes wanted; fewer where there are not so many.

        Raises:
            DataError: Queries of another size.
        """
        if queries.ndim != 3 or queries.shape[2] != self.vectors.shape[1]:
            raise DataError(
                f"queries must be (N, M, {self.vectors.shape[1]}), not {queries.shape}", reason=Reason.WRONG_SHAPE
            )
        n, m, d = queries.shape
        k = min(k, len(self.vectors))
        flat = np.ascontiguousarray(queries.reshape(n * m, d), np.float32)
        similarity, found = self.faiss_index().search(flat, k)
        return [
            self._best(similarity[i * m : (i + 1) * m].ravel(), found[i * m : (i + 1) * m].ravel(), k) for i in range(n)
        ]

    def _best(self, similarity: NDArray[np.float32], found: NDArray[np.int64], k: int) -> list[Hit]:
        """The k best rows over all queries, each once."""
        hits: dict[int, Hit] = {}
        for at in np.argsort(-similarity, kind="stable"):
            row = int(found[at])
            if row not in hits:
                hits[row] = Hit(row, self.gestures[self.rows[row]], float(similarity[at]))
            if len(hits) == k:
                break
        return list(hits.values())

    def recall(self, queries: NDArray[np.float32], k: int = 10) -> float:
        """Share of the true k nearest prototypes that `search` returns; 1 for an exact index."""
        k = min(k, len(self.vectors))
        exact = (queries @ self.vectors.T).max(axis=1)
        hits = 0
        for row, found in zip(exact, self.search(queries, k), strict=True):
            # equal similarities may come in either order
            least = np.partition(row, len(row) - k)[len(row) - k] - 1e-6
            hits += sum(bool(row[h.row] >= least) for h in found)
        return hits / (k * len(queries)) if len(queries) else 1.0

    def save(self, folder: Path) -> None:
        """Write vectors and sidecar into `folder`, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = save({"vectors": np.ascontiguousarray(self.vectors, "<f4")})
        sidecar = _Sidecar(
            sha256=hashlib.sha256(tensors).hexdigest(),
            encoder=self.encoder,
            gestures=self.gestures,
            rows=tuple(int(r) for r in self.rows),
            provenance=self.provenance,
        )
        (folder / TENSORS).write_bytes(tensors)
        (folder / SIDECAR).write_bytes(msgspec.json.encode(sidecar))

    @classmethod
    def load(cls, folder: Path) -> PrototypeIndex:
        """Read an index back.

        Raises:
            ModelError: A file is missing or damaged.
        """
        try:
            sidecar = msgspec.json.decode((folder / SIDECAR).read_bytes(), type=_Sidecar)
            tensors = (folder / TENSORS).read_bytes()
        except FileNotFoundError as error:
            raise ModelError(f"no prototypes: {error.filename} is missing", reason=Reason.NOT_FOUND) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ModelError(f"{folder / SIDECAR}: {error}", reason=Reason.MALFORMED) from None
        if hashlib.sha256(tensors).hexdigest() != sidecar.sha256:
            raise ModelError(
                f"{folder / TENSORS} is not what was saved",
                reason=Reason.HASH_MISMATCH,
                hint="Rebuild the prototypes from the stored poses.",
            )
        try:
            vectors = load(tensors)["vectors"]
        except (SafetensorError, KeyError) as error:
            raise ModelError(f"{folder / TENSORS}: {error}", reason=Reason.MALFORMED) from None
        rows = np.array(sidecar.rows, np.int64)
        return cls(vectors, rows, sidecar.gestures, sidecar.provenance, sidecar.encoder)


def build_prototypes(
    embed: Embed,
    poses: Windows,
    gestures: tuple[str, ...],
    *,
    per_gesture: int = 5,
    seed: int = 0,
    encoder: str = "",
    whole: Collection[str] = (),
) -> PrototypeIndex:
    """Choose prototypes from poses.

    As many poses of each gesture are drawn, and of each the k medoids kept, so that no gesture wins by numbers and
    no outlier stands for one.

    Args:
        embed: Pose windows, float32 (N, Tp, 20), rad, to unit vectors (N, d).
        poses: Labelled pose windows; EMG in them is not looked at.
        gestures: Labels wanted, in the order of the scores.
        per_gesture: Prototypes a gesture, fewer where the rarest has not so many poses.
        seed: For the draw.
        encoder: Digest of the encoder `embed` belongs to.
        whole: Gestures of which every pose counts: clips of a template are as many for each as an edge makes.

    Raises:
        DataError: A gesture has no pose, or there is no gesture.
    """
    missing = set(gestures) - poses.present("gestures")
    if missing or not gestures:
        raise DataError(
            f"no pose of {sorted(missing)}" if missing else "no gesture to build prototypes for",
            reason=Reason.TOO_LITTLE_DATA,
            hint="Record or import poses of every gesture that is to be decoded.",
        )
    poses = poses.without_emg().of_gestures(gestures)
    poses = poses.select(_drawn(poses, whole, np.random.default_rng(seed)))
    vectors = embed(poses.pose)
    kept: list[NDArray[np.int64]] = []
    rows: list[int] = []
    for g, name in enumerate(gestures):
        own = np.flatnonzero(poses.label == poses.gestures.index(name))
        chosen = own[medoids(vectors[own], per_gesture)]
        kept.append(chosen)
        rows += [g] * len(chosen)
    order = np.concatenate(kept)
    return PrototypeIndex(
        vectors=np.ascontiguousarray(vectors[order]),
        rows=np.array(rows, np.int64),
        gestures=gestures,
        provenance=tuple(_provenance(poses, int(i)) for i in order),
        encoder=encoder,
    )


def _drawn(poses: Windows, whole: Collection[str], rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of as many poses of each gesture, and all of those of `whole`."""
    kept = np.isin(poses.label, [i for i, name in enumerate(poses.gestures) if name in whole])
    if kept.all():
        return np.arange(len(poses))
    return np.concatenate([class_balanced(np.where(kept, -1, poses.label), rng), np.flatnonzero(kept)])


def _provenance(poses: Windows, i: int) -> Provenance:
    """Where window `i` comes from."""
    return Provenance(
        participant=poses.participants[poses.participant[i]],
        session=poses.sessions[poses.session[i]],
        repetition=int(poses.repetition[i]),
        start_s=float(poses.start_s[i]),
    )
