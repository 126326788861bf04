"""Bodies that msgspec decodes: what the OpenAPI document says of them, and what is answered to others."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from fastapi import FastAPI

from embridge_shared.errors import EmbridgeError, OperatorError, Reason

T = TypeVar("T")


def body_of(app: FastAPI, kind: type[Any], *, required: bool = True) -> dict[str, Any]:
    """The `openapi_extra` of a route whose body is a `kind`; its schema goes into the document of `app`."""
    (schema,), parts = msgspec.json.schema_components([kind], ref_template="#/components/schemas/{name}")
    app.state.schemas = {**getattr(app.state, "schemas", {}), **parts}
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


def read_body(payload: bytes, kind: type[T]) -> T:
    """Decode a body.

    Raises:
        OperatorError: MALFORMED: it is no `kind`.
    """
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.DecodeError, EmbridgeError, RecursionError) as error:
        raise OperatorError(
            f"no valid {kind.__name__.lower()}: {error}",
            reason=Reason.MALFORMED,
            hint="`GET /api/openapi.json` says what is taken.",
        ) from error
