"""Protocols: what a participant is asked to do in a session, as versioned TOML.

    name = "shapes"
    version = 2
    gestures = ["fist", "open", "point"]
    repetitions = 5
    blocks = 3

    [timing]
    prepare_s = 1.5
    hold_s = 2.0
    rest_s = 2.0
    jitter = 0.2

Built-in ones lie in `protocols` beside this module; `embridge protocol list` shows them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from embridge_shared.decision import UNKNOWN
from embridge_shared.errors import ConfigError, Reason
from embridge_shared.gestures import REST_LABEL, vocabulary
from embridge_shared.names import is_code, is_showable
from embridge_shared.session import Purpose, Split

SCHEMA: Final = 1
_LONGEST_S: Final = 600.0
_MOST_TRIALS: Final = 5000
_HINT: Final = "docs/collecting.md lists every key of a protocol."
_LINE: Final = re.compile(r"[\r\n\t]")


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Order(StrEnum):
    """How the gestures of a block follow each other."""

    SHUFFLED = "shuffled"
    """Every repetition of every gesture in one random order."""
    ROUNDS = "rounds"
    """Each gesture once, in random order, then each once again."""
    GROUPED = "grouped"
    """All repetitions of a gesture, then those of the next, as listed."""


class Timing(_Part, frozen=True, kw_only=True):
    """How long the parts of a repetition last.

    Attributes:
        prepare_s: Between the announcement of a gesture and the word to make it, s.
        hold_s: It is held, s.
        rest_s: The hand rests before the next one, s.
        jitter: Each lasts longer or shorter by up to this share of itself, at random.
    """

    prepare_s: float = 1.5
    hold_s: float = 2.0
    rest_s: float = 2.0
    jitter: float = 0.0


class Stretches(_Part, frozen=True, kw_only=True):
    """What each block begins with besides gestures; nothing of it is a repetition.

    Attributes:
        rest_s: Nothing is moved, s; 0 for none. It shows the noise that the gestures lie over.
        free_s: The hand does anything but the gestures, s; 0 for none. It shows what must not be taken for one.
    """

    rest_s: float = 0.0
    free_s: float = 0.0


class Demands(_Part, frozen=True, kw_only=True):
    """What is asked of a repetition.

    Attributes:
        least_db: It must rise so far above rest, dB.
        least_share: It must last for so much of the time it was to be held.
        retries: Tries in a row that may be bad before somebody has to look.
    """

    least_db: float = 6.0
    least_share: float = 0.5
    retries: int = 3


class Protocol(_Part, frozen=True, kw_only=True):
    """What a participant is asked to do.

    Attributes:
        name: Of the protocol; with the version it is what the session says of it.
        version: Raised whenever anything below changes.
        gestures: Labels, in the order of `grouped`.
        title: For people.
        about: What it is for, in a sentence or two.
        schema: Version of this format.
        purpose: What its sessions are for.
        split: Which part of an evaluation its sessions belong to, unless the operator says otherwise.
        repetitions: Of each gesture in a block.
        blocks: How often all of it is done; somebody starts each one.
        order: How the gestures of a block follow each other.
        seed: Of order and jitter. The number of the donning goes in too, so that no two sessions of one protocol are
            alike by accident and each can be made again.
        timing: Of a repetition.
        stretches: What each block begins with.
        placements: The band is put on so often; each time is a session of its own.
        demands: What is asked of a repetition.
        instructions: What is said for a gesture, instead of what the vocabulary says.
    """

    name: str
    version: int
    gestures: tuple[str, ...]
    title: str = ""
    about: str = ""
    schema: int = SCHEMA
    purpose: Purpose = Purpose.TRAINING
    split: Split = Split.UNDECIDED
    repetitions: int = 5
    blocks: int = 1
    order: Order = Order.SHUFFLED
    seed: int = 0
    timing: Timing = Timing()
    stretches: Stretches = Stretches()
    placements: int = 1
    demands: Demands = Demands()
    instructions: dict[str, str] = {}

    @property
    def ref(self) -> str:
        """Name and version, as a session states them."""
        return f"{self.name}/{self.version}"

    @property
    def repetitions_total(self) -> int:
        """Repetitions a session has when every one is good."""
        return len(self.gestures) * self.repetitions * self.blocks

    @property
    def duration_s(self) -> float:
        """Mean length of a session when every repetition is good and nobody pauses, s."""
        t, s = self.timing, self.stretches
        each = t.prepare_s + t.hold_s + t.rest_s
        alone = sum(x + t.prepare_s for x in (s.rest_s, s.free_s) if x)
        return self.repetitions_total * each + self.blocks * alone


class Kind(StrEnum):
    """What is asked for."""

    GESTURE = "gesture"
    REST = "rest"
    FREE = "free"


@dataclass(frozen=True, slots=True)
class Trial:
    """One thing to do.

    Attributes:
        kind: What is asked for.
        gesture: Label; "rest" or "unknown" for what is none.
        repetition: Counted from 1 within the label.
        block: Counted from 1.
        prepare_s: Time before it, s.
        hold_s: Time it takes, s.
        rest_s: Time after it, s.
    """

    kind: Kind
    gesture: str
    repetition: int
    block: int
    prepare_s: float
    hold_s: float
    rest_s: float


def trials(protocol: Protocol, donning: int = 1) -> tuple[Trial, ...]:
    """Everything a session asks for, in order; the same for the same protocol and donning.

    Args:
        protocol: What is asked for.
        donning: Which time the band is put on, from 1.
    """
    rng = np.random.default_rng([protocol.seed, donning])
    timing, counts = protocol.timing, dict.fromkeys((*protocol.gestures, REST_LABEL, UNKNOWN), 0)

    def lasts(seconds: float) -> float:
        return round(seconds * (1.0 + timing.jitter * rng.uniform(-1.0, 1.0)), 3)

    def trial(kind: Kind, label: str, block: int, hold_s: float) -> Trial:
        counts[label] += 1
        rest_s = lasts(timing.rest_s) if kind is Kind.GESTURE else 0.0
        return Trial(kind, label, counts[label], block, lasts(timing.prepare_s), hold_s, rest_s)

    out: list[Trial] = []
    for block in range(1, protocol.blocks + 1):
        if protocol.stretches.rest_s:
            out.append(trial(Kind.REST, REST_LABEL, block, protocol.stretches.rest_s))
        if protocol.stretches.free_s:
            out.append(trial(Kind.FREE, UNKNOWN, block, protocol.stretches.free_s))
        order = _order(protocol, rng)
        out += [trial(Kind.GESTURE, label, block, lasts(timing.hold_s)) for label in order]
    return tuple(out)


def _order(protocol: Protocol, rng: np.random.Generator) -> list[str]:
    """Labels of one block."""
    gestures, n = protocol.gestures, protocol.repetitions
    if protocol.order is Order.GROUPED:
        return [label for label in gestures for _ in range(n)]
    if protocol.order is Order.ROUNDS:
        return [gestures[i] for _ in range(n) for i in rng.permutation(len(gestures))]
    return [gestures[i % len(gestures)] for i in rng.permutation(len(gestures) * n)]


def problems(protocol: Protocol, known: Iterable[str]) -> Iterator[str]:
    """What is wrong with a protocol, in words; each says where.

    Args:
        protocol: Read from a file.
        known: Labels that somebody can be shown.
    """
    p, t = protocol, protocol.timing
    if p.schema != SCHEMA:
        yield f"schema is {p.schema}, this version reads {SCHEMA}"
    if not is_code(p.name) or p.version < 1:
        yield f"name {p.name!r} and version {p.version} must be a code and a number from 1"
    if not p.gestures:
        yield "gestures is empty"
    if len(set(p.gestures)) < len(p.gestures):
        yield "gestures names one twice"
    if unknown := sorted(set(p.gestures) - (set(known) - {REST_LABEL})):
        yield f"nobody knows the gestures {', '.join(unknown)} (`embridge gesture list`)"
    for key, value in (("repetitions", p.repetitions), ("blocks", p.blocks), ("placements", p.placements)):
        if value < 1:
            yield f"{key} must be 1 or more"
    if p.seed < 0:
        yield "seed must be 0 or more"
    if p.repetitions_total > _MOST_TRIALS:
        yield f"{p.repetitions_total} repetitions are more than anybody makes ({_MOST_TRIALS})"
    if not 0.0 <= t.jitter <= 0.5:
        yield "timing.jitter must be from 0 to 0.5"
    yield from _times(p)
    if stray := sorted(set(p.instructions) - {*p.gestures, REST_LABEL, UNKNOWN}):
        yield f"instructions speak of {', '.join(stray)}, which is not among the gestures"
    if not all(is_showable(x) and not _LINE.search(x) for x in (p.title, p.about, *p.instructions.values())):
        yield "title, about and instructions must be plain text of one line each"


def _times(p: Protocol) -> Iterator[str]:
    t, s, d = p.timing, p.stretches, p.demands
    for key, value, least in (
        ("timing.prepare_s", t.prepare_s, 0.5),
        ("timing.hold_s", t.hold_s, 0.3),
        ("timing.rest_s", t.rest_s, 0.5),
    ):
        if not least <= value <= _LONGEST_S:
            yield f"{key} must be from {least:g} to {_LONGEST_S:g}"
    for key, value in (("stretches.rest_s", s.rest_s), ("stretches.free_s", s.free_s)):
        if value and not 1.0 <= value <= _LONGEST_S:
            yield f"{key} must be 0, or from 1 to {_LONGEST_S:g}"
    if not (math.isfinite(d.least_db) and 0.0 < d.least_db <= 40.0):
        yield "demands.least_db must be above 0, up to 40"
    if not 0.0 < d.least_share <= 1.0:
        yield "demands.least_share must be above 0, up to 1"
    if d.retries < 1:
        yield "demands.retries must be 1 or more"


def read(text: bytes, where: str, known: Iterable[str] | None = None) -> Protocol:
    """Read a protocol and check it.

    Args:
        text: TOML.
        where: What it is called in errors.
        known: Labels that somebody can be shown; those of the vocabulary when None.

    Raises:
        ConfigError: It is no protocol, or asks for what cannot be; the message names every problem.
    """
    try:
        protocol = msgspec.toml.decode(text, type=Protocol)
    except (msgspec.DecodeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}", hint=_HINT) from error
    found = list(problems(protocol, vocabulary() if known is None else known))
    if found:
        raise ConfigError(f"{where}: {'; '.join(found)}", hint=_HINT)
    return protocol


def built_in() -> tuple[str, ...]:
    """Names of the protocols that come with EMBridge."""
    return tuple(sorted(p.name.removesuffix(".toml") for p in _folder().iterdir() if p.name.endswith(".toml")))


def load(word: str, known: Iterable[str] | None = None) -> Protocol:
    """A protocol by the name of a built-in one, or by the path of a file.

    Args:
        word: The name or path; a path ends in `.toml`.
        known: Labels that somebody can be shown; those of the vocabulary when None.

    Raises:
        ConfigError: There is none, or it is wrong.
    """
    if not word.endswith(".toml"):
        if word not in built_in():
            raise ConfigError(
                f"there is no protocol {word!r}",
                reason=Reason.NOT_FOUND,
                hint=f"Built in are {', '.join(built_in())}; a file of your own ends in .toml.",
            )
        return read((_folder() / f"{word}.toml").read_bytes(), f"the protocol {word}", known)
    try:
        text = Path(word).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"the protocol {word} cannot be read: {error.strerror}", reason=Reason.NOT_FOUND, hint="Check its path."
        ) from error
    return read(text, f"the protocol {word}", known)


def _folder() -> Traversable:
    return files("embridge_edge.collect") / "protocols"
