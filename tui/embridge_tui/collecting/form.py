"""The form of a session: who, what, where on the arm; what was typed last is there again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Final

import msgspec
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Grid, Vertical
from textual.message import Message
from textual.suggester import SuggestFromList
from textual.widgets import Button, Input, Select, Static

from embridge_edge.collect.protocol import Protocol, built_in, load
from embridge_edge.collect.setup import UNSTATED, Setup, source_of
from embridge_shared.errors import ConfigError, EmbridgeError, OperatorError
from embridge_shared.session import Placement, Side, Split
from embridge_tui import text

FILE: Final = "collect.json"
_BY_PROTOCOL: Final = "protocol"
_WELCOME: Final = """\
Nothing was recorded at this machine yet. To try it, nobody has to come: the band "virtual" sits on a simulated arm.
 1  Type a code for the participant, p01 for instance, and press [ctrl+g].
 2  The preflight turns green; amber asks for a reason. [enter] begins to record.
 3  [space] starts the prompts; the simulated hand follows them. A bad repetition comes again by itself.
 4  The review counts; [enter] ends the session, and the cloud says when it holds all of it.
[escape] leaves the fields: then 1 to 7 open the other rooms, ? shows every key, ctrl+p finds commands by name."""
_SPLITS: Final = (
    ("as the protocol says", _BY_PROTOCOL),
    ("undecided", Split.UNDECIDED.name),
    ("train", Split.TRAIN.name),
    ("held-out participant", Split.HELD_OUT_PARTICIPANT.name),
    ("held-out session", Split.HELD_OUT_SESSION.name),
    ("held-out placement", Split.HELD_OUT_PLACEMENT.name),
)


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """What is typed once for many sessions; nothing of it is about a person."""

    band: str = "virtual"
    protocol: str = "first-look"
    position: str = "forearm"
    side: Side = Side.RIGHT


class SetupForm(Vertical, can_focus=True):
    """Asks for a session.

    Args:
        state_dir: Of the edge; what was typed last is kept there.
        known: Labels that somebody can be shown.
        adapter: Bluetooth adapter of bands that name none.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+g", "screen.check", "Preflight", id="collect.check", tooltip="Look at band, clocks and consent."),
        Binding(
            "ctrl+r", "screen.resume", "Resume", id="collect.resume", tooltip="Go on with the interrupted session."
        ),
        Binding(
            "ctrl+x", "screen.finish", "End it", id="collect.finish", tooltip="Close the interrupted session as it is."
        ),
        Binding("escape", "rest", "Rooms", id="collect.rest", tooltip="Out of the fields: 1 to 7 open the rooms."),
        Binding("enter", "fill", "Fill in", show=False, id="collect.fill", tooltip="Back to the fields."),
    ]

    class Complete(Message):
        """Everything is filled in."""

    def __init__(self, state_dir: Path, known: Iterable[str], *, adapter: str = "", id: str | None = None) -> None:
        super().__init__(id=id)
        self._path = state_dir / FILE
        self._known = tuple(known)
        self._adapter = adapter
        self._last = _remembered(self._path)

    def compose(self) -> ComposeResult:
        """Fields in the order they are filled in, then what the protocol asks for."""
        last = self._last
        fields = (
            Input(placeholder="code of the consent form", id="participant", restrict=r"[A-Za-z0-9._-]*", max_length=64),
            Input(placeholder="version of the text, if not on record", id="consent", max_length=32),
            Input(last.protocol, id="protocol", suggester=SuggestFromList(built_in()), max_length=200),
            Input(last.band, id="band", suggester=SuggestFromList(["virtual", "open", "myo", "gforce", "mudra"])),
            Input("1", id="donning", type="integer", max_length=2),
            Input(last.position, id="position", max_length=48),
            Input("", placeholder="not measured", id="rotation", type="number", max_length=6),
            Select([("right", "right"), ("left", "left")], value=last.side.value, allow_blank=False, id="side"),
            Select(_SPLITS, value=_BY_PROTOCOL, allow_blank=False, id="split"),
        )
        titles = (
            "participant",
            "consent",
            "protocol",
            "band",
            "placement",
            "where on the arm",
            "electrode 0 from ulna, °",
            "arm",
            "split",
        )
        for field, title in zip(fields, titles, strict=True):
            field.border_title = title
        yield Grid(*fields, id="fields")
        yield Button("Preflight", id="go", variant="primary", compact=True)
        yield Static("", id="about", markup=False)
        if not self._path.exists():
            yield Static(_WELCOME, id="welcome", markup=False)

    def on_mount(self) -> None:
        """Say what the protocol asks for."""
        self.describe()

    def focus_first(self) -> None:
        """To the first field that is empty."""
        self.query_one("#participant" if not self._value("participant") else "#go").focus()

    def action_rest(self) -> None:
        """Out of the fields, so that digits open rooms."""
        self.focus()

    def action_fill(self) -> None:
        """Back to the fields."""
        self.focus_first()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Go on to the next field."""
        event.stop()
        if event.input.id == "protocol":
            self.describe()
        self.screen.focus_next()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Another protocol, another description."""
        event.stop()
        if event.input.id in ("protocol", "donning"):
            self.describe()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Everything is filled in."""
        event.stop()
        self.post_message(self.Complete())

    def prefill(self, setup: Setup, *, donning: int | None = None) -> None:
        """Ask for a session like another one."""
        self.query_one("#participant", Input).value = setup.participant
        stated = "" if setup.consent_version == UNSTATED else setup.consent_version
        self.query_one("#consent", Input).value = stated
        self.query_one("#donning", Input).value = str(setup.donning if donning is None else donning)

    def describe(self) -> None:
        """Say what the protocol asks for."""
        try:
            words = _about(self.protocol())
        except EmbridgeError as error:
            words = str(error)
        self.query_one("#about", Static).update("\n".join(map(text.plain, words.splitlines())))

    def protocol(self) -> Protocol:
        """The protocol that is named.

        Raises:
            ConfigError: There is none, or it is wrong.
        """
        return load(self._value("protocol"), self._known)

    def setup(self, name: str) -> Setup:
        """What is asked for.

        Args:
            name: Of the session.

        Raises:
            EmbridgeError: Something is missing or cannot be.
        """
        participant, band = self._value("participant"), self._value("band")
        if not participant:
            raise OperatorError("nobody is named.", hint="Type the participant's code.")
        protocol = self.protocol()
        source, pose, base = source_of(band, adapter=self._adapter)
        split = str(self.query_one("#split", Select).value)
        made = Setup(
            name=name,
            participant=participant,
            protocol=protocol,
            source=source,
            pose=pose,
            placement=self.placement(),
            consent_version=self._value("consent") or UNSTATED,
            split=protocol.split if split == _BY_PROTOCOL else Split[split],
            base=base,
        )
        made.check()
        self._remember()
        return made

    @property
    def participant(self) -> str:
        """Who is named."""
        return self._value("participant")

    def placement(self) -> Placement:
        """Where the band sits.

        Raises:
            ConfigError: An angle that is no number.
        """
        angle = self._value("rotation")
        try:
            rotation = float(angle) if angle else None
            donning = int(self._value("donning") or 1)
        except ValueError as error:
            raise ConfigError(f"the placement is no number: {error}", hint="Type the angle in degrees.") from error
        side = Side(str(self.query_one("#side", Select).value))
        position = self._value("position") or "forearm"
        return Placement(side=side, position=position, rotation_deg=rotation, donning=donning)

    def _value(self, field: str) -> str:
        return self.query_one(f"#{field}", Input).value.strip()

    def _remember(self) -> None:
        """Keep what the next session needs too; a disk that refuses costs only that."""
        last = Remembered(
            band=self._value("band"),
            protocol=self._value("protocol"),
            position=self._value("position"),
            side=self.placement().side,
        )
        try:
            self._path.write_bytes(msgspec.json.format(msgspec.json.encode(last)))
        except OSError as error:
            self.log.warning(f"{self._path} was not written: {error}")


def _remembered(path: Path) -> Remembered:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Remembered)
    except (OSError, msgspec.DecodeError):
        return Remembered()


def _about(p: Protocol) -> str:
    stretches = [f"{s:g} s of {what}" for s, what in ((p.stretches.rest_s, "rest"), (p.stretches.free_s, "anything"))
                 if s]  # fmt: skip
    t = p.timing
    lines = [
        f"{p.ref}  {p.title}",
        p.about,
        f"{len(p.gestures)} gestures × {p.repetitions} × {p.blocks} blocks = {p.repetitions_total} repetitions, "
        f"about {p.duration_s / 60:.0f} min; {p.placements} placement{'s' if p.placements > 1 else ''}",
        f"each {t.prepare_s:g} s ready, {t.hold_s:g} s held, {t.rest_s:g} s rest"
        + (f"; a block begins with {' and '.join(stretches)}" if stretches else ""),
        f"for {p.purpose}, split {p.split.value.replace('_', ' ') or 'undecided'}",
        ", ".join(p.gestures),
        "",
        f"built in: {', '.join(built_in())}; a file of your own ends in .toml",
    ]
    return "\n".join(line for line in lines if line or line == "")
