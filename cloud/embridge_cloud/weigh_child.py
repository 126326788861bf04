"""How much memory a release needs: `python -m embridge_cloud.weigh_child BUNDLE` prints bytes.

Imports nothing that an edge does not: what torch or a database take would hide it.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
from pathlib import Path

import numpy as np
import onnxruntime

from embridge_shared.release import ENCODER_INT8, read_bundle

_WINDOWS = 20


def main(path: str) -> int:
    """Load, decode the golden windows, and say by how much the process grew; the exit code."""
    onnxruntime.set_default_logger_severity(3)
    before = _resident_bytes()
    bundle = read_bundle(Path(path))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(bundle.files[ENCODER_INT8], options, providers=["CPUExecutionProvider"])
    takes = session.get_inputs()[0].name
    scorer, golden = bundle.scorer(), bundle.golden.windows
    del bundle
    gc.collect()
    for at in range(_WINDOWS):
        (queries,) = session.run(None, {takes: np.ascontiguousarray(golden[at % len(golden)][None])})
        scorer(queries)
    sys.stdout.write(f"{max(0, _resident_bytes() - before)}\n")
    return 0


def _resident_bytes() -> int:
    """Memory of this process; its largest so far where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
