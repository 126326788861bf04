"""Errors by whose fault they are.

    EmbridgeError
    ├── DeviceError     a band, a glove, a sensor
    ├── NetworkError    broker, cloud, link
    ├── DataError       bytes, files and recordings that are not what they claim to be
    │   └── LeakageError    an evaluation that would look at what it must not see
    ├── ModelError      an encoder or release that is damaged, untrusted or unfit
    ├── ConfigError     settings
    └── OperatorError   a request that cannot be carried out as asked

Every error says what happened, what to do next (`hint`), a machine-readable `reason`, and the exit code a
command ends with.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum


class ExitCode(IntEnum):
    """What a command's exit status means."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CONNECTION = 3
    TIMEOUT = 4
    REJECTED = 5
    BUSY = 6
    INTERRUPTED = 130


class Reason(StrEnum):
    """Machine-readable causes; stored beside quarantined data and sent over the wire."""

    NOT_FOUND = "not_found"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    INVALID = "invalid"
    INTERNAL = "internal"
    LOCKED = "locked"
    MISSING_EXTRA = "missing_extra"
    DISK_FULL = "disk_full"
    INSECURE = "insecure"
    # who asks, and how much
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    RATE_LIMITED = "rate_limited"
    TOO_LARGE = "too_large"
    # radios
    ADAPTER_OFF = "adapter_off"
    DENIED = "denied"
    SILENT = "silent"
    POOR_SIGNAL = "poor_signal"
    # bytes on the wire and in files
    TRUNCATED = "truncated"
    FOREIGN = "foreign"
    UNSUPPORTED_VERSION = "unsupported_version"
    CHECKSUM = "checksum"
    SAMPLE_COUNT = "sample_count"
    MALFORMED = "malformed"
    DAMAGED = "damaged"
    # what the store cannot place
    UNKNOWN_SESSION = "unknown_session"
    UNKNOWN_STREAM = "unknown_stream"
    WRONG_EDGE = "wrong_edge"
    WRONG_SHAPE = "wrong_shape"
    OVERLAP = "overlap"
    SESSION_ENDED = "session_ended"
    # people's rights
    CONSENT = "consent"
    ERASED = "erased"
    # learning and releases
    LEAKAGE = "leakage"
    SIGNATURE = "signature"
    EXPIRED = "expired"
    RECALLED = "recalled"
    HASH_MISMATCH = "hash_mismatch"
    INCOMPATIBLE = "incompatible"
    SELF_TEST = "self_test"
    UNHEALTHY = "unhealthy"
    CRASHED = "crashed"
    PARITY = "parity"
    TOO_LITTLE_DATA = "too_little_data"


_EXIT_CODES = {
    Reason.LOCKED: ExitCode.BUSY,
    Reason.TIMEOUT: ExitCode.TIMEOUT,
    Reason.DISK_FULL: ExitCode.FAILED,
    Reason.CONSENT: ExitCode.REJECTED,
}


class EmbridgeError(Exception):
    """Base of every error EMBridge raises on purpose.

    Args:
        message: What happened, in one sentence, with the value that caused it.
        reason: Machine-readable cause.
        hint: What to do next.

    Attributes:
        exit_code: What a command ends with; some reasons have one of their own, else it is that of the class.
    """

    exit_code: ExitCode = ExitCode.FAILED

    def __init__(self, message: str, *, reason: Reason = Reason.INVALID, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.hint = hint
        self.exit_code = _EXIT_CODES.get(reason, self.exit_code)

    def __str__(self) -> str:
        if not self.hint:
            return self.message
        return f"{self.message}{'' if self.message.endswith(('.', '?', '!')) else '.'} {self.hint}"


class DeviceError(EmbridgeError):
    """A band or sensor did not do its part."""

    exit_code = ExitCode.CONNECTION


class NetworkError(EmbridgeError):
    """Broker or cloud cannot be reached or did not answer."""

    exit_code = ExitCode.CONNECTION


class DataError(EmbridgeError):
    """Bytes, a file or a recording are not what they claim to be."""


class LeakageError(DataError):
    """An evaluation would see what it must not see (docs: learning, leakage rules)."""

    exit_code = ExitCode.REJECTED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message, reason=Reason.LEAKAGE, hint=hint)


class ModelError(EmbridgeError):
    """An encoder, an index or a release is damaged, untrusted or does not fit."""

    exit_code = ExitCode.REJECTED


class ConfigError(EmbridgeError):
    """Settings that cannot be used."""

    exit_code = ExitCode.USAGE


class OperatorError(EmbridgeError):
    """A request that cannot be carried out as asked."""

    exit_code = ExitCode.USAGE
