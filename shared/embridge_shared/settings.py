"""Settings: TOML files, environment, command line; the later wins, and a typo is an error.

Order: defaults < user file < project file `embridge.toml` < environment `EMBRIDGE_MQTT__HOST` < command line.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from embridge_shared.errors import ConfigError

PROJECT_FILE = "embridge.toml"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MqttSettings(_Section):
    """How to reach the broker."""

    host: str = "127.0.0.1"
    port: int = Field(default=1883, ge=1, le=65535)
    username: str = ""
    password: SecretStr = SecretStr("")
    keepalive_s: int = Field(default=20, ge=2)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


class EdgeSettings(_Section):
    """The edge agent."""

    name: str = "edge-1"
    state_dir: Path = Field(default_factory=lambda: Path(platformdirs.user_state_dir("embridge")) / "edge")
    chunk_s: float = Field(default=0.5, gt=0, le=5)
    """Length of a chunk: messages cost, bytes hardly."""
    window: int = Field(default=64, ge=1)
    """Chunks in flight before the uplink waits for a commit."""
    resend_s: float = Field(default=4.0, gt=0)
    """Send again what no commit has covered for so long."""
    spool_max_bytes: int = Field(default=8 << 30, ge=1 << 20)
    """Recording stops with an error before the spool outgrows this; nothing unacknowledged is evicted."""
    backoff_max_s: float = Field(default=30.0, gt=0)
    update_root: Path | None = None
    """The signed root of the update repository, given when the edge is provisioned; without it no release is taken."""
    release_wait_s: float = Field(default=120.0, ge=0)
    """How long a session that decodes waits for a release to arrive."""
    int8: bool = True
    """Decode with the quantised encoder."""


class CloudSettings(_Section):
    """The cloud process."""

    state_dir: Path = Field(default_factory=lambda: Path(platformdirs.user_data_dir("embridge")) / "cloud")
    first_shard: int = Field(default=0, ge=0, le=255)
    last_shard: int = Field(default=255, ge=0, le=255)
    commit_s: float = Field(default=0.25, gt=0)
    """Longest wait before a batch is committed."""
    commit_chunks: int = Field(default=400, ge=1)
    """A batch is committed at once at this size."""
    quarantine_max_bytes: int = Field(default=256 << 20, ge=1 << 16)
    http_host: str = "127.0.0.1"
    http_port: int = Field(default=8470, ge=0, le=65535)
    """0 takes any free port."""
    public_url: str = ""
    """Where edges reach this process; by default the address it listens on."""
    embedded_broker: bool = False
    """Run an MQTT broker inside this process; for demonstrations and single machines."""


class LogSettings(_Section):
    """Logs."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    json_file: Path | None = None


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix="EMBRIDGE_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    mqtt: MqttSettings = MqttSettings()
    edge: EdgeSettings = Field(default_factory=EdgeSettings)
    cloud: CloudSettings = Field(default_factory=CloudSettings)
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line over environment over project file over user file."""
        return (
            init_settings,
            env_settings,
            *(TomlConfigSettingsSource(settings_cls, path) for path in reversed(config_files())),
        )


def config_files() -> list[Path]:
    """The files that are read, weakest first; `EMBRIDGE_CONFIG` names another project file."""
    project = Path(os.environ.get("EMBRIDGE_CONFIG", PROJECT_FILE))
    return [Path(platformdirs.user_config_dir("embridge")) / "config.toml", project]


def load(**overrides: Any) -> Settings:
    """Read the settings; `overrides` are sections given on the command line.

    Raises:
        ConfigError: A file is no TOML, or a key or value is not known; the message names it.
    """
    named = os.environ.get("EMBRIDGE_CONFIG")
    if named and not Path(named).is_file():
        raise ConfigError(f"EMBRIDGE_CONFIG names {named}, which is no file")
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ConfigError(
            "settings: " + "; ".join(lines), hint="`embridge config show` lists every key with its origin."
        ) from None
    except ValueError as error:  # tomllib
        raise ConfigError(f"settings: {error}") from None
