"""The configuration of a site's Mosquitto broker and its access list.

A client is whom its certificate names: the common name becomes user name and client id, so nobody can take another's
place, not even under that one's client id. The cloud's names begin with "@", which no edge's can.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from embridge_cloud.site.register import Layout, Register
from embridge_shared.wire.codec import MAX_SAMPLE_BYTES
from embridge_shared.wire.topics import ROOT

ACL: Final = "acl"
AUTHORITY: Final = "ca.crt"
CONFIGURATION: Final = "mosquitto.conf"
REVOKED: Final = "crl.pem"
SERVER: Final = "server.pem"

INGESTER: Final = re.compile(r"@ingest-(\d+)-(\d+)")

LIMITS: Final = f"""\
# An ingester acknowledges after each commit; with the default of 20 it would take 80 chunks a second.
max_inflight_messages 5000

# The default drops beyond 1000 messages. Bytes are the better bound: what is dropped here, edges send again.
max_queued_messages 0
max_queued_bytes 268435456

# The largest chunk the codec makes, and some room.
max_packet_size {MAX_SAMPLE_BYTES + (4 << 20)}

# Nothing rests on what a broker keeps: edges hold every chunk until the database has committed it.
persistence false
"""

_CONFIGURATION: Final = """\
# Made by `embridge site`. It stands alone, and in the include_dir of a Mosquitto that has no other listener.

per_listener_settings false
listener {listener}
max_connections {max_connections}

# Everybody shows a certificate of this site, and is who it names: user and client id alike.
cafile {folder}/ca.crt
certfile {folder}/server.pem
keyfile {folder}/server.pem
crlfile {folder}/crl.pem
require_certificate true
use_identity_as_username true
use_username_as_clientid true
allow_anonymous false
acl_file {folder}/acl

# Publications that the access list denies are logged at level debug, beside every other packet. To look for one, add
# `log_type all` for a while.

"""

_ACL: Final = f"""\
# Made by `embridge site`. An edge writes below its own name and reads what is meant for it; %u is what its certificate
# names. On `check` everybody hears themselves alone: `embridge doctor` tries its rights there.
pattern write {ROOT}/up/+/%u/+/+
pattern write {ROOT}/event/+/%u/+
pattern write {ROOT}/state/%u
pattern write {ROOT}/live/%u
pattern write {ROOT}/ask/%u
pattern read {ROOT}/down/%u/+
pattern readwrite {ROOT}/check/%u
"""

_DOWN: Final = f"topic write {ROOT}/down/+/+\n"


def configuration(layout: Layout) -> str:
    """The broker's configuration."""
    listener = f"{layout.broker_port} {layout.bind}".rstrip()
    head = _CONFIGURATION.format(listener=listener, max_connections=layout.max_connections, folder=layout.broker_folder)
    return head + LIMITS


def access_list(register: Register, clouds: Sequence[str]) -> str:
    """Who may say and hear what.

    Args:
        register: Who was revoked; a connection that is still open loses its rights when the list is read again.
        clouds: Names of the cloud processes.
    """
    barred = set(register.barred())
    allowed = "".join(f"\nuser {name}\n{_reads(name)}{_DOWN}" for name in clouds if name not in barred)
    return _ACL + allowed + "".join(f"\nuser {name}\ntopic deny #\n" for name in sorted(barred))


def _reads(name: str) -> str:
    """What a cloud process may hear: an ingester of some shards hears no others."""
    found = INGESTER.fullmatch(name)
    shards = range(int(found[1]), int(found[2]) + 1) if found is not None else None
    ways = (
        [f"{kind}/{s}/#" for s in shards for kind in ("up", "event")]
        if shards is not None
        else ["up/#", "event/#", "live/+"]
    )
    return "".join(f"topic read {ROOT}/{way}\n" for way in (*ways, "state/+", "ask/+"))
