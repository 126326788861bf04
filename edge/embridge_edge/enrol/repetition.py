"""One stored repetition: the band's own samples with a second of rest around them, and where they are from.

Only what was measured is kept. Features, windows and embeddings are made anew for whatever release runs, so an update
costs a wearer nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_shared import archive
from embridge_shared.arrays import pack_array, unpack_array
from embridge_shared.enrolment import RepetitionNote
from embridge_shared.errors import DataError, EmbridgeError, Reason
from embridge_shared.quality.grades import Grade
from embridge_shared.signal import StreamSpec

_ABOUT: Final = "repetition.json"
_SAMPLES: Final = "samples.npy"
_HINT: Final = "Enrol the gesture again; the others are not touched."


class About(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of a repetition beside its samples.

    Attributes:
        label: Gesture.
        spec: The band's stream.
        first: Index in the stream of the first sample kept.
        onset: Index in the stream where the movement begins.
        end: Index in the stream where the hand is back at rest.
        recorded_ns: Unix time of the onset, ns.
        session: Session it was recorded in, and with it the donning; None where it was not sent.
        edge: Edge that recorded it.
        release: Release that looked at it, or empty.
        source: What fed the band when it was no live device, or empty.
        grades: Of each channel over the repetition; empty where nobody judged.
        calibrates: It is one of a calibration, whose gestures were chosen to show what all muscles do.
    """

    label: str
    spec: StreamSpec
    first: int
    onset: int
    end: int
    recorded_ns: int
    session: UUID | None = None
    edge: str = ""
    release: str = ""
    source: str = ""
    grades: tuple[Grade, ...] = ()
    calibrates: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class StoredRepetition:
    """A repetition.

    Attributes:
        about: Whose gesture, where from.
        samples: Raw, (n, C), of the stream's dtype.

    Raises:
        DataError: WRONG_SHAPE: other channels, or bounds outside of the samples.
    """

    about: About
    samples: NDArray[Any]

    def __post_init__(self) -> None:
        a, shape = self.about, self.samples.shape
        if len(shape) != 2 or shape[1] != a.spec.n_channels or not a.first <= a.onset < a.end <= a.first + shape[0]:
            raise DataError(
                f"a repetition of {a.label!r} with samples {shape} from {a.first}, onset {a.onset}, end {a.end}",
                reason=Reason.WRONG_SHAPE,
            )

    @property
    def hash(self) -> str:
        """sha256 of label, stream, bounds and samples."""
        a = self.about
        # a driver may say 2000 where what is read back says 2000.0
        spec = msgspec.structs.replace(a.spec, rate_hz=float(a.spec.rate_hz), scale=float(a.spec.scale))
        bounds = (a.label, spec, a.onset - a.first, a.end - a.first)
        head = msgspec.json.encode(bounds, order="deterministic")
        return hashlib.sha256(head + b"\0" + self._raw().tobytes()).hexdigest()

    def note(self) -> RepetitionNote:
        """The repetition in a journal."""
        a = self.about
        return RepetitionNote(
            hash=self.hash,
            label=a.label,
            session=a.session,
            stream=a.spec.name,
            first=a.first,
            n=len(self.samples),
            onset=a.onset,
            end=a.end,
            recorded_ns=a.recorded_ns,
            release=a.release,
        )

    def pack(self) -> bytes:
        """As a canonical archive."""
        about = msgspec.json.encode(self.about, order="deterministic")
        return archive.pack({_ABOUT: about, _SAMPLES: pack_array(self._raw(), self.about.spec.dtype.numpy)})

    @classmethod
    def unpack(cls, data: bytes) -> StoredRepetition:
        """Read `pack` back.

        Raises:
            DataError: MALFORMED: damaged.
        """
        try:
            parts = archive.unpack(data)
            about = msgspec.json.decode(parts[_ABOUT], type=About)
            samples = unpack_array(parts[_SAMPLES], (-1, about.spec.n_channels), about.spec.dtype.numpy)
            return cls(about, samples)
        except (KeyError, ValueError, msgspec.DecodeError, EmbridgeError) as error:
            raise DataError(f"a stored repetition: {error}", reason=Reason.MALFORMED, hint=_HINT) from error

    def _raw(self) -> NDArray[Any]:
        return np.ascontiguousarray(self.samples, self.about.spec.dtype.numpy)


def same_band(a: StreamSpec, b: StreamSpec) -> bool:
    """Whether two streams are of the same kind of band, so that repetitions of one count for the other."""
    return _band(a) == _band(b)


def _band(spec: StreamSpec) -> tuple[object, ...]:
    return spec.device, spec.channels, spec.rate_hz, spec.unit, spec.scale, spec.dtype
