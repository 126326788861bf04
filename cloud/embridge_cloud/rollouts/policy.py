"""How a release reaches the fleet: the policy of the settings, and policies in files."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from embridge_shared.durations import seconds
from embridge_shared.errors import ConfigError, EmbridgeError
from embridge_shared.fleet import RolloutPolicy, Trial, Wave
from embridge_shared.settings import RolloutSettings

ONE_WAVE = RolloutPolicy(
    waves=(Wave(name="all", share=1.0, soak_s=0.0),), trial=Trial(shadow_windows=0, probation_s=0.0), success=1.0
)
"""Everywhere at once and without a trial: for one's own bench and for demonstrations."""


def policy_of(settings: RolloutSettings) -> RolloutPolicy:
    """The policy that the settings describe."""
    limits = {name: getattr(settings, name) for name in ("max_p99_ms", "min_rate", "max_confidence_loss")}
    trial = Trial(
        shadow_windows=settings.shadow_windows,
        shadow_s=settings.shadow_s,
        probation_s=settings.probation_s,
        max_crashes=settings.max_crashes,
        min_windows=settings.min_windows,
        **limits,
    )
    return RolloutPolicy(
        waves=waves(settings.waves, soak_s=settings.soak_s, approve=settings.approve),
        success=settings.success,
        max_errors=settings.max_errors,
        error_floor=settings.error_floor,
        retries=settings.retries,
        patience_s=settings.patience_s,
        on_error=settings.on_error,
        trial=trial,
        **limits,
    )


def waves(shares: Sequence[float], *, soak_s: float, approve: Sequence[str] = ()) -> tuple[Wave, ...]:
    """Waves of growing shares, named for where they stand.

    Args:
        shares: 0 to 1; the last one is 1.
        soak_s: Of each.
        approve: Names of those that somebody must approve.

    Raises:
        ConfigError: There is no wave of such a name.
    """
    if not shares:
        raise ConfigError("a rollout without waves", hint='Its waves grow and end with a share of 1, as in "5,25,100".')
    names = ["all"] if len(shares) == 1 else ["canary", *[f"wave-{n}" for n in range(2, len(shares))], "all"]
    if len(shares) == 3:
        names[1] = "early"
    if unknown := sorted(set(approve) - set(names)):
        raise ConfigError(f"no wave is called {unknown[0]!r}", hint=f"These are {', '.join(names)}.")
    return tuple(
        Wave(name=name, share=share, soak_s=soak_s, approve=name in approve)
        for name, share in zip(names, shares, strict=True)
    )


def read_policy(path: Path, base: RolloutPolicy) -> RolloutPolicy:
    """A policy in a TOML file: the fields of `RolloutPolicy`, of which those it lacks are those of `base`.

    Lengths of time may be written like "2h".

    Raises:
        ConfigError: The file cannot be read, or says something else.
    """
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from None
    return merged(base, given, str(path))


def merged(base: RolloutPolicy, given: Mapping[str, Any], source: str) -> RolloutPolicy:
    """A policy with some fields changed; raises as `read_policy`."""
    body: dict[str, Any] = msgspec.to_builtins(base)
    try:
        changed = {key: _timed({key: value})[key] for key, value in given.items()}
        trial = body["trial"] | changed.get("trial", {})
        return msgspec.convert(body | changed | {"trial": trial}, RolloutPolicy)
    except (msgspec.ValidationError, EmbridgeError, TypeError) as error:
        raise ConfigError(
            f"{source}: {getattr(error, 'message', error)}", hint="The page on rollouts lists what a policy holds."
        ) from None


def _timed(value: Any) -> Any:
    """Lengths of time in seconds, wherever they stand: every key that ends with `_s`."""
    if isinstance(value, Mapping):
        return {key: seconds(part) if key.endswith("_s") else _timed(part) for key, part in value.items()}
    return [_timed(part) for part in value] if isinstance(value, list) else value
