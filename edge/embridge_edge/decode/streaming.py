"""The streaming encoder of a release: a patch and the state of those before it to the answer to a whole window."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from embridge_edge.decode.session import HINT, Running, open_session
from embridge_shared.errors import ModelError, Reason
from embridge_shared.manifest import Manifest
from embridge_shared.release import (
    STREAM,
    STREAM_INT8,
    STREAM_PATCH,
    STREAM_QUERIES,
    STREAM_STATE,
    Bundle,
    stream_next,
)

_CPU: Final = "cpu"


class StreamModel:
    """The streaming encoder of a release, once for all the streams it decodes.

    Args:
        bundle: A verified release.
        int8: Run the quantised graph, where there is one.

    Raises:
        ModelError: MALFORMED: the graph cannot be loaded; INCOMPATIBLE: it does not take or give what the manifest
            says.
    """

    def __init__(self, bundle: Bundle, *, int8: bool) -> None:
        self.manifest: Manifest = bundle.manifest
        name = STREAM_INT8 if int8 and STREAM_INT8 in bundle.files else STREAM
        self.session = open_session(bundle.files[name], f"the streaming encoder of {self.manifest.release}")
        self.states = _contract(self.session, self.manifest)

    @classmethod
    def of(cls, bundle: Bundle, *, int8: bool) -> StreamModel | None:
        """The streaming encoder of a release; None where it has none."""
        return cls(bundle, int8=int8) if STREAM in bundle.files else None

    def phase(self) -> PatchStream:
        """A stream of patches of its own."""
        return PatchStream(self)


class PatchStream:
    """One phase of a stream: patches that follow one another.

    It needs no reset: what it was fed more than a window ago does not reach its answers. Two sets of state are bound
    once and take turns, so a step allocates nothing of the kind.

    Args:
        model: Of the release.
    """

    def __init__(self, model: StreamModel) -> None:
        m = model.manifest
        self._model = model
        self._patch = np.zeros((1, m.preprocess.window.patch, m.channels), np.float32)
        self._queries = np.zeros((1, m.queries, m.dim), np.float32)
        self._state = [{n: np.zeros(s, np.float32) for n, s in model.states.items()} for _ in range(2)]
        self._bound = [self._bind(i) for i in range(2)]
        self._turn = 0

    def step(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take the next patch.

        Args:
            patch: Scaled features, float32 (S, C).

        Returns:
            L2-normalised queries of the window that ends with it, float32 (M, d); overwritten by the next step, and
            without meaning before a window's worth was taken.

        Raises:
            ModelError: SELF_TEST: it does not run.
        """
        self._patch[0] = patch
        with Running(self._model.manifest):
            self._model.session.run_with_iobinding(self._bound[self._turn])
        self._turn = 1 - self._turn
        answer: NDArray[np.float32] = self._queries[0]
        return answer

    def _bind(self, turn: int) -> onnxruntime.IOBinding:
        bound = self._model.session.io_binding()
        for name, held in {STREAM_PATCH: self._patch, **self._state[turn]}.items():
            bound.bind_input(name, _CPU, 0, np.float32, held.shape, held.ctypes.data)
        following = {stream_next(name): held for name, held in self._state[1 - turn].items()}
        for name, held in {STREAM_QUERIES: self._queries, **following}.items():
            bound.bind_output(name, _CPU, 0, np.float32, held.shape, held.ctypes.data)
        return bound


def _contract(session: onnxruntime.InferenceSession, m: Manifest) -> dict[str, tuple[int, ...]]:
    """Shapes of the states, by name."""
    takes, gives = _ports(session.get_inputs()), _ports(session.get_outputs())
    states = {name: shape for name, shape in takes.items() if name.startswith(STREAM_STATE)}
    patch = (1, m.preprocess.window.patch, m.channels)
    wanted = {STREAM_QUERIES: (1, m.queries, m.dim), **{stream_next(n): s for n, s in states.items()}}
    if takes != {STREAM_PATCH: patch, **states} or gives != wanted:
        raise ModelError(
            f"the streaming encoder of {m.release} takes {takes} and gives {gives}, where {STREAM_PATCH} {patch} and "
            f"{STREAM_QUERIES} {wanted[STREAM_QUERIES]} are due",
            reason=Reason.INCOMPATIBLE,
            hint=HINT,
        )
    return states


def _ports(ports: list[Any]) -> dict[str, tuple[int, ...]]:
    """Shapes by name; a free size or another type is told by an impossible shape."""
    return {
        p.name: tuple(n if isinstance(n, int) and p.type == "tensor(float)" else -1 for n in p.shape) for p in ports
    }
