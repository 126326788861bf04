"""Settings: TOML files, environment, command line; the later wins, and a typo is an error.

Order: defaults < user file < project file `embridge.toml` < credentials < environment `EMBRIDGE_MQTT__HOST` < command
line. A credential is a file of the folder that systemd, or a container's image, names in `CREDENTIALS_DIRECTORY`: it is
called like the key, as in `mqtt.password`, and holds the value; where the key is a path, it is the file itself.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from embridge_shared.durations import seconds
from embridge_shared.errors import ConfigError

PROJECT_FILE = "embridge.toml"
CREDENTIALS = "CREDENTIALS_DIRECTORY"

_HINT = "`embridge config schema` lists every key and what it takes."


def _seconds(value: Any) -> Any:
    """A text with a unit in seconds; everything else is left to be judged as a number."""
    try:
        return seconds(value) if isinstance(value, str) else value
    except ConfigError as error:
        raise ValueError(str(error)) from None


LocalPath = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]
"""A path on this machine: `~` is the user's home, a relative one starts from the working directory."""

Seconds = Annotated[float, BeforeValidator(_seconds)]
"""A length of time, s; in a text it may have a unit, as in "2h"."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class MqttSettings(_Section):
    """How to reach the broker."""

    host: str = "127.0.0.1"
    """Name or address of the broker."""
    port: int = Field(default=1883, ge=1, le=65535)
    """Its port; 8883 by custom with TLS."""
    username: str = ""
    """Empty for an anonymous connection."""
    password: SecretStr = SecretStr("")
    """Never shown; set it in the environment or in a file only the service may read."""
    keepalive_s: int = Field(default=20, ge=2)
    """The broker takes a connection for dead after 1.5 times as long without a word."""
    ca_file: LocalPath | None = None
    """Certificates the broker's own is checked against, PEM; setting it turns TLS on."""
    cert_file: LocalPath | None = None
    """Certificate to show to the broker, PEM."""
    key_file: LocalPath | None = None
    """Its private key, PEM; unset where it lies in `cert_file`."""
    insecure: bool = False
    """Allow a plain connection, and an embedded broker, that others than this machine can reach."""


class EdgeSettings(_Section):
    """The edge agent."""

    name: str = "edge-1"
    """Unique in the fleet; part of every topic, and the common name of the edge's certificate."""
    state_dir: LocalPath = Field(default_factory=lambda: Path(platformdirs.user_state_dir("embridge")) / "edge")
    """Spool, calibrations, digests and releases; one agent a folder."""
    plan: LocalPath | None = None
    """Sessions that `embridge edge run` records when it is given no other plan, TOML."""
    chunk_s: float = Field(default=0.5, gt=0, le=5)
    """Length of a chunk: messages cost, bytes hardly."""
    window: int = Field(default=64, ge=1)
    """Chunks in flight before the uplink waits for a commit."""
    resend_s: float = Field(default=4.0, gt=0)
    """Send again what no commit has covered for so long."""
    spool_max_bytes: int = Field(default=8 << 30, ge=1 << 20)
    """Recording stops with an error before the spool outgrows this; nothing unacknowledged is evicted."""
    reserve_bytes: int = Field(default=512 << 20, ge=0)
    """Room on the spool's disk that recording leaves; below four times as much the edge's state says that it is low."""
    backoff_max_s: float = Field(default=30.0, gt=0)
    """Longest wait between two attempts to connect or to update."""
    update_root: LocalPath | None = None
    """The signed root of the update repository, given when the edge is provisioned; without it no release is taken."""
    update_ca_file: LocalPath | None = None
    """Certificates that whoever hands out releases is checked against, PEM; by default the system's."""
    update_route: Literal["auto", "http", "mqtt"] = "auto"
    """How releases come here: over HTTP, in blocks over the broker, or so where HTTP reaches nobody."""
    update_check_s: float = Field(default=21_600.0, gt=0)
    """How often the registry is asked whether it recalled what runs here, about."""
    release_wait_s: float = Field(default=120.0, ge=0)
    """How long a session that decodes waits for a release to arrive."""
    int8: bool = True
    """Decode with the quantised encoder."""
    hop_s: float | None = Field(default=None, gt=0)
    """Time between two decisions, by default the release's: a fraction or a multiple of its patch; also in a plan."""
    false_per_hour: float | None = Field(default=None, gt=0)
    """False activations an hour to put up with, by default those the release was fitted for; also in a plan."""
    auto_turn: bool = False
    """When a live session begins with the band turned, undo it at once; otherwise it is proposed only."""
    rings: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    """Channels that are a ring of evenly spaced electrodes, in order around the arm, by device, beside known bands."""
    lsl_out: bool = False
    """Republish what is recorded as LSL outlets; a plan can say otherwise."""
    adapter: str = ""
    """Bluetooth adapter: `platform`, `hci1`, `usb:0`, `tcp-client:HOST:PORT`; by default the system's own. A plan or
    `--adapter` can name another."""


class OutputSettings(_Section):
    """Where decisions go while an edge decodes, for programs and devices."""

    enabled: tuple[str, ...] = ()
    """`websocket[:PORT]`, `osc[:HOST:PORT]`, `lsl`, `mqtt`, `keys:MAPPING.toml`; a plan can say otherwise."""
    updates_hz: float = Field(default=10.0, ge=0, le=1000)
    """Decisions a second that are sent beside gestures; no more than there are hops. 0 sends gestures alone."""
    websocket_host: str = "127.0.0.1"
    """Address the WebSocket server listens on; beyond this machine only with a token."""
    websocket_port: int = Field(default=8471, ge=0, le=65535)
    """0 takes any free port."""
    websocket_token: SecretStr = SecretStr("")
    """Token that every client must show; never shown itself. None is asked for when empty."""
    websocket_origins: tuple[str, ...] = ()
    """Web pages that may connect from a browser, as in "https://panel.example"; none by default but the page itself."""
    websocket_hosts: tuple[str, ...] = ()
    """Further names the server is asked by; clients that ask for others are refused."""
    websocket_page: LocalPath | None = None
    """HTML file that the WebSocket server hands out at `/`."""
    osc_host: str = "127.0.0.1"
    """Where OSC messages go."""
    osc_port: int = Field(default=9000, ge=1, le=65535)
    """The UDP port there."""
    osc_gesture: str = "/embridge/gesture/{gesture}"
    """Address of gestures; `{gesture}` and `{change}` are filled in. Empty sends none."""
    osc_decision: str = "/embridge/decision"
    """Address of decisions; empty sends none."""
    keys_dry_run: bool = False
    """Only say which keys would be pressed."""
    mqtt_updates_hz: float = Field(default=0.0, ge=0, le=50)
    """Decisions a second on the live topic of MQTT; 0 sends gestures alone."""


class CloudSettings(_Section):
    """The cloud process."""

    state_dir: LocalPath = Field(default_factory=lambda: Path(platformdirs.user_data_dir("embridge")) / "cloud")
    """Hot database, sealed sessions, jobs, registry and its keys; one process a shard range."""
    first_shard: int = Field(default=0, ge=0, le=255)
    """First shard this process ingests."""
    last_shard: int = Field(default=255, ge=0, le=255)
    """Last shard this process ingests."""
    commit_s: float = Field(default=0.25, gt=0)
    """Longest wait before a batch is committed."""
    commit_chunks: int = Field(default=2100, ge=1)
    """A batch is committed at once at this size; from 2048 chunks on the store writes each of them once only."""
    quarantine_max_bytes: int = Field(default=256 << 20, ge=1 << 16)
    """Bound of the quarantine; what an edge was told to forget is kept even beyond it."""
    reserve_bytes: int = Field(default=1 << 30, ge=0)
    """Room on the store's disk that ingest leaves: below it nothing is committed and the edges keep everything."""
    http_host: str = "127.0.0.1"
    """Address the HTTP interface listens on; beyond this machine only with a certificate."""
    http_port: int = Field(default=8470, ge=0, le=65535)
    """0 takes any free port."""
    http_cert_file: LocalPath | None = None
    """Certificate of the HTTP interface, PEM; setting it turns TLS on."""
    http_key_file: LocalPath | None = None
    """Its private key, PEM."""
    http_insecure: bool = False
    """Listen beyond this machine without TLS: tokens and recordings can be read on the way."""
    http_hosts: tuple[str, ...] = ()
    """Further names it is asked by; requests for other names are refused. "*" takes any."""
    http_origins: tuple[str, ...] = ()
    """Web pages that may ask from a browser, as in "https://panel.example"; none by default."""
    http_proxies: tuple[str, ...] = ()
    """Addresses of reverse proxies whose word on the caller's address is taken."""
    http_rate: float = Field(default=50.0, gt=0)
    """Requests a second of one token, or of one address without; four times as many at once."""
    http_timeout_s: float = Field(default=30.0, gt=0)
    """Longest time for one request, streams of events and files aside."""
    http_max_body_bytes: int = Field(default=1 << 20, ge=1024)
    """Largest body of a request."""
    public_url: str = ""
    """Where edges reach this process; by default the address it listens on."""
    embedded_broker: bool = False
    """Run an MQTT broker inside this process; for demonstrations and single machines."""


class StoreSettings(_Section):
    """What becomes of recordings: consent, retention, backups, the lake."""

    consent_required: bool = False
    """Somebody whose consent is not on record agreed to nothing; by default to what their sessions say."""
    backup_dir: LocalPath | None = None
    """Where `embridge store backup` puts backups by default; another disk."""
    retain_days: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Days that sealed sessions are kept, by purpose, as in {training = 730}; "*" is the rest, for ever the default."""
    retain_withdrawn_days: float | None = Field(default=None, ge=0)
    """Days that sessions are kept whose participant has withdrawn; by default until they are erased by hand."""
    retain_quarantine_days: float | None = Field(default=None, gt=0)
    """Days that quarantined messages are kept; for ever by default."""
    retain_unless_backed_up: bool = True
    """Keep a session beyond its term until a backup holds it."""
    retain_every_h: float = Field(default=0.0, ge=0)
    """Apply retention so often while the cloud process runs; 0 leaves it to `embridge store retention --apply`."""
    lake: SecretStr = SecretStr("")
    """PostgreSQL that catalogues sealed sessions, as in "host=db dbname=embridge"; keep a password in a credential."""
    lake_data: LocalPath | None = None
    """Where the lake keeps its Parquet files; a folder all its writers and readers see."""
    lake_schema: str = Field(default="embridge", pattern=r"^[a-z_][a-z0-9_]{0,62}$")
    """Schema of the lake's catalogue in PostgreSQL."""
    views_every_s: float = Field(default=10.0, gt=0)
    """Refresh `views.duckdb` so often, when something has changed."""


class GateSettings(_Section):
    """What a candidate must hold to become a release."""

    policy: LocalPath | None = None
    """TOML file with margins, floors and costs (docs: Gates); what it leaves out keeps its default."""


class RealignSettings(_Section):
    """When releases are made of new recordings, and what that may take."""

    enabled: bool = False
    """Continue the champion by itself; what follows is a default, `embridge job schedule set` changes it."""
    line: str = Field(default="embridge", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    """Line of releases that is continued."""
    sessions: int = Field(default=8, ge=0)
    """Begin when so many new sealed sessions may be learnt from; 0 does not count them."""
    participants: int = Field(default=0, ge=0)
    """Or new participants."""
    minutes: float = Field(default=0.0, ge=0)
    """Or minutes of new EMG with hand pose."""
    settle_s: Seconds = Field(default=600.0, ge=0)
    """Wait until no session was sealed for so long: what is recorded together is learnt together."""
    timetable: str = ""
    """Also begin at these times, cron: minute, hour, day, month, weekday, as in "0 2 * * *"; where anything is new."""
    timezone: str = ""
    """Of timetable and quiet hours, as in "Europe/Zurich"; by default the machine's."""
    quiet: tuple[str, ...] = ()
    """Hours in which nothing begins, as in ["08:00-18:00"]."""
    min_interval_s: Seconds = Field(default=21_600.0, ge=0)
    """Least time between the begins of two."""
    misfire_s: Seconds = Field(default=43_200.0, ge=0)
    """A time of the timetable that was missed by more, because nothing ran or it was quiet, is let go."""
    rollout: bool = False
    """Roll out what the gates accept, as [rollout] says."""
    replay: int = Field(default=0, ge=0)
    """Windows of earlier sessions to learn from again, evenly over participant, gesture and session; 0 for all."""
    distil: float = Field(default=0.0, ge=0)
    """Weight of staying near the champion's embeddings; 0 for none."""
    memory_mb: int = Field(default=0, ge=0)
    """A training that holds more is ended, MiB; 0 for no limit."""
    threads: int = Field(default=0, ge=0)
    """CPU threads of a training; 0 leaves that to the environment."""
    nice: int = Field(default=5, ge=0, le=19)
    """How far it stands back behind everything else."""
    wall_s: Seconds = Field(default=86_400.0, gt=0)
    """One attempt may take so long."""
    attempts: int = Field(default=3, ge=1)
    """How often a training that was killed is gone on with."""
    checkpoint_steps: int = Field(default=50, ge=0)
    """Steps between two checkpoints; 0 keeps none."""


class RolloutSettings(_Section):
    """How releases reach the fleet, where a rollout does not say otherwise."""

    waves: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (0.05, 0.25, 1.0)
    """Share of the edges that each wave brings it to, all waves before it included; the last one is 1."""
    approve: tuple[str, ...] = ()
    """Waves that somebody must approve, as in ["all"]; of three they are called canary, early and all."""
    soak_s: Seconds = Field(default=600.0, ge=0)
    """Wait after enough of a wave succeeded, in which errors still count."""
    success: float = Field(default=0.95, gt=0, le=1)
    """Share of a wave that must have committed."""
    max_errors: float = Field(default=0.02, ge=0, le=1)
    """Share of the edges asked so far that may have failed; one more stops the rollout."""
    error_floor: int = Field(default=0, ge=0)
    """So many errors never stop it."""
    retries: int = Field(default=3, ge=1)
    """Tries of an edge that fail before it counts as an error."""
    patience_s: Seconds = Field(default=3600.0, gt=0)
    """A connected edge that says nothing for so long counts as an error; one that is away is waited for as long."""
    max_p99_ms: float = Field(default=250.0, gt=0)
    """An edge whose latency is worse counts as an error."""
    min_rate: float = Field(default=0.8, ge=0, le=1)
    """So does one that decodes fewer of the windows that are due."""
    max_confidence_loss: float = Field(default=0.25, ge=0, le=1)
    """So does one whose mean confidence fell by more since its shadow run."""
    on_error: Literal["roll_back", "pause"] = "roll_back"
    """Recall the release and return every edge that took it, or wait for somebody."""
    shadow_windows: int = Field(default=300, ge=0)
    """Windows an edge decodes beside the release in force before it takes a new one; 0 for none."""
    shadow_s: Seconds = Field(default=60.0, ge=0)
    """At most so long."""
    probation_s: Seconds = Field(default=60.0, ge=0)
    """How long an edge runs a release before it keeps it."""
    max_crashes: int = Field(default=2, ge=1)
    """So many crashes meanwhile, and the one before runs again."""
    min_windows: int = Field(default=50, ge=1)
    """Health counts from so many windows on."""


class ApiSettings(_Section):
    """How commands on this machine reach the cloud's HTTP interface."""

    url: str = ""
    """Its address; by default that of a cloud process on this machine."""
    token: SecretStr = SecretStr("")
    """Token to show; never shown itself. Set it in the environment or in a file only you may read."""
    token_file: LocalPath | None = None
    """File that holds the token; by default the one that a cloud process on this machine keeps for its own commands."""
    ca_file: LocalPath | None = None
    """Certificates the interface's own is checked against, PEM; by default the system's."""
    insecure: bool = False
    """Show the token beyond this machine without TLS too."""


class TuiSettings(_Section):
    """The terminal interface."""

    theme: str = "embridge-dark"
    """One that ctrl+p shows in `embridge tui`; `embridge-sight` tells states apart without red and green."""
    glyphs: Literal["braille", "blocks"] = "braille"
    """What scope and hand are drawn with; blocks where the terminal's font has no braille."""
    band: str = "virtual"
    """Band that Enrol and Live begin with, as `--band` names it."""
    keymap: dict[str, str] = {}
    """Other keys, by the id that the help shows: `"go.fleet" = "f4"`; several keys with commas."""


class LogSettings(_Section):
    """Logs."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least level that is written."""
    style: Literal["auto", "text", "json"] = "auto"
    """What standard error is given: text for people or JSON lines; by itself text, with levels for the journal."""
    json_file: LocalPath | None = None
    """Also write JSON lines to this file; 16 MiB each, four old ones are kept."""


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(env_prefix="EMBRIDGE_", env_nested_delimiter="__", extra="forbid", frozen=True)

    mqtt: MqttSettings = MqttSettings()
    edge: EdgeSettings = Field(default_factory=EdgeSettings)
    outputs: OutputSettings = OutputSettings()
    cloud: CloudSettings = Field(default_factory=CloudSettings)
    store: StoreSettings = StoreSettings()
    gate: GateSettings = GateSettings()
    realign: RealignSettings = RealignSettings()
    rollout: RolloutSettings = RolloutSettings()
    api: ApiSettings = ApiSettings()
    tui: TuiSettings = TuiSettings()
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
        """Command line over environment over credentials over project file over user file."""
        return (
            init_settings,
            env_settings,
            InitSettingsSource(settings_cls, _credentials()),
            *(TomlConfigSettingsSource(settings_cls, path) for path in reversed(config_files())),
        )


def config_files() -> list[Path]:
    """The files that are read, weakest first; `EMBRIDGE_CONFIG` names another project file."""
    project = Path(os.environ.get("EMBRIDGE_CONFIG", PROJECT_FILE))
    return [Path(platformdirs.user_config_dir("embridge")) / "config.toml", project]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from: "default", or the file or environment variable that set it."""

    key: str
    value: Any
    origin: str


def load(**overrides: Any) -> Settings:
    """Read the settings; `overrides` are sections given on the command line.

    Raises:
        ConfigError: A file is no TOML, or a key or value is not known; the message names it.
    """
    named = os.environ.get("EMBRIDGE_CONFIG")
    if named and not Path(named).is_file():
        raise ConfigError(f"EMBRIDGE_CONFIG names {named}, which is no file", hint="Correct or unset it.")
    given = [*_given(), ("command line", overrides)]
    try:
        return Settings(**overrides)
    except ValidationError as error:
        faults = [(".".join(map(str, e["loc"])), _fault(e["type"], e["msg"])) for e in error.errors()]
        lines = [f"{key} ({_origin(given, key, 'default')}): {fault}" for key, fault in faults]
        raise ConfigError("settings: " + "; ".join(lines), hint=_HINT) from None
    except ValueError as error:  # a section of the environment that is no JSON
        raise ConfigError(f"settings: {error}", hint=_HINT) from None


def origins(settings: Settings) -> list[Origin]:
    """Every key with its value and the strongest place that sets it."""
    given = _given()
    return [
        Origin(key, getattr(getattr(settings, section), name), _origin(given, key, "default"))
        for section, model in sections().items()
        for name in model.model_fields
        for key in [f"{section}.{name}"]
    ]


def sections() -> dict[str, type[BaseModel]]:
    """The sections by name, in order."""
    return {
        name: field.annotation
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }


def _given() -> list[tuple[str, dict[str, Any]]]:
    """What files and environment say, weakest first, each with its name."""
    found = [(str(path), _read_toml(path)) for path in config_files() if path.is_file()]
    found.append(("credential", _credentials()))
    try:
        return [*found, ("environment", EnvSettingsSource(Settings)())]
    except ValueError:  # reported by `load`, which meets it too
        return found


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read as TOML: {error}", hint="`embridge config path` lists what is read."
        ) from None


def _credentials() -> dict[str, dict[str, str]]:
    """Values of the credentials this process was given; a file that is not called like a key is none of ours."""
    folder = Path(os.environ.get(CREDENTIALS) or os.devnull)
    known, found = sections(), dict[str, dict[str, str]]()
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        section, _, name = path.name.partition(".")
        if section in known and name:
            found.setdefault(section, {})[name] = _credential(path, known[section], name)
    return found


def _credential(path: Path, section: type[BaseModel], name: str) -> str:
    """What a credential sets its key to."""
    field = section.model_fields.get(name)
    if field is not None and "Path" in str(field.annotation):
        return str(path)
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the credential {path} cannot be read: {error}", hint="Only the service's user must be able to read it."
        ) from None


def _fault(kind: str, message: str) -> str:
    return "there is no such setting" if kind == "extra_forbidden" else message[:1].lower() + message[1:]


def _origin(given: list[tuple[str, dict[str, Any]]], key: str, otherwise: str) -> str:
    section, _, name = key.partition(".")
    for source, values in reversed(given):
        part = values.get(section)
        if part is not None and (not name or (isinstance(part, dict) and name.partition(".")[0] in part)):
            if source == "credential":
                return f"credential {key}"
            variable = f"EMBRIDGE_{section}{f'__{name}' if name else ''}".upper()
            return f"environment {variable}" if source == "environment" else source
    return otherwise
