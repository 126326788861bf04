"""Private keys of the registry: one file a key, beside the repository or on another machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.signer import CryptoSigner, SSlibKey

from embridge_shared.archive import sync_folder, write_atomically
from embridge_shared.errors import ModelError, OperatorError, Reason

logger = logging.getLogger(__name__)

ROOT: Final = "root"
ONLINE: Final = ("targets", "snapshot", "timestamp")
"""Roles whose keys the cloud process needs at hand."""
ROLES: Final = (ROOT, *ONLINE)

_RESTORE: Final = "Restore the registry's folder from a backup."
_NEXT: Final = ".next.pem"


class KeyRing:
    """The keys that lie beside a repository.

    Root keys are `root*.pem`; an online role's is `ROLE.pem`, and `ROLE.next.pem` while it is being replaced.

    Args:
        folder: Where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, name: str) -> CryptoSigner:
        """Make a key and keep it as `name`.pem."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        signer = CryptoSigner.generate_ed25519()
        write_atomically(self.folder / f"{name}.pem", signer.private_bytes, mode=0o600)
        return signer

    def online(self, role: str) -> list[CryptoSigner]:
        """The key of an online role, and behind it the one that is to replace it, if any.

        Raises:
            ModelError: NOT_FOUND: there is none; SIGNATURE: it is no ed25519 key.
        """
        path = self.folder / f"{role}.pem"
        if not path.exists():
            raise ModelError(f"the registry's {role} key is missing", reason=Reason.NOT_FOUND, hint=_RESTORE)
        return [read_private(p) for p in (path, self.folder / f"{role}{_NEXT}") if p.exists()]

    def prepare(self, role: str) -> CryptoSigner:
        """A key that is to replace an online role's; the one prepared before, if any."""
        path = self.folder / f"{role}{_NEXT}"
        return read_private(path) if path.exists() else self.make(f"{role}.next")

    def promote(self, role: str) -> None:
        """Let the prepared key take its place; the old one is gone."""
        (self.folder / f"{role}{_NEXT}").replace(self.folder / f"{role}.pem")
        sync_folder(self.folder)

    def give_up(self) -> None:
        """Remove keys that were prepared."""
        for role in ONLINE:
            (self.folder / f"{role}{_NEXT}").unlink(missing_ok=True)

    def roots(self) -> dict[Path, CryptoSigner]:
        """The root keys at hand; one under a passphrase is not."""
        return {path: read_private(path) for path in self.root_files() if not is_locked(path)}

    def root_files(self) -> Iterator[Path]:
        """Files of root keys, those under a passphrase too."""
        yield from sorted(self.folder.glob("root*.pem"))


def read_private(path: Path, passphrase: bytes | None = None) -> CryptoSigner:
    """Read a private key.

    Args:
        path: PKCS#8 PEM.
        passphrase: What it is protected with, if it is.

    Raises:
        ModelError: SIGNATURE: it is no ed25519 key.
        OperatorError: It cannot be read, or the passphrase is missing or wrong.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), passphrase)
    except OSError as error:
        raise OperatorError(
            f"{path} cannot be read: {error.strerror}.", hint="Name the file of a private key."
        ) from error
    except TypeError as error:
        needed = passphrase is None
        raise OperatorError(
            f"{path.name} is {'' if needed else 'not '}protected by a passphrase.",
            hint="Give its passphrase." if needed else "Leave the passphrase out.",
        ) from error
    except ValueError as error:
        if passphrase is not None:
            raise OperatorError(f"the passphrase does not open {path.name}.", hint="Try again.") from error
        raise ModelError(f"{path.name} is no private key", reason=Reason.SIGNATURE, hint=_RESTORE) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ModelError(f"{path.name} is no ed25519 key", reason=Reason.SIGNATURE, hint=_RESTORE)
    return CryptoSigner(key)


def write_private(path: Path, signer: CryptoSigner, passphrase: bytes | None) -> None:
    """Write a private key where no file is yet.

    Args:
        path: Where; mode 0600.
        signer: The key.
        passphrase: Protects it; None for none.

    Raises:
        OperatorError: There is such a file already.
    """
    key = serialization.load_pem_private_key(signer.private_bytes, None)
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        protection = serialization.BestAvailableEncryption(passphrase)
    data = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise OperatorError(f"{path} exists already.", hint="A key is never overwritten: name another file.") from error
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def public_pem(signer: CryptoSigner) -> bytes:
    """The public half of a key, SubjectPublicKeyInfo PEM."""
    key = serialization.load_pem_private_key(signer.private_bytes, None)
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def read_public(path: Path) -> SSlibKey:
    """Read a public key.

    Raises:
        OperatorError: It is no ed25519 public key.
    """
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError("another kind of key")
    except (OSError, ValueError) as error:
        raise OperatorError(
            f"{path} is no ed25519 public key.", hint="`embridge release key make` writes one beside the private key."
        ) from error
    return SSlibKey.from_crypto(key)


def shred(path: Path) -> None:
    """Overwrite a private key, then remove it; what an SSD or a snapshot keeps is out of reach."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(bytes(size))
        file.flush()
        os.fsync(file.fileno())
    path.unlink()


def is_locked(path: Path) -> bool:
    """Whether a private key is protected by a passphrase.

    Raises:
        OperatorError: It cannot be read.
    """
    try:
        return b"BEGIN ENCRYPTED PRIVATE KEY" in path.read_bytes()
    except OSError as error:
        raise OperatorError(
            f"{path} cannot be read: {error.strerror}.", hint="Name the file of a private key."
        ) from error
