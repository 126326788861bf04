"""Where a study's windows come from: a data set by name, cut anew for every choice of unseen gestures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from embridge_cloud.datasets.base import Dataset, PairedRecording, all_recordings
from embridge_cloud.datasets.config import CutConfig
from embridge_cloud.datasets.registry import open_dataset
from embridge_cloud.datasets.windows import cut_windows
from embridge_cloud.learn.data import Windows


class Source(Protocol):
    """Windows of everybody."""

    def participants(self) -> tuple[str, ...]:
        """Who there is."""
        ...

    def gestures(self) -> tuple[str, ...]:
        """Labels there are."""
        ...

    def windows(self, unseen: Sequence[str]) -> Windows:
        """EMG and pose of everybody, nothing fitted on the unseen gestures."""
        ...

    def fingerprint(self) -> str:
        """SHA-256 of what the windows depend on, hex."""
        ...


@dataclass(frozen=True)
class DatasetSource:
    """A data set by name; it is opened in the process that uses it.

    Attributes:
        spec: As in "ninapro:PATH".
        cut: How windows are made.
        only: Participants to use; empty for all.
    """

    spec: str
    cut: CutConfig
    only: tuple[str, ...] = ()

    def __reduce__(self) -> tuple[type[DatasetSource], tuple[str, CutConfig, tuple[str, ...]]]:
        # another process opens the data itself
        return DatasetSource, (self.spec, self.cut, self.only)

    @cached_property
    def dataset(self) -> Dataset:
        """The data set, opened."""
        return open_dataset(self.spec)

    @cached_property
    def recordings(self) -> tuple[PairedRecording, ...]:
        """Everything of everybody, in memory."""
        return tuple(all_recordings(self.dataset, self.participants()))

    def participants(self) -> tuple[str, ...]:
        """Who there is."""
        return self.only or self.dataset.participants()

    def gestures(self) -> tuple[str, ...]:
        """Labels there are."""
        return self.dataset.gestures()

    def windows(self, unseen: Sequence[str]) -> Windows:
        """EMG and pose of everybody, nothing fitted on the unseen gestures."""
        return cut_windows(self.recordings, self.cut, hidden=unseen, gestures=self.gestures())

    def fingerprint(self) -> str:
        """SHA-256 of names, sizes and dates of the files, and of how they are cut, hex."""
        h = hashlib.sha256(repr((self.cut, self.participants())).encode())
        root = Path(self.dataset.root)
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            found = path.stat()
            h.update(f"{path.relative_to(root)}\0{found.st_size}\0{found.st_mtime_ns}\0".encode())
        return h.hexdigest()
