"""Operations on a store from a command: in the cloud process that owns it, or here where none runs."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Any

from embridge_shared.errors import OperatorError, Reason

if TYPE_CHECKING:
    from embridge_shared.settings import Settings

_HOUR_S = 3600.0


def ask(name: str, *, settings: Settings | None = None, **body: Any) -> Any:
    """Carry out an operation of `embridge_cloud.keeper`; JSON builtins.

    Args:
        name: The operation.
        settings: Whose store; by default that of the settings of this process.
        body: What it is asked with.

    Raises:
        EmbridgeError: It cannot be carried out as asked.
    """
    import msgspec

    from embridge_cloud.context import CloudPaths
    from embridge_cloud.keeper import Body, Keeper
    from embridge_cloud.store.failures import StoreLockedError
    from embridge_cloud.store.hot import HotStore
    from embridge_shared.clock import SystemClock
    from embridge_shared.settings import load

    settings = settings or load()
    path = CloudPaths.of(settings).hot
    if not path.exists() and name != "participant-add":
        raise OperatorError(
            f"there is no store at {path}.", reason=Reason.NOT_FOUND, hint="Set cloud.state_dir; has a cloud run here?"
        )
    try:
        with HotStore(path, quarantine_max_bytes=settings.cloud.quarantine_max_bytes) as store:
            asked = msgspec.convert(body, Body)
            return Keeper(store, settings, SystemClock()).do(name, asked, actor=f"cli:{_user()}")
    except StoreLockedError:
        from embridge_shared.cloud_client import connect

        return connect(settings=settings, timeout_s=_HOUR_S).post(f"/api/keep/{name}", body)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
