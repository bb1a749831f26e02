"""The manager's Publisher: puts loaded versions into the route table, and takes them out.

The end of a version's line: loader harness → WorkerLoader → route table. Owned by the edge loop's thread.
"""

from tensorgate.gateway.core.loader import Loader
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.dispatch.route_table import RouteTable
from tensorgate.gateway.dispatch.worker_loader import WorkerLoader


class RoutePublisher:
    """A core Publisher over one RouteTable, for versions loaded by WorkerLoader."""

    def __init__(self, route_table: RouteTable) -> None:
        self._route_table = route_table

    async def publish(self, servable_id: ServableId, loader: Loader) -> None:
        """Publisher.publish: readers take the table's newest snapshot at each look-up, so there is nothing to wait for.

        Raises TypeError for a loader of another kind, which has no place that requests could go to.
        """
        if not isinstance(loader, WorkerLoader):
            raise TypeError(f"{servable_id} was loaded by {type(loader).__name__}, not by a WorkerLoader")
        self._route_table.publish(servable_id, loader)

    async def withdraw(self, servable_id: ServableId) -> None:
        """Publisher.withdraw: returns when the last request that used the version has ended."""
        await self._route_table.withdraw(servable_id)
