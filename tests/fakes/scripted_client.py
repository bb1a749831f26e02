"""A WorkerClient without sockets: loads and unloads end when and how the test says."""

import asyncio
from collections.abc import Callable

from tensorgate.gateway.dispatch.worker_client import LoadedServable, LoadOptions
from tensorgate.protos.status_codes import ServingError
from tensorgate.protos.tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap


class ScriptedClient:
    """What loaders and placement use of a WorkerClient; ``calls`` records it.

    A load of ``fatal_version`` calls ``on_fatal`` a turn after it began, to make the client die of it.
    """

    def __init__(self, name: str = "worker-0") -> None:
        self.name = name
        self.is_closed = False
        self.calls: list[tuple[str, int]] = []
        self.load_error: ServingError | None = None
        self.may_load = asyncio.Event()
        self.may_load.set()
        self.fatal_version: int | None = None
        self.on_fatal: Callable[[], None] = lambda: None
        self._died: asyncio.Future[ServingError] = asyncio.get_running_loop().create_future()

    def die(self, cause: ServingError) -> None:
        """As WorkerClient.close: what is under way fails with ``cause``."""
        self.is_closed = True
        self._died.set_result(cause)

    async def load(
        self, servable_handle: int, _name: str, version: int, _path: str, _platform: str, _options: LoadOptions
    ) -> LoadedServable:
        self.calls.append(("load", servable_handle))
        if version == self.fatal_version:
            await asyncio.sleep(0)
            self.on_fatal()
        allowed = asyncio.ensure_future(self.may_load.wait())
        await asyncio.wait({allowed, self._died}, return_when=asyncio.FIRST_COMPLETED)
        allowed.cancel()
        if self._died.done():
            raise self._died.result()
        if self.load_error is not None:
            raise self.load_error
        return LoadedServable(signatures_of(version), 1000)

    async def unload(self, servable_handle: int) -> None:
        self.calls.append(("unload", servable_handle))
        if self._died.done():
            raise self._died.result()


def signatures_of(version: int) -> bytes:
    """What a version's signatures are said to be."""
    made = SignatureDefMap()
    made.signature_def[f"of_{version}"].SetInParent()
    return made.SerializeToString()
