"""The recipe of a candidate release, and what came of it: what a job is told and what it answers."""

from __future__ import annotations

import hashlib

import msgspec

from embridge_cloud.learn.config import HeadName, LearnConfig
from embridge_shared.errors import ConfigError
from embridge_shared.preprocess import PreprocessConfig, Ring

SUMMARY = "summary.json"
MODEL = "model"
CONTROL = "control"


class PairingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How windows are cut.

    Attributes:
        stride_s: Time between two windows of a repetition.
        tolerance_s: A pose sample further away than this is no pose of that moment.
        settle_s: Left out after a movement's onset: the way into the shape is not the shape.
    """

    stride_s: float = 0.2
    tolerance_s: float = 0.05
    settle_s: float = 0.0


class Continuation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a release takes over from the one it continues.

    Attributes:
        head: It ships again: another one would speak of another space.
        anchor: Digest of the pose space that stays; empty where none is learnt.
        distil: Weight of staying near the former release's embeddings, beside the losses; 0 for none.
    """

    head: HeadName
    anchor: str = ""
    distil: float = 0.0

    def __post_init__(self) -> None:
        if self.distil < 0:
            raise ConfigError(f"distil is {self.distil}", hint="A weight is 0 or more.")


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a realignment makes.

    Attributes:
        line: Line of releases.
        version: Of the release; it must grow within the line.
        parent: Digest of the release it continues, or empty.
        seen: Gestures whose EMG is learnt.
        unseen: Gestures of which only the pose is used, whatever EMG the store holds.
        unseen_from: Poses of unseen gestures: "templates" of the vocabulary, or "recordings" of training participants.
        held_out: Participants nothing is taken from.
        excluded: Ids of sessions nothing is taken from.
        validation: Participants that only watch the training.
        preprocess: From raw EMG to windows.
        ring: Where the electrodes that the windows are made of sit, so that envelopes of other bands can be read off
            there; None takes bands of that number of channels alone.
        pairing: How windows are cut.
        learn: The training.
        prototypes: A gesture.
        k: Prototypes that count in a score.
        seed: Of everything.
        heads: Candidates for the head that ships, the simplest first; more than one are judged on gestures and people
            of the training side, held back in turn.
        trials: Partings they are judged on.
        controls: Controls with broken pairs to train beside it.
        generation: Of the pose space it speaks in.
        continues: What it takes over from its parent; None makes everything anew.
        replay: Windows of sessions that its parent has learnt from already, evenly over participant, gesture and
            session; 0 takes all of them.
    """

    line: str = "embridge"
    version: int = 1
    parent: str = ""
    seen: tuple[str, ...]
    unseen: tuple[str, ...] = ()
    unseen_from: str = "templates"
    held_out: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    preprocess: PreprocessConfig
    ring: Ring | None = None
    pairing: PairingConfig = PairingConfig()
    learn: LearnConfig
    prototypes: int = 24
    k: int = 8
    seed: int = 0
    heads: tuple[HeadName, ...] = ("regression", "closed", "cpep", "embridge")
    trials: int = 2
    controls: int = 1
    generation: int = 1
    continues: Continuation | None = None
    replay: int = 0

    def __post_init__(self) -> None:
        if len(self.seen) < 2 or set(self.seen) & set(self.unseen):
            raise ConfigError("a realignment needs two or more seen gestures, none of them also unseen")
        if not self.heads or len(set(self.heads)) < len(self.heads):
            raise ConfigError("a realignment needs a head, and each candidate once")
        if self.replay < 0 or self.generation < 1:
            raise ConfigError(f"a recipe replays {self.replay} windows in generation {self.generation}")
        if self.unseen_from not in ("templates", "recordings"):
            raise ConfigError(f"unseen_from is {self.unseen_from!r}", hint='Use "templates" or "recordings".')
        window, signal = self.preprocess.window, self.learn.emg
        if self.ring is not None and len(self.ring.angles_deg) != signal.channels:
            raise ConfigError(f"a ring of {len(self.ring.angles_deg)} is not one of {signal.channels} channels")
        if (window.length, window.patch, self.preprocess.front_end.rate_hz) != (
            signal.window,
            signal.patch,
            signal.rate_hz,
        ):
            raise ConfigError(
                f"preprocessing cuts windows of {window.length} in patches of {window.patch}, "
                f"learning expects {signal.window} in {signal.patch}"
            )

    def digest(self) -> str:
        """sha256 of the canonical form, hex."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a realignment made.

    Attributes:
        release: Name of the release.
        digest: sha256 of its bundle.
        bundle: File name of the bundle.
        snapshot: sha256 over the content hashes of the sessions it used.
        sessions: Their ids.
        participants: Training participants.
        windows: Training windows.
        head: What it speaks with.
        head_reason: Why, in a sentence.
        metrics: Measured figures by name.
        history: Loss curves, one value a step.
        anchor: Digest of the pose space it speaks in; empty where none is learnt.
        warm: Digest of the release whose weights the training began with; empty where it began anew.
        new_sessions: Of the sessions, those its parent has not learnt from.
        left_out: Why sessions of the snapshot were not used after all, by id.
    """

    release: str
    digest: str
    bundle: str
    snapshot: str
    sessions: tuple[str, ...]
    participants: tuple[str, ...]
    windows: int
    head: str
    head_reason: str
    metrics: dict[str, float]
    history: dict[str, list[float]]
    anchor: str = ""
    warm: str = ""
    new_sessions: tuple[str, ...] = ()
    left_out: dict[str, str] = {}
