"""ONNX Runtime as an edge runs it: one thread and no spinning, for a second core belongs to the radio."""

from __future__ import annotations

from typing import Final

import onnxruntime

from embridge_shared.errors import ModelError, Reason

HINT: Final = "The running release stays; report this release to who trained it."
_QUIET: Final = 3  # errors only


def open_session(model: bytes, what: str) -> onnxruntime.InferenceSession:
    """Load a graph.

    Args:
        model: ONNX.
        what: It is, for people.

    Raises:
        ModelError: MALFORMED: it cannot be loaded.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = _QUIET
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base but this
        raise ModelError(
            f"{what} cannot be loaded: {str(error).splitlines()[0]}", reason=Reason.MALFORMED, hint=HINT
        ) from error
