"""ONNX Runtime as an edge runs it: one thread and no spinning, for a second core belongs to the radio."""

from __future__ import annotations

from types import TracebackType
from typing import Final

import onnxruntime

from embridge_shared.errors import ModelError, Reason
from embridge_shared.manifest import Manifest

HINT: Final = "The running release stays; report this release to who trained it."
_QUIET: Final = 3  # errors only


class Running:
    """What ONNX Runtime raises inside is the release's fault.

    Args:
        manifest: Of the release.

    Raises:
        ModelError: SELF_TEST: the graph does not run.
    """

    __slots__ = ("_manifest",)

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, Exception):
            raise ModelError(
                f"{self._manifest.release} does not run: {(str(error) or type(error).__name__).splitlines()[0]}",
                reason=Reason.SELF_TEST,
                hint=HINT,
            ) from error


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
