"""A release fitted to the band and the wearer of a session."""

from __future__ import annotations

from embridge_edge.decode.decision import decision_for
from embridge_edge.decode.runtime import Decoder
from embridge_edge.decode.stream import StreamDecoder
from embridge_edge.enrol.serving import serving
from embridge_edge.plan import SessionPlan
from embridge_shared.clock import Clock
from embridge_shared.decision import DecisionConfig
from embridge_shared.preprocess import worn_ring
from embridge_shared.settings import EdgeSettings
from embridge_shared.signal import StreamSpec


def fit(
    decoder: Decoder, spec: StreamSpec, plan: SessionPlan, settings: EdgeSettings, clock: Clock
) -> tuple[StreamDecoder, DecisionConfig | None]:
    """What decodes a session, and how it decides; None where the release does not say. Blocks for some milliseconds.

    Args:
        decoder: The release, with the gestures the wearer added.
        spec: The band.
        plan: Whose session it is, and what it asks for.
        settings: Of the edge.
        clock: Dates what is kept.

    Raises:
        OperatorError: NOT_FOUND: nobody calibrated the wearer with this band and release.
        DataError: The calibration is damaged.
    """
    found = serving(
        settings.state_dir,
        plan.participant,
        decoder,
        spec,
        edge=settings.name,
        clock=clock,
        auto_turn=settings.auto_turn,
    )
    asked = plan.false_per_hour if plan.false_per_hour is not None else settings.false_per_hour
    stream = StreamDecoder(
        decoder,
        spec,
        found.scale,
        source=found.source,
        hop_s=settings.hop_s if plan.hop_s is None else plan.hop_s,
        ring=worn_ring(spec.n_channels, plan.placement.rotation_deg),
        wearing=found.wearing,
    )
    return stream, decision_for(decoder.manifest, wearer=found.source is not None, target_per_hour=asked)
