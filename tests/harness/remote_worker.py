"""A worker on the network as tests see it: a process that no gateway starts."""

import contextlib
import pathlib
import subprocess
from collections.abc import Callable, Iterator

from tensorgate.gateway.python_command import python_command
from tests.harness.model_server import free_ports_in_a_row, wait_until

TIMEOUT_S = 60.0


class RemoteWorker:
    """Runs from its construction on, and again after ``start``; ``log`` is that of all its lives."""

    def __init__(self, folder: pathlib.Path, *flags: str, host: str = "127.0.0.1", port: int = 0) -> None:
        """``port``: 0 is any that is free, with the two behind it."""
        self.port = port or free_ports_in_a_row(3)
        self.address = f"tcp://{host}:{self.port}"
        self._log_path = folder / f"worker-{host.strip('[]')}-{self.port}.log"
        self._flags = flags
        self.start()

    def start(self) -> None:
        with self._log_path.open("ab") as log:
            command = [*python_command("tensorgate.workers.main"), f"--listen={self.address}", *self._flags]
            self.process = subprocess.Popen(command, stderr=log, stdout=log)

    @property
    def log(self) -> str:
        return self._log_path.read_text(encoding="utf-8", errors="replace")

    def wait_until_it_listens(self) -> None:
        wait_until(lambda: "waits for its gateway" in self.log, "the worker listens", TIMEOUT_S)


StartWorker = Callable[..., RemoteWorker]


@contextlib.contextmanager
def running_workers(log_folder: pathlib.Path) -> Iterator[StartWorker]:
    """Gives a function that starts workers with the flags given; kills them at the end."""
    workers: list[RemoteWorker] = []

    def start(*flags: str, host: str = "127.0.0.1", port: int = 0) -> RemoteWorker:
        workers.append(RemoteWorker(log_folder, *flags, host=host, port=port))
        return workers[-1]

    yield start
    for worker in workers:
        worker.process.kill()
        worker.process.wait()
