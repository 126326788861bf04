"""What a run is told: data, cut, split and learning, in one TOML file that can be printed, edited and read back."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from embridge_cloud.datasets.config import CutConfig
from embridge_cloud.learn.config import LearnConfig
from embridge_cloud.learn.presets import PresetName, merged, preset
from embridge_shared.errors import ConfigError, Reason

_NONE = "none"
_FIELD = re.compile(r"^ {4}(\w+): (.+)$")


class SplitConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who trains and what stays unseen.

    Attributes:
        unseen: Gestures whose EMG nobody shows: the name of a fold, or gestures by name or number. Empty for none.
        test: Participants nothing is taken from, by name or number; empty takes a group of the benchmark.
        validation: Participants who only watch the training.
        pose_enrolled: Let the pose encoder see the training participants' poses of unseen gestures.
    """

    unseen: tuple[str, ...] = ("A",)
    test: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    pose_enrolled: bool = False


class RunSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A training run.

    Attributes:
        preset: Where [learn] starts from.
        data: As in "ninapro:FOLDER"; "windows:FOLDER" is what `embridge learn cut` wrote.
        seed: Of everything.
        checkpoint_every: Steps between two points a killed run can go on from.
        pretrained: Folder of a first stage to align; empty runs one.
        shuffle_pairs: A control: poses change places among the training windows.
    """

    preset: PresetName = "quick"
    data: str = ""
    seed: int = 0
    checkpoint_every: int = 200
    pretrained: str = ""
    shuffle_pairs: bool = False
    split: SplitConfig = SplitConfig()
    cut: CutConfig = CutConfig()
    learn: LearnConfig

    def __post_init__(self) -> None:
        if self.checkpoint_every < 1 or self.seed < 0:
            raise ConfigError("checkpoint_every must be at least 1 and seed not negative")


def default_spec(name: PresetName) -> RunSpec:
    """The run a preset describes, with windows of the length and rate it learns from."""
    learn = preset(name)
    waveform = learn.emg.rate_hz > 1000
    cut = CutConfig(
        window_s=learn.emg.window_s,
        stride_s=learn.emg.window_s / 2 if waveform else 0.6,
        rate_hz=learn.emg.rate_hz,
        emg="waveform" if waveform else "envelope",
        pose_rate_hz=learn.pose.rate_hz,
    )
    return RunSpec(preset=name, cut=cut, learn=learn)


def read_spec(path: Path) -> RunSpec:
    """Read a TOML file: `preset` names the start, every other key replaces a value of it.

    Raises:
        ConfigError: The file is missing or no TOML, or a key or value is not known; the message names it.
    """
    try:
        return parse_spec(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"no configuration {path}", reason=Reason.NOT_FOUND, hint="`embridge learn config` prints one."
        ) from None
    except (ConfigError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None


def parse_spec(text: str) -> RunSpec:
    """As `read_spec`, from text."""
    try:
        given = msgspec.toml.decode(text)
        base = msgspec.to_builtins(default_spec(given.get("preset", "quick")))
        whole = merged(base, given)
        whole["cut"] = {k: None if v == _NONE else v for k, v in whole["cut"].items()}
        return msgspec.convert(whole, RunSpec)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ConfigError(str(error)) from None


def to_toml(spec: RunSpec, *, comments: bool = True) -> str:
    """Every value of a run as TOML that `parse_spec` reads back."""
    head = ["# A training run: `embridge learn align --config FILE --out DIR`.", ""] if comments else []
    return "\n".join([*head, *_table(spec, (), comments)]) + "\n"


def _table(struct: msgspec.Struct, path: tuple[str, ...], comments: bool) -> Iterator[str]:
    """Values first, then tables, as TOML wants it."""
    notes = _notes(type(struct)) if comments else {}
    values = msgspec.structs.asdict(struct)
    if path:
        yield ""
        yield f"[{'.'.join(path)}]"
    for name, value in values.items():
        if not isinstance(value, msgspec.Struct):
            if name in notes:
                yield f"# {notes[name]}"
            # the cut alone has values that "none" takes away; elsewhere nothing is what a preset starts from
            unset = value is None and path[:1] != ("cut",)
            if not unset:
                yield f"{name} = {_literal(value)}"
            elif comments:
                yield f"# {name} is not set"
    for name, value in values.items():
        if isinstance(value, msgspec.Struct):
            yield from _table(value, (*path, name), comments)


def _notes(kind: type) -> Mapping[str, str]:
    """What the docstring says of each attribute, on one line."""
    notes: dict[str, str] = {}
    name = ""
    _, _, body = (inspect.getdoc(kind) or "").partition("Attributes:")
    for line in body.splitlines():
        if found := _FIELD.match(line):
            name = found[1]
            notes[name] = found[2]
        elif name and line.startswith(" " * 8):
            notes[name] += f" {line.strip()}"
        elif line.strip():
            break
    return notes


def _literal(value: object) -> str:
    if value is None:
        return json.dumps(_NONE)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple | list):
        return f"[{', '.join(_literal(v) for v in value)}]"
    if isinstance(value, int | float):
        return repr(value)
    raise ConfigError(f"{value!r} cannot be written as TOML")
