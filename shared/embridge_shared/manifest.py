"""What a release says about itself."""

from __future__ import annotations

import hashlib
from typing import Final, Literal

import msgspec

from embridge_shared.decision import DecisionConfig
from embridge_shared.preprocess import PoseConfig, PreprocessConfig, Ring, config_hash

SCHEMA: Final = 2
LATER: Final = ("decision", "wearer_decision", "ring", "pose_space")
"""Fields of a manifest that older releases lack; a release that leaves them None is written as those were."""


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Gesture(_Part, frozen=True, kw_only=True):
    """A gesture a release can decode.

    Attributes:
        label: In the vocabulary.
        title: For people.
        emg_seen: Its EMG was in the training; False for a gesture defined by its hand pose alone.
        prototypes: Number of its prototypes.
        provenance: Where they come from, as in "pose of 15 participants".
    """

    label: str
    title: str
    emg_seen: bool
    prototypes: int
    provenance: str = ""


class Lineage(_Part, frozen=True, kw_only=True):
    """What a release was made of.

    Attributes:
        snapshot: Hash of the data snapshot.
        sessions: Ids of the sessions in it.
        participants: Codes of the participants in it, see `lineage_code`: a release is handed on, names are not.
        seed: Seed of the training.
        config: Hash of the training's configuration.
    """

    snapshot: str
    sessions: tuple[str, ...] = ()
    participants: tuple[str, ...] = ()
    seed: int = 0
    config: str = ""


class PoseSpace(_Part, frozen=True, kw_only=True):
    """The learnt space of hand poses that a release speaks in: what its line holds on to from version to version.

    Attributes:
        digest: sha256 over pose encoder, centring vector, communities and the scale of joints.
        generation: Grows with every new one; within a generation the digest stays.
    """

    digest: str
    generation: int = 1


def lineage_code(participant: str, snapshot: str) -> str:
    """What a release made of the data `snapshot` calls a participant; slow to guess a name from."""
    return hashlib.scrypt(participant.encode(), salt=snapshot.encode(), n=1 << 12, r=8, p=1, dklen=8).hex()


def in_lineage(lineage: Lineage, participant: str) -> bool:
    """Whether a release was made of a participant's data."""
    return bool({participant, lineage_code(participant, lineage.snapshot)} & set(lineage.participants))


class Tolerances(_Part, frozen=True, kw_only=True):
    """How far an edge may be from the golden answers.

    Attributes:
        cosine: Least cosine of a query, full precision.
        score: Largest difference of a score, full precision.
        int8_cosine: Least cosine of a query, quantised.
        int8_score: Largest difference of a score, quantised.
    """

    cosine: float = 0.9999
    score: float = 1e-3
    int8_cosine: float = 0.98
    int8_score: float = 0.1


class FileEntry(_Part, frozen=True, kw_only=True):
    """A file of the bundle."""

    sha256: str
    size: int


class Manifest(_Part, frozen=True, kw_only=True):
    """What a release is.

    Attributes:
        schema: Version of this format.
        name: Line of releases, lower-case letters, digits and dashes.
        version: Grows within a line.
        created_ns: Unix time, ns.
        code: Version of the code that made it.
        min_agent: Oldest agent that can run it, as in "0.1.0".
        parent: Digest of the release it continues, or empty.
        preprocess: From raw EMG to the encoder's input.
        pose: From hand pose to the pose encoder's input, when the prototypes were made with one.
        window: Features in a window (T).
        channels: EMG channels (C).
        ring: Where their electrodes sit, so that envelopes of other bands are read off there; None takes bands of as
            many channels alone.
        head: What maps EMG into the pose space, as in "embridge", "cpep", "closed" or "regression".
        head_reason: Why this one, in a sentence.
        queries: Embeddings of a window (M).
        dim: Their size (d).
        gestures: In the order of the scores (G).
        rows: Gesture index of each prototype (P,).
        rule: "top-k-mean": the mean of a gesture's k best prototypes, each at its best over the queries.
        k: Prototypes that count.
        thresholds: Least score at which a gesture, by label, is taken for known; absent for none.
        decision: How the scores become decisions; None where nobody fitted it.
        wearer_decision: The same for a model made the wearer's own, see `Bundle.wearer_prior`.
        lineage: What it was made of.
        pose_space: The pose space it speaks in; None where none is learnt, as with a closed form.
        metrics: What was measured, by name.
        tolerances: Of the self-test.
        files: sha256 and size of every other file; filled in by `write_bundle`.
    """

    schema: int = SCHEMA
    name: str
    version: int
    created_ns: int
    code: str
    min_agent: str = "0.1.0"
    parent: str = ""
    preprocess: PreprocessConfig
    pose: PoseConfig | None = None
    window: int
    channels: int
    ring: Ring | None = None
    head: str = "embridge"
    head_reason: str = ""
    queries: int
    dim: int
    gestures: tuple[Gesture, ...]
    rows: tuple[int, ...]
    rule: Literal["top-k-mean"] = "top-k-mean"
    k: int = 10
    thresholds: dict[str, float] = {}
    decision: DecisionConfig | None = None
    wearer_decision: DecisionConfig | None = None
    lineage: Lineage
    pose_space: PoseSpace | None = None
    metrics: dict[str, float] = {}
    tolerances: Tolerances = Tolerances()
    files: dict[str, FileEntry] = {}

    @property
    def release(self) -> str:
        """Its name among all releases, as in "embridge-3"."""
        return f"{self.name}-{self.version}"


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """A release in the registry; signed with its target.

    Attributes:
        name: Its name, as in "embridge-3"; also its target path.
        line: Line of releases, as in "embridge".
        version: Within the line.
        digest: sha256 of the bundle.
        size: Bytes.
        min_agent: Oldest agent that can run it.
        preprocess: Hash of its preprocessing.
        recalled: Why it was withdrawn; empty while it was not.
    """

    name: str
    line: str
    version: int
    digest: str
    size: int
    min_agent: str
    preprocess: str
    recalled: str = ""

    @classmethod
    def of(cls, manifest: Manifest, digest: str, size: int) -> Published:
        """What the registry says of a bundle."""
        return cls(
            name=manifest.release,
            line=manifest.name,
            version=manifest.version,
            digest=digest,
            size=size,
            min_agent=manifest.min_agent,
            preprocess=config_hash(manifest.preprocess),
        )
