"""Tokens: who may call the HTTP interface, and in which role.

    api/tokens.json   0600: name, role, term and the sha256 of each token's secret; the secret is nowhere
    api/local.token   0600: a token of role admin, for commands on the same machine
    api/local.url     where the process that runs listens

A token reads `emb_ID_SECRET`. The secret is 256 bits from the system, so one fast digest protects it: there is nothing
to guess. The file is read again whenever it changed, so a token that is revoked is refused from the next request on.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import logging
import re
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from embridge_cloud.api.roles import Role
from embridge_shared.archive import write_atomically
from embridge_shared.cloud_client import LOCAL_TOKEN, LOCAL_URL
from embridge_shared.errors import ConfigError, OperatorError, Reason

logger = logging.getLogger(__name__)

LOCAL_NAME: Final = "local"
_SHAPE: Final = re.compile(r"emb_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DAY_NS: Final = 86_400 * 10**9
_NOBODY: Final = hashlib.sha256(b"nobody").hexdigest()


class Token(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token as the file knows it.

    Attributes:
        id: Its public part.
        name: Who has it; what the audit log says.
        role: What it allows.
        sha256: Of its secret.
        created_ns: Unix time, ns.
        expires_ns: Unix time, ns; 0 for never.
    """

    id: str
    name: str
    role: Role
    sha256: str
    created_ns: int
    expires_ns: int = 0

    def expired(self, now_ns: int) -> bool:
        """Whether its term is over."""
        return 0 < self.expires_ns <= now_ns


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: the name and role of the token shown."""

    name: str
    role: Role


class TokenFile:
    """The tokens of a state folder; several processes may share it.

    Args:
        state_dir: As in `cloud.state_dir`.
    """

    def __init__(self, state_dir: Path) -> None:
        self._local = state_dir / LOCAL_TOKEN
        self._path = self._local.with_name("tokens.json")
        self._seen: tuple[int, int, int] | None = None
        self._tokens: dict[str, Token] = {}

    @property
    def local_path(self) -> Path:
        """The file with the token for commands on this machine."""
        return self._local

    def known(self) -> list[Token]:
        """All tokens, by name.

        Raises:
            ConfigError: The file cannot be read, or others may write to it.
        """
        self._refresh()
        return sorted(self._tokens.values(), key=lambda t: t.name)

    def check(self, text: str, now_ns: int) -> Principal | None:
        """Who shows a token, or None where it is not valid.

        The time this takes does not depend on how much of the secret is right.

        Raises:
            ConfigError: The file cannot be read, or others may write to it.
        """
        self._refresh()
        shape = _SHAPE.fullmatch(text)
        token = self._tokens.get(shape[1]) if shape else None
        digest = hashlib.sha256(shape[2].encode() if shape else b"").hexdigest()
        right = hmac.compare_digest(digest, token.sha256 if token else _NOBODY)
        if token is None or not right or token.expired(now_ns):
            return None
        return Principal(token.name, token.role)

    def create(self, name: str, role: Role, *, now_ns: int, days: float | None = None) -> str:
        """Make a token and return it; it can never be shown again.

        Args:
            name: Who will have it; no other token has the name.
            role: What it allows.
            now_ns: Unix time, ns.
            days: Its term; without end by default.

        Raises:
            OperatorError: The name is taken or no name.
            ConfigError: The file cannot be read.
        """
        if not _NAME.fullmatch(name):
            raise OperatorError(
                f"{name!r} cannot name a token.", hint="Take up to 64 letters, digits, dots, dashes and underscores."
            )
        with self._locked():
            tokens = self.known()
            if any(t.name == name for t in tokens):
                raise OperatorError(
                    f"there is a token {name!r} already.",
                    reason=Reason.LOCKED,
                    hint=f"Take another name, or `embridge token revoke {name}` first.",
                )
            ident, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
            expires_ns = now_ns + round(days * _DAY_NS) if days else 0
            digest = hashlib.sha256(secret.encode()).hexdigest()
            made = Token(id=ident, name=name, role=role, sha256=digest, created_ns=now_ns, expires_ns=expires_ns)
            self._write([*tokens, made])
        return f"emb_{ident}_{secret}"

    def revoke(self, name: str) -> None:
        """Take a token's right away, at once.

        Raises:
            OperatorError: There is none of that name.
            ConfigError: The file cannot be read.
        """
        with self._locked():
            tokens = self.known()
            kept = [t for t in tokens if t.name != name]
            if len(kept) == len(tokens):
                raise OperatorError(
                    f"there is no token {name!r}.",
                    reason=Reason.NOT_FOUND,
                    hint="`embridge token list` shows them.",
                )
            self._write(kept)

    def ensure_local(self, now_ns: int) -> Path:
        """See to it that commands on this machine have a token, and return the file that holds it.

        Raises:
            ConfigError: The file cannot be read, or others may write to it.
        """
        with self._locked():
            held = self._local.read_text().strip() if self._local.is_file() else ""
        if held and self.check(held, now_ns) is not None:
            self._local.chmod(0o600)
            return self._local
        with contextlib.suppress(OperatorError):
            self.revoke(LOCAL_NAME)
        token = self.create(LOCAL_NAME, Role.ADMIN, now_ns=now_ns)
        write_atomically(self._local, f"{token}\n".encode(), mode=0o600)
        return self._local

    @contextlib.contextmanager
    def announced(self, url: str, now_ns: int) -> Iterator[None]:
        """Let commands on this machine find the process and its token, for the length of the context.

        Args:
            url: Where it listens.
            now_ns: Unix time, ns.

        Raises:
            ConfigError: The file of tokens cannot be read, or others may write to it.
        """
        self.ensure_local(now_ns)
        told = self._local.with_name(LOCAL_URL.name)
        write_atomically(told, f"{url}\n".encode(), mode=0o600)
        try:
            yield
        finally:
            # Another process of the same folder may have said its own meanwhile.
            with contextlib.suppress(OSError):
                if told.read_text().strip() == url:
                    told.unlink()

    def _refresh(self) -> None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._tokens, self._seen = {}, None
            return
        mark = (found.st_mtime_ns, found.st_ino, found.st_size)
        if mark == self._seen:
            return
        self._tokens, self._seen = {}, None
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ConfigError(f"{self._path} can be written by others.", hint=f"chmod 600 {self._path}")
        try:
            tokens = msgspec.json.decode(self._path.read_bytes(), type=list[Token])
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigError(
                f"{self._path} cannot be read: {error}.",
                hint="Restore it, or remove it: every token but the local one is then to be made anew.",
            ) from error
        self._tokens, self._seen = {t.id: t for t in tokens}, mark

    def _write(self, tokens: list[Token]) -> None:
        write_atomically(self._path, msgspec.json.format(msgspec.json.encode(tokens)), mode=0o600)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._path.with_name("lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
