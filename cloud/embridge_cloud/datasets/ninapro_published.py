"""What is published of the NinaPro data bases: citation, customary split by repetition, what to mind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

URL: Final = "https://ninapro.hevs.ch"
LICENCE: Final = (
    "free for research after registration with the publisher; redistribution terms not stated with the files"
)
_ATZORI: Final = (
    "Atzori et al., Electromyography data for non-invasive naturally-controlled robotic hand prostheses, "
    "Scientific Data 1:140053, 2014"
)


@dataclass(frozen=True, slots=True)
class Published:
    """What the literature says of a base.

    Attributes:
        citation: What to cite.
        train: Repetitions commonly trained on.
        test: Repetitions commonly tested on.
        notes: What a user must know.
    """

    citation: str
    train: tuple[int, ...]
    test: tuple[int, ...]
    notes: tuple[str, ...] = ()


_UNCALIBRATED: Final = "The glove is uncalibrated: angles are known up to each wearer's own scale."
PUBLISHED: Final[Mapping[str, Published]] = MappingProxyType(
    {
        "db1": Published(
            _ATZORI,
            (1, 3, 4, 6, 7, 8, 9),
            (2, 5, 10),
            (
                "EMG is rectified and smoothed by the device: no spectrum, no waveform.",
                "Repetitions come in one block a gesture, always in one order: a normaliser that follows the signal "
                "leaks the label.",
                _UNCALIBRATED,
            ),
        ),
        "db2": Published(_ATZORI, (1, 3, 4, 6), (2, 5), (_UNCALIBRATED,)),
        "db5": Published(
            "Pizzolato et al., Comparison of six electromyography acquisition setups, PLoS ONE 12(10) e0186132, 2017",
            (1, 3, 4, 6),
            (2, 5),
            ("200 Hz: nothing above 100 Hz, and a patch of 100 ms is 20 samples.", _UNCALIBRATED),
        ),
        "db7": Published(
            "Krasoulis et al., Improved prosthetic hand control with concurrent use of myoelectric and inertial "
            "measurements, J. NeuroEng. Rehabil. 14:71, 2017",
            (1, 3, 4, 6),
            (2, 5),
            (
                "The page names a glove of 18 sensors, published files are read with 22 too: both are accepted.",
                _UNCALIBRATED,
            ),
        ),
        "db8": Published(
            "Krasoulis, Vijayakumar, Nazarpour, Effect of user practice on prosthetic finger control with an intuitive "
            "myoelectric decoder, Front. Neurosci. 13:891, 2019",
            (),
            (),
            (
                "The glove sat on the other hand, which mirrored the movement.",
                "Sampled at 1111 Hz and stored at 2000: mask spectral targets above 555 Hz.",
                "Acquisition 3 is the publisher's test.",
                _UNCALIBRATED,
            ),
        ),
    }
)
