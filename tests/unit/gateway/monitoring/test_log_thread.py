"""The thread that writes a log: again and again while it runs, and once more at its end."""

import threading

import pytest

from tensorgate.gateway.monitoring import log_thread
from tensorgate.gateway.monitoring.log_thread import LogThread


def test_what_comes_while_it_runs_is_written_without_waiting_for_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_thread, "WRITE_INTERVAL_S", 0.001)
    written = threading.Semaphore(0)
    thread = LogThread("log", written.release)
    thread.start()
    for _ in range(3):
        assert written.acquire(timeout=30)
    thread.stop()


def test_the_rest_is_written_when_it_stops_and_nothing_afterwards() -> None:
    names: list[str] = []
    thread = LogThread("log", lambda: names.append(threading.current_thread().name))
    thread.start()
    thread.start()
    thread.stop()
    thread.stop()
    thread.start()
    assert names == ["log"]


def test_one_that_never_started_stops_at_once() -> None:
    LogThread("log", lambda: pytest.fail("nothing has been started")).stop()
