"""Data sets by name: "ninapro:PATH", "ninapro-db7:PATH", "emg2pose:PATH", "store:PATH", and what plugins add.

A plugin is a factory in the entry-point group "embridge.datasets"; it is called without arguments and gives a
`DatasetPlugin`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType

from embridge_cloud.datasets.base import Dataset, DatasetPlugin
from embridge_shared.errors import ConfigError, DataError, OperatorError, Reason

GROUP = "embridge.datasets"


@cache
def plugins() -> Mapping[str, DatasetPlugin]:
    """Every kind of data set that is installed, by name.

    Raises:
        ConfigError: A plugin does not load.
    """
    found: dict[str, DatasetPlugin] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name):
        try:
            found[entry.name] = entry.load()()
        except (ImportError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"the data set plugin {entry.name!r} ({entry.value}) does not load: {error}",
                reason=Reason.MISSING_EXTRA,
                hint="Update or remove the package that brings it.",
            ) from error
    return MappingProxyType(found)


def locate(spec: str) -> tuple[DatasetPlugin, str, Path]:
    """Plugin, variant and folder of "NAME[-VARIANT]:PATH", or of a bare path that one plugin recognises.

    Raises:
        OperatorError: Nothing is called so, or there is no such folder.
        DataError: A bare path is recognised by no plugin, or by several.
    """
    name, colon, rest = spec.partition(":")
    if colon and "/" not in name:
        plugin, variant = _named(name)
        return plugin, variant, _folder(rest)
    folder = _folder(spec)
    fitting = [p for p in plugins().values() if p.recognises(folder)]
    if len(fitting) != 1:
        could = " and ".join(p.name for p in fitting) or "no data set that is known"
        raise DataError(
            f"{folder} looks like {could}",
            reason=Reason.NOT_FOUND if not fitting else Reason.INVALID,
            hint=f"Name it: {', '.join(f'{n}:PATH' for n in plugins())}.",
        )
    return fitting[0], "", folder


def open_dataset(spec: str) -> Dataset:
    """Open a data set.

    Args:
        spec: "NAME:PATH", "NAME-VARIANT:PATH", or a path whose contents say what they are.

    Raises:
        EmbridgeError: Nothing is called so, or the folder does not hold it.
    """
    plugin, variant, folder = locate(spec)
    return plugin.open(folder, variant)


def _named(name: str) -> tuple[DatasetPlugin, str]:
    known = plugins()
    if name in known:
        return known[name], ""
    head, _, variant = name.partition("-")
    if head in known and variant in known[head].variants:
        return known[head], variant
    names = [n for p in known.values() for n in (p.name, *(f"{p.name}-{v}" for v in p.variants))]
    raise OperatorError(
        f"no data set is called {name!r}", reason=Reason.NOT_FOUND, hint=f"There are {', '.join(names)}."
    )


def _folder(text: str) -> Path:
    folder = Path(text).expanduser()
    if not text or not folder.is_dir():
        raise OperatorError(
            f"there is no folder {text or '(nothing)'!s}",
            reason=Reason.NOT_FOUND,
            hint="Write NAME:PATH, as in ninapro:FOLDER.",
        )
    return folder
