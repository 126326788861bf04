"""What a monitor reads: figures of the whole process in Prometheus' text format."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec
from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from embridge_cloud.api.events import EventBus
from embridge_cloud.api.health import Health
from embridge_cloud.ingest import Ingester
from embridge_cloud.status import IngestState
from embridge_cloud.store.hot import HotStore
from embridge_shared.disk import free_bytes
from embridge_shared.errors import EmbridgeError
from embridge_shared.quality.grades import Grade

logger = logging.getLogger(__name__)

disable_created_metrics()  # type: ignore[no-untyped-call]

EDGES_SHOWN: Final = 2000
_COMMIT_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_REQUEST_S = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)
_PROCESS = "embridge_"

_SESSIONS = """
SELECT CASE WHEN z.session IS NOT NULL THEN 'sealed' WHEN e.session IS NOT NULL THEN 'ended' ELSE 'open' END, count(*)
FROM sessions LEFT JOIN session_ends e USING (session) LEFT JOIN sealed_sessions z USING (session) GROUP BY 1
"""
_EDGES = """
SELECT edge, online, spooled, spooled_bytes, received_ns, t_ns, body->'quality' FROM edges ORDER BY edge LIMIT ?
"""


class HttpMetrics:
    """What the HTTP interface counts of itself.

    Attributes:
        requests: By method, route and status.
        seconds: By route.
        refused: By reason.
        audit_failures: Changes that are not in the audit log.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "embridge_http_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "embridge_http_request_seconds", "Time to answer.", ["route"], registry=registry, buckets=_REQUEST_S
        )
        self.refused = Counter("embridge_http_refused", "Requests refused.", ["reason"], registry=registry)
        self.audit_failures = Counter(
            "embridge_audit_failures", "Changes that could not be put into the audit log.", registry=registry
        )


class Metrics:
    """The registry of a cloud process.

    Args:
        ingester: Its ingester; told of every transaction from now on.
        store: Its store.
        health: Its health.
        events: Its bus.

    Attributes:
        registry: Extensions may register collectors of their own.
        http: What the HTTP interface counts.
    """

    def __init__(self, ingester: Ingester, store: HotStore, health: Health, events: EventBus, *, reserve: int) -> None:
        self.registry = CollectorRegistry()
        self.http = HttpMetrics(self.registry)
        commits = Histogram(
            "embridge_ingest_commit_seconds", "Length of a transaction.", registry=self.registry, buckets=_COMMIT_S
        )
        ingester.status.on_commit = lambda took_ms: commits.observe(took_ms * 1e-3)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._health = health
        self._ready = _Ready(health, events)
        for collector in (_Ingest(ingester), _Store(store, reserve), _Edges(store), self._ready):
            self.registry.register(collector)

    async def page(self) -> bytes:
        """The page a monitor reads."""
        self._ready.found = await self._health.check()
        return await asyncio.to_thread(generate_latest, self.registry)


class _Family(Collector):
    """A collector that may ask the database: what fails leaves its figures out and is logged."""

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        try:
            yield from list(self.figures())
        except (EmbridgeError, OSError, msgspec.DecodeError) as error:
            logger.warning("metrics are incomplete: %s", error)

    def figures(self) -> Iterator[Metric]:
        raise NotImplementedError


class _Ingest(_Family):
    def __init__(self, ingester: Ingester) -> None:
        self._ingester = ingester

    def figures(self) -> Iterator[Metric]:
        status, counters = self._ingester.status, self._ingester.counters
        for name, text in _COUNTERS.items():
            yield counter(f"ingest_{name}", text, getattr(counters, name))
        yield counter("ingest_reports", "Commit reports published.", status.reports)
        yield counter("ingest_connections", "Connections made to the broker.", status.connections)
        yield gauge("ingest_connected", "1 while connected to the broker.", float(status.connected))
        states = {(state.value,): float(state is status.state) for state in IngestState}
        yield gauges("ingest_state", "1 for the state of the ingester.", ["state"], states)
        messages, size = self._ingester.backlog
        yield gauge("ingest_backlog_messages", "Received and not yet committed.", messages)
        yield gauge("ingest_backlog_bytes", "Size of what is not yet committed.", size)
        yield counter("sessions_sealed", "Sessions sealed by this process.", status.sealed)
        yield gauge("sessions_unsealable", "Complete sessions whose sealing failed.", len(status.unsealable))
        yield gauges("build_info", "The version that runs.", ["version"], {(version("embridge"),): 1.0})


_COUNTERS: Final = {
    "messages": "Messages taken from the broker.",
    "bytes": "Bytes taken from the broker.",
    "chunks": "Chunks stored.",
    "samples": "Samples stored.",
    "events": "Session events stored.",
    "duplicates": "Chunks and events that came again.",
    "held": "Messages that waited for their session.",
    "refused": "Messages an edge was told to forget.",
    "foreign": "Messages that are none of ours.",
}


class _Store(_Family):
    def __init__(self, store: HotStore, reserve: int) -> None:
        self._store = store
        self._reserve = reserve

    def collect(self) -> Iterator[Metric]:
        found = list(super().collect())
        yield gauge("store_up", "1 if the store answered.", float(bool(found)))
        yield from found

    def figures(self) -> Iterator[Metric]:
        store, read = self._store, self._store.read
        sessions = {"open": 0.0, "ended": 0.0, "sealed": 0.0, **dict(read.rows(_SESSIONS))}
        yield gauges("sessions", "Sessions by state.", ["state"], {(k,): v for k, v in sessions.items()})
        reasons = read.rows("SELECT reason, count(*) FROM quarantine GROUP BY reason ORDER BY reason")
        yield gauges("quarantine_messages", "Messages in quarantine.", ["reason"], {(r,): n for r, n in reasons})
        yield gauge("quarantine_bytes", "Size of the quarantine.", store.quarantine_bytes)
        yield counter("quarantine_skipped", "Messages the full quarantine did not take.", store.quarantine_skipped)
        ((sealed,),) = read.rows("SELECT coalesce(sum(bytes), 0) FROM sealed")
        parts = {("hot",): float(_size_of(store.path)), ("sealed",): float(sealed)}
        yield gauges("store_bytes", "Size of the store.", ["part"], parts)
        yield gauge("disk_free_bytes", "Free on the disk of the store.", free_bytes(store.path))
        yield gauge("disk_reserve_bytes", "Below it nothing is committed.", self._reserve)


class _Edges(_Family):
    def __init__(self, store: HotStore) -> None:
        self._store = store

    def figures(self) -> Iterator[Metric]:
        totals = "SELECT count(*) FILTER (online), count(*) FILTER (NOT online), sum(spooled), sum(spooled_bytes)"
        ((online, offline, items, size),) = self._store.read.rows(f"{totals} FROM edges")
        yield gauges("edges", "Edges by state.", ["state"], {("online",): online, ("offline",): offline})
        yield gauge("spool_items", "Chunks and events that wait on all edges.", items or 0)
        yield gauge("spool_bytes", "Size of what waits on all edges.", size or 0)
        rows = self._store.read.rows(_EDGES, [EDGES_SHOWN])
        for place, (name, text, scale) in enumerate(_EDGE_FIGURES, 1):
            yield gauges(name, text, ["edge"], {(row[0],): float(row[place]) * scale for row in rows})
        offsets = {(row[0],): (row[4] - row[5]) * 1e-9 for row in rows if row[5]}
        yield gauges("edge_clock_offset_seconds", "Cloud's clock less the edge's.", ["edge"], offsets)
        channels: dict[tuple[str, str], float] = {}
        for edge, *_, quality in rows:
            for grade, count in _grades(quality).items():
                channels[edge, grade] = count
        yield gauges("edge_channels", "Channels being recorded by grade.", ["edge", "grade"], channels)


_EDGE_FIGURES: Final = (
    ("edge_online", "1 while connected.", 1.0),
    ("edge_spool_items", "Chunks and events that wait.", 1.0),
    ("edge_spool_bytes", "Size of what waits.", 1.0),
    ("edge_last_seen_timestamp_seconds", "When its last state came, Unix time.", 1e-9),
)


class _Ready(_Family):
    def __init__(self, health: Health, events: EventBus) -> None:
        self._health = health
        self._events = events
        self.found: list[Any] = []

    def figures(self) -> Iterator[Metric]:
        checks = {(check.name,): float(check.ok) for check in self.found}
        yield gauge("ready", "1 while /ready answers 200.", float(bool(checks) and all(checks.values())))
        yield gauges("ready_check", "1 if the check holds.", ["check"], checks)
        yield gauge("event_loop_lag_seconds", "Longest the event loop was late.", self._health.lag.worst_s)
        yield gauge("http_event_streams", "Open streams of events.", self._events.listeners)


def gauge(name: str, text: str, value: float) -> Metric:
    """A gauge without labels, named without "embridge_"."""
    return GaugeMetricFamily(_PROCESS + name, text, value=float(value))


def gauges(name: str, text: str, labels: list[str], values: Mapping[Any, float]) -> Metric:
    """A gauge with labels: a tuple of their values → its value."""
    family = GaugeMetricFamily(_PROCESS + name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(list(key), float(value))
    return family


def counter(name: str, text: str, value: float) -> Metric:
    """A counter without labels, named without "embridge_" and "_total"."""
    return CounterMetricFamily(_PROCESS + name, text, value=float(value))


def _size_of(path: Path) -> int:
    """A database and its log."""
    parts = (path, path.with_name(path.name + ".wal"))
    return sum(part.stat().st_size for part in parts if part.exists())


def _grades(quality: str | None) -> dict[str, int]:
    """Channels by grade, all streams of an edge together."""
    counts = dict.fromkeys((g.value for g in Grade), 0)
    streams = msgspec.json.decode(quality, type=list[dict[str, Any]]) if quality else []
    for stream in streams:
        for grade in stream.get("grades", ()):
            counts[grade] = counts.get(grade, 0) + 1
    return counts if streams else {}
