"""The console's document: what it says of workers."""

import json
from dataclasses import dataclass

from tensorgate.gateway.console.overview import Overview, ServerFacts
from tensorgate.gateway.console.state_history import StateHistory
from tensorgate.gateway.console.traffic import TrafficHistory, TrafficTotals
from tensorgate.gateway.core.event_bus import EventBus
from tensorgate.gateway.core.servable_state import ServableState
from tensorgate.gateway.dispatch.worker_client import WorkerHealth


@dataclass
class Client:
    health: WorkerHealth | None


@dataclass
class ScriptedWorker:
    """A WatchedWorker whose process is on some other machine: its number means nothing here."""

    worker: Client | None
    name: str = "worker-0"
    pid: int | None = 1
    num_starts: int = 1
    last_end: str = ""

    @property
    def is_up(self) -> bool:
        return self.worker is not None


class NoTraffic:
    def totals(self) -> dict[str, TrafficTotals]:
        return {}


def workers_of(*workers: ScriptedWorker) -> list[dict[str, object]]:
    facts = ServerFacts("0.1.0", "native", 8500, 8501, 0)
    states = StateHistory(EventBus[ServableState]())
    overview = Overview(lambda: facts, lambda: "", dict, states, lambda: workers, TrafficHistory(NoTraffic()))
    found: list[dict[str, object]] = json.loads(overview.json(0, 0))["workers"]
    return found


def test_a_workers_memory_is_what_it_says_itself() -> None:
    told, silent, down = workers_of(
        ScriptedWorker(Client(WorkerHealth(0, 0, 5_000_000))),
        ScriptedWorker(Client(None)),
        ScriptedWorker(None, pid=None),
    )
    assert [each["rss_bytes"] for each in (told, silent, down)] == [5_000_000, None, None]
    assert [each["state"] for each in (told, silent, down)] == ["UP", "UP", "DOWN"]
