"""What live decoding of a session takes from enrolment: the wearer's scale, and their own model where it serves."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from embridge_edge.decode.calibration import load_calibration
from embridge_edge.decode.runtime import Decoder
from embridge_edge.enrol.decoder import WearerDecoder
from embridge_edge.enrol.desk import Desk, release_of
from embridge_shared.clock import Clock
from embridge_shared.errors import DataError
from embridge_shared.preprocess import WearerScale
from embridge_shared.signal import StreamSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Serving:
    """What decodes for a wearer.

    Attributes:
        scale: Theirs.
        source: Their own model; None where the release's scores decide.
    """

    scale: WearerScale
    source: WearerDecoder | None


def serving(
    state_dir: Path, participant: str, decoder: Decoder, spec: StreamSpec, *, edge: str, clock: Clock
) -> Serving:
    """What decodes for a wearer under the release that runs.

    What was enrolled and cannot be read is told of and left out: the release still decodes.

    Args:
        state_dir: The edge's state folder.
        participant: Pseudonym.
        decoder: The release.
        spec: The band.
        edge: Name of this edge.
        clock: Dates what is kept.

    Raises:
        OperatorError: NOT_FOUND: nobody calibrated the wearer with this band and release.
        DataError: The calibration is damaged.
    """
    desk = Desk(state_dir, participant, release_of(decoder.bundle), edge=edge, clock=clock)
    try:
        if desk.store.held().repetitions:
            scale = desk.view(spec).scale
            source, found = desk.evidence(spec, decoder)
            if found.choice.said:
                logger.warning("%s", found.choice.said)
            if source is not None and scale is not None:
                logger.info("the wearer's own model decodes, on %s", source.release)
                return Serving(scale, source)
    except DataError as error:
        logger.error("what the wearer enrolled is left out: %s", error)
    preprocess = decoder.manifest.preprocess
    return Serving(load_calibration(state_dir, participant, preprocess, spec).scale, None)
