"""The release: encoder, prototypes, preprocessing and thresholds as one content-addressed file.

A bundle (`.embridge`) is a canonical archive (`embridge_shared.archive`) of

    manifest.json      what it is, and the sha256 of every other file
    encoder.onnx       windows float32 (B, T, C), scaled -> queries float32 (B, M, d), L2-normalised
    encoder.int8.onnx  the same, quantised
    prototypes.npy     float32 (P, d), L2-normalised
    golden.npz         windows (K, T, C), queries (K, M, d), scores (K, G), float32: what the encoder must answer
    card.md            the model card
    wearer.prior       what training participants say of a new wearer, where there is one (`embridge_shared.wearer`)
    pose.onnx          postures float32 (B, Tp, J), rad -> L2-normalised (B, d), where gestures can be added by pose
    stream.onnx        the encoder a patch at a time, where it can run so: `patch` float32 (1, S, C) and every `state.*`
                       -> `queries` (1, M, d) and every `next.*`, which is the state that goes with the next patch; the
                       answer is that to the window that ends with the patch, once a window's worth was fed
    stream.int8.onnx   the same, quantised
    pose.performance   how people perform a posture: what clips of an added gesture are drawn from

Its digest is the sha256 of the file. Nothing in it is ever unpickled.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_shared import archive
from embridge_shared.arrays import pack_array, unpack_array
from embridge_shared.errors import ConfigError, EmbridgeError, ModelError, Reason
from embridge_shared.manifest import LATER, SCHEMA, FileEntry, Gesture, Lineage, Manifest, Tolerances
from embridge_shared.onnx_check import check_model
from embridge_shared.performance import Performances
from embridge_shared.scoring import PrototypeScorer
from embridge_shared.wearer import WearerPrior

SUFFIX: Final = ".embridge"
MANIFEST: Final = "manifest.json"
ENCODER: Final = "encoder.onnx"
ENCODER_INT8: Final = "encoder.int8.onnx"
PROTOTYPES: Final = "prototypes.npy"
GOLDEN: Final = "golden.npz"
CARD: Final = "card.md"
WEARER: Final = "wearer.prior"
POSE: Final = "pose.onnx"
STREAM: Final = "stream.onnx"
STREAM_INT8: Final = "stream.int8.onnx"
STREAM_PATCH: Final = "patch"
STREAM_QUERIES: Final = "queries"
STREAM_STATE: Final = "state."
PERFORMANCE: Final = "pose.performance"
FILES: Final = (ENCODER, ENCODER_INT8, PROTOTYPES, GOLDEN, CARD)
OPTIONAL: Final = (WEARER, POSE, STREAM, STREAM_INT8, PERFORMANCE)

_NAME: Final = re.compile(r"[a-z0-9](-?[a-z0-9]){0,47}")
_UNIT: Final = 1e-3  # a normalised row's norm may differ from 1 by so much

__all__ = [
    "CARD",
    "ENCODER",
    "ENCODER_INT8",
    "FILES",
    "GOLDEN",
    "MANIFEST",
    "OPTIONAL",
    "PERFORMANCE",
    "POSE",
    "PROTOTYPES",
    "SCHEMA",
    "STREAM",
    "STREAM_INT8",
    "STREAM_PATCH",
    "STREAM_QUERIES",
    "STREAM_STATE",
    "SUFFIX",
    "WEARER",
    "Bundle",
    "FileEntry",
    "Gesture",
    "Golden",
    "Lineage",
    "Manifest",
    "Tolerances",
    "pack_array",
    "pack_golden",
    "parse_bundle",
    "read_bundle",
    "stream_next",
    "write_bundle",
]


@dataclass(frozen=True, slots=True)
class Golden:
    """Windows and what the encoder of full precision answers: float32 (K, T, C), (K, M, d), (K, G)."""

    windows: NDArray[np.float32]
    queries: NDArray[np.float32]
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified release.

    Attributes:
        manifest: What it is.
        digest: sha256 of the bundle file.
        size: Its length, bytes.
        files: Contents of every file but the manifest.
        prototypes: float32 (P, d).
        golden: What the encoder must answer.
    """

    manifest: Manifest
    digest: str
    size: int
    files: Mapping[str, bytes]
    prototypes: NDArray[np.float32]
    golden: Golden

    def scorer(self) -> PrototypeScorer:
        """The release's scoring rule over its prototypes."""
        return PrototypeScorer(self.prototypes, np.array(self.manifest.rows, np.int64), k=self.manifest.k)

    def wearer_prior(self) -> WearerPrior | None:
        """What training participants say of a new wearer; None where the release says nothing.

        Raises:
            ModelError: MALFORMED, or INCOMPATIBLE with the release's own channels and gestures.
        """
        if WEARER not in self.files:
            return None
        prior = WearerPrior.unpack(self.files[WEARER])
        if prior.channels != self.manifest.channels or prior.gestures != tuple(g.label for g in self.manifest.gestures):
            raise _refused("its prior of wearers is of other gestures or channels", Reason.INCOMPATIBLE)
        return prior

    def performances(self) -> Performances:
        """How people perform a posture; usual values where the release says nothing.

        Raises:
            ModelError: MALFORMED.
        """
        m = self.manifest
        if PERFORMANCE in self.files:
            return Performances.unpack(self.files[PERFORMANCE])
        return Performances.usual(
            rate_hz=m.preprocess.front_end.rate_hz,
            frames=m.window,
            prototypes=max(g.prototypes for g in m.gestures),
            seed=m.lineage.seed,
        )


def stream_next(state: str) -> str:
    """Output of a streaming graph that becomes its input `state`."""
    return f"next.{state.removeprefix(STREAM_STATE)}"


def pack_golden(golden: Golden) -> bytes:
    """Golden answers as .npz, the same bytes for the same arrays."""
    arrays = {"windows": golden.windows, "queries": golden.queries, "scores": golden.scores}
    return archive.pack({f"{name}.npy": pack_array(array) for name, array in arrays.items()})


def write_bundle(path: Path, manifest: Manifest, files: Mapping[str, bytes]) -> str:
    """Write a bundle, atomically; the same content gives the same file.

    Args:
        path: Where.
        manifest: What it is; its `files` are filled in.
        files: Contents of every name in `FILES`, and of any in `OPTIONAL`.

    Returns:
        The bundle's digest.

    Raises:
        ModelError: What `read_bundle` would refuse.
    """
    entries = {name: FileEntry(sha256=_sha256(data), size=len(data)) for name, data in sorted(files.items())}
    manifest = msgspec.structs.replace(manifest, files=entries)
    data = _pack(manifest, files)
    bundle = parse_bundle(data)
    archive.write_atomically(path, data)
    return bundle.digest


def read_bundle(path: Path, *, digest: str = "") -> Bundle:
    """Read and verify a bundle.

    Args:
        path: The file.
        digest: The sha256 it must have, where it is known from a trusted place.

    Raises:
        ModelError: NOT_FOUND, HASH_MISMATCH, TRUNCATED, FOREIGN, MALFORMED, or INCOMPATIBLE where another version
            of EMBridge is needed.
    """
    try:
        if path.stat().st_size > archive.MAX_BYTES:
            raise ModelError(f"{path.name} is larger than any release", reason=Reason.FOREIGN)
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"release {path} cannot be read: {error.strerror}", reason=Reason.NOT_FOUND) from error
    return parse_bundle(data, digest=digest)


def parse_bundle(data: bytes, *, digest: str = "") -> Bundle:
    """Verify a bundle in memory; see `read_bundle`.

    Raises:
        ModelError: As `read_bundle`.
    """
    actual = _sha256(data)
    try:
        members = archive.unpack(data)
        manifest = _manifest(members)
        files = _verified(manifest, members)
        prototypes, golden = _arrays(manifest, files)
    except ModelError:
        raise
    except EmbridgeError as error:
        reason = Reason.HASH_MISMATCH if error.reason is Reason.CHECKSUM else error.reason
        raise _refused(error.message, reason) from error
    if digest and actual != digest:
        raise _refused(f"it is {actual[:12]}, not {digest[:12]}", Reason.HASH_MISMATCH)
    return Bundle(manifest, actual, len(data), files, prototypes, golden)


def _refused(why: str, reason: Reason = Reason.MALFORMED) -> ModelError:
    return ModelError(f"the release is refused: {why}.", reason=reason, hint="Fetch it again; nothing was changed.")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _pack(manifest: Manifest, files: Mapping[str, bytes]) -> bytes:
    missing, extra = set(FILES) - set(files), set(files) - {*FILES, *OPTIONAL}
    if missing or extra:
        raise _refused(f"missing files {sorted(missing)}, unknown files {sorted(extra)}")
    encoded = _canonical(manifest)
    return archive.pack({MANIFEST: encoded, **{name: files[name] for name in _names(files)}})


def _names(files: Iterable[str]) -> tuple[str, ...]:
    """The files of a bundle in their order."""
    held = set(files)
    return (*FILES, *(name for name in OPTIONAL if name in held))


def _manifest(members: Mapping[str, bytes]) -> Manifest:
    if tuple(members) != (MANIFEST, *_names(members)):
        raise _refused(f"it holds {sorted(members)}")
    try:
        head = msgspec.json.decode(members[MANIFEST], type=_Head)
        if head.schema != SCHEMA:
            raise _refused(f"format {head.schema}, this version reads {SCHEMA}", Reason.INCOMPATIBLE)
        manifest = msgspec.json.decode(members[MANIFEST], type=Manifest, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ConfigError) as error:
        raise _refused(f"its manifest: {error}") from error
    if _canonical(manifest) != members[MANIFEST]:
        raise _refused("its manifest is not in canonical form")
    _check(manifest)
    return manifest


def _canonical(manifest: Manifest) -> bytes:
    """The one way to write a manifest; what later versions added is left out where a release says nothing of it."""
    body = msgspec.to_builtins(manifest, order="deterministic")
    for name in LATER:
        if body[name] is None:
            del body[name]
    return msgspec.json.encode(body)


class _Head(msgspec.Struct):
    schema: int


def _check(m: Manifest) -> None:
    counts = [0] * len(m.gestures)
    for row in m.rows:
        if not 0 <= row < len(counts):
            raise _refused(f"a prototype of gesture {row} among {len(counts)}")
        counts[row] += 1
    labels = [g.label for g in m.gestures]
    faults = {
        f"name {m.name!r}": not _NAME.fullmatch(m.name),
        f"version {m.version}": m.version < 1,
        "sizes below 1": min(m.window, m.channels, m.queries, m.dim, m.k) < 1,
        "no gestures, or one twice": not labels or len(set(labels)) < len(labels),
        "prototype counts that do not match its rows": counts != [g.prototypes for g in m.gestures] or 0 in counts,
        "thresholds of unknown gestures": not set(m.thresholds) <= set(labels),
        "decisions on unknown gestures": any(
            not set(d.accept) <= set(labels) for d in (m.decision, m.wearer_decision) if d is not None
        ),
        "a ring of another number of electrodes": m.ring is not None and len(m.ring.angles_deg) != m.channels,
        "a window of another length than its preprocessing": m.window != m.preprocess.window.length,
    }
    for fault, found in faults.items():
        if found:
            raise _refused(f"it has {fault}")


def _verified(manifest: Manifest, members: Mapping[str, bytes]) -> dict[str, bytes]:
    files = {name: members[name] for name in _names(members)}
    found = {name: FileEntry(sha256=_sha256(data), size=len(data)) for name, data in files.items()}
    if found != manifest.files:
        wrong = [name for name in files if manifest.files.get(name) != found[name]]
        raise _refused(f"{', '.join(wrong) or 'its list of files'} does not match", Reason.HASH_MISMATCH)
    for name, data in files.items():
        if name.endswith(".onnx"):
            check_model(data, f"the release's {name}")
    return files


def _arrays(m: Manifest, files: Mapping[str, bytes]) -> tuple[NDArray[np.float32], Golden]:
    prototypes = _floats(files[PROTOTYPES], (len(m.rows), m.dim))
    golden = archive.unpack(files[GOLDEN])
    if tuple(golden) != ("windows.npy", "queries.npy", "scores.npy"):
        raise _refused(f"golden answers hold {sorted(golden)}")
    answers = Golden(
        _floats(golden["windows.npy"], (-1, m.window, m.channels)),
        _floats(golden["queries.npy"], (-1, m.queries, m.dim)),
        _floats(golden["scores.npy"], (-1, len(m.gestures))),
    )
    if not 1 <= len(answers.windows) == len(answers.queries) == len(answers.scores):
        raise _refused("golden answers do not match their windows")
    for rows in (prototypes, answers.queries):
        if np.abs(np.linalg.norm(rows, axis=-1) - 1).max() > _UNIT:
            raise _refused("embeddings that are not normalised")
    return prototypes, answers


def _floats(data: bytes, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.asarray(unpack_array(data, shape), np.float32)
