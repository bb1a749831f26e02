"""The gateway's queue of requests for one worker.

Between route and frames: what exceeds a worker's credit waits here, where cancel, deadline, priority and re-routing can
still reach it. Belongs to the edge loop's thread. Its bounds are ours, in requests and bytes; ZeroMQ's never decide.
"""

from bisect import insort
from collections import OrderedDict

from tensorgate.gateway.dispatch.pending_request import PendingRequest
from tensorgate.protos.status_codes import Code, ServingError


class RequestQueue:
    """Larger priorities first, arrival order within one priority; removal from the middle costs no search."""

    def __init__(self, worker_name: str, max_requests: int, max_bytes: int) -> None:
        self._worker_name = worker_name
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._num_requests = 0
        self._num_bytes = 0
        # One lane per priority in use, and the negated priorities in ascending order: the first lane is served first.
        self._lanes: dict[int, OrderedDict[PendingRequest, None]] = {}
        self._order: list[int] = []

    def __len__(self) -> int:
        return self._num_requests

    @property
    def num_bytes(self) -> int:
        """The payloads waiting here."""
        return self._num_bytes

    def push(self, request: PendingRequest) -> None:
        """Appends to the lane of the request's priority.

        Raises ServingError RESOURCE_EXHAUSTED, naming the limit, when the request does not fit.
        """
        if self._num_requests >= self._max_requests:
            raise ServingError(
                Code.RESOURCE_EXHAUSTED,
                f"The queue of {self._worker_name} is full: {self._num_requests} requests wait,"
                f" max_queued_requests is {self._max_requests}; retry later.",
            )
        if self._num_bytes + request.payload_bytes > self._max_bytes:
            raise ServingError(
                Code.RESOURCE_EXHAUSTED,
                f"The queue of {self._worker_name} is full: {self._num_bytes} bytes wait, this request has"
                f" {request.payload_bytes}, max_queued_bytes is {self._max_bytes}; retry later.",
            )
        rank = -request.metadata.priority
        lane = self._lanes.get(rank)
        if lane is None:
            lane = self._lanes[rank] = OrderedDict()
            insort(self._order, rank)
        lane[request] = None
        self._num_requests += 1
        self._num_bytes += request.payload_bytes

    def pop(self) -> PendingRequest:
        """The next request; raises IndexError when there is none."""
        rank = self._order[0]
        request, _ = self._lanes[rank].popitem(last=False)
        self._forget(request, rank)
        return request

    def remove(self, request: PendingRequest) -> None:
        """Takes a request out that is in the queue; raises KeyError if it is not."""
        rank = -request.metadata.priority
        del self._lanes[rank][request]
        self._forget(request, rank)

    def _forget(self, request: PendingRequest, rank: int) -> None:
        self._num_requests -= 1
        self._num_bytes -= request.payload_bytes
        # Priorities are the clients' to choose: an empty lane must not stay behind.
        if not self._lanes[rank]:
            del self._lanes[rank]
            self._order.remove(rank)
