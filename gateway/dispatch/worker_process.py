"""The operating system's side of one incarnation of a worker: start, output, signals, exit.

Under the supervisor, on the edge loop's thread. The exit is noticed by a pidfd, so no thread waits and no signal
handler of the process is touched.

Source: pidfd_open(2), wait(2).
"""

import asyncio
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from tensorgate.gateway.dispatch.process_output import ProcessOutput

# Where the kernel has no pidfd (before 5.3, some sandboxes) the exit is looked for this often.
EXIT_POLL_S = 0.05


class WorkerProcess:
    """A running worker and the only write end of the pipe whose end-of-file tells it that the gateway has gone.

    ``on_exit`` is called once, on the edge loop, when it has exited and been reaped and its output has been logged.
    Whatever else it left in its process group is killed with it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        command: Sequence[str],
        environment: Mapping[str, str],
        output_logger: logging.Logger,
        on_exit: Callable[[], None],
        fds: Sequence[int] = (),
    ) -> None:
        """Starts ``command`` with ``--parent_fd`` appended, in a session of its own. Raises OSError if it cannot.

        ``fds``: descriptors that it inherits under their own numbers; they stay the caller's.

        A session of its own, so that Ctrl-C in a terminal reaches the gateway only, which then stops its workers.
        Takes the few milliseconds that fork and exec take.
        """
        self._loop = loop
        self._on_exit = on_exit
        read_fd, self._parent_fd = os.pipe()
        try:
            self._popen = subprocess.Popen(
                [*command, f"--parent_fd={read_fd}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=dict(environment),
                close_fds=True,
                pass_fds=[read_fd, *fds],
                start_new_session=True,
            )
        except BaseException:
            os.close(self._parent_fd)
            raise
        finally:
            os.close(read_fd)
        self._outputs = [_take_over(loop, pipe, output_logger) for pipe in (self._popen.stdout, self._popen.stderr)]
        self._exited = asyncio.Event()
        self._pidfd = -1
        self._poll_timer: asyncio.TimerHandle | None = None
        try:
            self._pidfd = os.pidfd_open(self._popen.pid)
            loop.add_reader(self._pidfd, self._look_for_exit)
        except OSError:
            self._poll_timer = loop.call_later(EXIT_POLL_S, self._look_for_exit)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def has_exited(self) -> bool:
        return self._exited.is_set()

    @property
    def last_words(self) -> str:
        """The last line it wrote to stderr, or else to stdout; may be empty."""
        stdout, stderr = self._outputs
        return stderr.last_line or stdout.last_line

    @property
    def exit_signal(self) -> signal.Signals | None:
        """Which signal ended it; None where none did, or one without a name. Only after it has exited."""
        try:
            return signal.Signals(-self._popen.returncode)
        except ValueError:
            return None

    def describe_exit(self) -> str:
        """How it ended, as the end of a sentence that begins with its name. Only after it has exited."""
        code = self._popen.returncode
        if code is None:
            raise RuntimeError(f"process {self.pid} is running")
        if code >= 0:
            return f"exited with code {code}"
        try:
            return f"was killed by signal {-code} ({signal.Signals(-code).name})"
        except ValueError:  # a real-time signal has no name
            return f"was killed by signal {-code}"

    def terminate(self) -> None:
        """SIGTERM to the worker; nothing if it has exited."""
        if not self.has_exited:
            self._popen.terminate()

    def kill(self) -> None:
        """SIGKILL to the worker and its process group; nothing if it has exited."""
        if not self.has_exited:
            self._kill_group()

    async def wait(self, timeout_s: float) -> bool:
        """True once it has exited, False after ``timeout_s`` seconds."""
        try:
            await asyncio.wait_for(self._exited.wait(), timeout_s)
        except asyncio.TimeoutError:
            return False
        return True

    def _look_for_exit(self) -> None:
        # Looked at without reaping: as long as the process is a zombie its group's number cannot be given to another.
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if self._pidfd < 0:
                self._poll_timer = self._loop.call_later(EXIT_POLL_S, self._look_for_exit)
            return
        self._kill_group()
        self._popen.wait()
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
        for output in self._outputs:
            output.close()
        os.close(self._parent_fd)
        self._exited.set()
        self._on_exit()

    def _kill_group(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError) as error:
            # No process of the group is left that we may kill; the child itself is reaped in any case.
            logging.getLogger("tensorgate.supervisor").debug("killing process group %d: %s", self.pid, error)


def _take_over(loop: asyncio.AbstractEventLoop, pipe: IO[bytes] | None, logger: logging.Logger) -> ProcessOutput:
    """Makes the reading end of a Popen pipe ours, past Python's buffering."""
    if pipe is None:
        raise TypeError("the child was started without a pipe")
    with pipe:
        return ProcessOutput(loop, os.dup(pipe.fileno()), logger)
