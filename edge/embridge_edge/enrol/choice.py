"""Which model serves a wearer: checked on their own repetitions, so that an update never makes it worse unsaid.

Candidates are the new release's prior with the wearer's repetitions, the prior that served until now, and the
release's own scores. Each decides every stored repetition without having been shown it; the best one serves, and the
newest of equals.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_edge.enrol.embed import scales_of, windows_of
from embridge_edge.enrol.known import judge
from embridge_edge.enrol.repetition import StoredRepetition, same_band
from embridge_edge.enrol.store import WearerStore
from embridge_edge.enrol.view import Release, WearerView
from embridge_shared.archive import write_atomically
from embridge_shared.errors import EmbridgeError
from embridge_shared.preprocess import PreprocessConfig
from embridge_shared.wearer import WearerPrior

FILE: Final = "choice.json"
_PRIORS: Final = "priors"
_MODE: Final = 0o600
_WINDOWS: Final = 6
"""Of each repetition, that the release's scores are asked for."""

Baseline = Callable[[NDArray[np.float32]], Sequence[str]]
"""Scaled windows (N, T, C) to the label that the release's own scores decide for each."""


class Serves(StrEnum):
    """What decides."""

    WEARER = "wearer"  # the wearer's model on this release's prior
    KEPT = "kept"  # the wearer's model on an earlier release's prior
    RELEASE = "release"  # the release's own scores


class Choice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What serves a wearer, and why.

    Attributes:
        serves: What decides.
        release: Release that runs.
        digest: Of its bundle.
        prior: sha256 of the prior in use; empty where none is.
        prior_of: Release that the prior is from.
        preprocess: What that prior's features are made by.
        head: Id of the last entry of the journal it rests on.
        accuracy: Of what serves, leaving one repetition out; None where there are none.
        rivals: Of all candidates, by name.
        said: In words.
    """

    serves: Serves
    release: str
    digest: str
    prior: str = ""
    prior_of: str = ""
    preprocess: PreprocessConfig | None = None
    head: str = ""
    accuracy: float | None = None
    rivals: dict[str, float] = {}
    said: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """A choice, and the view that a decoder is made of; None where the release's own scores decide."""

    choice: Choice
    view: WearerView | None


def served(store: WearerStore, view: WearerView, *, baseline: Baseline | None = None) -> Served:
    """What serves a wearer under the release that runs; asked anew when release or repetitions have changed.

    Args:
        store: The wearer's.
        view: The wearer under the release that runs.
        baseline: What the release's own scores decide; without it they are no candidate.

    Raises:
        DataError: Something stored is damaged.
    """
    before, head = load(store), _head(store)
    if before is not None and (before.digest, before.head) == (view.release.digest, head):
        kept = _kept(store, view, before)
        if before.serves is Serves.WEARER:
            return Served(before, view)
        if before.serves is Serves.RELEASE or kept is not None:
            return Served(before, kept)
    found = _decided(store, view, before, baseline)
    if found.view is not None and found.choice.prior:
        _keep_prior(store, found.view.release.prior)
    choice = msgspec.structs.replace(found.choice, head=head)
    write_atomically(store.folder / FILE, msgspec.json.format(msgspec.json.encode(choice)), mode=_MODE)
    return Served(choice, found.view)


def load(store: WearerStore) -> Choice | None:
    """The last choice, or None; one that cannot be read is made anew."""
    try:
        return msgspec.json.decode((store.folder / FILE).read_bytes(), type=Choice, strict=True)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, EmbridgeError):
        return None


def _decided(store: WearerStore, view: WearerView, before: Choice | None, baseline: Baseline | None) -> Served:
    release = view.release
    plain = Choice(serves=Serves.RELEASE, release=release.name, digest=release.digest)
    if not view.own or release.prior is None:
        said = "" if release.prior is not None or not view.own else f"{release.name} has no prior of wearers."
        return Served(msgspec.structs.replace(plain, said=said), None)
    rivals = {Serves.WEARER.value: _accuracy(view)}
    old = _kept(store, view, before)
    if old is not None:
        rivals[Serves.KEPT.value] = _accuracy(old)
    if baseline is not None:
        rivals[Serves.RELEASE.value] = _scored(store, view, baseline)
    order = [s for s in (Serves.WEARER, Serves.KEPT, Serves.RELEASE) if s.value in rivals]
    best = max(order, key=lambda s: rivals[s.value])
    choice = msgspec.structs.replace(
        plain,
        serves=best,
        accuracy=rivals[best.value],
        rivals={name: round(a, 4) for name, a in rivals.items()},
        said=_words(best, rivals, release, before),
    )
    if best is Serves.RELEASE:
        return Served(choice, None)
    used = view if best is Serves.WEARER or old is None else old
    assert used.release.prior is not None
    choice = msgspec.structs.replace(
        choice,
        prior=_digest(used.release.prior),
        prior_of=used.release.name,
        preprocess=used.release.preprocess,
    )
    return Served(choice, used)


def _words(best: Serves, rivals: dict[str, float], release: Release, before: Choice | None) -> str:
    mine = rivals[Serves.WEARER.value]
    if best is Serves.KEPT and before is not None:
        return (
            f"{release.name} decides {mine:.2f} of this wearer's repetitions right, {before.prior_of} "
            f"{rivals[best.value]:.2f}: what is known of wearers stays that of {before.prior_of}."
        )
    if best is Serves.RELEASE:
        return f"The release's own scores decide {rivals[best.value]:.2f} right, the wearer's model {mine:.2f}."
    worse = before is not None and before.accuracy is not None and mine < before.accuracy
    if worse and before is not None and before.digest != release.digest and Serves.KEPT.value not in rivals:
        return (
            f"{release.name} decides {mine:.2f} of this wearer's repetitions right, {before.release} decided "
            f"{before.accuracy:.2f}, and its features are not made any more: enrol another repetition of each gesture."
        )
    return ""


def _kept(store: WearerStore, view: WearerView, before: Choice | None) -> WearerView | None:
    """The wearer under the prior that served before, where it is another one and its features are still made."""
    if before is None or not before.prior or before.preprocess is None or view.release.prior is None:
        return None
    now = view.release.preprocess
    same = (before.preprocess.front_end, before.preprocess.scale) == (now.front_end, now.scale)
    if not same or before.prior == _digest(view.release.prior) or view.scale is None:
        return None
    try:
        prior = WearerPrior.unpack((store.folder / _PRIORS / before.prior).read_bytes())
    except (OSError, EmbridgeError):
        return None
    if _digest(prior) != before.prior or prior.channels != view.spec.n_channels:
        return None
    # windows are cut as the release that runs cuts them, for that is what will be decided
    release = replace(view.release, name=before.prior_of, prior=prior)
    return replace(view, release=release).over(_repetitions(store, view))


def _accuracy(view: WearerView) -> float:
    model = view.model()
    assert model is not None
    return judge(model, view.own).accuracy


def _scored(store: WearerStore, view: WearerView, baseline: Baseline) -> float:
    """What the release's own scores make of the repetitions, each gesture counting alike."""
    hits: dict[str, list[float]] = {}
    assert view.scale is not None
    repetitions = _repetitions(store, view)
    scales = scales_of(repetitions, view.release.preprocess)
    for repetition in repetitions:
        scale = scales.get(repetition.about.session, view.scale)
        found = windows_of(repetition, view.release.preprocess, scale).windows
        if len(found):
            found = found[np.unique(np.linspace(0, len(found) - 1, _WINDOWS).astype(np.int64))]
            right = [label == repetition.about.label for label in baseline(found)]
            hits.setdefault(repetition.about.label, []).append(float(np.mean(right)))
    return float(np.mean([np.mean(shares) for shares in hits.values()])) if hits else 0.0


def _repetitions(store: WearerStore, view: WearerView) -> list[StoredRepetition]:
    return [r for r in store.repetitions() if same_band(r.about.spec, view.spec)]


def _keep_prior(store: WearerStore, prior: WearerPrior | None) -> None:
    if prior is not None:
        path = store.folder / _PRIORS / _digest(prior)
        if not path.is_file():
            write_atomically(path, prior.pack(), mode=_MODE)


def _digest(prior: WearerPrior) -> str:
    return hashlib.sha256(prior.pack()).hexdigest()


def _head(store: WearerStore) -> str:
    """Names the entries a choice rests on."""
    return hashlib.sha256("".join(sorted(str(e.id) for e in store.entries())).encode()).hexdigest()[:16]
