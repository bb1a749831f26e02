"""All that the page shows, as one JSON document: the server, its models with their versions' history, workers, traffic.

Between the parts that know and the console's app; on the edge loop.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

from tensorgate.gateway.console.state_history import StateHistory
from tensorgate.gateway.console.traffic import SAMPLE_INTERVAL_S, TrafficHistory
from tensorgate.gateway.core.servable_state import ServableState
from tensorgate.gateway.dispatch.worker_client import WorkerHealth


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What is known of the server from its start on. A port is None where nothing listens."""

    version: str
    grpc_edge: str
    grpc_port: int | None
    rest_port: int | None
    started_us: int


class AnsweringWorker(Protocol):
    """A WorkerClient, as the page sees it."""

    @property
    def health(self) -> WorkerHealth | None:
        """Its last answer to a heartbeat, from wherever it runs."""
        ...


class WatchedWorker(Protocol):
    """A Supervisor or a RemoteSupervisor, as the page sees it."""

    @property
    def name(self) -> str: ...

    @property
    def pid(self) -> int | None:
        """The process that is running or starting."""
        ...

    @property
    def is_up(self) -> bool: ...

    @property
    def worker(self) -> AnsweringWorker | None:
        """While it is up."""
        ...

    @property
    def num_starts(self) -> int: ...

    @property
    def last_end(self) -> str:
        """How its last process ended; empty if none has."""
        ...


class Overview:
    """Reads everything anew at each call."""

    def __init__(
        self,
        facts: Callable[[], ServerFacts],
        trouble: Callable[[], str],
        labels: Callable[[], Mapping[str, Mapping[str, int]]],
        states: StateHistory,
        workers: Callable[[], Sequence[WatchedWorker]],
        traffic: TrafficHistory,
    ) -> None:
        """``trouble``: why the server is not ready; empty where it is. ``labels``: of each model, label to version."""
        self._facts = facts
        self._trouble = trouble
        self._labels = labels
        self._states = states
        self._workers = workers
        self._traffic = traffic

    def json(self, now_us: int, after: int) -> bytes:
        """The document; of the traffic only samples with a number above ``after``, which the page has already."""
        labels = self._labels()
        document = {
            "now_us": now_us,
            "server": asdict(self._facts()),
            "trouble": self._trouble(),
            "models": [
                {
                    "name": name,
                    "labels": dict(labels.get(name, {})),
                    "versions": [_version(states) for states in self._states.versions(name)],
                }
                for name in self._states.names()
            ],
            "workers": [_worker(worker) for worker in self._workers()],
            "traffic": {
                "interval_s": SAMPLE_INTERVAL_S,
                "samples": {
                    name: [asdict(sample) for sample in self._traffic.after(name, after)]
                    for name in self._traffic.names()
                },
            },
        }
        return json.dumps(document, separators=(",", ":")).encode()


def _version(states: Sequence[ServableState]) -> dict[str, object]:
    return {"version": str(states[-1].id.version), "history": [_state(state) for state in states]}


def _state(state: ServableState) -> dict[str, object]:
    error = state.error
    return {
        "state": state.state.name,
        "time_us": state.time_us,
        "error": None if error is None else {"code": error.code.name, "message": error.message},
    }


def _worker(worker: WatchedWorker) -> dict[str, object]:
    pid = worker.pid
    health = None if worker.worker is None else worker.worker.health
    return {
        "name": worker.name,
        "state": "UP" if worker.is_up else "STARTING" if pid is not None else "DOWN",
        "pid": pid,
        "num_starts": worker.num_starts,
        "rss_bytes": None if health is None else health.rss_bytes,
        "last_end": worker.last_end,
    }
