"""The seam between the dispatcher and one incarnation of one worker.

The dispatcher reaches a Worker by its endpoints, from native threads; WorkerClient is the Worker that the supervisor
makes, and has its control socket.
"""

from dataclasses import dataclass
from typing import Protocol

from tensorgate._native.reply_memory import ReplyMemory
from tensorgate.protos.worker_network import WorkerKey


@dataclass(frozen=True, slots=True)
class WorkerEndpoints:
    """Where one incarnation listens: ZeroMQ addresses, each used by this incarnation only.

    ``stream``: path of a unix socket on which it takes requests too, from gateways of its own host; empty: none.
    ``replies``: the memory that it was given for large ones.
    ``key``: that of workers on the network; None: the addresses are in the clear.
    """

    data: str
    control: str
    cancel: str
    stream: str = ""
    replies: ReplyMemory | None = None
    key: WorkerKey | None = None


class Worker(Protocol):
    """One incarnation of a worker process that is up.

    A respawned worker is another Worker; ``name`` is what both share, e.g. ``worker-0``.
    """

    @property
    def name(self) -> str: ...

    @property
    def number(self) -> int:
        """Of the incarnation, among all of this gateway's; never reused."""
        ...

    @property
    def epoch(self) -> int:
        """What its frames are marked with; another one for every incarnation of a worker."""
        ...

    @property
    def endpoints(self) -> WorkerEndpoints: ...

    @property
    def num_execution_threads(self) -> int:
        """How many requests it runs at a time; known once it is up."""
        ...


@dataclass(frozen=True, slots=True)
class Replica:
    """One loaded copy of a servable version: the worker that holds it and its handle there."""

    worker: Worker
    servable_handle: int
