"""What a candidate must hold to become a release."""

from __future__ import annotations

from pathlib import Path

import msgspec

from embridge_shared.errors import ConfigError, Reason
from embridge_shared.settings import GateSettings


class Margins(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much worse than the champion a candidate may be: the lower end of the difference's interval stays above.

    Attributes:
        seen: Balanced accuracy among gestures whose EMG was learnt.
        unseen: Among gestures whose EMG nobody recorded.
        all: Among all of them.
        worst: Of the person it serves worst, among all gestures.
        forgetting: Among all gestures, of the people of an earlier time.
        ece: Expected calibration error; the upper end stays below.
    """

    seen: float = 0.05
    unseen: float = 0.08
    all: float = 0.05
    worst: float = 0.15
    forgetting: float = 0.08
    ece: float = 0.06


class Floors(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the first release of a line must reach, which no champion stands beside.

    Attributes:
        seen: Balanced accuracy above chance that the lower end reaches, as a share of what chance leaves.
        unseen: The same of gestures whose EMG nobody recorded; below 0 it may end that much below chance.
        ece: Largest expected calibration error.
    """

    seen: float = 0.05
    unseen: float = -0.1
    ece: float = 0.35


class Costs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a candidate may cost on an edge, beside the champion in the same run; no more than either allows.

    Attributes:
        latency: Times the champion's latency.
        hop: Share of the hop that a window may take whatever the champion takes.
        size: Times the champion's size.
        free_bytes: Size that nobody minds, bytes.
        memory: Times the champion's memory.
        free_memory_bytes: Memory that nobody minds, bytes.
        windows: Windows that are timed.
    """

    latency: float = 1.5
    hop: float = 0.25
    size: float = 1.5
    free_bytes: int = 16 << 20
    memory: float = 1.5
    free_memory_bytes: int = 64 << 20
    windows: int = 240


class GatePolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a candidate is judged.

    Attributes:
        margins: What it may lose against the champion.
        floors: What the first release of a line must reach.
        costs: What it may cost on an edge.
        confidence: One-sided confidence of every interval, 0.5 to 1.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
        min_people: Held-out people without whom nothing is decided against a champion.
        first_without_people: The first release of a line may pass on its self-tests and on whoever watched the
            training, where nobody is held out yet.
        false_confidence: Confidence at which more false activations than the champion's refuse it.
        int8_cosine: Cosine that all but one in a hundred windows keep when quantised.
        max_suspicious: Share of the new sessions that may be suspicious before that alone refuses it.
        groups: Held-out people by name of a group that must not be forgotten; by default they are grouped by the
            release that was in force when they were first recorded.
    """

    margins: Margins = Margins()
    floors: Floors = Floors()
    costs: Costs = Costs()
    confidence: float = 0.8
    resamples: int = 2000
    seed: int = 0
    min_people: int = 3
    first_without_people: bool = True
    false_confidence: float = 0.99
    int8_cosine: float = 0.98
    max_suspicious: float = 0.25
    groups: dict[str, tuple[str, ...]] = {}

    def __post_init__(self) -> None:
        shares = (self.confidence, self.false_confidence)
        if not all(0.5 <= share < 1.0 for share in shares) or self.resamples < 100 or self.min_people < 2:
            raise ConfigError(
                f"a gate with confidence {self.confidence} and {self.false_confidence}, {self.resamples} resamples "
                f"and {self.min_people} people decides nothing",
                hint="Confidence lies between 0.5 and 1; at least 100 resamples and 2 people are needed.",
            )


def policy_of(settings: GateSettings) -> GatePolicy:
    """The policy of a site.

    Raises:
        ConfigError: As `load_policy`.
    """
    return GatePolicy() if settings.policy is None else load_policy(settings.policy)


def load_policy(path: Path) -> GatePolicy:
    """Read a TOML file; what it leaves out keeps its default.

    Raises:
        ConfigError: The file is missing or no TOML, or a key or value is not known; the message names it.
    """
    try:
        return msgspec.toml.decode(path.read_bytes(), type=GatePolicy)
    except FileNotFoundError:
        raise ConfigError(f"no gate policy {path}", reason=Reason.NOT_FOUND) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
