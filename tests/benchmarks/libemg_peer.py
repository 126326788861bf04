"""What LibEMG's online classifier does with a window, timed in its own environment: `python THIS EMG.npy WINDOW HOP`.

Its windows, features (Hudgins' set) and discriminant as `OnlineEMGClassifier` runs them, without its sockets. It runs
where LibEMG is installed, whose pins are not ours.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
from libemg.emg_predictor import EMGClassifier
from libemg.feature_extractor import FeatureExtractor
from libemg.utils import get_windows


def main(path: str, length: int, hop: int) -> None:
    """Print wall and CPU milliseconds of each hop as JSON."""
    emg = np.load(path).astype(float)
    extractor = FeatureExtractor()
    group = extractor.get_feature_groups()["HTD"]
    windows = get_windows(emg, length, hop)
    features = extractor.extract_features(group, windows)
    classifier = EMGClassifier("LDA")
    labels = np.arange(len(windows)) // max(1, len(windows) // 12 + 1)
    classifier.fit(feature_dictionary={"training_features": features, "training_labels": labels})
    wall, cpu = [], []
    for end in range(length, len(emg) + 1, hop):
        began, spent = time.perf_counter(), time.process_time()
        window = get_windows(emg[end - length : end], length, hop)
        classifier.run(np.hstack(list(extractor.extract_features(group, window).values())))
        wall.append((time.perf_counter() - began) * 1e3)
        cpu.append((time.process_time() - spent) * 1e3)
    print(json.dumps({"wall": wall, "cpu": cpu}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
