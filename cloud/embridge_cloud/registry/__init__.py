"""The registry: releases in a TUF repository that any web server can hand out.

    keys/                      ed25519 keys, PKCS#8 PEM, 0600 in a 0700 folder; never served
    next.root.json             a root that is not signed by enough keys yet
    repository/metadata/       N.root.json, N.targets.json, N.snapshot.json, timestamp.json
    repository/targets/        <sha256>.<release>
    repository/deltas/         <sha256>.<release>.from-<base>

`Registry` publishes, `Ceremony` changes who may sign.
"""

from __future__ import annotations

from embridge_cloud.registry.ceremony import Ceremony
from embridge_cloud.registry.drafts import Draft, Holder, sign_draft
from embridge_cloud.registry.keys import ONLINE, ROLES, ROOT
from embridge_cloud.registry.publishing import Registry
from embridge_cloud.registry.repository import Expiry

__all__ = ["ONLINE", "ROLES", "ROOT", "Ceremony", "Draft", "Expiry", "Holder", "Registry", "sign_draft"]
