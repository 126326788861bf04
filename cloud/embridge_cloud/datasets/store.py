"""The project's own store as a data set: sealed sessions of a cloud, a recording each unless much was lost."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from embridge_cloud import clockfit
from embridge_cloud.datasets.base import (
    EmgKind,
    Facts,
    PairedRecording,
    PoseKind,
    Progress,
    Segment,
    Split,
    Task,
    silent,
)
from embridge_cloud.pairing import nearest
from embridge_cloud.recipe import PairingConfig
from embridge_cloud.store.consent import Scope, read_consents
from embridge_cloud.store.sealed import Catalogue, Samples, SealedSession
from embridge_shared.errors import ConfigError, DataError, OperatorError, Reason
from embridge_shared.hand import ik_failures
from embridge_shared.preprocess import FrontEndConfig
from embridge_shared.session import Purpose, Repetition, RepetitionStatus
from embridge_shared.signal import Modality, StreamSpec

if TYPE_CHECKING:
    from embridge_cloud.datasets.check import Report

logger = logging.getLogger(__name__)

_SEALED: Final = "sealed"


class StoreDataset:
    """Sealed sessions with EMG.

    Args:
        root: A folder of sealed sessions, or the state folder of a cloud that holds one.

    Raises:
        DataError: No session with EMG is sealed there.
    """

    name = "store"

    def __init__(self, root: Path) -> None:
        self.root = root
        found = [s for s in catalogue(root).sessions() if emg_stream(s) is not None]
        consents = read_consents(catalogue(root).directory)
        refused = {s.id: why for s in found if (why := consents.refusal(s.session, Scope.TRAIN, named=False))}
        for session, why in refused.items():
            logger.warning("session %s is left out: %s", session, why)
        self.sessions = tuple(s for s in found if s.id not in refused)
        if refused and not self.sessions:
            raise DataError(
                f"nobody in {root} agreed to be learnt from",
                reason=Reason.CONSENT,
                hint="`embridge participant consent` records what they agree to.",
            )
        if not self.sessions:
            raise DataError(
                f"no session with EMG is sealed in {root}",
                reason=Reason.NOT_FOUND,
                hint="Sealed sessions lie in STATE_DIR/sealed; `embridge session list` shows them.",
            )

    @property
    def facts(self) -> Facts:
        """What it is; rate and channels are those of the oldest session."""
        spec = emg_stream(self.sessions[0])
        pose = pose_stream(self.sessions[0])
        if spec is None:
            raise DataError(f"session {self.sessions[0].id} has no EMG")
        return Facts(
            title="Sealed sessions",
            licence="yours: what the participants consented to",
            citation="",
            url="",
            emg_rate_hz=spec.rate_hz,
            channels=spec.n_channels,
            emg_kind=_emg_kind(spec),
            pose_kind=None if pose is None else _pose_kind(pose),
            band_limit_hz=spec.rate_hz / 2,
            pose="none" if pose is None else f"{pose.n_channels} × {pose.rate_hz:g} Hz, {pose.unit}",
        )

    def participants(self) -> tuple[str, ...]:
        """In order of their first session."""
        return tuple(dict.fromkeys(s.session.participant.id for s in self.sessions))

    def gestures(self) -> tuple[str, ...]:
        """Of accepted repetitions, sorted."""
        return tuple(sorted({r.gesture for s in self.sessions for r in accepted(s)}))

    def recordings(self, participant: str) -> Iterator[PairedRecording]:
        """Stretches without gaps of a participant's sessions, oldest first.

        Raises:
            OperatorError: There is no such participant.
            DataError: A session is damaged.
        """
        chosen = [s for s in self.sessions if s.session.participant.id == participant]
        if not chosen:
            raise OperatorError(
                f"{self.root} holds no participant {participant!r}",
                reason=Reason.NOT_FOUND,
                hint=f"It holds {', '.join(self.participants())}.",
            )
        for sealed in chosen:
            yield from stretched(sealed)

    def splits(self) -> tuple[Split, ...]:
        """By what sessions were recorded for."""
        purposes: dict[str, set[str]] = {}
        for s in self.sessions:
            purposes.setdefault(s.session.purpose.value, set()).add(str(s.id))
        return tuple(Split(p.value, sessions=frozenset(purposes[p])) for p in Purpose if p in purposes)

    def tasks(self) -> tuple[Task, ...]:
        """None: what is unseen is a recipe's to say."""
        return ()


def catalogue(root: Path) -> Catalogue:
    """The sealed sessions of a folder, or of the cloud's state folder."""
    return Catalogue(root / _SEALED if (root / _SEALED).is_dir() else root)


def emg_stream(sealed: SealedSession) -> StreamSpec | None:
    """A session's EMG stream."""
    return next((s for s in sealed.session.streams if s.modality is Modality.EMG), None)


def pose_stream(sealed: SealedSession) -> StreamSpec | None:
    """A session's pose or glove stream."""
    return next((s for s in sealed.session.streams if s.modality in (Modality.POSE, Modality.GLOVE)), None)


def accepted(sealed: SealedSession) -> tuple[Repetition, ...]:
    """Repetitions that count."""
    return tuple(r for r in sealed.repetitions() if r.status is RepetitionStatus.ACCEPTED)


def stretched(sealed: SealedSession) -> Iterator[PairedRecording]:
    """A session as recordings: a new one after each loss that a front end would not bridge.

    The pose is put on the EMG's clock: at each nominal moment the sample nearest in time, none where none is near.

    Raises:
        DataError: The session has no EMG or is damaged.
    """
    spec, pose_spec = emg_stream(sealed), pose_stream(sealed)
    if spec is None:
        raise DataError(f"session {sealed.id} has no EMG", reason=Reason.TOO_LITTLE_DATA)
    emg = _refitted(sealed, spec.name)
    pose = None if pose_spec is None else _refitted(sealed, pose_spec.name)
    repetitions, begun_ns = sealed.repetitions(), sealed.session.started_ns
    bridged = FrontEndConfig().bridge_s * spec.rate_hz
    cuts = np.flatnonzero(np.diff(emg.index) - 1 > bridged) + 1
    for rows in np.split(np.arange(len(emg.index)), cuts):
        if not len(rows):
            continue
        values, t_ns, held = _bridged(emg, rows)
        found = None if pose is None or pose_spec is None else _on_emg_clock(pose, pose_spec, t_ns)
        yield PairedRecording(
            participant=sealed.session.participant.id,
            session=str(sealed.id),
            emg=np.asarray(values * spec.scale, np.float32),
            emg_rate_hz=spec.rate_hz,
            emg_kind=_emg_kind(spec),
            segments=_segments(repetitions, t_ns),
            pose=None if found is None else found[0],
            pose_rate_hz=0.0 if pose_spec is None else pose_spec.rate_hz,
            pose_kind=PoseKind.JOINTS if pose_spec is None else _pose_kind(pose_spec),
            pose_valid=None if found is None or found[1].all() else found[1],
            emg_valid=None if not held.any() else ~held,
            donning=str(sealed.id),
            side=sealed.session.placement.side.value,
            stage=sealed.session.protocol,
            start_s=(int(t_ns[0]) - begun_ns) * 1e-9,
        )


def _refitted(sealed: SealedSession, name: str) -> Samples:
    """A stream on its clock as the whole session tells it."""
    samples = sealed.samples(name)
    return replace(samples, t_ns=clockfit.times_ns(sealed, name, samples))


def _bridged(emg: Samples, rows: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.bool_]]:
    """Samples of a stretch with the last one held over short losses, their time, and which are held."""
    index = emg.index[rows]
    every = np.arange(index[0], index[-1] + 1)
    row = rows[np.searchsorted(index, every, side="right") - 1]
    t_ns = emg.t_ns[rows[0]] + np.interp(every, index, (emg.t_ns[rows] - emg.t_ns[rows[0]]).astype(np.float64))
    return emg.values[row], t_ns.astype(np.int64), emg.index[row] != every


def _segments(repetitions: list[Repetition], t_ns: NDArray[np.int64]) -> tuple[Segment, ...]:
    """Repetitions in samples; a rejected one belongs to no trial, but is no rest either."""
    found = []
    for r in sorted(repetitions, key=lambda r: r.start_ns):
        a, b = (int(i) for i in np.searchsorted(t_ns, [r.start_ns, r.end_ns]))
        if a < b:
            trial = r.repetition if r.status is RepetitionStatus.ACCEPTED else 0
            found.append(Segment(r.gesture, trial, a, b))
    return tuple(found)


def _on_emg_clock(
    pose: Samples, spec: StreamSpec, t_ns: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Pose at its nominal rate from the first EMG sample on, (n, J), and whether there was one (n,)."""
    n = max(1, round((int(t_ns[-1]) - int(t_ns[0])) * 1e-9 * spec.rate_hz) + 1)
    moments = np.linspace(t_ns[0], t_ns[-1], n).astype(np.int64)
    scaled = (pose.values.astype(np.float64) * spec.scale).astype(np.float32)
    values = nearest(moments, pose.t_ns, scaled, PairingConfig().tolerance_s)
    lacking = np.isnan(values).any(axis=1)
    if spec.modality is Modality.POSE:
        lacking = lacking | ik_failures(values)
    values[lacking] = 0
    return values, np.asarray(~lacking)


def _emg_kind(spec: StreamSpec) -> EmgKind:
    return EmgKind.ENVELOPE if spec.device.endswith("envelope") else EmgKind.RAW


def _pose_kind(spec: StreamSpec) -> PoseKind:
    return PoseKind.GLOVE if spec.modality is Modality.GLOVE else PoseKind.JOINTS


class StorePlugin:
    """The plugin."""

    name = "store"
    title = "Sealed sessions of an EMBridge cloud"
    variants: tuple[str, ...] = ()

    def recognises(self, folder: Path) -> bool:
        """True where a session is sealed."""
        return bool(catalogue(folder).ids())

    def open(self, folder: Path, variant: str = "") -> StoreDataset:
        """Open a folder.

        Raises:
            DataError: No session is sealed there.
            ConfigError: There are no variants.
        """
        if variant:
            raise ConfigError(f"a store has no variant {variant!r}", hint="Write store:PATH.")
        return StoreDataset(folder)

    def check(self, folder: Path, variant: str = "", progress: Progress = silent) -> Report:
        """Look through everything; every digest is computed anew."""
        from embridge_cloud.datasets.check import Report

        report = Report()
        sealed = catalogue(folder)
        sessions = sealed.ids()
        if not sessions:
            report.error("", f"no session is sealed in {folder}", "Sealed sessions lie in STATE_DIR/sealed.")
        for done, session in enumerate(sessions):
            progress(done, len(sessions), str(session))
            try:
                found = sealed.get(session)
                found.verify()
                if emg_stream(found) is None:
                    report.warn(str(session), "it has no EMG", "It is left out.")
                    continue
                for recording in stretched(found):
                    report.add(recording)
            except DataError as error:
                report.error(str(session), error.message, error.hint)
            report.files += 1
        if report.files:
            report.spec = f"store:{folder}"
        try:
            report.facts = StoreDataset(folder).facts
        except DataError as error:
            report.error("", error.message, error.hint)
        return report
