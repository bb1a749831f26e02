from typing import Any

import zmq
from typing_extensions import Self, disjoint_base

from tensorgate._native.batching_options import BatchingOptions
from tensorgate._native.python_servable import PythonServable
from tensorgate._native.reply_memory import SharedReplies
from tensorgate._native.request_memory import SharedRequests
from tensorgate._native.session import Session

@disjoint_base
class DataLoop:
    """The worker's data plane: binds its endpoints on construction and serves them, on native threads, from start on.

    Methods are for any thread; those that block release the GIL. Counters may be read at any time and be a moment old.

    ``secret_key``: of CURVE, as text, for ZeroMQ's endpoints; who may connect is up to the context's ZAP handler.

    Raises OSError when an endpoint cannot be bound or there are no threads or descriptors, ValueError for
    num_execution_threads < 1 or for no key. A ``send_high_water_mark`` of 0 leaves replies that the gateway does not
    read yet to ZeroMQ, however many they are; beyond any other the loop keeps them itself. ``requests`` and
    ``replies``, both or none: the memory that the gateway shares; large payloads of requests on the stream are there
    then.
    """

    num_execution_threads: int
    """Requests that one servable runs at a time."""

    def __new__(
        cls,
        context: zmq.Context[Any],
        data_endpoint: str,
        cancel_endpoint: str,
        epoch: int,
        num_execution_threads: int,
        send_high_water_mark: int = 0,
        stream_path: str = "",
        requests: SharedRequests | None = None,
        replies: SharedReplies | None = None,
        secret_key: bytes = b"",
    ) -> Self: ...
    def start(self) -> None:
        """Starts the threads. Once: RuntimeError after that."""

    def drain(self) -> None:
        """Refuses new requests (UNAVAILABLE); blocks until those in flight have run and ZeroMQ has their replies."""

    def stop(self) -> None:
        """Ends the threads and closes the sockets; requests that have not begun to run are answered CANCELLED.

        Blocks until those that have begun are done; a gateway that does not take their replies is given a second.
        Servables stay registered. Idempotent; also the end of an object that nobody stopped.
        """

    def register_servable(
        self, handle: int, servable: Session | PythonServable, batching: BatchingOptions | None = None
    ) -> None:
        """Requests with that handle run on ``servable``, which is kept open, a session's merged as ``batching`` says.

        Raises ValueError for a handle in use, OSError when there are no threads for the batches.
        """

    def set_weight(self, handle: int, weight: int) -> bool:
        """The servable's share of the threads beside others that have more to do than there is time; 1 at first.

        Once started. False: there is none of that handle. Raises ValueError for less than 1.
        """

    def batch_queues(self, handle: int) -> list[dict[str, Any]]:
        """What has happened in each of the handle's batch queues: names and totals since it was registered.

        ``batches_of_size`` counts batches of 1, 2, up to 4, up to 8 … rows with their padding; ``typical_us`` is what
        runs of these sizes take, 0 where there were none. For TensorFlow Serving's metrics, by their buckets:
        ``waits`` (see batch_counters) of requests, ``request_sizes`` and their sum ``request_rows`` (a request counts
        once for each input), ``batch_sizes``, and ``paddings``: for each allowed size that, rows of padding and their
        sum.
        """

    def teach_batching(self, handle: int, request: bytes, run_us: int) -> bool:
        """That a run of as many rows as the serialized PredictRequest has takes so long, before it has run any.

        False: the handle's requests are not merged, or this one is not.
        """

    def withdraw(self, handle: int) -> Session | PythonServable | None:
        """Makes the handle unknown; blocks until its last request has run. Its servable, or None: no such handle."""

    @property
    def handles(self) -> list[int]:
        """Of the servables that are registered."""

    @property
    def in_flight(self) -> int:
        """Requests taken in and not answered."""

    @property
    def running(self) -> int:
        """Of those in flight, the ones that execution threads are running."""

    @property
    def completed(self) -> int:
        """Requests answered, with whatever code."""

    @property
    def malformed(self) -> int:
        """Messages dropped since they were no request, or no cancel."""

    @property
    def foreign(self) -> int:
        """Requests and cancels dropped since they were for another incarnation of the worker."""

    @property
    def duplicates(self) -> int:
        """Requests dropped since one with their id was in flight."""

    @property
    def surprises(self) -> int:
        """Requests that were expected to take microseconds and took so long that another thread took the loop over."""

    @property
    def unsent(self) -> int:
        """Replies dropped since their gateway had gone."""
