"""Pose sources as words: `udp`, `udp:9763`, `osc:9000`, `lsl`, `lsl:NAME`, `camera:MODEL.task`."""

from __future__ import annotations

from typing import Any

import msgspec

from embridge_edge.pose.plan import AnyPose
from embridge_shared.errors import ConfigError

_PLACES = {"udp": "port", "osc": "port", "lsl": "stream", "camera": "model"}


def parse(word: str, **options: Any) -> AnyPose:
    """The source that a word names.

    Args:
        word: KIND or KIND:PLACE.
        options: Further fields of the source.

    Raises:
        ConfigError: There is no such kind, or its place makes no sense.
    """
    kind, _, place = word.partition(":")
    if kind not in _PLACES:
        raise ConfigError(f"there is no pose source {kind!r}", hint=f"Known: {', '.join(_PLACES)}.")
    fields: dict[str, Any] = {"kind": kind, **options}
    if place:
        fields[_PLACES[kind]] = place
    try:
        source: AnyPose = msgspec.convert(fields, type=AnyPose, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{word}: {error}", hint="As in udp:9763, osc:9000, lsl:NAME, camera:MODEL.task.") from error
    return source
