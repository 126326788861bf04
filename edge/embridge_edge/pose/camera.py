"""Hand pose from a camera by MediaPipe; its model file is the user's to get."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embridge_edge.pose.live import LivePose
from embridge_edge.pose.plan import CameraPoseSource
from embridge_shared.clock import Clock
from embridge_shared.errors import ConfigError, DeviceError, EmbridgeError, Reason
from embridge_shared.hand import N_JOINTS, joint_angles
from embridge_shared.session import Side

logger = logging.getLogger(__name__)

_MODEL_HINT = (
    "Get `hand_landmarker.task` from MediaPipe's page of models (Hand Landmarker) and name it in the plan: "
    'model = "hand_landmarker.task".'
)
_END_S = 5.0
_MISSES = 30


class Eyes(Protocol):
    """A camera that sees hands."""

    def look(self) -> tuple[int, NDArray[np.float64] | None] | None:
        """The next frame: when it was taken on the monotonic clock, ns, and the hand's 21 landmarks (21, 3), m, or
        None where there is no hand. None when the camera gave nothing."""
        ...

    def close(self) -> None:
        """Let the camera go."""
        ...


class CameraPose(LivePose):
    """One hand before a camera. A frame without that hand is recorded as all 0, a failed pose.

    Args:
        source: Camera, model and hand.
        base: Folder that the model's path starts from.
        clock: Stamps frames when they were taken, not when they were understood.
        eyes: Opens the camera; MediaPipe's by default.

    Raises:
        ConfigError: MediaPipe is not installed, or the model file is missing.
    """

    def __init__(
        self,
        source: CameraPoseSource,
        *,
        base: Path,
        clock: Clock,
        eyes: Callable[[], Eyes] | None = None,
    ) -> None:
        super().__init__(source, "camera", "mediapipe-hands", base=base, clock=clock)
        self._side = source.side
        self._camera = source.device
        self._eyes = eyes or _mediapipe(source, base / source.model, clock)
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._error: EmbridgeError | None = None
        self.unseen = 0
        """Frames without the hand."""

    @property
    def where(self) -> str:
        """Number of the camera."""
        return f"camera {self._camera}"

    @property
    def advice(self) -> str:
        """What to do when it is silent."""
        return "Look whether another program has the camera, and at its cable."

    async def _start(self) -> None:
        open_eyes = asyncio.get_running_loop()
        eyes = await asyncio.to_thread(self._eyes)
        self._thread = threading.Thread(target=self._watch, args=(open_eyes, eyes), name=self.where, daemon=True)
        self._thread.start()

    def _watch(self, loop: asyncio.AbstractEventLoop, eyes: Eyes) -> None:
        misses = 0
        with ExitStack() as stack:
            stack.callback(eyes.close)
            while not self._ending.is_set() and misses < _MISSES:
                seen = eyes.look()
                misses = 0 if seen is not None else misses + 1
                if seen is not None and not loop.is_closed():
                    loop.call_soon_threadsafe(self._seen, *seen)

    def _seen(self, taken_ns: int, points: NDArray[np.float64] | None) -> None:
        if points is None:
            self.unseen += 1
            self.place(np.zeros(N_JOINTS, np.float32), taken_ns)
        else:
            self.place(joint_angles(points, self._side).astype(np.float32), taken_ns)

    async def _end(self) -> None:
        self._ending.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.to_thread(thread.join, _END_S)


def load_mediapipe() -> tuple[Any, Any]:
    """The modules `mediapipe` and `cv2`.

    Raises:
        ConfigError: MISSING_EXTRA: they are not installed.
    """
    try:
        import cv2  # type: ignore[import-not-found]
        import mediapipe  # type: ignore[import-not-found]
    except (ModuleNotFoundError, ImportError, OSError) as error:
        raise ConfigError(
            f"hand pose from a camera needs mediapipe, which does not load: {error}",
            reason=Reason.MISSING_EXTRA,
            hint='Install it with: pip install "embridge[camera]"; the model file comes extra. ' + _MODEL_HINT,
        ) from error
    return mediapipe, cv2


def _mediapipe(source: CameraPoseSource, model: Path, clock: Clock) -> Callable[[], Eyes]:
    """Opens the camera with MediaPipe's hand landmarker."""
    if not model.is_file():
        raise ConfigError(f"there is no model at {model}", reason=Reason.NOT_FOUND, hint=_MODEL_HINT)
    modules = load_mediapipe()
    return lambda: MediaPipeEyes(*modules, source=source, model=model, clock=clock)


class MediaPipeEyes:
    """A camera of OpenCV and MediaPipe's hand landmarker.

    Args:
        mediapipe: The module.
        cv2: The module.
        source: Camera, rate and hand.
        model: Hand landmarker.
        clock: Stamps frames.

    Raises:
        DeviceError: The camera cannot be opened.
        ConfigError: The model is none.
    """

    def __init__(self, mediapipe: Any, cv2: Any, *, source: CameraPoseSource, model: Path, clock: Clock) -> None:
        self._mediapipe, self._cv2, self._clock = mediapipe, cv2, clock
        # MediaPipe names hands as a mirror shows them.
        self._hand = "Left" if source.side is Side.RIGHT else "Right"
        vision = mediapipe.tasks.vision
        try:
            self._landmarker = vision.HandLandmarker.create_from_options(
                vision.HandLandmarkerOptions(
                    base_options=mediapipe.tasks.BaseOptions(model_asset_path=str(model)),
                    running_mode=vision.RunningMode.VIDEO,
                    num_hands=2,
                )
            )
        except (RuntimeError, ValueError) as error:
            raise ConfigError(f"{model} is no hand landmarker: {error}", hint=_MODEL_HINT) from error
        self._camera = cv2.VideoCapture(source.device)
        self._camera.set(cv2.CAP_PROP_FPS, source.rate_hz)
        self._camera.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        self._last_ms = -1
        if not self._camera.isOpened():
            self._landmarker.close()
            raise DeviceError(
                f"camera {source.device} cannot be opened",
                reason=Reason.UNREACHABLE,
                hint="Check its number and that no other program has it.",
            )

    def look(self) -> tuple[int, NDArray[np.float64] | None] | None:
        """The next frame and the landmarks of the hand in it."""
        if not self._camera.grab():
            return None
        taken_ns = self._clock.monotonic_ns()
        good, image = self._camera.retrieve()
        if not good:
            return None
        rgb = self._cv2.cvtColor(image, self._cv2.COLOR_BGR2RGB)
        # MediaPipe wants times that rise.
        self._last_ms = max(self._last_ms + 1, taken_ns // 1_000_000)
        found = self._landmarker.detect_for_video(
            self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=rgb), self._last_ms
        )
        for points, handedness in zip(found.hand_world_landmarks, found.handedness, strict=True):
            if handedness[0].category_name == self._hand:
                return taken_ns, np.array([(p.x, p.y, p.z) for p in points], np.float64)
        return taken_ns, None

    def close(self) -> None:
        """Let camera and model go."""
        self._camera.release()
        self._landmarker.close()
