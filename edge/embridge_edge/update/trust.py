"""Trust: which bytes are a release, by the repository's signed metadata alone (The Update Framework)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
import tuf.ngclient
from tuf.api import exceptions
from tuf.api.metadata import Metadata, TargetFile, Timestamp

from embridge_edge.update.fetch import Fetcher
from embridge_shared.delta import DeltaTarget, delta_name
from embridge_shared.errors import ConfigError, ModelError, NetworkError, Reason
from embridge_shared.manifest import Published

logger = logging.getLogger(__name__)

_SIGNED_FOR: Final = timedelta(days=7)
"""How long a timestamp holds; where it holds longer, its end less this is still before its end."""
_HINT: Final = "Nothing was changed; the running release stays."


@dataclass(frozen=True, slots=True)
class Offer:
    """A release as signed.

    Attributes:
        published: What the registry signed of it.
        url: Where its bundle lies.
        target: Its length and hashes.
    """

    published: Published
    url: str
    target: TargetFile

    def verify(self, path: Path) -> None:
        """Check a downloaded bundle.

        Raises:
            ModelError: HASH_MISMATCH.
        """
        _verify(self.target, path, self.published.name)


@dataclass(frozen=True, slots=True)
class DeltaOffer:
    """A delta to a release, as signed.

    Attributes:
        about: What it makes of what.
        url: Where it lies.
        target: Its length and hashes.
    """

    about: DeltaTarget
    url: str
    target: TargetFile

    def verify(self, path: Path) -> None:
        """Check a downloaded delta.

        Raises:
            ModelError: HASH_MISMATCH.
        """
        _verify(self.target, path, f"the delta to {self.about.release}")


class Trust:
    """The edge's view of the repository, wherever it is served.

    It remembers the newest metadata it has seen, so that neither an older state nor another signer is accepted.

    Args:
        folder: Where the metadata is kept.
        root: Root metadata the edge was provisioned with; the only thing that is trusted without a signature.
        fetcher: Fetches the metadata.
        now: The time that signatures are held against; this machine's by default.
    """

    def __init__(
        self, folder: Path, root: bytes, fetcher: Fetcher, *, now: Callable[[], datetime] | None = None
    ) -> None:
        self._folder = folder
        self._root = root
        self._fetcher = fetcher
        self._now = now or (lambda: datetime.now(UTC))
        self._client: tuf.ngclient.Updater | None = None

    def refresh(self, url: str) -> None:
        """Bring the metadata up to date.

        Args:
            url: Base URL of the repository; it need not be trusted.

        Raises:
            ConfigError: `url` is of another scheme than http, https and mqtt.
            NetworkError: UNREACHABLE or TIMEOUT.
            ModelError: SIGNATURE: not signed by whom the edge trusts, or older than what was seen before; EXPIRED;
                HASH_MISMATCH: metadata that is not what the signed one names.
        """
        self._client = None
        if not url.startswith(("http://", "https://", "mqtt:")):
            raise ConfigError(f"updates need an http, https or mqtt URL, not {url!r}")
        self._folder.mkdir(parents=True, exist_ok=True)
        now = self._reference()
        with _translated(now):
            client = tuf.ngclient.Updater(
                str(self._folder), f"{url.rstrip('/')}/metadata/", fetcher=self._fetcher, bootstrap=self._root
            )
            client._trusted_set.reference_time = now
            client.refresh()
        self._client = client

    def offer(self, release: str, url: str, *, refreshed: bool = False) -> Offer:
        """Bring the metadata up to date and look a release up.

        Args:
            release: Its name.
            url: Base URL of the repository; it need not be trusted.
            refreshed: The metadata is up to date already.

        Raises:
            ConfigError: As `refresh`.
            NetworkError: As `refresh`.
            ModelError: As `refresh`; NOT_FOUND: no such release; MALFORMED: signed, but not as a release.
        """
        if not refreshed or self._client is None:
            self.refresh(url)
        base, target = url.rstrip("/"), self._target(release)
        if target is None:
            raise ModelError(f"no release {release!r} is published.", reason=Reason.NOT_FOUND, hint=_HINT)
        published = _published(release, target)
        signed = (release, target.hashes.get("sha256"), target.length)
        if signed != (published.name, published.digest, published.size):
            raise ModelError(f"{release!r} contradicts itself.", reason=Reason.MALFORMED, hint=_HINT)
        return Offer(published, f"{base}/targets/{published.digest}.{published.name}", target)

    def delta(self, offer: Offer, base: str) -> DeltaOffer | None:
        """The delta that makes a release from the bundle with the sha256 `base`; None where none was signed."""
        target = self._target(delta_name(offer.published.name, base))
        try:
            custom = target.unrecognized_fields["custom"] if target is not None else {}
            about = msgspec.convert(custom["delta"], DeltaTarget)
        except (KeyError, TypeError, msgspec.ValidationError):
            return None
        assert target is not None
        whole = offer.published
        if about != DeltaTarget(release=whole.name, digest=whole.digest, size=whole.size, base=base):
            return None
        folder, _, name = target.path.partition("/")
        root = offer.url.rpartition("/targets/")[0]
        return DeltaOffer(about, f"{root}/{folder}/{target.hashes['sha256']}.{name}", target)

    def recalled(self, release: str, digest: str) -> str:
        """Why a release was withdrawn, by the metadata of the last refresh; empty where nothing says so.

        Args:
            release: Its name.
            digest: sha256 of the bundle that is meant.

        Raises:
            ModelError: MALFORMED: signed, but not as a release.
        """
        target = self._target(release)
        if target is None:
            return ""
        found = _published(release, target)
        return found.recalled if found.digest == digest else ""

    def _target(self, release: str) -> TargetFile | None:
        if self._client is None:
            return None
        with _translated(self._now()):
            return self._client.get_targetinfo(release)

    def _reference(self) -> datetime:
        """The time now: a clock that is behind what was signed long ago is wrong, and would let old metadata pass."""
        now = self._now()
        try:
            seen: Metadata[Timestamp] = Metadata.from_bytes((self._folder / "timestamp.json").read_bytes())
        except (OSError, exceptions.RepositoryError, ValueError):
            return now
        floor = seen.signed.expires - _SIGNED_FOR
        if now >= floor:
            return now
        logger.warning("this machine's clock says %s, but metadata was signed after that: taking %s", now, floor)
        return floor


def _verify(target: TargetFile, path: Path, what: str) -> None:
    try:
        with path.open("rb") as file:
            target.verify_length_and_hashes(file)
    except exceptions.LengthOrHashMismatchError as error:
        raise ModelError(f"{what} is not what was signed: {error}.", reason=Reason.HASH_MISMATCH, hint=_HINT) from error


def _published(release: str, target: TargetFile) -> Published:
    try:
        return msgspec.convert(target.unrecognized_fields.get("custom"), Published)
    except msgspec.ValidationError as error:
        raise ModelError(f"{release!r} is no release: {error}.", reason=Reason.MALFORMED, hint=_HINT) from error


@contextlib.contextmanager
def _translated(now: datetime) -> Iterator[None]:
    """Errors of the trust layer, by whose fault they are."""
    try:
        yield
    except exceptions.DownloadLengthMismatchError as error:
        raise ModelError(f"metadata is too long: {error}.", reason=Reason.HASH_MISMATCH, hint=_HINT) from error
    except exceptions.SlowRetrievalError as error:
        raise NetworkError(f"the update repository is too slow: {error}.", reason=Reason.TIMEOUT) from error
    except exceptions.DownloadError as error:
        raise NetworkError(
            f"the update repository cannot be reached: {error}.", reason=Reason.UNREACHABLE, hint=_HINT
        ) from error
    except exceptions.LengthOrHashMismatchError as error:
        raise ModelError(f"metadata was altered: {error}.", reason=Reason.HASH_MISMATCH, hint=_HINT) from error
    except exceptions.ExpiredMetadataError as error:
        raise ModelError(
            f"the repository's signature has expired: {error}; this machine's clock says {now:%Y-%m-%d %H:%M} UTC.",
            reason=Reason.EXPIRED,
            hint="Check this machine's clock, and that the cloud refreshes its timestamp.",
        ) from error
    except exceptions.BadVersionNumberError as error:
        raise ModelError(
            f"the repository is older than what was seen: {error}.", reason=Reason.SIGNATURE, hint=_HINT
        ) from error
    except (exceptions.RepositoryError, ValueError) as error:
        raise ModelError(f"the repository is not trusted: {error}.", reason=Reason.SIGNATURE, hint=_HINT) from error
