"""An edge whose power is cut: before each step that an update takes towards the disk."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from embridge_edge.releases import ReleaseKeeper
from embridge_edge.update.proving import SharedProver
from embridge_edge.update.slots import FOLDER, Slots
from embridge_shared.fleet import UpdatePhase
from embridge_shared.release import read_bundle
from embridge_shared.wire.messages import Desired
from support.power import Power, PowerCut, power, unsynced
from support.updates import TRIAL, Edge

PROVER = SharedProver()


class Rig:
    """An edge that runs release 1, asked for release 2; every try begins from the same disk."""

    def __init__(self, folder: Path) -> None:
        self.edge = Edge(folder, prover=PROVER)
        self.first = self.edge.publish(1)
        self.second = msgspec.structs.replace(self.edge.publish(2), trial=TRIAL)
        self.template = folder / "template"
        self.number = 0
        self.fresh()
        asyncio.run(self.start(self.first, 0))
        shutil.copytree(self.state, self.template)

    def fresh(self) -> None:
        self.number += 1
        self.state = self.edge.folder / f"state-{self.number}"
        if self.template.exists():
            shutil.copytree(self.template, self.state)
        self.edge.settings.__dict__["state_dir"] = self.state

    async def start(
        self, desired: Desired | None, seconds: float, then: Callable[[ReleaseKeeper], Awaitable[None]] | None = None
    ) -> None:
        keeper = self.edge.keeper()
        async with keeper.running():
            task = asyncio.create_task(keeper.run())
            try:
                await self.edge.clock.settle()
                if desired is not None:
                    await keeper.desire(desired)
                await self.edge.clock.pass_s(seconds)
                if then is not None:
                    await then(keeper)
            finally:
                task.cancel()
                (ended,) = await asyncio.gather(task, return_exceptions=True)
            if isinstance(ended, BaseExceptionGroup):
                raise ended

    def cut(self, doing: Callable[[], Awaitable[None]], step: int, *, lossy: bool) -> Power:
        """Do something until the power is cut; what was not synced is lost, or is not."""
        self.fresh()
        with power(self.state, step) as disk:
            try:
                asyncio.run(doing())
            except BaseExceptionGroup as group:
                if group.subgroup(PowerCut) is None:
                    raise
        if lossy and step:
            disk.lose()
        return disk

    def check(self, goal: str) -> None:
        """Alone it starts with a whole release; with a network it gets where it was going."""
        self.edge.fetcher.down = True
        with unsynced():
            self._check(goal)
        shutil.rmtree(self.state)

    def _check(self, goal: str) -> None:
        async def alone(keeper: ReleaseKeeper) -> None:
            async with keeper.leased() as decoder:
                assert decoder.manifest.release in ("embridge-1", "embridge-2")
            current = Slots(self.state / FOLDER).current()
            assert current is not None
            assert read_bundle(Slots(self.state / FOLDER).path(current.digest), digest=current.digest)

        asyncio.run(self.start(None, 0, alone))
        self.edge.fetcher.down = False
        asyncio.run(self.start(self.second, 100))
        assert Slots(self.state / FOLDER).current().name == goal
        assert Slots(self.state / FOLDER).pointer().probation is None

    async def update(self) -> None:
        """Fetch, test, activate, decode, commit."""

        async def decode(keeper: ReleaseKeeper) -> None:
            async with keeper.leased():
                pass
            await self.edge.clock.pass_s(50)

        await self.start(self.second, 20, decode)

    async def go_back(self) -> None:
        """Activate, and be sent back by an operator."""

        async def back(keeper: ReleaseKeeper) -> None:
            if keeper.progress.phase is UpdatePhase.PROBATION:
                await keeper.rollback("worse")

        await self.start(self.second, 20, back)


def every(rig: Rig, doing: Callable[[], Awaitable[None]], *, stride: int, goals: tuple[str, ...]) -> int:
    """Cut the power before each step; how many there are."""
    total = rig.cut(doing, 0, lossy=False).steps
    assert total > 25
    rig.check(goals[-1])
    for step in range(1, total + 1, stride):
        for lossy in (False, True):
            rig.cut(doing, step, lossy=lossy)
            try:
                rig.check(goals[0])
            except AssertionError as error:
                if len(goals) == 1:
                    raise AssertionError(f"cut before step {step} of {total}, lossy: {lossy}") from error
                assert Slots(rig.state / FOLDER).current().name == goals[1]
    return total
