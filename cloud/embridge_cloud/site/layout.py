"""The files of a site: what the broker, the cloud and the commands on it are given.

site.json   what was issued; no secret
ca/         the authority; its key belongs on a medium of its own (--ca)
broker/     ca.crt server.pem crl.pem acl mosquitto.conf
cloud/      ca.crt client.pem http.pem embridge.toml
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from embridge_cloud.site import mosquitto
from embridge_cloud.site.register import Layout
from embridge_shared.archive import write_atomically
from embridge_shared.errors import OperatorError
from embridge_shared.tls import is_loopback

AUTHORITY: Final = "ca"
BROKER: Final = "broker"
CLOUD: Final = "cloud"
CLIENT: Final = "client.pem"
HTTP: Final = "http.pem"
SETTINGS: Final = "embridge.toml"
CLOUD_NAME: Final = "@cloud"


def make_folder(folder: Path) -> Path:
    """A folder that only its owner may enter."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def write_secret(path: Path, data: bytes) -> None:
    """A file that only its owner may read."""
    write_atomically(path, data, mode=0o600)


def write_broker(folder: Path, *, layout: Layout, authority: bytes, server: bytes) -> None:
    """The broker's files that no revocation changes."""
    make_folder(folder)
    write_secret(folder / mosquitto.AUTHORITY, authority)
    write_secret(folder / mosquitto.SERVER, server)
    write_secret(folder / mosquitto.CONFIGURATION, mosquitto.configuration(layout).encode())


def write_cloud(folder: Path, *, layout: Layout, authority: bytes, client: bytes, http: bytes) -> None:
    """The cloud process's files."""
    make_folder(folder)
    write_secret(folder / mosquitto.AUTHORITY, authority)
    write_secret(folder / CLIENT, client)
    write_secret(folder / HTTP, http)
    write_secret(folder / SETTINGS, cloud_settings(layout).encode())


def write_ingester(folder: Path, *, layout: Layout, authority: bytes, client: bytes, shards: tuple[int, int]) -> None:
    """A further ingester's files; its HTTP interface is for its own machine."""
    make_folder(folder)
    write_secret(folder / mosquitto.AUTHORITY, authority)
    write_secret(folder / CLIENT, client)
    made_here = Path(layout.cloud_folder) == folder.parent / CLOUD
    place = str(folder) if made_here else f"{layout.cloud_folder}/{folder.name}"
    own = {"first_shard": shards[0], "last_shard": shards[1], "http_port": layout.http_port + 1 + shards[0]}
    write_secret(folder / SETTINGS, _toml({"mqtt": _mqtt(layout, place), "cloud": own}).encode())


def cloud_settings(layout: Layout) -> str:
    """The cloud process's settings file."""
    folder, hosts = layout.cloud_folder, layout.cloud_hosts
    url = f"https://{_in_url(hosts[0])}:{layout.http_port}"
    listens = "127.0.0.1" if all(map(is_loopback, hosts)) else "0.0.0.0"  # noqa: S104
    cloud = {
        "http_host": listens,
        "http_port": layout.http_port,
        "http_cert_file": f"{folder}/{HTTP}",
        "http_key_file": f"{folder}/{HTTP}",
        "http_hosts": list(hosts),
        "public_url": url,
    }
    api = {"url": url, "ca_file": f"{folder}/{mosquitto.AUTHORITY}"}
    return _toml({"mqtt": _mqtt(layout, folder), "cloud": cloud, "api": api})


def _mqtt(layout: Layout, folder: str) -> dict[str, object]:
    return {
        "host": layout.broker_hosts[0],
        "port": layout.broker_port,
        "ca_file": f"{folder}/{mosquitto.AUTHORITY}",
        "cert_file": f"{folder}/{CLIENT}",
    }


def _toml(sections: Mapping[str, Mapping[str, object]]) -> str:
    parts = (
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())
        for name, values in sections.items()
    )
    return "# Made by `embridge site`.\n\n" + "\n".join(parts)


def check_plain(what: str, text: str) -> str:
    """Return a text that can stand in a line of a configuration file.

    Raises:
        OperatorError: It holds control characters, quotes or nothing.
    """
    if not text or not text.isprintable() or set(text) & set("\"'\\"):
        raise OperatorError(f"{text!r} cannot be {what}", hint="Use plain letters, digits and punctuation.")
    return text


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
