"""Data sets by name: "ninapro:PATH", "ninapro-db7:PATH", "emg2pose:PATH", "store:PATH", and what plugins add.

A plugin is a factory in the entry-point group "embridge.datasets"; it is called without arguments and gives a
`DatasetPlugin`.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from embridge_cloud.datasets.base import Dataset, DatasetPlugin
from embridge_shared.errors import ConfigError, DataError, OperatorError, Reason

GROUP = "embridge.datasets"


@cache
def plugin(name: str) -> DatasetPlugin:
    """The kind of data set that is called `name`.

    Raises:
        OperatorError: None is.
        ConfigError: Its plugin does not load.
    """
    entries = _entries()
    if name not in entries:
        raise OperatorError(
            f"no data set is called {name!r}", reason=Reason.NOT_FOUND, hint=f"There are {', '.join(_specs())}."
        )
    try:
        made: DatasetPlugin = entries[name].load()()
    except (ImportError, AttributeError, TypeError) as error:
        if isinstance(error, ModuleNotFoundError) and entries[name].module.startswith("embridge_cloud."):
            raise  # an extra is missing, and the command knows which
        raise ConfigError(
            f"the data set plugin {name!r} ({entries[name].value}) does not load: {error}",
            reason=Reason.MISSING_EXTRA,
            hint="Update or remove the package that brings it.",
        ) from error
    return made


def plugins() -> dict[str, DatasetPlugin]:
    """Every kind of data set that is installed, by name.

    Raises:
        ConfigError: A plugin does not load.
    """
    return {name: plugin(name) for name in _entries()}


def locate(spec: str) -> tuple[DatasetPlugin, str, Path]:
    """Plugin, variant and folder of "NAME[-VARIANT]:PATH", or of a bare path that one plugin recognises.

    Raises:
        OperatorError: Nothing is called so, or there is no such folder.
        DataError: A bare path is recognised by no plugin, or by several.
    """
    name, colon, rest = spec.partition(":")
    if colon and "/" not in name:
        return *_named(name), _folder(rest)
    folder = _folder(spec)
    fitting = [p for p in plugins().values() if p.recognises(folder)]
    if len(fitting) != 1:
        could = " and ".join(p.name for p in fitting) or "no data set that is known"
        raise DataError(
            f"{folder} looks like {could}",
            reason=Reason.NOT_FOUND if not fitting else Reason.INVALID,
            hint=f"Name it: {', '.join(f'{n}:PATH' for n in _entries())}.",
        )
    return fitting[0], "", folder


def open_dataset(spec: str) -> Dataset:
    """Open a data set.

    Args:
        spec: "NAME:PATH", "NAME-VARIANT:PATH", or a path whose contents say what they are.

    Raises:
        EmbridgeError: Nothing is called so, or the folder does not hold it.
    """
    kind, variant, folder = locate(spec)
    return kind.open(folder, variant)


def _named(name: str) -> tuple[DatasetPlugin, str]:
    head, _, variant = name.partition("-")
    known = _entries()
    if name not in known and head in known and variant in plugin(head).variants:
        return plugin(head), variant
    return plugin(name), ""


def _entries() -> dict[str, EntryPoint]:
    return {e.name: e for e in sorted(entry_points(group=GROUP), key=lambda e: e.name)}


def _specs() -> list[str]:
    """Every name that may stand before the colon."""
    return [n for p in plugins().values() for n in (p.name, *(f"{p.name}-{v}" for v in p.variants))]


def _folder(text: str) -> Path:
    folder = Path(text).expanduser()
    if not text or not folder.is_dir():
        raise OperatorError(
            f"there is no folder {text or '(nothing)'!s}",
            reason=Reason.NOT_FOUND,
            hint="Write NAME:PATH, as in ninapro:FOLDER.",
        )
    return folder
