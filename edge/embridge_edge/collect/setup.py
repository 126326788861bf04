"""What is to be recorded, of whom, with what: everything that is known before a session begins."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from embridge_edge import band_plan
from embridge_edge.band_plan import AnyBand, BandsSource
from embridge_edge.collect import virtual
from embridge_edge.collect.protocol import Protocol
from embridge_edge.collect.steps import Outcome
from embridge_edge.collect.virtual import VirtualBand, VirtualSource
from embridge_edge.plan import SessionPlan, SyntheticSource, check_participant
from embridge_edge.pose.plan import AnyPose
from embridge_edge.takes import Take, open_take
from embridge_shared.clock import Clock
from embridge_shared.errors import ConfigError, DataError, OperatorError, Reason
from embridge_shared.names import CODE_RULE, is_code
from embridge_shared.session import Placement, Split
from embridge_shared.settings import EdgeSettings

UNSTATED = "unstated"


class Setup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One session to collect.

    Attributes:
        name: Unique on this edge; see `free_name`.
        participant: Pseudonym.
        protocol: What they are asked to do.
        source: The band.
        pose: What follows their hand, or None.
        placement: Where the band sits, and which time it was put on.
        consent_version: The consent text the participant signed, or "unstated".
        split: Which part of an evaluation it belongs to.
        base: Folder that relative paths start from.
    """

    name: str
    participant: str
    protocol: Protocol
    source: AnyBand | BandsSource | VirtualSource
    pose: AnyPose | None = None
    placement: Placement = Placement(donning=1)
    consent_version: str = UNSTATED
    split: Split = Split.UNDECIDED
    base: str = ""

    @property
    def simulated(self) -> bool:
        """No person is recorded."""
        return isinstance(self.source, VirtualSource)

    @property
    def donning(self) -> int:
        """Which time the band is put on, from 1."""
        return max(1, self.placement.donning)

    def check(self) -> None:
        """Refuse what cannot be recorded.

        Raises:
            ConfigError: What is wrong.
        """
        check_participant(self.participant, "the setup")
        if not is_code(self.name):
            raise ConfigError(f"{self.name!r} cannot name a session", hint=CODE_RULE)
        if not 1 <= self.donning <= self.protocol.placements:
            raise ConfigError(
                f"{self.protocol.ref} has {self.protocol.placements} placements, there is no number {self.donning}",
                hint="Choose one of them.",
            )
        if not isinstance(self.source, VirtualSource):
            band_plan.check(self.source, "the setup")
        elif self.pose is not None:
            raise ConfigError(
                "a pose source goes beside a live band", hint="A virtual band has no hand that it could follow."
            )

    def plan(self) -> SessionPlan:
        """The session, for the agent."""
        source = self.source
        return SessionPlan(
            name=self.name,
            participant=self.participant,
            source=SyntheticSource(wearer=source.wearer, performance=source.performance, gestures=())
            if isinstance(source, VirtualSource)
            else source,
            purpose=self.protocol.purpose,
            protocol=self.protocol.ref,
            placement=self.placement,
            consent_version=self.consent_version,
            pose=self.pose,
            split=self.split,
        )

    def open(self, clock: Clock, settings: EdgeSettings) -> Take:
        """Its sources; none is connected yet.

        Args:
            clock: Paces and stamps.
            settings: Adapter.

        Raises:
            ConfigError: The band or the pose source cannot be.
        """
        if isinstance(self.source, VirtualSource):
            return Take(self.source.name, (VirtualBand(self.source, clock),), ())
        return open_take(self.plan(), Path(self.base), clock, adapter=settings.adapter)


class Journal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a session goes on from; kept in the spool with the events it follows from, so that the two agree.

    Attributes:
        setup: What is recorded.
        outcomes: What became of trials, by index.
        attempts: Attempts so far.
        rejected: Those that do not count.
        ended: Nothing is prompted any more.
    """

    setup: Setup
    outcomes: dict[int, Outcome] = {}
    attempts: int = 0
    rejected: int = 0
    ended: bool = False

    def pack(self) -> bytes:
        """For the spool."""
        return msgspec.msgpack.encode(self)


def read_journal(note: bytes) -> Journal:
    """The journal in a session's note.

    Raises:
        DataError: MALFORMED: there is none in it.
    """
    try:
        return msgspec.msgpack.decode(note, type=Journal, strict=False)
    except (msgspec.DecodeError, ValueError) as error:
        raise DataError(
            f"the journal of a session cannot be read: {error}",
            reason=Reason.MALFORMED,
            hint="End that session with `embridge session finish`: what was recorded of it is whole.",
        ) from error


def free_name(participant: str, placement: Placement, taken: Iterable[str]) -> str:
    """The next free name of a participant's session, as in "p07_003_R_d2".

    Args:
        participant: Pseudonym.
        placement: Which arm, which donning.
        taken: Names of sessions there are.
    """
    numbers = [0]
    for name in taken:
        head, _, rest = name.partition("_")
        number = rest.partition("_")[0]
        if head == participant and number.isdecimal():
            numbers.append(int(number))
    side = placement.side.value[0].upper()
    return f"{participant}_{max(numbers) + 1:03d}_{side}_d{max(1, placement.donning)}"


def parse_band(word: str, *, adapter: str = "") -> AnyBand | VirtualSource:
    """A band by a word: `virtual[:WEARER[/PERFORMANCE]]`, `KIND`, `KIND@ADDRESS` or `uart:PROFILE`.

    Raises:
        ConfigError: It names none.
    """
    if word.partition(":")[0] == virtual.KIND:
        return virtual.parse(word)
    from embridge_edge.bands.naming import parse

    return parse([word], adapter=adapter).bands[0]


def source_of(word: str, *, adapter: str = "") -> tuple[AnyBand | BandsSource | VirtualSource, AnyPose | None, str]:
    """What to record by a word: a band, or the first session of a plan; band, pose source, folder of its paths.

    Raises:
        ConfigError: It names nothing.
        OperatorError: The plan plays something back.
    """
    if not word.endswith(".toml") or word.startswith("uart:"):
        return parse_band(word, adapter=adapter), None, ""
    from embridge_edge.plan import ReplaySource, load

    path = Path(word)
    first = load(path).session[0]
    if isinstance(first.source, ReplaySource | SyntheticSource):
        raise OperatorError(
            f"the first session of {word} plays something back: nobody would hear the prompts",
            hint="Name a band, or `virtual`; `embridge edge run --plan` records replays.",
        )
    return first.source, first.pose, str(path.parent.resolve())
