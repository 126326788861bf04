"""The panel: held-out people's sealed sessions, as a decoder meets them, proved to be strangers to both contenders."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec
import numpy as np

from embridge_cloud.learn.leakage import check_participants, check_sessions
from embridge_cloud.learn.onsets import REST
from embridge_cloud.pairing import PairedSession, pair, wearer_scale
from embridge_cloud.recipe import PairingConfig
from embridge_cloud.store.consent import Scope, read_consents
from embridge_cloud.store.sealed import Catalogue, SealedSession
from embridge_cloud.traces import Stretch, stretches
from embridge_shared.errors import DataError, LeakageError
from embridge_shared.manifest import Manifest, in_lineage
from embridge_shared.preprocess import PreprocessConfig, Ring, WearerScale, config_hash
from embridge_shared.session import Purpose, Repetition, RepetitionStatus

logger = logging.getLogger(__name__)

STRANGE: Final = "?"
"""Gesture of a repetition that neither contender knows: whatever is said there is false."""
_JUDGED: Final = (Purpose.EVALUATION, Purpose.TRAINING)


@dataclass(frozen=True, slots=True)
class Taken:
    """What a release takes.

    Attributes:
        preprocess: From raw EMG to windows.
        ring: Where the electrodes of its windows sit; None for bands of as many channels alone.
        labels: Gestures in the order of its scores.
    """

    preprocess: PreprocessConfig
    ring: Ring | None
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """People nothing was learnt from.

    Attributes:
        people: Pseudonyms, in order.
        sessions: What they are judged on, in order of people and time.
        calibrations: Where each person's scale comes from, by person; absent where none was recorded.
        unseen: Gestures that a scale must not be fitted on.
        first_ns: Unix time each was first recorded, ns, by person.
    """

    people: tuple[str, ...]
    sessions: tuple[SealedSession, ...]
    calibrations: dict[str, SealedSession]
    unseen: tuple[str, ...]
    first_ns: dict[str, int]
    _cut: dict[str, tuple[Stretch, ...]] = field(default_factory=dict)

    def stretches(self, taken: Taken, known: Collection[str]) -> tuple[Stretch, ...]:
        """The recordings cut as a release takes them; repetitions of what it does not know are left out.

        Args:
            taken: What the release takes.
            known: Gestures of any contender: what none knows counts as rest with a moving hand, where a decoder is
                silent if it is good.

        Raises:
            DataError: A session is damaged.
            ModelError: The release cannot take a band.
        """
        key = repr((config_hash(taken.preprocess), taken.ring, taken.labels, sorted(known)))
        if key not in self._cut:
            self._cut[key] = tuple(s for sealed in self.sessions for s in self._of(sealed, taken, known))
        return self._cut[key]

    def _of(self, sealed: SealedSession, taken: Taken, known: Collection[str]) -> list[Stretch]:
        paired = pair(sealed, taken.preprocess, PairingConfig(), hidden=self.unseen, ring=taken.ring)
        repetitions = [_strange(r, known) for r in sealed.repetitions()]
        scale = self._scale(sealed, paired, taken)
        cut = stretches(paired, repetitions, scale, taken.preprocess, (*taken.labels, STRANGE))
        return [_finished(s, len(taken.labels), paired) for s in cut]

    def _scale(self, sealed: SealedSession, paired: PairedSession, taken: Taken) -> WearerScale:
        """The wearer's, from a calibration session; else from the session itself, unlabelled and without the unseen."""
        own = self.calibrations.get(sealed.session.participant.id)
        if own is not None:
            paired = pair(own, taken.preprocess, PairingConfig(), hidden=self.unseen, ring=taken.ring)
        return wearer_scale(paired, taken.preprocess, hidden=self.unseen)


def _strange(repetition: Repetition, known: Collection[str]) -> Repetition:
    if repetition.gesture in known or repetition.status is not RepetitionStatus.ACCEPTED:
        return repetition
    return msgspec.structs.replace(repetition, gesture=STRANGE)


def _finished(stretch: Stretch, strange: int, paired: PairedSession) -> Stretch:
    """Strange gestures as rest, and windows of the release's electrodes."""
    truth = np.where(stretch.truth == strange, REST, stretch.truth)
    features = stretch.features if paired.montage is None else paired.montage.apply(stretch.features)
    return replace(stretch, truth=truth, features=features)


def empanel(store: Catalogue, held_out: Sequence[str], unseen: Sequence[str], *, decoded: bool = True) -> Panel:
    """Everybody of the held-out who was recorded and agreed to it.

    Args:
        store: Sealed sessions.
        held_out: Participants nothing is taken from.
        unseen: Gestures that a scale must not be fitted on.
        decoded: Judge by recordings that a release decoded meanwhile too.
    """
    consents = read_consents(store.directory)
    wanted = set(held_out)
    judged: list[SealedSession] = []
    calibrations: dict[str, SealedSession] = {}
    for sealed in store.sessions():
        person, purpose = sealed.session.participant.id, sealed.session.purpose
        if person not in wanted:
            continue
        if why := consents.refusal(sealed.session, Scope.TRAIN, named=False):
            logger.warning("session %s does not judge: %s", sealed.id, why)
        elif purpose is Purpose.CALIBRATION:
            calibrations[person] = sealed  # the newest: sessions come oldest first
        elif not decoded and sealed.session.release:
            continue
        elif purpose in _JUDGED and any(r.status is RepetitionStatus.ACCEPTED for r in sealed.repetitions()):
            judged.append(sealed)
    people = tuple(sorted({s.session.participant.id for s in judged}))
    first = {p: min(s.session.started_ns for s in judged if s.session.participant.id == p) for p in people}
    ordered = sorted(judged, key=lambda s: (s.session.participant.id, s.session.started_ns, s.id))
    return Panel(people, tuple(ordered), calibrations, tuple(unseen), first)


def prove_strangers(panel: Panel, manifests: Iterable[Manifest], store: Catalogue) -> None:
    """Nobody and nothing of the panel went into a contender: neither into its training nor into its choices.

    Raises:
        LeakageError: Somebody did, or a session.
    """
    owners = {str(s.id): s.session.participant.id for s in store.sessions()}
    for manifest in manifests:
        what = f"panel that judges {manifest.release}"
        used = manifest.lineage.sessions
        check_sessions(used, (str(s.id) for s in panel.sessions), what=what)
        check_participants((owners[s] for s in used if s in owners), panel.people, what=what)
        # Sessions that were erased since have no owner any more; the codes remain.
        if any(in_lineage(manifest.lineage, person) for person in panel.people):
            raise LeakageError(
                f"a participant of the {what} is in its lineage.",
                hint="Judge it on people who are in `held_out` of every recipe of the line.",
            )


def eras(panel: Panel, boundaries_ns: Sequence[int]) -> dict[str, tuple[str, ...]]:
    """People by the release that was in force when they were first recorded, the oldest group first.

    Args:
        panel: The people.
        boundaries_ns: When each release of the line was made, Unix time, ns.
    """
    ordered = sorted(boundaries_ns)
    found: dict[int, list[str]] = {}
    for person in panel.people:
        found.setdefault(int(np.searchsorted(ordered, panel.first_ns[person])), []).append(person)
    return {f"before release {at + 1}": tuple(people) for at, people in sorted(found.items()) if at < len(ordered)}


def named_groups(groups: dict[str, tuple[str, ...]], panel: Panel) -> dict[str, tuple[str, ...]]:
    """Groups of a policy, of the people who are there.

    Raises:
        DataError: A group has nobody who is held out and recorded.
    """
    out = {name: tuple(p for p in panel.people if p in people) for name, people in groups.items()}
    if empty := [name for name, people in out.items() if not people]:
        raise DataError(
            f"nobody of the group {empty[0]!r} is held out and recorded.",
            hint="Correct `groups` of the gate's policy.",
        )
    return out
