"""Training the head of a candidate: where it begins, what is kept of it on the way, and what must stay as it was."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import msgspec

from embridge_cloud.frozen import Frozen
from embridge_cloud.learn.config import DEEP, HeadName
from embridge_cloud.learn.heads import Head, fit_head, load_head
from embridge_cloud.learn.loop import Run
from embridge_cloud.learn.optim import Progress, ProgressCallback, resolve_device
from embridge_cloud.learn.pipeline import pretrain_encoders
from embridge_cloud.learn.pretrain import Pretrained
from embridge_cloud.learn.resume import Checkpoints
from embridge_cloud.learn.trained import Trained
from embridge_cloud.learn.warm import Start, anchor_of, check_anchor, check_start
from embridge_cloud.recipe import Recipe
from embridge_cloud.snapshot import Snapshot
from embridge_cloud.study.choice import Choice
from embridge_cloud.study.judge import judge_heads
from embridge_shared.archive import write_atomically
from embridge_shared.errors import ConfigError, DataError, LeakageError, ModelError, Reason

logger = logging.getLogger(__name__)

CHECKPOINTS: Final = "checkpoints"
_CHOICE: Final = "choice.json"


@dataclass(frozen=True, slots=True)
class Desk:
    """What a training is given beside its recipe.

    Attributes:
        frozen: The sessions to use; None takes all that may be used now.
        trusted: Sessions an earlier release was made of.
        champion: Folder with the model to go on from; None begins anew.
        every: Steps between two checkpoints; 0 keeps none.
    """

    frozen: Frozen | None = None
    trusted: Collection[str] = ()
    champion: Path | None = None
    every: int = 0


@dataclass(slots=True)
class Trainer:
    """Fits the heads of one candidate; a training that was killed goes on from its latest checkpoint.

    Attributes:
        snapshot: The data.
        config: What to make.
        out: Folder of the job.
        desk: What it is given.
        progress: Told after every step.
    """

    snapshot: Snapshot
    config: Recipe
    out: Path
    desk: Desk
    progress: ProgressCallback
    _start: Start | None = field(default=None, init=False)
    _first: Pretrained | None = field(default=None, init=False)
    _key: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self._start = self._warm()
        key = f"{self.config.digest()}|{self.snapshot.train.digest()}|{self.warm}"
        self._key = hashlib.sha256(key.encode()).hexdigest()[:16]
        self._forget_others()

    @property
    def warm(self) -> str:
        """Digest of the release whose weights the training begins with; empty where it begins anew."""
        return "" if self._start is None else self.config.parent

    def choose(self) -> Choice:
        """The head to ship: the one that must stay, the only candidate, or the one that decodes best."""
        kept = self.config.continues
        if kept is not None:
            return Choice(method=kept.head, reason="It is that of the release it continues.", table=())
        if len(self.config.heads) == 1:
            return Choice(method=self.config.heads[0], reason="The recipe names no other.", table=())
        path = self._folder / _CHOICE
        if path.is_file():
            return msgspec.json.decode(path.read_bytes(), type=Choice)
        choice = self._judged()
        if self.desk.every:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, msgspec.json.encode(choice))
        return choice

    def head(self, choice: Choice) -> Head:
        """Fit what ships.

        Raises:
            ModelError: INCOMPATIBLE: it speaks of another space than the recipe says.
        """
        made = self._fit(_name(choice), self.config.seed, "head", self.progress, start=self._start)
        kept = self.config.continues
        if kept is not None and kept.anchor:
            if not isinstance(made, Trained):
                raise ModelError(
                    f"{choice.method} has no pose space that could stay",
                    reason=Reason.INCOMPATIBLE,
                    hint="Start the job with --major.",
                )
            check_anchor(made.model, kept.anchor)
        return made

    def control(self, choice: Choice, number: int) -> Head:
        """The same on broken pairs, always begun anew: what the champion learnt from whole ones must not help."""
        seed, tell = self.config.seed + number, renamed(self.progress, "control")
        return self._fit(_name(choice), seed, f"control-{number}", tell, shuffle=True)

    def done(self) -> None:
        """Drop the checkpoints: what was trained is kept."""
        shutil.rmtree(self.out / CHECKPOINTS, ignore_errors=True)

    @property
    def _folder(self) -> Path:
        return self.out / CHECKPOINTS / self._key

    def _forget_others(self) -> None:
        """Checkpoints of other data: a session was taken away since."""
        root = self.out / CHECKPOINTS
        for path in sorted(root.iterdir()) if root.is_dir() else ():
            if path.name != self._key:
                logger.warning("the data has changed since the last attempt: the training begins again")
                shutil.rmtree(path)

    def _warm(self) -> Start | None:
        kept, folder = self.config.continues, self.desk.champion
        if kept is None or kept.head not in DEEP:
            return None
        if folder is None:
            raise ModelError(
                "the model to go on from is not here any more",
                reason=Reason.NOT_FOUND,
                hint="Start the job with --major: it begins anew, in a pose space of its own.",
            )
        model = load_head(folder)
        if not isinstance(model, Trained):
            raise ModelError(f"{folder} holds no trained encoder", reason=Reason.INCOMPATIBLE)
        check_anchor(model.model, kept.anchor)
        start = Start(model, kept.distil)
        check_start(start, self.config.learn, {*self.config.held_out, *self.config.validation})
        return start

    def _judged(self) -> Choice:
        heads = self.config.heads
        try:
            return judge_heads(
                self.snapshot.train,
                self.config.learn,
                candidates=heads,
                runs=self.config.trials,
                progress=renamed(self.progress, "trial"),
            )
        except LeakageError:
            raise
        except (ConfigError, DataError) as error:
            logger.warning("heads cannot be judged, %s ships: %s", heads[-1], error)
            return Choice(method=heads[-1], reason=f"Heads could not be judged: {error}", table=())

    def _run(self, purpose: str, progress: ProgressCallback) -> Run:
        every, device = self.desk.every, resolve_device(self.config.learn.device)
        kept = Checkpoints(self._folder / purpose, every, self._key) if every else None
        return Run(device, progress, kept)

    def _fit(
        self,
        name: HeadName,
        seed: int,
        purpose: str,
        progress: ProgressCallback,
        *,
        shuffle: bool = False,
        start: Start | None = None,
    ) -> Head:
        train, config = self.snapshot.train, self.config
        deep = name in DEEP
        if deep and start is None and self._first is None:
            run = self._run("first", self.progress)
            self._first = pretrain_encoders(train, config.learn, seed=config.seed, run=run)
        return fit_head(
            name,
            train,
            config.learn,
            seed=seed,
            unseen=config.unseen,
            pretrained=self._first if start is None else None,
            shuffle=shuffle,
            progress=progress,
            run=self._run(purpose, progress) if deep else None,
            start=start,
        )


def space_of(head: Head) -> str:
    """Digest of the pose space a head speaks in; empty where none is learnt."""
    return anchor_of(head.model) if isinstance(head, Trained) else ""


def renamed(progress: ProgressCallback, stage: str) -> ProgressCallback:
    """The same under the name of another stage."""

    def tell(p: Progress) -> None:
        progress(replace(p, stage=stage))

    return tell


def _name(choice: Choice) -> HeadName:
    name: HeadName = msgspec.convert(choice.method, HeadName)
    return name
