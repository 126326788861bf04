"""Messages into a store, as the ingester takes them."""

from __future__ import annotations

from embridge_cloud.intake import Intake
from embridge_cloud.parcels import Incoming
from embridge_cloud.store.hot import HotStore
from support.sessions import T0


def take(store: HotStore, messages) -> list:
    """Take messages through one round; the reports to edges."""
    intake = Intake(store.read)
    taken = intake.take([Incoming(topic, payload, T0) for topic, payload in messages])
    store.commit(taken.batch)
    return intake.committed(taken)
