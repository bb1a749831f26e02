"""A worker pool for placements whose workers the test brings itself: any of their names, all versions together."""

from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.dispatch.worker_pool import Home


class SharedHome:
    """Homes of ``num_replicas`` copies on workers of these names; ``opened`` are the versions that are in theirs."""

    wants_workers = True

    def __init__(
        self, *names: str, num_replicas: int = 1, ends_with_version: bool = False, may_lack: bool = False
    ) -> None:
        self.home = Home(frozenset(names or ("worker-0", "worker-1")), num_replicas, ends_with_version, may_lack)
        self.opened: list[ServableId] = []

    async def open(self, servable_id: ServableId) -> Home:
        self.opened.append(servable_id)
        return self.home

    async def close(self, servable_id: ServableId) -> None:
        if servable_id in self.opened:
            self.opened.remove(servable_id)
