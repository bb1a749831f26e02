"""Loaders and a publisher without workers: each step ends when and how the test says, and is recorded."""

import asyncio
from collections.abc import Iterable

from tensorgate.gateway.core.loader import Loader
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.source import ServableData

# What a step is called in ``Script.steps``: for example ("load", 1) for version 1.
Step = tuple[str, int]


class Script:
    """What happened so far, and how steps shall end.

    A step that is held waits until the test releases it. A step that shall fail raises its errors, one an attempt, and
    succeeds when they are used up.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.errors: dict[Step, list[BaseException]] = {}
        self.reachable: set[int] = set()
        self._gates: dict[Step, asyncio.Event] = {}

    def hold(self, *steps: Step) -> None:
        for step in steps:
            self._gates[step] = asyncio.Event()

    def release(self, step: Step) -> None:
        self._gates.pop(step).set()

    def fail(self, step: Step, errors: Iterable[BaseException]) -> None:
        self.errors[step] = list(errors)

    async def do(self, step: Step) -> None:
        self.steps.append(step)
        if step in self._gates:
            await self._gates[step].wait()
        if self.errors.get(step):
            raise self.errors[step].pop(0)


class ScriptedLoader:
    """A core Loader."""

    def __init__(self, script: Script, data: ServableData) -> None:
        self._script = script
        self._version = data.id.version

    async def load(self) -> None:
        await self._script.do(("load", self._version))

    async def unload(self) -> None:
        await self._script.do(("unload", self._version))


class ScriptedPublisher:
    """A core Publisher; a held withdrawal stands for a request that still uses the version."""

    def __init__(self, script: Script) -> None:
        self._script = script

    async def publish(self, servable_id: ServableId, loader: Loader) -> None:
        assert isinstance(loader, ScriptedLoader)
        await self._script.do(("publish", servable_id.version))
        self._script.reachable.add(servable_id.version)

    async def withdraw(self, servable_id: ServableId) -> None:
        self._script.reachable.discard(servable_id.version)
        await self._script.do(("withdraw", servable_id.version))
