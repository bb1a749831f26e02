"""How a supervisor runs the fake worker as a process: quick to notice, quick to start again."""

import pathlib
import sys

from tensorgate.gateway.dispatch.supervisor import WorkerOptions

FAKE_WORKER = pathlib.Path(__file__).with_name("fake_worker.py")

FAKE_WORKER_OPTIONS = WorkerOptions(
    name="worker-0",
    num_execution_threads=2,
    command=(sys.executable, str(FAKE_WORKER)),
    start_timeout_s=20.0,
    heartbeat_interval_s=0.05,
    heartbeat_timeout_s=5.0,
    min_backoff_s=0.01,
)
