"""What the dispatcher keeps for one live worker: the requests it was handed, and those that wait for it.

Belongs to the edge loop's thread. A worker holds at most its credit: enough that its execution threads never wait for
the gateway, little enough that almost everything is still in the gateway's queue when it matters.
"""

from dataclasses import dataclass

from tensorgate.gateway.dispatch.pending_request import PendingRequest
from tensorgate.gateway.dispatch.request_queue import RequestQueue
from tensorgate.gateway.dispatch.worker import Worker


@dataclass(frozen=True, slots=True)
class DispatchLimits:
    """Bounds per worker. Credit = ``credit_per_thread`` × its execution threads + ``extra_credit``, in requests.

    ``max_queued_requests`` and ``max_queued_bytes`` (of payload) bound what waits in the gateway beyond the credit.
    """

    credit_per_thread: int = 4
    extra_credit: int = 4
    max_queued_requests: int = 10_000
    max_queued_bytes: int = 1 << 30


class WorkerLine:
    """See the module; ``handed`` maps request ids to requests whose reply is outstanding."""

    __slots__ = ("credit", "handed", "queue", "worker")

    def __init__(self, worker: Worker, limits: DispatchLimits) -> None:
        self.worker = worker
        self.credit = limits.credit_per_thread * worker.num_execution_threads + limits.extra_credit
        self.handed: dict[int, PendingRequest] = {}
        self.queue = RequestQueue(worker.name, limits.max_queued_requests, limits.max_queued_bytes)

    @property
    def outstanding(self) -> int:
        """Requests handed over and waiting: what a newcomer would stand behind."""
        return len(self.handed) + len(self.queue)
