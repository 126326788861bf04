"""The data of a realignment: sealed sessions paired, cut and parted into training, validation and unseen poses."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from embridge_cloud.frozen import Frozen, digest_of, freeze, still_there
from embridge_cloud.learn.data import Windows, concatenate
from embridge_cloud.learn.optim import Progress, ProgressCallback
from embridge_cloud.pairing import cut, pair, wearer_scale
from embridge_cloud.recipe import Recipe
from embridge_cloud.store.consent import read_consents
from embridge_cloud.store.sealed import Catalogue
from embridge_cloud.traces import Stretch, stretches
from embridge_shared.errors import DataError, Reason

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The data of a realignment.

    Attributes:
        train: Paired windows of the training participants, seen gestures.
        validation: Of the validation participants, seen gestures; None without any.
        unseen_poses: Pose windows of the unseen gestures by training participants; None when templates serve.
        digest: sha256 over the sessions' content hashes.
        sessions: Ids.
        left_out: Why sessions that were to be trained on were not, by id.
        stretches: The whole recordings, without the moments of any but the seen gestures.
    """

    train: Windows
    validation: Windows | None
    unseen_poses: Windows | None
    digest: str
    sessions: tuple[str, ...]
    stretches: tuple[Stretch, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    def without(self, people: Collection[str]) -> Snapshot:
        """The same training without some of its participants; what it is tested on is left out.

        Raises:
            DataError: TOO_LITTLE_DATA: nobody is left.
        """
        kept = sorted(self.train.present("participants") - set(people))
        if not kept:
            raise DataError("nobody is left to train on", reason=Reason.TOO_LITTLE_DATA)
        poses = self.unseen_poses
        return replace(
            self,
            train=self.train.of_participants(kept),
            validation=None,
            unseen_poses=None if poses is None else poses.of_participants(kept),
            stretches=(),
        )


def take_snapshot(
    catalogue: Catalogue, config: Recipe, progress: ProgressCallback, *, frozen: Frozen | None = None
) -> Snapshot:
    """Pair and cut the sessions that training may use; whose participant did not agree to it is left out, with a word.

    Args:
        catalogue: Sealed sessions.
        config: What to make.
        progress: Told after every session.
        frozen: The sessions to use, no others; by default all that may be used now.

    Raises:
        DataError: There is no paired window of a training participant, or a session is not what it was.
    """
    frozen = frozen or freeze(catalogue, config, now_ns=0)
    usable, left_out = still_there(catalogue, frozen, read_consents(catalogue.directory))
    for session, why in left_out.items():
        logger.warning("session %s is left out: %s", session, why)
    train_parts: list[Windows] = []
    validation_parts: list[Windows] = []
    unseen_parts: list[Windows] = []
    whole: list[Stretch] = []
    for done, sealed in enumerate(usable, 1):
        paired = pair(sealed, config.preprocess, config.pairing, hidden=config.unseen, ring=config.ring)
        scale = wearer_scale(paired, config.preprocess, hidden=config.unseen)
        seen = cut(paired, scale, config.preprocess, config.pairing, config.seen)
        if seen is not None and seen.pose is not None:
            (validation_parts if paired.participant in config.validation else train_parts).append(seen)
        whole += stretches(paired, sealed.repetitions(), scale, config.preprocess, config.seen)
        if config.unseen_from == "recordings" and paired.participant not in config.validation:
            poses = cut(paired, scale, config.preprocess, config.pairing, config.unseen)
            if poses is not None and poses.pose is not None:
                unseen_parts.append(poses.without_emg())
        progress(Progress("pairing", done, len(usable), 0.0))
    if not train_parts:
        raise DataError(
            "no sealed training session holds EMG paired with pose of the gestures to learn",
            reason=Reason.TOO_LITTLE_DATA,
            hint='Record sessions of purpose "training" with a pose source, and let them be sealed.',
        )
    ids = tuple(str(s.id) for s in usable)
    return Snapshot(
        train=concatenate(train_parts),
        validation=concatenate(validation_parts) if validation_parts else None,
        unseen_poses=concatenate(unseen_parts) if unseen_parts else None,
        digest=digest_of(s.content_hash for s in usable),
        sessions=ids,
        stretches=tuple(whole),
        left_out=left_out,
    )
