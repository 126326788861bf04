"""Who the edge is towards the broker: its certificate, and when that ends."""

from __future__ import annotations

import logging

from embridge_shared import tls
from embridge_shared.errors import ConfigError, Reason
from embridge_shared.settings import Settings

logger = logging.getLogger(__name__)

_DAY_NS = 86_400_000_000_000


class Credentials:
    """The certificate the edge shows; a renewed file counts from the next look on.

    Args:
        settings: Name and files.

    Raises:
        ConfigError: A file cannot be used, is open to everybody, names another edge, or nothing protects the link
            beyond this machine.
    """

    def __init__(self, settings: Settings) -> None:
        self._mqtt = settings.mqtt
        self._seen: tuple[int, int] = (0, 0)  # mtime and end, ns
        self._told_ns = 0
        tls.tls_context(settings.mqtt)
        if settings.mqtt.ca_file is not None and settings.mqtt.cert_file is not None:
            name = tls.common_name(settings.mqtt.cert_file)
            if name != settings.edge.name:
                raise ConfigError(
                    f"this edge is {settings.edge.name!r} and its certificate names {name!r}",
                    reason=Reason.WRONG_EDGE,
                    hint="Set edge.name to the certificate's, or install the right bundle: `embridge edge install`.",
                )

    @property
    def ends_ns(self) -> int:
        """Unix time the certificate ends, ns; 0 without one, or while its file cannot be read."""
        path = self._mqtt.cert_file
        if self._mqtt.ca_file is None or path is None:
            return 0
        try:
            changed_ns = path.stat().st_mtime_ns
            if changed_ns != self._seen[0]:
                self._seen = (changed_ns, tls.expiry_ns(self._mqtt))
        except (OSError, ConfigError) as error:
            logger.debug("the certificate cannot be looked at: %s", error)
            return 0
        return self._seen[1]

    def watch(self, now_ns: int) -> int:
        """When the certificate ends, as `ends_ns`; within its last month it is warned of once a day.

        Args:
            now_ns: Unix time, ns.
        """
        end_ns = self.ends_ns
        warning = tls.expiry_warning("this edge's certificate", end_ns, now_ns)
        if warning and abs(now_ns - self._told_ns) >= _DAY_NS:
            self._told_ns = now_ns
            logger.warning("%s: `embridge site edge NAME --renew` makes the bundle", warning)
        return end_ns
