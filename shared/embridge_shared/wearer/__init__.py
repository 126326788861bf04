"""A wearer's own gestures: what people in general and a few repetitions of one's own say, weighed against each other.

One model serves a gesture nobody performed (its pose alone), a minute of calibration with known gestures, and enrolment
from one repetition or many. How much the pose and other people count beside the wearer's repetitions is learnt from
training participants, dimension by dimension, and may be nothing.
"""

from embridge_shared.wearer.model import KnownGesture, Repetition, WearerModel
from embridge_shared.wearer.prior import Kernel, WearerPrior, bends

__all__ = ["Kernel", "KnownGesture", "Repetition", "WearerModel", "WearerPrior", "bends"]
