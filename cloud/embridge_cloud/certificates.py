"""When certificates end: the cloud process's own and those the edges tell of, in the log and among the metrics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from embridge_cloud.api.metrics import EDGES_SHOWN, gauges
from embridge_cloud.store.hot import HotStore
from embridge_shared import tls
from embridge_shared.clock import Clock
from embridge_shared.errors import ConfigError, EmbridgeError
from embridge_shared.settings import Settings

logger = logging.getLogger(__name__)

_DAY_S: Final = 86_400.0
_EDGES: Final = """
SELECT edge, CAST(body->>'certificate_ends_ns' AS BIGINT) FROM edges
WHERE CAST(body->>'certificate_ends_ns' AS BIGINT) > 0 ORDER BY edge LIMIT ?
"""


class Certificates(Collector):
    """Looks at certificates.

    Args:
        settings: Names the process's own.
        store: Knows what the edges told.
        clock: Time.
    """

    def __init__(self, settings: Settings, store: HotStore, clock: Clock) -> None:
        mqtt, http = settings.mqtt, settings.cloud.http_cert_file
        self._own = {"http": http, "broker": mqtt.cert_file if mqtt.ca_file is not None else None}
        self._store = store
        self._clock = clock

    def own(self) -> dict[str, int]:
        """When the process's own end, Unix time, ns: towards the "broker", and of the "http" interface."""
        found = {}
        for name, path in self._own.items():
            try:
                if path is not None:
                    found[name] = int(tls.expires_at(path).timestamp()) * 1_000_000_000
            except ConfigError as error:
                logger.warning("%s", error)
        return found

    def edges(self) -> dict[str, int]:
        """When those of edges end, Unix time, ns, by name."""
        return dict(self._store.read.rows(_EDGES, [EDGES_SHOWN]))

    def warn(self) -> None:
        """Speak of every certificate that ends within a month."""
        now_ns = self._clock.wall_ns()
        own = {f"the cloud's {name} certificate": end for name, end in self.own().items()}
        for what, end_ns in (own | {f"the certificate of {edge}": end for edge, end in self.edges().items()}).items():
            if warning := tls.expiry_warning(what, end_ns, now_ns):
                logger.warning("%s", warning)

    async def watch(self, stopping: asyncio.Event) -> None:
        """Warn once a day until `stopping` is set."""
        while not stopping.is_set():
            try:
                await asyncio.to_thread(self.warn)
            except EmbridgeError as error:
                logger.warning("certificates were not looked at: %s", error)
            await self._clock.sleep(_DAY_S)

    def describe(self) -> Iterable[Metric]:
        """Nothing ahead of time."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The ends as figures."""
        own = {(name,): end * 1e-9 for name, end in self.own().items()}
        yield gauges("certificate_end_timestamp_seconds", "When a certificate ends.", ["certificate"], own)
        try:
            told = {(edge,): end * 1e-9 for edge, end in self.edges().items()}
        except EmbridgeError as error:
            logger.warning("metrics are incomplete: %s", error)
            return
        yield gauges("edge_certificate_end_timestamp_seconds", "When an edge's certificate ends.", ["edge"], told)
