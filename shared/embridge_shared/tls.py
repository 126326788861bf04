"""TLS towards the broker, the same on both ends."""

from __future__ import annotations

import ssl

from embridge_shared.errors import ConfigError
from embridge_shared.settings import MqttSettings


def tls_context(mqtt: MqttSettings) -> ssl.SSLContext | None:
    """The TLS context the settings ask for, or None for a plain connection.

    Raises:
        ConfigError: A certificate or key cannot be loaded.
    """
    if mqtt.ca_file is None:
        return None
    try:
        context = ssl.create_default_context(cafile=str(mqtt.ca_file))
        if mqtt.cert_file is not None:
            context.load_cert_chain(mqtt.cert_file, mqtt.key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"mqtt TLS files: {error}", hint="Check mqtt.ca_file, cert_file and key_file.") from error
    return context
