"""What live decoding of a session takes from enrolment: the wearer's scale, and their own model where it serves."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from embridge_edge.decode.calibration import Calibration, load_calibration
from embridge_edge.decode.drift import usual_distance
from embridge_edge.decode.runtime import Decoder
from embridge_edge.decode.wearing import Own, Wearing, wearing
from embridge_edge.enrol.decoder import WearerDecoder
from embridge_edge.enrol.desk import Desk, release_of
from embridge_shared.clock import Clock
from embridge_shared.errors import DataError, EmbridgeError
from embridge_shared.preprocess import WearerScale
from embridge_shared.signal import StreamSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Serving:
    """What decodes for a wearer.

    Attributes:
        scale: Theirs.
        source: Their own model; None where the release's scores decide.
        wearing: Watches how the band sits; None without a calibration to hold it against.
    """

    scale: WearerScale
    source: WearerDecoder | None
    wearing: Wearing | None = None


def serving(
    state_dir: Path,
    participant: str,
    decoder: Decoder,
    spec: StreamSpec,
    *,
    edge: str,
    clock: Clock,
    auto_turn: bool = False,
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
        auto_turn: Undo a turn of the band that is worth it without being asked.

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
                known = desk.calibrations.for_band(participant, decoder.manifest.preprocess, spec)
                watch = None if known is None else _watched(desk, known, spec, auto_turn=auto_turn)
                return Serving(scale, source, watch)
    except DataError as error:
        logger.error("what the wearer enrolled is left out: %s", error)
    preprocess = decoder.manifest.preprocess
    calibration = load_calibration(state_dir, participant, preprocess, spec)
    return Serving(calibration.scale, None, _watched(desk, calibration, spec, auto_turn=auto_turn))


def _watched(desk: Desk, calibration: Calibration, spec: StreamSpec, *, auto_turn: bool) -> Wearing:
    """What watches how the band sits."""
    own = Own()
    try:
        view = desk.view(spec)
        model = view.model() if view.own else None
        if model is not None:
            own = Own(model, usual_distance(model, view.own))
    except EmbridgeError as error:
        logger.warning("drift is told from how the band sits alone: %s", error)
    return wearing(
        desk.state_dir,
        calibration,
        desk.release.preprocess,
        now_ns=desk.clock.wall_ns(),
        own=own,
        auto=auto_turn,
    )
