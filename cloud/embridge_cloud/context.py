"""What the parts of a running cloud process share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from embridge_cloud.api.events import EventBus
from embridge_cloud.api.health import Health
from embridge_cloud.api.metrics import Metrics
from embridge_cloud.api.tokens import TokenFile
from embridge_cloud.broker import BrokerAddress
from embridge_cloud.ingest import Ingester
from embridge_cloud.store.audit import AuditLog
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.sealed import Catalogue
from embridge_shared.clock import Clock
from embridge_shared.settings import Settings


@dataclass(frozen=True, slots=True)
class CloudPaths:
    """Where a cloud process keeps things, under its state folder.

    Attributes:
        hot: The hot DuckDB file; one a shard range.
        sealed: One folder a sealed session.
        updates: The update repository, served under `/updates`.
    """

    hot: Path
    sealed: Path
    updates: Path

    @classmethod
    def of(cls, settings: Settings) -> CloudPaths:
        """The paths of a configuration."""
        cloud = settings.cloud
        name = f"ingest-{cloud.first_shard}-{cloud.last_shard}.duckdb"
        return cls(
            cloud.state_dir / "hot" / name, cloud.state_dir / "sealed", cloud.state_dir / "registry" / "repository"
        )


@dataclass(frozen=True, slots=True)
class Operating:
    """What those who operate a cloud process see and may do.

    Attributes:
        tokens: Who may call the HTTP interface.
        audit: What was changed, by whom.
        events: What happens; extensions publish their own.
        health: Whether the process does what it is there for.
        metrics: Its figures; extensions may register collectors in `metrics.registry`.
    """

    tokens: TokenFile
    audit: AuditLog
    events: EventBus
    health: Health
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class CloudContext:
    """A running cloud process.

    Attributes:
        settings: Its configuration.
        clock: Its time.
        store: The hot store; ask it through `store.read`.
        catalogue: The sealed sessions.
        ingester: The ingester; `ingester.publish` sends to edges.
        updates_dir: The update repository.
        broker: Where the broker is.
        url: Where the HTTP interface is reached.
        tasks: Supervises background tasks: one that fails ends the process.
        stopping: Set when the process is asked to end.
        operating: Tokens, audit log, events, health and metrics; each is at hand under its own name too.
    """

    settings: Settings
    clock: Clock
    store: HotStore
    catalogue: Catalogue
    ingester: Ingester
    updates_dir: Path
    broker: BrokerAddress
    url: str
    tasks: asyncio.TaskGroup
    stopping: asyncio.Event
    operating: Operating

    @property
    def tokens(self) -> TokenFile:
        """Who may call the HTTP interface."""
        return self.operating.tokens

    @property
    def audit(self) -> AuditLog:
        """What was changed, by whom."""
        return self.operating.audit

    @property
    def events(self) -> EventBus:
        """What happens."""
        return self.operating.events

    @property
    def health(self) -> Health:
        """Whether the process does what it is there for."""
        return self.operating.health

    @property
    def metrics(self) -> Metrics:
        """Figures for a monitor."""
        return self.operating.metrics
