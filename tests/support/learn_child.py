"""A training process: `python -m support.learn_child FOLDER [--no-dropout]`, alone or under torchrun.

Writes checkpoints to FOLDER/checkpoints and, at its end, weights and curves; a line on standard output for each step.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from embridge_cloud.learn import world
from embridge_cloud.learn.loop import Run
from embridge_cloud.learn.optim import Progress
from embridge_cloud.learn.pipeline import train
from embridge_cloud.learn.resume import Checkpoints
from support.learn_runs import small
from support.learn_world import paired


def main(folder: Path) -> None:
    config = small()
    device = torch.device("cpu")

    def tell(p: Progress) -> None:
        sys.stdout.write(f"{p.stage} {p.step}\n")
        sys.stdout.flush()

    with world.joined(device):
        run = Run(device, tell, Checkpoints(folder / "checkpoints", 2, "child"))
        # 31 windows a batch: two processes have unequal shares
        made = train(paired(windows=93), paired(windows=48, first_person=20), config, seed=5, run=run)
        if world.rank() == 0:
            save_file({k: v.contiguous() for k, v in made.model.state_dict().items()}, folder / "weights.safetensors")
            (folder / "history.json").write_text(json.dumps(made.history))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
